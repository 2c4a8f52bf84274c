"""The command line: `python -m sltlib COMMAND ...`; each command's `--help` says more."""

import difflib
import importlib
import os
import sys

# command: (module, function, what it does)
COMMANDS = {
    "figure": ("notebook.pipeline", "main", "run one notebook with a profile's parameters: figure 01 --profile mini"),
    "run": ("engine.runner", "main", "train one experiment: run dataset=fashion search=edge-popup sparsity=0.5"),
    "data": ("data", "main", "list the data sets, or prepare those of a profile"),
    "tune": ("notebook.tune", "main", "search every row's recipe on the validation split"),
    "list": ("engine.store", "list_main", "list the stored results"),
    "readme": ("notebook.readme", "main", "fill the README's tables from the committed results; --check compares"),
    "doctor": ("engine.store", "main", "explain a damaged store or pipeline; --fix repairs it"),
    "kernel": ("notebook.pipeline", "kernel_main", "register the notebooks' kernel in this environment"),
}


def main(argv=None) -> int:
    """Run one command; returns its exit status (0 right, 1 failed, 2 wrong use, 130 interrupted)."""
    alone = argv is None  # this process is ours
    argv = sys.argv[1:] if alone else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print("python -m sltlib COMMAND ...\n")
        for name, (_, _, words) in COMMANDS.items():
            print(f"  {name:8}{words}")
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        near = difflib.get_close_matches(argv[0], COMMANDS, n=1)
        words = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        print(f"sltlib has no command {argv[0]!r}: {words}", file=sys.stderr)
        return 2
    _environment(alone)
    module, function, _ = COMMANDS[argv[0]]
    try:
        return getattr(importlib.import_module(f"sltlib.{module}"), function)(argv[1:]) or 0
    except (ValueError, OSError, RuntimeError) as error:
        if os.environ.get("SLT_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: finished trainings are kept", file=sys.stderr)
        return 130


def _environment(alone):
    """Set the allocator's variables; they are read when a process starts, so start again if it is ours."""
    from sltlib.engine.runner import ENVIRONMENT

    missing = {name: value for name, value in ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(missing)
    if missing and alone and sys.platform == "linux" and not os.environ.get("SLT_NO_REEXEC"):
        os.execv(sys.executable, [sys.executable, "-m", "sltlib", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

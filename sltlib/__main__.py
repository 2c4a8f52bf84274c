"""The command line: `python -m sltlib COMMAND ...`; each command's `--help` says more."""

import importlib
import os
import select
import sys

from sltlib.base import machine, settings, words

# command: (module, function, what it does)
COMMANDS = {
    "figure": ("notebook.pipeline", "main", "run one notebook with a profile's parameters: figure 01 --profile mini"),
    "run": ("engine.commands", "run_main", "train one experiment: run dataset=fashion search=edge-popup sparsity=0.5"),
    "data": ("notebook.stage", "main", "list the data sets, or prepare those of a profile"),
    "tune": ("notebook.tune", "main", "search every row's recipe on the validation split"),
    "predict": ("engine.predict", "main", "classify pictures by a ticket: predict TICKET IMAGE..."),
    "train": ("notebook.plan", "main", "train what a profile lacks, resumably and without Jupyter: train --profile study"),
    "list": ("notebook.plan", "list_main", "list the stored results, or how far a profile is: list --profile study"),
    "claims": ("notebook.primary", "main", "what the stored trainings of a profile say of the claims: claims --profile study"),
    "pack": ("notebook.sharing", "pack_main", "write stored results to one file, without their networks: pack FILE --profile study"),
    "unpack": ("notebook.sharing", "unpack_main", "take the results of such files into the store: unpack FILE..."),
    "readme": ("notebook.readme", "main", "fill the README's tables from the committed results; --check compares"),
    "doctor": ("engine.doctor", "main", "explain a damaged store or pipeline; --fix repairs it"),
    "kernel": ("notebook.pipeline", "kernel_main", "register the notebooks' kernel in this environment"),
}


def main(argv=None) -> int:
    """Run one command; returns its exit status (0 right, 1 failed, 2 wrong use, 130 interrupted)."""
    alone = argv is None  # this process is ours
    argv = sys.argv[1:] if alone else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        print(f"sltlib has no command {words.shown(argv[0])}{words.close(argv[0], COMMANDS)}", file=sys.stderr)
        return 2
    try:
        machine.check_supported()
        _environment(alone)
        module, function, _ = COMMANDS[argv[0]]
        status = getattr(importlib.import_module(f"sltlib.{module}"), function)(argv[1:]) or 0
        sys.stdout.flush()
        return status
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, BrokenPipeError) and _unread():
            return 0
        if settings.get("SLT_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: finished trainings are kept", file=sys.stderr)
        return 130


def _unread():
    """Whether whoever read standard output has enough, as in `list | head`; what is left then goes nowhere."""
    look = select.poll()
    look.register(sys.stdout.fileno(), 0)
    if not look.poll(0):  # it is heard: something else broke
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _help():
    commands = [f"  {name:8}{about}" for name, (_, _, about) in COMMANDS.items()]
    variables = [f"  {name:18}{about}" for name, about in settings.VARIABLES.items()]
    return "\n".join(
        ["python -m sltlib COMMAND ...\n", *commands, "\nEnvironment (relative paths mean the folder you are in):\n", *variables]
    )


def _environment(alone):
    """Set the allocator's variables; they are read when a process starts, so start again if it is ours."""
    missing = {name: value for name, value in machine.ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(missing)
    if missing and alone and sys.platform == "linux" and not settings.get("SLT_NO_REEXEC"):
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # with the interpreter's own options


if __name__ == "__main__":
    sys.exit(main())

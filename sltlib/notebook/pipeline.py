"""One notebook of the pipeline: papermill with a profile's parameters, progress, and no orphans.

What `dvc repro` runs for each figure: `python -m sltlib figure 02_table1_cnn --profile mini`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from sltlib.base import files, machine, paths
from sltlib.base.progress import StatusLine
from sltlib.base.words import close, shown
from sltlib.notebook import outputs, parameters, profiles

POLL = 0.5  # seconds between looks at the owner


def main(argv=None) -> int:
    """`figure NAME --profile P`: run one notebook into results/<profile>/<notebook>.

    Returns 0, or 1 when a cell failed, 130 when interrupted, 138 when the kernel died.
    """
    parser = argparse.ArgumentParser(prog="python -m sltlib figure", description=main.__doc__.split("\n")[0])
    parser.add_argument("name", help="02_table1_cnn, table1_cnn or 02")
    words = "a profile of params.yaml, or draft for the notebook's own defaults"
    parser.add_argument("--profile", default="mini", help=words)
    args = parser.parse_args(argv)

    notebook = resolve(args.name)
    if args.profile != profiles.DRAFT:
        profiles.block(args.profile, notebook)  # a clear error for an unknown profile
        parameters.validate(args.profile, [notebook])
    return execute(notebook, args.profile)


def resolve(name: str) -> str:
    """The notebook's full name from `02_table1_cnn`, `table1_cnn`, `02` or a path to it; of a draft its file's name."""
    name = Path(name).name.removesuffix(".ipynb")
    known = profiles.names()
    if name not in known and name in {p.stem for p in paths.NOTEBOOKS.glob("*.ipynb")}:
        return name
    found = [n for n in known if name in (n, n.split("_")[0], n.partition("_")[2])]
    if len(found) != 1:
        raise ValueError(f"there is no notebook {shown(name)}{close(name, known)}")
    return found[0]


def execute(notebook: str, profile: str) -> int:
    """Run a notebook; leaves executed.ipynb and timing.json beside its outputs. Returns an exit status."""
    output = outputs.folder(profile, notebook)
    output.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _stop)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, _stop)
    threading.Thread(target=_watch_owner, args=(_owners(),), daemon=True).start()

    with tempfile.TemporaryDirectory(prefix="slt-") as scratch:
        status = Path(scratch) / "status.json"
        # The kernel and its workers inherit these; what the reader has set stays.
        for variable, value in {**machine.ENVIRONMENT, "JUPYTER_PREFER_ENV_PATH": "1"}.items():
            os.environ.setdefault(variable, value)
        if profile == "smoke":
            os.environ.setdefault("SLT_COMPILE", "0")  # two minutes leave no time for a compiler
        os.environ.update(SLT_STATUS=str(status), SLT_PROFILE=profile, JUPYTER_RUNTIME_DIR=scratch)
        os.environ["JPY_SESSION_NAME"] = str(paths.NOTEBOOKS / f"{notebook}.ipynb")  # as Jupyter says what it runs
        began = time.time()
        with StatusLine(f"{notebook} ({profile})", status) as progress:
            code = _papermill(notebook, profile, output, scratch)
        done = progress.read()
    if code == 0:
        (output / "tickets").mkdir(exist_ok=True)
        missing = [name for name in outputs.OUTPUTS if not (output / name).exists()]
        if missing:
            _say(f"{notebook} left no {', '.join(missing)} in {output}")
            return 1
        _timing(output, notebook, profile, began, done)
        _say(f"{notebook} ({profile}): {time.time() - began:.0f} s, in {_short(output)}")
    elif profile != profiles.DRAFT:
        _say(f"Finished trainings are kept. `git checkout {_short(output)}` brings committed results back.")
    return code


def _papermill(notebook, profile, output, scratch):
    # A grammar that jsonschema builds at import, 1.5 s; it does without when the import fails.
    sys.modules.setdefault("rfc3987_syntax", None)
    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    # Sockets in a folder of this run's own: no race for ports or names, no warning about open ones. Paths must be short.
    sockets = {"transport": "ipc", "ip": f"{scratch}/k"} if os.name == "posix" and len(scratch) < 80 else {}
    executed = output / "executed.ipynb"
    try:
        papermill.execute_notebook(
            paths.NOTEBOOKS / f"{notebook}.ipynb",
            executed,
            parameters=profiles.block(profile, notebook),
            kernel_name="python3",
            progress_bar=False,
            cwd=str(paths.ROOT),
            extra_arguments=["--log-level=50"],
            config=Config({"KernelManager": sockets}),
        )
        return 0
    except papermill.PapermillExecutionError as error:
        _say(f"{notebook} failed in cell [{error.exec_count}]: {error.ename}: {_uncoloured(error.evalue)}")
        trace = [line for line in _uncoloured("\n".join(error.traceback)).splitlines() if line.strip()]
        _say("\n".join(f"    {line}" for line in trace[-12:]))
        _say(f"The whole of it is in {_short(executed)}.")
        return 1
    except DeadKernelError:
        _hush_cancelled()
        _say(f"{notebook}: its kernel died (killed, or out of memory?)")
        return 138
    except KeyboardInterrupt:
        _hush_cancelled()
        _say(f"{notebook}: interrupted")
        return 130


def _hush_cancelled():
    """Else asyncio prints the cell that did not end at length."""
    import logging

    logging.getLogger("asyncio").disabled = True


def _owners():
    """Pids from this process up to the dvc that runs it, past the shell that may stand between; else [].

    A killed dvc leaves its children running, and they would write on beside the next run's.
    """
    if "DVC_STAGE" not in os.environ:
        return []
    import psutil

    chain = []
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process().parents():
            chain.append(process.pid)
            if process.name() not in ("sh", "dash", "bash", "zsh", "fish", "ksh"):
                break
    return chain


def _watch_owner(chain):
    while chain:
        time.sleep(POLL)
        if _owners() != chain:  # a dead owner's children move to another parent at once
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _stop(number, frame):
    _hush_cancelled()  # the kernel may die before this process has let go of its cell
    # Within five seconds in any case: the kernel and the workers end when this process does.
    timer = threading.Timer(5, os._exit, [128 + number])
    timer.daemon = True
    timer.start()
    raise SystemExit(128 + number)


def _timing(output, notebook, profile, began, status):
    record = {
        "notebook": notebook,
        "profile": profile,
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "seconds": round(time.time() - began, 1),
        "trainings": status.get("total", 0),
        "cores": machine.cores(),
        "machine": platform.platform(),
        "python": platform.python_version(),
    }
    files.write(output / "timing.json", json.dumps(record, indent=1) + "\n")


def _say(text):
    print(text, file=sys.stderr, flush=True)


def _uncoloured(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", str(text))


def _short(path):
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else str(path)


def kernel_main(argv=None) -> int:
    """`kernel`: register the kernel `python3` in this environment, with the allocator's variables."""
    parser = argparse.ArgumentParser(prog="python -m sltlib kernel", description=kernel_main.__doc__)
    parser.add_argument("--prefix", default=sys.prefix, help="the environment's folder (default: this one)")
    command = [sys.executable, "-m", "ipykernel", "install", "--prefix", parser.parse_args(argv).prefix]
    command += ["--name", "python3", "--display-name", "Python 3 (sltlib)"]
    for name, value in machine.ENVIRONMENT.items():
        command += ["--env", name, value]
    return subprocess.run(command, stdout=subprocess.DEVNULL).returncode

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

from sltlib.base import paths
from sltlib.engine import runner
from sltlib.notebook import outputs, parameters, profiles

POLL = 0.5  # seconds between looks at progress and at the owner
LINE_EVERY = 30  # seconds between lines of progress where there is no terminal


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
    """The notebook's full name from `02_table1_cnn`, `table1_cnn`, `02` or a path to it."""
    name = Path(name).name.removesuffix(".ipynb")
    known = profiles.names()
    found = [n for n in known if name in (n, n.split("_")[0], n.partition("_")[2])]
    if len(found) != 1:
        raise ValueError(f"there is no notebook {name!r}; there are: {', '.join(known) or 'none'}")
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
        for variable, value in {**runner.ENVIRONMENT, "JUPYTER_PREFER_ENV_PATH": "1"}.items():
            os.environ.setdefault(variable, value)
        if profile == "smoke":
            os.environ.setdefault("SLT_COMPILE", "0")  # two minutes leave no time for a compiler
        os.environ.update(SLT_STATUS=str(status), SLT_PROFILE=profile, JUPYTER_RUNTIME_DIR=scratch)
        began = time.time()
        with Progress(f"{notebook} ({profile})", status) as progress:
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

    # Sockets in a folder: no race for ports, no warning about open ones. Their paths must be short.
    ipc = os.name == "posix" and len(scratch) < 40
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
            config=Config({"KernelManager": {"transport": "ipc" if ipc else "tcp"}}),
        )
        return 0
    except papermill.PapermillExecutionError as error:
        _say(f"{notebook} failed in cell [{error.exec_count}]: {error.ename}: {_plain(error.evalue)}")
        trace = [line for line in _plain("\n".join(error.traceback)).splitlines() if line.strip()]
        _say("\n".join(f"    {line}" for line in trace[-12:]))
        _say(f"The whole of it is in {_short(executed)}.")
        return 1
    except DeadKernelError:
        _say(f"{notebook}: its kernel died (killed, or out of memory?)")
        return 138
    except KeyboardInterrupt:
        import logging

        logging.getLogger("asyncio").disabled = True  # else it prints the cancelled cell at length
        _say(f"{notebook}: interrupted")
        return 130


class Progress:
    """Draws the one-line status that `run` leaves in a file: trainings done, percent, time left.

    On a terminal one line that changes; elsewhere a line every 30 seconds, none under CI or SLT_QUIET.
    """

    def __init__(self, title, path, stream=None, every=LINE_EVERY):
        self.title, self.path, self.stream, self.every = title, path, stream or sys.stderr, every
        self.over = threading.Event()
        self.last, self.printed = "", time.monotonic()
        self.quiet = bool(os.environ.get("CI") or os.environ.get("SLT_QUIET"))

    def __enter__(self):
        self.thread = threading.Thread(target=self._loop, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        if self.last and self.stream.isatty():
            self.stream.write("\r" + " " * len(self.last) + "\r")
            self.stream.flush()

    def read(self) -> dict:
        """The last status, or {}."""
        try:
            return json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}

    def line(self) -> str:
        """`02_table1_cnn (mini)  12/60 trainings  20 %  6 min left`; '' while nothing trains."""
        found = self.read()
        if not found.get("total"):
            return ""
        text = f"{self.title}  {found['done']}/{found['total']} trainings  {100 * found['fraction']:.0f} %"
        left = found.get("left_s")
        return text if left is None else f"{text}  {runner.duration(left)} left"

    def _loop(self):
        while not self.over.wait(POLL):
            self.draw()

    def draw(self):
        """Show the present line, if it says something new."""
        line = "" if self.quiet else self.line()
        if not line or line == self.last:
            return
        if self.stream.isatty():
            self.stream.write("\r" + line.ljust(len(self.last)))
        elif time.monotonic() - self.printed >= self.every:
            self.stream.write(line + "\n")
            self.printed = time.monotonic()
        else:
            return
        self.stream.flush()
        self.last = line


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
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "machine": platform.platform(),
        "python": platform.python_version(),
    }
    part = output / "timing.json.tmp"
    part.write_text(json.dumps(record, indent=1) + "\n")
    part.replace(output / "timing.json")


def _say(text):
    print(text, file=sys.stderr, flush=True)


def _plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", str(text))


def _short(path):
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else str(path)


def kernel_main(argv=None) -> int:
    """`kernel`: register the kernel `python3` in this environment, with the allocator's variables."""
    parser = argparse.ArgumentParser(prog="python -m sltlib kernel", description=kernel_main.__doc__)
    parser.add_argument("--prefix", default=sys.prefix, help="the environment's folder (default: this one)")
    command = [sys.executable, "-m", "ipykernel", "install", "--prefix", parser.parse_args(argv).prefix]
    command += ["--name", "python3", "--display-name", "Python 3 (sltlib)"]
    for name, value in runner.ENVIRONMENT.items():
        command += ["--env", name, value]
    return subprocess.run(command, stdout=subprocess.DEVNULL).returncode

"""Who is training what: at most one process on an experiment.

The lock is the kernel's (flock): it is free the moment its holder dies. The note beside it says who holds it.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sltlib.base import files, machine


class Busy(Exception):
    """Another live process is training this experiment."""


@contextmanager
def lease(root: Path, key: str, wait: bool = False):
    """Hold the right to train `key`; `Busy` where another live process holds it, or wait for it."""
    lock, note = _files(root, key)
    with files.named(note.parent):
        note.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise Busy(f"{key} is being trained by {_holder(note)}: wait for it, or end it") from None
    try:
        files.put(note, files.json_text({"host": machine.place(), "pid": os.getpid()}), durable=False)
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def abandoned(root: Path) -> list[tuple[Path, str]]:
    """(note, who left it) of every lease that nobody holds any more."""
    found = []
    for note in sorted((Path(root) / "leases").glob("*.json")):
        lock, _ = _files(root, note.name.removesuffix(".json"))
        try:
            with lock.acquire(timeout=0):
                found.append((note, _holder(note)))
        except Timeout:
            pass  # someone is training it
    return found


def _files(root, key):
    folder = Path(root) / "leases"
    return FileLock(folder / f"{key}.lock"), folder / f"{key}.json"


def _holder(note):
    try:
        who = json.loads(note.read_text())
        return f"process {who['pid']} on {who['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"

"""Who is training what: at most one living process on an experiment, on one machine or many that share a disk.

A lease is a file that only one process can create (O_EXCL: exact on local disks and on NFS since version 3). Its
holder touches it every BEAT seconds and removes it in the end. It is free again when its holder is known to be dead
(a process of this machine), or has left it alone for STALE seconds by the disk's own clock, so that clocks of
machines may differ. Should one be taken from a holder that was only frozen, both train, and the first result stands.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from sltlib.base import files, machine

BEAT = 20  # seconds between two signs of life
STALE = 180  # seconds of silence after which a holder on another machine counts as dead
SUFFIX = ".json"
_mine = threading.local()  # what this thread holds


class Busy(Exception):
    """Another live process is training this experiment."""


@contextmanager
def lease(root: Path, key: str, wait: bool = False):
    """Hold the right to train `key`; `Busy` where another live process holds it, or wait for it.

    A thread that holds it already need not wait for itself.
    """
    path = _path(root, key)
    held = _mine.__dict__.setdefault("paths", set())
    if wait and path in held:
        yield
        return
    with files.named(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    token, pause = secrets.token_hex(8), 0.05
    while not _take(path, token):
        if not wait:
            raise Busy(f"{key} is being trained by {holder(root, key) or 'another process'}: wait for it, or end it")
        time.sleep(pause)
        pause = min(2 * pause, 1.0)
    over = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, token, over), daemon=True)
    beating.start()
    held.add(path)
    try:
        yield
    finally:
        held.discard(path)
        over.set()
        if _token(path) == token:
            path.unlink(missing_ok=True)


def holder(root: Path, key: str) -> str | None:
    """Who trains `key` now, "process 12 on host"; None where nobody does that lives."""
    path = _path(root, key)
    found = _read(path)
    return None if found is None or _dead(path, *found) else _who(found[0])


def taken(root: Path) -> set[str]:
    """The keys that have a lease, of living and dead holders: one look into one folder."""
    try:
        return {name.removesuffix(SUFFIX) for name in os.listdir(Path(root) / "leases") if name.endswith(SUFFIX)}
    except FileNotFoundError:
        return set()


def abandoned(root: Path) -> list[tuple[Path, str]]:
    """(file, who left it) of every lease whose holder is dead."""
    found = []
    for key in sorted(taken(root)):
        path = _path(root, key)
        if (read := _read(path)) and _dead(path, *read):
            found.append((path, _who(read[0])))
    return found


def _path(root, key):
    return Path(root) / "leases" / f"{key}{SUFFIX}"


def _take(path, token):
    """Create the lease, after a dead holder's was put away; False where a living one has it."""
    found = _read(path)
    if found is not None:
        if not _dead(path, *found):
            return False
        _put_away(path, found[0])
    record = {"host": socket.gethostname(), "place": machine.place(), "pid": os.getpid()}
    record |= {"started": machine.started(os.getpid()), "token": token}
    with files.named(path):
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        with open(descriptor, "w") as file:
            file.write(json.dumps(record))
    return True


def _put_away(path, record):
    """Remove a dead holder's lease: of many that try, one moves it; one that moved a newer lease puts it back."""
    aside = files.scratch(path)
    with suppress(FileNotFoundError):
        os.rename(path, aside)
        if (moved := _read(aside)) and moved[0].get("token") != record.get("token"):
            with suppress(OSError):  # a third one has it meanwhile: two train, and the first result stands
                os.link(aside, path)
        aside.unlink(missing_ok=True)


def _read(path):
    """(what the holder wrote, its last sign of life); None where there is no lease.

    The file is opened, which on NFS asks the server for its time; a look at the name alone may be a minute old.
    """
    try:
        with open(path, "rb") as file:
            text, beat = file.read(), os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None
    try:
        record = json.loads(text)
    except ValueError:  # it is just being written, or its writer died in the middle
        record = {}
    return (record if isinstance(record, dict) else {}), beat


def _token(path):
    found = _read(path)
    return found and found[0].get("token")


def _dead(path, record, beat):
    """Whether the holder of a lease is dead: surely, on this machine; by its silence, on another."""
    pid = record.get("pid")
    if record.get("place") == machine.place() and type(pid) is int:
        return not machine.alive(pid) or record.get("started") != machine.started(pid)
    now = files.clock(path.parent)
    return now is not None and now - beat > STALE


def _who(record):
    if "pid" not in record:
        return "another process"
    return f"process {record['pid']} on {record.get('host')}"


def _beat(path, token, over):
    while not over.wait(BEAT):
        with suppress(OSError):  # a disk that is away for a while: the next beat may arrive
            if _token(path) == token:
                os.utime(path)

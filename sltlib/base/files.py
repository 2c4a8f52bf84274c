"""Files that are whole or absent: the one atomic writer, what belongs to it, and JSON and CSV as they are written here.

What is being written has a scratch name that tells whose it is (host, process), so that what a dead
process left can be found and removed, and what a living one writes is left alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

from sltlib.base import machine

DAY = 86400  # seconds


def write(path: Path, *chunks: bytes | str, durable: bool = True, folder: Path | None = None) -> None:
    """Replace a file by these chunks, text as UTF-8; makes its folder.

    folder : where it is written, on the same disk; by default beside `path`.

    A reader, and a machine that loses its power, sees the old file or the new one (durable=False: only
    a reader). OSError names the path where it cannot be written; then the old file stands and nothing
    else is left.
    """
    path = Path(path)
    with named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        own = scratch(path, folder)
        own.parent.mkdir(parents=True, exist_ok=True)
        try:
            put(own, *chunks, durable=durable)
            os.replace(own, path)
        finally:
            remove(own)
        if durable:
            sync(path.parent)


def put(path: Path, *chunks: bytes | str, durable: bool = True) -> None:
    """Write a file in place, on the disk when this returns: for folders that nobody reads yet."""
    with named(path), open(path, "wb") as file:
        for chunk in chunks:
            file.write(chunk.encode() if isinstance(chunk, str) else chunk)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Have the disk write what it holds of a file or of a folder's names."""
    if os.name == "nt" and Path(path).is_dir():
        return  # Windows opens no folders
    with named(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def named(path: Path):
    """An OSError that names no file, or only a scratch file, names this one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename is not None and owner(Path(os.fsdecode(error.filename))) is None):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def scratch(path: Path, folder: Path | None = None) -> Path:
    """A new name for what will be `path`, hidden beside it, or as it is in another folder."""
    name = f"{path.name}.{machine.place()}.{os.getpid()}.{secrets.token_hex(4)}"
    return folder / name if folder else path.with_name(f".{name}")


def owner(path: Path) -> tuple[str, int] | None:
    """(place, process id) of a scratch name; None of any other."""
    parts = path.name.rsplit(".", 2)
    if len(parts) == 3 and parts[1].isdigit() and len(parts[2]) == 8 and parts[0].count("."):
        place = machine.place()
        return (place if parts[0].endswith(f".{place}") else parts[0], int(parts[1]))
    return None


def leftovers(folder: Path) -> list[Path]:
    """What nobody writes any more in a folder; [] where it is not readable.

    A process of this machine that is dead now began it, or one of another machine that left it alone for a day.
    """
    found, now = [], None
    try:
        names = sorted(Path(folder).iterdir())
    except OSError:
        return found
    for path in names:
        whose = owner(path)
        if whose is None:
            continue
        if whose[0] == machine.place():
            gone = not machine.alive(whose[1])
        else:
            now = now or clock(folder)
            gone = now is not None and age(path, now) > DAY
        if gone:
            found.append(path)
    return found


def clock(folder: Path) -> float | None:
    """The time of the disk that a folder is on, seconds: on a network's that is its server's; None if not writable."""
    probe = scratch(Path(folder) / "clock")
    try:
        with open(probe, "xb") as file:
            os.utime(file.fileno())  # no time of ours: the server's
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return None
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def age(path: Path, now: float) -> float:
    """Seconds since a file, or a folder and what is in it, was last written, by the clock `now` of its disk."""
    last = -math.inf
    for each in [path, *(path.rglob("*") if path.is_dir() else [])]:
        with suppress(OSError):
            last = max(last, each.lstat().st_mtime)
    return now - last if last > -math.inf else 0.0


def sweep(folder: Path) -> None:
    """Remove the leftovers of a folder; what cannot be removed, as on a read-only disk, stays."""
    for path in leftovers(folder):
        try:
            remove(path)
        except OSError:
            pass


def sha256(data) -> str:
    """Hash of bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


# --- JSON and CSV ------------------------------------------------------------------------------

# Columns of a CSV that hold hex digits: 4239e469279095633760 is the name of a training, and not infinity.
HEX = ("key", "network")


def json_text(value) -> str:
    """JSON with sorted keys, a value a line; ValueError where a number is not finite."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"


def table(path):
    """The pandas.DataFrame of a CSV, in which keys are text whatever digits they are of."""
    import pandas

    return pandas.read_csv(path, dtype=dict.fromkeys(HEX, str))

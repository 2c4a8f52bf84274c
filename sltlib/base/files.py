"""Files that are whole or absent: the one atomic writer, what belongs to it, and JSON as it is written here.

What is being written has a scratch name that tells whose it is (host, process), so that what a dead
process left can be found and removed, and what a living one writes is left alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path

from sltlib.base import machine


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
    """What processes of this machine that are dead now were writing in a folder; [] where it is not readable."""
    found = []
    try:
        names = sorted(Path(folder).iterdir())
    except OSError:
        return found
    for path in names:
        whose = owner(path)
        if whose and whose[0] == machine.place() and not machine.alive(whose[1]):
            found.append(path)
    return found


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


# --- JSON --------------------------------------------------------------------------------------


def json_text(value) -> str:
    """JSON with sorted keys, a value a line; ValueError where a number is not finite."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"

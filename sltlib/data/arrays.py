"""Arrays on disk, whole or not at all: a folder of .npy files and the manifest that is written last.

Whole means that the manifest parses and every array has the sha256 that stands there, never that a
file exists. What a process that died was writing stays under a name of its own and is swept.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import socket
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
from filelock import FileLock

MANIFEST = "manifest.json"
Shapes = dict[str, tuple[tuple[int, ...], str]]  # {name: (shape, dtype)}


def load(folder: Path, about: dict) -> dict[str, np.ndarray] | None:
    """The arrays by name, as memory maps that may be written to without changing the files.

    about : what the folder must say that it holds. None where it is absent, damaged or of something else.
    """
    maps = {}
    try:
        manifest = json.loads((Path(folder) / MANIFEST).read_bytes())
        if manifest["about"] != _json(about):
            return None
        for name, entry in manifest["arrays"].items():
            array = np.lib.format.open_memmap(Path(folder) / f"{name}.npy", mode="c")
            if _describe(array) != entry:
                return None
            maps[name] = array
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return maps


def hashes(folder: Path) -> dict[str, str]:
    """{name: sha256 of its values} as the manifest of a folder that was loaded has them."""
    manifest = json.loads((Path(folder) / MANIFEST).read_bytes())
    return {name: entry["sha256"] for name, entry in manifest["arrays"].items()}


def sha256(array: np.ndarray) -> str:
    """Hash of an array's values in C order, without its shape and type."""
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()


def publish(folder: Path, about: dict, shapes: Shapes, fill: Callable[[dict], None]) -> None:
    """Make the arrays: `fill` is given zeroed memory maps by name and writes their values.

    about : JSON values that say what the arrays are. shapes : {name: (shape, dtype)}.
    The first writer wins: a whole folder of the same `about` stays, any other is replaced. Where
    `fill` fails or the disk is full, nothing is left. OSError names the path.
    """
    folder = Path(folder)
    sweep(folder.parent)
    own, aside = scratch(folder), scratch(folder)
    try:
        own.mkdir(parents=True)
        maps = {name: _reserve(own / f"{name}.npy", *shape) for name, shape in shapes.items()}
        fill(maps)
        with named(folder):
            for name, array in maps.items():
                array.flush()
                sync(own / f"{name}.npy")
            entries = {name: _describe(array) for name, array in maps.items()}
            text = json.dumps({"about": _json(about), "arrays": entries}, indent=1, sort_keys=True) + "\n"
            (own / MANIFEST).write_text(text, encoding="utf-8")
            sync(own / MANIFEST)
            sync(own)
        while load(folder, about) is None:
            try:
                os.rename(own, folder)  # fails where a folder stands
                sync(folder.parent)
                break
            except OSError:
                if not folder.exists():
                    raise
                with suppress(FileNotFoundError):  # another process was faster
                    os.rename(folder, aside)
                remove(aside)
    finally:
        remove(own)


def made(folder: Path, about: dict, shapes: Shapes, fill: Callable[[dict], None]) -> dict[str, np.ndarray]:
    """The arrays of `load`, published first where they are not there; others wait for the one that fills."""
    folder = Path(folder)
    found = load(folder, about)
    if found is None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            found = load(folder, about)
            if found is None:
                publish(folder, about, shapes, fill)
                found = load(folder, about)
    if found is None:
        raise OSError(f"{folder} does not hold what was just written: is the disk sound?")
    return found


def sweep(parent: Path) -> None:
    """Remove what processes of this machine that are dead now were writing in a folder."""
    for path in Path(parent).glob(".*.*.*.*"):
        head, pid, _ = path.name.rsplit(".", 2)
        if head.endswith(f".{socket.gethostname()}") and pid.isdigit() and not psutil.pid_exists(int(pid)):
            remove(path)


def scratch(path: Path) -> Path:
    """A new hidden name beside `path` that tells whose it is; `sweep` reads it."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}")


def _reserve(path, shape, dtype):
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):  # writing to a map on a full disk would kill the process
        with open(path, "r+b") as file, named(path):
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


@contextmanager
def named(path: Path):
    """An OSError that names no file, as that of a full disk, names this one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _describe(array):
    return {"shape": list(array.shape), "dtype": array.dtype.str, "sha256": sha256(array)}


def _json(value):
    return json.loads(json.dumps(value))


def sync(path: Path) -> None:
    """Have the disk write what it holds of a file or a folder's names."""
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

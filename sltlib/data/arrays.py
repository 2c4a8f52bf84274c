"""Arrays on disk, whole or not at all: a folder of .npy files and the manifest that is written last.

Whole means that the manifest names the very arrays that are wanted and every file is, byte for byte, what was
written: never that a file exists. Anything else counts as absent, with one line, and is made again; what cannot be
read (no permission, no free handle) proves no damage and is an error. What a process that died was writing stays
under a name of its own and is swept.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from sltlib.base import files

MANIFEST = "manifest.json"
# {name: (shape, dtype, or several, of which the narrowest that holds the values is taken)}; dtypes as in DTYPE
Shapes = dict[str, tuple[tuple[int, ...], str | tuple[str, ...]]]
Arrays = dict[str, np.ndarray]
DTYPE = re.compile(r"[<|][biuf][1248]")


class Damaged(ValueError):
    """What is wrong with arrays that are not whole."""


def place(parent: Path, about: dict) -> Path:
    """The folder in `parent` for arrays of this description."""
    return Path(parent) / hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def load(folder: Path, about: dict, shapes: Shapes) -> tuple[Arrays, dict[str, str]] | None:
    """The arrays by name, as memory maps that may be written to without changing the files, and their sha256.

    about : what the folder must say that it holds. None where it is absent, damaged or of something else; OSError
    where it cannot be read.
    """
    try:
        return _read(Path(folder), about, shapes)
    except Damaged:
        return None


def _read(folder, about, shapes):
    """What `load` returns, None where there is no folder; Damaged says what is wrong with it."""
    if not os.path.lexists(folder):
        return None
    found, entries = _manifest(folder)
    if found != _json(about):
        raise Damaged(f"{MANIFEST} is of something else")
    if entries.keys() != shapes.keys():
        raise Damaged(f"{MANIFEST} names {', '.join(sorted(entries)) or 'nothing'}, want {', '.join(sorted(shapes))}")
    for name, (shape, kind) in shapes.items():
        entry = entries[name]
        if entry["shape"] != list(shape) or entry["dtype"] not in _kinds(kind):
            wanted = f"{' or '.join(_kinds(kind))} {list(shape)}"
            raise Damaged(f"{MANIFEST} has {name} as {entry['dtype']} {entry['shape']}, want {wanted}")
    return {name: _map(folder, name, entries[name]) for name in shapes}, {name: e["sha256"] for name, e in entries.items()}


def _manifest(folder):
    """What a folder says that it holds, and {name: {"shape", "dtype", "sha256"}} of its arrays."""
    try:
        text = (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Damaged(f"it has no {MANIFEST}") from error
    try:
        manifest = json.loads(text)
        about, entries = manifest["about"], manifest["arrays"]
        for name, entry in entries.items():
            size = all(type(n) is int and 0 <= n < 2**40 for n in entry["shape"])
            if not (size and DTYPE.fullmatch(entry["dtype"]) and type(entry["sha256"]) is str and name.isidentifier()):
                raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"{MANIFEST} is not what was written") from error
    return about, entries


def _map(folder, name, entry):
    """One array of a folder, held to its entry: nothing of a file is trusted, its header least of all."""
    path, head = folder / f"{name}.npy", _header(entry["shape"], entry["dtype"])
    want = len(head) + int(np.prod(entry["shape"], dtype=object)) * np.dtype(entry["dtype"]).itemsize
    try:
        with open(path, "rb") as file:
            found, size = file.read(len(head)), os.fstat(file.fileno()).st_size
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Damaged(f"{path.name} is missing") from error
    if size != want:
        raise Damaged(f"{path.name} has {size:,} bytes, want {want:,}")
    if found != head:
        raise Damaged(f"the header of {path.name} is not the one that was written")
    with files.named(path):
        array = np.memmap(path, entry["dtype"], "c", len(head), tuple(entry["shape"]))
    if sha256(array) != entry["sha256"]:
        raise Damaged(f"the values of {path.name} are not those that were written")
    return array


def _header(shape, dtype):
    """The bytes before an array's values in a .npy file."""
    out = io.BytesIO()
    about = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(out, about)
    return out.getvalue()


def _kinds(kind):
    return (kind,) if isinstance(kind, str) else kind


def sha256(array: np.ndarray) -> str:
    """Hash of an array's values in C order, without its shape and type."""
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()


def publish(folder: Path, about: dict, shapes: Shapes, fill: Callable[[Arrays], None]) -> None:
    """Make the arrays: `fill` is given zeroed memory maps by name and writes their values.

    about : JSON values that say what the arrays are. Where a type is too narrow for its values, `fill` raises
    OverflowError and is called again with the next one.
    The first writer wins: a whole folder of the same `about` stays, any other is replaced. Where
    `fill` fails or the disk is full, nothing is left. OSError names the path.
    """
    folder = Path(folder)
    files.sweep(folder.parent)
    own, aside = files.scratch(folder), files.scratch(folder)
    try:
        maps = _filled(own, shapes, fill)
        with files.named(folder):
            for name, array in maps.items():
                array.flush()
                files.sync(own / f"{name}.npy")
            entries = {name: _describe(array) for name, array in maps.items()}
            files.put(own / MANIFEST, files.json_text({"about": about, "arrays": entries}))
            files.sync(own)
        while load(folder, about, shapes) is None:
            try:
                os.rename(own, folder)  # fails where a folder stands
                files.sync(folder.parent)
                break
            except OSError:
                if not folder.exists():
                    raise
                with suppress(FileNotFoundError):  # another process was faster
                    os.rename(folder, aside)
                files.remove(aside)
    finally:
        files.remove(own)


def _filled(own, shapes, fill):
    """The maps in a new folder once they are filled, of the narrowest types that hold the values."""
    widest = max((len(_kinds(kind)) for _, kind in shapes.values()), default=1)
    for step in range(widest):
        own.mkdir(parents=True)
        maps = {n: _reserve(own / f"{n}.npy", shape, _kinds(kind)[step:][:1] or _kinds(kind)[-1:]) for n, (shape, kind) in shapes.items()}
        try:
            fill(maps)
            return maps
        except OverflowError:
            if step + 1 == widest:
                raise
            maps.clear()
            files.remove(own)


def made(folder: Path, about: dict, shapes: Shapes, fill: Callable[[Arrays], None]) -> tuple[Arrays, dict[str, str]]:
    """What `load` gives, published first where it is not there; others wait for the one that fills."""
    folder = Path(folder)
    found = load(folder, about, shapes)
    if found is None:
        from filelock import FileLock

        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            try:
                found = _read(folder, about, shapes)
            except Damaged as damage:
                print(f"{folder} is damaged ({damage}): it is made again", file=sys.stderr)
            if found is None:
                publish(folder, about, shapes, fill)
                found = load(folder, about, shapes)
    if found is None:
        raise OSError(f"{folder} does not hold what was just written: is the disk sound?")
    return found


def examine(root: Path, names: Iterable[str]) -> list[tuple[Path, str]]:
    """[(path, what is wrong)] of <root>/<set>/<folder of arrays>; all of it may be removed and is made again.

    names : the arrays that a folder must hold. Reads everything. OSError where something cannot be read.
    """
    found, names = [], set(names)
    for path in sorted(Path(root).glob("*/*")):
        if path.name.startswith("."):
            if path in files.leftovers(path.parent):
                found.append((path, "a process that died left it"))
            continue
        try:
            about, entries = _manifest(path)
            if entries.keys() != names:
                raise Damaged(f"{MANIFEST} names {', '.join(sorted(entries)) or 'nothing'}, want {', '.join(sorted(names))}")
            if place(path.parent, about) != path:
                raise Damaged(f"{MANIFEST} is of something else")
            for name in entries:
                _map(path, name, entries[name])
            more = {file.name for file in path.iterdir()} - {MANIFEST, *(f"{name}.npy" for name in names)}
            if more:
                raise Damaged(f"it holds {', '.join(sorted(more))} beside its arrays")
        except Damaged as damage:
            found.append((path, str(damage)))
    return found


def _reserve(path, shape, kind):
    """A zeroed map of a new .npy file; OSError where the disk has no room for it."""
    (dtype,), head = kind, _header(shape, *kind)
    size = len(head) + int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    with open(path, "xb") as file, files.named(path):
        file.write(head)
        file.flush()
        if hasattr(os, "posix_fallocate"):  # writing to a map on a full disk would kill the process
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    return np.memmap(path, dtype, "r+", len(head), tuple(shape))


def _describe(array):
    return {"shape": list(array.shape), "dtype": array.dtype.str, "sha256": sha256(array)}


def _json(value):
    return json.loads(json.dumps(value))

"""Compiled kernels on disk: disposable, and used only where every bit is as it was compiled.

A run seals the folder when it ends: a manifest holds the sha256 of each file. The next run that finds the
folder otherwise (damaged, or left by a killed process) removes it, and the compiler runs again.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from sltlib.base import files, machine

SEAL = "sealed.json"
VARIABLE = "TORCHINDUCTOR_CACHE_DIR"  # torch's own: where its compiler keeps what it compiled


def folder(root: Path) -> Path:
    """Where the kernels of a store are kept for this processor and version of torch.

    In the store, or in the folder for temporary files where the compiler could not read the path (it splits
    it at blanks).
    """
    kind = f"{machine.processor()} {importlib.metadata.version('torch')}"
    path = Path(root) / "inductor" / files.sha256(kind.encode())[:8]
    if re.fullmatch(r"[\w./+@,:=-]+", str(path), re.ASCII):
        return path
    return local(path)


def local(root: Path) -> Path:
    """Where the kernels of a store are kept on this machine alone: for stores that machines share."""
    temporary = tempfile.gettempdir()
    base = Path(temporary if re.fullmatch(r"[\w./+@,:=-]+", temporary, re.ASCII) else "/tmp")
    own = base / f"slt-kernels-{os.getuid()}"
    return own / files.sha256(str(root).encode())[:16]


@contextmanager
def guarded(path: Path):
    """Use a folder of kernels: emptied first unless it is as it was sealed, sealed at the end.

    Where another run uses it at the same time, that one has looked, and the last one seals.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_uid != os.getuid():
        raise PermissionError(f"{path.parent} is somebody else's, and their code is not run: set {VARIABLE} to a folder of yours")
    path.mkdir(exist_ok=True)
    with open(path.with_name(f"{path.name}.lock"), "a") as lock:
        if _alone(lock) and (wrong := unsealed(path)):
            how = "are not as they were sealed" if set(wrong) & _sealed(path).keys() else "were left by a run that was broken off"
            files.remove(path)
            words = f"{len(wrong)} files of compiled kernels {how} ({wrong[0]}, ...)"
            print(f"{path}: {words}: all are removed and compiled again", file=sys.stderr)
        _locked(lock, "LOCK_SH")
        yield path
        if _alone(lock):  # not after an interruption: a compiler may have been in the middle
            seal(path)


@contextmanager
def alone(root: Path):
    """Keep the kernels of a store on this machine for a while, unless the reader has a folder of their own for them."""
    if os.environ.get(VARIABLE):
        yield
        return
    with guarded(local(root)) as path:
        os.environ[VARIABLE] = str(path)
        try:
            yield
        finally:
            os.environ.pop(VARIABLE, None)


def folders(root: Path) -> list[Path]:
    """Every folder of kernels that a store has."""
    inside = Path(root) / "inductor"
    own = folder(root)
    return sorted({p for p in [own, *(inside.iterdir() if inside.is_dir() else [])] if p.is_dir()})


def damaged(path: Path) -> list[str]:
    """The sealed files of a folder that have changed or are gone."""
    found = _files(path)
    return [name for name, digest in _sealed(path).items() if found.get(name) != digest]


def seal(path: Path) -> None:
    """Write down the hash of every file of a folder, where there is one."""
    found = _files(path)
    if found and found != _sealed(path):
        files.write(path / SEAL, files.json_text(found))


def unsealed(path: Path) -> list[str]:
    """The files of a folder that are not as its seal says: changed, added or gone."""
    sealed, found = _sealed(path), _files(path)
    return sorted(name for name in sealed.keys() | found.keys() if sealed.get(name) != found.get(name))


def _files(path):
    inside = (p for p in sorted(path.rglob("*")) if p.is_file() and p.name != SEAL and p.suffix != ".lock")
    return {str(p.relative_to(path)): files.sha256(p.read_bytes()) for p in inside}


def _sealed(path):
    try:
        return dict(json.loads((path / SEAL).read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}


def _alone(lock):
    try:
        _locked(lock, "LOCK_EX", "LOCK_NB")
    except BlockingIOError:
        return False
    return True


def _locked(lock, *how):
    import fcntl  # not there on systems that are refused elsewhere, in words

    fcntl.flock(lock, sum(getattr(fcntl, name) for name in how))

"""Image sets as rows of bytes: idx files, CIFAR's binary version, and its Python version without its pickle's risk."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import pickle
import zlib
from pathlib import Path

import numpy as np


def contents(info, folder: Path, name: str) -> bytes:
    """A file's bytes, unpacked if it is a .gz, held to its pinned hash; ValueError if it is damaged."""
    path = Path(folder) / name
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read ({error}): {info.how}") from error
    if name in info.sha256 and hashlib.sha256(raw).hexdigest() != info.sha256[name]:
        raise ValueError(f"{path} is damaged (its sha256 is not the pinned one): {info.how}")
    return raw


def file_problems(info, folder: Path) -> list[str]:
    """Which of `info.files` are missing or of another size; of a .gz file the size after unpacking."""
    problems = []
    for name, size in info.files.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{path} is missing: {info.how}")
        elif (found := _size(path)) != size:
            unpacked = " unpacked" if path.suffix == ".gz" else ""
            problems.append(f"{path} is damaged ({found:,} bytes{unpacked}, want {size:,}): {info.how}")
    return problems


def _size(path):
    """Bytes of a file; of a .gz file the length that its last four bytes promise."""
    if path.suffix != ".gz":
        return path.stat().st_size
    with open(path, "rb") as f:
        f.seek(max(0, path.stat().st_size - 4))
        return int.from_bytes(f.read(4), "little")


def read_idx(info, folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """The official (train, test) of four idx files: images (N, 1, H, W) uint8 and labels (N,) int64."""
    arrays = []
    for name in info.files:  # train images, train labels, test images, test labels
        raw = contents(info, folder, name)
        dims = 3 if "images" in name else 1
        shape = tuple(np.frombuffer(raw[4 : 4 + 4 * dims], ">u4").tolist())
        good = raw[:4] == bytes([0, 0, 8, dims]) and len(shape) == dims
        if not good or len(raw) != 4 + 4 * dims + math.prod(shape):
            raise ValueError(f"{Path(folder) / name} is no idx file of {dims} dimensions: {info.how}")
        arrays.append(np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(shape))
    x_train, y_train, x_test, y_test = arrays
    return [(x[:, None], y.astype(np.int64)) for x, y in ((x_train, y_train), (x_test, y_test))]


def look_binary(info, found, names):
    problems = _missing(info, found, names, info.files)
    for name, want in info.files.items() if problems == [] else ():
        if (size := found.files.size(found.root + name)) != want:
            problems.append(f"{found.path(name)} is damaged ({size:,} bytes, want {want:,}): {info.how}")
    return problems


def _missing(info, found, names, wanted):
    """Which of the wanted files are missing, or None where all are."""
    missing = [name for name in wanted if name not in names]
    if len(missing) == len(wanted):
        return None
    return [f"{found.path(name)} is missing: {info.how}" for name in missing]


def read_binary(info, found):
    """Rows of one label (CIFAR-100: the coarse one before it) and 3x32x32 pixels, red first."""
    labels, pixels = 1 if len(info.classes) == 10 else 2, info.channels * info.size**2
    parts = {"train": [], "test": []}
    for name in info.files:
        raw = found.read(name)
        if len(raw) % (labels + pixels):
            raise ValueError(
                f"{found.path(name)} is damaged ({len(raw):,} bytes, want whole rows of {labels + pixels:,}): {info.how}"
            )
        rows = np.frombuffer(raw, np.uint8).reshape(-1, labels + pixels)
        images = rows[:, labels:].reshape(-1, info.channels, info.size, info.size)
        parts["test" if name.startswith("test") else "train"].append((images, rows[:, labels - 1].astype(np.int64)))
    return joined(parts)


def joined(parts: dict) -> list[tuple[np.ndarray, np.ndarray]]:
    """(train, test) of {half: [(images, labels) of each file]}."""
    return [tuple(map(np.concatenate, zip(*parts[half], strict=True))) for half in ("train", "test")]


# --- the Python version --------------------------------------------------------------------------


def look_pickle(info, found, names):
    return _missing(info, found, names, info.md5)


def read_pickle(info, found):
    """Dictionaries of `data`, uint8 (N, 3072), and `labels` or `fine_labels`, once their md5 is right."""
    raws = {name: found.read(name) for name in info.md5}
    for name, raw in raws.items():
        if (there := hashlib.md5(raw).hexdigest()) != info.md5[name]:
            raise ValueError(
                f"{found.path(name)} is not the published file (its md5 is {there}, want {info.md5[name]}), and"
                f" an unknown pickle is not opened: {info.how}"
            )
    parts = {"train": [], "test": []}
    for name, raw in raws.items():
        try:
            batch = _Unpickler(io.BytesIO(raw), encoding="latin1").load()
            labels = np.array(batch["labels"] if "labels" in batch else batch["fine_labels"], np.int64)
            images = np.asarray(batch["data"]).reshape(len(labels), info.channels, info.size, info.size)
            if images.dtype != np.uint8:
                raise ValueError(f"its pixels are {images.dtype}")
        except Exception as error:  # a pickle can fail in any way
            raise ValueError(f"{found.path(name)} cannot be read ({error}): {info.how}") from error
        parts["test" if name.startswith("test") else "train"].append((images, labels))
    return joined(parts)


class _Unpickler(pickle.Unpickler):
    """Admits plain values and NumPy arrays, and no other name: nothing that could run."""

    def find_class(self, module, name):
        module = module.replace("numpy._core", "numpy.core")
        if (module, name) in (("numpy", "dtype"), ("numpy", "ndarray")):
            return getattr(np, name)
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.zeros(0).__reduce__()[0]
        if (module, name) == ("_codecs", "encode"):  # how newer Pythons write bytes in protocol 2
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is neither a value nor an array")

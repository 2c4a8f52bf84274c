"""Image sets in the formats in which they are handed round: recognised in a folder, read and checked.

    binary   rows of labels and pixels, as CIFAR's authors publish them
    parquet  as on Hugging Face, each image a PNG
    classes  folders train/<class>/*.png and test/<class>/*.png
    pickle   the authors' Python version: only the very files, by md5
    jpeg     as classes, *.jpg of quality 75: not the same images, and so a data set of its own

Whatever is wrong is one ValueError that names the file. An image set is the same whatever its format:
its images are put in an order of their own.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.util
import io
import os
import pickle
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sltlib.data import archives

TOLERANCE = 2e-4  # of a mean pixel, known to four digits


@dataclass(frozen=True)
class Files:
    """The files of a folder or an archive: their paths below it, with /, and what tells a file's bytes and size."""

    place: Path
    paths: frozenset[str]
    read: Callable[[str], bytes]
    size: Callable[[str], int]


def files(place: Path) -> Files:
    """The files of a folder, down to <folder>/train/<class>/<image>, or of an archive; hidden ones left out.

    ValueError where it is neither, or the archive is damaged or not to be trusted.
    """
    place = Path(place)
    if place.is_dir():
        paths = frozenset(_walk(place, 3))
        return Files(place, paths, lambda path: (place / path).read_bytes(), lambda path: (place / path).stat().st_size)
    if not place.is_file():
        raise ValueError(f"{place} is neither a folder nor an archive")
    found = archives.contents(place)
    paths = frozenset(path for path in found if "/." not in f"/{path}")
    return Files(place, paths, found.__getitem__, lambda path: len(found[path]))


def _walk(folder, depth, above=""):
    for entry in os.scandir(folder):
        if entry.name[0] == ".":
            continue
        if entry.is_file():
            yield above + entry.name
        elif depth and entry.is_dir():
            yield from _walk(entry.path, depth - 1, f"{above}{entry.name}/")


@dataclass(frozen=True)
class Found:
    """A data set's trace: its format, the folder (ends in / or is "") and why it cannot be read, by names."""

    format: str
    files: Files
    root: str
    problems: list[str]

    def path(self, name: str = "") -> str:
        """A file of it, for messages."""
        return str(self.files.place / self.root / name)

    def read(self, name: str) -> bytes:
        """The bytes of a file of it."""
        return self.files.read(self.root + name)


def find(info, places: Iterable[Path]) -> Found | None:
    """The first whole set in the places or their folders, in the order of `info.formats`; else a partial one."""
    roots = []
    for place in places:
        if place.exists():
            listed = files(place)
            inner = sorted({path.partition("/")[0] + "/" for path in listed.paths if "/" in path})
            roots += [(listed, root, _below(listed, root)) for root in ("", *inner)]
    partial = None
    for name in info.formats:
        for listed, root, names in roots:
            found = Found(name, listed, root, [])
            problems = FORMATS[name][0](info, found, names)
            if problems == []:
                return found
            if problems and partial is None:
                partial = replace(found, problems=problems)
    return partial


def _below(listed, root):
    return {path[len(root) :] for path in listed.paths if path.startswith(root)}


def read(info, found: Found) -> list[tuple[np.ndarray, np.ndarray]]:
    """The (train, test) that `find` found: images uint8 (N, C, H, W), labels int64 (N,).

    Held to what the set is: labels in range, equally many images of each class, the mean pixel.
    """
    halves = FORMATS[found.format][1](info, found)
    wanted = (info.counts["train"] + info.counts["val"], info.counts["test"])
    for (_, labels), want, split in zip(halves, wanted, ("training", "test"), strict=True):
        check_labels(info, labels)
        for name, n in zip(info.classes, np.bincount(labels, minlength=len(info.classes)), strict=True):
            if n != want // len(info.classes):
                raise ValueError(
                    f"{info.title} in {found.path()} has {n:,} {split} images of class {name},"
                    f" want {want // len(info.classes):,}: {info.how}"
                )
    mean = tuple(float(halves[0][0][:, c].mean() / 255) for c in range(info.channels))
    if any(abs(a - b) > TOLERANCE for a, b in zip(mean, info.mean_pixel, strict=False)):
        raise ValueError(
            f"{info.title} in {found.path()}: the mean pixel of the training images is"
            f" {tuple(round(m, 4) for m in mean)}, want {info.mean_pixel}: these are other images, or their"
            " channels are not in the order red, green, blue"
        )
    return list(halves) if found.format == "jpeg" else [_ordered(*half) for half in halves]


def check_labels(info, labels: np.ndarray) -> None:
    """Raise ValueError for a label that is none of the data set's."""
    if labels.size and not 0 <= labels.min() <= labels.max() < len(info.classes):
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(f"{info.title} has the label {wrong}, want 0 to {len(info.classes) - 1}: {info.how}")


def _ordered(images, labels):
    """The same images in the order of their hashes: formats disagree on the order, splits depend on it."""
    keys = [(hashlib.sha256(image).digest(), label) for image, label in zip(images, labels.tolist(), strict=True)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return images[order], labels[order]


# --- files of bytes ------------------------------------------------------------------------------


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
        if not good or len(raw) != 4 + 4 * dims + np.prod(shape):
            raise ValueError(f"{Path(folder) / name} is no idx file of {dims} dimensions: {info.how}")
        arrays.append(np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(shape))
    x_train, y_train, x_test, y_test = arrays
    return [(x[:, None], y.astype(np.int64)) for x, y in ((x_train, y_train), (x_test, y_test))]


def _look_binary(info, found, names):
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


def _read_binary(info, found):
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
    return _joined(parts)


def _joined(parts):
    return [tuple(map(np.concatenate, zip(*parts[half], strict=True))) for half in ("train", "test")]


# --- the Python version --------------------------------------------------------------------------


def _look_pickle(info, found, names):
    return _missing(info, found, names, info.md5)


def _read_pickle(info, found):
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
    return _joined(parts)


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


# --- images --------------------------------------------------------------------------------------


def _decode(info, raw, name, kind):
    """One image uint8 (C, H, W) of a file's bytes; ValueError names it and says what it should be."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(raw), formats=("PNG", "JPEG")) as image:  # no other decoder sees the bytes
            if image.format == "JPEG" and kind == "PNG":
                raise ValueError(f"a JPEG, which has lost pixels: {_JPEG}")
            want = (kind, "RGB", (info.size, info.size))
            if (image.format, image.mode, image.size) != want:
                raise ValueError(f"{image.format} {image.mode} {image.size}, want {want[0]} {want[1]} {want[2]}")
            if kind == "JPEG" and image.quantization != _quality_75():
                raise ValueError("its quantisation tables are not those of quality 75")
            return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
    except Exception as error:  # decoders fail in many ways
        raise ValueError(f"{name} is not an image of {info.title} ({error}): {info.how}") from error


_JPEG = "CIFAR-10 as JPEG of quality 75 is the data set cifar10-jpeg"


@functools.cache
def _quality_75():
    """The quantisation tables of that quality, as the decoder tells them."""
    from PIL import Image

    raw = io.BytesIO()
    Image.new("RGB", (8, 8)).save(raw, "jpeg", quality=75)
    with Image.open(raw) as image:
        return image.quantization


def _look_classes(info, found, names):
    classes = _classes(names)
    if not any(classes.values()):
        return None
    problems = []
    for split, there in classes.items():
        unknown = sorted(there.keys() - set(info.classes))
        problems += [f"{found.path(f'{split}/{name}')} is no class of {info.title}: {info.how}" for name in unknown]
        missing = ", ".join(name for name in info.classes if name not in there)
        problems += [f"{found.path(split)} has no class {missing}: {info.how}"] if missing else []
    suffix = {Path(file).suffix.lower() for there in classes.values() for some in there.values() for file in some}
    if found.format == "classes" and suffix & {".jpg", ".jpeg"}:
        return [f"{found.path()} holds JPEG images, which are not those of {info.title}: {_JPEG}"]
    if found.format == "jpeg" and ".png" in suffix:
        return [f"{found.path()} holds PNG images, which are not those of {info.title}: {info.how}"]
    return problems


def _classes(names):
    """{split: {class: its files}} of train/<class>/<file> and test/<class>/<file>."""
    classes = {"train": {}, "test": {}}
    for name in names:
        parts = name.split("/")
        if len(parts) == 3 and parts[0] in classes:
            classes[parts[0]].setdefault(parts[1], []).append(name)
    return classes


def _read_classes(info, found):
    """Images in the order of the class names of the data set, and of their file names."""
    classes, kind = _classes(_below(found.files, found.root)), "JPEG" if found.format == "jpeg" else "PNG"
    parts = {"train": [], "test": []}
    with archives.bar(f"{info.title}: decoding", sum(info.counts.values())) as shown:
        for split, there in classes.items():
            for label, name in enumerate(info.classes):
                files = sorted(there[name])
                images = [_decode(info, found.read(file), found.path(file), kind) for file in _each(files, shown)]
                parts[split].append((np.stack(images), np.full(len(images), label, np.int64)))
    return _joined(parts)


def _each(items, shown):
    """The items, counted by a progress bar."""
    for item in items:
        yield item
        shown.update()


def _shards(names, split):
    return sorted(name for name in names if re.fullmatch(rf"{split}[^/]*\.parquet|{split}/[^/]*\.parquet", name))


def _look_parquet(info, found, names):
    shards = {split: _shards(names, split) for split in ("train", "test")}
    if not any(shards.values()):
        return None
    if importlib.util.find_spec("pyarrow") is None:
        install = "pip install -c constraints.txt -e '.[cifar]'"
        return [f"{found.path()} holds .parquet files: reading them needs pyarrow: {install}"]
    problems = []
    for split, there in shards.items():
        # train-00000-of-00002.parquet says how many there are
        of = {int(match[1]) for name in there if (match := re.search(r"-of-(\d+)\.parquet$", name))}
        if not there or of - {len(there)}:
            problems.append(f"{found.path()} has {len(there)} {split}*.parquet, which is not all: {info.how}")
    return problems


def _read_parquet(info, found):
    """Columns `img` (the bytes of a PNG) and `label`, of CIFAR-100 `fine_label`."""
    label = "label" if len(info.classes) == 10 else "fine_label"
    names, parts = _below(found.files, found.root), {"train": [], "test": []}
    with archives.bar(f"{info.title}: decoding", sum(info.counts.values())) as shown:
        for split, part in parts.items():
            for name in _shards(names, split):
                where = found.path(name)
                pixels, labels = _columns(info, where, found.read(name), label)
                rows = enumerate(_each(pixels, shown))
                images = [_decode(info, raw, f"{where}, row {row:,},", "PNG") for row, raw in rows]
                part.append((np.stack(images), np.array(labels, np.int64)))
    return _joined(parts)


def _columns(info, where, raw, label):
    """The images' bytes and the labels of a .parquet file."""
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(pyarrow.BufferReader(raw), columns=["img", label])
        images = [image["bytes"] for image in table.column("img").to_pylist()]
        labels = table.column(label).to_pylist()
        if not images or any(type(image) is not bytes for image in images) or any(type(n) is not int for n in labels):
            raise ValueError("a row lacks its image or its label")
    except (OSError, ValueError, KeyError, TypeError, pyarrow.ArrowException) as error:
        raise ValueError(f"{where} cannot be read ({error}): {info.how}") from error
    return images, labels


# format: (what is wrong with it among names, None where there is no trace of it; its reader)
FORMATS = {
    "binary": (_look_binary, _read_binary),
    "parquet": (_look_parquet, _read_parquet),
    "classes": (_look_classes, _read_classes),
    "pickle": (_look_pickle, _read_pickle),
    "jpeg": (_look_classes, _read_classes),
}

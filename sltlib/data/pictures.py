"""Image sets as PNG or JPEG files: in a folder for each class, or in the rows of .parquet files."""

from __future__ import annotations

import functools
import importlib.util
import io
import re
from pathlib import Path

import numpy as np

from sltlib.base.progress import bar
from sltlib.data.binary import joined


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


def look_classes(info, found, names):
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


def read_classes(info, found):
    """Images in the order of the class names of the data set, and of their file names."""
    classes, kind = _classes(found.names()), "JPEG" if found.format == "jpeg" else "PNG"
    parts = {"train": [], "test": []}
    with bar(f"{info.title}: decoding", sum(info.counts.values())) as shown:
        for split, there in classes.items():
            for label, name in enumerate(info.classes):
                files = sorted(there[name])
                images = [_decode(info, found.read(file), found.path(file), kind) for file in _each(files, shown)]
                parts[split].append((np.stack(images), np.full(len(images), label, np.int64)))
    return joined(parts)


def _each(items, shown):
    """The items, counted by a progress bar."""
    for item in items:
        yield item
        shown.update()


def _shards(names, split):
    return sorted(name for name in names if re.fullmatch(rf"{split}[^/]*\.parquet|{split}/[^/]*\.parquet", name))


def look_parquet(info, found, names):
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


def read_parquet(info, found):
    """Columns `img` (the bytes of a PNG) and `label`, of CIFAR-100 `fine_label`."""
    label = "label" if len(info.classes) == 10 else "fine_label"
    names, parts = found.names(), {"train": [], "test": []}
    with bar(f"{info.title}: decoding", sum(info.counts.values())) as shown:
        for split, part in parts.items():
            for name in _shards(names, split):
                where = found.path(name)
                pixels, labels = _columns(info, where, found.read(name), label)
                rows = enumerate(_each(pixels, shown))
                images = [_decode(info, raw, f"{where}, row {row:,},", "PNG") for row, raw in rows]
                part.append((np.stack(images), np.array(labels, np.int64)))
    return joined(parts)


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

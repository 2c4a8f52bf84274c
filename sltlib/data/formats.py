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

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sltlib.data import archives, binary, pictures
from sltlib.data.splits import check_labels

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

    def names(self) -> set[str]:
        """The paths of the files in its folder."""
        return {path[len(self.root) :] for path in self.files.paths if path.startswith(self.root)}

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
            roots += [(listed, root) for root in ("", *inner)]
    partial = None
    for name in info.formats:
        for listed, root in roots:
            found = Found(name, listed, root, [])
            problems = FORMATS[name][0](info, found, found.names())
            if problems == []:
                return found
            if problems and partial is None:
                partial = replace(found, problems=problems)
    return partial


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


def _ordered(images, labels):
    """The same images in the order of their hashes: formats disagree on the order, splits depend on it."""
    keys = [(hashlib.sha256(image).digest(), label) for image, label in zip(images, labels.tolist(), strict=True)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return images[order], labels[order]


# format: (what is wrong with it among names, None where there is no trace of it; its reader)
FORMATS = {
    "binary": (binary.look_binary, binary.read_binary),
    "parquet": (pictures.look_parquet, pictures.read_parquet),
    "classes": (pictures.look_classes, pictures.read_classes),
    "pickle": (binary.look_pickle, binary.read_pickle),
    "jpeg": (pictures.look_classes, pictures.read_classes),
}

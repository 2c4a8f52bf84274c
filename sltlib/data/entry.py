"""One entry of the catalogue: what a data set is, where it is looked for, and what its reader must give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from sltlib.base import paths
from sltlib.data import formats
from sltlib.data.archives import Archive
from sltlib.data.binary import file_problems
from sltlib.data.events import Recordings
from sltlib.data.splits import SPLITS


@dataclass(frozen=True)
class Info:
    """What a data set is, where it is looked for and how it is read; needs no torch.

    channels, size : of a native image, (channels, size, size); of an event set 2 and the sensor's side.
    classes : the names, in the labels' order.
    counts : images in the train (2 or more), val and test split.
    places : folders tried in this order, absolute or below `paths.data()`.
    files : {name: bytes}; of a .gz file the bytes after unpacking.
    reader : (info, folder) -> {split: (images uint8 (N, C, H, W), labels int64 (N,))}, or for an event set
        {split: events.Recordings}.
    needs, how : one sentence each: what must be there, and what to do when it is not.
    sha256 : {name: hash} of the files that are pinned, of a .gz file after unpacking.
    event : whether it holds recordings, binned into frames (N, T, 2, H, W), instead of images.
    folders : names of folders that must be there beside the files.
    packages : what must be installed to read the recordings, of the extra `events`.
    formats : names in `formats.FORMATS`, the preferred one first; then it is decoded once, into
        data/arrays, and `files` are those of the binary format. None: `files` and `folders` are all.
    md5 : {name: hash} of the files of the pickle format.
    mean_pixel : of the training images, for each channel, 0 to 1; what is read is held to it.
    archives : what `python -m sltlib data get` fetches.
    version : of its numbers: raise it when the same files give others. Above 1 it is a part of an Experiment's key.

    Raises ValueError naming everything that no data set can have.
    """

    title: str
    channels: int
    size: int
    classes: tuple[str, ...]
    counts: dict[str, int]
    places: tuple[str, ...]
    files: dict[str, int]
    reader: Callable
    needs: str
    how: str
    sha256: dict[str, str] = field(default_factory=dict)
    event: bool = False
    folders: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    md5: dict[str, str] = field(default_factory=dict)
    mean_pixel: tuple[float, ...] = ()
    archives: tuple[Archive, ...] = ()
    version: int = 1

    def __post_init__(self):
        problems, least = [], {"train": 2, "val": 1, "test": 1}
        if self.counts.keys() != least.keys() or any(type(n) is not int or n < least[s] for s, n in self.counts.items()):
            problems.append(f"counts={self.counts}: give train (2 or more: a batch is normalised), val and test (1 or more)")
        for name, good in {"channels": 2 if self.event else 0, "size": 0}.items():
            value = getattr(self, name)
            if type(value) is not int or value < 1 or good and value != good:
                right = {"channels": "the two polarities, 2" if good else "1 or more", "size": "the pixels of a side; images are square"}
                problems.append(f"{name}={value!r}: give {right[name]}")
        if isinstance(self.classes, str) or len(self.classes) < 2:
            problems.append(f"classes={self.classes!r}: give two names or more")
        if not callable(self.reader):
            problems.append(f"reader={self.reader!r}: give a function (info, folder) -> splits")
        if problems:
            raise ValueError(f"data set {self.title!r}: {'; '.join(problems)}")

    def find(self) -> Path | None:
        """The first of the places that holds all files and folders, else the first that holds any, or None."""
        folders = [folder for folder in self._folders() if folder.is_dir()]
        if self.formats:
            found = formats.find(self, folders)
            return found and found.files.place / found.root
        for enough in (all, any):
            for folder in folders:
                there = [(folder / name).is_file() for name in self.files]
                if enough(there + [(folder / name).is_dir() for name in self.folders]):
                    return folder
        return None

    def problems(self) -> list[str]:
        """Why the data set cannot be read, judged by names and sizes only; empty when it looks whole."""
        problems = self._missing()
        if self.event and self.folders and not problems:
            try:
                self.reader(self, self.find())  # lists the recordings and opens none
            except ValueError as error:
                return [str(error)]
        return problems

    def _missing(self):
        """What is missing or of another size, but for the files in `folders`."""
        folder = self.find()
        if folder is None:
            return [f"not found in {' or '.join(dict.fromkeys(map(str, self._folders())))}: {self.how}"]
        if self.formats:
            return formats.find(self, [folder]).problems
        missing = [folder / name for name in self.folders if not (folder / name).is_dir()]
        return [f"{path} is missing: {self.how}" for path in missing] + file_problems(self, folder)

    def _folders(self):
        return [paths.data() / place for place in self.places]  # an absolute place stays itself

    def read(self) -> dict:
        """What the reader gives, of every split, labels as int64; ValueError names all that is not as it should be."""
        if problems := self._missing():
            raise ValueError("\n".join([f"{self.title} cannot be read:", *problems]))
        splits = self.reader(self, self.find())
        if not isinstance(splits, dict) or splits.keys() != set(SPLITS):
            given = sorted(splits) if isinstance(splits, dict) else type(splits).__name__
            raise ValueError(f"{self.title}: the reader gives {given}, want {{split: ...}} of {', '.join(SPLITS)}")
        look = _recordings_problems if self.event else _image_problems
        problems = [f"{split}: {problem}" for split in SPLITS for problem in look(self, splits[split], self.counts[split])]
        if problems:
            raise ValueError(f"{self.title} is not what it should be: {'; '.join(problems)}: {self.how}")
        if self.event:
            return {split: replace(part, labels=part.labels.astype(np.int64)) for split, part in splits.items()}
        return {split: (x, y.astype(np.int64)) for split, (x, y) in splits.items()}


def _image_problems(info, part, count):
    """What is wrong with a split of images and labels."""
    if not isinstance(part, tuple | list) or [isinstance(a, np.ndarray) for a in part] != [True, True]:
        given = [type(a).__name__ for a in part] if isinstance(part, tuple | list) else type(part).__name__
        return [f"the reader gives {given}, want (images, labels), two NumPy arrays"]
    (x, y), shape, problems = part, (info.channels, info.size, info.size), []
    if x.dtype != np.uint8:
        values = f" from {x.min():g} to {x.max():g}" if x.size and x.dtype.kind in "iuf" else ""
        problems.append(f"the images are {x.dtype}{values}, want uint8 from 0 to 255 (scale and round them in the reader)")
    if x.ndim != 4 or x.shape[1:] != shape:
        problems.append(f"the images are {x.shape}, want (N, C, H, W) with (C, H, W) = {shape}")
    problems += _label_problems(info, y)
    if x.ndim and y.ndim and len(x) != len(y):
        problems.append(f"{len(x):,} images have {len(y):,} labels, want one each")
    elif x.ndim and len(x) != count:
        problems.append(f"{len(x):,} images, want {count:,}")
    return problems


def _recordings_problems(info, part, count):
    """What is wrong with a split of recordings, before any is read."""
    if not isinstance(part, Recordings) or not isinstance(part.labels, np.ndarray):
        return [f"the reader gives a {type(part).__name__}, want events.Recordings, its labels a NumPy array"]
    problems = _label_problems(info, part.labels)
    if len(part.sensor) != 2 or min(part.sensor) < info.size:
        problems.append(f"the sensor is {part.sensor}, want (height, width) of {info.size} or more")
    if part.labels.ndim and len(part) != count:
        problems.append(f"{len(part):,} recordings, want {count:,}")
    return problems


def _label_problems(info, y):
    if y.ndim != 1 or y.dtype.kind not in "iu":
        return [f"the labels are {y.dtype} {y.shape}, want whole numbers (N,)"]
    if y.size and not 0 <= y.min() <= y.max() < len(info.classes):
        return [f"the labels are {y.min()} to {y.max()}, want 0 to {len(info.classes) - 1}"]
    return []

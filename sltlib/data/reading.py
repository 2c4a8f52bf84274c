"""The splits of a data set as arrays: read, or taken from what was kept of an earlier reading. Without torch.

What takes long to read is kept: decoded images in data/arrays, frames of recordings in data/frames.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sltlib.base import paths
from sltlib.base.progress import bar
from sltlib.data import arrays, events
from sltlib.data.catalogue import DATASETS, info
from sltlib.data.splits import SPLITS

DECODED = 1  # version of the arrays in data/arrays: raise it when the same files give others
BINNED = 2  # of those in data/frames; 1 cut counts off at 255
KEPT = ("arrays", "frames")  # the folders in paths.data()
LEAST = 2  # training images: a batch is normalised over its images


def check(names: Iterable[str] | dict[str, int]) -> None:
    """Raise one ValueError naming every data set that is unknown, missing or looks damaged; quick.

    names : data sets, or {data set: most training images wanted, 0 for all}.
    """
    wanted = dict(names) if isinstance(names, dict) else dict.fromkeys(names, 0)
    problems = []
    for name, images in wanted.items():
        try:
            found = info(name)
        except ValueError as error:
            problems.append(str(error))
            continue
        problems += [f"{name}: {problem}" for problem in problems_of(name)]
        problems += wrong_images(found, name, images)
    if problems:
        raise ValueError("\n".join(["The data are not ready:", *problems]))


def problems_of(name: str) -> list[str]:
    """Why a data set cannot be loaded, by a quick look."""
    found = DATASETS[name]
    if found.formats and (decoded_place(name)[0] / arrays.MANIFEST).is_file():
        return []
    missing = [package for package in found.packages if importlib.util.find_spec(package) is None]
    if missing and not _whole(paths.data() / "frames" / name):
        needs = f"reading its recordings needs {' and '.join(missing)}: pip install -c constraints.txt -e '.[events]'"
        return [*found.problems(), needs]
    return found.problems()


def _whole(folder):
    """Whether a cache of this data set looks as if it held arrays."""
    return any(folder.glob(f"[!.]*/{arrays.MANIFEST}"))


def wrong_images(found, name: str, images: int) -> list[str]:
    """What is wrong with asking for so many training images."""
    what, most = "recordings" if found.event else "images", found.counts["train"]
    if images > most:
        return [f"train_images={images}: {name} has {most} training {what}"]
    if 0 < images < LEAST:
        return [f"train_images={images}: give 0 for all, or {LEAST} or more: a batch is normalised over its {what}"]
    return []


def splits(name: str, *frames) -> tuple[dict, str]:
    """{split: (x, y)} as arrays of native size, or as frames (timesteps, size, binning), and the fingerprint."""
    if frames:
        return _frames(name, *frames)
    if info(name).formats:
        return _decoded(name)
    read = info(name).read()
    return read, fingerprint(arrays.sha256(part) for split in SPLITS for part in read[split])


def _frames(name, timesteps, size, binning):
    """The frames of an event data set, binned once: data/frames/<name>/<hash of the recordings and settings>."""
    found = info(name)
    recordings = found.read()
    about = {"dataset": name, "timesteps": timesteps, "size": size, "binning": binning, "version": BINNED, "source": {}}
    shapes = {}
    for split in SPLITS:
        part = recordings[split]
        about["source"][split] = [part.source, arrays.sha256(part.labels.astype("<i8")), [int(n) for n in part.sensor]]
        shapes[f"{split}_x"] = ((len(part), timesteps, 2, size, size), events.COUNTS)
        shapes[f"{split}_y"] = ((len(part),), "<i8")

    def fill(maps):
        with bar(f"{name}: binning", sum(found.counts.values())) as shown:
            for split in SPLITS:
                x = maps[f"{split}_x"]
                try:
                    events.fill_frames(recordings[split], x, timesteps, size, binning, progress=shown.update)
                except ValueError as error:
                    raise ValueError(f"{found.title}, {split}: {error}") from error
                maps[f"{split}_y"][:] = recordings[split].labels

    return _kept("frames", name, about, shapes, fill)


def _decoded(name):
    """The images of a data set that takes long to decode, from data/arrays, decoded on first use."""
    folder, about, shapes = decoded_place(name)

    def fill(maps):
        try:
            read = info(name).read()
        except ValueError as error:
            hint = f"{folder} is damaged, and to make it again: " if folder.exists() else ""
            raise ValueError(f"{hint}{error}") from error
        copy(read, maps)

    return _kept("arrays", name, about, shapes, fill)


def decoded_place(name: str) -> tuple[Path, dict, arrays.Shapes]:
    """Where the decoded arrays of a data set are, what they say that they are, and their shapes."""
    found = info(name)
    image = (found.channels, found.size, found.size)
    about = {"dataset": name, "counts": found.counts, "image": image, "version": DECODED}
    shapes = {}
    for split in SPLITS:
        n = found.counts[split]
        shapes |= {f"{split}_x": ((n, *image), "|u1"), f"{split}_y": ((n,), "<i8")}
    return arrays.place(paths.data() / "arrays" / name, about), about, shapes


def copy(splits: dict, maps: dict) -> None:
    """Write the splits of images into the maps of their arrays."""
    for split, (x, y) in splits.items():
        maps[f"{split}_x"][:], maps[f"{split}_y"][:] = x, y


def _kept(kind, name, about, shapes, fill):
    """The splits that are kept, made on first use, and their fingerprint."""
    folder = arrays.place(paths.data() / kind / name, about)
    maps, values = arrays.made(folder, about, shapes, fill)
    parts = {split: (maps[f"{split}_x"], maps[f"{split}_y"]) for split in SPLITS}
    return parts, fingerprint(values[f"{split}_{part}"] for split in SPLITS for part in "xy")


def examine() -> list[tuple[Path, str]]:
    """[(path, what is wrong)] of all that is kept in data/arrays and data/frames; all of it may be removed.

    Reads everything. OSError where something cannot be read, which proves no damage.
    """
    names = [f"{split}_{part}" for split in SPLITS for part in "xy"]
    return [found for kind in KEPT for found in arrays.examine(paths.data() / kind, names)]


def fingerprint(values: Iterable[str]) -> str:
    """16 hex digits for the sha256 of images and labels, split by split."""
    return hashlib.sha256("".join(values).encode()).hexdigest()[:16]


def manifest(name: str, *frames) -> dict:
    """Shapes, images a class and sha256 of each split: the same wherever the data set was found.

    frames : timesteps, cells a side and binning of an event data set.
    """
    out = {}
    for split, (x, y) in splits(name, *frames)[0].items():
        digest = hashlib.sha256(np.ascontiguousarray(x))
        digest.update(y.astype("<i8").tobytes())
        per_class = np.bincount(y, minlength=len(info(name).classes)).tolist()
        out[split] = {"shape": list(x.shape), "images_per_class": per_class, "sha256": digest.hexdigest()}
    return out

"""Data sets as tensors: images or event frames and labels, split by a fixed seed, normalised by the batch."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from sltlib.data import events, reading, transforms
from sltlib.data.catalogue import DATASETS, info
from sltlib.data.entry import Info
from sltlib.data.transforms import augment, normalise, resize

# What belongs to data among the fields of an Experiment. field: (is right, what is right)
RANGES = {
    "image_size": (lambda v: v == 0 or 8 <= v <= 1024, "0 (the data set's own) or 8 to 1024 pixels"),
    "train_images": (lambda v: v == 0 or v >= reading.LEAST, "0 (all) or a number of images, 2 or more"),
    "timesteps": (lambda v: 1 <= v <= 1024, "1 to 1024 steps"),
}
CHOICES = {"augment": transforms.AUGMENTS, "binning": events.BINNINGS}


@dataclass(frozen=True)
class Split:
    """Images x, uint8 (N, C, H, W), or frames (N, T, 2, H, W) of whole counts, and labels y, int64 (N,)."""

    x: object
    y: object

    def __len__(self):
        return len(self.y)


@dataclass(frozen=True)
class Data:
    """A data set in memory: `train`, `val`, `test`, and the training split's `mean` and `std`.

    mean, std : a float for each channel, of pixels in 0..1; of frames 0 and the root mean square, so that
        a cell without events stays 0. Shared between callers: change nothing in place.
    fingerprint : 16 hex digits of the three splits' values before resizing and any `train_images`.
    """

    info: Info
    train: Split
    val: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str

    def batch(self, x, index, kind: str = "none", generator=None):
        """x[index], augmented and normalised: float32 (B, ...) of a split's x (N, ...), index (B,)."""
        return normalise(augment(x.index_select(0, index), kind, generator), self.mean, self.std)


def load_data(
    name: str, image_size: int = 0, train_images: int = 0, device="cpu", timesteps: int = 4, binning: str = "count"
) -> Data:
    """A data set as tensors on `device`; the last few are kept in memory.

    image_size : pixels a side after area averaging (of events: cells a side); 0 keeps the native size.
    train_images : only the first so many training images or recordings, which hold each class in proportion
        within one; 0 means all.
    timesteps, binning : of event data: frames of a recording, by equal counts or times ("count", "time").
        They are binned once, into data/frames. Of images they are ignored.

    Raises ValueError naming all wrong arguments, or what is missing or damaged and its repair.
    """
    problems = []
    try:
        found = info(name)
    except ValueError as error:
        found = None
        problems.append(str(error))
    event = found is not None and found.event
    numbers = {"image_size": image_size, "train_images": train_images} | ({"timesteps": timesteps} if event else {})
    for argument, value in numbers.items():
        good, right = RANGES[argument]
        if type(value) is not int or not good(value):
            problems.append(f"{argument}={value!r}: give {right}")
    if event and binning not in CHOICES["binning"]:
        problems.append(f"binning={binning!r}: choose from {', '.join(CHOICES['binning'])}")
    if not problems:
        problems += reading.wrong_images(found, name, train_images)
    if not problems and event and image_size > found.size:
        problems.append(f"image_size={image_size}: the sensor of {name} has {found.size} pixels a side")
    if problems:
        raise ValueError("load_data: " + "; ".join(problems))
    frames = (timesteps, image_size or found.size, binning) if event else ()
    place = reading.decoded_place(name)[0] if found.formats else found.find()
    return _load(name, image_size, train_images, str(device), frames, str(place), id(found))


def forget() -> None:
    """Forget the data sets that `load_data` keeps in memory: the next ones are read again."""
    _load.cache_clear()


@functools.lru_cache(maxsize=4)
def _load(name, image_size, train_images, device, frames, place, entry):  # the last two: so that others are read anew
    import torch

    found, loaded = DATASETS[name], {}
    splits, fingerprint = reading.splits(name, *frames)
    for split, (x, y) in splits.items():
        if split == "train" and train_images:
            x, y = x[:train_images], y[:train_images]
        x = np.ascontiguousarray(resize(x, image_size) if image_size and not frames else x)
        # A map stays one, shared by the processes that read it; a view of a file's bytes must be copied.
        tensor = torch.from_numpy if x.flags.writeable else torch.tensor
        loaded[split] = (tensor(x), torch.tensor(y))
    mean, std = (transforms.scale if frames else transforms.moments)(loaded["train"][0])
    splits = {split: Split(x.to(device), y.to(device)) for split, (x, y) in loaded.items()}
    return Data(info=found, mean=mean, std=std, fingerprint=fingerprint, **splits)

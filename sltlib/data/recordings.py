"""The data sets of recordings, as they are handed round; readers: (info, folder) -> {split: events.Recordings}.

N-MNIST and DVS128 Gesture are read by `events`, CIFAR10-DVS by tonic. Recordings are listed and held to their
number, classes and sizes at once, and read when they are asked for.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from sltlib.data.events import Recordings, hash_of, read_aedat4, read_bin, read_npy, tonic_reader
from sltlib.data.splits import balanced


def read_nmnist(info, folder: Path) -> dict[str, Recordings]:
    """N-MNIST as its archives unpack: Train/<digit>/*.bin and Test/<digit>/*.bin.

    The validation recordings are held out of the training ones. SLAYER's sample has the same layout.
    """
    return _in_two(info, Path(folder), ("Train", "Test"), ".bin", read_bin, by_group=True)


def read_gesture(info, folder: Path) -> dict[str, Recordings]:
    """DVS128 Gesture as cut by tonic: ibmGestureTrain/<user and light>/<class>.npy, and ibmGestureTest.

    1,077 and 264 recordings (other cuts have 1,176 and 288). Users 1 to 23 train, 24 to 29 test; the
    validation recordings are of the training users, which makes them easier than the test.
    """
    parts = ("ibmGestureTrain", "ibmGestureTest")
    return _in_two(info, Path(folder), parts, ".npy", read_npy, by_group=False)


def read_cifar10_dvs(info, folder: Path) -> dict[str, Recordings]:
    """CIFAR10-DVS as its archives unpack: <class>/*.aedat4.

    It has no official split. Ours is drawn by `data.balanced`: as many of each class in every split.
    (Many papers test on the first hundred of each class, which is easier.)
    """
    files = _listed(info, Path(folder), ".aedat4", info.classes, True, sum(info.counts.values()))
    each = np.bincount([label for _, label, _ in files])
    if each.min() != each.max():
        raise ValueError(
            f"{info.title} in {folder} has {each.min():,} to {each.max():,} recordings a class, want"
            f" {len(files) // len(each):,} of each: {info.how}"
        )
    files, cut = _balanced(files), len(files) - info.counts["test"]
    return _hold_out(info, read_aedat4, files[:cut], files[cut:])


def _in_two(info, folder, parts, suffix, parse, by_group):
    """The splits of a data set whose classes are numbers and whose training and test files lie apart."""
    wanted = (info.counts["train"] + info.counts["val"], info.counts["test"])
    names = [str(number) for number in range(len(info.classes))]
    train, test = (
        _listed(info, folder / part, suffix, names, by_group, want)
        for part, want in zip(parts, wanted, strict=True)
    )
    return _hold_out(info, parse, train, test)


def _listed(info, root, suffix, names, by_group, want):
    """[(path, label, size and time of change)] of root/<group>/<file>, sorted by relative path.

    names : of the labels; a file's group is its name if by_group, else the file name without suffix.
    Refused before anything is read: another number of files than `want`, unknown labels, missing
    classes, empty files.
    """
    if not root.is_dir():
        raise ValueError(f"{info.title}: {root} is missing: {info.how}")
    files, labels = [], {name: i for i, name in enumerate(names)}
    for group in sorted(entry.name for entry in os.scandir(root) if entry.is_dir()):
        # Hidden files are what some systems leave beside the ones they copy.
        entries = (e for e in os.scandir(root / group) if e.name.endswith(suffix) and e.name[0] != ".")
        for entry in sorted(entries, key=lambda e: e.name):
            name = group if by_group else entry.name.removesuffix(suffix)
            if name not in labels:
                raise ValueError(
                    f"{entry.path} has the label {name!r}, want {names[0]} to {names[-1]}: {info.how}"
                )
            stat = entry.stat()
            if stat.st_size == 0:
                raise ValueError(f"{entry.path} is empty: {info.how}")
            fact = f"{group}/{entry.name} {stat.st_size} {stat.st_mtime_ns}"
            files.append((entry.path, labels[name], fact))
    found = {label for _, label, _ in files}
    missing = [name for i, name in enumerate(names) if i not in found]
    if len(files) != want or missing:
        lacks = f", none of class {', '.join(missing)}" if files and missing else ""
        raise ValueError(
            f"{info.title} has {len(files):,} {suffix} recordings in {root}{lacks}, want {want:,}: {info.how}"
        )
    return files


def _balanced(files):
    return [files[i] for i in balanced(np.array([label for _, label, _ in files]))]


def _hold_out(info, parse, train, test):
    """The three splits: the validation recordings are the last of the training ones' balanced order."""
    order = _balanced(train)
    cut = len(order) - info.counts["val"]
    parts = {"train": order[:cut], "val": order[cut:], "test": test}
    return {split: _of_files(info, parse, files) for split, files in parts.items()}


def _of_files(info, parse, files):
    sensor = (info.size, info.size)

    def read(indices):
        if parse is read_aedat4:
            tonic_reader()  # that it is missing is no damage to a file
        for i in indices:
            try:
                yield parse(files[i][0], sensor)
            except ValueError as error:
                raise ValueError(f"{error}: {info.how}") from error

    labels = np.array([label for _, label, _ in files], np.int64)
    return Recordings(labels, sensor, hash_of(*(fact for _, _, fact in files)), read)

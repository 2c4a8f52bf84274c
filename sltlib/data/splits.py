"""How a data set is split: a seeded order in which every part holds each class in proportion."""

from __future__ import annotations

import heapq

import numpy as np

SPLITS = ("train", "val", "test")
SPLIT_SEED = 0  # of every split; part of what the numbers depend on


def balanced(labels: np.ndarray, seed: int = SPLIT_SEED) -> np.ndarray:
    """A seeded order (N,) in which any prefix, and so any suffix, holds each class in proportion, within one.

    labels : whole numbers (N,). Where all classes are as many, they take turns in the order of the labels.

    The k-th of a class of n is due once (k + 1/c) N/n places are filled and must come before
    (k + 1 - 1/c) N/n are, with c = 2 (classes - 1); the most urgent comes first (Tijdeman 1980, The chairman
    assignment problem: so no class is ever a whole place ahead or behind).
    """
    # RandomState's stream is frozen by NumPy; default_rng's may change between versions.
    order = np.random.RandomState(seed).permutation(len(labels))
    own = [order[labels[order] == label] for label in np.unique(labels)]  # each class in its random order
    total, unit = len(labels), max(1, 2 * (len(own) - 1))
    due = sorted((-(-total * (unit * k + 1) // (unit * len(part))), i, k) for i, part in enumerate(own) for k in range(len(part)))
    waiting, taken, out = [], 0, np.empty(total, np.int64)
    for place in range(total):
        while taken < total and due[taken][0] <= place + 1:
            _, i, k = due[taken]
            heapq.heappush(waiting, ((unit * (k + 1) - 1) / len(own[i]), i, k))
            taken += 1
        _, i, k = heapq.heappop(waiting)
        out[place] = own[i][k]
    return out


def hold_out(info, train, test):
    """The three splits of (images, labels): the validation images are the last of the training ones' balanced order."""
    (images, labels), order = train, balanced(train[1])
    cut = len(order) - info.counts["val"]
    return {
        "train": (images[order[:cut]], labels[order[:cut]]),
        "val": (images[order[cut:]], labels[order[cut:]]),
        "test": test,
    }


def check_labels(info, labels: np.ndarray) -> None:
    """Raise ValueError for a label that is none of the data set's."""
    if labels.size and not 0 <= labels.min() <= labels.max() < len(info.classes):
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(f"{info.title} has the label {wrong}, want 0 to {len(info.classes) - 1}: {info.how}")

"""What a training says of every test image: one byte an image in its Result, one bit in a notebook's pack.

A byte holds the predicted class (7 bits: up to 128 classes) and whether it is right (the highest bit), so that
evidence needs no data set. The files are safetensors with one metadata key of sorted JSON: the same content has
the same bytes, and nothing is pickled. They are verified whole when read, by sha256; the fingerprint of the labels
tells which test split it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

FILE = "predictions.safetensors"  # of a Result, and of a notebook's results
CLASSES = 128
ONE, MANY = "sltlib predictions 1", "sltlib predictions of many 1"


@dataclass(frozen=True, eq=False)
class Right:
    """Which test images a training got right: bool (N,), and the fingerprint of their labels."""

    images: np.ndarray
    labels: str

    @property
    def accuracy(self) -> float:
        """In percent."""
        return 100 * float(self.images.mean())


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predicted class of every test image, uint8 (N,), which are right, bool (N,), and the labels' fingerprint."""

    classes: np.ndarray
    right: np.ndarray
    labels: str

    @classmethod
    def of(cls, classes, labels) -> Predictions:
        """From predicted and true classes, (N,) whole numbers from 0 to 127, arrays or tensors on the CPU."""
        classes, labels = np.asarray(classes), np.asarray(labels)
        for name, values in (("classes", classes), ("labels", labels)):
            if values.ndim != 1 or not len(values) or not np.issubdtype(values.dtype, np.integer):
                raise ValueError(f"{name} is {values.dtype} of shape {values.shape}: give whole numbers of shape (N,)")
            if values.min() < 0 or values.max() >= CLASSES:
                raise ValueError(f"{name} go from {values.min()} to {values.max()}: give 0 to {CLASSES - 1}")
        if len(classes) != len(labels):
            raise ValueError(f"{len(classes)} classes for {len(labels)} labels: give one an image")
        return cls(classes.astype(np.uint8), classes == labels, fingerprint(labels))

    @property
    def images(self) -> np.ndarray:
        """As of a `Right`: which are right."""
        return self.right

    @property
    def accuracy(self) -> float:
        """In percent."""
        return 100 * float(self.right.mean())


def fingerprint(labels) -> str:
    """16 hex digits of a split's labels, whole numbers (N,): the same for every integer type."""
    return hashlib.sha256(np.asarray(labels).astype("<i8").tobytes()).hexdigest()[:16]


def encode(found: Predictions) -> bytes:
    """The bytes of a Result's file."""
    values = found.classes | (found.right.astype(np.uint8) << 7)
    return _file(ONE, {"images": values}, {"labels": found.labels})


def decode(content: bytes) -> Predictions:
    """Predictions of a file's bytes; ValueError where it is damaged, or something else."""
    head, tensors = _read(content, ONE)
    values = tensors["images"]
    return Predictions(values & (CLASSES - 1), values >= CLASSES, head["labels"])


def pack(found: Mapping) -> bytes:
    """The bytes of a notebook's file: one bit an image, is it right? found : {experiment's key: Predictions or Right}."""
    groups: dict = {}
    for key in sorted(found):
        one = found[key]
        groups.setdefault((one.labels, len(one.images)), {})[key] = np.packbits(one.images)
    places = sorted(groups)
    tensors = {str(i): np.stack(list(groups[place].values())) for i, place in enumerate(places)}
    head = {"groups": [{"labels": p[0], "images": p[1], "keys": list(groups[p])} for p in places]}
    return _file(MANY, tensors, head)


def unpack(content: bytes) -> dict[str, Right]:
    """{key: Right} of a notebook's file; ValueError where it is damaged, or something else."""
    head, tensors = _read(content, MANY)
    out = {}
    for i, group in enumerate(head["groups"]):
        bits = np.unpackbits(tensors[str(i)], axis=1, count=group["images"]).astype(bool)
        out |= {key: Right(row, group["labels"]) for key, row in zip(group["keys"], bits, strict=True)}
    return out


def _file(kind, tensors, head):
    from safetensors.numpy import save

    head = head | {"format": kind}
    head["sha256"] = _digest(tensors, head)
    # one metadata key: with two, the header's order would be random
    return save(tensors, metadata={"sltlib": json.dumps(head, sort_keys=True)})


def _read(content, kind):
    """(head, tensors) of a verified file; whatever a broken one can raise becomes one ValueError."""
    from safetensors.numpy import load

    try:
        tensors = load(content)
        size = int.from_bytes(content[:8], "little")
        head = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["sltlib"])
        if head["format"] != kind:
            raise ValueError(f"its format is {head['format']!r}, wanted {kind!r}")
        if head.pop("sha256") != _digest(tensors, head):
            raise ValueError("its content does not match its sha256")
    except Exception as error:
        raise ValueError(f"this is no whole file of predictions ({error}); train or run the notebook again") from error
    return head, tensors


def _digest(tensors, head):
    sha = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    for name in sorted(tensors):
        sha.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        sha.update(np.ascontiguousarray(tensors[name]).tobytes())
    return sha.hexdigest()

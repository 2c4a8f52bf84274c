"""A layer of bits: its -1, 0 and +1 weights as two lists an output, and what follows them."""

from dataclasses import dataclass

import numpy as np

ARRAYS = ("deltas", "begin", "plus", "scale", "shift", "sums", "base")  # of a layer, as files and the kernel have them
TYPES = dict(deltas="u1", begin="u4", plus="u4", scale="f4", shift="f4", sums="i4", base="f4")
FARTHEST = 255  # the longest step of a list


@dataclass(frozen=True)
class PackedLayer:
    """One layer's weights as lists, and what follows them.

    kernel : 3 of a convolution, 1 of a linear layer. size : rows (and columns) that come in, 1 of a linear layer.
    pool : whether a 2x2 max-pool follows.
    deltas : uint8; for each output the inputs (channel, dy, dx) of its +1 weights in rising order, as steps from
        one to the next, then those of its -1 weights. Where a step would pass 255, an input in between stands in both.
    begin : (outputs + 1,) where each output's list begins. plus : (outputs,) how many of it are +1.
    scale, shift : (outputs,) float32; current = count * scale + shift.
    sums : sign networks: (outputs, 3, 3) the weights' sum at each place of the kernel, for borders; else empty.
    base : first layer: (outputs, 3, 3) what a pixel's mean adds, by row (first, inner, last) and column; else empty.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int
    size: int
    pool: bool
    deltas: np.ndarray
    begin: np.ndarray
    plus: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    sums: np.ndarray
    base: np.ndarray

    def __post_init__(self):
        lengths = np.diff(self.begin.astype(np.int64))
        good = len(self.begin) == self.outputs + 1 and self.begin[0] == 0 and self.begin[-1] == len(self.deltas)
        good = good and len(self.plus) == self.outputs and (lengths >= self.plus).all()
        good = good and all(len(a) == self.outputs and np.isfinite(a).all() for a in (self.scale, self.shift))
        good = good and all(a.size in (0, 9 * self.outputs) for a in (self.sums, self.base))
        if not good or self.taps().max(initial=0) >= self.inputs * self.kernel**2:
            raise ValueError(f"layer {self.name}: its lists do not fit {self.inputs} inputs and {self.outputs} outputs")

    @property
    def nbytes(self):
        """Bytes that the layer's arrays hold."""
        return sum(getattr(self, name).nbytes for name in ARRAYS)

    def taps(self):
        """The input of every entry of the lists, (entries,)."""
        starts = np.unique(np.concatenate([self.begin[:-1], self.begin[:-1] + self.plus]).astype(np.int64))
        starts = starts[starts < len(self.deltas)]
        sums = np.cumsum(self.deltas, dtype=np.int64)
        before = np.where(starts > 0, sums[starts - 1], 0)
        return sums - np.repeat(before, np.diff(np.append(starts, len(self.deltas))))

    def weight(self):
        """The weights -1, 0 and +1, (outputs, inputs * kernel * kernel) float32."""
        lengths = np.diff(self.begin.astype(np.int64))
        rows = np.repeat(np.arange(self.outputs), lengths)
        within = np.arange(len(self.deltas)) - np.repeat(self.begin[:-1].astype(np.int64), lengths)
        full = np.zeros((self.outputs, self.inputs * self.kernel**2), np.float32)
        np.add.at(full, (rows, self.taps()), np.where(within < self.plus[rows], 1, -1).astype(np.float32))
        return full


def lists(weight):
    """deltas, begin and plus (see PackedLayer) of weights -1, 0 and +1, (outputs, inputs)."""
    deltas, begin, plus = [], [0], []
    for row in weight:
        up, down = np.flatnonzero(row > 0), np.flatnonzero(row < 0)
        both = np.concatenate([_between(up), _between(down)])  # in both lists: they cancel
        for taps in (up, down):
            steps = np.diff(np.sort(np.concatenate([taps, both])), prepend=0)
            deltas.append(steps.astype(np.uint8))
        plus.append(len(up) + len(both))
        begin.append(begin[-1] + len(up) + len(down) + 2 * len(both))
    return np.concatenate(deltas), np.array(begin, np.uint32), np.array(plus, np.uint32)


def _between(taps):
    """Inputs that leave no step above 255 on the way from 0 over these."""
    starts = np.concatenate([[0], taps[:-1]]) if len(taps) else taps
    far = [np.arange(a + FARTHEST, b, FARTHEST) for a, b in zip(starts, taps, strict=True) if b - a > FARTHEST]
    return np.concatenate([*far, np.zeros(0, np.int64)]).astype(np.int64)

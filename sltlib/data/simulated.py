"""Recordings simulated from images: a pixel model whose statistics are held to real N-MNIST's, in whole numbers."""

from __future__ import annotations

import functools
import math
from statistics import NormalDist

import numpy as np

from sltlib.data.events import EVENT, Recordings, hash_of

CONTRAST = 0.4  # change of log intensity that makes an event
DARK = 0.2  # added to intensities of 0 to 1 before the logarithm
MISMATCH = 0.15  # standard deviation of a pixel's threshold, as a part of it
STEPS = 315  # milliseconds: three legs of 105
SEED = 0

GRID = 840  # positions are whole numbers of 1/840 pixel: every millisecond of the path is one
UNIT = 4096  # levels a unit of log intensity
FULL = 255 * GRID**2  # the intensity of a white pixel after bilinear interpolation in whole numbers
CHUNK = 2**16  # pixels simulated together: they fit a core's cache


def recordings(splits: dict) -> dict[str, Recordings]:
    """Simulated recordings of an image set, in its own splits: {split: (images, labels)} -> {split: Recordings}.

    Each image has its own pixels' mismatch, drawn by its number in the whole set. See `simulate`.
    """
    made, start = {}, 0
    for split, (x, y) in splits.items():
        made[split] = _of_images(x, y, np.arange(start, start + len(y)))
        start += len(y)
    return made


def _of_images(images, labels, numbers):
    side = _side(images.shape[-1])

    def read(indices):
        for part in _chunks(np.asarray(indices, np.int64), side):
            yield from simulate(images[part], numbers[part])

    model = (CONTRAST, DARK, MISMATCH, STEPS, SEED, GRID, UNIT)
    source = hash_of("simulated", 1, model, numbers[:1], images.shape, np.ascontiguousarray(images).tobytes())
    return Recordings(labels, (side, side), source, read)


def simulate(images: np.ndarray, numbers: np.ndarray | None = None, seed: int = SEED) -> list[np.ndarray]:
    """Recordings of still images before a moving event camera, as N-MNIST was made: [EVENT (n,)] * N.

    images : uint8 (N, H, H) or (N, C, H, H), whose channels are averaged; black surrounds them.
    numbers : (N,), each image's number in its set, 0 to N - 1 by default; with `seed` (0 to 2**32 - 1)
        it draws the thresholds of the pixels that see it.

    The sensor is 34/28 of an image a side. In three legs of 105 ms at constant speed, the image moves by
    (x, y) = (0, 0) -> (H/8, H/4) -> (H/4, 0) -> (0, 0) pixels, centred on the sensor: the path of
    N-MNIST's camera. A pixel remembers the log intensity L = ln(0.2 + I) of its last event; when L is a
    threshold away from it, the pixel fires and its memory moves by that threshold. Thresholds are 0.4,
    with a deviation of 15 % from pixel to pixel and between ON and OFF. Intensities are bilinear at every
    millisecond; an event's time is where the line between two of them crosses the threshold. A pixel
    fires once a millisecond at most and catches up in the next. There is no noise: an image of one grey
    that fills nothing makes no events.
    """
    square = images.ndim in (3, 4) and images.shape[-1] == images.shape[-2] and 0 not in images.shape[1:]
    if images.dtype != np.uint8 or not square:
        raise ValueError(f"images are {images.dtype} {images.shape}: give uint8 (N, H, H) or (N, C, H, H)")
    if images.ndim == 4:
        images = (images.sum(1, dtype=np.int64) // images.shape[1]).astype(np.uint8)
    numbers = np.arange(len(images)) if numbers is None else np.asarray(numbers)
    if numbers.shape != images.shape[:1] or numbers.dtype.kind not in "iu" or (numbers < 0).any():
        raise ValueError(f"numbers are {numbers.dtype} {numbers.shape}: give ({len(images)},), whole and not negative")
    parts = _chunks(np.arange(len(images)), _side(images.shape[-1]))
    return [events for part in parts for events in _expose(images[part], numbers[part], seed)]


def _chunks(indices, side):
    """The indices in parts of as many images as are fast together."""
    count = max(1, CHUNK // side**2)
    return (indices[start : start + count] for start in range(0, len(indices), count))


def _expose(images, numbers, seed):
    """`simulate` of a few grey images (N, H, H)."""
    n, side = len(images), _side(images.shape[-1])
    level, intensity, thresholds = _tables()
    draws = [np.random.RandomState([seed, number]).bytes(2 * side**2) for number in numbers]
    draws = np.frombuffer(b"".join(draws), np.uint8).reshape(n, 2, -1)
    on_step, off_step = thresholds[draws.transpose(1, 2, 0)].reshape(2, -1)  # (side side N,): image last

    moments = _moments(images)
    now, _ = next(moments)
    memory = level[now // (GRID**2 // 4)]
    high, low = intensity[memory + on_step], intensity[memory - off_step]  # where the pixel fires next
    on, fires = np.empty(len(now), bool), np.empty(len(now), bool)
    found = []
    for step, (now, before) in enumerate(moments):
        np.greater_equal(now, high, out=on)
        np.less_equal(now, low, out=fires)
        fires |= on
        i = np.flatnonzero(fires)  # the few that fire
        bright, moved = on[i], memory[i]
        sign, bound = np.where(bright, 1, -1), np.where(bright, high[i], low[i])
        # 0 for a pixel that was past its threshold already, having fired a millisecond ago
        part = np.maximum((bound - before[i]) * sign, 0)
        found.append((i, 1000 * step + 1000 * part // np.maximum((now[i] - before[i]) * sign, 1), bright))
        moved += np.where(bright, on_step[i], -off_step[i])
        memory[i], high[i], low[i] = moved, intensity[moved + on_step[i]], intensity[moved - off_step[i]]
    i, t, p = (np.concatenate(parts) for parts in zip(*found, strict=True))
    pixel, image = np.divmod(i, n)
    order = np.argsort(image * (1000 * STEPS + 1) + t, kind="stable")  # by image, time, pixel
    events = np.empty(len(i), EVENT)
    events["t"], events["p"] = t[order], p[order]
    events["y"], events["x"] = np.divmod(pixel[order], side)
    return np.split(events, np.cumsum(np.bincount(image, minlength=n))[:-1])


def _side(size):
    return (34 * size + 14) // 28  # N-MNIST: 34 for 28


@functools.cache
def _tables():
    """The pixel model in whole numbers.

    Levels count 1/4096 of log intensity from a lowest one. level (1021,): of the intensity in quarters of
    a grey value; intensity (M,): of each level, white is `FULL`; thresholds (256,): levels of a
    threshold, at 256 equally likely points of a normal distribution.
    """
    lowest = math.floor(UNIT * (math.log(DARK) - 1))  # a threshold stays below 1
    level = [round(UNIT * math.log(DARK + quarter / 1020)) - lowest for quarter in range(1021)]
    intensity = [round(FULL * (math.exp(m / UNIT) - DARK)) for m in range(lowest, UNIT + 1)]
    normal = [NormalDist(1, MISMATCH).inv_cdf((i + 0.5) / 256) for i in range(256)]
    thresholds = [round(UNIT * CONTRAST * value) for value in normal]
    return np.array(level), np.array(intensity, np.int32), np.array(thresholds)


def _place(size, step):
    """Where the image's upper left corner is at a millisecond: (x, y) in 1/840 pixel of the sensor."""
    x, y = size * step, 2 * size * min(step, 210 - step)  # H/840 and 2H/840 pixels a millisecond
    if step > 210:
        x, y = 2 * size * (STEPS - step), 0
    start = (GRID * (_side(size) - size) - GRID * size // 4) // 2
    return start + x, start + y


def _moments(images):
    """What the sensor sees at each millisecond, and saw before: int32 (side side N,) of 0 to `FULL`.

    Bilinear interpolation is a polynomial of the position within a pixel, so that moving on costs two
    additions; it is set up again where a pixel or a leg ends. The arrays are used again: copy to keep.
    """
    (n, size), side = images.shape[:2], _side(images.shape[-1])
    edge = side - size + size // 4 + 2  # black beyond the furthest place
    canvas = np.zeros((size + 2 * edge, size + 2 * edge, n), np.int32)
    canvas[edge : edge + size, edge : edge + size] = images.transpose(1, 2, 0)
    now, before, change, twice = (np.empty((side, side, n), np.int32) for _ in range(4))
    last = None
    for step in range(STEPS + 1):
        (x, y), (next_x, next_y) = _place(size, step), _place(size, min(step + 1, STEPS))
        (column, fx), (row, fy), dx, dy = divmod(x, GRID), divmod(y, GRID), next_x - x, next_y - y
        now, before = before, now
        if (column, row, dx, dy) == last:
            np.add(before, change, out=now)
            if dx and dy:  # else it stays as it is
                change += twice
        else:
            last = (column, row, dx, dy)
            top, left = edge - row, edge - column
            a, b, c, d = (
                canvas[top - i : top - i + side, left - j : left - j + side] for i in (0, 1) for j in (0, 1)
            )
            twist, b, c = a - b - c + d, b - a, c - a
            now[:] = GRID**2 * a + GRID * fx * b + GRID * fy * c + fx * fy * twist
            change[:] = GRID * dx * b + GRID * dy * c + (fx * dy + fy * dx + dx * dy) * twist
            twice[:] = 2 * dx * dy * twist
        yield now.reshape(-1), before.reshape(-1)

"""Event recordings: read from files, or simulated from images, and binned into frames.

An event is a time in microseconds, a pixel counted from the upper left corner, and a polarity: 1 (ON,
brighter) or 0 (OFF, darker). Everything here runs without torch, and in whole numbers: the same bytes
on every machine. N-MNIST and DVS128 Gesture are read by the few lines below, CIFAR10-DVS by tonic.
"""

import functools
import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np

EVENT = np.dtype([("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
DISORDER = 10_000  # microseconds: events that come later than this are damage, others are put in order
LONGEST = 3_600_000_000  # microseconds: no recording lasts over an hour
LATEST = 2**52  # no time is later: a thousand times this still fits 64 bits
BINNINGS = ("count", "time")


@dataclass(frozen=True)
class Recordings:
    """One split of an event data set; its events are read, or simulated, when they are asked for.

    labels : int64 (N,).
    sensor : (height, width) in pixels.
    source : hex hash of what is read, in its order; the key of whatever is made from it. Of files it is
        that of their names, sizes and times of change, of simulated events that of images and model.
    read : indices -> iterator of EVENT arrays (n,), sorted by time; ValueError names a damaged file.
    """

    labels: np.ndarray
    sensor: tuple[int, int]
    source: str
    read: Callable[[Iterable[int]], Iterator[np.ndarray]]

    def __len__(self):
        return len(self.labels)


# From events to frames


def bin_events(
    events: np.ndarray, timesteps: int, size: int, sensor: tuple[int, int], binning: str = "count"
) -> np.ndarray:
    """Frames of a recording: events counted by slice, polarity and cell, uint8 (T, 2, size, size).

    events : EVENT (n,), sorted by time; none give frames of zeros.
    binning : "count" gives event i of n to slice floor(i T / n), so that slices differ by one event at
        most (events of one time stamp keep their order); "time" gives time t to slice
        floor((t - first) T / (last - first + 1)).
    sensor : (height, width); pixel x goes to cell floor(x size / width), y likewise, so that cells
        differ by a pixel where size is no divisor, and a sensor that is not square is squeezed.

    Channel 0 counts OFF, channel 1 ON. A count above 255 is 255. ValueError for a size above the
    sensor's, events out of order or outside the sensor.
    """
    _check_binning(timesteps, size, sensor, binning)
    (height, width), n = sensor, len(events)
    if n == 0:
        return np.zeros((timesteps, 2, size, size), np.uint8)
    t, x, y, p = (events[name] for name in ("t", "x", "y", "p"))
    if (t[1:] < t[:-1]).any():
        raise ValueError("bin_events: the events are not in the order of their times: sort them first")
    if (why := _outside(x, y, p, sensor)) is not None:
        raise ValueError(f"bin_events: {why}")
    if binning == "count":
        step = np.arange(n) * timesteps // n
    else:
        step = (t - t[0]) * timesteps // (t[-1] - t[0] + 1)
    rows, columns = np.arange(height) * size // height, np.arange(width) * size // width
    cell = ((step * 2 + p) * size + rows[y]) * size + columns[x]  # (n,)
    counts = np.bincount(cell, minlength=timesteps * 2 * size**2)
    return np.minimum(counts, 255).astype(np.uint8).reshape(timesteps, 2, size, size)


def _check_binning(timesteps, size, sensor, binning):
    if binning not in BINNINGS:
        raise ValueError(f"binning={binning!r}: choose from {', '.join(BINNINGS)}")
    if timesteps < 1:
        raise ValueError(f"timesteps={timesteps}: give at least 1")
    if not 1 <= size <= min(sensor):
        raise ValueError(
            f"size={size}: the sensor has {sensor[0]}x{sensor[1]} pixels, give 1 to {min(sensor)} a side"
        )


def fill_frames(
    recordings: Recordings,
    out: np.ndarray,
    timesteps: int,
    size: int,
    binning: str = "count",
    progress: Callable[[int], object] | None = None,
) -> None:
    """Bin every recording into `out`, uint8 (N, T, 2, size, size); see `bin_events`.

    progress : called with the number of recordings done since it was called last.
    """
    _check_binning(timesteps, size, recordings.sensor, binning)
    shape = (len(recordings), timesteps, 2, size, size)
    if out.shape != shape or out.dtype != np.uint8:
        raise ValueError(f"out is {out.dtype} {out.shape}: give uint8 {shape}")
    for i, events in enumerate(recordings.read(range(len(recordings)))):
        out[i] = bin_events(events, timesteps, size, recordings.sensor, binning)
        if progress:
            progress(1)


def statistics(events: np.ndarray, sensor: tuple[int, int]) -> dict:
    """What a recording looks like: events, on_share, duration_ms, events_per_s, thirds and active_share.

    thirds : shares of the events in each third of the time. active_share : of pixels with an event.
    ValueError for a recording without events.
    """
    if len(events) == 0:
        raise ValueError("statistics: the recording has no events")
    span = int(events["t"][-1] - events["t"][0])
    pixels = len(np.unique(events["y"].astype(np.int64) * sensor[1] + events["x"]))
    thirds = np.bincount((events["t"] - events["t"][0]) * 3 // (span + 1), minlength=3)
    return {
        "events": len(events),
        "on_share": float(events["p"].mean()),
        "duration_ms": span / 1e3,
        "events_per_s": len(events) / (max(span, 1) / 1e6),
        "thirds": tuple((thirds / len(events)).tolist()),
        "active_share": pixels / (sensor[0] * sensor[1]),
    }


# Files of one recording


def read_bin(path: Path, sensor: tuple[int, int]) -> np.ndarray:
    """Events of a .bin file, as in N-MNIST: EVENT (n,).

    Five bytes an event: x, y, (p << 7) | (t >> 16), (t >> 8) & 255, t & 255. A row with y = 240 is no
    event: it says that the counter ran over, and all later times are 8,192 microseconds more.
    """
    raw = np.fromfile(path, np.uint8)
    if len(raw) % 5:
        raise ValueError(f"{path} is damaged ({len(raw):,} bytes, want whole events of 5)")
    x, y, high, middle, low = raw.reshape(-1, 5).T
    t = ((high & 127).astype(np.int64) << 16) | (middle.astype(np.int64) << 8) | low
    p = high >> 7
    if (over := y == 240).any():
        t += np.cumsum(over) << 13
        t, x, y, p = t[~over], x[~over], y[~over], p[~over]
    return _checked(path, t, x, y, p, sensor)


def read_npy(path: Path, sensor: tuple[int, int]) -> np.ndarray:
    """Events of a .npy file, as in tonic's cut of DVS128 Gesture: EVENT (n,).

    Whole numbers (n, 4) of any dtype: x, y, p and t in milliseconds, widened before they become
    microseconds, which 16 bits do not hold.
    """
    try:
        # A memory map admits no pickle, and no header that promises more than the file holds.
        raw = np.load(path, mmap_mode="r", allow_pickle=False)
        numbers = isinstance(raw, np.ndarray) and raw.dtype.kind in "biuf"
        if not numbers or raw.ndim != 2 or raw.shape[1] != 4:
            raise ValueError("want one array of numbers (n, 4): x, y, p, t")
        with np.errstate(invalid="ignore"):  # NaN is caught by the comparison
            rows = raw.astype(np.int64)
        if (rows != raw).any():
            raise ValueError("it holds numbers that are not whole")
    except (EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    x, y, p, t = rows.T
    return _checked(path, t, x, y, p, sensor, tick=1000)


def read_aedat4(path: Path, sensor: tuple[int, int]) -> np.ndarray:
    """Events of an .aedat4 file, as in tonic's CIFAR10-DVS, through tonic: EVENT (n,)."""
    read = _tonic()
    try:
        raw = read(str(path))
        t, x, y, p = (raw[name] for name in raw.dtype.names)
    except BaseException as error:  # aedat raises plain Exceptions, and panics, which are none
        if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
            raise
        raise ValueError(f"{path} is damaged ({error})") from error
    return _checked(path, t.astype(np.int64), x, y, p, sensor)


def _tonic():
    """tonic's function that reads one file. Its data sets are left alone: they download and overwrite."""
    try:
        import aedat  # noqa: F401 (tonic asks for it only when it reads)
        from tonic.io import read_aedat4
    except ImportError as error:
        raise ValueError(
            f"CIFAR10-DVS is read by tonic and aedat, and {error.name} cannot be imported:"
            " pip install -c constraints.txt -e '.[events]'"
        ) from error
    return read_aedat4


def _outside(x, y, p, sensor):
    """What is wrong with addresses or polarities, or None."""
    for name, values, stop in (("x", x, sensor[1]), ("y", y, sensor[0]), ("p", p, 2)):
        if values.min() < 0 or values.max() >= stop:
            wrong = values.min() if values.min() < 0 else values.max()
            return f"an event has {name}={wrong}, want 0 to {stop - 1}"
    return None


def _checked(path, t, x, y, p, sensor, tick=1):
    """An EVENT array in the order of time; ValueError names the file and what is wrong with it.

    t : int64, in ticks of so many microseconds.
    """
    if len(t) == 0:
        raise ValueError(f"{path} holds no events")
    if (why := _outside(x, y, p, sensor)) is not None:
        raise ValueError(f"{path} is damaged ({why})")
    if t.min() < 0 or t.max() > LATEST:
        raise ValueError(f"{path} is damaged (times from {t.min()} to {t.max()})")
    events, t = np.empty(len(t), EVENT), t * tick
    events["t"], events["x"], events["y"], events["p"] = t, x, y, p
    late = np.maximum.accumulate(t) - t  # (n,): how long after a later event each one comes
    if late.max() > DISORDER:
        raise ValueError(
            f"{path} is damaged (event {late.argmax():,} comes {late.max():,} us after a later one, want"
            f" at most {DISORDER:,})"
        )
    if late.any():
        events = events[np.argsort(t, kind="stable")]
    if events["t"][-1] - events["t"][0] > LONGEST:
        raise ValueError(f"{path} is damaged (it lasts over an hour)")
    return events


# Data sets: readers are (info, folder) -> {"train": Recordings, "val": ..., "test": ...}


def read_nmnist(info, folder: Path) -> dict[str, Recordings]:
    """N-MNIST as its archives unpack: Train/<digit>/*.bin and Test/<digit>/*.bin.

    The validation recordings are held out of the training ones.
    """
    return _in_two(info, Path(folder), ("Train", "Test"), ".bin", read_bin, by_group=True)


read_nmnist_small = read_nmnist  # SLAYER's sample has the same layout


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
    from sltlib.data import balanced

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
            _tonic()  # that it is missing is no damage to a file
        for i in indices:
            try:
                yield parse(files[i][0], sensor)
            except ValueError as error:
                raise ValueError(f"{error}: {info.how}") from error

    labels = np.array([label for _, label, _ in files], np.int64)
    return Recordings(labels, sensor, _hash(*(fact for _, _, fact in files)), read)


def _hash(*parts):
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else f"{part}\n".encode())
    return digest.hexdigest()


# Simulated events

CONTRAST = 0.4  # change of log intensity that makes an event
DARK = 0.2  # added to intensities of 0 to 1 before the logarithm
MISMATCH = 0.15  # standard deviation of a pixel's threshold, as a part of it
STEPS = 315  # milliseconds: three legs of 105
SEED = 0

GRID = 840  # positions are whole numbers of 1/840 pixel: every millisecond of the path is one
UNIT = 4096  # levels a unit of log intensity
FULL = 255 * GRID**2  # the intensity of a white pixel after bilinear interpolation in whole numbers
CHUNK = 2**16  # pixels simulated together: they fit a core's cache


def simulated(info, folder: Path, images: str = "fashion") -> dict[str, Recordings]:
    """Simulated recordings of an image set, in its own splits; `folder` is the image set's own business.

    images : name of an image set. Each image has its own pixels' mismatch, drawn by its number in the
    whole set. See `simulate`.
    """
    from sltlib import data

    splits, start = {}, 0
    for split, (x, y) in data.info(images).read().items():
        splits[split] = _of_images(x, y, np.arange(start, start + len(y)))
        start += len(y)
    return splits


def _of_images(images, labels, numbers):
    side = _side(images.shape[-1])

    def read(indices):
        for part in _chunks(np.asarray(indices, np.int64), side):
            yield from simulate(images[part], numbers[part])

    model = (CONTRAST, DARK, MISMATCH, STEPS, SEED, GRID, UNIT)
    source = _hash("simulated", 1, model, numbers[:1], images.shape, np.ascontiguousarray(images).tobytes())
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

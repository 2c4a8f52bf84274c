"""Event recordings: one file read, and binned into frames of counts.

An event is a time in microseconds, a pixel counted from the upper left corner, and a polarity: 1 (ON,
brighter) or 0 (OFF, darker). Everything here runs without torch, and in whole numbers: the same bytes
on every machine. The data sets are in recordings.py and simulated.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

EVENT = np.dtype([("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
DISORDER = 10_000  # microseconds: events that come later than this are damage, others are put in order
LONGEST = 3_600_000_000  # microseconds: no recording lasts over an hour
LATEST = 2**52  # no time is later: a thousand times this still fits 64 bits
BINNINGS = ("count", "time")
COUNTS = ("|u1", "<i2", "<i4")  # types of a frame's counts, the narrowest first: those that torch can index


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


def hash_of(*parts) -> str:
    """Hex sha256 of bytes, and of what other values are as text."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else f"{part}\n".encode())
    return digest.hexdigest()


# From events to frames


def bin_events(
    events: np.ndarray, timesteps: int, size: int, sensor: tuple[int, int], binning: str = "count"
) -> np.ndarray:
    """Frames of a recording: events counted by slice, polarity and cell, (T, 2, size, size).

    events : EVENT (n,), or the same fields in other whole numbers, sorted by time; none give frames of zeros.
    binning : "count" gives event i of n to slice floor(i T / n), so that slices differ by one event at
        most (events of one time stamp keep their order); "time" gives time t to slice
        floor((t - first) T / (last - first + 1)).
    sensor : (height, width); pixel x goes to cell floor(x size / width), y likewise, so that cells
        differ by a pixel where size is no divisor, and a sensor that is not square is squeezed.

    Channel 0 counts OFF, channel 1 ON. Every event is counted: the type is the narrowest of `COUNTS` that holds
    the largest count, uint8 up to 255. ValueError for a size above the sensor's, events out of order or outside
    the sensor.
    """
    _check_binning(timesteps, size, sensor, binning)
    (height, width), n = sensor, len(events)
    if n == 0:
        return np.zeros((timesteps, 2, size, size), np.uint8)
    t, x, y, p = _fields(events)
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
    kind = next(kind for kind in COUNTS if counts.max() <= np.iinfo(kind).max)
    return counts.astype(kind).reshape(timesteps, 2, size, size)


def _fields(events):
    """Times, columns, rows and polarities of events, as in EVENT or as int64: narrow times would wrap when multiplied."""
    given = events.dtype.fields or {}
    wrong = [name for name in EVENT.names if name not in given or given[name][0].kind not in "biu"]
    if wrong or events.ndim != 1:
        raise ValueError(f"events are {events.dtype} {events.shape}: give {EVENT} (n,), all whole numbers")
    return [events[n] if given[n][0] == EVENT[n] else events[n].astype(np.int64) for n in EVENT.names]


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
    """Bin every recording into `out`, (N, T, 2, size, size) of a type in `COUNTS`; see `bin_events`.

    progress : called with the number of recordings done since it was called last.

    OverflowError where `out` is too narrow for a count: give a wider one. ValueError where `out` has another
    shape, a recording is not one, or they are more or fewer than their labels.
    """
    _check_binning(timesteps, size, recordings.sensor, binning)
    shape = (len(recordings), timesteps, 2, size, size)
    if out.shape != shape or out.dtype not in map(np.dtype, COUNTS):
        kinds = ", ".join(np.dtype(kind).name for kind in COUNTS)
        raise ValueError(f"out is {out.dtype} {out.shape}: give {shape} of {kinds}")
    most, found = np.iinfo(out.dtype).max, 0
    for i, events in enumerate(recordings.read(range(len(recordings)))):
        found = i + 1
        if found > len(recordings):
            break
        try:
            frames = bin_events(events, timesteps, size, recordings.sensor, binning)
        except ValueError as error:
            raise ValueError(f"recording {i:,}: {error}") from error
        if frames.max() > most:
            raise OverflowError(f"recording {i:,} has {frames.max():,} events in a cell: {out.dtype} holds {most:,}")
        out[i] = frames
        if progress:
            progress(1)
    if found != len(recordings):
        more = "more" if found > len(recordings) else f"{found:,}"
        raise ValueError(f"{len(recordings):,} recordings are promised, and reading them gives {more}")


def statistics(events: np.ndarray, sensor: tuple[int, int]) -> dict:
    """What a recording looks like: events, on_share, duration_ms, events_per_s, thirds and active_share.

    thirds : shares of the events in each third of the time. active_share : of pixels with an event.
    ValueError for a recording without events.
    """
    if len(events) == 0:
        raise ValueError("statistics: the recording has no events")
    t, x, y, _ = _fields(events)
    span = int(t[-1] - t[0])
    pixels = len(np.unique(y.astype(np.int64) * sensor[1] + x))
    thirds = np.bincount((t - t[0]) * 3 // (span + 1), minlength=3)
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
        raw = np.lib.format.open_memmap(path, mode="r")
        if raw.dtype.kind not in "biuf" or raw.ndim != 2 or raw.shape[1] != 4:
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
    read = tonic_reader()
    try:
        raw = read(str(path))
        t, x, y, p = (raw[name] for name in raw.dtype.names)
    except BaseException as error:  # aedat raises plain Exceptions, and panics, which are none
        if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
            raise
        raise ValueError(f"{path} is damaged ({error})") from error
    return _checked(path, t.astype(np.int64), x, y, p, sensor)


def tonic_reader() -> Callable:
    """tonic's function that reads one file; ValueError with the line that installs it. Its data sets are left alone: they download and overwrite."""
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

"""Data sets as tensors: uint8 images or event frames and labels, split by a fixed seed, normalised by the batch.

What the data sets are is in sltlib/data/catalogue.py. Everything up to `load_data` runs without torch. What takes
long to read is kept as arrays: decoded images in data/arrays, frames of recordings in data/frames.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sltlib.data import archives, arrays, formats
from sltlib.base import paths
from sltlib.data.catalogue import DATASETS, SPLITS, Info, balanced, hold_out, info
from sltlib.experiment import CHOICES, NUMERICS, RANGES
from sltlib.data.formats import read_idx


DECODED = 1  # version of the arrays in data/arrays: raise it when the same files give others


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
        problems += [f"{name}: {problem}" for problem in _problems(name)]
        if images > found.counts["train"]:
            problems.append(_too_many(name, images))
    if problems:
        raise ValueError("\n".join(["The data are not ready:", *problems]))


def _problems(name):
    """Why a data set cannot be loaded, by a quick look."""
    found = DATASETS[name]
    if found.formats and (_cache(name)[0] / arrays.MANIFEST).is_file():
        return []
    missing = [package for package in found.packages if importlib.util.find_spec(package) is None]
    if missing and not _whole(paths.data() / "frames" / name):
        needs = f"reading its recordings needs {' and '.join(missing)}: pip install -c constraints.txt -e '.[events]'"
        return [*found.problems(), needs]
    return found.problems()


def _whole(folder):
    """Whether a cache of this data set looks as if it held arrays."""
    return any(folder.glob(f"[!.]*/{arrays.MANIFEST}"))


def _too_many(name, images):
    what = "recordings" if DATASETS[name].event else "images"
    return f"train_images={images}: {name} has {DATASETS[name].counts['train']} training {what}"


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Area averages of uint8 images (..., H, W) -> (..., size, size), halves rounded up.

    Pixel i is the mean over rows floor(i H / size) up to ceil((i + 1) H / size), as in adaptive
    average pooling; in whole numbers, so that every machine gets the same bytes.
    """
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    rows, columns = _windows(height, size), _windows(width, size)  # (size, H), (size, W)
    area = np.outer(rows.sum(1), columns.sum(1)).astype(np.int64)
    out = np.empty((*images.shape[:-2], size, size), np.uint8)
    for start in range(0, len(images), 1000):  # a part at a time: float32 takes four times the memory
        part = slice(start, start + 1000)
        sums = (rows @ images[part].astype(np.float32) @ columns.T).astype(np.int64)  # below 2**24: exact
        out[part] = (2 * sums + area) // (2 * area)
    return out


def _windows(size, new):
    i, pixel = np.arange(new)[:, None], np.arange(size)
    return ((pixel >= i * size // new) & (pixel < -(-(i + 1) * size // new))).astype(np.float32)


@dataclass(frozen=True)
class Split:
    """Images x, uint8 (N, C, H, W) or frames (N, T, 2, H, W), and labels y, int64 (N,)."""

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
        """x[index], augmented and normalised: float32 (B, ...) of uint8 x (N, ...) of a split, index (B,)."""
        return normalise(augment(x.index_select(0, index), kind, generator), self.mean, self.std)


def load_data(
    name: str, image_size: int = 0, train_images: int = 0, device="cpu", timesteps: int = 4, binning: str = "count"
) -> Data:
    """A data set as tensors on `device`; the last few are kept in memory.

    image_size : pixels a side after area averaging (of events: cells a side); 0 keeps the native size.
    train_images : only the first so many training images or recordings; 0 means all. Any multiple of
        the number of classes is class-balanced.
    timesteps, binning : of event data: frames of a recording, by equal counts or times ("count", "time").
        They are binned once, into data/frames. Of images they are ignored.

    Raises ValueError naming all wrong arguments, or what is missing or damaged and its repair.
    """
    problems = []
    try:
        event = info(name).event
    except ValueError as error:
        event = False
        problems.append(str(error))
    numbers = {"image_size": image_size, "train_images": train_images}
    numbers |= {"timesteps": timesteps} if event else {}
    for argument, value in numbers.items():
        good, right = RANGES[argument]
        if type(value) is not int or not good(value):
            problems.append(f"{argument}={value!r}: give {right}")
    if event and binning not in CHOICES["binning"]:
        problems.append(f"binning={binning!r}: choose from {', '.join(CHOICES['binning'])}")
    if not problems and train_images > DATASETS[name].counts["train"]:
        problems.append(_too_many(name, train_images))
    if not problems and event and image_size > DATASETS[name].size:
        problems.append(f"image_size={image_size}: the sensor of {name} has {DATASETS[name].size} pixels a side")
    if problems:
        raise ValueError("load_data: " + "; ".join(problems))
    found = DATASETS[name]
    frames = (timesteps, image_size or found.size, binning) if event else ()
    place = _cache(name)[0] if found.formats else found.find()
    return _load(name, image_size, train_images, str(device), frames, str(place), found.reader)


@functools.lru_cache(maxsize=4)
def _load(name, image_size, train_images, device, frames, place, reader):  # the last two: so that others are read anew
    import torch

    found, loaded = DATASETS[name], {}
    splits, fingerprint = _splits(name, *frames)
    for split, (x, y) in splits.items():
        if split == "train" and train_images:
            x, y = x[:train_images], y[:train_images]
        x = np.ascontiguousarray(resize(x, image_size) if image_size and not frames else x)
        # A map stays one, shared by the processes that read it; a view of a file's bytes must be copied.
        tensor = torch.from_numpy if x.flags.writeable else torch.tensor
        loaded[split] = (tensor(x), torch.tensor(y))
    mean, std = _scale(loaded["train"][0]) if frames else _moments(loaded["train"][0])
    splits = {split: Split(x.to(device), y.to(device)) for split, (x, y) in loaded.items()}
    return Data(info=found, mean=mean, std=std, fingerprint=fingerprint, **splits)


def _splits(name, *frames):
    """{split: (x, y)} as arrays of native size, or as frames (timesteps, size, binning), and the fingerprint."""
    if frames:
        return _frames(name, *frames)
    if info(name).formats:
        return _decoded(name)
    splits = info(name).read()
    return splits, _fingerprint(arrays.sha256(part) for split in SPLITS for part in splits[split])


def _frames(name, timesteps, size, binning):
    """The frames of an event data set, binned once: data/frames/<name>/<hash of the recordings and settings>."""
    from sltlib.data import events

    recordings = info(name).read()
    about = {"dataset": name, "timesteps": timesteps, "size": size, "binning": binning, "numerics": NUMERICS}
    about["source"] = {split: recordings[split].source for split in SPLITS}
    shapes = {}
    for split in SPLITS:
        n = len(recordings[split].labels)
        shapes |= {f"{split}_x": ((n, timesteps, 2, size, size), "|u1"), f"{split}_y": ((n,), "<i8")}

    def fill(maps):
        with archives.bar(f"{name}: binning", sum(info(name).counts.values())) as bar:
            for split in SPLITS:
                x = maps[f"{split}_x"]
                events.fill_frames(recordings[split], x, timesteps, size, binning, progress=bar.update)
                maps[f"{split}_y"][:] = recordings[split].labels

    return _cached(_folder("frames", name, about), about, shapes, fill)


def _decoded(name):
    """The images of a data set that takes long to decode, from data/arrays, decoded on first use."""
    folder, about, shapes = _cache(name)

    def fill(maps):
        try:
            splits = info(name).read()
        except ValueError as error:
            hint = f"{folder} is damaged, and to make it again: " if folder.exists() else ""
            raise ValueError(f"{hint}{error}") from error
        _copy(splits, maps)

    return _cached(folder, about, shapes, fill)


def _cache(name):
    """Where the decoded arrays of a data set are, what they say that they are, and their shapes."""
    found = info(name)
    image = (found.channels, found.size, found.size)
    about = {"dataset": name, "counts": found.counts, "image": image, "version": DECODED}
    shapes = {}
    for split in SPLITS:
        n = found.counts[split]
        shapes |= {f"{split}_x": ((n, *image), "|u1"), f"{split}_y": ((n,), "<i8")}
    return _folder("arrays", name, about), about, shapes


def _folder(kind, name, about):
    return paths.data() / kind / name / hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def _copy(splits, maps):
    for split, (x, y) in splits.items():
        maps[f"{split}_x"][:], maps[f"{split}_y"][:] = x, y


def _cached(folder, about, shapes, fill):
    """The splits in a cache's folder, made on first use, and their fingerprint."""
    maps = arrays.made(folder, about, shapes, fill)
    values = arrays.hashes(folder)
    parts = {split: (maps[f"{split}_x"], maps[f"{split}_y"]) for split in SPLITS}
    return parts, _fingerprint(values[f"{split}_{part}"] for split in SPLITS for part in "xy")


def _fingerprint(values):
    return hashlib.sha256("".join(values).encode()).hexdigest()[:16]


def _moments(x):
    """Mean and standard deviation of each channel in 0..1, from whole-number counts: exact anywhere."""
    mean, std = [], []
    for n, first, second in _sums(x):
        mean.append(first / (255 * n))
        std.append((n * second - first**2) ** 0.5 / (255 * n) or 1.0)  # a blank channel is left as it is
    return tuple(mean), tuple(std)


def _scale(x):
    """Of frames: 0 for each channel, and the root mean square in 0..1."""
    scale = tuple((second / n) ** 0.5 / 255 or 1.0 for n, _, second in _sums(x))
    return (0.0,) * len(scale), scale


def _sums(x):
    """For each channel how many values there are, their sum and the sum of their squares; whole numbers."""
    for channel in range(x.shape[-3]):
        counts = 0
        for part in x.select(-3, channel).split(1000):  # a part at a time: what is not contiguous is copied
            counts = counts + part.reshape(-1).bincount(minlength=256)
        counts = counts.tolist()
        yield (
            sum(counts),
            sum(value * count for value, count in enumerate(counts)),
            sum(value * value * count for value, count in enumerate(counts)),
        )


def normalise(x, mean, std):
    """uint8 (..., C, H, W) -> float32 (x / 255 - mean) / std; mean and std have C values."""
    import torch

    scale = torch.tensor([1 / (255 * s) for s in std], device=x.device)[:, None, None]
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=x.device)[:, None, None]
    return torch.addcmul(shift, x.to(torch.float32), scale)


def augment(x, kind: str, generator):
    """A random view of each image of a batch, x (B, C, H, W) or frames (B, T, 2, H, W); the same dtype.

    kind : one of experiment.CHOICES["augment"]. "crop" pads with zeros by an eighth of the size and
        cuts at random; "flip" mirrors left-right with probability 1/2; "cutout" blanks a square of
        half the size around a random pixel. All frames of a recording share one view.
    generator : torch.Generator; it is left alone by "none" only.
    """
    import torch

    if kind not in CHOICES["augment"]:
        raise ValueError(f"augment={kind!r}: choose from {', '.join(CHOICES['augment'])}")
    if kind == "none":
        return x
    if generator is None:
        raise ValueError(f"augment={kind!r} needs a torch.Generator, got None")
    batch, height, width = x.shape[0], x.shape[-2], x.shape[-1]

    def draw(high):
        return torch.randint(high, (batch, 1), generator=generator, device=generator.device).to(x.device)

    pad_y, pad_x = max(1, height // 8), max(1, width // 8)
    # where each row and each column of the view comes from
    rows = torch.arange(height, device=x.device) + draw(2 * pad_y + 1) - pad_y  # (B, H)
    columns = torch.arange(width, device=x.device) + draw(2 * pad_x + 1) - pad_x  # (B, W)
    if "flip" in kind:
        columns = torch.where(draw(2).bool(), columns.flip(1), columns)
    inside = _between(rows, 0, height)[:, :, None] & _between(columns, 0, width)[:, None]  # (B, H, W)
    if "cutout" in kind:
        top, left = draw(height) - height // 4, draw(width) - width // 4
        cut_y = _between(torch.arange(height, device=x.device), top, top + height // 2)
        cut_x = _between(torch.arange(width, device=x.device), left, left + width // 2)
        inside &= ~(cut_y[:, :, None] & cut_x[:, None])
    source = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]  # (B, H, W)
    flat = x.reshape(batch, -1, height * width)  # (B, C, H W)
    view = flat.gather(2, source.reshape(batch, 1, -1).expand_as(flat))
    return (view * inside.reshape(batch, 1, -1)).reshape(x.shape)


def _between(x, low, high):
    return (x >= low) & (x < high)


def table() -> str:
    """Every data set with what it holds, where it was found, and what to do when it was not."""
    lines = []
    for name, found in DATASETS.items():
        problems = _problems(name)
        counts = " + ".join(f"{found.counts[split]:,} {split}" for split in SPLITS)
        shape = f"{found.channels}x{found.size}x{found.size}{' events' if found.event else ''}"
        lines += [
            f"{name:14} {found.title}: {counts}, {shape}, {len(found.classes)} classes",
            f"{'':14} needs {found.needs}",
        ]
        lines += [f"{'':14} {problem}" for problem in problems] or [f"{'':14} found in {_found(name)}"]
    return "\n".join(lines)


def _found(name):
    """Where a data set that has no problems is."""
    cache = _cache(name)[0] if DATASETS[name].formats else None
    return cache if cache and cache.is_dir() else DATASETS[name].find()


def get(name: str) -> str:
    """Fetch a data set's archives into data/<name>, unpack and read them; says where it is.

    A download that was cut goes on. ValueError says how to place the files by hand.
    """
    found, folder = info(name), paths.data() / name
    if _problems(name) and not found.archives:
        raise ValueError(f"{name} cannot be fetched: {found.how}")
    if _problems(name):
        for archive in found.archives:
            if not all((folder / held).exists() for held in archive.holds):
                archives.extract(archives.download(archive, folder), folder, archive.nested)
    try:
        if found.event:
            found.read()
        else:
            _splits(name)
    except ValueError as error:  # which may well say that this command is the remedy
        if not found.archives:
            raise
        place = found.find() or folder
        raise ValueError(f"{place} is not whole: move away what is there, and try again\n{error}") from error
    if problems := _problems(name):
        raise ValueError("\n".join([f"{name} is in {found.find()}, but not ready:", *problems]))
    return f"{name} is ready in {_found(name)}"


def use(name: str, path: Path) -> str:
    """Read an image data set from a folder or an archive of yours, in any of its formats; says where it is.

    The decoded arrays are kept in data/arrays. What stands there already is never replaced.
    """
    found, path = info(name), Path(path).expanduser().absolute()
    if not found.formats:
        raise ValueError(f"{name} is read from its own place only: {found.how}")
    if not path.exists():
        raise ValueError(f"{path} does not exist: give a folder or an archive")
    seen = formats.find(found, [path])
    if seen is None:
        raise ValueError(f"{path} holds nothing of {found.title}; it may be {found.needs}")
    if seen.problems:
        raise ValueError("\n".join([f"{found.title} cannot be read:", *seen.problems]))
    splits = hold_out(found, *formats.read(found, seen))
    folder, about, shapes = _cache(name)
    there = arrays.made(folder, about, shapes, lambda maps: _copy(splits, maps))  # by another process, maybe
    new = {f"{split}_{part}": a for split in SPLITS for part, a in zip("xy", splits[split], strict=True)}
    if not all(np.array_equal(there[part], new[part]) for part in there):
        raise ValueError(f"{folder} holds other images as {name}: remove it first to use those in {path}")
    return f"{name} is ready in {folder}"


def manifest(name: str, *frames) -> dict:
    """Shapes, images a class and sha256 of each split: the same wherever the data set was found.

    frames : timesteps, cells a side and binning of an event data set.
    """
    out = {}
    for split, (x, y) in _splits(name, *frames)[0].items():
        digest = hashlib.sha256(np.ascontiguousarray(x))
        digest.update(y.astype("<i8").tobytes())
        per_class = np.bincount(y, minlength=len(info(name).classes)).tolist()
        out[split] = {"shape": list(x.shape), "images_per_class": per_class, "sha256": digest.hexdigest()}
    return out


def prepare(profile: str, folder: Path | None = None) -> Path:
    """Check and describe every data set of a profile in <folder>/manifest.json, DVC's data stage.

    The frames that its notebooks train on are made too. folder : data/prepared/<profile> at the
    repository's root by default.
    """
    wanted = _wanted(profile)
    check(list(wanted))
    described = {}
    for name in sorted(wanted):
        if info(name).event:
            described[name] = {f"T={t} {s}x{s} {b}": manifest(name, t, s, b) for t, s, b in sorted(wanted[name])}
        else:
            described[name] = manifest(name)
    text = json.dumps(described, indent=1, sort_keys=True) + "\n"
    folder = Path(folder or paths.ROOT / "data" / "prepared" / profile)
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".manifest.{os.getpid()}"
    try:
        scratch.write_text(text, encoding="utf-8")
        os.replace(scratch, folder / "manifest.json")
    finally:
        scratch.unlink(missing_ok=True)
    return folder / "manifest.json"


def _wanted(profile):
    """{data set: {(timesteps, size, binning), ...}} of a profile's notebooks; the sets of images have none."""
    from sltlib.notebook import params

    blocks = params.profiles()
    if profile not in blocks:
        raise ValueError(f"profile={profile!r}: params.yaml has {', '.join(blocks)}")
    wanted, known = {}, params.names()
    for notebook, block in blocks[profile].items():
        values = (params.declared(notebook) if notebook in known else {}) | block
        for name in params.datasets(values):
            settings = wanted.setdefault(name, set())
            if name in DATASETS and DATASETS[name].event:
                size, binning = values.get("image_size", 0), values.get("binning", "count")
                times = {*values.get("times", []), values.get("timesteps")} - {None}
                settings |= {(t, size or DATASETS[name].size, binning) for t in times or {4}}
    return wanted


def main(argv: list[str] | None = None) -> int:
    """`python -m sltlib data [list | get NAME | use NAME PATH | prepare --profile P]`; 1 when it fails."""
    parser = argparse.ArgumentParser(prog="python -m sltlib data", description="Data sets.")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("list", help="every data set, what it needs, where it was found (the default)")
    fetch = commands.add_parser("get", help="fetch a data set, check, unpack and read it")
    fetch.add_argument("name")
    own = commands.add_parser("use", help="read a data set from a folder or an archive of yours")
    own.add_argument("name")
    own.add_argument("path")
    stage = commands.add_parser("prepare", help="check and describe the data sets of a profile")
    stage.add_argument("--profile", required=True)
    args = parser.parse_args(argv)
    try:
        if args.command == "get":
            print(get(args.name))
        elif args.command == "use":
            print(use(args.name, args.path))
        else:
            print(prepare(args.profile) if args.command == "prepare" else table())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0

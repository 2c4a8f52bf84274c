"""`python -m sltlib data`: which data sets there are and where, fetching one, reading one from a place of yours."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from sltlib.base import paths
from sltlib.data import archives, arrays, formats, reading
from sltlib.data.catalogue import DATASETS, info
from sltlib.data.splits import SPLITS, hold_out


def table() -> str:
    """Every data set with what it holds, where it was found, and what to do when it was not."""
    lines = []
    for name, found in DATASETS.items():
        problems = reading.problems_of(name)
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
    cache = reading.decoded_place(name)[0] if DATASETS[name].formats else None
    return cache if cache and cache.is_dir() else DATASETS[name].find()


def get(name: str) -> str:
    """Fetch a data set's archives into data/<name>, unpack and read them; says where it is.

    A download that was cut goes on. ValueError says how to place the files by hand.
    """
    found, folder = info(name), paths.data() / name
    if reading.problems_of(name) and not found.archives:
        raise ValueError(f"{name} cannot be fetched: {found.how}")
    if reading.problems_of(name):
        for archive in found.archives:
            if not all((folder / held).exists() for held in archive.holds):
                archives.extract(archives.download(archive, folder), folder, archive.nested)
    try:
        if found.event:
            found.read()
        else:
            reading.splits(name)
    except ValueError as error:  # which may well say that this command is the remedy
        if not found.archives:
            raise
        place = found.find() or folder
        raise ValueError(f"{place} is not whole: move away what is there, and try again\n{error}") from error
    if problems := reading.problems_of(name):
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
    folder, about, shapes = reading.decoded_place(name)
    there, _ = arrays.made(folder, about, shapes, lambda maps: reading.copy(splits, maps))  # by another process, maybe
    new = {f"{split}_{part}": a for split in SPLITS for part, a in zip("xy", splits[split], strict=True)}
    if not all(np.array_equal(there[part], new[part]) for part in there):
        raise ValueError(f"{folder} holds other images as {name}: remove it first to use those in {path}")
    return f"{name} is ready in {folder}"


def parser() -> tuple[argparse.ArgumentParser, argparse._SubParsersAction]:
    """The words of the command, and where others may add theirs."""
    words = argparse.ArgumentParser(prog="python -m sltlib data", description="Data sets.")
    commands = words.add_subparsers(dest="command")
    commands.add_parser("list", help="every data set, what it needs, where it was found (the default)")
    fetch = commands.add_parser("get", help="fetch a data set, check, unpack and read it")
    fetch.add_argument("name")
    own = commands.add_parser("use", help="read a data set from a folder or an archive of yours")
    own.add_argument("name")
    own.add_argument("path")
    return words, commands


def main(argv: list[str] | None = None) -> int:
    """`data [list | get NAME | use NAME PATH]`; 1 when it fails."""
    return answer(parser()[0].parse_args(argv))


def answer(args: argparse.Namespace) -> int:
    """Do what `parser` read, print it or the error; the exit status."""
    try:
        if args.command == "get":
            print(get(args.name))
        elif args.command == "use":
            print(use(args.name, args.path))
        else:
            print(table())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0

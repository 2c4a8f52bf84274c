"""The commands that put stored results into one file, and take them from it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sltlib.engine.packs import pack, packed, unpack
from sltlib.engine.store import Store
from sltlib.notebook import plan


def pack_main(argv=None) -> int:
    """`python -m sltlib pack FILE`: write stored results, without their networks, to one file."""
    parser = argparse.ArgumentParser(prog="python -m sltlib pack", description=pack_main.__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="what to write, such as results/study/trainings.zip")
    parser.add_argument("--profile", help="only what a profile's notebooks train, as far as it is stored (default: everything)")
    parser.add_argument("--notebook", help="of one notebook of the profile only")
    parser.add_argument("--tickets", action="store_true", help="with tickets and trained weights: ten times the size")
    args = parser.parse_args(argv)
    if args.notebook and not args.profile:
        parser.error("--notebook goes with --profile")
    store = Store()
    keys = store.keys()
    if lost := packed(args.file) - set(keys) if args.file.is_file() else ():
        raise ValueError(f"{args.file} has {len(lost)} results that {store.root} lacks, and they would be lost: "
                         f"`python -m sltlib unpack {args.file}` first, or write to another name")  # fmt: skip
    words = ""
    if args.profile:
        every = _wanted(args.profile, args.notebook, args.file)
        keys = [key for key in keys if key in every]
        words = f" of {len(every)}"
    if not keys:
        raise ValueError(f"{store.root} has no such results: nothing is written")
    count = pack(store, keys, args.file, args.tickets)
    print(f"{args.file}: {count}{words} results, {args.file.stat().st_size / 1e6:.2f} MB")
    return 0


def _wanted(profile, only, file):
    """The keys of what a profile, or one notebook of it, trains; of a notebook that is not ready those that the claims need.

    Where not even these are known, without the data or a recipe, what the file has already stays among them.
    """
    every, short = set(), False
    for name in plan.notebooks(profile, only):
        for first in (False, True):
            try:
                ((_, own, _),) = plan.ready(profile, name, first)
            except ValueError as error:
                why = " ".join(str(error).removeprefix(f"{name}: ").split())
                continue
            if first and not own:  # no claim needs any of it
                continue
            every |= own.keys()
            if first:
                print(f"{name}: only what the claims need of it: {why}", file=sys.stderr)
            break
        else:
            short = True
            print(f"{name} is left out, but for what {file} has of it: not ready: {why}", file=sys.stderr)
    return every | (packed(file) if short and file.is_file() else set())


def unpack_main(argv=None) -> int:
    """`python -m sltlib unpack FILE...`: take the results of packs into the store; what it has already stays."""
    parser = argparse.ArgumentParser(prog="python -m sltlib unpack", description=unpack_main.__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="what `pack` wrote")
    args = parser.parse_args(argv)
    store = Store()
    for path in args.files:
        new, old = unpack(store, path)
        print(f"{path}: {new} results taken, {old} stood already")
    return 0

"""The kernel of packed tickets beside an earlier one: `python -m bench.kernels COMMIT`.

Builds the C++ sources as they were at a commit and as they are here, with the same compiler and flags, and lets both predict with
the tickets of bench.packed on one core in interleaved rounds. Stops where one logit differs. Writes results/bench/kernels.csv and the
table in bench/NOTES.md.
"""

import argparse
import ctypes
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__" and os.environ.get("OMP_NUM_THREADS") != "1":  # one core, for torch too
    os.execve(sys.executable, [sys.executable, "-m", "bench.kernels", *sys.argv[1:]], os.environ | {"OMP_NUM_THREADS": "1"})

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from sltlib import packed_kernel  # noqa: E402
from sltlib.base import files, machine, paths  # noqa: E402

from .measure import interleaved  # noqa: E402

BATCH, TIMED = 32, ("spiking, T=4, 50%", "spiking, T=4, 80%", "spiking, T=4, 95%", "spiking, T=1, 50%", "sign, T=1, 50%")
NOTES = paths.ROOT / "bench" / "NOTES.md"
PART = re.compile(r"<!-- kernels -->.*?<!-- /kernels -->", re.DOTALL)


def built(folder, more=()):
    """The library of the C++ sources in a folder, built as the package's own is, and loaded. Its interface must be today's."""
    program = packed_kernel.compiler()
    if program is None:
        raise RuntimeError("there is no C++ compiler (c++, g++ or clang++; set CXX if it is elsewhere)")
    packed_kernel.compiled(program, folder / "kernel.so", more, folder / "packed.cpp")
    return ctypes.CDLL(str(folder / "kernel.so"))


def sources(commit, folder):
    """Write the kernel's C++ files of a commit (None: of the working tree) to a folder; the folder. ValueError for no such commit."""
    folder.mkdir()
    if commit is None:
        for path in packed_kernel.SOURCE.parent.glob("packed*.[ch]pp"):
            (folder / path.name).write_bytes(path.read_bytes())
        return folder
    listed = subprocess.run(["git", "ls-tree", "--name-only", f"{commit}:sltlib"], cwd=paths.ROOT, capture_output=True, text=True)
    names = [name for name in listed.stdout.split() if re.fullmatch(r"packed\w*\.[ch]pp", name)]
    if "packed.cpp" not in names:
        raise ValueError(f"{commit!r} is no commit with a kernel: {listed.stderr.strip() or 'it has no sltlib/packed.cpp'}")
    for name in names:
        shown = subprocess.run(["git", "show", f"{commit}:sltlib/{name}"], cwd=paths.ROOT, capture_output=True, check=True)
        (folder / name).write_bytes(shown.stdout)
    return folder


def measure(packed, before, after, pictures, rounds):
    """A row a ticket, DataFrame: milliseconds an image of both kernels, medians, and the ratio's median and quartiles over rounds.

    packed : {name: Packed}. before, after : loaded libraries. Raises ValueError where a logit differs.
    """
    rows = []
    for name, ticket in packed.items():
        run = {which: lambda library=library, ticket=ticket: packed_kernel.run(ticket, pictures, 1, library=library)[0]
               for which, library in (("before", before), ("after", after))}  # fmt: skip
        if not np.array_equal(run["before"](), run["after"]()):
            raise ValueError(f"{name}: the two kernels give other logits")
        taken = {which: np.array(seconds) * 1e3 / len(pictures) for which, seconds in interleaved(run, rounds, settle=0.01).items()}
        low, median, high = np.percentile(taken["before"] / taken["after"], (25, 50, 75))
        rows.append({"ticket": name, **{which: np.median(ms) for which, ms in taken.items()}, "ratio": median, "low": low, "high": high, "rounds": rounds})
    return pd.DataFrame(rows)


def markdown(table, words):
    """The table as it stands in NOTES."""
    lines = ["| ticket | before (ms an image) | after | times as fast (quartiles) |", "|---|---|---|---|"]
    for r in table.itertuples():
        lines.append(f"| {r.ticket} | {r.before:.3f} | {r.after:.3f} | {r.ratio:.2f} ({r.low:.2f} to {r.high:.2f}) |")
    return "\n".join([*lines, "", words])


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bench.kernels", description=__doc__.splitlines()[0])
    parser.add_argument("commit", help="whose kernel to hold today's against")
    parser.add_argument("--march", help="build both for this processor in place of this one: x86-64, x86-64-v3, ...; writes no file")
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args(argv)
    if args.rounds < 1:
        raise ValueError(f"--rounds {args.rounds}: give at least 1")
    from .packed import images, ours

    packed = {name.removeprefix("packed "): found for name, found in ours(1).items() if name.removeprefix("packed ") in TIMED}
    more = [f"-march={args.march}"] if args.march else []
    with tempfile.TemporaryDirectory() as place:
        before, after = (built(sources(commit, Path(place) / name), more) for name, commit in (("before", args.commit), ("after", None)))
        table = measure(packed, before, after, images(BATCH), args.rounds)
    commit = subprocess.run(["git", "rev-parse", "--short", args.commit], cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout.strip()
    words = f"conv6 at 32x32, {BATCH} images, one core of {machine.processor()}, {args.rounds} interleaved rounds; before: {commit}."
    print(markdown(table, words))
    if args.march:
        return 0
    files.write(paths.results() / "bench" / "kernels.csv", table.round(4).to_csv(index=False, lineterminator="\n"))
    text, count = PART.subn(lambda _: f"<!-- kernels -->\n{markdown(table, words)}\n<!-- /kernels -->", NOTES.read_text(encoding="utf-8"))
    if not count:
        raise ValueError(f"{NOTES} has no part <!-- kernels -->")
    files.write(NOTES, text)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")

"""DVC's data stage: check and describe the data sets that a profile's notebooks name, and make their frames."""

from __future__ import annotations

import sys
from pathlib import Path

from sltlib import data
from sltlib.base import files, paths
from sltlib.data import commands
from sltlib.notebook import limits, profiles


def prepare(profile: str, folder: Path | None = None) -> Path:
    """Check and describe every data set of a profile in <folder>/manifest.json, DVC's data stage.

    The frames that its notebooks train on are made too. folder : data/prepared/<profile> at the
    repository's root by default.
    """
    sets = wanted(profile)
    data.check(list(sets))
    described = {}
    for name in sorted(sets):
        if data.info(name).event:
            described[name] = {f"T={t} {s}x{s} {b}": data.manifest(name, t, s, b) for t, s, b in sorted(sets[name])}
        else:
            described[name] = data.manifest(name)
    path = Path(folder or paths.ROOT / "data" / "prepared" / profile) / "manifest.json"
    files.write(path, files.json_text(described))
    return path


def wanted(profile: str) -> dict[str, set[tuple[int, int, str]]]:
    """{data set: {(timesteps, size, binning), ...}} of a profile's notebooks; the sets of images have none."""
    sets, known = {}, profiles.names()
    for notebook, block in profiles.blocks(profile).items():
        values = (profiles.declared(notebook) if notebook in known else {}) | block
        for name in limits.datasets(values):
            settings = sets.setdefault(name, set())
            if name in data.DATASETS and data.DATASETS[name].event:
                size, binning = values.get("image_size", 0), values.get("binning", "count")
                times = {*values.get("times", []), values.get("timesteps")} - {None}
                settings |= {(t, size or data.DATASETS[name].size, binning) for t in times or {4}}
    return sets


def main(argv: list[str] | None = None) -> int:
    """`python -m sltlib data [list | get NAME | use NAME PATH | prepare --profile P]`; 1 when it fails."""
    words, known = commands.parser()
    stage = known.add_parser("prepare", help="check and describe the data sets of a profile")
    stage.add_argument("--profile", required=True)
    args = words.parse_args(argv)
    if args.command != "prepare":
        return commands.answer(args)
    try:
        print(prepare(args.profile))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0

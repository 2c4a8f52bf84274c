"""The claims of a profile judged from the store, before its notebooks have run: `python -m sltlib claims --profile study`.

A notebook of the study trains hundreds of networks, and its claim compares a few of them. `train --primary` trains these
alone, and here they are judged as the notebook will judge them. What the verdict rests on is left where the notebook will
leave its own: table.csv with a line a training, predictions.safetensors, curves.csv, and metrics.json, which says that the claim's
rows are all there is. A notebook that has run is never touched.
"""

from __future__ import annotations

import argparse
import json

import pandas

from sltlib import claims, compared, convergence, predictions
from sltlib.base import files, paths
from sltlib.engine.store import BrokenResult, Store
from sltlib.notebook import outputs, plan, profiles


def has_run(folder) -> bool:
    """Whether a notebook itself left what lies in its folder of results."""
    path = folder / "metrics.json"
    return path.is_file() and claims.ALONE not in json.loads(path.read_text(encoding="utf-8"))


def write(profile: str, notebook: str, store=None) -> int:
    """Leave what a notebook's claims are judged by, as far as it is stored; how many seeds are complete.

    A seed counts where all that the claims need of it is stored: a row with more seeds than its rival would
    look better judged than it is. Without a complete seed nothing is written.
    """
    store, wanted = store or Store(), plan.primary(profile, notebook)
    stored = {e.key: store.get(e) for *_, e in wanted}
    seeds = {seed for _, seed, _ in wanted} - {seed for _, seed, e in wanted if stored[e.key] is None}
    lines, right, machines = {}, {}, set()
    for point, seed, e in wanted:
        if seed in seeds:
            result = stored[e.key]
            measured = {name: result.metrics[name] for name in ("test_accuracy", "val_accuracy")}
            lines[json.dumps([point, seed])] = point | {"seed": seed} | measured | {"key": e.key}
            right[e.key] = result.predictions()
            machines.add(_machine(result.provenance))
    folder = outputs.folder(profile, notebook)
    if not lines:
        forget(folder)
        return 0
    settings = profiles.settings(profile, notebook)
    about = {claims.ALONE: {"seeds": sorted(seeds), "trained_on": sorted(machines)}, "settings": settings}
    files.write(folder / predictions.FILE, predictions.pack(right))
    files.write(folder / convergence.FILE, outputs.curves_text({e.key: stored[e.key] for *_, e in wanted if e.key in right}))
    files.write(folder / "table.csv", outputs.table_text(pandas.DataFrame(lines.values())))
    files.write(folder / "metrics.json", outputs.metrics_text(about))
    return len(seeds)


def forget(folder) -> None:
    """Remove what an earlier call left: with other recipes or a damaged store it would be judged as today's."""
    if not has_run(folder):
        for name in ("table.csv", predictions.FILE, convergence.FILE, "metrics.json"):
            (folder / name).unlink(missing_ok=True)


def _machine(provenance):
    versions = provenance.get("versions", {})
    return f"{provenance.get('device', 'not known')}, torch {versions.get('torch', 'not known')}"


def main(argv=None) -> int:
    """`python -m sltlib claims [--profile study]`: what the stored trainings say of each claim."""
    parser = argparse.ArgumentParser(prog="python -m sltlib claims", description=main.__doc__.splitlines()[0])
    parser.add_argument("--profile", default="mini", help="a profile of params.yaml (default: mini)")
    profile = parser.parse_args(argv).profile
    for notebook in plan.notebooks(profile):
        own = [claim for claim in claims.load().values() if compared.needs(claim, notebook)]
        if not own or has_run(outputs.folder(profile, notebook)):
            continue
        if any(claim.measure != "test_accuracy" for claim in own if claim.notebook == notebook):
            print(f"{notebook}: its claim is on more than accuracies, so run it: `python -m sltlib figure {notebook[:2]} --profile {profile}`")
            continue
        try:
            count = write(profile, notebook)
            print(f"{notebook}: has not run; its claim from the store, {count} complete seeds of {len(profiles.settings(profile, notebook)['seeds'])}")
        except (ValueError, BrokenResult) as error:  # data or recipes that are not here, a damaged result
            forget(outputs.folder(profile, notebook))
            print(f"{notebook}: {' '.join(str(error).removeprefix(f'{notebook}: ').split())}")
    for found in claims.table((profile,), paths.results()).values():
        print(*(f"- {tested}" for tested in found.values()), sep="\n", end="\n" if found else "")
    return 0

"""The claims of a profile judged from the store, before its notebooks have run: `python -m sltlib claims --profile study`.

A notebook of the study trains hundreds of networks, and its claim compares a few of them. `train --primary` trains these
alone, and here they are judged as the notebook will judge them. What the verdict rests on is left where the notebook will
leave its own: table.csv with a line a training, predictions.safetensors, curves.csv, and metrics.json, which says that the claim's
rows are all there is. A claim on energies is judged by what the stored networks do on the test images; energies.csv keeps what was
read of them, for a store that has the numbers without the networks (`unpack`). A notebook that has run is never touched, nor
what was judged before of the same trainings by a store that had more of them.
"""

from __future__ import annotations

import argparse
import json

import pandas

from sltlib import claims, compared, convergence, predictions
from sltlib.base import files, paths
from sltlib.engine.run import one_data
from sltlib.engine.store import BrokenResult, Store
from sltlib.notebook import outputs, plan, profiles

ENERGY = "nJ"  # a column of notebook 05's table
ENERGIES = "energies.csv"  # what was read of which networks: a pack has none, and reading them again would need to train them
MEASURES = ("test_accuracy", ENERGY)
LEFT = ("table.csv", predictions.FILE, convergence.FILE, "metrics.json")


class _Unread(ValueError):
    """An energy was never read by today's counting, and cannot be, for the store has no network."""


def has_run(folder) -> bool:
    """Whether a notebook itself left what lies in its folder of results."""
    path = folder / "metrics.json"
    return path.is_file() and claims.ALONE not in json.loads(path.read_text(encoding="utf-8"))


def write(profile: str, notebook: str, store=None) -> int:
    """Leave what a notebook's claims are judged by, as far as it is stored; how many seeds are complete.

    A seed counts where all that the claims need of it is stored: a row with more seeds than its rival would
    look better judged than it is. Without a complete seed nothing is written, and nothing over more seeds of the same
    trainings (`held`): a store that lacks some says nothing against them.
    """
    store, wanted = store or Store(), plan.primary(profile, notebook)
    stored = {e.key: store.get(e) for *_, e in wanted}
    seeds = {seed for _, seed, _ in wanted} - {seed for _, seed, e in wanted if stored[e.key] is None}
    lines, right, machines = {}, {}, set()
    folder = outputs.folder(profile, notebook)
    if len(seeds) < len(there := held(folder, {e.key for *_, e in wanted})):
        print(f"{notebook}: left as it is, with {len(there)} seeds of the same trainings: `python -m sltlib unpack` takes a pack of them into "
              f"the store; to judge by fewer remove {folder}")  # fmt: skip
        return len(seeds)
    one_data(result for result in stored.values() if result)
    known = _energies(folder)
    for point, seed, e in wanted:  # of every network that is here, also of other seeds: a pack of them has none
        if point.get(plan.READING) in plan.READINGS and stored[e.key] and stored[e.key].ticket_path:
            print(f"{notebook}: energy of {point['row']}, seed {seed}: {nanojoules(stored[e.key], point[plan.READING], known):g} nJ", flush=True)
    if mine := {what: value for what, value in known.items() if what[0] in stored}:
        text = pandas.DataFrame([(*what, value) for what, value in sorted(mine.items())], columns=["key", plan.READING, "network", "numbers", ENERGY])
        files.write(folder / ENERGIES, text.to_csv(index=False, lineterminator="\n"))
    for point, seed, e in wanted:
        if seed in seeds:
            result = stored[e.key]
            measured = {name: result.metrics[name] for name in ("test_accuracy", "val_accuracy")}
            if point.get(plan.READING) in plan.READINGS:
                measured[ENERGY] = nanojoules(result, point[plan.READING], known)
            lines[json.dumps([point, seed])] = point | {"seed": seed} | measured | {"key": e.key}
            right[e.key] = result.predictions()
            machines.add(_machine(result.provenance))
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


def nanojoules(result, reading: str, known: dict) -> float:
    """The energy of an inference of a stored network in nJ, the mean over the test images, as notebook 05 reads it.

    known : {(key, reading, hash of the network, `energy.NUMBERS`): nJ} of what was read before; it grows. ValueError where
    the result is none of them and was stored without its network.
    """
    from sltlib import energy

    what = (result.key, reading, result.network_hash, energy.NUMBERS)
    if what not in known:
        known[what] = priced(counted(result), reading)
    return known[what]


def counted(result):
    """The counts of a stored network on the test images, as notebook 05 takes them; ValueError where it was stored without its network."""
    import torch

    from sltlib import energy, train

    try:
        network = result.network()
    except ValueError as error:
        raise _Unread(error) from error
    loaded = train.data_of(result.experiment)
    return energy.count(network, train.batch(loaded, loaded.test.x, torch.arange(len(loaded.test))))


def priced(counts, reading: str) -> float:
    """The energy of an inference in nJ, to the six digits that are kept of it."""
    from sltlib import energy

    return float(f"{energy.energy(counts, reading).loc['total', 'pj'] / 1000:.6g}")


def _energies(folder):
    """What `nanojoules` read in earlier calls."""
    lines = compared.records(folder / ENERGIES) if (folder / ENERGIES).is_file() else []
    return {(line["key"], line[plan.READING], line["network"], int(line["numbers"])): line[ENERGY] for line in lines}


def held(folder, keys) -> set:
    """The seeds that an earlier call left in a notebook's folder, if all of its trainings are among the keys; else none."""
    if not all((folder / name).is_file() for name in LEFT):
        return set()
    if read := _energies(folder):
        from sltlib import energy

        if {numbers for *_, numbers in read} != {energy.NUMBERS}:
            return set()
    lines = compared.records(folder / "table.csv")
    return {line["seed"] for line in lines} if {line["key"] for line in lines} <= keys else set()


def forget(folder) -> None:
    """Remove what an earlier call left of other trainings, or of other counts of energy: it would be judged as today's."""
    if not has_run(folder):
        for name in LEFT:
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
        if any(claim.measure not in MEASURES for claim in own if claim.notebook == notebook):
            print(f"{notebook}: its claim is on more than is stored, so run it: `python -m sltlib figure {notebook[:2]} --profile {profile}`")
            continue
        try:
            count = write(profile, notebook)
            print(f"{notebook}: has not run; its claim from the store, {count} complete seeds of {len(profiles.settings(profile, notebook)['seeds'])}")
        except (ValueError, BrokenResult) as error:  # data or recipes that are not here, a damaged result: nothing against what is left
            if isinstance(error, _Unread):
                forget(outputs.folder(profile, notebook))
            print(f"{notebook}: {' '.join(str(error).removeprefix(f'{notebook}: ').split())}")
    for found in claims.table((profile,), paths.results()).values():
        print(*(f"- {tested}" for tested in found.values()), sep="\n", end="\n" if found else "")
    return 0

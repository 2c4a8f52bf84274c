"""What a profile trains, read from its notebooks without Jupyter or DVC, and a run of it that can be left alone.

A notebook declares its experiments in the cells before its first `run(...)`; here those cells are executed with a
`run` that only notes what it is given. So there is one declaration, and the plan cannot differ from the notebook.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import re
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from sltlib import claims, compared
from sltlib.base import machine, paths
from sltlib.base.words import duration
from sltlib.engine import commands
from sltlib.engine.queue import cost
from sltlib.engine.run import claim, run
from sltlib.engine.store import BrokenResult, Store
from sltlib.notebook import parameters, profiles, recipes
from sltlib.notebook.pipeline import resolve

READING, READINGS = "model", ("arithmetic", "zeros skipped", "integer", "memory")  # notebook 05's of one network, and their column
UNITS = {"s": 1, "m": 60, "h": 3600}


class _Noted(Exception):
    """Ends the execution of a notebook's cells at its first run."""


def experiments(profile: str, notebook: str) -> list:
    """The Experiments that a notebook trains in a profile; [] for one that trains nothing. Writes nothing.

    Raises ValueError as the notebook's own check does.
    """
    return declared(notebook, profiles.settings(profile, notebook))[0]


def primary(profile: str, notebook: str) -> list:
    """[(columns and values, seed, Experiment)] of what the claims need of a notebook, in their order.

    What a claim compares and the profile leaves out is not among them. Raises ValueError as the notebook's own check does,
    but for rows without a recipe that no claim needs. A claim on energies names a reading of a network, which is no other training.
    """
    wanted, values = [], profiles.settings(profile, notebook)
    for each in claims.load().values():
        wanted += [point for point in compared.needs(each, notebook) if point not in wanted]
    with recipes.partly():
        named = declared(notebook, values)[1] if wanted else {}
    found = [(point, key[-1], e) for point in wanted for key, e in named.items() if _is(key, point)]
    for point, _, e in found:
        if any(each.lr == recipes.UNTUNED["lr"] for each in with_sources([e]).values()):
            name = values["recipes"]
            raise ValueError(f"{notebook}: recipes={name!r} has none for {point['row']}, or for what it starts from: {recipes.how(name)} searches them")
    return found


def _is(key, point):
    """Whether (row, value, ..., seed) is what a claim names by its columns."""
    more = [value for name, value in point.items() if name != "row" and not (name == READING and value in READINGS)]
    return key[0] == point["row"] and all(any(compared.same(own, value) for own in key[1:-1]) for value in more)


def declared(notebook: str, values: dict) -> tuple[list, dict]:
    """What a notebook trains with these values of its parameters; ([], {}) for one that trains nothing.

    Returns the Experiments that it gives its first run, and what it calls `experiments`: {(row, ..., seed): Experiment}.
    Raises ValueError as the notebook's own check does.
    """
    found = []

    def note(wanted, *args, **kwargs):
        found.extend(wanted)
        raise _Noted

    cells = json.loads((paths.NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", [])]
    wanted = ["".join(cell["source"]) for cell in code]
    if not any(re.search(r"(?<!\.)\brun\(", source) for source in wanted):
        return [], {}
    space = {"__name__": "__main__", **values}
    with (tempfile.TemporaryDirectory() as scratch, _no_figures(), contextlib.suppress(_Noted),
          contextlib.redirect_stdout(io.StringIO())):  # fmt: skip
        space[parameters.PLANNED] = Path(scratch)
        for source in wanted:
            exec(compile(source, f"{notebook}.ipynb", "exec"), space)
            if "run" in space:
                space["run"] = note
    return found, space.get("experiments", {})


@contextlib.contextmanager
def _no_figures():
    """Closes the figures that are drawn inside; pyplot keeps them for ever."""
    def drawn():
        plt = sys.modules.get("matplotlib.pyplot")
        return set(plt.get_fignums()) if plt else set()

    before = drawn()
    try:
        yield
    finally:
        for number in drawn() - before:
            sys.modules["matplotlib.pyplot"].close(number)


def notebooks(profile: str, only: str | None = None) -> list[str]:
    """A profile's notebooks in the order of the claims that they test, then the others; or the one that is named."""
    known = list(profiles.blocks(profile))
    if only is not None:
        name = resolve(only)
        profiles.block(profile, name)  # a clear error where the profile has none
        return [name]
    first = [name for name in _order() if name in known]
    return [*first, *(name for name in known if name not in first)]


def _order():
    """The notebooks in the order of claims.yaml."""
    return list(dict.fromkeys(claim.notebook for claim in claims.load().values()))


def with_sources(wanted) -> dict:
    """{key: Experiment} of experiments and of all that they start from."""
    found, todo = {}, list(wanted)
    while todo:
        e = todo.pop()
        if e.key not in found:
            found[e.key] = e
            todo += e.needs
    return found


def ready(profile: str, only: str | None = None, first: bool = False):
    """(name, {key: Experiment} with sources, "") of each notebook of a profile; ({}, why) of one whose data or recipes are not here.

    only : one notebook; where that is not ready, its ValueError. first : only those trainings that the claims need.
    """
    for name in notebooks(profile, only):
        try:
            wanted = [e for *_, e in primary(profile, name)] if first else experiments(profile, name)
        except ValueError as error:
            if only:
                raise
            yield name, {}, f"not ready: {' '.join(str(error).removeprefix(f'{name}: ').split())}"
            continue
        yield name, with_sources(wanted), ""


def pace(store, stored) -> float | None:
    """Core-seconds a unit of `cost`, the median over stored trainings that never stopped; None without any."""
    paces = []
    for e in stored.values():
        try:
            result = store.get(e)
        except BrokenResult:  # it is trained again
            continue
        about = result.provenance if result else {}
        if about.get("seconds") and not about.get("resumed"):
            paces.append(about["seconds"] / cost(e))
    return statistics.median(paces) if paces else None


def told(profile: str, only: str | None = None, store=None, first: bool = False) -> str:
    """For each notebook of a profile how many trainings are stored of how many, and what the rest will cost.

    first : only those that the claims need.
    """
    store, lines, seen, paces = store or Store(), [], set(), []
    there = set(store.keys())
    for name, every, why in ready(profile, only, first):
        if why:
            lines.append((f"{name:24} {why}", 0, 0, None))
            continue
        if first and not every:
            continue
        stored = {key: e for key, e in every.items() if key in there}
        own = {key: e for key, e in every.items() if key not in stored and key not in seen}
        seen |= every.keys()
        here = pace(store, dict(list(stored.items())[:30]))
        paces += [here] if here else []
        shared = len(every) - len(stored) - len(own)
        text = f"{name:24}{len(stored):5} of {len(every)} trained"
        lines.append((text, sum(map(cost, own.values())), shared, here))
    rate = statistics.median(paces) if paces else None
    out = []
    total = 0.0
    for text, rest, shared, here in lines:
        words = f", {shared} more with a notebook above" if shared else ""
        if rest:
            seconds = rest * (here or rate or 0)  # at its own pace, where some of it is trained
            total += seconds
            words += f", the rest costs about {duration(seconds)} of one core" if seconds else ", the rest costs: not known yet"
        out.append(text + words)
    if total:
        out.append(f"in all about {duration(total)} of one core")
    return "\n".join(out)


def seconds(text: str) -> float:
    """Seconds of "90s", "100m", "1.5h" or a bare number of seconds; what argparse shows for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r}: give a number above 0 and s, m or h, such as 100m")
    return float(match[1]) * UNITS[match[2] or "s"]


class _TimeUp(Exception):
    pass


@contextlib.contextmanager
def limit(length: float | None):
    """Raise _TimeUp in this thread after so many seconds; None: never."""

    def stop(number, frame):
        raise _TimeUp

    if length is None:
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, length)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main(argv=None) -> int:
    """`python -m sltlib train --profile P`: train what the store lacks, in the order of the claims.

    0 when everything is stored; 1 where a training failed; 75 where the time was up and the same command goes on.
    """
    parser = argparse.ArgumentParser(prog="python -m sltlib train", description=main.__doc__.splitlines()[0])
    parser.add_argument("--profile", default="mini", help="a profile of params.yaml (default: mini)")
    parser.add_argument("--notebook", help="of one notebook only: 02, table1_cnn or 02_table1_cnn")
    parser.add_argument("--time-limit", type=seconds, metavar="100m", help="stop then; the same command goes on")
    parser.add_argument("--backend", default="auto", help="auto, inline, processes, or dask:ADDRESS (docs/cluster.md)")
    parser.add_argument("--workers", type=int, default=0, help="trainings at once (default: one a core)")
    parser.add_argument("--primary", action="store_true", help="only what the claims need (without it: that first, then the rest)")
    parser.add_argument("--claim", action="store_true", help="beside other machines over one store: take what no living one holds")
    args = parser.parse_args(argv)
    names = notebooks(args.profile, args.notebook)
    workers = math.inf if args.backend.startswith("dask:") else args.workers or machine.cores()
    plans = [(name, *part) for name in names for part in _by_seeds(primary(args.profile, name), workers)]  # all problems before any work
    if args.primary and args.notebook and not plans:
        print(f"no claim needs trainings that {names[0]} has of its own: leave out --primary, or name another notebook")
        return 0
    firsts = len(plans)
    plans += [] if args.primary else [(name, experiments(args.profile, name), "") for name in names]
    began, failed = time.monotonic(), []
    try:
        with limit(args.time_limit):
            if args.claim:
                return _claimed([plans[:firsts], plans[firsts:]], args)
            for name, wanted, which in plans:
                if not wanted:
                    continue
                try:
                    trained = run(wanted, backend=args.backend, workers=args.workers).attrs["trained"]
                    print(f"{name}: {len(wanted)} experiments{which}, {trained} trainings just now", flush=True)
                except RuntimeError as error:  # the next notebook may fare better
                    failed.append(name)
                    print(f"{name}: {error}", file=sys.stderr, flush=True)
    except _TimeUp:
        print(f"time is up after {duration(time.monotonic() - began)}; what was begun is kept, and the same command goes on")
        print(told(args.profile, args.notebook, first=args.primary))
        return 75
    return int(bool(failed))


def _by_seeds(wanted, workers):
    """[(Experiments, words)] of what `primary` gives, two seeds at a time: a run that is broken off leaves whole seeds to judge.

    workers : trainings at once; where two seeds have fewer, more are taken, so that fewer wait.
    """
    seeds, together = list(dict.fromkeys(seed for _, seed, _ in wanted)), 2
    while together < len(seeds) and together * len(wanted) < workers * len(seeds):
        together += 1
    parts = [seeds[i : i + together] for i in range(0, len(seeds), together)]
    return [([e for _, seed, e in wanted if seed in part], f" for its claim, seed {', '.join(map(str, part))}") for part in parts]


def _claimed(phases, args):
    """`train --claim`: what the claims need, then all; the status. A failing training keeps nothing else from being tried."""
    missing, failed = 0, 0
    for plans in phases:
        if wanted := [e for _, each, _ in plans for e in each]:
            try:
                missing += claim(wanted, args.backend, args.workers)
            except RuntimeError as error:
                failed = 1
                print(error, file=sys.stderr, flush=True)
    if not failed:
        print(f"everything is stored; {missing} trainings were missing at the start", flush=True)
    return failed


def list_main(argv=None) -> int:
    """`python -m sltlib list [--profile P]`: every stored result, or how far a profile's trainings are."""
    parser = argparse.ArgumentParser(prog="python -m sltlib list", description=list_main.__doc__.splitlines()[0])
    parser.add_argument("--profile", help="a profile of params.yaml: how many trainings of each notebook are stored")
    parser.add_argument("--notebook", help="of one notebook of the profile only")
    parser.add_argument("--primary", action="store_true", help="of what the profile's claims need only")
    args = parser.parse_args(argv)
    if (args.notebook or args.primary) and not args.profile:
        parser.error(f"{'--notebook' if args.notebook else '--primary'} goes with --profile")
    if args.profile:
        print(told(args.profile, args.notebook, Store(), args.primary))
        return 0
    return commands.list_main([])

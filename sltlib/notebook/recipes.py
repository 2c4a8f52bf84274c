"""The recipes that were tuned: results/tuning/<name>/choices.json, read. How they are found is in tune.py.

A name is a profile's, "mini", followed by a notebook's number where that has a tuning of its own, "mini-03".
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import math

from sltlib.base import paths
from sltlib.base.words import close, shown
from sltlib.table1 import TICKETS

NAMES = ("optimizer", "lr", "logit_scale")  # what a recipe sets of an Experiment
UNTUNED = {"optimizer": "adam", "lr": 2.0**-1000, "logit_scale": 1.0}  # stands for a recipe inside `partly`; nobody trains it
_partly = contextvars.ContextVar("partly", default=False)
AT = " at "  # "BinWSNN-ConnS at 0.8": the arm as tuned at that sparsity


def folder(name: str):
    """Where a tuning is kept, in git."""
    return paths.ROOT / "results" / "tuning" / name


def tunings() -> list[str]:
    """The names of all tunings that have run."""
    return sorted(p.parent.name for p in (paths.ROOT / "results" / "tuning").glob("*/choices.json"))


def read(name: str) -> dict:
    """A tuning's choices.json: settings, budget and choices. ValueError where there is none of this name."""
    if name not in tunings():
        raise ValueError(f"no recipes for {shown(name)}{close(name, tunings())}: {how(name)} searches them")
    return json.loads((folder(name) / "choices.json").read_text(encoding="utf-8"))


@contextlib.contextmanager
def partly():
    """Inside, an arm that a tuning does not have yet, and another has, has the recipe UNTUNED: for a plan that takes what is tuned."""
    before = _partly.set(True)
    try:
        yield
    finally:
        _partly.reset(before)


def lacking(name: str, model: str) -> list[str]:
    """The arms of the tuning `model` that the tuning `name` lacks; [] inside `partly`. ValueError where one of them has not run."""
    mine, wanted = (arms(recipes(n)).keys() for n in (name, model))
    return [] if _partly.get() else sorted(wanted - mine)


def how(name: str) -> str:
    """The command that searches a tuning."""
    profile, _, number = str(name).partition("-")
    more = f" --notebook {number}" if number else ""
    return f"`python -m sltlib tune --profile {shown(profile)[1:-1]}{shown(more)[1:-1]}`"


def recipes(name: str) -> dict:
    """{arm: {"optimizer", "lr" and "logit_scale"}} of a tuning.

    An arm is a row, "linear", or a ticket row and a control (`found-mask-trained` has the recipe of
    `random-trained`); of transformers it is a step. Where a sweep was tuned at each of its sparsities
    an arm is followed by its own: "BinWSNN-ConnS at 0.8". A pruned network that was not tuned itself
    ("SNN magnitude") has the recipe of the dense one that it is pruned from, a search by gates that was not
    ("BNN-ConnS bernoulli") that of its row.
    """
    out = {}
    for arm, found in read(name)["choices"].items():
        out[arm] = {field: found[field] for field in NAMES if field in found}
        if " random-trained" in arm:
            out[arm.replace(" random-trained", " found-mask-trained")] = out[arm]
    tuned = {arm.partition(AT)[0] for arm in out}
    for dense in ("SNN", "ANN"):
        for pruner in ("magnitude", "snip"):
            if dense in out and f"{dense} {pruner}" not in tuned:
                out[f"{dense} {pruner}"] = out[dense]
    for ticket in TICKETS:
        if ticket in out and f"{ticket} bernoulli" not in tuned:
            out[f"{ticket} bernoulli"] = out[ticket]
    return out


def arms(found: dict) -> dict:
    """{arm: {sparsity: recipe}} of `recipes`; the sparsity is None for what was tuned at one only."""
    out = {}
    for name, recipe in found.items():
        arm, at, sparsity = name.partition(AT)
        out.setdefault(arm, {})[float(sparsity) if at else None] = recipe
    return out


def recipe(name: str, arm: str, sparsity: float | None = None) -> dict:
    """The recipe of an arm: {"optimizer", "lr", "logit_scale"}, as keyword arguments of an Experiment.

    sparsity : the fraction removed. Of a sweep the recipe is the one tuned at this sparsity, or at the
    nearest one (the lower of two) where it was not tuned at this one.

    Raises ValueError naming an unknown arm, or a missing sparsity.
    """
    known = arms(recipes(name))
    if arm not in known and _partly.get() and any(arm in arms(recipes(other)) for other in tunings()):
        return dict(UNTUNED)
    if arm not in known:
        raise ValueError(f"recipes {name!r} have no arm {shown(arm)}{close(arm, known)}")
    tuned = known[arm]
    if None in tuned:
        return dict(tuned[None])
    if sparsity is None or not math.isfinite(sparsity):
        points = ", ".join(f"{s:g}" for s in sorted(tuned))
        raise ValueError(f"recipes {name!r} of {arm!r} were tuned at the sparsities {points}: sparsity={sparsity!r}, say which")
    return dict(tuned[min(sorted(tuned), key=lambda s: round(abs(s - sparsity), 9))])


def told(name: str, values: dict) -> str:
    """One sentence: whether a tuning's settings are these values, and which differ."""
    other = {field: value for field, value in read(name)["settings"].items() if value != values.get(field, value)}
    if not other:
        return "The recipes were tuned for these settings."
    return f"The recipes were tuned for other settings: {', '.join(f'{k}={v!r}' for k, v in other.items())}."

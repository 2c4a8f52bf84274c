"""The cell after a notebook's parameters: `profile = "mini"` there takes that profile's values, and says what they cost."""

from __future__ import annotations

import ast
import json
import os
import re

from sltlib.base.words import close, duration, shown
from sltlib.engine.queue import cost
from sltlib.engine.store import Store
from sltlib.notebook import parameters, plan, profiles


def check(notebook: str, namespace: dict) -> parameters.Parameters:
    """Every parameter of a notebook, checked: `check(NAME, globals())` in the cell after the parameters.

    Where `profile` there names a profile of params.yaml, what that sets replaces the values in the cell. "mini seeds=[0]"
    changes one of them, and what papermill was given beside the name stands. A line says what differs from the defaults,
    another what it costs. All else as `parameters.check`. A run for a profile (`python -m sltlib figure`, `dvc repro`)
    knows its parameters and ignores the name.

    Raises ValueError for a profile that is none or leaves this notebook out; then nothing is trained or written.
    """
    planned = parameters.PLANNED in namespace or os.environ.get("SLT_PROFILE")
    named = "" if planned else namespace.get(profiles.PARAMETER, "")
    if named == "":
        return parameters.check(notebook, namespace)
    declared = profiles.declared(profiles.running(notebook))
    try:
        profile, own = read(named, declared)
        wanted = {name: value for name, value in profiles.block(profile, notebook).items() if name in declared}
    except ValueError as error:
        raise ValueError(f"{notebook}: {error}") from None
    own |= {name: namespace[name] for name in parameters.injected(namespace) if name in declared}
    p = parameters.check(notebook, namespace | wanted | own)
    namespace.update({name: getattr(p, name) for name in declared})
    print(told(profile, p, declared, own))
    return p


def read(text: str, declared: dict) -> tuple[str, dict]:
    """("mini", {"seeds": [0]}) of "mini seeds=[0]", values as Python or JSON writes them.

    Raises ValueError naming what is no text, no parameter or given twice.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f'{profiles.PARAMETER}={shown(text)}: give the name of a profile, such as "mini", or "" for the values in the cell')
    profile, *changes = re.split(r"\s+(?=\w+\s*=)", text.strip())
    own = {}
    for name, _, value in (map(str.strip, change.partition("=")) for change in changes):
        if name not in declared:
            raise ValueError(f"{profiles.PARAMETER}={shown(text)} has no parameter {shown(name)}{close(name, declared)}")
        if name in own:
            raise ValueError(f"{profiles.PARAMETER}={shown(text)} sets {name} twice")
        own[name] = _value(value)
    return profile, own


def _value(text):
    for parse in (ast.literal_eval, json.loads):
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            pass
    return text  # a text without quotes; all else is refused by its type


def told(profile: str, p: parameters.Parameters, declared: dict, own=()) -> str:
    """What differs from the defaults, and what the trainings cost: counts, their work beside the defaults', a time where one is known.

    own : the names that were given beside the profile.
    """
    values = {name: getattr(p, name) for name in declared}
    changed = [f"{name} {value!r}" for name, value in values.items() if name not in own and value != declared[name]]
    line = f"profile {profile}: {', '.join(changed) or 'the values of the cell'}"
    if own:
        line += f"; given beside it: {', '.join(f'{name} {values[name]!r}' for name in values if name in own)}"
    try:
        costs = _costs(p.notebook, values, declared)
    except Exception as error:  # a cell or a stored result that the run itself may do with, or will name better
        costs = f"What it costs is not known: {type(error).__name__}: {error}"
    return "\n".join([line, costs] if costs else [line])


def _costs(notebook, values, declared):
    every = plan.with_sources(plan.declared(notebook, values)[0])
    if not every:
        return ""
    store = Store()
    there = set(store.keys())
    stored = {key: e for key, e in every.items() if key in there}
    least = sum(map(cost, plan.with_sources(plan.declared(notebook, declared)[0]).values()))
    times = sum(map(cost, every.values())) / least
    words = f"{len(every)} trainings, {len(stored)} of them stored. All of them are {times:{'.2g' if times < 10 else ',.0f'}} times the work of the defaults."
    rest = sum(cost(e) for key, e in every.items() if key not in stored)
    if rest and (pace := plan.pace(store, dict(list(stored.items())[:30]))):
        words += f" What is left takes about {duration(rest * pace)} of one core."
    return words

"""The cell after a notebook's parameters: `profile = "mini"` there takes that profile's values, and says what they cost."""

from __future__ import annotations

import json
import re

from sltlib.base.words import close, duration, shown
from sltlib.engine.queue import cost
from sltlib.engine.store import Store
from sltlib.notebook import parameters, plan, profiles


def check(notebook: str, namespace: dict) -> parameters.Parameters:
    """Every parameter of a notebook, checked: `check(NAME, globals())` in the cell after the parameters.

    Where `profile` there names a profile of params.yaml, its values come first in place of those in the cell. "mini seeds=[0]"
    changes one of them, and what papermill was given beside the name stands. A line says what was taken, another what it
    costs. All else as `parameters.check`.

    Raises ValueError for a profile that is none or leaves this notebook out; then nothing is trained or written.
    """
    named = "" if parameters.PLANNED in namespace else namespace.get(profiles.SWITCH, "")
    if named == "":
        return parameters.check(notebook, namespace)
    declared = profiles.declared(profiles.running(notebook))
    try:
        profile, own = read(named, declared)
        wanted = {name: value for name, value in profiles.block(profile, notebook).items() if name in declared}
    except ValueError as error:
        raise ValueError(f"{notebook}: {error}") from None
    own |= {name: namespace[name] for name in parameters.injected(namespace) if name in declared}
    p = parameters.check(notebook, namespace | declared | wanted | own)
    namespace.update({name: getattr(p, name) for name in declared})
    print(told(profile, p, declared, own))
    return p


def read(text: str, declared: dict) -> tuple[str, dict]:
    """("mini", {"seeds": [0]}) of "mini seeds=[0]"; ValueError naming what is no text, no change or no parameter."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f'{profiles.SWITCH}={shown(text)}: give the name of a profile, such as "mini", or "" for the values in the cell')
    profile, *changes = re.split(r"\s+(?=\w+=)", text.strip())
    own = {}
    for name, _, value in (change.partition("=") for change in changes):
        if name not in declared:
            raise ValueError(f"{profiles.SWITCH}={shown(text)} has no parameter {shown(name)}{close(name, declared)}")
        try:
            own[name] = json.loads(value)
        except ValueError:
            own[name] = value  # a text without quotes; all else is refused by its type
    return profile, own


def told(profile: str, p: parameters.Parameters, declared: dict, own=()) -> str:
    """What a profile changed, and what its trainings cost: counts, their work beside the defaults', a time where one is known.

    own : the names that were given beside it.
    """
    values = {name: getattr(p, name) for name in declared}
    changed = [f"{name} {value!r}" for name, value in values.items() if name not in own and value != declared[name]]
    lines = [f"profile {profile}: {', '.join(changed) or 'the values of the cell'}"]
    if own:
        lines[0] += f"; given beside it: {', '.join(f'{name} {values[name]!r}' for name in values if name in own)}"
    every = plan.with_sources(plan.declared(p.notebook, values)[0])
    if every:
        store = Store()
        there = set(store.keys())
        stored = {key: e for key, e in every.items() if key in there}
        least = sum(map(cost, plan.with_sources(plan.declared(p.notebook, declared)[0]).values()))
        times = sum(map(cost, every.values())) / least
        lines.append(f"{len(every)} trainings, {len(stored)} of them stored; in all {times:,.0f} times the work of the defaults")
        rest = sum(cost(e) for key, e in every.items() if key not in stored)
        if rest and (pace := plan.pace(store, dict(list(stored.items())[:30]))):
            lines[1] += f", what is left about {duration(rest * pace)} of one core"
    return "\n".join(lines)

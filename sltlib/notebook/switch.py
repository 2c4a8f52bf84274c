"""The cell after a notebook's parameters: `profile = "mini"` there takes that profile's values, and says what they cost."""

from __future__ import annotations

from sltlib.base.words import duration, shown
from sltlib.engine.queue import cost
from sltlib.engine.store import Store
from sltlib.notebook import parameters, plan, profiles


def check(notebook: str, namespace: dict) -> parameters.Parameters:
    """Every parameter of a notebook, checked: `check(NAME, globals())` in the cell after the parameters.

    Where `profile` there names a profile of params.yaml, its values come first in the place of those in the cell, but not of
    those that papermill was given beside it; a line says which, another what they cost. All else as `parameters.check`.

    Raises ValueError for a profile that is none or leaves this notebook out; then nothing is trained or written.
    """
    if parameters.PLANNED in namespace:
        return parameters.check(notebook, namespace)
    named = namespace.get(profiles.SWITCH, "")
    if not isinstance(named, str):
        raise ValueError(f'{notebook}: {profiles.SWITCH}={shown(named)}: give the name of a profile, such as "mini", or "" for the values in the cell')
    if not named:
        return parameters.check(notebook, namespace)
    declared = profiles.declared(profiles.running(notebook))
    try:
        wanted = declared | {name: value for name, value in profiles.block(named, notebook).items() if name in declared}
    except ValueError as error:
        raise ValueError(f"{notebook}: {error}") from None
    own = parameters.injected(namespace).keys() & declared.keys()
    p = parameters.check(notebook, namespace | {name: value for name, value in wanted.items() if name not in own})
    namespace.update({name: getattr(p, name) for name in declared})
    print(told(named, p, declared, own))
    return p


def told(profile: str, p: parameters.Parameters, declared: dict, own=()) -> str:
    """What a profile changed, and what its trainings cost: counts, their work beside the defaults', a time where one is known.

    own : the names that papermill was given beside it.
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

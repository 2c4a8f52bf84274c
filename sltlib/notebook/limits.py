"""What the values of parameters must be: ranges by name, data sets that are there, settings that go together.

Each function returns the problems it found, one line each. What is right for a field of an Experiment stands beside it.
"""

from __future__ import annotations

import json

from sltlib.base.words import shown
from sltlib.data.catalogue import DATASETS
from sltlib.experiment import CHOICES, FIELDS, Experiment, misfit
from sltlib.registry import CONTROLS, TRANSFORMERS
from sltlib.table1 import TICKETS
from sltlib.notebook import recipes

UNSEARCHED = ("linear", "spikformer")  # models without a ticket: the control, and what has its ConvPEP searched (notebook 08)
LEAST = {"times": 2, "betas": 3}  # points that a monotone curve and an inner optimum take


def datasets(values: dict) -> list[str]:
    """The data sets that parameters name: `dataset`, `datasets`, and what ends in `_dataset`."""
    named = [value for name, value in values.items() if name in ("dataset", "datasets") or name.endswith("_dataset")]
    return [name for value in named for name in (value if isinstance(value, list) else [value])]


def _field(name):
    """The Experiment's field that a list's name is the plural of, or None."""
    if name == "times":
        return "timesteps"
    for field in FIELDS:
        if name in (f"{field}s", f"{field}es", f"{field}_list", f"{field[:-1]}ies"):
            return field
    return None


def _wrong(field, value):
    """What is wrong with a value of an Experiment's field, or ''."""
    try:
        return misfit(field, value)
    except TypeError:  # a list or dict among choices
        return f"choose from {', '.join(CHOICES[field])}"


def ranges(values, defaults):
    """Problems by name: `seed` and `seeds`, `sparsity` and `sparsities`, `search_epochs`, ..."""
    problems = []
    if not values.get("margin", 1.0) > 0:
        problems.append(f"margin={values['margin']!r}: give a number of points above 0")
    if "recipes" in values:
        problems += _recipes(values["recipes"], defaults["recipes"])
    for name, value in values.items():
        if isinstance(value, list):
            problems += _list(name, value, defaults[name])
            continue
        field = name if name in FIELDS else None
        if field is None:  # `search_epochs` is held to what epochs may be, if its default is
            tails = [f for f in FIELDS if name.endswith("_" + f) and not _wrong(f, defaults[name])]
            field = max(tails, key=len, default=None)
        if field and _wrong(field, value):
            problems.append(f"{name}={shown(value)}: {_wrong(field, value)}")
        if field == "patch_sparsity" and value == 0:
            problems.append(f"{name}=0: all patches is another row; give a fraction removed above 0")
    return problems


def _list(name, value, default):
    """Problems of a list: how long it is, and what it holds."""
    problems = []
    if not value and default:
        problems.append(f"{name} is empty: give at least one value, such as {default!r}")
    elif len(value) < LEAST.get(name, 0):
        problems.append(f"{name}={value!r}: give at least {LEAST[name]} values, for its verdict")
    if len({json.dumps(v, sort_keys=True) for v in value}) < len(value):
        problems.append(f"{name}={shown(value)} holds a value twice")
    field = name if name in FIELDS else _field(name)
    for v in value:
        if field == "patch_sparsity" and v == 0:
            problems.append(f"{name} holds 0, which is always shown: give fractions removed above 0")
        if field == "sparsity" and v == 0:
            problems.append(f"{name} holds 0: dense is not a ticket; give fractions removed above 0")
        if field and _wrong(field, v):
            problems.append(f"{name} holds {shown(v)}: {_wrong(field, v)}")
    return problems


def _recipes(name, default):
    """Problems of a tuning's name: there is none, or it lacks arms that the notebook's own has."""
    try:
        missing = recipes.lacking(name, default)
    except ValueError as error:
        return [f"recipes={shown(name)}: {error}"]
    if not missing:
        return []
    words = f"{missing[0]} and {len(missing) - 1} more" if missing[1:] else missing[0]
    alike = name.partition("-")[2] == default.partition("-")[2]  # else its search has no such arms
    return [f"recipes={shown(name)} has none for {words}: {f'{recipes.how(name)} searches them, or ' if alike else ''}give one such as {default!r}"]


def together(values):
    """Problems of values that are right one by one: the dense network, a ticket and a pruned one of these settings must be Experiments."""
    fields = {name: value for name, value in values.items() if name in FIELDS}
    if "dataset" not in fields:
        return []
    dense = {name: value for name, value in fields.items() if name not in ("search", "sparsity", "patch_sparsity")}
    search = {"search": "edge-popup", "affine": False, "sparsity": fields.get("sparsity", 0.5)}
    if "heads" in fields:  # a spikformer, and the search of its ConvPEP
        made = [dense | {"model": "spikformer"}]
        made += [dense | search | {"model": "convpep"}] if "sparsity" in fields else []
    else:
        made = [dense]
        if {"sparsity", "sparsities", "rounds"} & values.keys():
            if fields.get("model") in UNSEARCHED:
                return [f"model={fields['model']!r}: this notebook searches tickets in its network, and that is none for it; choose from {', '.join(_searched())}"]
            made.append(dense | search)
        if "rounds" in values:
            made.append(dense | {"search": "snip", "sparsity": search["sparsity"]})
    problems = dict.fromkeys(_pruning(values) if {"rewind", "epochs"} <= values.keys() else [])
    for each in made:
        try:
            Experiment(**each)
        except ValueError as error:
            problems[str(error).removeprefix("Experiment: ")] = None
    return list(problems)


def _searched():
    """The models in which a ticket can be searched whole."""
    return [name for name in CHOICES["model"] if name not in {*UNSEARCHED, *TRANSFORMERS}]


def _pruning(values):
    """Problems with the rounds of pruning, the epoch that pruned networks are set back to, and the rows beside them."""
    epochs, rewind, problems = values["epochs"], values["rewind"], []
    for name in values.get("rivals", []):
        ticket, _, more = str(name).partition(" ")
        if ticket not in TICKETS or more not in ("", "bernoulli", *CONTROLS[:2]):
            problems.append(f"rivals holds {shown(name)}: give ticket rows ({', '.join(TICKETS)}), or one and bernoulli, {' or '.join(CONTROLS[:2])}")
    if not 0 < rewind < epochs or (epochs - rewind) % 2:
        problems.append(
            f"rewind={rewind}: give an epoch above 0 and below epochs={epochs}, odd where that is odd, so that pruning at equal "
            "cost trains whole epochs"
        )
    return problems + [f"rounds holds {n}: give 1 to 30 rounds of pruning" for n in values.get("rounds", []) if not 0 < n <= 30]


def data_sets(values):
    """Problems with the data sets that parameters name."""
    sets = datasets(values)
    images = values.get("train_images", 0)
    if not sets:
        return []
    from sltlib import data

    long = [f"dataset={shown(name)} is known nowhere: its name has {len(name)} characters" for name in sets if len(name) > 200]
    if long:
        return long
    try:
        data.check(dict.fromkeys(sets, images if isinstance(images, int) else 0))
    except (ValueError, OSError) as error:
        return [" ".join(str(error).split("\n"))]
    problems, size = [], values.get("image_size", 0)
    for name in sets:
        if _event(name) and isinstance(size, int) and size > data.info(name).size:
            problems.append(f"image_size={size}: the sensor of {name} has {data.info(name).size} pixels a side")
    recordings = [name for name in values if name == "event_dataset" or (name == "dataset" and "binning" in values)]
    for name in recordings:
        if not _event(values[name]):
            problems.append(f"{name}={values[name]!r} holds no recordings: choose from {', '.join(sorted(filter(_event, DATASETS)))}")
    return problems


def _event(name):
    return name in DATASETS and DATASETS[name].event

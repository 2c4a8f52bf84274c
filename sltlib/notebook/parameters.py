"""A notebook's parameters: checked all at once before anything trains, and what a notebook does with them."""

from __future__ import annotations

import json
import math
import os
import types

from sltlib.base.words import close, shown
from sltlib.experiment import FIELDS
from sltlib.notebook import limits, outputs, profiles, recipes

PLANNED = "_planned"  # in a notebook's globals where only its experiments are wanted (plan.py): a folder to write to instead
MOST = 2**63  # integers are below it
_EACH = ("sparsity", "patch_sparsity", "seed", *recipes.NAMES)  # fields that a notebook's experiments differ in
_SHELL = {"In", "Out", "exit", "quit", "get_ipython", "open"}
_PLAIN = (bool, int, float, str, list, tuple, dict, type(None))


class Parameters(types.SimpleNamespace):
    """A notebook's checked parameters, each under its name.

    notebook : its name; of a copy made in JupyterLab the copy's. profile : whose parameters these are,
    "draft" where it runs by hand. output : the absolute folder results/<profile>/<notebook>.
    """

    @property
    def fields(self) -> dict:
        """The parameters that are fields of an Experiment and the same for all of the notebook's experiments.

        Not among them: sparsity, patch_sparsity, seed, what a recipe sets, and lists to sweep over.
        """
        return shared(vars(self))

    def recipe(self, arm: str, sparsity: float | None = None) -> dict:
        """The tuned recipe of an arm as keyword arguments of an Experiment: optimizer, lr and logit_scale.

        arm : a row ("SNN"), "linear", a ticket row and a control ("BinWSNN-ConnS random-trained"), or a
        transformer's step ("stem lif ticket"). sparsity : the fraction removed; a sweep's recipes are tuned
        at each of its sparsities, and the nearest one counts. Recipes tuned at one sparsity ignore it.
        """
        return recipes.recipe(self._tuning(), arm, sparsity)

    @property
    def tuned(self) -> str:
        """One sentence: whether the recipes were tuned for these settings, and which of them differ."""
        return recipes.told(self._tuning(), vars(self))

    def finish(self, table, metrics: dict, claims=None, verdicts=None, tickets=None) -> None:
        """The call that ends a notebook: write table.csv, metrics.json and tickets/, and print the verdicts.

        table : DataFrame, its columns as they are to stand in the file. metrics : what JSON can hold, and
        dataclasses; no times, hosts or dates. claims, verdicts : lists of `stats.Verdict`, which join the
        metrics under these names: claims are the paper's, verdicts all others. tickets : {file name: the
        Experiment whose ticket it is, or its Result, or a Ticket}.

        Raises ValueError or TypeError naming what cannot be written; then no table and no metrics are.
        """
        outputs.finish(self.output, table, metrics, claims, verdicts, tickets)

    def _tuning(self):
        if "recipes" not in vars(self):
            raise ValueError(f"{self.notebook} declares no parameter `recipes`")
        return self.recipes


def shared(values: dict) -> dict:
    """Of a notebook's parameters the fields of an Experiment that all of its experiments have alike."""
    return {name: value for name, value in values.items() if name in FIELDS and name not in _EACH}


_OWN = ("notebook", "output", *(name for name in vars(Parameters) if not name.startswith("_")))


def check(notebook: str, namespace: dict) -> Parameters:
    """Every parameter of a notebook, checked: `check(NAME, globals())` in the cell after the parameters.

    notebook : its file name without `.ipynb`. namespace : the notebook's globals; the checked
    values are also written back there, so that a list given as JSON text is a list afterwards.

    Returns `Parameters`. Its profile is the one that `python -m sltlib figure` runs the notebook for, if
    these are its parameters, else "draft"; its output folder is made, and emptied of an earlier
    run's figures, tables and tickets.

    Raises ValueError that names every problem: unknown names (papermill passes them on silently),
    types, ranges, unknown or missing data sets. Nothing is written then.
    """
    defaults = profiles.declared(notebook)
    file = profiles.running(notebook)
    if file != notebook:  # a copy may declare other parameters
        defaults = profiles.declared(file)
    given = {} if PLANNED in namespace else [name for name in _given(namespace, defaults) if name != profiles.PARAMETER]
    problems = _unknown(given, defaults, "has no parameter")
    problems += [f"{name} is a word of this library: give the parameter another name" for name in defaults if name in _OWN]
    values = {}
    for name, default in defaults.items():
        if name not in namespace:
            problems.append(f"{name} is not set: run the parameters cell first")
            continue
        try:
            values[name] = _coerce(name, namespace[name], default)
        except ValueError as error:
            problems.append(str(error))
    problems += limits.ranges(values, defaults) + limits.data_sets(values)
    problems += limits.together(values) if not problems else []
    if problems:
        raise ValueError(f"{file}: " + "; ".join(problems))

    namespace.update(values)
    profile = match(file, values)
    output = namespace.get(PLANNED) or outputs.folder(profile, file)
    outputs.begin(output)
    return Parameters(**values, notebook=file, profile=profile, output=output)


def match(notebook: str, values: dict) -> str:
    """The profile in $SLT_PROFILE if its block, over the defaults, equals these parameters; else "draft".

    `python -m sltlib figure`, and so `dvc repro`, sets it. A notebook that runs by hand is a draft.
    """
    profile = os.environ.get("SLT_PROFILE")
    given = profiles.profiles().get(profile, {}).get(notebook)
    if given is None:
        return profiles.DRAFT
    defaults = profiles.declared(notebook)
    try:
        wanted = {name: _coerce(name, value, defaults[name]) for name, value in {**defaults, **given}.items()}
    except (ValueError, KeyError):
        return profiles.DRAFT
    return profile if _same(wanted, values) else profiles.DRAFT


def validate(profile: str, notebooks=None) -> None:
    """Raise ValueError naming everything wrong in a profile's blocks (of these notebooks, or of all)."""
    problems, sets = [], {}
    for notebook in notebooks or profiles.blocks(profile):
        where = f"{profile}.{notebook}"
        try:
            given, defaults = profiles.block(profile, notebook), profiles.declared(notebook)
        except ValueError as error:
            problems.append(str(error))
            continue
        problems += _unknown(given, defaults, f"which {notebook}.ipynb does not declare", where)
        values = {}
        for name in given.keys() & defaults.keys():
            try:
                values[name] = _coerce(name, given[name], defaults[name])
            except ValueError as error:
                problems.append(f"{where}: {error}")
        problems += [f"{where}: {p}" for p in limits.ranges(values, defaults)]
        sets[where] = values
    for where, values in sets.items():
        problems += [f"{where}: {p}" for p in limits.data_sets(values)]
        problems += [f"{where}: {p}" for p in limits.together(values)] if not problems else []
    if problems:
        raise ValueError("; ".join(problems))


def _same(a, b):
    """Equal in value and type (True is not 1), whatever the order of names."""
    return json.dumps(a, sort_keys=True, default=repr) == json.dumps(b, sort_keys=True, default=repr)


def _given(namespace, defaults):
    """Names that the reader or papermill set as parameters.

    In a notebook these are the names in the last run of the parameters cell, which assigns to at least half of
    those declared and does nothing else, and in papermill's injected cell, known by its first line: what
    other cells define is no parameter, and a slip that was mended in JupyterLab is forgotten. What is
    assigned plays no part, so that no value hides a name. Outside a notebook every public plain value.
    """
    if isinstance(namespace.get("In"), list):
        own = {}
        for source in namespace["In"]:
            cell = profiles.assigned(source) or {}
            if not _is_injected(source) and 2 * len(cell.keys() & defaults.keys()) >= max(1, len(defaults)):
                own = cell
        return [*own, *(name for name in injected(namespace) if name not in own)]
    return [
        name
        for name, value in namespace.items()
        if not name.startswith("_") and name not in _SHELL and isinstance(value, _PLAIN)
    ]


def injected(namespace: dict) -> dict:
    """The names in the last cell that papermill injected, in their order; {} outside a notebook."""
    sources = namespace["In"] if isinstance(namespace.get("In"), list) else []
    cells = [profiles.assigned(source) or {} for source in sources if _is_injected(source)]
    return dict.fromkeys(cells[-1]) if cells else {}


def _is_injected(source):
    return source.lstrip().startswith("# Parameters\n")


def _unknown(given, defaults, words, where=None):
    out = []
    for name in given:
        if name not in defaults:
            head = f"{where} sets [{shown(name)}], {words}" if where else f"{words} {shown(name)}"
            out.append(head + close(name, defaults))
    return out


def _coerce(name, value, default):
    """The value in the declared type, or ValueError. A list or dict may come as JSON text."""
    kind = type(default)
    if default is None:
        return value
    if kind in (list, dict) and isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            pass
    if kind is list and isinstance(value, tuple):
        value = list(value)
    if type(value) is int and abs(value) >= MOST:
        raise ValueError(f"{name}={shown(value)}: give a number below 2**63")
    if kind is int and type(value) is float and value.is_integer() and abs(value) < MOST:
        return int(value)  # papermill reads 1e3 as 1000.0
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        hint = f" (papermill: -r {name} TEXT)" if kind is str else ""
        raise ValueError(f"{name}={shown(value)} is {_a(value)}, want {_a(default)} such as {default!r}{hint}")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{name}={value!r}: give a finite number")
    if kind is list:
        kinds = {type(d) for d in default}
        like = 0.0 if kinds == {int, float} else default[0] if len(kinds) == 1 else None
        return [_coerce(f"{name}[{i}]", v, like) for i, v in enumerate(value)]
    return value


def _a(value):
    words = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
    return words.get(type(value), f"a {type(value).__name__}")

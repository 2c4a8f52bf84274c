"""A notebook's parameters: read, checked all at once before anything trains, and matched to a profile."""

from __future__ import annotations

import ast
import difflib
import json
import math
import os
import shutil
import types
from pathlib import Path

import yaml

from sltlib.base import paths
from sltlib.experiment import CHOICES, EVENTS, RANGES, TICKETS, Experiment

DRAFT = "draft"  # where a run lands whose parameters are no profile's
OUTPUTS = ("table.csv", "metrics.json", "figure.png", "figures", "tickets")  # what a notebook leaves
LEAST = {"times": 2, "betas": 3}  # points that a monotone curve and an inner optimum take
_FIELDS = tuple(Experiment.__dataclass_fields__)
_SHELL = {"In", "Out", "exit", "quit", "get_ipython", "open"}
_PLAIN = (bool, int, float, str, list, tuple, dict, type(None))


def check(notebook: str, namespace: dict) -> types.SimpleNamespace:
    """Every parameter of a notebook, checked: `check(NAME, globals())` in the cell after the parameters.

    notebook : its file name without `.ipynb`. namespace : the notebook's globals; the checked
    values are also written back there, so that a list given as JSON text is a list afterwards.

    Returns a namespace with the parameters and
    `notebook`; `profile`, the one whose block in params.yaml these parameters equal ($SLT_PROFILE
    first), else "draft"; `output`, the absolute folder results/<profile>/<notebook>, which is
    made, and emptied of an earlier run's figures, tables and tickets.

    Raises ValueError that names every problem: unknown names (papermill passes them on silently),
    types, ranges, unknown or missing data sets. Nothing is written then.
    """
    defaults = declared(notebook)
    problems = _unknown(_given(namespace, defaults), defaults, "has no parameter")
    values = {}
    for name, default in defaults.items():
        if name not in namespace:
            problems.append(f"{name} is not set: run the parameters cell first")
            continue
        try:
            values[name] = _coerce(name, namespace[name], default)
        except ValueError as error:
            problems.append(str(error))
    problems += _ranges(values, defaults) + _data(values)
    problems += _together(values) if not problems else []
    if problems:
        raise ValueError(f"{notebook}: " + "; ".join(problems))

    namespace.update(values)
    profile = match(notebook, values)
    output = output_folder(profile, notebook)
    output.mkdir(parents=True, exist_ok=True)
    for name in OUTPUTS:  # a run that stops half-way must not leave an older run's other half
        path = output / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    (output / "tickets").mkdir()
    return types.SimpleNamespace(**values, notebook=notebook, profile=profile, output=output)


def declared(notebook: str) -> dict:
    """The names and default values in the notebook's cell tagged `parameters`.

    The cell holds plain assignments of literals and nothing else; ValueError says what is not.
    """
    path = paths.NOTEBOOKS / f"{notebook}.ipynb"
    if not path.is_file():
        known = names()
        raise ValueError(f"there is no notebook {notebook!r} in {paths.NOTEBOOKS}{_close(notebook, known)}")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    cells = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"{path.name} has {len(cells)} cells tagged 'parameters', want one")
    source = "".join(cells[0]["source"])
    found = _assignments(source)
    if found is None:
        raise ValueError(f"{path.name}: the parameters cell may hold assignments of plain values only")
    return found


def names() -> list[str]:
    """Every notebook's name, in reading order."""
    return sorted(p.stem for p in paths.NOTEBOOKS.glob("*.ipynb"))


def profiles() -> dict:
    """params.yaml: for each profile a block of parameters for each notebook."""
    found = yaml.safe_load(paths.PARAMS.read_text(encoding="utf-8")) if paths.PARAMS.is_file() else {}
    return {p: {n: b or {} for n, b in (blocks or {}).items()} for p, blocks in (found or {}).items()}


def block(profile: str, notebook: str) -> dict:
    """The parameters that a profile sets for a notebook (none in "draft")."""
    if profile == DRAFT:
        return {}
    blocks = _blocks(profile)
    if notebook not in blocks:
        raise ValueError(f"{profile} in params.yaml has no {notebook!r}{_close(notebook, blocks)}")
    return blocks[notebook]


def validate(profile: str, notebooks=None) -> None:
    """Raise ValueError naming everything wrong in a profile's blocks (of these notebooks, or of all)."""
    problems, sets = [], {}
    for notebook in notebooks or _blocks(profile):
        where = f"{profile}.{notebook}"
        try:
            given, defaults = block(profile, notebook), declared(notebook)
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
        problems += [f"{where}: {p}" for p in _ranges(values, defaults)]
        sets[where] = values
    for where, values in sets.items():
        problems += [f"{where}: {p}" for p in _data(values)]
        problems += [f"{where}: {p}" for p in _together(values)] if not problems else []
    if problems:
        raise ValueError("; ".join(problems))


def match(notebook: str, values: dict) -> str:
    """The profile whose block equals these parameters, the defaults filling what it leaves out.

    $SLT_PROFILE comes first where it fits; "draft" there asks for a draft.
    """
    defaults, found = declared(notebook), profiles()
    first = os.environ.get("SLT_PROFILE")
    if first == DRAFT:
        return DRAFT
    for profile in sorted(found, key=lambda p: p != first):
        if notebook in found[profile]:
            given = found[profile][notebook]
            if given.keys() <= defaults.keys() and _same({**defaults, **given}, values):
                return profile
    return DRAFT


def output_folder(profile: str, notebook: str) -> Path:
    """results/<profile>/<notebook>, absolute."""
    return paths.results() / profile / notebook


def recipes(profile):
    """{arm: {"optimizer": ..., "lr": ...}} as tuned and committed for a profile.

    An arm is a row, "linear", or a ticket row and a control (`found-mask-trained` has the recipe of
    `random-trained`); of transformers it is a step (`table2.arm`). Raises ValueError where nothing was tuned.
    """
    path = tuning_folder(profile) / "choices.json"
    if not path.is_file():
        there = sorted(p.parent.name for p in path.parent.parent.glob("*/choices.json"))
        of, notebook = subject(profile)
        more = f" --notebook {notebook}" if notebook else ""
        raise ValueError(f"no recipes for {profile!r} (there are {', '.join(there) or 'none'}): "
                         f"run `python -m sltlib tune --profile {of}{more}`")  # fmt: skip
    chosen = json.loads(path.read_text())["choices"]
    out = {arm: {name: found[name] for name in ("optimizer", "lr")} for arm, found in chosen.items()}
    same = {f"{name} found-mask-trained": f"{name} random-trained" for name in TICKETS}
    return out | {arm: out[other] for arm, other in same.items() if other in out}


def tuned_for(profile):
    """The settings that a profile's recipes were tuned for, `sparsity` among them."""
    recipes(profile)
    return json.loads((tuning_folder(profile) / "choices.json").read_text())["settings"]


def subject(name):
    """(profile, notebook) of a tuning's name: "mini-06" is mini's 06_event_data; no notebook for "mini"."""
    profile, _, number = name.partition("-")
    return profile, next((n for n in names() if number and n.startswith(number)), None)


def tuning_folder(profile):
    """Where a profile's tuning is kept, in git: results/tuning/<profile>."""
    return paths.ROOT / "results" / "tuning" / profile


def _blocks(profile):
    found = profiles()
    if profile not in found:
        raise ValueError(f"params.yaml has no profile {profile!r}{_close(profile, [*found, DRAFT])}")
    return found[profile]


def _same(a, b):
    """Equal in value and type (True is not 1), whatever the order of names."""
    return json.dumps(a, sort_keys=True, default=repr) == json.dumps(b, sort_keys=True, default=repr)


def _assignments(source):
    """{name: value} of a cell that only assigns literals; None for any other cell."""
    try:
        body = ast.parse(source).body
        found = {}
        for node in body:
            targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
            if not isinstance(node, ast.Assign | ast.AnnAssign) or len(targets) != 1:
                return None
            found[targets[0].id] = ast.literal_eval(node.value)
        return found
    except (SyntaxError, ValueError, TypeError, AttributeError):
        return None


def _given(namespace, defaults):
    """Names that the reader or papermill set as parameters.

    In a notebook these are the names in the last run of the parameters cell, known by its declared
    names, and of papermill's injected cell, known by its first line: what other cells define is no
    parameter, and a slip that was mended in JupyterLab is forgotten. Outside, every public plain value.
    """
    if isinstance(namespace.get("In"), list):
        own, injected = {}, {}
        for source in namespace["In"]:
            cell = _assignments(source)
            if cell and source.lstrip().startswith("# Parameters\n"):
                injected = cell
            elif cell and cell.keys() & defaults.keys():
                own = cell
        return {**own, **injected}
    return {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_") and name not in _SHELL and isinstance(value, _PLAIN)
    }


def _unknown(given, defaults, words, where=None):
    out = []
    for name in given:
        if name not in defaults:
            head = f"{where} sets [{name!r}], {words}" if where else f"{words} {name!r}"
            out.append(head + _close(name, defaults))
    return out


def _close(name, known):
    near = difflib.get_close_matches(str(name), [str(k) for k in known], n=3)
    return f" (did you mean {', '.join(near)}?)" if near else f" (there are: {', '.join(map(str, known))})"


def _coerce(name, value, default):
    """The value in the declared type, or ValueError. A list or dict may come as JSON text."""
    kind = type(default)
    if default is None:
        return value
    if kind in (list, dict) and isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            pass
    if kind is list and isinstance(value, tuple):
        value = list(value)
    if kind is int and type(value) is float and value.is_integer():
        return int(value)  # papermill reads 1e3 as 1000.0
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        hint = f" (papermill: -r {name} TEXT)" if kind is str else ""
        raise ValueError(f"{name}={value!r} is {_a(value)}, want {_a(default)} such as {default!r}{hint}")
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


def _field(name):
    """The Experiment's field that a list's name is the plural of, or None."""
    if name == "times":
        return "timesteps"
    for field in _FIELDS:
        if name in (f"{field}s", f"{field}es", f"{field}_list", f"{field[:-1]}ies"):
            return field
    return None


def _wrong(field, value):
    """What is wrong with a value of an Experiment's field, or ''."""
    if field in CHOICES and value not in CHOICES[field]:
        return f"choose from {', '.join(CHOICES[field])}"
    if field in RANGES:
        right, words = RANGES[field]
        try:
            if isinstance(value, bool) or not right(value):
                return f"give {words}"
        except TypeError:
            return f"give {words}"
    return ""


def _ranges(values, defaults):
    """Problems by name: `seed` and `seeds`, `sparsity` and `sparsities`, `search_epochs`, ..."""
    problems = []
    if not values.get("margin", 1.0) > 0:
        problems.append(f"margin={values['margin']!r}: give a number of points above 0")
    if "recipes" in values:
        try:
            arms, mine = recipes(values["recipes"]), defaults["recipes"]
            if missing := sorted(recipes(mine).keys() - arms.keys()):
                problems.append(f"recipes={values['recipes']!r} has none for {missing[0]}: give one such as {mine!r}")
        except ValueError as error:
            problems.append(f"recipes={values['recipes']!r}: {error}")
    for name, value in values.items():
        if isinstance(value, list):
            if not value and defaults[name]:
                problems.append(f"{name} is empty: give at least one value, such as {defaults[name]!r}")
            elif len(value) < LEAST.get(name, 0):
                problems.append(f"{name}={value!r}: give at least {LEAST[name]} values, for its verdict")
            if len({json.dumps(v, sort_keys=True) for v in value}) < len(value):
                problems.append(f"{name}={value!r} holds a value twice")
            field = name if name in _FIELDS else _field(name)
            for v in value:
                if field == "patch_sparsity" and v == 0:
                    problems.append(f"{name} holds 0, which is always shown: give fractions removed above 0")
                if field == "sparsity" and v == 0:
                    problems.append(f"{name} holds 0: dense is not a ticket; give fractions removed above 0")
                if field and _wrong(field, v):
                    problems.append(f"{name} holds {v!r}: {_wrong(field, v)}")
            continue
        field = name if name in _FIELDS else None
        if field is None:  # `search_epochs` is held to what epochs may be, if its default is
            tails = [f for f in _FIELDS if name.endswith("_" + f) and not _wrong(f, defaults[name])]
            field = max(tails, key=len, default=None)
        if field and _wrong(field, value):
            problems.append(f"{name}={value!r}: {_wrong(field, value)}")
        if field == "patch_sparsity" and value == 0:
            problems.append(f"{name}=0: all patches is another row; give a fraction removed above 0")
    return problems


def _together(values):
    """Problems of values that are right one by one: a ticket of these settings must be an Experiment."""
    fields = {name: value for name, value in values.items() if name in _FIELDS}
    if "dataset" not in fields:
        return []
    search = {"search": "edge-popup", "affine": False}
    if "heads" in fields:  # a spikformer, and the search of its ConvPEP
        rest = {name: value for name, value in fields.items() if name not in ("sparsity", "patch_sparsity")}
        made = [rest | {"model": "spikformer"}]
        made += [rest | search | {"model": "convpep", "sparsity": fields["sparsity"]}] if "sparsity" in fields else []
    else:
        made = [fields | search if "sparsity" in fields else fields]
    problems = {}
    for each in made:
        try:
            Experiment(**each)
        except ValueError as error:
            problems[str(error).removeprefix("Experiment: ")] = None
    return list(problems)


def datasets(values: dict) -> list[str]:
    """The data sets that parameters name: `dataset`, `datasets`, and what ends in `_dataset`."""
    named = [value for name, value in values.items() if name in ("dataset", "datasets") or name.endswith("_dataset")]
    return [name for value in named for name in (value if isinstance(value, list) else [value])]


def _data(values):
    """Problems with the data sets that parameters name."""
    sets = datasets(values)
    images = values.get("train_images", 0)
    if not sets:
        return []
    from sltlib import data

    try:
        data.check(dict.fromkeys(sets, images if isinstance(images, int) else 0))
    except (ValueError, OSError) as error:
        return [" ".join(str(error).split("\n"))]
    problems, size = [], values.get("image_size", 0)
    for name in sets:
        if name in EVENTS and isinstance(size, int) and size > data.info(name).size:
            problems.append(f"image_size={size}: the sensor of {name} has {data.info(name).size} pixels a side")
    recordings = [name for name in values if name == "event_dataset" or (name == "dataset" and "binning" in values)]
    for name in recordings:
        if values[name] not in EVENTS:
            problems.append(f"{name}={values[name]!r} holds no recordings: choose from {', '.join(sorted(EVENTS))}")
    return problems

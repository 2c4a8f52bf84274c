"""The notebooks, the parameters that each declares, and the profiles of params.yaml that set them."""

from __future__ import annotations

import ast
import json
import os
import re

import yaml

from sltlib.base import paths
from sltlib.base.words import close, shown

DRAFT = "draft"  # where a notebook lands that runs by hand
PARAMETER = "profile"  # in a parameters cell: whose values to take in place of those there (by_profile.py)


def names() -> list[str]:
    """Every notebook's name, in reading order. Files that are not numbered, or are copies, are drafts."""
    return sorted(p.stem for p in paths.NOTEBOOKS.glob("*.ipynb") if re.fullmatch(r"\d\d_\w+", p.stem))


def running(notebook: str) -> str:
    """The name of the file that runs: the notebook's, or that of a copy of it, `01_first_ticket-Copy1`.

    A copy's check call still names the original; Jupyter says in $JPY_SESSION_NAME which file it runs.
    """
    path = os.environ.get("JPY_SESSION_NAME", "")
    name = path.rpartition("/")[2].removesuffix(".ipynb")
    copy = name.startswith(notebook) and name != notebook and len(name) < 200
    return name if copy and (paths.NOTEBOOKS / f"{name}.ipynb").is_file() else notebook


def declared(notebook: str) -> dict:
    """The names and default values in the notebook's cell tagged `parameters`, but for `profile`.

    The cell holds plain assignments of literals and nothing else; ValueError says what is not.
    """
    known = [p.stem for p in paths.NOTEBOOKS.glob("*.ipynb")]
    if notebook not in known:
        raise ValueError(f"there is no notebook {shown(notebook)} in {paths.NOTEBOOKS}{close(notebook, sorted(known))}")
    cells = json.loads((paths.NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    cells = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"{notebook}.ipynb has {len(cells)} cells tagged 'parameters', want one")
    nodes = assigned("".join(cells[0]["source"]))
    try:
        return {name: ast.literal_eval(value) for name, value in nodes.items() if name != PARAMETER}
    except (ValueError, TypeError, AttributeError):  # no such cell, or a value that is no literal
        raise ValueError(f"{notebook}.ipynb: the parameters cell may hold assignments of plain values only") from None


def assigned(source: str) -> dict | None:
    """{name: its expression} of a cell that does nothing but assign to names, one each; None for any other cell."""
    found = {}
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for node in body:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        if not isinstance(node, ast.Assign | ast.AnnAssign) or len(targets) != 1 or not isinstance(targets[0], ast.Name):
            return None
        found[targets[0].id] = node.value
    return found


def profiles() -> dict:
    """params.yaml: for each profile a block of parameters for each notebook."""
    found = yaml.safe_load(paths.PARAMS.read_text(encoding="utf-8")) if paths.PARAMS.is_file() else {}
    return {p: {n: b or {} for n, b in (blocks or {}).items()} for p, blocks in (found or {}).items()}


def blocks(profile: str) -> dict:
    """{notebook: the parameters that a profile sets}, in the order of params.yaml; ValueError for an unknown profile."""
    found = profiles()
    if profile not in found:
        raise ValueError(f"params.yaml has no profile {shown(profile)}{close(profile, [*found, DRAFT])}")
    return found[profile]


def block(profile: str, notebook: str) -> dict:
    """The parameters that a profile sets for a notebook (none in "draft")."""
    if profile == DRAFT:
        return {}
    found = blocks(profile)
    if notebook not in found:
        raise ValueError(f"{profile} in params.yaml has no {shown(notebook)}{close(notebook, found)}")
    return found[notebook]


def settings(profile: str, notebook: str) -> dict:
    """Every parameter of a notebook in a profile: its defaults, and over them what the profile sets."""
    return {**declared(notebook), **block(profile, notebook)}

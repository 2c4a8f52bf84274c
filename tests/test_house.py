"""The house: notebook -> engine -> the paper's ideas -> data -> base. Imports go down, never up, never in a circle."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parent.parent / "sltlib"
FLOORS = ["base", "data", "ideas", "engine", "notebook"]  # from the ground up
FACE = {"__init__", "__main__"}  # the way in: may name every floor
LONGEST = 350


def module(path):
    """`sltlib.data.loading` of sltlib/data/loading.py; a package's own name of its __init__.py."""
    parts = path.relative_to(SOURCES.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor(name):
    """Where a module lives: its package's name, and the paper's ideas where it has none."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS else "ideas"


MODULES = {module(path): path for path in sorted(SOURCES.rglob("*.py"))}


def imports(tree, known, nested=True):
    """The modules of sltlib that a file imports; nested : those inside functions too."""
    found = set()
    todo = list(ast.iter_child_nodes(tree))
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found |= {inner if inner in known else node.module} & known.keys()
        if nested or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            todo += list(ast.iter_child_nodes(node))
    return found


def graph(nested):
    trees = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
    return {name: imports(tree, MODULES, nested) for name, tree in trees.items()}


def upward(links):
    """Imports that climb: "a imports b"."""
    return [
        f"{name} ({floor(name)}) imports {other} ({floor(other)})"
        for name, others in links.items()
        if name.rpartition(".")[2] not in FACE and name != "sltlib"
        for other in sorted(others)
        if other != "sltlib" and FLOORS.index(floor(other)) > FLOORS.index(floor(name))
    ]


def test_nothing_imports_a_floor_above_its_own():
    assert upward(graph(nested=True)) == []


READERS = {"sltlib/base/files.py", "sltlib/compared.py", "sltlib/engine/curves.py"}  # the last of files without a key


def test_nobody_reads_a_csv_but_who_knows_what_a_key_is():
    """A key may look like a number: 4239e469279095633760 is infinity to pandas."""
    root = SOURCES.parent
    found = {str(path.relative_to(root)) for folder in ("sltlib", "bench") for path in (root / folder).rglob("*.py")
             if re.search(r"\b(read_csv|DictReader|csv\.reader|genfromtxt|loadtxt)\b", path.read_text())}  # fmt: skip
    assert found == READERS


def test_there_are_no_circles():
    links = {name: others - {"sltlib", name} for name, others in graph(nested=True).items() if name != "sltlib"}
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    for name, others in links.items():  # a package's face is imported with its parts: not by its own
        own = name.rpartition(".")[0]
        assert not (own in packages and own in others), f"{name} imports its own package's face, {own}"
    list(graphlib.TopologicalSorter(links).static_order())  # raises CycleError


def test_a_climb_or_a_circle_would_be_seen():
    tree = ast.parse("from sltlib import figures\ndef f():\n    from sltlib.engine import store\n")
    known = dict.fromkeys(["sltlib", "sltlib.figures", "sltlib.engine", "sltlib.engine.store", "sltlib.base.x"])
    assert imports(tree, known) == {"sltlib.figures", "sltlib.engine.store"}
    assert imports(tree, known, nested=False) == {"sltlib.figures"}
    assert upward({"sltlib.base.x": {"sltlib.figures"}}) == ["sltlib.base.x (base) imports sltlib.figures (ideas)"]
    assert upward({"sltlib.figures": {"sltlib.base.x"}}) == []


WRITTEN = sorted(path.relative_to(SOURCES) for kind in ("py", "cpp", "hpp") for path in SOURCES.rglob(f"*.{kind}"))


@pytest.mark.parametrize("path", WRITTEN, ids=str)
def test_a_file_holds_one_idea(path):
    lines = len((SOURCES / path).read_text().splitlines())
    assert lines <= LONGEST, f"{path} has {lines} lines: one idea, at most {LONGEST}"

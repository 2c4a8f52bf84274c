"""The committed notebooks: what they refuse, and that their profiles are what was tuned and chosen."""

import ast
import json
import os
import re
import subprocess
import sys
import symtable

import pytest

import sltlib
from sltlib.base import paths
from sltlib.notebook import parameters, profiles


def read(notebook):
    return json.loads((paths.NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]


def cells(notebook):
    """(number, source) of every code cell but the one of parameters."""
    own = [(i, c) for i, c in enumerate(read(notebook)) if c["cell_type"] == "code"]
    return [(i, "".join(c["source"])) for i, c in own if "parameters" not in c["metadata"].get("tags", [])]


def bound(source):
    """Names that running a cell binds in the notebook: Python's own account of scopes, so no function's locals."""
    table = symtable.symtable(source, "cell", "exec")
    names = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    inner = list(table.get_children())
    while inner:
        scope = inner.pop()
        names |= {s.get_name() for s in scope.get_symbols() if s.is_declared_global() and s.is_assigned()}
        inner += scope.get_children()
    return names


@pytest.mark.parametrize(
    "source",
    ["x = 1", "x += 1", "a, (x, *b) = c", "for x in y: pass", "with y as x: pass", "def x(): pass", "class x: pass",
     "import x", "import x.y", "from y import z as x", "[x := y for y in z]", "if y:\n x: int = 1", "del x",
     "try: pass\nexcept Y as x: pass", "match y:\n case [x]: pass", "def f():\n global x\n x = 1"],
)  # fmt: skip
def test_every_way_to_bind_a_name_is_seen(source):
    assert "x" in bound(source)


@pytest.mark.parametrize("source", ["[x for x in y]", "def f(x): x = 1", "lambda x: x", "y.x = x[0]", "f(x=1)", "x == 1"])
def test_what_binds_a_name_elsewhere_or_not_at_all_is_let_be(source):
    assert "x" not in bound(source)


@pytest.mark.parametrize("notebook", profiles.names())
def test_a_parameters_name_is_never_bound_again(notebook):
    # Running the check cell a second time would read the new value, and train with it in silence.
    again = {f"{name} in cell {i}" for i, source in cells(notebook) for name in bound(source) & {profiles.PARAMETER, *profiles.declared(notebook)}}
    assert not again


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (dict(margin=0.0), "margin=0.0"),
        (dict(margin=-1.0), "margin=-1.0"),
        (dict(recipes="nope"), "no recipes for 'nope'"),
        (dict(model="conv8"), "too small for conv8"),
        (dict(model="linear"), "linear"),
        (dict(sparsity=0.0), "sparsity"),
        (dict(sparsity=1.0, margin=0.0, dataset="fashoin"), "margin.*sparsity=1.0.*fashoin"),
    ],
)
def test_what_would_fail_later_is_refused_before_anything_is_written(wrong, says, tmp_path, monkeypatch):
    monkeypatch.setenv("SLT_RESULTS", str(tmp_path / "results"))
    with pytest.raises(ValueError, match=says):
        parameters.check("02_table1_cnn", profiles.declared("02_table1_cnn") | wrong)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("notebook", "wrong", "says"),
    [
        ("03_reward1_sparsity", dict(sparsities=[0.0, 0.5]), "sparsities holds 0"),
        ("04_time_and_decay", dict(times=[0, 1]), "times holds 0"),
        ("04_time_and_decay", dict(times=[2]), "at least 2"),
        ("04_time_and_decay", dict(betas=[0.9, 0.2]), "at least 3"),
        ("05_energy", dict(sparsity=0.0), "sparsity"),
        ("06_event_data", dict(dataset="fashion"), "holds no recordings: choose from .*fashion-dvs"),
        ("06_event_data", dict(image_size=40), "image_size=40: the sensor of fashion-dvs has 34"),
        ("07_patch_tickets", dict(width=0.13), "features"),
        ("07_patch_tickets", dict(heads=5), "heads"),
        ("07_patch_tickets", dict(patch_sparsities=[0.0, 0.5]), "patch_sparsities holds 0"),
        ("07_patch_tickets", dict(event_dataset="fashion"), "event_dataset='fashion' holds no recordings"),
        ("08_table2_multisp", dict(patch_sparsity=1.0), "patch_sparsity"),
        ("08_table2_multisp", dict(patch_sparsity=0.0), "patch_sparsity=0: all patches is another row"),
        ("08_table2_multisp", dict(recipes="mini"), "recipes='mini' has none for [^:]*: give one such as 'mini-08'"),
        ("02_table1_cnn", dict(recipes="mini-08"), "recipes='mini-08' has none for ANN"),
        ("08_table2_multisp", dict(sparsity=0.0), "sparsity"),
        ("09_standard_tickets", dict(model="convpep", width=0.125), "prunes the float weights of a convolutional network"),
    ],
)
def test_a_sweep_that_would_fail_after_its_trainings_is_refused(notebook, wrong, says, tmp_path, monkeypatch):
    monkeypatch.setenv("SLT_RESULTS", str(tmp_path / "results"))
    with pytest.raises(ValueError, match=says):
        parameters.check(notebook, profiles.declared(notebook) | wrong)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("notebook", [name for name in profiles.names() if "model" in profiles.declared(name)])
@pytest.mark.parametrize("model", ["linear", "spikformer"])
def test_a_network_without_a_ticket_is_refused_in_one_line(notebook, model, tmp_path, monkeypatch):
    """Notebooks 03, 09 and 10 emptied an earlier run's folder, and only then failed at their first row."""
    monkeypatch.setenv("SLT_RESULTS", str(tmp_path / "results"))
    with pytest.raises(ValueError) as error:
        parameters.check(notebook, profiles.declared(notebook) | dict(model=model, width=0.125))
    assert str(error.value) == f"{notebook}: model={model!r}: this notebook searches tickets in its network, and that is none for it; choose from conv2, conv4, conv6, conv8, resnet19"
    assert not (tmp_path / "results").exists()


def test_mini_reports_at_least_three_seeds():
    for name, block in profiles.profiles()["mini"].items():
        assert len(block.get("seeds", [0, 1, 2])) >= 3, name


@pytest.mark.parametrize("notebook", profiles.names())
def test_a_notebook_ends_in_links_to_its_neighbours(notebook):
    order = profiles.names()
    at = order.index(notebook)
    wanted = {word: order[i] for word, i in (("Next", at + 1), ("Before", at - 1)) if 0 <= i < len(order)}
    last = "".join(read(notebook)[-1]["source"]).splitlines()[-1]
    assert dict(re.findall(r"\*\*(\w+):\*\* \[.+?\]\((\w+)\.ipynb\)", last)) == wanted
    assert last.count("**") == 2 * len(wanted)  # and no neighbour that has no link


def test_links_between_notebooks_lead_somewhere():
    for notebook in profiles.names():
        text = "".join("".join(c["source"]) for c in read(notebook) if c["cell_type"] == "markdown")
        linked = re.findall(r"\]\(([^)]+\.ipynb)\)", text)
        assert all((paths.NOTEBOOKS / name).is_file() for name in linked), notebook


@pytest.mark.parametrize("notebook", profiles.names())
def test_a_notebook_imports_of_this_library_what_its_face_lists(notebook):
    for i, source in cells(notebook):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                assert not any(alias.name.split(".")[0] == "sltlib" for alias in node.names), f"cell {i}: from sltlib import NAME"
            elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "sltlib":
                assert node.module == "sltlib", f"cell {i} imports {node.module}"
                assert not {alias.name for alias in node.names} - {*sltlib.__all__}, f"cell {i}"


def test_every_name_of_the_face_is_there():
    for name in sltlib.__all__:
        assert getattr(sltlib, name) is not None


def test_the_face_costs_nothing_until_it_is_used():
    code = "import sys, sltlib; assert not {'torch', 'numpy', 'pandas'} & sys.modules.keys(), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_first_notebook_runs_without_a_warning(tmp_path):
    # It trains nothing. Warnings would be the first thing that a reader sees of this project.
    sources = [c["source"] for c in read("00_spiking_neuron") if c["cell_type"] == "code"]
    script = tmp_path / "notebook.py"
    script.write_text("\n\n".join("".join(source) for source in sources), encoding="utf-8")
    environment = os.environ | {"SLT_RESULTS": str(tmp_path / "results"), "MPLBACKEND": "agg"}
    ran = subprocess.run([sys.executable, "-W", "error", script], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]

"""The check after a notebook's parameters cell, and the profiles of params.yaml."""

import dataclasses
import json
import types

import numpy as np
import pandas as pd
import pytest
from conftest import write_notebook
from hypothesis import given, settings
from hypothesis import strategies as st

from sltlib.base import paths
from sltlib.experiment import Experiment
from sltlib.notebook import limits, outputs, parameters, profiles, recipes

DEFAULTS = {
    "dataset": "fashion",
    "seeds": [0, 1],
    "sparsities": [0.5, 0.9],
    "widths": [0.5, 2.0],
    "timesteps": 4,
    "search_epochs": 2,
    "lr": 0.1,
    "title": "a",
    "affine": False,
    "grid": {"adam": [0.1]},
}
CELL = "\n".join(f"{name} = {value!r}  # a note" for name, value in DEFAULTS.items())


@pytest.fixture(autouse=True)
def notebook(tmp_path, monkeypatch):
    """One notebook, `02_table`, and two profiles."""
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(paths, "PARAMS", tmp_path / "params.yaml")
    write_notebook(paths.NOTEBOOKS / "02_table.ipynb", "1 + 1", parameters=CELL)
    write_profiles({"mini": {"02_table": {"seeds": [0, 1, 2]}}, "smoke": {"02_table": {"seeds": [0]}}})


def write_profiles(blocks):
    paths.PARAMS.write_text(json.dumps(blocks))  # JSON is YAML


def check(**changes):
    return parameters.check("02_table", {**DEFAULTS, **changes})


def refused(**changes):
    with pytest.raises(ValueError) as error:
        check(**changes)
    assert not paths.results().exists(), "a refused run left something"
    return str(error.value)


def test_good_parameters_come_back_with_profile_and_output():
    p = check()
    assert {name: getattr(p, name) for name in DEFAULTS} == DEFAULTS
    assert (p.notebook, p.profile) == ("02_table", "draft")
    assert p.output == paths.results() / "draft" / "02_table"
    assert p.output.is_absolute() and (p.output / "tickets").is_dir()


@pytest.mark.parametrize(
    "name, given, want",
    [
        ("seeds", "[0, 1]", [0, 1]),  # papermill -p seeds '[0, 1]'
        ("seeds", (3, 4), [3, 4]),
        ("seeds", [1000.0], [1000]),
        ("timesteps", 8.0, 8),  # papermill -p timesteps 8e0
        ("lr", 1, 1.0),
        ("widths", "[1, 0.5]", [1.0, 0.5]),
        ("grid", '{"sgd": [1]}', {"sgd": [1]}),
        ("affine", True, True),
    ],
)
def test_values_are_read_in_the_declared_type(name, given, want):
    namespace = {**DEFAULTS, name: given}
    p = parameters.check("02_table", namespace)
    assert repr(getattr(p, name)) == repr(want)  # repr: 1.0 is not 1
    assert repr(namespace[name]) == repr(want), "the notebook's own variable must agree"


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("seeds", 3, "want a list such as [0, 1]"),
        ("seeds", "0 1", "want a list"),
        ("seeds", [], "seeds is empty"),
        ("seeds", [1, 1], "holds a value twice"),
        ("seeds", [0, -1], "seeds holds -1: give 0 to"),
        ("seeds", [0, 1.5], "seeds[1]=1.5 is a number, want an integer"),
        ("seeds", [0, "x"], "seeds[1]='x'"),
        ("sparsities", [0.5, 1], "sparsities holds 1.0: give a fraction removed"),
        ("timesteps", 2.5, "timesteps=2.5 is a number, want an integer"),
        ("timesteps", 0, "timesteps=0: give 1 to"),
        ("timesteps", True, "timesteps=True is true or false, want an integer"),
        ("search_epochs", 0, "search_epochs=0: give at least 1"),
        ("lr", float("nan"), "finite"),
        ("lr", "fast", "lr='fast' is text, want a number"),
        ("title", 7, "-r title"),
        ("affine", 1, "affine=1 is an integer, want true or false"),
        ("dataset", "fashoin", "fashion"),
        ("train_imags", 1, "no parameter 'train_imags'"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name, value, words):
    assert words in refused(**{name: value})


def test_all_problems_are_named_at_once():
    message = refused(seeds=[], sparsities=[2], sedes=[0], dataset="nothing", lr="x")
    for name in ("seeds is empty", "sparsities", "sedes", "did you mean seeds", "nothing", "lr="):
        assert name in message, message


def test_missing_data_are_refused_before_anything_trains(tmp_path, monkeypatch):
    monkeypatch.setenv("SLT_DATA", str(tmp_path / "none"))
    assert "cifar10: not found" in refused(dataset="cifar10")


def test_a_parameters_cell_that_was_not_run_is_named():
    namespace = {k: v for k, v in DEFAULTS.items() if k != "seeds"}
    with pytest.raises(ValueError, match="seeds is not set: run the parameters cell"):
        parameters.check("02_table", namespace)


def test_only_parameters_are_held_to_be_parameters_in_a_notebook():
    """A cell that papermill injected may not add names; a later cell of the notebook's may."""
    history = ["", CELL, "parameters.check(NAME, globals())", "rows = [1, 2]", "import json\nx = 1"]
    namespace = {**DEFAULTS, "rows": [1, 2], "x": 1, "json": json, "In": history}
    assert parameters.check("02_table", namespace).profile == "draft"
    namespace["In"] = ["", CELL, "# Parameters\nsedes = [0]\n"]
    with pytest.raises(ValueError, match="'sedes'.*did you mean seeds"):
        parameters.check("02_table", namespace)
    namespace["In"] = ["", CELL + "\nsedes = [0]", "parameters.check(...)", CELL]  # mended in JupyterLab
    parameters.check("02_table", namespace)


@pytest.mark.parametrize("value", ["float('inf')", "float('-inf')", "float('nan')", "[float('nan')]", "{'a': float('inf')}", "f(1)"])
def test_no_value_hides_a_misspelt_name(value):
    """Papermill writes inf and nan as calls, which are no literals."""
    for cells in ([CELL, f"# Parameters\nlr = 0.1\nsedes = {value}\n"], [CELL, f"# Parameters\nlr = {value}\nsedes = [0]\n"],
                  [CELL + f"\nsedes = {value}"]):  # fmt: skip
        with pytest.raises(ValueError, match="'sedes'.*did you mean seeds"):
            parameters.check("02_table", {**DEFAULTS, "In": ["", *cells]})
    assert not paths.results().exists()


def test_a_readers_own_cell_is_no_parameters_cell():
    history = ["", CELL, "check", "timesteps = 8\nlr = 0.2\nfound = [1]"]
    assert parameters.check("02_table", {**DEFAULTS, "found": [1], "In": history}).profile == "draft"


HUGE = 10**399
DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "name, value",
    [
        ("seeds", [HUGE]), ("seeds", str([HUGE])), ("seeds", "1" * 5000), ("timesteps", HUGE), ("timesteps", 10**5000), ("timesteps", 1e300),
        ("search_epochs", HUGE), ("lr", HUGE), ("lr", 1e400), ("widths", [HUGE]), ("dataset", "x" * 5000), ("dataset", "/" * 5000),
        ("seeds", DEEP), ("grid", DEEP), ("title", HUGE), ("affine", "x" * 5000), ("x" * 5000, 1), ("seeds", ["x" * 5000]),
    ],
    ids=lambda v: str(type(v).__name__),
)  # fmt: skip
def test_what_is_far_too_large_gets_one_short_line(name, value):
    message = refused(**{name: value})
    assert "\n" not in message and len(message) < 400 and name[:50] in message


def test_a_notebook_of_any_name_is_refused_in_one_line():
    for name in ("x" * 5000, "../x", "a\nb", ""):
        with pytest.raises(ValueError, match="there is no notebook") as error:
            parameters.check(name, DEFAULTS)
        assert "\n" not in str(error.value).replace(str(paths.NOTEBOOKS), "") and len(str(error.value)) < 400


@pytest.mark.parametrize("name", ["fields", "recipe", "finish", "output", "tuned"])
def test_a_parameter_may_not_hide_what_a_notebook_uses(name):
    write_notebook(paths.NOTEBOOKS / "03_bad.ipynb", parameters=f"{name} = 1")
    with pytest.raises(ValueError, match=f"{name} is a word"):
        parameters.check("03_bad", {name: 1})


def test_what_is_no_plain_value_is_no_parameter():
    check(_hidden=1, json=json, get_ipython=1, Out={}, f=lambda: 0)


def test_a_run_by_hand_is_a_draft_and_only_the_pipeline_writes_to_a_profile(monkeypatch):
    assert check(seeds=[0, 1, 2]).profile == "draft", "these are mini's, but nobody asked for mini"
    monkeypatch.setenv("SLT_PROFILE", "mini")  # as `python -m sltlib figure --profile mini`
    assert check(seeds=[0, 1, 2]).profile == "mini"
    assert check(seeds=[0, 1, 2], lr=0.2).profile == "draft"
    assert check(seeds="[0]").profile == "draft", "smoke's parameters are not mini's"
    write_profiles({"mini": {"02_table": {"lr": 1}}})
    assert check(lr=1.0).profile == "mini", "a profile's whole number is a number"
    monkeypatch.setenv("SLT_PROFILE", "draft")
    assert check(lr=1.0).profile == "draft"


def test_a_copy_made_in_jupyterlab_runs_as_a_draft_of_its_own(monkeypatch):
    copy = paths.NOTEBOOKS / "02_table-Copy1.ipynb"
    write_notebook(copy, parameters=CELL + "\nmore = 1")
    monkeypatch.setenv("SLT_PROFILE", "mini")
    monkeypatch.setenv("JPY_SESSION_NAME", str(copy))  # as Jupyter says which file a kernel runs
    p = parameters.check("02_table", DEFAULTS | {"seeds": [0, 1, 2], "more": 2})
    assert (p.notebook, p.profile, p.more) == ("02_table-Copy1", "draft", 2)
    assert p.output == paths.results() / "draft" / "02_table-Copy1"
    assert profiles.names() == ["02_table"], "a copy is no notebook of the pipeline"
    monkeypatch.setenv("JPY_SESSION_NAME", "/elsewhere/02_table.ipynb")
    assert check(seeds=[0, 1, 2]).profile == "mini"


def test_a_number_and_a_truth_value_are_not_the_same_parameter(monkeypatch):
    monkeypatch.setenv("SLT_PROFILE", "mini")
    write_profiles({"mini": {"02_table": {"affine": 0}}})
    assert check().profile == "draft"


def test_an_earlier_runs_outputs_go_and_other_files_stay():
    output = check().output
    (output / "figures").mkdir()
    for name in ("figures/a.png", "table.csv", "tickets/t.safetensors", "executed.ipynb"):
        (output / name).write_text("old")
    check()
    assert sorted(p.name for p in output.iterdir()) == ["executed.ipynb", "tickets"]
    assert not list((output / "tickets").iterdir())


def test_refused_parameters_leave_an_earlier_run_alone():
    (check().output / "table.csv").write_text("old")
    with pytest.raises(ValueError):
        check(seeds=[])
    assert (paths.results() / "draft" / "02_table" / "table.csv").read_text() == "old"


@pytest.mark.parametrize("source", ["import os", "a = f()", "a = b = 1", "a, b = 1, 2", "a = 1\nprint(a)"])
def test_a_parameters_cell_holds_plain_assignments_only(source):
    write_notebook(paths.NOTEBOOKS / "bad.ipynb", parameters=source)
    with pytest.raises(ValueError, match="plain values"):
        profiles.declared("bad")


def test_a_notebook_without_parameters_cell_or_file_is_named():
    write_notebook(paths.NOTEBOOKS / "bare.ipynb", "1")
    with pytest.raises(ValueError, match="0 cells tagged 'parameters'"):
        profiles.declared("bare")
    with pytest.raises(ValueError, match="did you mean 02_table"):
        profiles.declared("02_tabel")


def test_annotated_and_negative_defaults_are_read():
    write_notebook(paths.NOTEBOOKS / "n.ipynb", parameters="# why\na: int = -1\nb = [-0.5, {'c': None}]")
    assert profiles.declared("n") == {"a": -1, "b": [-0.5, {"c": None}]}


def test_a_profile_is_checked_whole():
    write_profiles({"mini": {"02_table": {"sedes": [0], "sparsities": [1.0]}, "03_none": {}}})
    with pytest.raises(ValueError) as error:
        parameters.validate("mini")
    message = str(error.value)
    assert "mini.02_table sets ['sedes'], which 02_table.ipynb does not declare" in message
    assert "sparsities holds 1.0" in message and "03_none" in message


def test_unknown_profiles_and_notebooks_are_refused():
    with pytest.raises(ValueError, match="did you mean mini"):
        profiles.block("mimi", "02_table")
    with pytest.raises(ValueError, match="did you mean 02_table"):
        profiles.block("mini", "02_tabl")
    with pytest.raises(ValueError, match="no profile 'mimi'"):
        parameters.validate("mimi")
    assert profiles.block("draft", "02_table") == {}


PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.just(HUGE), st.floats(), st.text(max_size=5))


@given(name=st.sampled_from(list(DEFAULTS)), value=PLAIN | st.lists(PLAIN, max_size=3))
def test_any_value_is_taken_in_the_declared_type_or_refused(name, value):
    default = DEFAULTS[name]
    try:
        p = parameters.check("02_table", {**DEFAULTS, name: value})
    except ValueError as error:
        assert str(error).startswith("02_table: ")
        assert name in str(error) and len(str(error)) < 800
    else:
        assert type(getattr(p, name)) is type(default)
        assert isinstance(p, types.SimpleNamespace)


ANY = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8)


@pytest.mark.slow
@settings(max_examples=500)
@given(changes=st.dictionaries(st.sampled_from([*DEFAULTS, "sedes", "x" * 300]), ANY | ANY.map(repr) | st.text(), min_size=1, max_size=4))
def test_fuzz_any_parameters_are_taken_or_refused_in_one_line(changes):
    """As papermill injects them, with names that the notebook does not have among them."""
    cell = "# Parameters\n" + "".join(f"{name} = {value!r}\n" for name, value in changes.items())
    for namespace in (DEFAULTS | changes, DEFAULTS | changes | {"In": ["", CELL, cell]}):
        try:
            p = parameters.check("02_table", dict(namespace))
        except ValueError as error:
            assert str(error).startswith("02_table: ") and len(str(error)) < 3000 and "\n" not in str(error)
        else:
            assert not {"sedes", "x" * 300} & changes.keys()
            assert {name: type(getattr(p, name)) for name in DEFAULTS} == {name: type(value) for name, value in DEFAULTS.items()}


@pytest.mark.slow
@settings(max_examples=500)
@given(source=st.text() | st.text(alphabet="a=[1,(]'\n#:float"))
def test_fuzz_any_cell_is_read_or_let_be(source):
    found = profiles.assigned(source)
    assert found is None or all(isinstance(name, str) for name in found)


def test_the_projects_own_profiles_are_right():
    """Every block of params.yaml fits its notebook, and every notebook is in every profile."""
    paths_notebooks, paths_params = paths.ROOT / "notebooks", paths.ROOT / "params.yaml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "NOTEBOOKS", paths_notebooks)
        patch.setattr(paths, "PARAMS", paths_params)
        found = profiles.profiles()
        assert list(found) == ["mini", "smoke", "study", "paper"]
        for profile in ("mini", "smoke"):
            parameters.validate(profile)
        for profile, blocks in found.items():
            evidence = [name for name in profiles.names() if name[:2] >= "02"]
            assert list(blocks) == (evidence if profile == "study" else profiles.names()), profile
        for profile in ("study", "paper"):  # their data sets may be missing here
            for notebook, values in found[profile].items():
                assert values.keys() <= profiles.declared(notebook).keys()


def test_every_data_set_that_parameters_name_is_looked_for():
    values = dict(dataset="fashion", event_dataset="fashion-dvs", datasets=["cifar10"], seeds=[0])
    assert sorted(limits.datasets(values)) == ["cifar10", "fashion", "fashion-dvs"]


# --- what a notebook does with its parameters --------------------------------------------------


def test_fields_are_those_that_all_experiments_share():
    cell = "dataset = 'fashion'\nmodel = 'conv2'\nbeta = 0.9\naffine = True\nsparsity = 0.5\nseeds = [0]\ntimes = [1, 2]\nsearch_epochs = 3\nmargin = 1.0"
    write_notebook(paths.NOTEBOOKS / "03_x.ipynb", parameters=cell)
    values = profiles.declared("03_x") | {"model": "conv4"}
    p = parameters.check("03_x", values)
    assert p.fields == {"dataset": "fashion", "model": "conv4", "beta": 0.9, "affine": True}
    with pytest.raises(ValueError, match="03_x declares no parameter `recipes`"):
        p.recipe("SNN")


@pytest.fixture
def tuned(tmp_path, monkeypatch):
    """Two tunings: of a row, and of a sweep at three sparsities."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    made = {
        "mini": {"SNN": 0.1, "BinWSNN-ConnS random-trained": 0.3},
        "mini-03": {"SNN": 0.2, "SNN-ConnS at 0.5": 1.0, "SNN-ConnS at 0.8": 2.0, "SNN-ConnS at 0.95": 3.0},
    }
    for name, rates in made.items():
        choices = {arm: {"optimizer": "adam", "lr": lr, "logit_scale": 4.0, "val_accuracy": 80.0} for arm, lr in rates.items()}
        (tmp_path / "results/tuning" / name).mkdir(parents=True)
        text = json.dumps({"settings": {"epochs": 3, "sparsity": 0.5}, "choices": choices})
        (tmp_path / "results/tuning" / name / "choices.json").write_text(text)
    write_notebook(paths.NOTEBOOKS / "03_x.ipynb", parameters="recipes = 'mini-03'\nepochs = 3")


@pytest.mark.parametrize(
    "arm, sparsity, lr",
    [("SNN", None, 0.2), ("SNN", 0.5, 0.2), ("SNN-ConnS", 0.5, 1.0), ("SNN-ConnS", 0.8, 2.0), ("SNN-ConnS", 0.95, 3.0),
     ("SNN-ConnS", 0.1, 1.0), ("SNN-ConnS", 0.98, 3.0), ("SNN-ConnS", 0.65, 1.0), ("SNN-ConnS", 0.9, 3.0)],
)  # fmt: skip
def test_a_recipe_is_the_one_tuned_at_this_sparsity_or_nearest_to_it(tuned, arm, sparsity, lr):
    p = parameters.check("03_x", {"recipes": "mini-03", "epochs": 3})
    assert p.recipe(arm, sparsity) == {"optimizer": "adam", "lr": lr, "logit_scale": 4.0}


def test_unknown_arms_and_untold_sparsities_are_refused_by_name(tuned):
    p = parameters.check("03_x", {"recipes": "mini-03", "epochs": 4})
    with pytest.raises(ValueError, match="no arm 'SNN-Conn'.*did you mean SNN-ConnS"):
        p.recipe("SNN-Conn", 0.5)
    with pytest.raises(ValueError, match="tuned at the sparsities 0.5, 0.8, 0.95"):
        p.recipe("SNN-ConnS")
    assert p.tuned == "The recipes were tuned for other settings: epochs=3."
    assert parameters.check("03_x", {"recipes": "mini-03", "epochs": 3}).tuned == "The recipes were tuned for these settings."


@pytest.mark.parametrize("name", ["nope", "mini-07", "../tuning/mini", "mini/", "", "x" * 5000, "/etc", "mini\0"])
def test_recipes_that_were_never_tuned_are_refused_in_one_line(tuned, name):
    with pytest.raises(ValueError, match="no recipes for .*python -m sltlib tune") as error:
        parameters.check("03_x", {"recipes": name, "epochs": 3})
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_the_control_with_a_found_mask_has_the_recipe_of_the_random_one(tuned):
    found = recipes.recipe("mini", "BinWSNN-ConnS found-mask-trained")
    assert found == recipes.recipe("mini", "BinWSNN-ConnS random-trained") and found["lr"] == 0.3


@dataclasses.dataclass
class Verdict:
    claim: str
    n: int

    def __str__(self):
        return f"{self.claim}: holds"


class SavedTicket:
    def save(self, path):
        path.write_bytes(b"ticket")


def test_one_call_ends_a_notebook(capsys):
    p = check()
    table = pd.DataFrame({"row": ["a", "b"], "accuracy": [1 / 3, float("nan")], "rates": [[0.1], None]})
    claims, verdicts = [Verdict("first", 3)], [Verdict("second", 2)]
    p.finish(table=table, metrics={"result": "r", "n": np.float64(2 / 3)}, claims=claims, verdicts=verdicts,
             tickets={"one": SavedTicket()})  # fmt: skip
    assert (p.output / "table.csv").read_text() == "row,accuracy,rates\na,0.333333,[0.1]\nb,,\n"
    assert json.loads((p.output / "metrics.json").read_text()) == {
        "result": "r", "n": 0.666667, "claims": [{"claim": "first", "n": 3}], "verdicts": [{"claim": "second", "n": 2}],
    }  # fmt: skip
    assert (p.output / "tickets/one.safetensors").read_bytes() == b"ticket"
    assert capsys.readouterr().out == "- first: holds\n- second: holds\n"


@pytest.mark.parametrize(
    "given, says",
    [
        (dict(metrics={"a": {1, 2}}), "metrics.a is a set"),
        (dict(metrics={"claims": []}), "metrics holds claims"),
        (dict(tickets={"a/b": SavedTicket()}), "give a file name"),
        (dict(tickets={"a": 3}), r"tickets\['a'\] is a int"),
        (dict(tickets={"a": Experiment("fashion", search="edge-popup", sparsity=0.5)}), "the store lacks: run it"),
        (dict(table=pd.DataFrame({"a": [{1}]})), "table is a set"),
    ],
)
def test_what_cannot_be_written_is_named_and_nothing_else_is_written(given, says):
    p = check()
    good = dict(table=pd.DataFrame({"a": [1]}), metrics={"a": 1})
    with pytest.raises((ValueError, TypeError), match=says):
        p.finish(**good | given)
    assert not (p.output / "table.csv").exists() and not (p.output / "metrics.json").exists()


def test_committed_results_are_written_as_they_were():
    """The bytes of every committed table and metrics.json come back from their own content."""
    for path in sorted((paths.ROOT / "results" / "mini").glob("*/metrics.json")):
        assert outputs.metrics_text(json.loads(path.read_text())) == path.read_text(), path


def test_running_the_check_cell_twice_gives_the_same_values(monkeypatch):
    monkeypatch.setattr(paths, "NOTEBOOKS", paths.ROOT / "notebooks")
    for name in profiles.names():
        namespace = profiles.declared(name)
        first = vars(parameters.check(name, namespace))
        assert vars(parameters.check(name, namespace)) == first == {**first, **namespace}, name

"""A profile's values by its name, beside a notebook's tiny defaults, and what they cost."""

import json

import pytest

from sltlib import notebook
from sltlib.base import paths
from sltlib.engine.queue import cost
from sltlib.notebook import by_profile, parameters, plan, profiles

FIRST = "01_first_ticket"


@pytest.fixture(autouse=True)
def by_hand(tmp_path, monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.setenv("SLT_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("SLT_STORE", str(tmp_path / "store"))


def cell(name=FIRST, **changes):
    """A notebook's globals after its parameters cell."""
    return profiles.declared(name) | {"profile": ""} | changes


TUNED = [name for name in profiles.names() if any(blocks.get(name) for blocks in profiles.profiles().values())]


@pytest.mark.parametrize("name", TUNED)
def test_every_notebook_that_trains_asks_for_a_profile_first_and_has_none(name):
    cells = json.loads((paths.NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    source = next("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", []))
    first = source.splitlines()[0]
    assert first.startswith('profile = ""  # ') and profiles.PARAMETER not in profiles.declared(name)
    named = set(json.loads(f"[{first.partition('#')[2].partition(':')[0].replace(' or ', ', ')}]"))
    assert named == {p for p, blocks in profiles.profiles().items() if name in blocks and p != "smoke"}, "the comment names what there is"


def test_without_a_name_the_cell_holds(capsys):
    namespace = cell(sparsity=0.7)
    p = notebook.check(FIRST, namespace)
    assert vars(p).items() >= (profiles.declared(FIRST) | {"sparsity": 0.7}).items() and p.profile == profiles.DRAFT
    assert capsys.readouterr().out == ""


def test_a_name_takes_the_profiles_values_and_tells_what_they_cost(capsys):
    namespace = cell(profile="mini")
    p = notebook.check(FIRST, namespace)
    wanted = profiles.settings("mini", FIRST)
    assert vars(p).items() >= wanted.items() and namespace.items() >= wanted.items()
    assert p.profile == profiles.DRAFT and p.output.parts[-2:] == ("draft", FIRST), "a run by hand is never the committed one"
    first, second = capsys.readouterr().out.splitlines()
    assert p.fields and profiles.PARAMETER not in p.fields
    changed = {name for name, value in wanted.items() if value != profiles.declared(FIRST)[name]}
    assert first == "profile mini: " + ", ".join(f"{name} {wanted[name]!r}" for name in wanted if name in changed)
    costs = [sum(map(cost, plan.with_sources(plan.experiments(which, FIRST)).values())) for which in ("mini", profiles.DRAFT)]
    assert second == f"15 trainings, 0 of them stored. All of them are {costs[0] / costs[1]:,.0f} times the work of the defaults."
    assert costs[0] > 10 * costs[1]


def test_what_papermill_gives_beside_the_name_stands(capsys):
    history = ["", 'profile = ""\n' + "\n".join(f"{k} = {v!r}" for k, v in profiles.declared(FIRST).items())]
    history.append('# Parameters\nprofile = "mini"\nseeds = [5]\nsparsity = 0.5\n')
    p = notebook.check(FIRST, cell(profile="mini", seeds=[5], In=history))
    assert p.seeds == [5] and p.epochs == profiles.settings("mini", FIRST)["epochs"]
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("; given beside it: sparsity 0.5, seeds [5]") and "seeds [0" not in first
    assert second.startswith("5 trainings, ")
    history[-1] = '# Parameters\nprofile = "mini"\nsedes = [5]\n'
    with pytest.raises(ValueError, match="no parameter 'sedes'.*did you mean seeds"):
        notebook.check(FIRST, cell(profile="mini", sedes=[5], In=history))


def test_a_value_may_be_changed_in_the_same_breath(capsys):
    p = notebook.check(FIRST, cell(profile="mini seeds=[0, 7]  dataset=fashion sparsity=0.9"))
    assert (p.seeds, p.dataset, p.sparsity, p.epochs) == ([0, 7], "fashion", 0.9, profiles.settings("mini", FIRST)["epochs"])
    assert capsys.readouterr().out.splitlines()[0].endswith("; given beside it: dataset 'fashion', sparsity 0.9, seeds [0, 7]")


@pytest.mark.parametrize("text", ["mini seeds=[0]", "mini seeds = [0]", "mini  dataset='fashion' sparsity=.5", 'mini recipes="mini"'])
def test_values_are_read_as_python_or_json_writes_them(text):
    profile, own = by_profile.read(text, profiles.declared(FIRST))
    assert profile == "mini" and all(type(value) is type(profiles.declared(FIRST)[name]) for name, value in own.items()) and own
    flags = {"affine": True, "rivals": ["a"]}
    assert by_profile.read("p affine=False rivals=['b']", flags) == by_profile.read('p affine=false rivals=["b"]', flags) == ("p", {"affine": False, "rivals": ["b"]})


def test_what_the_profile_leaves_out_is_the_cells_and_told(capsys):
    p = notebook.check("02_table1_cnn", cell("02_table1_cnn", profile="mini", margin=3.0))
    assert "margin" not in profiles.block("mini", "02_table1_cnn") and p.margin == 3.0
    assert ", margin 3.0" in capsys.readouterr().out


def test_a_run_for_a_profile_ignores_the_name(monkeypatch):
    """Saved by a reader with a name in it, `dvc repro` still runs what it was asked to."""
    monkeypatch.setenv("SLT_PROFILE", "smoke")
    p = notebook.check(FIRST, cell(profile="mini", **profiles.block("smoke", FIRST)))
    assert p.profile == "smoke" and p.seeds == profiles.settings("smoke", FIRST)["seeds"]


def test_a_cost_that_cannot_be_told_ends_nothing(monkeypatch, capsys):
    monkeypatch.setattr(plan, "declared", lambda *args: 1 / 0)
    assert notebook.check(FIRST, cell(profile="mini")).seeds == [0, 1, 2]
    assert capsys.readouterr().out.splitlines()[1] == "What it costs is not known: ZeroDivisionError: division by zero"


def test_a_notebook_that_trains_nothing_has_one_line(capsys):
    notebook.check("00_spiking_neuron", cell("00_spiking_neuron", profile="mini"))
    assert capsys.readouterr().out == "profile mini: the values of the cell\n"


@pytest.mark.parametrize(
    ("name", "wrong", "says"),
    [
        (FIRST, "mimi", "01_first_ticket: params.yaml has no profile 'mimi'.*did you mean mini"),
        ("00_spiking_neuron", "study", "study in params.yaml has no '00_spiking_neuron'"),
        (FIRST, 3, "profile=3: give the name of a profile"),
        (FIRST, None, "profile=None: give the name of a profile"),
        (FIRST, " ", "profile=' ': give the name of a profile"),
        (FIRST, "mini sedes=[0]", "has no parameter 'sedes'.*did you mean seeds"),
        (FIRST, "mini seeds=0 1", "seeds='0 1'"),
        (FIRST, "mini seeds=[0] seeds=[1]", "sets seeds twice"),
        (FIRST, "mini and more", "no profile 'mini and more'"),
        (FIRST, "seeds=[0]", "no profile 'seeds=.0.'"),
    ],
)
def test_a_name_that_is_none_is_refused_and_nothing_is_written(name, wrong, says):
    namespace = cell(name, profile=wrong)
    before = dict(namespace)
    with pytest.raises(ValueError, match=says):
        notebook.check(name, namespace)
    assert namespace == before and not paths.results().exists()


def test_a_profile_may_not_name_another(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "PARAMS", tmp_path / "params.yaml")
    paths.PARAMS.write_text(json.dumps({"mini": {FIRST: {"profile": "study"}}}))
    with pytest.raises(ValueError, match=r"mini.01_first_ticket sets \['profile'\], which 01_first_ticket.ipynb does not declare"):
        parameters.validate("mini")


def test_a_plan_never_reads_the_name(monkeypatch):
    """What a profile trains is its own, whatever stands in the file's cell."""
    monkeypatch.setattr(by_profile, "told", lambda *args: pytest.fail("a plan takes no other profile"))
    assert by_profile.check(FIRST, cell(profile="nope", **{parameters.PLANNED: paths.results() / "x"})).seeds == [0]


def test_a_time_is_told_where_one_is_known(capsys, monkeypatch):
    monkeypatch.setattr(plan, "pace", lambda store, stored: 60 / cost(next(iter(stored.values()))) if stored else None)
    every = plan.experiments("mini", FIRST)

    class Store:
        def keys(self):
            return [every[0].key]

    monkeypatch.setattr(by_profile, "Store", Store)
    notebook.check(FIRST, cell(profile="mini"))
    second = capsys.readouterr().out.splitlines()[1]
    assert second.startswith("15 trainings, 1 of them stored. All of them are ")
    share = sum(cost(e) for e in every[1:]) / cost(every[0])
    assert f"What is left takes about {share:.0f} min of one core." in second and 1 < share < 90

"""What a profile trains, without running its notebooks: the same experiments, nothing written, and a time limit that keeps."""

import argparse
import json
import re
from types import SimpleNamespace

import pytest

from sltlib import Experiment, claims, compared, energy, run
from sltlib.base import files, paths
from sltlib.engine.store import BrokenResult, Store
from sltlib.notebook import limits, plan, profiles, recipes

TRAINS = [name for name in profiles.blocks("smoke") if not name.startswith(("00", "10"))]


@pytest.mark.parametrize("name", TRAINS)
def test_every_notebook_says_what_it_trains_and_writes_nothing(name):
    found = plan.experiments("smoke", name)
    assert found
    assert not paths.results().exists()
    assert plan.experiments("smoke", name) == found


def test_a_notebook_without_trainings_has_none():
    assert plan.experiments("smoke", "00_spiking_neuron") == []


def test_the_plan_is_what_the_notebook_would_train():
    """By hand: notebook 04 sweeps T and the decay of two rows, and has the linear classifier, seed by seed."""
    values = {**profiles.declared("04_time_and_decay"), **profiles.block("smoke", "04_time_and_decay")}
    found = plan.experiments("smoke", "04_time_and_decay")
    assert len(found) == (2 * (len(values["times"]) + len(values["betas"])) + 1) * len(values["seeds"])
    assert {e.timesteps for e in found} >= set(values["times"]) and {e.beta for e in found} >= set(values["betas"])


@pytest.mark.parametrize("profile", ["mini", "study", "paper"])
def test_every_row_of_every_profile_has_a_recipe(monkeypatch, profile):
    """Whether or not the data are here. A tuning that has not run yet is said; an arm that it lacks would be a mistake."""
    monkeypatch.setattr(limits, "data_sets", lambda values: [])
    for name in profiles.blocks(profile):
        try:
            assert plan.experiments(profile, name) or name.startswith("00")
        except ValueError as error:
            found = profile == "study" and re.search("(no recipes for|recipes=)'(study(?:-08)?)'", str(error))
            untuned = found and (found[2] not in recipes.tunings() or set(recipes.read(found[2])["choices"]) < set(recipes.read("mini")["choices"]))
            assert untuned or "cannot be read" in str(error), error  # a notebook that looks at its data first


@pytest.fixture
def claimed(monkeypatch, tmp_path):
    """A tuning of the rows that 02's claims compare, and of no other."""
    every, folder = recipes.read("mini"), recipes.folder
    rows = {point["row"] for claim in claims.load().values() for point in compared.needs(claim, "02_table1_cnn")}
    every["choices"] = {arm: found for arm, found in every["choices"].items() if arm in rows}
    files.write(tmp_path / "part" / "choices.json", json.dumps(every))
    monkeypatch.setattr(recipes, "folder", lambda name: tmp_path / name if name == "part" else folder(name))
    monkeypatch.setattr(recipes, "tunings", lambda: ["mini", "part"])
    values = profiles.settings("smoke", "02_table1_cnn") | {"recipes": "part"}
    monkeypatch.setattr(profiles, "settings", lambda profile, notebook: values)
    return rows


def test_claims_are_trained_before_the_other_rows_have_recipes(claimed):
    found = plan.primary("smoke", "02_table1_cnn")
    assert {point["row"] for point, *_ in found} == claimed
    for point, _, e in found:
        assert {"optimizer": e.optimizer, "lr": e.lr, "logit_scale": e.logit_scale} == recipes.recipe("mini", point["row"])
    with pytest.raises(ValueError, match="recipes='part' has none for ANN-ConnS and .* more: `python -m sltlib tune --profile part` searches them"):
        plan.experiments("smoke", "02_table1_cnn")
    with pytest.raises(ValueError, match="no arm 'ANN-ConnS'"):
        recipes.recipe("part", "ANN-ConnS")


def test_what_has_no_recipe_is_never_trained(claimed, monkeypatch):
    """Not even where a claim needs it: its stand-in is refused by the row's name."""
    monkeypatch.setattr(compared, "needs", lambda claim, notebook: [{"row": "SNN"}, {"row": "BNN"}])
    with pytest.raises(ValueError, match="02_table1_cnn: recipes='part' has none for BNN, or for what it starts from: `python -m sltlib tune"):
        plan.primary("smoke", "02_table1_cnn")
    with recipes.partly():
        assert recipes.recipe("part", "BNN") == recipes.UNTUNED
        with pytest.raises(ValueError, match="no arm 'BNM'"):
            recipes.recipe("part", "BNM")  # no tuning has it: a mistake, and nothing that comes later
    assert not recipes._partly.get()


def test_what_starts_from_a_network_without_a_recipe_is_never_trained(claimed, monkeypatch, tmp_path):
    """The row itself is tuned, the ticket that it starts from is not."""
    path = recipes.folder("part") / "choices.json"
    kept = json.loads(path.read_text())
    kept["choices"] = {"BinWSNN-ConnS random-trained": kept["choices"]["SNN"]}
    files.write(path, json.dumps(kept))
    row = "BinWSNN-ConnS found-mask-trained"
    assert recipes.recipe("part", row)
    monkeypatch.setattr(compared, "needs", lambda claim, notebook: [{"row": row}])
    with pytest.raises(ValueError, match=f"has none for {row}, or for what it starts from"):
        plan.primary("smoke", "02_table1_cnn")


def test_the_readings_of_a_network_are_those_of_the_energy_module():
    assert sorted(plan.READINGS) == sorted(energy.MODELS)
    assert plan._is(("ANN", 0), {"row": "ANN", "model": "arithmetic"}) and not plan._is(("ANN", 0), {"row": "ANN", "model": "conv4"})


def test_list_says_which_notebooks_are_not_ready_and_tells_the_others(tmp_path, monkeypatch):
    real = plan.experiments

    def experiments(profile, name):
        if name == "08_table2_multisp":
            raise ValueError(f"{name}: The data are not ready:\nno disk")
        return real(profile, name)

    monkeypatch.setattr(plan, "experiments", experiments)
    lines = plan.told("smoke", None, Store(tmp_path)).splitlines()
    assert "08_table2_multisp        not ready: The data are not ready: no disk" in lines
    assert sum("trained" in line for line in lines) == len(profiles.blocks("smoke")) - 1
    with pytest.raises(ValueError, match="no disk"):
        plan.told("smoke", "08", Store(tmp_path))


def test_sources_are_counted_once():
    found = plan.experiments("smoke", "08_table2_multisp")
    every = plan.with_sources(found)
    assert {e.key for e in found} < every.keys() and all(e.source.key in every for e in found if e.source)


def test_list_tells_how_far_a_profile_is(tmp_path):
    wanted = plan.with_sources(plan.experiments("smoke", "01_first_ticket"))
    longest = next(e for e in wanted.values() if e.model != "linear")  # a linear one may take no hundredth of a second
    store = Store(tmp_path)
    words = plan.told("smoke", "01", store)
    assert f"0 of {len(wanted)} trained, the rest costs: not known yet" in words
    run([longest], backend="inline", store=store)
    words = plan.told("smoke", "01", store)
    assert f"1 of {len(wanted)} trained, the rest costs about" in words and "in all about" in words


def test_a_damaged_result_has_no_pace_and_hides_no_other():
    sound, damaged = (Experiment("fashion", lr=rate) for rate in (0.1, 0.2))

    class Half:
        def get(self, e):
            if e is damaged:
                raise BrokenResult("x")
            return SimpleNamespace(provenance={"seconds": 3 * plan.cost(e)})

    assert plan.pace(Half(), {"a": damaged, "b": sound}) == pytest.approx(3)
    assert plan.pace(Half(), {"a": damaged}) is None


def test_the_rest_is_reckoned_at_the_notebooks_own_pace(tmp_path, monkeypatch):
    """Two notebooks of the same cost, one trained ten times as slowly."""
    slow, fast = (Experiment("fashion", lr=rate) for rate in (0.1, 0.2))
    wanted = {"one": [slow, slow.replace(seed=1)], "two": [fast, fast.replace(seed=1)]}
    store = Store(tmp_path)
    for e, took in ((slow, 36000), (fast, 3600)):
        store.publish(e, {"val_accuracy": 1.0}, provenance={"seconds": took})
    monkeypatch.setattr(plan, "notebooks", lambda profile, only: list(wanted))
    monkeypatch.setattr(plan, "experiments", lambda profile, name: wanted[name])
    one, two, every = plan.told("mini", None, store).splitlines()
    assert one.endswith("costs about 10.0 h of one core") and two.endswith("costs about 60 min of one core")
    assert every == "in all about 11.0 h of one core"


def test_time_up_keeps_what_is_done_and_the_same_command_goes_on(monkeypatch, capsys):
    calls = []

    def slow(wanted, **kwargs):
        calls.append(list(wanted))
        if len(calls) == 2:
            raise plan._TimeUp
        return run([], backend="inline")

    monkeypatch.setattr(plan, "run", slow)
    assert plan.main(["--profile", "smoke", "--time-limit", "60m"]) == 75
    out = capsys.readouterr().out
    assert "time is up" in out and "the same command goes on" in out and re.search(r"01_first_ticket +\d+ of 10 trained", out)
    assert len(calls) == 2


def test_the_clock_ends_what_runs():
    with pytest.raises(plan._TimeUp), plan.limit(0.05):
        while True:
            pass


@pytest.mark.parametrize(("text", "right"), [("90s", 90), ("100m", 6000), ("1.5h", 5400), ("7", 7)])
def test_a_time_limit_in_words(text, right):
    assert plan.seconds(text) == right


@pytest.mark.parametrize("text", ["", "m", "-3m", "0h", "1d", "ten"])
def test_a_time_limit_that_is_none_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="such as 100m"):
        plan.seconds(text)


def test_wrong_names_are_refused_before_any_work(capsys):
    with pytest.raises(ValueError, match="no profile 'studdy'"):
        plan.main(["--profile", "studdy"])
    with pytest.raises(ValueError, match="no notebook '99'"):
        plan.main(["--profile", "smoke", "--notebook", "99"])


def test_a_wrong_time_limit_says_what_is_right(capsys):
    with pytest.raises(SystemExit):
        plan.main(["--time-limit", "10x"])
    assert "'10x': give a number above 0 and s, m or h, such as 100m" in capsys.readouterr().err


def test_notebooks_come_in_the_order_of_the_claims():
    assert plan.notebooks("study")[:2] == ["03_reward1_sparsity", "08_table2_multisp"]
    assert sorted(plan.notebooks("study")) == sorted(profiles.blocks("study"))

"""The claims' own trainings: which they are, what is written of them, and that a notebook that has run is left alone."""

import dataclasses
import json

import numpy as np
import pandas
import pytest
import torch

from sltlib import claims, compared, data_of, energy, predictions, run, train
from sltlib.base import paths
from sltlib.engine import packs
from sltlib.engine.run import one_data
from sltlib.engine.store import Store
from sltlib.notebook import outputs, plan, primary, profiles

REWARD_1 = "03_reward1_sparsity"
LABELS = np.arange(500) % 10


@pytest.fixture(scope="module")
def wanted():
    return plan.primary("mini", REWARD_1)


def fill(store, wanted, shares, without=()):
    """Publish what a row gets right, a share of LABELS; `without` : (row, seed) that are not stored."""
    rng = np.random.default_rng(0)
    for point, seed, e in wanted:
        if (point["row"], seed) in without or store.get(e):
            continue
        hit = rng.random(len(LABELS)) < shares[point["row"]] + 0.002 * seed
        found = predictions.Predictions.of(np.where(hit, LABELS, (LABELS + 1) % 10), LABELS)
        about = {"device": "a processor", "versions": {"torch": "2"}}
        store.publish(e, {"test_accuracy": found.accuracy, "val_accuracy": 50.0}, provenance=about, predictions=predictions.encode(found))


SHARES = {"BinWSNN-ConnS": 0.8, "BinWSNN": 0.82, "BNN-ConnS": 0.7, "BNN": 0.84, "linear": 0.5}


def test_a_claim_needs_its_rows_and_those_of_its_check(wanted):
    """By hand: three sparsities of two tickets, their dense networks, and linear; each with every seed."""
    seeds = profiles.settings("mini", REWARD_1)["seeds"]
    assert len(wanted) == len({(e.key) for *_, e in wanted}) == (3 + 3 + 1 + 1 + 1) * len(seeds)
    assert {e.key for *_, e in wanted} < {e.key for e in plan.experiments("mini", REWARD_1)}
    for point, seed, e in wanted:
        assert e.seed == seed and e.sparsity == pytest.approx(point.get("sparsity", 0.0))
        assert (e.search == "edge-popup") == ("ConnS" in point["row"]) and (e.model == "linear") == (point["row"] == "linear")


@pytest.mark.parametrize("name", [name for name, claim in claims.load().items() if claim.measure == "test_accuracy"])
def test_mini_trains_all_that_its_claims_compare(monkeypatch, name):
    claim = claims.load()[name]
    for notebook in {claim.notebook, *(pair["notebook"] for pair in claim.sanity if "notebook" in pair)}:
        found = plan.primary("mini", notebook)
        for point in compared.needs(claim, notebook):
            assert [seed for other, seed, _ in found if other == point] == profiles.settings("mini", notebook)["seeds"], point


def test_results_of_two_copies_of_a_data_set_are_not_judged_together(tmp_path, monkeypatch, wanted):
    """The same key, other images: a JPEG copy whose files have other names holds out other ones."""
    monkeypatch.setenv("SLT_RESULTS", str(tmp_path / "results"))
    store = Store(tmp_path / "store")
    for copy in ("0123456789abcdef", "fedcba9876543210"):
        point, seed, e = wanted[0 if copy.startswith("0") else 1]
        found = predictions.Predictions.of(LABELS, LABELS)
        store.publish(e, {"test_accuracy": 100.0, "val_accuracy": 50.0}, provenance={"data": copy}, predictions=predictions.encode(found))
    words = "were trained on other images .data 0123456789abcdef and fedcba9876543210 in their provenance.*SLT_DATA, SLT_STORE"
    with pytest.raises(ValueError, match=words):
        primary.write("mini", REWARD_1, store)
    with pytest.raises(ValueError, match=words):
        run([e for *_, e in wanted[:2]], store=store)
    assert not (tmp_path / "results" / "mini").exists()
    frames = {result.experiment: result for result in map(store.get, [e for *_, e in wanted[:2]])}
    first, second = frames.values()
    first, second = (dataclasses.replace(r, experiment=r.experiment.replace(dataset="fashion-dvs", timesteps=t)) for r, t in ((first, 2), (second, 4)))
    one_data([first, second])  # frames of another number have another fingerprint, rightly


def test_a_notebook_without_a_claim_needs_nothing(monkeypatch, capsys):
    assert plan.primary("mini", "07_patch_tickets") == plan.primary("mini", "00_spiking_neuron") == []
    monkeypatch.setattr(plan, "run", lambda *args, **kwargs: pytest.fail("nothing is to be trained"))
    assert plan.main(["--notebook", "07", "--primary"]) == 0
    said = capsys.readouterr().out
    assert "no claim needs trainings that 07_patch_tickets has of its own" in said


def test_some_seeds_at_a_time_so_that_what_is_there_can_be_judged(monkeypatch, wanted, capsys):
    called = []

    class Told:
        attrs = {"trained": 0}

    def run(experiments, **kwargs):
        called.append(list(experiments))
        return Told

    monkeypatch.setattr(plan, "run", run)
    assert plan.main(["--notebook", "03", "--primary"]) == 0
    assert [{e.seed for e in part} for part in called] == [{0, 1}, {2}]
    assert {e.key for part in called for e in part} == {e.key for *_, e in wanted}
    assert "03_reward1_sparsity: 18 experiments for its claim, seed 0, 1" in capsys.readouterr().out
    called.clear()
    plan.main(["--notebook", "03"])
    assert [len(part) for part in called] == [18, 9, len(plan.experiments("mini", REWARD_1))]
    for more in (["--workers", "20"], ["--backend", "dask:tcp://nowhere:1"]):  # no worker waits
        called.clear()
        plan.main(["--notebook", "03", "--primary", *more])
        assert [len(part) for part in called] == [27]


def test_a_row_is_known_by_its_name_wherever_it_stands(wanted):
    point, _, e = wanted[0]
    turned = dict(reversed({**point, "sparsity": 0.5}.items()))
    assert next(iter(turned)) == "sparsity"
    assert plan._is((point["row"], 0.5, 0), turned) and not plan._is((point["row"], 0.8, 0), turned)


def test_the_list_tells_the_claims_own_trainings(tmp_path):
    lines = plan.told("mini", store=Store(tmp_path / "store"), first=True).splitlines()
    assert lines[0].startswith(f"{REWARD_1}         0 of 27 trained") and len(lines) == 7
    assert not any("07_patch" in line for line in lines)


def test_the_store_gives_the_verdict_that_the_table_gives(tmp_path, wanted):
    store = Store(tmp_path / "store")
    fill(store, wanted, SHARES)
    assert primary.write("mini", REWARD_1, store) == 3
    folder = outputs.folder("mini", REWARD_1)
    about = json.loads((folder / "metrics.json").read_text())
    assert about[claims.ALONE] == {"seeds": [0, 1, 2], "trained_on": ["a processor, torch 2"]}
    found = claims.table(("mini",), paths.results())["reward-1"]["mini"]
    assert found.verdict == "holds" and found.n == 3 and found.dataset == "fashion" and "for new images" in found.why
    assert found.why.endswith("Judged from the store; its notebook has not run.")
    about.pop(claims.ALONE)
    (folder / "metrics.json").write_text(json.dumps(about))  # as the notebook leaves it
    later = claims.table(("mini",), paths.results())["reward-1"]["mini"]
    assert "has not run" not in later.why and found.early and not later.early  # 3 of 6
    by_hand = {name: np.mean([store.get(e).metrics["test_accuracy"] for point, _, e in wanted if point["row"] == name]) for name in SHARES}
    worth = by_hand["BinWSNN-ConnS"] - by_hand["BinWSNN"] - by_hand["BNN-ConnS"] + by_hand["BNN"]
    assert found.found.difference == pytest.approx(worth, abs=1e-3)


def test_a_seed_counts_where_all_of_it_is_stored(tmp_path, wanted):
    store = Store(tmp_path / "store")
    fill(store, wanted, SHARES, without={("BNN", 1)})
    assert primary.write("mini", REWARD_1, store) == 2
    table = claims.records(outputs.folder("mini", REWARD_1) / "table.csv")
    assert {line["seed"] for line in table} == {0, 2}


def test_without_a_whole_seed_nothing_is_written(tmp_path, wanted):
    store = Store(tmp_path / "store")
    fill(store, wanted, SHARES, without={("BNN", 0), ("linear", 1), ("BinWSNN", 2)})
    assert primary.write("mini", REWARD_1, store) == 0 and not paths.results().exists()


def test_a_notebook_that_has_run_is_left_alone(tmp_path, monkeypatch, wanted, capsys):
    store = Store(tmp_path / "store")
    fill(store, wanted, SHARES)
    monkeypatch.setattr(primary, "Store", lambda: store)
    folder = outputs.folder("mini", REWARD_1)
    assert primary.main(["--profile", "mini"]) == 0
    said = capsys.readouterr().out
    assert f"{REWARD_1}: has not run; its claim from the store, 3 complete seeds of 3" in said
    assert "06_event_data: has not run; its claim from the store, 0 complete seeds of 3" in said
    assert "05_energy: has not run; its claim from the store, 0 complete seeds of 4" in said and "lose less at high sparsity than non-spiking ones: holds" in said
    (folder / "table.csv").unlink()
    assert not primary.has_run(folder)
    primary.main([])
    assert (folder / "table.csv").is_file()
    (folder / "metrics.json").write_text("{}")  # as a notebook leaves it
    (folder / "table.csv").unlink()
    assert primary.has_run(folder)
    capsys.readouterr()
    primary.main([])
    assert not (folder / "table.csv").exists() and REWARD_1 not in capsys.readouterr().out


@pytest.mark.parametrize("less", [{("BNN", 0), ("BNN", 1), ("BNN", 2)}, {("BNN", 1)}])
def test_a_store_that_lacks_trainings_takes_no_evidence_away(tmp_path, monkeypatch, wanted, capsys, less):
    """As in a fresh clone: the committed verdict rests on more of the same trainings than are stored here."""
    store = Store(tmp_path / "store")
    fill(store, wanted, SHARES)
    monkeypatch.setattr(primary, "Store", lambda: store)
    primary.main([])
    folder, other = outputs.folder("mini", REWARD_1), Store(tmp_path / "another")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "non-spiking ones: holds" in capsys.readouterr().out and set(before) == set(primary.LEFT)
    fill(other, wanted, SHARES, without=less)
    store = other
    primary.main([])
    out = capsys.readouterr().out
    assert f"{3 - len(less)} complete seeds of 3" in out and "left as it is, with 3 seeds of the same trainings" in out and str(folder) in out
    assert "non-spiking ones: holds" in out and {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_fewer_seeds_take_nothing_away_whichever_they_are(tmp_path, wanted, capsys):
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    fill(one, wanted, SHARES, without={("BNN", 2)})
    fill(other, wanted, SHARES, without={("BNN", 0), ("BNN", 1)})
    assert primary.write("mini", REWARD_1, one) == 2 and primary.write("mini", REWARD_1, other) == 1
    assert "left as it is, with 2 seeds" in capsys.readouterr().out
    assert {line["seed"] for line in compared.records(outputs.folder("mini", REWARD_1) / "table.csv")} == {0, 1}


@pytest.mark.parametrize("key", ["12345678901234567890", "4239e469279095633760"])
def test_what_is_held_is_known_by_keys_that_look_like_numbers(tmp_path, wanted, key):
    store = Store(tmp_path / "store")
    fill(store, wanted, SHARES)
    seeds = primary.write("mini", REWARD_1, store)
    folder = outputs.folder("mini", REWARD_1)
    (folder / "table.csv").write_text((folder / "table.csv").read_text().replace(wanted[0][2].key, key))
    keys = {key, *(e.key for *_, e in wanted)}
    assert len(primary.held(folder, keys)) == seeds and not primary.held(folder, keys - {key})
    (folder / primary.ENERGIES).write_text(f"key,{plan.READING},network,numbers,nJ\n{key},memory,{key},{energy.NUMBERS},7.5\n")
    assert primary._energies(folder) == {(key, "memory", key, energy.NUMBERS): 7.5}
    assert len(primary.held(folder, keys)) == seeds


def test_what_was_judged_of_other_trainings_is_replaced_by_what_is_stored(tmp_path, monkeypatch, wanted, capsys):
    """As when the recipes change: the keys are others."""
    store = Store(tmp_path / "store")
    fill(store, wanted, SHARES)
    monkeypatch.setattr(primary, "Store", lambda: store)
    primary.main([])
    folder = outputs.folder("mini", REWARD_1)
    table = folder / "table.csv"
    table.write_text(table.read_text().replace(wanted[0][2].key, "0" * 20))
    assert not primary.held(folder, {e.key for *_, e in wanted})
    capsys.readouterr()
    store = Store(tmp_path / "another")
    primary.main([])
    out = capsys.readouterr().out
    assert "0 complete seeds of 3" in out and "holds" not in out and not table.exists()


def test_without_the_data_what_was_judged_stays(tmp_path, monkeypatch, wanted, capsys):
    store = Store(tmp_path / "store")
    fill(store, wanted, SHARES)
    monkeypatch.setattr(primary, "Store", lambda: store)
    primary.main([])
    capsys.readouterr()

    def missing(profile, notebook):
        raise ValueError(f"{notebook}: dataset 'cifar10' is not here")

    monkeypatch.setattr(plan, "primary", missing)
    primary.main([])
    out = capsys.readouterr().out
    assert f"{REWARD_1}: dataset 'cifar10' is not here" in out and "non-spiking ones: holds" in out


ENERGY = "05_energy"


def test_a_claim_on_energies_is_judged_by_what_the_stored_networks_do(tmp_path, capsys, monkeypatch):
    """Trained for real. The numbers are those of notebook 05's own cell, of every test image; from a pack without networks they stay."""
    wanted = plan.primary("smoke", ENERGY)
    assert [(point["row"], point["model"]) for point, seed, _ in wanted if seed == 0] == [("ANN", "arithmetic"), ("BinWSNN-ConnS", "arithmetic")]
    assert {e.key for *_, e in wanted} < {e.key for *_, e in plan.primary("smoke", "02_table1_cnn")}, "02 trains the same"
    store = Store(tmp_path / "store")
    run([e for *_, e in wanted], backend="inline", store=store)
    assert primary.write("smoke", ENERGY, store) == 2
    place = outputs.folder("smoke", ENERGY) / "table.csv"
    text, lines = place.read_text(), compared.records(place)
    loaded = data_of(wanted[0][2])
    images = train.batch(loaded, loaded.test.x, torch.arange(len(loaded.test)))
    for line, (point, seed, e) in zip(lines, wanted, strict=True):
        assert (line["row"], line["seed"], line["key"]) == (point["row"], seed, e.key)
        found = energy.energy(energy.count(store.get(e).network(), images), "arithmetic").loc["total", "pj"] / 1000
        assert line["nJ"] == pytest.approx(found, rel=1e-5)
    table = claims.judge(claims.load()["energy"], place, None, {"02_table1_cnn": sane(wanted)})
    costs = {row: np.mean([line["nJ"] for line in lines if line["row"] == row]) for row in ("ANN", "BinWSNN-ConnS")}
    assert table.found.difference == pytest.approx(100 * (1 - costs["BinWSNN-ConnS"] / costs["ANN"]), abs=0.01) and costs["ANN"] > costs["BinWSNN-ConnS"]
    packs.pack(store, [e.key for *_, e in wanted], tmp_path / "pack.zip")
    other = Store(tmp_path / "other")
    monkeypatch.setattr(primary, "Store", lambda: other)
    assert primary.main(["--profile", "smoke"]) == 0 and place.read_text() == text, "nothing of it is stored here, and nothing says that it is wrong"
    packs.unpack(other, tmp_path / "pack.zip")
    monkeypatch.setattr(energy, "count", lambda *args: pytest.fail("a network that was read is not read again"))
    assert primary.write("smoke", ENERGY, other) == 2 and place.read_text() == text
    monkeypatch.setattr(energy, "NUMBERS", energy.NUMBERS + 1)
    capsys.readouterr()
    assert primary.main(["--profile", "smoke"]) == 0 and not place.exists()
    assert f"{ENERGY}: result {wanted[0][2].key} was unpacked from a file without tickets" in capsys.readouterr().out
    monkeypatch.setattr(energy, "NUMBERS", energy.NUMBERS - 1)
    kept = place.parent / primary.ENERGIES
    kept.write_text(kept.read_text().replace(other.get(wanted[0][2]).network_hash, "0" * 64))
    with pytest.raises(ValueError, match="unpacked from a file without tickets"):
        primary.write("smoke", ENERGY, other)  # of another network under the same key


def test_energies_are_read_while_the_networks_are_there(tmp_path, monkeypatch):
    """One machine trains the tickets of a seed, another the dense network: the first leaves what only it can read."""
    wanted = plan.primary("smoke", ENERGY)
    (dense,), (ticket,) = ([e for point, seed, e in wanted if (point["row"], seed) == (row, 0)] for row in ("ANN", "BinWSNN-ConnS"))
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    run([ticket], backend="inline", store=one)
    folder = outputs.folder("smoke", ENERGY)
    assert primary.write("smoke", ENERGY, one) == 0 and [path.name for path in folder.iterdir()] == [primary.ENERGIES]
    packs.pack(one, [ticket.key], tmp_path / "pack.zip")
    packs.unpack(other, tmp_path / "pack.zip")
    run([dense], backend="inline", store=other)
    assert primary.write("smoke", ENERGY, other) == 1
    lines = compared.records(folder / "table.csv")
    assert [(line["row"], line["key"]) for line in lines] == [("ANN", dense.key), ("BinWSNN-ConnS", ticket.key)]
    assert lines[1]["nJ"] == pytest.approx(primary.nanojoules(one.get(ticket), "arithmetic", {}))


def sane(wanted):
    """A table of 02 in which both rows are above linear."""
    seeds = sorted({seed for _, seed, _ in wanted})
    rows = {"ANN": 80.0, "BinWSNN-ConnS": 70.0, "linear": 50.0}
    return pandas.DataFrame([{"row": row, "seed": seed, "test_accuracy": value + seed / 10} for row, value in rows.items() for seed in seeds])


@pytest.mark.parametrize(("early", "shown"), [(True, "does not hold"), (False, "holds")])
def test_first_trainings_do_not_stand_over_a_smaller_run_that_is_whole(early, shown):
    claim = claims.load()["reward-1"]
    whole = claims.Tested(claim, "does not hold", "why")
    study = claims.Tested(claim, "holds", "why", early=early)
    line = claims.markdown({"reward-1": {"mini": whole, "study": study}}).splitlines()[-1]
    assert line.endswith(f"| **{shown}** |") and "| holds. why |" in line  # its own column tells it in any case
    only = claims.markdown({"reward-1": {"study": study}}).splitlines()[-1]
    assert only.endswith("| first trainings only |" if early else "| **holds** |")


@pytest.mark.parametrize("less", [0, 1])
@pytest.mark.parametrize("dense", [0.82, 0.4])
def test_trainings_are_early_until_the_claims_seeds_are_there(tmp_path, wanted, monkeypatch, less, dense):
    """Also where the verdict is *not tested*: below the linear classifier nothing is found that could be counted."""
    claim = claims.load()["reward-1"]
    monkeypatch.setattr(claims, "load", lambda: {"reward-1": dataclasses.replace(claim, n=3 + less)})
    store = Store(tmp_path / "store")
    fill(store, wanted, SHARES | {"BinWSNN": dense})
    primary.write("mini", REWARD_1, store)
    found = claims.table(("mini",), paths.results())["reward-1"]["mini"]
    assert (found.verdict == "not tested") == (dense < SHARES["linear"]) and found.early == bool(less)


def test_the_study_is_a_night_of_two_cores(tmp_path):
    """`make study` trains what the claims compare, and that is what its pack has: at most 16 hours of two cores."""
    lines = (paths.ROOT / "Makefile").read_text().partition("\nstudy: setup\n")[2].partition("\n\n")[0].splitlines()
    assert [line.strip() for line in lines] == [
        "python -m sltlib tune --profile study --notebook 08", "python -m sltlib train --profile study --primary",
        "python -m sltlib claims --profile study", "python -m sltlib readme",
    ]  # fmt: skip
    store = Store(tmp_path / "store")
    packs.unpack(store, paths.ROOT / "results/study/trainings.zip", say=lambda words: None)
    taken = [store.read(key).provenance["seconds"] for key in store.keys()]
    assert 10 < sum(taken) / 3600 < 2 * 16 and min(taken) > 1

"""Tuning: the same budget for every arm, on the validation split; what is committed follows from its grid."""

import json
from collections import Counter

import pandas as pd
import pytest

from sltlib.notebook import params, tune
from sltlib.base import paths
from sltlib.table1 import ROWS, TICKETS


def test_every_arm_has_the_same_grid_and_budget():
    pairs = tune.candidates("mini")
    by_arm = {arm: [(e.optimizer, e.lr, e.seed) for a, e in pairs if a == arm] for arm, _ in pairs}
    assert set(by_arm) == set(tune.ARMS) >= {*ROWS, "linear"}
    assert len({tuple(grid) for grid in by_arm.values()}) == 1
    # and each is trained as long as the others, on the same images
    same = {(e.epochs, e.batch_size, e.train_images, e.image_size, e.dataset) for _, e in pairs}
    assert len(same) == 1


def test_tuning_seeds_are_not_those_of_the_reported_runs():
    for blocks in params.profiles().values():
        for block in blocks.values():
            assert not set().union(*tune.SEEDS.values()) & set(block.get("seeds", []))


def test_the_test_split_is_nowhere_in_what_tuning_keeps(monkeypatch):
    def fake_run(experiments):
        return pd.DataFrame([{"optimizer": e.optimizer, "lr": e.lr, "seed": e.seed, "val_accuracy": 50 + e.lr,
                              "test_accuracy": 99.0, "key": e.key} for e in experiments])  # fmt: skip

    monkeypatch.setattr("sltlib.engine.runner.run", fake_run)
    table = tune.trained(tune.candidates("mini"), ["optimizer", "lr"])
    assert list(table) == ["arm", "optimizer", "lr", "seed", "val_accuracy", "key"]
    assert all(found["lr"] == 1.0 for found in tune.best(table).values())


def test_the_best_is_that_of_the_mean_over_seeds():
    table = pd.DataFrame(
        [("SNN", "adam", 0.1, 0, 80), ("SNN", "adam", 0.1, 1, 90), ("SNN", "sgd", 1.0, 0, 86), ("SNN", "sgd", 1.0, 1, 86)],
        columns=["arm", "optimizer", "lr", "seed", "val_accuracy"],
    )
    assert tune.best(table) == {"SNN": {"optimizer": "sgd", "lr": 1.0, "val_accuracy": 86.0}}


def test_a_tuning_is_named_after_its_profile_and_notebook():
    for profile in ("mini", "paper"):
        for notebook in tune.SEEDS:
            found, numbered = params.subject(tune.name_of(profile, notebook))
            assert (found, numbered or tune.IMAGES) == (profile, notebook)
    assert tune.name_of("mini") == "mini" and tune.name_of("mini", tune.EVENT) == "mini-06"


@pytest.mark.parametrize("profile", sorted(p.parent.name for p in (paths.ROOT / "results/tuning").glob("*/choices.json")))
def test_committed_choices_follow_from_the_committed_grid(profile):
    grid = pd.read_csv(params.tuning_folder(profile) / "grid.csv")
    kept = json.loads((params.tuning_folder(profile) / "choices.json").read_text())
    assert tune.best(grid) == kept["choices"]
    subject = params.subject(profile)
    subject = (subject[0], subject[1] or tune.IMAGES)
    fixed, sparsity = tune.settings(*subject)
    assert kept["settings"] == fixed | {"sparsity": sparsity}, "the profile changed: run `make tune`"
    groups = tune.arms(subject[1])
    each = len(tune.GRID) * len(tune.SEEDS[subject[1]])
    assert Counter(grid.arm) == dict.fromkeys((arm for group in groups for arm in group), each)
    chosen = {arm: {name: found[name] for name in ("optimizer", "lr")} for arm, found in kept["choices"].items()}
    keys = [e.key for n in range(len(groups)) for _, e in tune.candidates(*subject, chosen if n else None)]
    assert keys == grid.key.tolist()


def test_recipes_name_every_arm_and_what_to_do_without():
    found = params.recipes("mini")
    assert {*ROWS, "linear"} <= set(found)
    for name in TICKETS:
        assert found[f"{name} found-mask-trained"] == found[f"{name} random-trained"]
    with pytest.raises(ValueError, match="no recipes for 'nano'.*mini.*tune --profile nano"):
        params.recipes("nano")
    with pytest.raises(ValueError, match="tune --profile nano --notebook 06"):
        params.recipes("nano-06")

"""Table 1 as experiments, and the comparisons drawn from it."""

import pandas as pd
import pytest

from sltlib import table1
from sltlib.table1 import ROWS, TICKETS

BASE = dict(dataset="fashion", model="conv2", width=0.1, image_size=8, epochs=1)
RECIPE = {name: dict(lr=0.01) for name in ROWS} | {"linear": dict(lr=0.1)}
RECIPE |= {f"{name} {c}": dict(lr=0.02) for name in TICKETS for c in ("random-readout", "random-trained", "found-mask-trained")}
# seed 0 and 1; a row's accuracy is its place here, the second seed one point above
PLACE = {name: 10 * i for i, name in enumerate([*ROWS, "linear"])}


def made():
    return table1.experiments(BASE | {"affine": True}, lambda name, sparsity: RECIPE[name], 0.5, [0, 1])


def accuracy():
    return {name: {0: float(PLACE.get(name, 5)), 1: PLACE.get(name, 5) + 1.0} for name, _ in made()}


def test_all_rows_and_controls_are_there_once():
    found = made()
    assert len(found) == 2 * (10 + 1 + 2 * 5 + 1) == len({e.key for e in found.values()})
    assert [name for name, seed in found if seed == 0][:10] == list(ROWS)


def test_only_dense_rows_are_affine_and_recipes_are_the_rows_own():
    for (name, _), experiment in made().items():
        assert experiment.affine == (name in ROWS and name not in TICKETS)
        assert experiment.lr == RECIPE[name]["lr"]


def test_the_found_mask_is_that_of_the_same_seed():
    found = made()
    for seed in (0, 1):
        assert found["BinWSNN-ConnS found-mask-trained", seed].source == found["BinWSNN-ConnS", seed]


def test_comparisons_are_the_differences_that_they_name():
    above, within = table1.compare(accuracy(), "fashion")
    place = PLACE
    assert above.differences["MPSLT above MPLT 1/32"].mean == place["BinWSNN-ConnS"] - place["BNN-ConnS"]
    loses = place["SNN-ConnS"] - place["SNN"] - (place["ANN-ConnS"] - place["ANN"])
    assert above.differences["SLT loses less than LT"].mean == loses
    assert within.differences["SLT no worse than LT"].mean == place["SNN-ConnS"] - place["ANN-ConnS"]
    assert above.claims["MPSLT above SLT (the +0.24)"].verdict == "holds"
    assert within.claims["dense SNN no worse than dense ANN"].verdict == "holds"


@pytest.mark.parametrize(
    ("dataset", "theirs"),
    [("fashion", 87.76 - 87.52), ("cifar100", 66.74 - 67.22), ("fashion-dvs", 77.01 - 77.94), ("dvs128-gesture", 91.70 - 92.17)],
)
def test_the_paper_s_difference_is_that_of_the_data_set_s_column(dataset, theirs):
    assert table1.differences(dataset)["MPSLT above SLT (the +0.24)"] == pytest.approx(theirs)
    above, _ = table1.compare(accuracy(), dataset)
    assert above.claims["MPSLT above SLT (the +0.24)"].detail.endswith(f": {theirs:+.2f}.")


def test_every_ticket_is_held_against_its_own_controls():
    family = table1.against_controls(accuracy())
    assert len(family.differences) == 3 * len(TICKETS) + 1
    assert family.differences["SNN-ConnS − random-trained"].mean == PLACE["SNN-ConnS"] - 5
    assert family.differences["SNN-ConnS − linear"].mean == PLACE["SNN-ConnS"] - PLACE["linear"]


def test_accuracies_are_by_row_and_seed():
    table = pd.DataFrame({"row": ["SNN", "SNN", "ANN"], "seed": [1, 0, 0], "test_accuracy": [80.0, 81.0, 90.0]})
    assert table1.accuracies(table) == {"SNN": {1: 80.0, 0: 81.0}, "ANN": {0: 90.0}}

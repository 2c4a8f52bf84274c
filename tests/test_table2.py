"""Table 2 as chains of experiments, and the comparisons drawn from it."""

import pytest

from sltlib import table2
from sltlib.registry import TRANSFORMERS

BASE = dict(dataset="fashion", image_size=16, epochs=2, batch_size=50, timesteps=2, width=0.125, depth=1, heads=4)
ARMS = [arm for group in table2.TUNED for arm in group]
RECIPE = {arm: dict(optimizer="adam", lr=0.01 * (i + 1)) for i, arm in enumerate(ARMS)}


def row(name, selector="learned", **changes):
    return table2.row(name, BASE | changes, RECIPE, 0.5, 0.3, 0, 3, 1, selector=selector)


def chain(experiment):
    found = []
    while experiment is not None:
        found.append(experiment)
        experiment = experiment.source
    return found


def test_every_row_is_a_network_of_its_own():
    found = {name: row(name) for name in [*table2.rows(), "linear"]}
    assert len({e.key for e in found.values()}) == len(found) == 20
    assert all(e.model == "spikformer" and e.search == "none" for name, e in found.items() if name != "linear")


def test_a_multisp_ticket_has_all_three_levels_and_its_steps():
    for name, neuron, stem in (("MultiSp-SLT", "lif", "lif"), ("MultiSp-LT", "gelu", "sign")):
        network, selector, search = chain(row(name))
        assert (search.model, search.search, search.weights, search.sparsity) == ("convpep", "edge-popup", "binary", 0.5)
        assert (selector.model, selector.selector, selector.patch_sparsity) == ("convpep", "learned", 0.3)
        assert (network.neuron, network.stem_activation, network.patch_sparsity) == (neuron, stem, 0.3)
        assert search.neuron == selector.neuron == stem
        assert [search.epochs, selector.epochs, network.epochs] == [3, 1, 2]


@pytest.mark.parametrize(
    ("name", "differs"),
    [
        ("Spikeformer, binary ConvPEP", {"weights", "search", "sparsity", "lr"}),
        ("Transformer, sign ConvPEP", {"neuron", "lr"}),
    ],
)
def test_a_level_alone_changes_nothing_but_that_level(name, differs):
    kind = name.split(",")[0]
    stem, dense = (chain(row(n))[-1].spec() for n in (name, f"{kind}, in steps"))
    assert {field for field in stem if stem[field] != dense[field]} == differs


def test_patches_alone_are_those_of_the_network_in_one_piece():
    for kind in table2.KINDS:
        whole, retrained, patches = (row(name) for name in (kind, f"{kind}, retrained", f"{kind}-PatchS"))
        assert retrained.source == whole == chain(patches)[-1]
        assert {f for f in patches.spec() if patches.spec()[f] != retrained.spec()[f]} == {"selector", "patch_sparsity", "source"}


def test_rankings_by_attention_are_those_of_the_network_that_is_shown():
    assert row("Spikeformer-PatchS", selector="attention").source == row("Spikeformer, retrained")


def test_a_network_in_one_piece_sees_as_many_images_as_the_steps():
    steps = chain(row("MultiSp-SLT"))
    assert row("Spikeformer").epochs == row("linear").epochs == sum(step.epochs for step in steps)


def test_controls_differ_by_chance_only():
    ticket, patches, stem = (row(f"MultiSp-SLT{c}") for c in ("", " random patches", " random ConvPEP"))
    assert patches.source == chain(ticket)[-1] and patches.selector == "random"
    assert chain(stem)[-1] == chain(ticket)[-1].replace(search="random-readout")
    assert [e.selector for e in chain(stem)] == [e.selector for e in chain(ticket)]


def test_every_recipe_that_a_row_takes_is_tuned_on_what_the_row_trains():
    for group in table2.TUNED:
        for arm in group:
            judged = table2.judged(arm, dict(lr=0.777), RECIPE, BASE, 0.5, 0.3, 0, 3, 1)
            assert judged.lr == 0.777 and all(e.lr != 0.777 for e in chain(judged)[1:])
            assert judged.model in (*TRANSFORMERS, "linear") and arm.split()[1:2] in ([judged.neuron], [])
    used = {(e.model, e.lr) for name in table2.rows() for e in chain(row(name))}
    assert {lr for _, lr in used} == {RECIPE[arm]["lr"] for arm in ARMS if arm != "linear"}


def test_comparisons_are_of_rows_that_there_are():
    names = {*table2.rows(), "linear"}
    for rows in (table2.ABOVE | table2.WITHIN).values():
        assert set(rows) <= names and len(rows) in (2, 4)
    accuracy = {name: {0: float(i), 1: i + 1.0} for i, name in enumerate(names)}
    above, within = table2.compare(accuracy)
    mean = {name: sum(values.values()) / 2 for name, values in accuracy.items()}
    expected = mean["MultiSp-SLT"] - mean["Spikeformer"] - (mean["MultiSp-LT"] - mean["Transformer"])
    assert above.differences["Reward 2: MultiSp-SLT loses less than MultiSp-LT"].mean == expected
    assert within.claims["Spikeformer no worse than Transformer"].n == 2


def test_an_unknown_row_is_refused():
    with pytest.raises(ValueError, match="no row 'Spikformer'.*Spikeformer"):
        row("Spikformer")


def test_the_papers_numbers_are_shown_on_their_data_only():
    assert table2.paper("fashion") is None and table2.paper("fashion-dvs") is None
    assert table2.paper("cifar10")["MultiSp-SLT"] == 90.21 and table2.paper("cifar10")["Spikeformer-CPS"] == 81.21
    assert set(table2.paper("cifar10-dvs")) <= set(table2.rows()) and "MultiSp-LT" not in table2.paper("cifar10-dvs")

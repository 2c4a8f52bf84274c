"""Keys: pinned, so that a stored result is never lost to, nor mixed up by, a change of code."""

import dataclasses
import functools
import importlib
import re

import pytest

from sltlib import registry, rules
from sltlib.experiment import FIELDS, NUMERICS, Experiment
from sltlib.registry import SEARCHES

TICKET = Experiment("fashion", search="edge-popup", sparsity=0.5)
SPIKFORMER = Experiment("fashion", model="spikformer")
CONVPEP = SPIKFORMER.replace(model="convpep", search="edge-popup", sparsity=0.5, weights="binary")
PINNED = {
    'Experiment("fashion")': '5be22cde6ec29766a15f',
    'Experiment("fashion", seed=1)': '8fa885aa8420906457d2',
    'Experiment("fashion", neuron="relu")': 'c1294ba3cf3b84abb915',
    'Experiment("fashion", neuron="sign", weights="binary")': '0421d728f142118c405b',
    'Experiment("fashion", weights="binary")': '3e534ef315bb8fe5bbbb',
    'Experiment("fashion", model="linear")': 'b151bd818fdc91dd5370',
    'Experiment("fashion", model="conv2", width=0.5, image_size=14, epochs=2)': '6328c73f50904e487dcb',
    'Experiment("cifar10", model="conv6", augment="crop-flip", optimizer="sgd", weight_decay=1e-4)': 'e63e5ffc45ffb2fb5e9e',
    'Experiment("cifar10", model="resnet19", affine=True)': '8a5dbb4975eb9260c974',
    'Experiment("fashion", timesteps=8, beta=0.4, reset="subtract", surrogate="triangle", threshold=2.0)': 'cbd537b634c2334fb6c7',
    'Experiment("fashion", loss="per-step", schedule="constant", batch_size=100, lr=0.003, train_images=1000)': 'be22eac93b4a54668dd7',
    'TICKET': 'fd9def6b125053576ffa',
    'TICKET.replace(weights="binary", sparsity=0.95)': 'd157dedf8561c4541e04',
    'TICKET.replace(search="random-readout")': '3692f7835f88bfd5a598',
    'TICKET.replace(search="random-trained", neuron="relu")': '16821009fd18ccb42552',
    'TICKET.replace(search="found-mask-trained", source=TICKET, seed=3)': 'f7c14daa9200cd39694a',
    'SPIKFORMER.replace(neuron="gelu", stem_neuron="sign")': '985b800277ef8335e570',
    'SPIKFORMER.replace(source=CONVPEP, selector="random", patch_sparsity=0.3)': '52e72357705396930eda',
    'Experiment("fashion-dvs", neuron="relu", timesteps=6)': '0a7bbc693ebf89ca74a3',
    'Experiment("dvs128-gesture", binning="time", timesteps=16)': 'e013ffbfe1419d6a42fd',
}


@pytest.mark.parametrize("text", PINNED)
def test_pinned_keys(text):
    assert NUMERICS == 1, "pin the keys of the new NUMERICS"
    assert eval(text).key == PINNED[text]


def test_pinned_keys_differ():
    assert len(set(PINNED.values())) == len(PINNED) >= 15


def test_every_field_is_in_the_key():
    base = Experiment("fashion", search="random-trained", sparsity=0.5, optimizer="sgd")
    other = dict(
        dataset="cifar10", model="conv2", width=0.5, image_size=14, train_images=100, neuron="relu", weights="binary",
        search="random-readout", sparsity=0.8, timesteps=2, beta=0.5, threshold=2.0, reset="subtract",
        surrogate="sigmoid", affine=True, loss="per-step", epochs=3, batch_size=10, optimizer="adam", lr=0.2,
        momentum=0.5, weight_decay=0.1, schedule="constant", augment="crop", seed=1,
        precision="bfloat16", search_timesteps=1, logit_scale=4.0,
    )  # fmt: skip
    transformer = dict(
        depth=2, heads=4, stem_pools=1, stem_neuron="sign", patch_sparsity=0.3, selector="rate",
    )  # fmt: skip
    pruned = {"stop_epoch", "rewind_epoch", "looks"}  # tests/test_standard.py
    assert set(other) | {"source", "ranking", "binning", "penalty", *transformer, *pruned} == {f.name for f in dataclasses.fields(Experiment)}
    keys = {base.replace(**{name: value}).key for name, value in other.items()} | {base.key}
    assert len(keys) == len(other) + 1
    for changes in ({name: transformer[name]} for name in ("depth", "heads", "stem_pools", "stem_neuron")):
        assert SPIKFORMER.replace(**changes).key != SPIKFORMER.key
    kept = SPIKFORMER.replace(source=CONVPEP, selector="rate", patch_sparsity=0.3)
    others = [dict(patch_sparsity=0.4), dict(selector="random"), dict(source=CONVPEP.replace(seed=1))]
    assert len({kept.key, *(kept.replace(**changes).key for changes in others)}) == 4
    assert TICKET.replace(ranking="global").key != TICKET.key
    gates = TICKET.replace(search="bernoulli")
    assert gates.replace(penalty=2.0).key != gates.key and TICKET.replace(penalty=2.0).key == TICKET.key
    events = TICKET.replace(dataset="fashion-dvs")
    assert events.replace(binning="time").key != events.key
    found = base.replace(search="found-mask-trained", source=TICKET)
    assert found.key != base.replace(search="found-mask-trained", source=TICKET.replace(seed=1)).key


def test_what_a_training_does_not_read_is_not_in_its_key():
    relu = Experiment("fashion", neuron="relu")
    assert relu.replace(timesteps=8, beta=0.2, reset="subtract").key == relu.key
    frames = Experiment("fashion-dvs", neuron="relu")
    assert frames.replace(timesteps=8).key != frames.key
    assert relu.replace(binning="time").key == relu.key
    assert Experiment("fashion").replace(timesteps=8).key != Experiment("fashion").key
    linear = Experiment("fashion", model="linear")
    assert linear.replace(neuron="sign", width=0.5, momentum=0.1).key == linear.key


OF_TRANSFORMERS = dict(depth=2, heads=3, stem_pools=1, stem_neuron="sign", patch_sparsity=0.9, selector="random")


@pytest.mark.parametrize("model", [name for name in registry.MODELS if name not in registry.TRANSFORMERS])
@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_what_only_a_transformer_reads_is_refused_elsewhere(model, name):
    """A dense network with patch_sparsity=0.9 had the dense one's key, and stood in the table as if patches were removed."""
    value, default = OF_TRANSFORMERS[name], FIELDS[name].default
    says = f"{name}={value!r} with model='{model}': only model='spikformer' and 'convpep' have patches and blocks; leave it {default!r}"
    with pytest.raises(ValueError, match=re.escape(says)):
        Experiment("fashion", model=model, **{name: value})
    assert Experiment("fashion", model=model, **{name: default}) == Experiment("fashion", model=model)


def test_those_are_all_fields_that_other_networks_do_not_read():
    """Of what each switch leaves unread in turn: no field that a conv2 or a linear classifier reads whatever else is chosen."""
    every = [Experiment("fashion-dvs", model="conv2", neuron="lif", search="bernoulli", sparsity=0.5, optimizer="sgd"),
             Experiment("fashion", model="conv2", search="early-bird", sparsity=0.5),
             Experiment("fashion", model="conv2", search="magnitude", sparsity=0.5, source=Experiment("fashion", model="conv2"))]  # fmt: skip
    unread = [name for name, f in FIELDS.items() if (read := f.metadata["read"]) and not any(read(e) for e in every)]
    assert unread == list(OF_TRANSFORMERS) == list(rules.OF_TOKENS)


def test_an_added_model_may_read_what_transformers_do(monkeypatch):
    def mine(experiment, channels, size, classes):
        return experiment.depth

    monkeypatch.setitem(registry.MODELS, "mine", mine)
    own = Experiment("fashion", model="mine", depth=2, patch_sparsity=0.5)
    assert own.key != own.replace(depth=3).key and Experiment.from_spec(own.spec()) == own


def test_what_an_older_version_stored_with_such_fields_is_read_as_what_it_trained():
    dense = Experiment("fashion", model="conv2")
    assert Experiment.from_spec(dense.spec() | OF_TRANSFORMERS) == dense
    found = dense.replace(search="found-mask-trained", sparsity=0.5, source=dense.replace(search="edge-popup", sparsity=0.5))
    spec = found.spec()
    spec["source"] |= OF_TRANSFORMERS
    assert Experiment.from_spec(spec) == found
    assert Experiment.from_spec(SPIKFORMER.spec()) == SPIKFORMER != Experiment.from_spec(SPIKFORMER.spec() | {"depth": 9})


def test_a_convpep_does_not_read_a_spikformers_blocks_and_same_is_what_it_means():
    assert SPIKFORMER.replace(stem_neuron="lif").key == SPIKFORMER.key
    assert CONVPEP.replace(depth=1, heads=1).key == CONVPEP.key
    assert CONVPEP.replace(stem_pools=1).key != CONVPEP.key
    probe = CONVPEP.replace(search="none", sparsity=0.0, source=CONVPEP)
    assert probe.key == probe.replace(weights="float").key  # nothing of its own but the head
    twin = SPIKFORMER.replace(neuron="gelu")
    assert twin.replace(timesteps=8, beta=0.1).key == twin.key
    spiking_stem = twin.replace(stem_neuron="lif")
    assert spiking_stem.replace(timesteps=8).key != spiking_stem.key


def test_spec_round_trip():
    found = TICKET.replace(search="found-mask-trained", source=TICKET, lr=0.01)
    assert Experiment.from_spec(found.spec()) == found
    with pytest.raises(ValueError, match="no sparsty"):
        Experiment.from_spec({"dataset": "fashion", "sparsty": 0.5})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (dict(sparsity=1.0, search="edge-popup"), "below 1"),
        (dict(sparsity=0.5), "needs a search"),
        (dict(search="edge-popup"), "needs a sparsity"),
        (dict(seed=True), "bool"),
        (dict(seed=-1), "0 to"),
        (dict(lr=float("nan")), "finite"),
        (dict(neuron="lfi"), "relu, sign, lif"),
        (dict(search="edge-popup", sparsity=0.5, affine=True), "affine"),
        (dict(search="found-mask-trained", sparsity=0.5), "source"),
        (dict(search="random-trained", sparsity=0.5, ranking="global"), "edge-popup"),
        (dict(search="found-mask-trained", sparsity=0.8, source=TICKET), "sparsity=0.5"),
        (dict(model="linear", weights="binary"), "linear"),
    ],
)
def test_wrong_values_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        Experiment("fashion", **wrong)


def test_all_problems_are_named_at_once():
    with pytest.raises(ValueError) as error:
        Experiment("fashion", sparsity=1, model="vgg", epochs=0, lr="fast")
    assert all(name in str(error.value) for name in ("sparsity", "model", "epochs", "lr"))


def test_seed_zero_is_a_seed():
    assert TICKET.seed == 0 and TICKET.replace(seed=1).key != TICKET.key


def test_your_own_search_is_named_by_its_source(monkeypatch):
    def mine(model, experiment, data, found):
        return 1

    monkeypatch.setitem(SEARCHES, "mine", mine)
    first = Experiment("fashion", search="mine", sparsity=0.5).key

    def mine(model, experiment, data, found):
        return 2

    monkeypatch.setitem(SEARCHES, "mine", mine)
    assert Experiment("fashion", search="mine", sparsity=0.5).key != first


OWN = """
class Helper:
    def forward(self, x):
        return {sign}x

def mine(experiment):
    return Helper()
"""


def own_key(tmp_path, monkeypatch, sign="", spikes=False, name="mine", **fields):
    from sltlib.registry import NEURONS, SPIKING

    path = tmp_path / f"own_{len(list(tmp_path.iterdir()))}.py"
    path.write_text(OWN.format(sign=sign))
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    monkeypatch.setitem(NEURONS, name, importlib.import_module(path.stem).mine)
    (SPIKING.add if spikes else SPIKING.discard)("mine")
    try:
        return Experiment("fashion", neuron=name, **fields).key
    finally:
        SPIKING.discard("mine")


def test_the_key_of_your_own_neuron_sees_all_that_it_is_made_of(tmp_path, monkeypatch):
    keys = [
        Experiment("fashion").key,
        own_key(tmp_path, monkeypatch),
        own_key(tmp_path, monkeypatch, sign="-"),  # in a class that the function only names
        own_key(tmp_path, monkeypatch, spikes=True),
        own_key(tmp_path, monkeypatch, beta=0.5),  # it may read what a relu does not
        own_key(tmp_path, monkeypatch, name="lif"),  # under the name of ours
    ]
    assert len(set(keys)) == len(keys)
    assert own_key(tmp_path, monkeypatch) == keys[1]


def test_what_has_no_source_is_refused_by_name(monkeypatch):
    monkeypatch.setitem(SEARCHES, "mine", functools.partial(print))
    with pytest.raises(ValueError, match="search 'mine'.*partial cannot be hashed"):
        Experiment("fashion", search="mine", sparsity=0.5).key  # noqa: B018

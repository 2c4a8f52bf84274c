"""The training loop: golden numbers, determinism, resume after a kill, and honest measures."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from sltlib import layers, models, train
from sltlib.data import load_data
from sltlib.experiment import Experiment
from sltlib.engine import work
from sltlib.engine.checkpoints import path_of
from sltlib.pruning import prepare
from sltlib.engine.store import Store
from sltlib.ticket import Ticket

TINY = Experiment("fashion", model="conv2", width=0.1, image_size=8, train_images=600, epochs=2, batch_size=50, lr=0.01)
TICKET = TINY.replace(search="edge-popup", sparsity=0.5, weights="binary")

# The training loss after one epoch at NUMERICS 1. A change that moves these must raise NUMERICS, so that no
# stored result is taken for one of the new code. The tolerance is for other processors, whose rounding
# flips a spike here and there, not for other maths.
GOLDEN = {
    "dense lif": 2.05722,
    "dense relu binary": 2.24042,
    "dense sign sgd": 2.24575,
    "edge-popup lif": 2.16766,
    "multi-prize lif": 2.13750,
    "multi-prize sign": 2.24015,
    "random-readout": 2.38073,
    "random-trained": 2.26777,
    "soft reset, triangle, per-step": 2.12061,
    "affine, crop-flip": 2.21210,
    "linear": 2.29382,
}


def golden(name):
    kinds = {
        "dense lif": TINY,
        "dense relu binary": TINY.replace(neuron="relu", weights="binary"),
        "dense sign sgd": TINY.replace(neuron="sign", optimizer="sgd", weight_decay=1e-3, lr=0.1),
        "edge-popup lif": TICKET.replace(weights="float"),
        "multi-prize lif": TICKET,
        "multi-prize sign": TICKET.replace(neuron="sign"),
        "random-readout": TICKET.replace(search="random-readout", weights="float"),
        "random-trained": TICKET.replace(search="random-trained"),
        "soft reset, triangle, per-step": TINY.replace(reset="subtract", surrogate="triangle", loss="per-step", beta=0.7),
        "affine, crop-flip": TINY.replace(affine=True, augment="crop-flip", schedule="constant"),
        "linear": TINY.replace(model="linear"),
    }
    return kinds[name]


def loss_after(experiment):
    experiment = experiment.replace(epochs=1)
    data = load_data(experiment.dataset, experiment.image_size, experiment.train_images)
    model = prepare(models.build_model(experiment), experiment, data)
    torch.set_num_threads(1)
    return train.fit(model, data, experiment)[0][-1]["train_loss"]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_numbers(name):
    assert loss_after(golden(name)) == pytest.approx(GOLDEN[name], rel=6e-3)


def files_of(result):
    skip = ("provenance.json", "manifest.json")  # these hold times
    return {p.name: p.read_bytes() for p in result.path.iterdir() if p.name not in skip}


def test_the_same_experiment_gives_the_same_bits(tmp_path):
    first, second = (work.train(TICKET, Store(tmp_path / name)) for name in "ab")
    assert files_of(first) == files_of(second)
    assert files_of(first) != files_of(work.train(TICKET.replace(seed=1), Store(tmp_path / "a")))


@pytest.mark.parametrize("experiment", [TICKET, TINY.replace(optimizer="sgd", augment="crop-flip")], ids=["adam", "sgd"])
def test_killed_run_resumes_bit_identically(tmp_path, experiment):
    """kill -9 right after a checkpoint in mid-epoch, once in each epoch; the result has the same bytes."""
    whole = work.train(experiment, Store(tmp_path / "whole"))
    code = f"""
import json, os, signal
from sltlib.engine import work
from sltlib.engine.checkpoints import Checkpoint
from sltlib.experiment import Experiment
from sltlib.engine.store import Store
save = Checkpoint.save
def save_then_die(self, step, *state):
    save(self, step, *state)
    if step in (5, 17):
        os.kill(os.getpid(), signal.SIGKILL)
Checkpoint.save = save_then_die
result = work.train(Experiment.from_spec(json.loads({json.dumps(json.dumps(experiment.spec()))})), Store({str(tmp_path / "killed")!r}))
print("resumed at", result.provenance["resumed"])
"""
    env = os.environ | {"SLT_CHECKPOINT_S": "0"}
    for expected in (-signal.SIGKILL, -signal.SIGKILL, 0):
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == expected, done.stderr[-2000:]
    assert "resumed at 17" in done.stdout
    store = Store(tmp_path / "killed")
    assert files_of(store.get(experiment)) == files_of(whole)
    assert not path_of(store.root, experiment.key).exists()


def test_stored_result_is_not_trained_again(tmp_path, monkeypatch):
    store = Store(tmp_path)
    work.train(TINY, store)
    monkeypatch.setattr(train, "fit", lambda *a, **k: pytest.fail("trained again"))
    assert work.train(TINY, store).key == TINY.key


def test_result_tells_what_a_reader_needs(tmp_path):
    result = work.train(TICKET, Store(tmp_path))
    data, ticket = load_data("fashion", 8, 600), result.ticket()
    model = ticket.apply(models.build_model(TICKET))
    assert train.accuracy(model, data, data.test) == result.metrics["test_accuracy"]
    assert train.accuracy(model, data, data.val) == result.metrics["val_accuracy"]
    assert result.metrics["kept"] == ticket.kept and result.metrics["density"] == pytest.approx(0.5, abs=0.01)
    rates = result.metrics["rate_by_layer"]
    assert list(rates) == sorted(models.neurons(model)) and all(0 < r < 1 for r in rates.values())
    assert [line["epoch"] for line in result.history] == [0, 1]
    assert {"device", "versions", "source", "numerics", "compiled", "seconds"} <= set(result.provenance)


def test_firing_rate_is_counted_from_the_spikes_of_the_test_split(tmp_path):
    result = work.train(TICKET, Store(tmp_path))
    model, data = result.ticket().apply(models.build_model(TICKET)), load_data("fashion", 8, 600)
    spikes = []
    models.neurons(model)["blocks.1"].register_forward_hook(lambda m, i, o: spikes.append(o))
    with torch.no_grad():
        model(data.batch(data.test.x, torch.arange(2000)))
    assert result.metrics["rate_by_layer"]["blocks.1"] == pytest.approx(float(spikes[0].mean()), abs=1e-4)


def test_found_mask_control_takes_the_mask_of_its_source(tmp_path):
    store = Store(tmp_path)
    control = TINY.replace(search="found-mask-trained", sparsity=0.5, weights="binary", source=TICKET)
    result = work.train(control, store)  # trains the source first
    source = store.get(TICKET).ticket()
    for name, mask in result.ticket().masks().items():
        assert torch.equal(mask, source.masks()[name])


def test_masks_of_a_stored_ticket_are_exact(tmp_path):
    for sparsity in (0.3, 0.95):
        ticket = work.train(TICKET.replace(sparsity=sparsity), Store(tmp_path)).ticket()
        for layer in ticket.layers.values():
            assert layer.kept.size == layers.keep_count(layer.mask.size, sparsity)


def test_a_loss_that_is_not_finite_stops_with_its_cause(tmp_path):
    broken = TINY.replace(model="linear", lr=1e38, optimizer="sgd", schedule="constant")
    store = Store(tmp_path)
    with pytest.raises(RuntimeError, match="lower lr"):
        work.train(broken, store)
    assert store.get(broken) is None and store.keys() == []


def test_cosine_ends_at_zero_and_constant_stays():
    assert train.learning_rate(TINY, 0, 10) == 0.01
    assert train.learning_rate(TINY, 10, 10) == pytest.approx(0, abs=1e-12)
    assert train.learning_rate(TINY.replace(schedule="constant"), 9, 10) == 0.01


def test_per_step_loss_is_the_mean_of_every_steps_cross_entropy():
    model, x, y = models.build_model(TINY).eval(), torch.randn(4, 1, 8, 8), torch.tensor([1, 2, 3, 4])
    logits = model.steps(x)
    expected = torch.stack([torch.nn.functional.cross_entropy(step, y) for step in logits]).mean()
    torch.testing.assert_close(train.loss_of(model, x, y, "per-step"), expected)
    mean = torch.nn.functional.cross_entropy(logits.mean(0), y)
    torch.testing.assert_close(train.loss_of(model, x, y), mean)


def test_training_computes_on_one_thread_and_gives_them_back(tmp_path):
    torch.set_num_threads(2)
    result = work.train(TINY.replace(epochs=1), Store(tmp_path))
    assert result.provenance["threads"] == 1 and torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_ticket_of_a_dense_network_is_the_network(tmp_path):
    result = work.train(TINY, Store(tmp_path))
    ticket = Ticket.load(result.ticket_path)
    assert ticket.sparsity == 0 and ticket.kept == models.count_parameters(models.build_model(TINY))


def test_a_result_keeps_what_it_says_of_every_test_image(tmp_path):
    """Its predictions are those of its ticket; where an older result has none they are computed from it."""
    result = work.train(TICKET, Store(tmp_path))
    data = load_data("fashion", 8, 600)
    said = train.predict(result.network(), data, data.test.x).argmax(1)
    found = result.predictions()
    assert found.classes.tolist() == said.tolist() and found.right.tolist() == (said == data.test.y).tolist()
    assert found.accuracy == result.metrics["test_accuracy"]
    (result.path / "predictions.safetensors").unlink()
    again = result.predictions()
    assert again.classes.tolist() == said.tolist() and again.labels == found.labels

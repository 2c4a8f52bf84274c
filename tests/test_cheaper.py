"""The options of a search that cost less: fewer steps backward, fewer steps at first, half the precision."""

import pytest
import torch

from sltlib import models, train
from sltlib.data import load_data
from sltlib.experiment import Experiment
from sltlib.models import build_model
from sltlib.pruning import prepare
from sltlib.engine import work
from sltlib.engine.checkpoints import Checkpoint
from sltlib.engine.queue import cost
from sltlib.engine.store import Store

MODELS = {
    "conv2": dict(model="conv2", width=0.1, image_size=8),
    "resnet19": dict(model="resnet19", width=0.07, image_size=8),
    "spikformer": dict(model="spikformer", width=0.0834, heads=4, depth=1, image_size=8, affine=True),
    "convpep": dict(model="convpep", width=0.0834, image_size=8),
}
TICKET = dict(search="edge-popup", weights="binary", sparsity=0.5, affine=False)


def small(model="conv2", **fields):
    return Experiment("fashion", **(dict(MODELS[model], lr=0.01, epochs=2, batch_size=50, train_images=200) | fields))


def batch(size=8, seed=0):
    return torch.rand(12, 1, size, size, generator=torch.Generator().manual_seed(seed)), torch.arange(12) % 10


def test_a_cheaper_search_is_another():
    assert small(search_timesteps=1).key != small().key
    assert small(precision="bfloat16").key != small().key


def test_early_time_runs_few_steps_until_the_last_epoch(monkeypatch):
    experiment, seen = small(search_timesteps=1, epochs=3), []
    model = prepare(build_model(experiment), experiment)
    data = load_data("fashion", 8, 200)
    step = train.loss_of
    monkeypatch.setattr(train, "loss_of", lambda model, *rest: seen.append(model.timesteps) or step(model, *rest))
    train.fit(model, data, experiment)
    assert seen == [1] * 8 + [4] * 4 and model.timesteps == 4


def test_early_time_resumes_at_the_right_number_of_steps(tmp_path, monkeypatch):
    experiment = small(search_timesteps=1, precision="bfloat16", **TICKET)
    whole = work.train(experiment, Store(tmp_path / "a"))

    class Stop(Exception):
        pass

    save = Checkpoint.save

    def stop(self, step, *rest):
        save(self, step, *rest)
        if step == 5:  # in the second, last, epoch
            raise Stop

    store = Store(tmp_path / "b")
    monkeypatch.setenv("SLT_CHECKPOINT_S", "0")
    monkeypatch.setattr(Checkpoint, "save", stop)
    with pytest.raises(Stop):
        work.train(experiment, store)
    monkeypatch.setattr(Checkpoint, "save", save)
    again = work.train(experiment, store)
    assert again.provenance["resumed"] == 5
    assert again.metrics == whole.metrics and again.ticket().masks().keys() == whole.ticket().masks().keys()
    assert all((again.ticket().masks()[k] == v).all() for k, v in whole.ticket().masks().items())


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_keeps_weights_membranes_and_logits_in_float32(name):
    spikes, (x, y) = {}, batch()
    for precision in ("bfloat16", "float32"):
        model, found = build_model(small(name, precision=precision)), spikes.setdefault(precision, [])
        for neuron in models.neurons(model).values():
            neuron.register_forward_hook(lambda m, i, o, found=found: found.append(o.detach()))
        logits = model(x)
        assert logits.dtype == torch.float32
        if precision == "bfloat16":
            half = model
    assert {s.dtype for s in spikes["bfloat16"]} == {torch.bfloat16}
    # Currents are rounded to 8 bits: of the first neurons few cross the threshold because of that.
    flipped = (spikes["bfloat16"][0] != spikes["float32"][0]).float().mean()
    assert 0 < flipped < 0.01
    train.loss_of(half, x, y).backward()
    for key, p in half.named_parameters():
        assert p.dtype == torch.float32 and p.grad.dtype == torch.float32, key
    for key, b in half.named_buffers():
        assert b.dtype != torch.bfloat16, key


def test_options_that_contradict_are_refused():
    with pytest.raises(ValueError, match="search_timesteps=4: give fewer than timesteps=4"):
        small(search_timesteps=4)
    with pytest.raises(ValueError, match="search_timesteps=1 needs 2 epochs"):
        small(search_timesteps=1, epochs=1)
    with pytest.raises(ValueError, match="its frames; it goes with static images"):
        Experiment("fashion-dvs", search_timesteps=1)
    with pytest.raises(ValueError, match="precision='half': choose from float32, bfloat16"):
        small(precision="half")
    pep = Experiment("fashion", model="convpep", **TICKET)
    with pytest.raises(ValueError, match="a frozen ConvPEP gives its tokens for all timesteps"):
        Experiment("fashion", model="spikformer", source=pep, search_timesteps=1)


def test_the_time_left_knows_what_is_cheaper():
    exact = cost(small())
    assert cost(small(search_timesteps=1)) < exact

"""A step as a graph equals the eager step, bit by bit; the capture itself wants a GPU, its bookkeeping does not."""

import pytest
import torch

from sltlib import graphs, layers, train
from sltlib.data import load_data
from sltlib.experiment import Experiment
from sltlib.models import build_model
from sltlib.pruning import prepare
from sltlib.engine.store import Store

EXPERIMENT = Experiment(
    "fashion", model="conv2", width=0.1, image_size=8, train_images=200, epochs=3, batch_size=50, lr=0.01,
    search="edge-popup", weights="binary", sparsity=0.5, timesteps=3,
)  # fmt: skip


class Capture:
    """As CUDA captures: warms up by running, then repeats. Counts both."""

    def __init__(self):
        self.captures = self.replays = 0

    def __call__(self, function):
        self.captures += 1
        for _ in range(graphs.WARM_UP):
            function()

        def replay():
            self.replays += 1
            function()

        return replay


@pytest.fixture
def graphed(monkeypatch):
    capture = Capture()
    monkeypatch.setattr(graphs, "stepper", lambda *args: graphs.Graph(*args, capture=capture))
    return capture


def trained(experiment, tmp_path=None, name="a"):
    if tmp_path:
        return train.train(experiment, Store(tmp_path / name)).metrics
    model = prepare(build_model(experiment), experiment)
    history, _ = train.fit(model, load_data("fashion", 8, 200), experiment)
    return history, model.state_dict()


@pytest.mark.parametrize("changes", [{}, dict(search_timesteps=1), dict(search="none", weights="float", sparsity=0.0)])
def test_a_graphed_training_equals_the_eager_one(changes, graphed, monkeypatch):
    experiment = EXPERIMENT.replace(**changes)
    history, state = trained(experiment)
    assert graphed.captures == (2 if "search_timesteps" in changes else 1) and graphed.replays == 12
    monkeypatch.undo()
    eager_history, eager_state = trained(experiment)
    assert history == eager_history
    assert all(torch.equal(state[name], value) for name, value in eager_state.items())


def test_a_resumed_training_goes_on_as_a_graph(graphed, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    save = train._Checkpoints.save

    def stop(self, step, *rest):
        save(self, step, *rest)
        if step == 6:
            raise Stop

    monkeypatch.setenv("SLT_CHECKPOINT_S", "0")
    monkeypatch.setattr(train._Checkpoints, "save", stop)
    with pytest.raises(Stop):
        trained(EXPERIMENT, tmp_path)
    monkeypatch.setattr(train._Checkpoints, "save", save)
    resumed = trained(EXPERIMENT, tmp_path)
    monkeypatch.undo()
    assert resumed == trained(EXPERIMENT, tmp_path, "eager")


def test_without_a_gpu_steps_are_eager(monkeypatch):
    monkeypatch.setenv("SLT_CUDA_GRAPHS", "1")
    model = build_model(EXPERIMENT)
    assert type(graphs.stepper(None, train.make_optimizer(model, EXPERIMENT), model)) is graphs.Eager


@pytest.mark.parametrize("ties", [False, True])
def test_the_mask_that_a_gpu_sorts_is_the_same(ties):
    scores = torch.rand(5000, generator=torch.Generator().manual_seed(1))
    scores = (scores * 20).floor() if ties else scores
    for sparsity in (0.1, 0.5, 0.97):
        keep = layers.keep_count(5000, sparsity)
        assert torch.equal(layers._sorted_top_k(scores, keep), layers.top_k(scores, sparsity))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a GPU")
def test_a_real_graph_equals_the_eager_step(monkeypatch):
    results = []
    for graphs_on in ("0", "1"):
        monkeypatch.setenv("SLT_CUDA_GRAPHS", graphs_on)
        model = prepare(build_model(EXPERIMENT), EXPERIMENT).cuda()
        history, _ = train.fit(model, load_data("fashion", 8, 200, "cuda"), EXPERIMENT)
        results.append(history[-1]["train_loss"])
    assert results[0] == pytest.approx(results[1], rel=1e-3)

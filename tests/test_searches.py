"""The searches beside edge-popup, what they rank by, and the scale of the logits: against cases worked out by hand."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch

from sltlib import layers, models, pruning, train
from sltlib.data import load_data
from sltlib.experiment import Experiment

TICKET = Experiment(
    "fashion", model="conv2", width=0.1, image_size=8, train_images=200, epochs=1, batch_size=50, lr=0.05,
    search="edge-popup", sparsity=0.8,
)  # fmt: skip
GATES = TICKET.replace(search="bernoulli")


def prepared(experiment):
    return pruning.prepare(models.build_model(experiment), experiment)


# --- the scale of the logits


@pytest.mark.parametrize("kind", ["mean", "per-step"])
def test_the_loss_is_that_of_the_scaled_logits_and_so_is_its_gradient(kind):
    model, y = models.build_model(TICKET.replace(search="none", sparsity=0.0)).eval(), torch.arange(12) % 10
    x = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.head.weight.mul_(5)  # so that the scale matters
    logits = (model(x) if kind == "mean" else model.steps(x).flatten(0, 1)).detach().requires_grad_()
    expected = torch.nn.functional.cross_entropy(4 * logits, y if kind == "mean" else y.repeat(4))
    torch.testing.assert_close(train.loss_of(model, x, y, kind, 4.0), expected)
    (grad,) = torch.autograd.grad(expected, logits)
    model.head.zero_grad()
    train.loss_of(model, x, y, kind, 4.0).backward()
    inputs = {}
    model.head.register_forward_hook(lambda m, i, o: inputs.update(x=i[0].detach()))
    model(x)
    summed = grad / (4 if kind == "mean" else 1)  # the mean over four steps hands each of them a quarter
    summed = summed.repeat(4, 1) if kind == "mean" else summed
    torch.testing.assert_close(model.head.weight.grad, summed.T @ inputs["x"])


def test_predictions_do_not_depend_on_the_scale():
    x = torch.rand(5, 1, 8, 8)
    one, four = (prepared(TICKET.replace(logit_scale=scale)).eval() for scale in (1.0, 4.0))
    assert torch.equal(one(x), four(x))


def test_a_training_at_another_scale_is_another_training():
    data = load_data("fashion", 8, 200)
    losses = [train.fit(prepared(e), data, e)[0][-1]["train_loss"] for e in (TICKET, TICKET.replace(logit_scale=4.0))]
    assert losses[0] != losses[1]


# --- what is ranked


def test_scaled_ranking_undoes_the_fan_in():
    """Fresh scores are uniform in +-1/sqrt(fan-in): raw ranking keeps more of a small fan-in, scaled an equal share."""
    kept = {}
    for ranking in ("global", "scaled"):
        model = prepared(TICKET.replace(ranking=ranking, width=0.5))
        masks = {name: layer.current_mask() for name, layer in layers.prunable(model).items()}
        total = sum(mask.numel() for mask in masks.values())
        assert sum(int(mask.sum()) for mask in masks.values()) == layers.keep_count(total, 0.8)
        kept[ranking] = {name: float(mask.float().mean()) for name, mask in masks.items()}
    assert kept["global"]["blocks.0.layer"] > 0.8  # fan-in 9 beside hundreds
    assert all(share == pytest.approx(0.2, abs=0.05) for name, share in kept["scaled"].items() if name != "blocks.0.layer")
    assert kept["scaled"]["blocks.0.layer"] < 0.35


def test_erdos_renyi_shares_by_hand():
    """Two layers of equal density factor share alike; the small one is capped at dense, and the rest goes to others."""
    assert layers.shares([(10, 10), (10, 10)], 0.5) == pytest.approx([0.5, 0.5])
    # density ~ (m + n) / (m n): 20/100 and 110/1000, so 20 : 11 for sizes 100 and 1000; 220 kept in all
    scale = 220 / (20 + 110)
    assert layers.shares([(10, 10), (10, 100)], 0.8) == pytest.approx([1 - min(1, scale * 0.2), 1 - scale * 0.11])
    dense, rest = layers.shares([(2, 2), (100, 100)], 0.5)
    assert dense == 0 and 4 + (1 - rest) * 10_000 == pytest.approx(5002)


@pytest.mark.parametrize("sparsity", [0.5, 0.95])
def test_erdos_renyi_keeps_the_wanted_count(sparsity):
    model = prepared(TICKET.replace(ranking="erdos-renyi", sparsity=sparsity))
    masks = [layer.current_mask() for layer in layers.prunable(model).values()]
    total = sum(mask.numel() for mask in masks)
    assert abs(sum(int(mask.sum()) for mask in masks) - layers.keep_count(total, sparsity)) <= len(masks)


@pytest.mark.parametrize("ranking", ["global", "scaled"])
def test_a_ranking_sees_scores_that_were_put_in_behind_its_back(ranking):
    """vector_to_parameters replaces `.data`, which no version counter sees."""
    model = prepared(TICKET.replace(ranking=ranking)).eval()
    x, found = torch.rand(3, 1, 8, 8), list(layers.prunable(model).values())
    model(x)
    scores = [layer.scores for layer in found]
    vector = torch.nn.utils.parameters_to_vector(scores)
    torch.nn.utils.vector_to_parameters(vector.flip(0), scores)
    model(x)
    factors = [layer.weight[0].numel() ** 0.5 if ranking == "scaled" else 1 for layer in found]
    expected = layers.global_top_k([s.detach().abs() * f for s, f in zip(scores, factors, strict=True)], 0.8)
    for layer, mask in zip(found, expected, strict=True):
        assert torch.equal(layer.current_mask(), mask)
        with torch.no_grad():
            layer.scores.data.copy_(layer.scores.data)  # an edit in place, uncounted


# --- gates


def test_gates_start_open_with_the_wanted_chance_and_end_at_the_exact_count():
    model = prepared(GATES)
    for layer in layers.prunable(model).values():
        assert float(layer.open_gates().detach()) / layer.scores.numel() == pytest.approx(0.2, rel=1e-4)
        assert not layer.weight.requires_grad and layer.scores.requires_grad
    data = load_data("fashion", 8, 200)
    train.fit(model, data, GATES)
    for layer in layers.prunable(model).values():
        mask = layer.current_mask()
        assert int(mask.sum()) == layers.keep_count(mask.numel(), 0.8)
        lowest = layer.scores.detach()[mask].min()
        assert not (layer.scores.detach()[~mask] > lowest).any()


def test_the_gradient_of_a_gate_is_that_of_the_clamp():
    layer = layers.Linear(3, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2.0, -3.0, 5.0]]))
    layer.gate(0.5, 0.5)
    with torch.no_grad():
        layer.scores.copy_(torch.tensor([[0.4, 0.9, -0.2]]))
    layer.noise = torch.tensor([[0.1, 0.3, 0.1]])  # z = .5, 1 (clamped), 0 (clamped)
    out = layer(torch.tensor([[1.0, 1.0, 1.0]]))
    assert out.item() == pytest.approx(2 * 0.5 - 3 * 1 + 0)
    out.sum().backward()
    assert layer.scores.grad.tolist() == [[2.0, 0.0, 0.0]]
    layer.binary = True  # gain = (2 * .5 + 3 * 1) / 1.5
    assert layer(torch.tensor([[1.0, 1.0, 1.0]])).item() == pytest.approx(4 / 1.5 * (0.5 - 1))


def test_the_penalty_is_the_distance_from_the_wanted_density():
    model = prepared(GATES.replace(penalty=3.0))
    assert float(pruning.regularizer(model, GATES.replace(penalty=3.0)).detach()) == pytest.approx(0, abs=0.05)  # rounding of k
    with torch.no_grad():
        for layer in layers.prunable(model).values():
            layer.scores.fill_(0.0)  # a chance of one half, where a fifth is wanted
    wanted = 3.0 * np.mean([
        abs(0.5 * layer.scores.numel() / layers.keep_count(layer.scores.numel(), 0.8) - 1)
        for layer in layers.prunable(model).values()
    ])  # fmt: skip
    assert float(pruning.regularizer(model, GATES.replace(penalty=3.0)).detach()) == pytest.approx(wanted, rel=1e-5)
    assert pruning.regularizer(model, TICKET) == 0 == pruning.regularizer(model, GATES.replace(penalty=0.0))


def test_noise_is_drawn_by_the_step_and_gone_in_the_end():
    model, again = prepared(GATES), prepared(GATES)
    pruning.draw_noise(model, GATES, 7)
    pruning.draw_noise(again, GATES, 7)
    first = [layer.noise for layer in layers.prunable(model).values()]
    assert all(torch.equal(a, b.noise) for a, b in zip(first, layers.prunable(again).values(), strict=True))
    assert float(first[-1].std()) == pytest.approx(0.5, rel=0.2)
    pruning.draw_noise(again, GATES, 8)
    assert not torch.equal(first[0], next(iter(layers.prunable(again).values())).noise)
    pruning.draw_noise(model, GATES, None)
    assert all(layer.noise is None for layer in layers.prunable(model).values())


def test_a_relaxed_network_computes_with_clamped_gates_and_then_no_more():
    model, x = prepared(GATES).eval(), torch.rand(4, 1, 8, 8)
    exact = model(x)
    with torch.no_grad():
        for layer in layers.prunable(model).values():
            layer.scores.add_(0.7)  # some gates now stand between 0 and 1
    with pruning.relaxed(model):
        soft = model(x)
    assert not torch.equal(soft, model(x)) and torch.equal(exact, model(x))  # adding to all changes no rank


# --- attention fires at its threshold


def test_attention_fires_at_its_threshold_as_the_source_does():
    """Currents are multiples of 1/8: those right at one half fire (Zhou et al.'s >=), step by step and with ties."""
    experiment = Experiment(
        "fashion", model="spikformer", width=1 / 24, heads=2, depth=1, image_size=8, stem_pools=1, timesteps=3, beta=0.5
    )
    attention = models.build_model(experiment).blocks[0].attention
    currents = torch.tensor([0.25, 0.375, 0.5, 0.625, 1.0]).repeat(3, 1)[:, None]  # (T, B, 5)
    spikes, v = [], torch.zeros(1, 5)
    for i in currents:
        u = 0.5 * v + i
        spikes.append((u >= 0.5).float())
        v = u * (1 - spikes[-1])
    expected = torch.stack(spikes)
    assert torch.equal(attention.neuron(currents), expected)
    assert expected[0].tolist() == [[0, 0, 1, 1, 1]] and expected[1].tolist() == [[0, 1, 1, 1, 1]]
    strict = attention.q.neuron(2 * currents)  # everywhere else equality does not fire
    assert strict[0].tolist() == [[0, 0, 0, 1, 1]]
    assert math.isclose(float(attention.neuron.threshold), 0.5, rel_tol=1e-6)


def test_gates_take_every_share_of_a_layer():
    """Erdos-Renyi shares keep small layers whole: their gates start nearly certain, not at infinity."""
    experiment = GATES.replace(ranking="erdos-renyi", sparsity=0.3)
    model = prepared(experiment)
    shares = [layer.sparsity for layer in layers.prunable(model).values()]
    assert min(shares) == 0 and all(torch.isfinite(layer.scores).all() for layer in layers.prunable(model).values())
    assert float(pruning.regularizer(model, experiment).detach()) == pytest.approx(0, abs=0.05)


def test_under_one_threshold_the_density_of_all_layers_is_held():
    """One layer shuts what another opens: nothing to pay together, much to pay layer by layer."""
    together, apart = GATES.replace(ranking="global", sparsity=0.5), GATES.replace(sparsity=0.5)
    model = prepared(together)
    first, *_, last = sorted(layers.prunable(model).values(), key=lambda layer: layer.scores.numel())
    with torch.no_grad():
        first.scores.fill_(5.0)  # all open: numel / 2 more than wanted
        last.scores.fill_(last.spread * NormalDist().inv_cdf(0.5 - 0.5 * first.scores.numel() / last.scores.numel()))
    assert float(pruning.regularizer(model, together).detach()) == pytest.approx(0, abs=0.01)
    assert float(pruning.regularizer(model, apart).detach()) > 0.1
    with pytest.raises(ValueError, match="give ranking='global'"):
        GATES.replace(ranking="scaled")

"""Searches find, masks are exact, frozen weights stay, and a saved ticket is the network it came from."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sltlib import layers, models, pruning
from sltlib.experiment import Experiment
from sltlib.ticket import Ticket
from sltlib.train import make_optimizer

BASE = Experiment("fashion", model="conv2", width=0.1, image_size=8)
KINDS = [
    dict(neuron=neuron, weights=weights, **how)
    for neuron in ("relu", "sign", "lif")
    for weights in ("float", "binary")
    for how in (dict(), dict(search="edge-popup", sparsity=0.7), dict(search="random-trained", sparsity=0.3))
]


def images(n=6, seed=0):
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def prepared(experiment, found=None):
    return pruning.prepare(models.build_model(experiment), experiment, None, found)


def trained(experiment, steps=3):
    """A model after a few optimiser steps on noise, in evaluation mode."""
    model = prepared(experiment)
    optimizer = make_optimizer(model, experiment.replace(lr=0.05))
    for step in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images(16, step)), torch.arange(16) % 10).backward()
        optimizer.step()
    return model.eval()


# --- masks -------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 400), st.floats(0, 0.999), st.integers(0, 10**6), st.booleans())
def test_top_k_keeps_the_exact_count_of_the_largest(size, sparsity, seed, ties):
    scores = torch.rand(size, generator=torch.Generator().manual_seed(seed))
    if ties:
        scores = (scores * 3).round()
    mask = layers.top_k(scores, sparsity)
    keep = max(1, round((1 - sparsity) * size))
    # the oracle: a stable sort, so that ties go to the lower index
    order = sorted(range(size), key=lambda i: (-scores[i].item(), i))[:keep]
    assert mask.nonzero().squeeze(1).tolist() == sorted(order)


@pytest.mark.parametrize("kind", ["uniform", "ties", "two values", "sorted", "periodic", "infinite"])
def test_the_sampled_threshold_is_exact_whatever_the_scores(kind):
    """The periodic ones have a period that the sample hits: it sees one value only, and all are looked at then."""
    size = 50_000
    values = np.random.default_rng(0).random(size, np.float32)
    values = {
        "uniform": values, "ties": np.floor(values * 50), "two values": (values > 0.3).astype(np.float32),
        "sorted": np.sort(values), "periodic": np.where(np.arange(size) % (size // 4096) == 0, np.float32(2), values),
        "infinite": np.where(values < 0.1, np.float32(np.inf), values),
    }[kind]  # fmt: skip
    ranked = np.sort(values)
    for place in (0, 1, 127, 128, 5000, size // 2, size - 130, size - 2, size - 1):
        assert layers.kth_smallest(values.copy(), place) == ranked[place]
    scores = torch.from_numpy(values)
    mask = layers.top_k(scores, 0.45)
    order = scores.sort(descending=True, stable=True).indices[: layers.keep_count(size, 0.45)]
    assert torch.equal(mask.nonzero().squeeze(1), order.sort().values)


@pytest.mark.parametrize("search", ["edge-popup", "random-trained", "random-readout"])
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.95])
def test_every_layer_keeps_its_exact_count(search, sparsity):
    model = prepared(BASE.replace(search=search, sparsity=sparsity))
    found = {name: layer.current_mask() for name, layer in layers.prunable(model).items()}
    assert len(found) == 5  # first and last are in the ticket too
    for mask in found.values():
        assert int(mask.sum()) == layers.keep_count(mask.numel(), sparsity)


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.floats(0, 0.98), st.integers(0, 10**6))
def test_global_ranking_keeps_the_exact_count_of_the_largest_and_empties_no_layer(sizes, sparsity, seed):
    random = torch.Generator().manual_seed(seed)
    scores = [torch.rand(n, generator=random) * (10 ** (i % 3)) for i, n in enumerate(sizes)]
    masks = layers.global_top_k(scores, sparsity)
    keep = max(layers.keep_count(sum(sizes), sparsity), len(sizes))
    assert sum(int(m.sum()) for m in masks) == keep and all(m.any() for m in masks)
    # the oracle: every layer's best first, then the best of the rest
    best = {(i, int(s.argmax())) for i, s in enumerate(scores)}
    rest = sorted(
        ((i, j) for i, s in enumerate(scores) for j in range(len(s)) if (i, j) not in best),
        key=lambda place: (-scores[place[0]][place[1]].item(), place),
    )
    expected = best | set(rest[: keep - len(best)])
    assert {(i, j) for i, m in enumerate(masks) for j in m.nonzero().flatten().tolist()} == expected


def test_a_global_search_ranks_anew_after_every_step_and_its_ticket_is_the_network(tmp_path):
    experiment = BASE.replace(search="edge-popup", sparsity=0.8, ranking="global", weights="binary")
    before, model = prepared(experiment), trained(experiment)
    found = {n: layer.current_mask() for n, layer in layers.prunable(model).items()}
    masks = layers.global_top_k([layer.scores.abs() for layer in layers.prunable(model).values()], 0.8)
    assert all(torch.equal(a, b) for a, b in zip(found.values(), masks, strict=True))
    assert any(not torch.equal(layer.current_mask(), found[n]) for n, layer in layers.prunable(before).items())
    densities = {float(m.float().mean().round(decimals=3)) for m in found.values()}
    assert len(densities) > 2  # layers differ: that is the point
    Ticket.from_model(model, experiment).save(tmp_path / "t")
    again = Ticket.load(tmp_path / "t").apply(models.build_model(experiment))
    assert torch.equal(again(images()), model(images()))


# --- the search --------------------------------------------------------------------------------


def toy(search_function, monkeypatch, steps=300):
    """Find the mask of a random linear teacher among frozen weights; the share of its mask that is found."""
    monkeypatch.setattr(layers._Search, "backward", staticmethod(search_function))
    random = torch.Generator().manual_seed(3)
    layer = layers.Linear(40, 3, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(3, 40, generator=random))
    teacher = pruning.random_mask((3, 40), 0.5, random)
    layer.search(0.5, random)
    optimizer = torch.optim.Adam([layer.scores], 0.02)
    for _ in range(steps):
        x = torch.randn(64, 40, generator=random)
        loss = (layer(x) - x @ (layer.weight * teacher).T).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    big = layer.weight.abs() > 0.3  # a weight near zero is in nobody's way
    return float((layer.current_mask() == teacher)[big].float().mean())


RIGHT = layers._Search.backward


def without_sign(ctx, grad):
    scores, weight = ctx.saved_tensors
    return grad * weight, None, None, None


def opposite(ctx, grad):
    return -RIGHT(ctx, grad)[0], None, None, None


def test_edge_popup_solves_a_toy_problem_and_wrong_signs_do_not(monkeypatch):
    assert toy(RIGHT, monkeypatch) > 0.97
    assert toy(opposite, monkeypatch) < 0.5
    assert toy(without_sign, monkeypatch) < 0.9


@pytest.mark.parametrize("weights", ["float", "binary"])
def test_score_gradient_is_that_of_the_papers(weights):
    """dL/dscore = dL/dw_eff * W * sign(score), for kept and pruned weights alike; the gain is not in it."""
    layer = layers.Linear(7, 4, bias=False, weights=weights)
    layer.search(0.5, torch.Generator().manual_seed(0))
    x, target = images(5).flatten(1)[:, :7], torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    (layer(x) * target).sum().backward()
    grad_weight = target.T @ x
    expected = grad_weight * layer.weight * torch.sign(layer.scores)
    torch.testing.assert_close(layer.scores.grad, expected.detach())
    assert (layer.scores.grad != 0).all()


def test_multi_prize_gain_is_the_mean_magnitude_of_what_is_kept():
    layer = layers.Linear(50, 10, bias=False, weights="binary")
    layer.search(0.8, torch.Generator().manual_seed(0))
    kept = layer.scores.abs().flatten().argsort(descending=True)[:100]
    alpha = layer.weight.flatten()[kept].abs().sum() / 100
    expected = torch.zeros(500)
    expected[kept] = alpha * torch.sign(layer.weight.flatten()[kept])
    torch.testing.assert_close(layer.effective_weight().flatten(), expected)
    x = images(3).flatten(1)[:, :50]
    torch.testing.assert_close(layer(x), x @ expected.view(10, 50).T)  # on logits, where the gain shows


def test_binary_dense_weights_are_one_magnitude_and_straight_through():
    layer = layers.Linear(6, 2, bias=False, weights="binary")
    x = images(3).flatten(1)[:, :6]
    layer(x).sum().backward()
    torch.testing.assert_close(layer.effective_weight(), layer.weight.abs().mean() * torch.sign(layer.weight))
    torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(2, 6))


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: "-".join(map(str, k.values())))
def test_pruned_weights_contribute_nothing(kind):
    model = trained(BASE.replace(**kind))
    before = model(images())
    for layer in layers.prunable(model).values():
        mask = layer.current_mask()
        if mask is not None:
            with torch.no_grad():
                layer.weight[~mask] = 1e6
    assert torch.equal(model(images()), before)


def test_frozen_weights_never_move():
    experiment = BASE.replace(search="edge-popup", sparsity=0.5)
    before = models.build_model(experiment)
    after = trained(experiment)
    for name, layer in layers.prunable(after).items():
        assert torch.equal(layer.weight, layers.prunable(before)[name].weight)
        assert not torch.equal(layer.scores, layers.prunable(prepared(experiment))[name].scores)
    readout = trained(experiment.replace(search="random-readout"))
    moved = [
        not torch.equal(layer.weight, layers.prunable(models.build_model(experiment.replace(search="random-readout")))[n].weight)
        for n, layer in layers.prunable(readout).items()
    ]
    assert moved == [False, False, False, False, True]


def test_controls_draw_other_numbers_than_tickets_of_the_same_seed():
    ticket = BASE.replace(search="edge-popup", sparsity=0.5)
    first, control = (models.build_model(e) for e in (ticket, ticket.replace(search="random-trained")))
    assert not torch.equal(first.head.weight, control.head.weight)
    found = {n: layer.current_mask() for n, layer in layers.prunable(prepared(ticket)).items()}
    experiment = ticket.replace(search="found-mask-trained", source=ticket)
    refit = prepared(experiment, found)
    assert all(torch.equal(layer.mask, found[n]) for n, layer in layers.prunable(refit).items())
    assert not torch.equal(refit.head.weight, first.head.weight)


def test_initial_weights_scale_with_what_is_kept():
    wide = BASE.replace(width=1.0)
    for sparsity in (0.5, 0.9):
        model = models.build_model(wide.replace(search="edge-popup", sparsity=sparsity))
        fan_in = model.hidden[0].layer.weight.shape[1]
        std = float(model.hidden[0].layer.weight.detach().std())
        assert std == pytest.approx((2 / (fan_in * (1 - sparsity))) ** 0.5, rel=0.01)


# --- the ticket as a value ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: "-".join(map(str, k.values())))
def test_saved_loaded_applied_and_materialized_give_identical_logits(kind, tmp_path):
    experiment = BASE.replace(**kind)
    model = trained(experiment)
    Ticket.from_model(model, experiment).save(tmp_path / "t.safetensors")
    ticket = Ticket.load(tmp_path / "t.safetensors")
    applied = ticket.apply(models.build_model(experiment))
    plain = ticket.materialize(models.build_model(experiment))
    logits = model(images())
    assert torch.equal(applied(images()), logits)
    assert torch.equal(plain(images()), logits)
    assert not layers.prunable(plain)
    assert ticket.experiment == experiment and list(ticket.layers) == list(layers.prunable(model))
    for name, layer in layers.prunable(model).items():
        mask = layer.current_mask()
        assert torch.equal(ticket.masks()[name], torch.ones_like(layer.weight, dtype=torch.bool) if mask is None else mask)


def test_affine_norms_and_biases_travel_with_the_network(tmp_path):
    for experiment in (BASE.replace(affine=True), BASE.replace(model="linear"), BASE.replace(model="resnet19", affine=True)):
        model = trained(experiment)
        Ticket.from_model(model, experiment).save(tmp_path / "t.safetensors")
        again = Ticket.load(tmp_path / "t.safetensors").apply(models.build_model(experiment))
        assert torch.equal(again(images()), model(images()))


def test_binary_ticket_takes_two_bits_a_weight_at_most(tmp_path):
    experiment = BASE.replace(width=1.0, weights="binary", search="edge-popup", sparsity=0.9)
    ticket = Ticket.from_model(prepared(experiment), experiment)
    size = ticket.save(tmp_path / "t.safetensors")
    assert ticket.sparsity == pytest.approx(0.9, abs=1e-4)
    assert size < ticket.size * (1 + 0.1) / 8 * 1.05 + 20_000  # the mask, signs of what is kept, and the norms


def test_the_same_ticket_is_the_same_file(tmp_path):
    model = trained(BASE.replace(weights="binary", search="edge-popup", sparsity=0.5))
    for name in "ab":
        Ticket.from_model(model, BASE).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "appended", "empty", "text"])
def test_damaged_ticket_file_is_refused_in_one_error(tmp_path, damage):
    path = tmp_path / "t.safetensors"
    Ticket.from_model(prepared(BASE.replace(search="edge-popup", sparsity=0.5)), BASE).save(path)
    raw = bytearray(path.read_bytes())
    if damage == "flipped":
        raw[-5] ^= 1
    path.write_bytes(
        {"truncated": raw[:-100], "flipped": raw, "appended": raw + b"x", "empty": b"", "text": b"not a ticket"}[damage]
    )
    with pytest.raises(ValueError, match="not a whole ticket"):
        Ticket.load(path)


def test_ticket_for_another_network_names_every_layer_that_does_not_fit():
    ticket = Ticket.from_model(prepared(BASE), BASE)
    with pytest.raises(ValueError, match=r"blocks\.0\.layer is .* blocks\.1\.layer is"):
        ticket.apply(models.build_model(BASE.replace(width=0.2)))
    with pytest.raises(ValueError, match="affine"):
        ticket.apply(models.build_model(BASE.replace(affine=True)))

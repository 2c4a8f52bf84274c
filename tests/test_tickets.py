"""Searches find, masks are exact, frozen weights stay, and a saved ticket is the network it came from."""

import copy
import dataclasses
import io
import json
import pickle
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from sltlib import layers, models, pruning, registry
from sltlib.experiment import FIELDS, Experiment, field
from sltlib.neurons import LIF
from sltlib.ticket import Sparse, Ticket, _digest
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


@pytest.mark.parametrize("weights", ["float", "binary"])
@pytest.mark.parametrize("connections", ["search", "dense"])
def test_second_derivatives_of_scores_and_weights_are_those_of_the_formula(weights, connections):
    """A gradient penalty: the gradient that the papers define, differentiated again."""
    layer = layers.Linear(7, 4, bias=False, weights=weights)
    moved = layer.weight
    if connections == "search":
        layer.search(0.5, torch.Generator().manual_seed(0))
        moved = layer.scores
    x = images(5).flatten(1)[:, :7].clone().requires_grad_()
    target = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    (grad,) = torch.autograd.grad((layer(x) * target).sum(), moved, create_graph=True)
    formula = target.T @ x
    if connections == "search":
        formula = formula * layer.weight * torch.sign(layer.scores.detach())
    got, want = (torch.autograd.grad(g.square().sum(), x)[0] for g in (grad, formula))
    torch.testing.assert_close(got, want)


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


def test_tickets_are_equal_where_they_hold_the_same(tmp_path):
    experiment = BASE.replace(search="edge-popup", sparsity=0.5, weights="binary")
    model = prepared(experiment)
    ticket = Ticket.from_model(model, experiment)
    ticket.save(tmp_path / "t")
    assert ticket == Ticket.load(tmp_path / "t") and ticket == Ticket.from_model(model, experiment)
    assert ticket != Ticket.from_model(model, experiment.replace(seed=1)) and ticket != "a ticket"
    name = next(iter(ticket.layers))
    sparse, rest = ticket.layers[name], next(iter(ticket.rest))
    others = [
        Sparse(sparse.shape, sparse.mask, ~sparse.kept, sparse.gain),
        Sparse(sparse.shape, sparse.mask, sparse.kept, sparse.gain * 2),
        Sparse(sparse.shape, ~sparse.mask, sparse.kept, sparse.gain),
        Sparse(sparse.shape, None, np.ones(sparse.mask.size, bool), sparse.gain),
    ]
    for other in others:
        assert ticket != Ticket(experiment, ticket.layers | {name: other}, ticket.rest)
    assert ticket != Ticket(experiment, ticket.layers, ticket.rest | {rest: ticket.rest[rest] + 1})
    assert ticket != Ticket(experiment, ticket.layers, {})


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(beta=0.5), r"blocks\.0\.neuron is LIF\(beta=0\.5, .*beta=0\.99, .*blocks\.1\.neuron"),
        (dict(threshold=0.5), r"threshold=0\.5, .*threshold=1, "),
        (dict(reset="subtract"), r"'subtract'.* in the model, .*'zero'"),
        (dict(neuron="relu"), r"blocks\.0\.neuron is ReLU in the model, LIF"),
        (dict(neuron="sign"), r"is Sign in the model"),
    ],
    ids=str,
)
def test_a_ticket_is_refused_by_other_neurons(change, said):
    experiment = BASE.replace(search="edge-popup", sparsity=0.5)
    ticket, other = Ticket.from_model(prepared(experiment), experiment), models.build_model(experiment.replace(**change))
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=said):
        ticket.apply(other)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    # what predictions do not depend on, or may: another number of steps, surrogate, seed
    ticket.apply(models.build_model(experiment.replace(timesteps=2, surrogate="sigmoid", seed=3)))


def test_a_spikformers_stem_and_blocks_are_told_apart():
    experiment = Experiment("fashion", model="spikformer", width=0.0834, heads=4, depth=1, image_size=8, stem_neuron="relu")
    ticket = Ticket.from_model(models.build_model(experiment), experiment)
    ticket.apply(models.build_model(experiment.replace(seed=1)))
    with pytest.raises(ValueError, match=r"stem\.stages\.0\.neuron is LIF.* in the model, ReLU in the ticket"):
        ticket.apply(models.build_model(experiment.replace(neuron="relu", stem_neuron="lif")))


def test_a_learned_beta_travels_with_the_ticket(monkeypatch, tmp_path):
    monkeypatch.setitem(registry.NEURONS, "learning", learning)
    monkeypatch.setattr(registry, "SPIKING", registry.SPIKING | {"learning"})
    for module in ("experiment", "ticket"):
        monkeypatch.setattr(f"sltlib.{module}.SPIKING", registry.SPIKING)
    experiment = BASE.replace(neuron="learning")
    model = trained(experiment)
    betas = [float(lif.beta.detach()) for lif in models.neurons(model).values()]
    assert all(beta != np.float32(0.9) for beta in betas)
    Ticket.from_model(model, experiment).save(tmp_path / "t")
    again = Ticket.load(tmp_path / "t").apply(models.build_model(experiment))
    assert [float(lif.beta.detach()) for lif in models.neurons(again).values()] == betas
    assert torch.equal(again(images()), model(images()))


def learning(experiment):
    return LIF(0.9, learn_beta=True)


# --- materialised networks ---------------------------------------------------------------------


OPTIONS = [
    dict(dilation=2), dict(groups=2), dict(stride=2), dict(padding=0), dict(padding="same", dilation=(2, 1)),
    dict(padding="valid"), dict(padding_mode="circular"), dict(padding_mode="reflect", padding=2),
    dict(padding_mode="zeros", padding=(2, 0), kernel_size=(5, 1)), dict(bias=False), dict(kernel_size=1, padding=0),
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("weights", ["float", "binary"])
def test_materialized_layers_keep_every_option(options, weights):
    layer = layers.Conv2d(4, 6, **(dict(kernel_size=3, padding=1) | options), weights=weights)
    layer.search(0.5, torch.Generator().manual_seed(0))
    model = torch.nn.Sequential(layer, torch.nn.ReLU())
    plain = layers.materialize(model)
    x = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(1))
    assert type(plain[0]) is torch.nn.Conv2d
    torch.testing.assert_close(plain(x), model(x))
    taken = layers.Conv2d(4, 6, **(dict(kernel_size=3, padding=1) | options))
    taken.fix(layer.effective_weight().detach())
    if taken.bias is not None:
        taken.bias.data = layer.bias.data
    torch.testing.assert_close(layers.materialize(torch.nn.Sequential(taken))(x), layer(x))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # deprecated, and still in use
def test_a_materialized_ticket_is_copied_pickled_traced_and_exported():
    experiment = BASE.replace(search="edge-popup", sparsity=0.5, weights="binary")
    searched = trained(experiment)
    searched(images()).sum().backward()
    ticket = Ticket.from_model(searched, experiment)
    plain = ticket.materialize(models.build_model(experiment))
    expected = searched(images())
    assert torch.equal(copy.deepcopy(plain)(images()), expected)
    assert torch.equal(pickle.loads(pickle.dumps(plain))(images()), expected)
    assert pickle.loads(pickle.dumps(ticket)) == ticket == copy.deepcopy(ticket)
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(plain, images()), file)
    file.seek(0)
    assert torch.equal(torch.jit.load(file)(images()), expected)
    some = torch.export.export(plain, (images(),), dynamic_shapes=({0: torch.export.Dim.AUTO},)).module()
    assert torch.equal(some(images()), expected) and torch.equal(some(images(4)), plain(images(4)))
    assert not any("autograd" in str(node.target) or "triton" in str(node.target) for node in some.graph.nodes)


# --- what a file says of its experiment ----------------------------------------------------------


CHAIN = Experiment("fashion", model="convpep", width=0.0834, image_size=8, neuron="relu", timesteps=8, weights="binary",
                   search="edge-popup", sparsity=0.5)  # fmt: skip
DESCRIBED = [
    BASE.replace(neuron="relu", beta=0.5, timesteps=8),  # a relu network has no beta
    BASE.replace(model="linear", neuron="sign", width=0.5),
    CHAIN,
    # its source has no time, and so its description no timesteps
    Experiment("fashion", model="spikformer", width=0.0834, heads=4, image_size=8, timesteps=8, stem_neuron="relu", source=CHAIN),
    CHAIN.replace(search="none", sparsity=0.0, selector="learned", patch_sparsity=0.5, source=CHAIN, weights="float"),
    BASE.replace(search="found-mask-trained", sparsity=0.5, source=BASE.replace(search="edge-popup", sparsity=0.5, lr=0.2)),
    Experiment("fashion-dvs", model="conv2", neuron="relu", timesteps=6),
]


@pytest.mark.parametrize("experiment", DESCRIBED, ids=lambda e: f"{e.model} {e.search}")
def test_a_file_says_what_the_key_is_made_of(experiment, tmp_path):
    Ticket(experiment, {}, {}).save(tmp_path / "t")
    again = Ticket.load(tmp_path / "t").experiment
    assert again.key == experiment.key and again.canonical() == experiment.canonical()
    head = json.loads(safe_open(tmp_path / "t", "numpy").metadata()["sltlib"])
    assert head["experiment"] == experiment.canonical()


def test_a_new_field_changes_no_byte(tmp_path, monkeypatch):
    experiment = BASE.replace(search="edge-popup", sparsity=0.5)
    model = prepared(experiment)
    Ticket.from_model(model, experiment).save(tmp_path / "before")
    newer = dataclasses.make_dataclass(
        "Experiment", [("hue", "str", field("red", "a field of a later version"))], bases=(Experiment,), frozen=True
    )
    later = newer(**experiment.spec())
    monkeypatch.setattr("sltlib.experiment.FIELDS", {f.name: f for f in dataclasses.fields(newer)})
    assert later.spec()["hue"] == "red" and later.replace(hue="blue").canonical()["hue"] == "blue"
    Ticket.from_model(model, later).save(tmp_path / "after")
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()


def test_a_file_that_holds_the_whole_specification_is_read(tmp_path):
    """As all were written before, with a field that is retired since."""
    experiment = BASE.replace(search="edge-popup", sparsity=0.5, beta=0.9)
    ticket = Ticket.from_model(prepared(experiment), experiment)
    forge(ticket, tmp_path / "t", head=lambda head: head.update(experiment=experiment.spec() | {"backward_steps": 0}))
    assert Ticket.load(tmp_path / "t") == ticket and Ticket.load(tmp_path / "t").experiment == experiment


def a_search(model, experiment, data, found):
    pruning.edge_popup(model, experiment, data, found)


def other_neuron(experiment):
    return LIF(0.5)


def test_a_ticket_of_what_was_added_says_what_a_fresh_process_lacks(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(registry.SEARCHES, "mine", a_search)
        patch.setitem(registry.NEURONS, "learning", learning)
        experiment = BASE.replace(search="mine", sparsity=0.5, neuron="learning")
        ticket = Ticket(experiment, {}, {})
        ticket.save(tmp_path / "t")
        assert Ticket.load(tmp_path / "t") == ticket
        patch.setitem(registry.SEARCHES, "mine", pruning.edge_popup)  # how it was found: nothing to predictions
        Ticket.load(tmp_path / "t")
        patch.setitem(registry.NEURONS, "learning", other_neuron)
        with pytest.warns(UserWarning, match="the added neuron was another when this ticket was made"):
            Ticket.load(tmp_path / "t")
        source = BASE.replace(search="found-mask-trained", sparsity=0.5, source=BASE.replace(search="edge-popup", sparsity=0.5))
        forge(Ticket(source, {}, {}), tmp_path / "deep", head=lambda head: head["experiment"]["source"].update(search="mine"))
    lacks = r"is whole, but .* lacks its neuron 'learning' \(sltlib.registry.NEURONS\['learning'\].*search 'mine'"
    with pytest.raises(ValueError, match=lacks):
        Ticket.load(tmp_path / "t")
    with pytest.raises(ValueError, match="lacks its search 'mine'"):
        Ticket.load(tmp_path / "deep")


# --- forged files: their sha256 is right, what they hold is not ------------------------------------


def forge(ticket, path, head=lambda head: None, tensors=lambda tensors: None):
    """Save a ticket with its description or tensors changed, under a sha256 that is right again."""
    ticket.save(path)
    with safe_open(path, "numpy") as file:
        described, held = json.loads(file.metadata()["sltlib"]), {name: file.get_tensor(name) for name in file.keys()}
    del described["sha256"]
    head(described), tensors(held)
    described["sha256"] = _digest(held, described)
    path.write_bytes(save(held, metadata={"sltlib": json.dumps(described)}))


@pytest.fixture(scope="module")
def honest():
    """A ticket of two binary layers, float ones and norms."""
    experiment = BASE.replace(search="edge-popup", sparsity=0.5, weights="binary", affine=False)
    ticket = Ticket.from_model(prepared(experiment), experiment)
    other = Ticket.from_model(prepared(BASE), BASE)
    first, *_ = other.layers
    return Ticket(experiment, ticket.layers | {first: other.layers[first]}, ticket.rest)


def put(name, value):
    return dict(tensors=lambda t: t.update({next(k for k in t if k.endswith(name)): np.array(value)}))


def shaped(*shape):
    return dict(head=lambda h: h["layers"][1].__setitem__(1, list(shape)))


FORGED = {
    "nan gain": (put(".gain", np.float32([np.nan])), "a gain of nan"),
    "infinite gain": (put(".gain", np.float32([np.inf])), "a gain of inf"),
    "negative gain": (put(".gain", np.float32([-1])), "a gain of -1"),
    "three gains": (put(".gain", np.float32([1, 2, 3])), r"float32 of shape \(3,\), want float32 of \(1,\)"),
    "no gains": (put(".gain", np.zeros(0, np.float32)), r"of shape \(0,\)"),
    "gain of rank 0": (put(".gain", np.float32(1)), r"of shape \(\)"),
    "double gain": (put(".gain", np.float64([1])), "float64"),
    "nan weight": (put("blocks.0.layer.weight", np.full(54, np.nan, np.float32)), "not finite"),
    "integer weights": (put("blocks.0.layer.weight", np.ones(54, np.int32)), "int32"),
    "missing weights": (put("blocks.0.layer.weight", np.ones(53, np.float32)), "53"),
    "long mask": (put(".mask", np.zeros(10_000, np.uint8)), "uint8 of shape"),
    "mask of another type": (put(".mask", np.zeros(41, np.int8)), "int8"),
    "negative variance": (put("running_var", np.full(6, -1, np.float32)), "negative variances"),
    "infinite mean": (put("running_mean", np.full(6, np.inf, np.float32)), "no finite numbers"),
    "absurd shape": (shaped(2**16, 2**16), "uint8 of shape"),
    "shape that wraps to nothing": (shaped(2**32, 2**32), "uint8 of shape"),
    "negative shape": (shaped(-6, -6, 3, 3), "no shape of a weight"),
    "empty shape": (shaped(), "no shape of a weight"),
    "real shape": (shaped(6.0, 6, 3, 3), "no shape of a weight"),
    "boolean shape": (shaped(True, 6, 3, 3), "no shape of a weight"),
    "deep shape": (dict(head=lambda h: h["layers"][1].__setitem__(1, [[6]])), "no shape of a weight"),
    "a layer twice": (dict(head=lambda h: h["layers"].append(h["layers"][0])), "two layers"),
    "no layers": (dict(head=lambda h: h.update(layers=[])), "tensors of no layer"),
    "layers of another kind": (dict(head=lambda h: h.update(layers={"a": 1})), "not a whole ticket"),
    "another format": (dict(head=lambda h: h.update(format=2)), "format 2, this version reads 1"),
    "an experiment of another kind": (dict(head=lambda h: h.update(experiment=[1])), "not understood here"),
    "an experiment without a name": (dict(head=lambda h: h["experiment"].pop("dataset")), "not understood here"),
    "no experiment": (dict(head=lambda h: h.update(experiment=None)), "not understood here"),
    "an experiment out of range": (dict(head=lambda h: h["experiment"].update(width=1e300)), "width=1e\\+300"),
    "a number of 400 digits": (dict(head=lambda h: h["experiment"].update(width=10**400)), "not understood here"),
    "an unhashable neuron": (dict(head=lambda h: h["experiment"].update(neuron=["lif"])), "not understood here"),
    "another field": (dict(head=lambda h: h["experiment"].update(hue="red")), "Experiment has no hue"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_forged_tickets_are_refused_in_one_error(kind, honest, tmp_path):
    changes, said = FORGED[kind]
    forge(honest, tmp_path / "t", **changes)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=said):
            Ticket.load(tmp_path / "t")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("where", ["experiment", "shape"])
@pytest.mark.parametrize("depth", [600, 100_000])
def test_deep_descriptions_are_refused_in_one_error(where, depth, honest, tmp_path):
    honest.save(tmp_path / "t")
    with safe_open(tmp_path / "t", "numpy") as file:
        described, held = json.loads(file.metadata()["sltlib"]), {name: file.get_tensor(name) for name in file.keys()}
    text = json.dumps(described)
    if where == "experiment":
        deep = '{"dataset": "fashion", "source": ' * depth + "null" + "}" * depth
        text = text.replace(json.dumps(described["experiment"]), deep)
    else:
        text = text.replace(json.dumps(described["layers"][0][1]), "[" * depth + "]" * depth)
    assert len(text) > 2 * depth
    (tmp_path / "t").write_bytes(save(held, metadata={"sltlib": text}))
    with pytest.raises(ValueError, match="not a whole ticket"):
        Ticket.load(tmp_path / "t")


def test_a_value_that_no_network_computes_with_is_no_ticket():
    for kept, gain in ((np.float32([1, np.nan]), None), (np.array([True, False]), np.float32(-1)), (np.float32([[1, 2]]), None)):
        with pytest.raises(ValueError, match="not finite|a gain of -1|weights of shape"):
            Sparse((2,), None, kept, gain)


@pytest.mark.slow
@settings(max_examples=1500, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_mutated_file_is_refused_or_the_same_ticket(honest, tmp_path, data):
    """Bytes are changed, cut, doubled anywhere in the file, with the sha256 as it was."""
    path = tmp_path / "t"
    honest.save(path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place, how = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.sampled_from(["flip", "cut", "add", "header"]))
        if how == "flip":
            raw[place] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "cut":
            del raw[place : place + data.draw(st.integers(1, 40))]
        elif how == "add":
            raw[place:place] = data.draw(st.binary(min_size=1, max_size=40))
        else:
            raw[place % 900] = data.draw(st.integers(0, 255))
        if not raw:
            break
    path.write_bytes(raw)
    try:
        assert Ticket.load(path) == honest
    except ValueError as error:
        assert "\n" not in str(error)[:60] and str(path) in str(error)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8) | st.sampled_from(["lif", "conv2"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.slow
@settings(max_examples=1500, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_forged_file_is_refused_or_a_ticket_that_works(honest, tmp_path, data):
    """Any part of the description or any tensor is replaced, and the sha256 made right: what loads can be used."""
    def head(described):
        part = data.draw(st.sampled_from(["format", "experiment", "layers", "field", "layer", "shape", "nothing"]))
        if part in ("format", "experiment", "layers"):
            described[part] = data.draw(values)
        elif part == "field":
            described["experiment"][data.draw(st.sampled_from(sorted(FIELDS)) | st.text(max_size=5))] = data.draw(values)
        elif part == "layer":
            described["layers"][data.draw(st.integers(0, 4))] = data.draw(values)
        elif part == "shape":
            shape = st.lists(st.integers(-2, 2**40), max_size=5) | values
            described["layers"][data.draw(st.integers(0, 4))][1] = data.draw(shape)

    def tensors(held):
        if data.draw(st.booleans()):
            name = data.draw(st.sampled_from(sorted(held)))
            kind = data.draw(st.sampled_from([np.uint8, np.float32, np.float64, np.int64, np.bool_]))
            size = data.draw(st.integers(0, 60) | st.just(held[name].size))
            fill = data.draw(st.sampled_from([0, 1, -1, np.nan, np.inf, 1e30]))
            with np.errstate(all="ignore"):
                held[name] = np.full(size, fill).astype(kind)

    path = tmp_path / "t"
    forge(honest, path, head, tensors)
    try:
        ticket = Ticket.load(path)
    except ValueError as error:
        assert str(path) in str(error)
        return
    assert all(layer.weight().shape == layer.shape and layer.weight().isfinite().all() for layer in ticket.layers.values())
    try:
        model = ticket.apply(models.build_model(ticket.experiment))
    except ValueError:  # a ticket of another network than its experiment's
        return
    assert model(images(2)).shape == (2, 10)

"""How a ticket is found, and the controls that do not look: each a function that prepares a model.

A search is `search(model, experiment, data, found)`: it sets each layer's mask or scores and what is
trained; the one training loop does the rest. `found` are the masks of `experiment.source`'s ticket.
registry.SEARCHES names them all; add yours there.
"""

from contextlib import contextmanager

import torch

from sltlib.registry import SEARCHES, lookup
from sltlib.layers import GlobalRanking, generator, keep_count, prunable, shares


def dense(model, experiment, data, found):
    """Every weight is kept and trained; binary weights by the straight-through estimator."""


def edge_popup(model, experiment, data, found):
    """Freeze the random weights, learn a score for each, keep the best of every layer (or of all together).

    With float weights edge-popup (Ramanujan et al. 2020), with binary weights multi-prize tickets
    (Diffenderfer & Kailkhura 2021). Nothing but scores is trained, and a ConvPEP's temporary head.
    """
    random = generator(experiment, "scores")
    _freeze(model)
    for layer, sparsity in _shared_out(model, experiment):
        layer.search(sparsity, random)


SPREAD = 0.5  # the deviation of a gate's noise


def bernoulli(model, experiment, data, found):
    """Freeze the random weights, learn for each the chance that it stays; after training keep the most likely.

    Continuously relaxed Bernoulli gates (Louizos et al. 2018; Yamada et al. 2020; for tickets Tsayag & Lindenbaum
    2026, arXiv 2603.08914): z = clamp(mu + sigma eps, 0, 1), eps ~ N(0, 1) drawn anew every step. Differences:
    gates start at the wanted density, `penalty` holds the expected one there (in theirs the density follows from
    the penalty), and at the end exactly the top k of mu are kept.
    """
    _freeze(model)
    for layer, sparsity in _shared_out(model, experiment):
        layer.gate(sparsity, SPREAD)


def _shared_out(model, experiment):
    """(layer, its sparsity) of every layer; under one threshold for all, the layers get a ranking in common."""
    found, sparsity = list(prunable(model).values()), experiment.sparsity
    if experiment.ranking == "erdos-renyi":
        return list(zip(found, shares([layer.weight.shape for layer in found], sparsity), strict=True))
    if experiment.ranking != "layer":
        ranking = GlobalRanking(found, sparsity, scaled=experiment.ranking == "scaled")
        for layer in found:
            layer.ranking = ranking
    return [(layer, sparsity) for layer in found]


def draw_noise(model, experiment, step):
    """Draw the noise of a step's gates; nothing for a search without gates. step None: none, as in evaluation."""
    if experiment.search != "bernoulli":
        return
    random = generator(experiment, "gates", step) if step is not None else None
    for layer in prunable(model).values():
        if layer.connections == "gates":
            noise = torch.empty(layer.weight.shape).normal_(0, layer.spread, generator=random) if random else None
            layer.noise = noise if noise is None else noise.to(layer.scores.device)


@contextmanager
def relaxed(model):
    """Within it a network of gates computes with z = clamp(mu, 0, 1), before the mask is made exact."""
    gated = [layer for layer in prunable(model).values() if layer.connections == "gates"]
    for layer in gated:
        layer.noise = torch.zeros((), device=layer.scores.device)
    try:
        yield gated
    finally:
        for layer in gated:
            layer.noise = None


def regularizer(model, experiment):
    """What a search adds to the loss: of gates, penalty * |expected density - target| / target, the mean over layers.

    Under one threshold for all layers it is the density of all together that is held.
    """
    if experiment.search != "bernoulli" or not experiment.penalty:
        return 0.0
    gated = [layer for layer in prunable(model).values() if layer.connections == "gates"]
    wanted = [keep_count(layer.weight.numel(), layer.sparsity) for layer in gated]
    expected = [layer.open_gates() for layer in gated]
    if experiment.ranking == "global":
        return experiment.penalty * (sum(expected) / sum(wanted) - 1).abs()
    return experiment.penalty * torch.stack([(e / k - 1).abs() for e, k in zip(expected, wanted, strict=True)]).mean()


def _freeze(model):
    """Train nothing but the head that is dropped after the search, where a model has one."""
    model.requires_grad_(False)
    if model.temporary is not None:
        model.temporary.requires_grad_(True)


def random_mask(shape, sparsity, random):
    """A mask (bool) that keeps exactly `keep_count` weights, drawn uniformly."""
    size = torch.Size(shape).numel()
    mask = torch.zeros(size, dtype=torch.bool)
    mask[torch.randperm(size, generator=random)[: keep_count(size, sparsity)]] = True
    return mask.view(shape)


def random_trained(model, experiment, data, found):
    """Control: a random mask of the same count in every layer, and the weights under it trained."""
    random = generator(experiment, "mask")
    for layer in prunable(model).values():
        layer.set_mask(random_mask(layer.weight.shape, experiment.sparsity, random))


def random_readout(model, experiment, data, found):
    """Control: the same random masks, everything frozen but the last layer.

    The readout has the row's switches too: masked, and binary where the row is. A low bar; `linear` and
    `random-trained` are the higher ones.
    """
    random_trained(model, experiment, data, found)
    _freeze(model)
    if model.temporary is None:
        *_body, readout = prunable(model).values()
        readout.requires_grad_(True)


def found_mask_trained(model, experiment, data, found):
    """Control: the mask that a ticket search found, over fresh weights, which are trained."""
    for name, layer in prunable(model).items():
        layer.set_mask(found[name])


def prepare(model, experiment, data=None, found=None):
    """Apply the experiment's search to a fresh model; returns the model."""
    lookup(SEARCHES, experiment.search)(model, experiment, data, found)
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError(f"search {experiment.search!r} left nothing to train")
    return model

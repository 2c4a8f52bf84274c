"""How a ticket is found, and the controls that do not look: each a function that prepares a model.

A search is `search(model, experiment, data, found)`: it sets each layer's mask or scores and what is
trained; the one training loop does the rest. `found` are the masks of `experiment.source`'s ticket.
experiment.SEARCHES names them all; add yours there.
"""

import torch

from sltlib.experiment import SEARCHES, lookup
from sltlib.layers import GlobalRanking, generator, keep_count, prunable


def dense(model, experiment, data, found):
    """Every weight is kept and trained; binary weights by the straight-through estimator."""


def edge_popup(model, experiment, data, found):
    """Freeze the random weights, learn a score for each, keep the best of every layer (or of all together).

    With float weights edge-popup (Ramanujan et al. 2020), with binary weights multi-prize tickets
    (Diffenderfer & Kailkhura 2021). Nothing but scores is trained, and a ConvPEP's temporary head.
    """
    random = generator(experiment, "scores")
    _freeze(model)
    searched = list(prunable(model).values())
    for layer in searched:
        layer.search(experiment.sparsity, random)
    if experiment.ranking == "global":
        ranking = GlobalRanking(searched, experiment.sparsity)
        for layer in searched:
            layer.ranking = ranking


def _freeze(model):
    """Train nothing but the head that is dropped after the search, where a model has one."""
    model.requires_grad_(False)
    if getattr(model, "temporary", None) is not None:
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
    if getattr(model, "temporary", None) is None:
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

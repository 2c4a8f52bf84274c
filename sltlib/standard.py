"""Standard tickets: masks read off *trained* weights, and the kept weights trained; beside them, one read off gradients.

What the spiking lottery ticket is to be held against (Kim et al., ECCV 2022, arXiv 2207.01382; lottery tickets are
Frankle & Carbin 2019). In the order in which to read them:

| here | what it is |
|---|---|
| `magnitude` | the pruner: weights to masks, the smallest of all layers together go |
| `pruned`, `rewind` | the search: the source's network is pruned, the kept weights go back to early values and train on |
| `one_shot`, `chain` | that once, and iterative magnitude pruning (IMP): prune a quarter, rewind, train, and again |
| `at_cost`, `effort` | what it takes, in passes over the training images; pruning at the cost of one training |
| `early_bird`, `look`, `hatch` | the dense training ends as soon as its mask stands still (You et al. 2020) |
| `early_time` | how few time steps show what all of them say |
| `snip`, `sensitivity` | before any training: |weight * gradient| (Lee et al. 2019) |
"""

import copy
import itertools
import math

import torch

from sltlib.layers import generator, global_top_k, prunable

ROUND = 0.25  # of what is left, the share that a round of IMP removes
RECENT, STILL = 5, 0.02  # Early-Bird: so many masks in a row, of which no two differ in this share of all weights
ENOUGH = 0.6  # Early-Time: the divergence that is left, over that of two steps
SNIP_IMAGES = 512  # how many training images SNIP's gradient is taken of, at most


# --- pruning by magnitude


def after(rounds):
    """The sparsity after so many rounds, exactly 1 - .75 ** rounds."""
    return 1 - (1 - ROUND) ** rounds


def magnitude(weights, sparsity, kept=None):
    """The masks {layer: bool tensor} of the largest weights of all layers together; exactly `keep_count` stay in all.

    weights : {layer: tensor}; of a search its scores will do. sparsity : the fraction of all weights that is
    removed. kept : masks of an earlier pruning; what they removed stays removed, so a chain's masks are nested. No
    layer is emptied; ties go to the lower index.
    """
    sizes = {name: weight.detach().abs() for name, weight in weights.items()}
    if kept is not None:
        sizes = {name: size.masked_fill(~kept[name], -1.0) for name, size in sizes.items()}
    return dict(zip(sizes, global_top_k(list(sizes.values()), sparsity), strict=True))


def found_in(source, experiment):
    """The masks that an experiment takes over from its source's Ticket: as they are, or pruned further by magnitude."""
    if source is None or experiment.search != "magnitude":
        return source and source.masks()
    return magnitude({name: layer.weight() for name, layer in source.layers.items()}, experiment.sparsity, source.masks())


def pruned(model, experiment, data, found):
    """The masks that pruning the source by magnitude left, over weights that are trained (see `rewind`)."""
    for name, layer in prunable(model).items():
        layer.set_mask(found[name])
        _clear(layer)


@torch.no_grad()
def rewind(model, early):
    """Set a pruned network back: its kept weights, and its normalisation, are those of the Ticket `early`.

    early : of `experiment.early`, the dense network after its first epochs. None: the weights stay as they were
    drawn (Frankle & Carbin 2019); late rewinding is what works in larger networks (Frankle et al. 2020).
    """
    if early is None:
        return
    state = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, value in early.rest.items():
        state[name].copy_(torch.from_numpy(value))
    for name, layer in prunable(model).items():
        layer.weight.copy_(early.layers[name].weight())
        _clear(layer)


@torch.no_grad()
def _clear(layer):
    """Removed weights are zero themselves, so momentum, decay and Adam leave them there."""
    layer.weight.mul_(layer.mask.to(layer.weight.dtype))


def chain(dense, rounds, rewind_epoch):
    """Iterative magnitude pruning as Experiments: [dense, after one round, after two, ...].

    Every level's source is the one before, so a chain goes on where it stopped, and its beginning is shared.
    """
    levels = [dense]
    for n in range(1, rounds + 1):
        levels.append(one_shot(levels[-1], after(n), rewind_epoch))
    return levels


def one_shot(source, sparsity, rewind_epoch):
    """The Experiment that prunes a network once, to this sparsity, and trains it on from its weights at an early epoch."""
    return source.replace(search="magnitude", sparsity=sparsity, source=source, rewind_epoch=rewind_epoch)


# --- what it costs


def at_cost(dense, sparsity, rewind_epoch):
    """`one_shot` in as many passes as the dense training takes alone: trained for half of them, pruned, trained for the rest.

    A dense network of (epochs + rewind_epoch) / 2 epochs is pruned, and trained on from its weights at rewind_epoch.
    ValueError where that is no whole number.
    """
    if (dense.epochs + rewind_epoch) % 2:
        raise ValueError(f"epochs={dense.epochs} and rewind_epoch={rewind_epoch}: give two even numbers, or two odd ones")
    return one_shot(dense.replace(epochs=(dense.epochs + rewind_epoch) // 2), sparsity, rewind_epoch)


def effort(experiment, searched=None):
    """[(Experiment, passes)]: all that was trained for one result, each with its passes over the training images.

    That is the experiment, what it came from, and the early weights, unless they lay on the way of one of these.
    searched : {key: passes} that an Early-Bird really took (its metric search_epochs).
    """
    out, seen, on_the_way = [], [], set()
    while experiment is not None:
        passes = (searched or {}).get(experiment.key, experiment.passes)
        out.append((experiment, passes))
        seen += [experiment.early] if experiment.early else []
        if experiment.search in ("none", "early-bird"):
            dense = experiment.replace(search="none", sparsity=0.0)
            on_the_way |= {dense.replace(stop_epoch=n).key for n in range(1, dense.epochs) if n <= passes}
        experiment = experiment.source
    missed = {early.key: early for early in seen if early.key not in on_the_way}
    return out + [(early, early.passes) for early in missed.values()]


# --- Early-Bird: stop as soon as the mask stands still


def early_bird(model, experiment, data, found):
    """Train all weights, draw the mask `looks` times an epoch, and stop when it no longer changes (You et al. 2020).

    The mask is the magnitude's over all layers, as IMP's. Masks that keep 1 % of the weights differ in 2 % at
    most, so above 99 % every five stand still. Give the result as `source` of search='magnitude', which
    finds the same mask in it and trains what it keeps.
    """
    size = sum(layer.weight.numel() for layer in prunable(model).values())
    model.register_buffer("recent_masks", torch.zeros(RECENT, size, dtype=torch.bool))  # in the state: checkpoints hold it
    model.register_buffer("looked", torch.zeros((), dtype=torch.int64))


def distance(masks):
    """The largest share of weights in which two of the masks (M, weights) differ: their maximal Hamming distance."""
    return max((float((a != b).double().mean()) for a, b in itertools.combinations(masks, 2)), default=math.inf)


@torch.no_grad()
def look(model, experiment, step, per_epoch):
    """Draw a mask where it is time to, after so many steps; True when the last five no longer differ.

    Does nothing for another search than 'early-bird'.
    """
    if experiment.search != "early-bird" or step % max(1, per_epoch // experiment.looks):
        return False
    found = magnitude({name: layer.weight for name, layer in prunable(model).items()}, experiment.sparsity)
    model.recent_masks[int(model.looked) % RECENT] = torch.cat([mask.reshape(-1) for mask in found.values()])
    model.looked += 1
    return int(model.looked) >= RECENT and distance(model.recent_masks) < STILL


def hatch(model, experiment, steps, per_epoch):
    """End the search: put on the mask of the last moment; returns what to note of it, {} for another search.

    search_epochs : passes over the training images until then. mask_distance : the largest distance within the last
    five masks, not below `STILL` where the training ended first (None with fewer than five).
    """
    if experiment.search != "early-bird":
        return {}
    looked, recent = int(model.looked), model.recent_masks
    del model.recent_masks, model.looked
    found = magnitude({name: layer.weight for name, layer in prunable(model).items()}, experiment.sparsity)
    pruned(model, experiment, None, found)
    return {"search_epochs": steps / per_epoch, "mask_distance": distance(recent) if looked >= RECENT else None}


# --- Early-Time: search at fewer steps


def early_time(logits, enough=ENOUGH):
    """(the number of steps T' to search at, {T': divergence}) of a trained network (Kim et al. 2022, section 4.3).

    logits : (T, N, classes), of every step, such as `model.steps(x)`: what the network says after T' steps is the
    mean of its first T'. The divergence of T' is KL(p_T || p_T'), averaged over images and over that of T' = 2; T'
    is the smallest from 2 on where it is below `enough`. T itself where none is.
    """
    steps = len(logits)
    so_far = logits.double().cumsum(0) / torch.arange(1, steps + 1, dtype=torch.float64, device=logits.device).view(-1, 1, 1)
    said = so_far.log_softmax(2)  # (T, N, classes)
    left = (said[-1].exp() * (said[-1] - said)).sum(2).mean(1)  # (T,)
    if steps < 3 or not left[1] > 0:
        return steps, {}
    divergence = {t: float(left[t - 1] / left[1]) for t in range(1, steps + 1)}
    return next(t for t in range(2, steps + 1) if divergence[t] < enough), divergence


# --- SNIP: before training


def sensitivity(model, x, labels, scale=1.0):
    """{layer: |weight * dL/dweight|} of a fresh network on a batch: what the loss would feel of a removal, to first order."""
    trial = copy.deepcopy(model).train()  # its normalisation sees the batch, the model's own does not
    torch.nn.functional.cross_entropy(trial(x) * scale, labels).backward()
    return {name: (layer.weight.detach() * layer.weight.grad).abs() for name, layer in prunable(trial).items()}


def snip(model, experiment, data, found):
    """Prune the fresh network by sensitivity to the loss, once (Lee et al. 2019, arXiv 1810.02340), then train it.

    The loss is that of the first training images in the order of the first epoch, all layers under one threshold.
    """
    images, labels = data.train.x, data.train.y
    index = torch.randperm(len(labels), generator=generator(experiment, "order", 0))[:SNIP_IMAGES].to(labels.device)
    x = data.batch(images, index)
    scores = sensitivity(model.to(labels.device), x.transpose(0, 1) if x.dim() == 5 else x, labels[index], experiment.logit_scale)
    pruned(model, experiment, data, magnitude(scores, experiment.sparsity))

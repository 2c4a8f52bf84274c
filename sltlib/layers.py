"""Convolution and linear layers with the switches `weights` and `connections`.

| connections | effective weight | trained |
|---|---|---|
| dense | W, or mean|W| sign(W) when binary | W (binary: straight-through) |
| search | W * mask, or gain * sign(W) * mask; mask = top-k of |scores| | the scores; W stays as drawn |
| gates | the same with z = clamp(scores + noise, 0, 1) while training, then with the top-k of the scores | the scores |
| mask | the same with a mask that does not change | W, if it is not frozen |
| fixed | W as it is: a finished ticket | nothing |

gain = sum |W * mask| / kept, one number a layer. `search` with float weights is edge-popup
(Ramanujan et al. 2020), with binary weights multi-prize (Diffenderfer & Kailkhura 2021).
"""

import copy
import hashlib
from statistics import NormalDist

import numpy as np
import torch
from torch import nn

from sltlib.registry import PRUNED


def generator(experiment, purpose, *more):
    """A torch.Generator for one purpose of one experiment ("init", "order", ...): equal seeds, equal draws.

    Controls draw other numbers than tickets of the same seed, but see the batches in the same order.
    """
    apart = "control" if experiment.control and purpose != "order" else ""
    text = ":".join(map(str, (apart, purpose, experiment.seed, *more)))
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(seed)


def keep_count(size, sparsity):
    """How many of `size` weights stay: (1 - sparsity) size, rounded, at least 1."""
    return max(1, round((1 - sparsity) * size))


def top_k(scores, sparsity):
    """The mask (bool, shape of scores) of the exactly `keep_count` largest scores; ties go to the lower index."""
    flat = scores.detach().reshape(-1)
    keep = keep_count(flat.numel(), sparsity)
    if keep == flat.numel():
        return torch.ones_like(scores, dtype=torch.bool)
    if flat.device.type != "cpu":
        return _sorted_top_k(flat, keep).view(scores.shape)
    smallest = kth_smallest(flat.numpy(), flat.numel() - keep)  # of those that stay
    mask = flat >= smallest
    surplus = int(torch.count_nonzero(mask)) - keep
    if surplus:
        mask[(flat == smallest).nonzero().squeeze(1)[-surplus:]] = False
    return mask.view(scores.shape)


def kth_smallest(values, place):
    """The value at a place of the sorted 1-d array: exactly, from the few values that a sample says are near it."""
    step = values.size // 4096
    if step >= 8:
        sample = np.sort(values[::step])
        middle, reach = place * sample.size // values.size, 128  # four standard deviations of a sample's quantile
        low = sample[middle - reach] if middle >= reach else -np.inf
        high = sample[middle + reach] if middle + reach < sample.size else np.inf
        before = np.count_nonzero(values < low)
        near = values[(values >= low) & (values <= high)]
        if 0 <= place - before < near.size:
            values, place = near, place - before
    return float(np.partition(values, place)[place])


def _sorted_top_k(flat, keep):
    """The same by a stable sort, which a GPU does without waiting for the host."""
    order = flat.sort(descending=True, stable=True).indices
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(0, order[:keep], True)


def global_top_k(scores, sparsity):
    """Masks of the best scores of all layers under one threshold, exactly `keep_count` in all; none is emptied.

    scores : a list of tensors, each the scores of a layer. A layer that would lose everything keeps its
    best, at the cost of the least of the others.
    """
    flat = [s.detach().reshape(-1) for s in scores]
    ranked = torch.cat(flat)
    best = [int(s.argmax()) + start for s, start in zip(flat, _starts(flat), strict=True)]
    ranked[best] = torch.inf  # cat made a copy
    mask = top_k(ranked, sparsity)
    mask[best] = True
    parts = mask.split([s.numel() for s in flat])
    return [part.view(s.shape) for part, s in zip(parts, scores, strict=True)]


def _starts(flat):
    starts = [0]
    for scores in flat[:-1]:
        starts.append(starts[-1] + scores.numel())
    return starts


class GlobalRanking:
    """Ranks the scores of several layers together, once a forward pass.

    scaled : scores are taken over their initial scale, 1/sqrt(fan-in); else layers of a small fan-in, whose scores
        start larger, keep more for that alone.
    """

    def __init__(self, layers, sparsity, scaled=False):
        self.layers, self.sparsity, self.scaled = layers, sparsity, scaled
        self.seen, self.served, self.masks = None, set(), None

    def mask(self, layer):
        """The mask of one of the layers, at this moment's scores."""
        # Not every change of a tensor is counted (`.data` is not), but every pass asks for each layer once.
        seen = [(id(s), s.data_ptr(), s._version) for s in (other.scores for other in self.layers)]
        if seen != self.seen or layer in self.served:
            ranks = [other.rank(other.weight[0].numel() ** 0.5 if self.scaled else 1) for other in self.layers]
            self.masks, self.seen, self.served = global_top_k(ranks, self.sparsity), seen, set()
        self.served.add(layer)
        return next(mask for other, mask in zip(self.layers, self.masks, strict=True) if other is layer)


def shares(shapes, sparsity):
    """The sparsity of each layer under Erdos-Renyi shares (Mocanu et al. 2018; with kernels Evci et al. 2020).

    shapes : of the weights. A layer's density is proportional to the sum of its sides over their product, capped at
    1, and all layers together keep `keep_count` of their weights, to a rounding a layer.
    """
    sizes = np.array([int(np.prod(shape)) for shape in shapes], float)
    raw = np.array([sum(shape) / np.prod(shape) for shape in shapes])
    kept, dense = keep_count(int(sizes.sum()), sparsity), np.zeros(len(sizes), bool)
    while True:
        scale = (kept - sizes[dense].sum()) / (raw * sizes)[~dense].sum()
        over = ~dense & (scale * raw > 1)
        if not over.any():
            return [float(s) for s in 1 - np.where(dense, 1, scale * raw)]
        dense |= over


def signs(weight):
    """+1 where weight >= 0, else -1."""
    return (weight >= 0).to(weight.dtype).mul_(2).sub_(1)


def gain_of(weight, mask=None):
    """The mean magnitude of the kept weights: a layer's one scale when its weights are signs."""
    if mask is None:
        return weight.detach().abs().mean()
    return (weight.detach() * mask.to(weight.dtype)).abs().sum() / torch.count_nonzero(mask)


def binary_weight(sign, gain, mask=None):
    """gain * sign * mask, always in this order, so that a loaded ticket gives the same bits."""
    weight = gain * sign
    return weight if mask is None else weight * mask.to(weight.dtype)  # one type: several times faster


class _Search(torch.autograd.Function):
    """Scores to effective weights; dL/dscore = dL/dw_eff * W * sign(score) for every weight, kept or not."""

    @staticmethod
    def forward(ctx, scores, weight, mask, binary):
        ctx.save_for_backward(scores, weight)
        return binary_weight(signs(weight), gain_of(weight, mask), mask) if binary else weight * mask.to(weight.dtype)

    @staticmethod
    def backward(ctx, grad):
        scores, weight = ctx.saved_tensors
        return grad * weight * torch.sign(scores), None, None, None


def gated_weight(weight, gates, binary):
    """The effective weight under gates z in [0, 1]: W z, or gain sign(W) z with gain = sum |W| z / sum z."""
    if not binary:
        return weight * gates
    gain = (weight.abs() * gates).sum().detach() / gates.detach().sum().clamp(min=1)
    return gain * signs(weight) * gates


class _Binary(torch.autograd.Function):
    """Latent float weights to one magnitude and their signs, straight-through (Courbariaux et al. 2015)."""

    @staticmethod
    def forward(ctx, weight, mask):
        ctx.mask = mask
        return binary_weight(signs(weight), gain_of(weight, mask), mask)

    @staticmethod
    def backward(ctx, grad):
        return (grad if ctx.mask is None else grad * ctx.mask), None


class _Switches:
    """What Conv2d and Linear share. `binary`: weights are a sign and a gain; `connections`: the table above."""

    def __init__(self, *shape, weights="float", **options):
        super().__init__(*shape, **options)
        self.binary = weights == "binary"
        self.connections, self.sparsity, self.ranking, self.gain = "dense", 0.0, None, None
        self.spread, self.noise = 0.0, None
        self.register_parameter("scores", None)
        self.register_buffer("mask", None)

    def search(self, sparsity, generator):
        """Freeze the weights and give each a score, Kaiming-uniform with a = sqrt 5 (Ramanujan et al.)."""
        bound = self.weight[0].numel() ** -0.5
        scores = torch.empty(self.weight.shape).uniform_(-bound, bound, generator=generator)
        self.scores = nn.Parameter(scores.to(self.weight.device))
        self.weight.requires_grad_(False)
        self.connections, self.sparsity = "search", sparsity

    def gate(self, sparsity, spread):
        """Freeze the weights and give each a gate, open with a chance of 1 - sparsity under noise of this deviation."""
        chance = min(1 - sparsity, 1 - 1 / (2 * self.weight.numel()))  # of a layer that keeps all: nearly certain
        start = spread * NormalDist().inv_cdf(chance)
        self.scores = nn.Parameter(torch.full_like(self.weight, start))
        self.weight.requires_grad_(False)
        self.connections, self.sparsity, self.spread = "gates", sparsity, spread

    def open_gates(self):
        """The expected number of gates that are not shut, sum of Phi(score / spread): differentiable."""
        return torch.special.ndtr(self.scores / self.spread).sum()

    def rank(self, factor=1.0):
        """What orders the weights: |scores| of a search, the scores of gates; times a factor."""
        ranks = self.scores.detach()
        ranks = ranks if self.connections == "gates" else ranks.abs()
        return ranks if factor == 1 else ranks * factor

    def set_mask(self, mask):
        """Keep only the weights under this mask (bool, shape of the weight), from now on."""
        if mask.shape != self.weight.shape:
            raise ValueError(f"mask of shape {tuple(mask.shape)} for a weight of {tuple(self.weight.shape)}")
        self.mask = mask.to(self.weight.device, torch.bool)
        self.connections, self.sparsity = "mask", 1 - float(mask.float().mean())

    def fix(self, weight, gain=None):
        """Take these effective weights (shape of the weight) as final; gain: of binary ones, their magnitude."""
        self.weight = nn.Parameter(weight.to(self.weight), requires_grad=False)
        self.connections, self.scores, self.mask, self.binary, self.ranking = "fixed", None, None, False, None
        self.gain = gain

    def current_mask(self):
        """The mask of this moment (bool, shape of the weight), or None where every weight is kept."""
        if self.connections not in ("search", "gates"):
            return self.mask
        return top_k(self.rank(), self.sparsity) if self.ranking is None else self.ranking.mask(self)

    def effective_weight(self):
        """The weight that the layer computes with, in the shape of the weight."""
        if self.connections == "gates" and self.noise is not None:
            return gated_weight(self.weight, (self.scores + self.noise).clamp(0, 1), self.binary)
        mask = self.current_mask()
        if self.connections in ("search", "gates"):
            return _Search.apply(self.scores, self.weight, mask, self.binary)
        if self.binary:
            return _Binary.apply(self.weight, mask)
        return self.weight if mask is None else self.weight * mask

    def _fill(self, plain):
        plain.weight = nn.Parameter(self.effective_weight().detach().clone(), requires_grad=False)
        if self.bias is not None:
            plain.bias = nn.Parameter(self.bias.detach().clone(), requires_grad=False)
        return plain.to(self.weight.device)

    def extra_repr(self):
        kind = "binary" if self.binary else "float"
        return f"{super().extra_repr()}, weights={kind}, connections={self.connections}"


class Conv2d(_Switches, nn.Conv2d):
    """nn.Conv2d with switches: (B, C, H, W) to (B, C', H', W')."""

    def forward(self, x):
        out = self._conv_forward(x, self.effective_weight(), self.bias)
        # Channels last: pooling and normalisation are several times faster (bench/NOTES.md).
        return out.contiguous(memory_format=torch.channels_last)

    def plain(self):
        """The nn.Conv2d that computes the same."""
        names = ("stride", "padding", "dilation", "groups", "padding_mode")
        options = {name: getattr(self, name) for name in names} | {"bias": self.bias is not None}
        return self._fill(nn.Conv2d(self.in_channels, self.out_channels, self.kernel_size, **options))


class Linear(_Switches, nn.Linear):
    """nn.Linear with switches: (B, features) to (B, features')."""

    def forward(self, x):
        return nn.functional.linear(x, self.effective_weight(), self.bias)

    def plain(self):
        """The nn.Linear that computes the same."""
        return self._fill(nn.Linear(self.in_features, self.out_features, bias=self.bias is not None))


def prunable(model):
    """The layers with switches, by name, in the order of computation."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, _Switches)}


def init_weights(model, experiment):
    """Kaiming-normal weights; the fan is scaled by the *kept* fraction (Ramanujan et al., section 3.2): that of all
    layers, whatever each keeps. What is to be pruned begins dense, with its dense network's weights.

    Biases start at zero. Deterministic in experiment.seed, on every device.
    """
    random = generator(experiment, "init")
    for layer in prunable(model).values():
        fan_in = layer.weight[0].numel() * (1 if experiment.search in PRUNED else 1 - experiment.sparsity)
        draw = torch.empty(layer.weight.shape).normal_(generator=random) * (2 / fan_in) ** 0.5
        with torch.no_grad():
            layer.weight.copy_(draw)
            if layer.bias is not None:
                layer.bias.zero_()


def materialize(model):
    """A copy of the model with plain nn.Conv2d and nn.Linear layers that hold the effective weights."""
    plain = copy.deepcopy(model).eval()
    for name, layer in prunable(plain).items():
        parent, _, child = name.rpartition(".")
        setattr(plain.get_submodule(parent), child, layer.plain())
    return plain

"""Patch tickets: rank the embedded patches of an image, keep the best, and compute on those only.

A selector is a module: `selector(tokens, images)` maps the tokens (T, B, N, D) of a frozen ConvPEP to a
score for each patch, (B, N). The best (1 - sparsity) N stay, in their order; ties go to the lower index.
Nothing looks at labels, and an image keeps the same patches at every step, in training and test.
registry.SELECTORS names them all: functions of (experiment, features); add yours there.
"""

import torch
from torch import nn

from sltlib import layers
from sltlib.registry import SPIKING
from sltlib.models import Parts, Time


def best(scores, sparsity):
    """Indices (B, K) of the best patches of scores (B, N), rising; K is `layers.keep_count(N, sparsity)`."""
    count = layers.keep_count(scores.shape[1], sparsity)
    order = scores.argsort(dim=1, descending=True, stable=True)  # stable: the lower index first
    return order[:, :count].sort(1).values


def keep(tokens, scores, sparsity):
    """The best tokens by scores (B, N): (T, B, N, D) to (T, B, K, D)."""
    index = best(scores, sparsity)[None, :, :, None]  # (1, B, K, 1)
    return tokens.gather(2, index.expand(len(tokens), -1, -1, tokens.shape[-1]))


@torch.no_grad()
def kept(model, x):
    """The patches that a trained spikformer with a selector keeps of its input: indices (B, K), and all N."""
    tokens = model.stem(x)
    return best(model.selector(tokens, x), model.patch_sparsity), tokens.shape[2]


class _Gate(torch.autograd.Function):
    """Scores to a mask of 0 and 1; the gradient is that of a sigmoid in its place (straight-through)."""

    @staticmethod
    def forward(ctx, scores, mask):
        ctx.save_for_backward(scores)
        return mask

    @staticmethod
    def backward(ctx, grad):
        (scores,) = ctx.saved_tensors
        open_ = scores.sigmoid()
        return grad * open_ * (1 - open_), None


def gate(tokens, scores, sparsity):
    """Tokens (T, B, N, D) whose mean is that of the best; the others are zero, but their scores learn too."""
    index = best(scores, sparsity)
    mask = torch.zeros_like(scores).scatter_(1, index, 1.0)
    return tokens * (_Gate.apply(scores, mask) * (scores.shape[1] / index.shape[1]))[None, :, :, None]


def split_heads(x, heads):
    """(B, N, D) to (B, heads, N, D / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def over_time(tokens, timesteps, spiking):
    """Tokens at every step: those of a static image without spikes, (1, B, N, D), repeat for spiking blocks."""
    return tokens.expand(timesteps, -1, -1, -1) if spiking and len(tokens) == 1 else tokens


class Rate(nn.Module):
    """The patch's firing rate, over time and features; of neurons that do not spike, the mean activation."""

    def forward(self, tokens, images):
        return tokens.mean((0, 3))


class Random(nn.Module):
    """Other patches for each image and seed: the control. A hash of the pixels, so it needs no state.

    An augmented view is another image.
    """

    def __init__(self, seed):
        super().__init__()
        self.seed = seed

    def forward(self, tokens, images):
        batch, places = tokens.shape[1:3]
        bits = images.float().contiguous().view(torch.int32).long()
        bits = bits.transpose(0, 1) if images.dim() == 5 else bits  # (B, ...)
        bits = bits.reshape(batch, -1)
        numbers = torch.arange(bits.shape[1], device=bits.device)
        seeds = _scramble(_scramble(bits + self.seed) ^ _scramble(numbers)).sum(1, keepdim=True)  # (B, 1)
        drawn = _scramble(seeds + torch.arange(places, device=bits.device))
        return (drawn & 0xFFFFFF).float()  # 24 bits: exact


def _scramble(x):
    """A fixed bijection of 64-bit integers that looks random (splitmix64, Steele et al. 2014)."""

    def shifted(value, bits):  # a logical shift: int64 has only the arithmetic one
        return (value >> bits) & ((1 << (64 - bits)) - 1)

    x = x + -7046029254386353131
    x = (x ^ shifted(x, 30)) * -4658895280553007687
    x = (x ^ shifted(x, 27)) * -7723592293110705685
    return x ^ shifted(x, 31)


class Learned(nn.Module):
    """A linear score of the patch, averaged over time; a convpep trains it by cross-entropy, through `gate`."""

    taken = {"score.": "selector.score."}

    def __init__(self, features, generator):
        super().__init__()
        self.score = nn.Linear(features, 1, bias=False)
        with torch.no_grad():
            draw = torch.empty(1, features, device="cpu")
            self.score.weight.copy_(draw.normal_(0, features**-0.5, generator=generator))

    def forward(self, tokens, images):
        return self.score(tokens.flatten(0, 1)).squeeze(-1).unflatten(0, (len(tokens), -1)).mean(0)


class ColumnSums(nn.Module):
    """Queries and keys (B, heads, N, d) to the sums over queries and heads of their attention, (B, N)."""

    def __init__(self, spiking):
        super().__init__()
        self.spiking = spiking

    def forward(self, q, k):
        if self.spiking:
            return (q.sum(2, keepdim=True) * k).sum((1, 3))
        return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1).sum((1, 2))


class Columns(nn.Module):
    """Column sums of attention: how much all queries attend to a patch, over heads and time.

    q, k : those of the first block of the source, a spikformer that sees all patches; the rest of the
    block is not computed. Spiking attention is linear, so its sums are (sum of q) k.
    """

    taken = {"q.": "blocks.0.attention.q.", "k.": "blocks.0.attention.k."}

    def __init__(self, q, k, experiment):
        super().__init__()
        self.q, self.k, self.heads = q, k, experiment.heads
        self.spiking, self.timesteps = experiment.neuron in SPIKING, experiment.timesteps
        self.sums = ColumnSums(self.spiking)

    def forward(self, tokens, images):
        tokens = over_time(tokens, self.timesteps, self.spiking)
        time, x = Time(len(tokens), len(tokens), self.spiking), tokens.flatten(0, 1)
        q, k = (split_heads(part(x, time), self.heads) for part in (self.q, self.k))  # (T B, heads, N, d)
        return self.sums(q, k).unflatten(0, (len(tokens), -1)).mean(0)


def rate(experiment, features):
    """The selector by firing rate."""
    return Rate()


def random(experiment, features):
    """The selector by chance."""
    return Random(experiment.seed)


def learned(experiment, features):
    """The learned selector."""
    return Learned(features, layers.generator(experiment, "selector"))


def attention(experiment, features):
    """The selector by the attention of the source's first block."""
    parts = Parts(experiment.source)
    return Columns(parts.token_block(features, features), parts.token_block(features, features), experiment)

"""Spikformer (Zhou et al. 2023): a convolutional patch embedding (ConvPEP) and blocks of spiking attention.

Tokens are (T, B, N, D): time steps, images, patches, features; inside the blocks time is folded into the
batch, (T B, N, D). A block adds spikes to what it gets, so tokens are small integers, not bits. With
another neuron than LIF the same graph is the non-spiking twin, whose attention is a softmax.
"""

import numpy as np
import torch
from torch import nn

from sltlib import layers, patches
from sltlib.registry import EMBEDDING, SELECTORS, SPIKING, lookup
from sltlib.models import Block, Embedded, Parts, Pool, Time, Trainable, autocast

SCALE = 0.125  # of spiking attention, whatever the size of a head (Zhou et al.)
STAGES = 4  # of the ConvPEP: D/8, D/4, D/2 and D features


class Add(nn.Module):
    """x + y, a module so that sltlib.energy sees it."""

    def forward(self, x, y):
        return x + y


class Mix(nn.Module):
    """Attention of queries, keys and values (B, heads, N, d) to (B, heads, N, d).

    spiking : (q k^T) v * SCALE, in whichever order costs less: of integers both give the same bits.
    Else softmax(q k^T / sqrt d) v.
    """

    def __init__(self, spiking):
        super().__init__()
        self.spiking = spiking

    def forward(self, q, k, v):
        k = k.transpose(-2, -1)  # (B, heads, d, N)
        if not self.spiking:
            return self.scores(q, k) @ v
        return (self.scores(q, k) @ v if self.scores_first(q) else q @ (k @ v)) * SCALE

    def scores(self, q, k):
        """How much every query attends to every key, (B, heads, N, N); k is (B, heads, d, N)."""
        return q @ k if self.spiking else (q @ k * q.shape[-1] ** -0.5).softmax(-1)

    def scores_first(self, q):
        """Whether q k^T, N x N, comes first, and not k^T v, d x d."""
        return not self.spiking or q.shape[-2] <= q.shape[-1]


class Attention(nn.Module):
    """Self-attention of tokens (T B, N, D): q, k, v by blocks, mixed, a neuron of half the threshold, projected."""

    def __init__(self, parts, features, heads, spiking):
        super().__init__()
        self.q, self.k, self.v = (parts.token_block(features, features) for _ in range(3))
        self.heads, self.mix = heads, Mix(spiking)
        # Currents are multiples of 1/8, so many sit right at the threshold: there Zhou et al.'s neuron fires, and
        # ours fires above it only. Above the float just below is at.
        threshold = float(np.nextafter(np.float32(parts.experiment.threshold / 2), np.float32(0)))
        half = dict(threshold=threshold, source=None, selector="none", patch_sparsity=0.0)
        self.neuron = parts.make_neuron(parts.experiment.replace(**half))
        self.project = parts.token_block(features, features)

    def forward(self, x, time):
        q, k, v = (patches.split_heads(part(x, time), self.heads) for part in (self.q, self.k, self.v))
        mixed = self.mix(q, k, v).transpose(1, 2).flatten(2)  # (T B, N, D)
        return self.project(time.fire(self.neuron, mixed), time)


class EncoderBlock(nn.Module):
    """x + attention(x), then x + mlp(x); the hidden layer has four times the features. (T B, N, D)."""

    def __init__(self, parts, features, heads, spiking):
        super().__init__()
        self.attention, self.add = Attention(parts, features, heads, spiking), Add()
        self.expand, self.contract = parts.token_block(features, 4 * features), parts.token_block(4 * features, features)
        self.add_mlp = Add()

    def forward(self, x, time):
        x = self.add(x, self.attention(x, time))
        return self.add_mlp(x, self.contract(self.expand(x, time), time))


class ConvPEP(nn.Module):
    """The convolutional patch embedding: images (B, C, H, W), or frames with time first, to tokens (T, B, N, D).

    Four stages conv, norm, neuron, the last `pools` of them with a max-pool (3, stride 2); then a relative
    position: x + neuron(norm(conv x)). T is 1 for a static image under neurons that do not spike.
    """

    def __init__(self, experiment, channels):
        super().__init__()
        parts = Parts(experiment.replace(neuron=experiment.stem_activation, stem_neuron="same"))
        features = round(EMBEDDING * experiment.width)
        widths = [channels, *(features >> n for n in reversed(range(STAGES)))]
        blocks = [_conv(parts, a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)]
        self.stages, self.position, self.add = nn.ModuleList(blocks), _conv(parts, features, features), Add()
        self.pools, self.timesteps = experiment.stem_pools, experiment.timesteps
        self.spiking = experiment.stem_activation in SPIKING

    def forward(self, x):
        frames = x.shape[0] if x.dim() == 5 else 1
        steps = frames if frames > 1 or not self.spiking else self.timesteps
        if x.dim() == 5:
            x = x.flatten(0, 1)  # (T B, C, H, W)
        x, time = x.contiguous(memory_format=torch.channels_last), Time(steps, frames, self.spiking)
        for place, stage in enumerate(self.stages):
            x = stage(x, time)
            if place >= STAGES - self.pools:
                x = nn.functional.max_pool2d(x, 3, 2, 1)
        x = self.add(x, self.position(x, time))  # (T B, D, H', W')
        return x.flatten(2).transpose(1, 2).unflatten(0, (time.folded, -1))


def _conv(parts, inputs, outputs):
    return Block(parts.conv(inputs, outputs), parts.norm2d(outputs), parts.neuron())


class Spikformer(Trainable):
    """ConvPEP, a selector of patches or None, encoder blocks (none in a convpep), and a linear head.

    `model(x)` maps images (B, C, H, W), frames (T, B, C, H, W) or Embedded tokens to logits (B, classes), the mean
    over time of the head's current on the mean token. `model.steps(x)` gives (T, B, classes).
    `model.embed(x)` gives the tokens that the encoder gets: all, or those that a frozen selector keeps.
    frozen : the parts that come from the experiment's source and stay as they are, norms too.
    """

    def __init__(self, stem, selector, blocks, head, experiment):
        super().__init__()
        self.stem, self.blocks, self.pool, self.head = stem, nn.ModuleList(blocks), Pool(), head
        self.selector, self.patch_sparsity = selector, experiment.patch_sparsity
        self.timesteps, self.precision = experiment.timesteps, experiment.precision
        self.spiking = bool(blocks) and experiment.neuron in SPIKING  # the encoder; the stem has its own
        if experiment.source is not None and experiment.search == "none":
            self.frozen = ("stem", "selector") if blocks and selector is not None else ("stem",)
        for part in self.frozen:
            getattr(self, part).requires_grad_(False)

    def train(self, mode=True):
        super().train(mode)
        for part in self.frozen:
            getattr(self, part).eval()
        return self

    @property
    def temporary(self):
        """The head that a ConvPEP is searched with: trained beside, never part of the ticket; else None."""
        return None if self.blocks else self.head

    def set_timesteps(self, steps):
        self.timesteps = self.stem.timesteps = steps

    def adopt(self, ticket):
        taken = {"stem.": "stem."} if self.frozen else {}
        if "selector" in self.frozen:
            taken |= {f"selector.{own}": theirs for own, theirs in getattr(self.selector, "taken", {}).items()}
        with torch.no_grad():
            for own, theirs in taken.items():
                for name, layer in layers.prunable(self).items():
                    if name.startswith(own):
                        found = ticket.layers[theirs + name.removeprefix(own)]
                        layer.fix(found.weight(), found.gain)
                state = self.state_dict(keep_vars=True)
                for name, value in ticket.rest.items():
                    if name.startswith(theirs):
                        state[own + name.removeprefix(theirs)].copy_(torch.from_numpy(value))

    @autocast
    def embed(self, x):
        tokens = self.stem(x)
        if "selector" not in self.frozen:
            return tokens
        return patches.keep(tokens, self.selector(tokens, x), self.patch_sparsity)

    @autocast
    def steps(self, x):
        """Logits of every time step, (T, B, classes); T is 1 for a network without time."""
        tokens = x.values if isinstance(x, Embedded) else self.embed(x)
        if self.selector is not None and "selector" not in self.frozen:  # it is being trained
            tokens = patches.gate(tokens, self.selector(tokens, x), self.patch_sparsity)
        tokens = patches.over_time(tokens, self.timesteps, self.spiking)
        time = Time(len(tokens), len(tokens), self.spiking)
        x = tokens.flatten(0, 1)  # (T B, N, D)
        for block in self.blocks:
            x = block(x, time)
        x = self.pool(x.transpose(1, 2)[..., None], time).flatten(1)  # (T B, D)
        return self.head(x).unflatten(0, (len(tokens), -1))

    def forward(self, x):
        return self.steps(x).mean(0)


def origin(experiment):
    """The experiment that made the ConvPEP: the first of the chain of sources."""
    while experiment.source is not None and experiment.search == "none":
        experiment = experiment.source
    return experiment


def _selector(experiment, features):
    return lookup(SELECTORS, experiment.selector)(experiment, features) if experiment.selector != "none" else None


def spikformer(experiment, channels, size, classes):
    """Spikformer: `depth` blocks of `heads` heads on tokens of 384 * width features; any size of image.

    4 blocks, width 1 and 12 heads on CIFAR-10: 9,324,730 parameters with affine norms and biases, 9,281,050
    without. For 128x128 event frames Zhou et al. take 2 blocks, 256 features, 16 heads and stem_pools=4.
    """
    features, parts = round(EMBEDDING * experiment.width), Parts(experiment)
    spiking = experiment.neuron in SPIKING
    blocks = [EncoderBlock(parts, features, experiment.heads, spiking) for _ in range(experiment.depth)]
    stem, head = ConvPEP(origin(experiment), channels), parts.linear(features, classes, bias=True)
    return Spikformer(stem, _selector(experiment, features), blocks, head, experiment)


def convpep(experiment, channels, size, classes):
    """The ConvPEP alone under a temporary linear head of float weights (arXiv 2311.12060, Algorithm 1)."""
    features = round(EMBEDDING * experiment.width)
    head = nn.Linear(features, classes)
    with torch.no_grad():
        draw = torch.empty(classes, features, device="cpu")
        head.weight.copy_(draw.normal_(0, features**-0.5, generator=layers.generator(experiment, "head")))
        head.bias.zero_()
    stem = ConvPEP(origin(experiment), channels)
    return Spikformer(stem, _selector(experiment, features), [], head, experiment)

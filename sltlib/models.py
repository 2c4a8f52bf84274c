"""The networks: conv2 to conv8 (conv6 is the paper's VGG-9), ResNet-19, and a linear classifier.

One network with three switches gives every row of the paper's Table 1. Stateless layers see time
folded into the batch, (T B, ...); only the neuron unrolls it. A static image is the same input at
every step, so the first layer and its normalisation run once (direct encoding).
"""

import functools
from typing import NamedTuple

import torch
from torch import nn

from sltlib import data, layers
from sltlib.registry import MODELS, NEURONS, lookup

# Widths of the 3x3 convolutions ("M" is a 2x2 max-pool), Ramanujan et al. 2020; then 256-256-classes.
PLANS = {
    "conv2": (64, 64, "M"),
    "conv4": (64, 64, "M", 128, 128, "M"),
    "conv6": (64, 64, "M", 128, 128, "M", 256, 256, "M"),
    "conv8": (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M"),
}


class Block(nn.Module):
    """layer, then max-pool, normalisation and neuron: (B, C, H, W) or (B, features), with B = T B inside."""

    def __init__(self, layer, norm, neuron, pool=False):
        super().__init__()
        self.layer, self.norm, self.neuron = layer, norm, neuron
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()

    def forward(self, x, time):
        return time.fire(self.neuron, self.norm(self.pool(self.layer(x))))


class Time:
    """How many steps are folded into the batch just now (1 before a static image meets its first neuron)."""

    def __init__(self, steps, folded, spiking):
        self.steps, self.folded, self.spiking = steps, folded, spiking

    def fire(self, neuron, current):
        if not self.spiking:
            return neuron(current)
        if self.folded == self.steps:
            spikes = neuron(current.unflatten(0, (self.steps, -1)))  # (T, B, ...)
        elif hasattr(neuron, "reference"):
            spikes = neuron(current, steps=self.steps)  # (B, ...) to (T, B, ...): repeats without storing
        else:
            spikes = neuron(current.expand(self.steps, *current.shape))
        self.folded = self.steps
        return spikes.flatten(0, 1)


def autocast(method):
    """A model's method in the model's precision; what it returns is float32 at least."""

    @functools.wraps(method)
    def run(self, x):
        if self.precision == "float32":
            return method(self, x)
        where = next(self.parameters()).device.type
        with torch.autocast(where, getattr(torch, self.precision)):
            return method(self, x).float()

    return run


class Embedded(NamedTuple):
    """What `embed` gave, time first: a model takes it in place of the images."""

    values: torch.Tensor


class Trainable(nn.Module):
    """What the training loop asks of a network, whichever it is; a network with nothing special leaves it so.

    frozen : the parts that come from the experiment's source and stay as they are; `adopt` puts them in.
    temporary : a layer that a search trains beside its scores and that is no part of the ticket, or None.
    """

    frozen: tuple = ()
    temporary: nn.Module | None = None

    def adopt(self, ticket):
        """Put the frozen parts as the source's ticket has them."""

    def set_timesteps(self, steps):
        """Let a network for static images run at so many steps from now on."""
        self.timesteps = steps


class Network(Trainable):
    """A stack of blocks and a last linear layer.

    `model(x)` maps images (B, C, H, W), or frames (T, B, C, H, W), to logits (B, classes): the mean over
    time of the last layer's current. `model.steps(x)` gives them for every step, (T, B, classes).
    """

    def __init__(self, blocks, hidden, head, experiment):
        super().__init__()
        self.blocks, self.hidden, self.head = nn.ModuleList(blocks), nn.ModuleList(hidden), head
        self.timesteps, self.spiking, self.precision = experiment.timesteps, experiment.spiking, experiment.precision

    @autocast
    def steps(self, x):
        """Logits of every time step, (T, B, classes); T is 1 for a network without time."""
        frames = x.shape[0] if x.dim() == 5 else 1
        steps = frames if frames > 1 or not self.spiking else self.timesteps
        if x.dim() == 5:
            x = x.flatten(0, 1)  # (T B, C, H, W)
        x = x.contiguous(memory_format=torch.channels_last)
        time = Time(steps, frames, self.spiking)
        for block in self.blocks:
            x = block(x, time)
        x = x.flatten(1)
        for block in self.hidden:
            x = block(x, time)
        return self.head(x).unflatten(0, (time.folded, -1))

    def forward(self, x):
        return self.steps(x).mean(0)


class TokenNorm(nn.BatchNorm1d):
    """Batch normalisation of each feature over images, steps and tokens: (B, N, D) to (B, N, D)."""

    def forward(self, x):
        return super().forward(x.flatten(0, 1)).view_as(x)


class Parts:
    """Builds layers, norms and neurons with an experiment's switches and width."""

    def __init__(self, experiment):
        self.experiment = experiment
        self.make_neuron = lookup(NEURONS, experiment.neuron)

    def wide(self, channels):
        return max(1, round(channels * self.experiment.width))

    def conv(self, inputs, outputs, kernel=3, stride=1):
        options = dict(stride=stride, padding=kernel // 2, bias=False, weights=self.experiment.weights)
        return layers.Conv2d(inputs, outputs, kernel, **options)

    def linear(self, inputs, outputs, bias=False):
        return layers.Linear(inputs, outputs, bias=bias, weights=self.experiment.weights)

    def norm2d(self, channels):
        return nn.BatchNorm2d(channels, affine=self.experiment.affine)

    def neuron(self):
        return self.make_neuron(self.experiment)

    def norm1d(self, features):
        return nn.BatchNorm1d(features, affine=self.experiment.affine)

    def token_block(self, inputs, outputs):
        """Linear, norm and neuron on tokens (B, N, D); a bias where the norm is affine, as in Zhou et al. 2023."""
        affine = self.experiment.affine
        return Block(self.linear(inputs, outputs, affine), TokenNorm(outputs, affine=affine), self.neuron())

    def classifier(self, sizes):
        """Hidden blocks Linear, norm, neuron for all but the last size; and the bare last layer."""
        hidden = [
            Block(self.linear(a, b), self.norm1d(b), self.neuron())
            for a, b in zip(sizes[:-2], sizes[1:-1], strict=True)
        ]
        return hidden, self.linear(sizes[-2], sizes[-1])


def vgg(experiment, channels, size, classes):
    """conv2, conv4, conv6 or conv8 for any input size and channels; conv, pool, norm, neuron."""
    parts, blocks, plan = Parts(experiment), [], PLANS[experiment.model]
    smallest = 2 ** plan.count("M")
    if size < smallest:
        raise ValueError(f"{experiment.model} halves its input {plan.count('M')} times: {size} pixels are too few")
    for step, following in zip(plan, (*plan[1:], None), strict=True):
        if step == "M":
            size //= 2
            continue
        width = parts.wide(step)
        blocks.append(Block(parts.conv(channels, width), parts.norm2d(width), parts.neuron(), following == "M"))
        channels = width
    hidden, head = parts.classifier([channels * size * size, parts.wide(256), parts.wide(256), classes])
    return Network(blocks, hidden, head, experiment)


class Residual(nn.Module):
    """conv, norm, neuron, conv, norm, plus the shortcut, then the neuron (currents are added, not spikes)."""

    def __init__(self, parts, inputs, outputs, stride):
        super().__init__()
        self.first = Block(parts.conv(inputs, outputs, stride=stride), parts.norm2d(outputs), parts.neuron())
        self.second, self.second_norm = parts.conv(outputs, outputs), parts.norm2d(outputs)
        self.neuron, self.shortcut, self.shortcut_norm = parts.neuron(), None, None
        if stride != 1 or inputs != outputs:
            self.shortcut, self.shortcut_norm = parts.conv(inputs, outputs, 1, stride), parts.norm2d(outputs)

    def forward(self, x, time):
        current = self.second_norm(self.second(self.first(x, time)))
        added = self.shortcut_norm(self.shortcut(x)) if self.shortcut else x
        return time.fire(self.neuron, current + added)


def resnet19(experiment, channels, size, classes):
    """ResNet-19: stem 64, stages of 3, 3, 2 residual blocks of 128, 256, 512 (first stride 1), 512-256-classes.

    As in Zheng et al. 2021 its linear layers have biases (where the norms are affine) and no norm.
    """
    parts = Parts(experiment)
    width = parts.wide(64)
    blocks = [Block(parts.conv(channels, width), parts.norm2d(width), parts.neuron())]
    for stage, (count, outputs) in enumerate(((3, 128), (3, 256), (2, 512))):
        for i in range(count):
            stride = 2 if i == 0 and stage > 0 else 1
            blocks.append(Residual(parts, width, parts.wide(outputs), stride))
            width = parts.wide(outputs)
    blocks.append(Pool())
    bias, fully = experiment.affine, parts.wide(256)
    hidden = [Block(parts.linear(width, fully, bias), nn.Identity(), parts.neuron())]
    return Network(blocks, hidden, parts.linear(fully, classes, bias), experiment)


class Pool(nn.Module):
    def forward(self, x, time):
        return x.mean((2, 3), keepdim=True)  # (T B, C, H, W) to (T B, C, 1, 1)


def linear(experiment, channels, size, classes):
    """A linear classifier with a bias on the pixels: the control that every ticket is shown against."""
    return Network([], [], layers.Linear(channels * size * size, classes, bias=True), experiment)


def build_model(experiment):
    """The network that an Experiment describes, with its random initial weights, dense, in training mode.

    Equal experiments give equal weights. Raises ValueError for an unknown data set or a size too small.
    """
    info = data.info(experiment.dataset)
    size = experiment.image_size or info.size
    model = lookup(MODELS, experiment.model)(experiment, info.channels, size, len(info.classes))
    layers.init_weights(model, experiment)
    return model


def neurons(model):
    """The neurons of a network by name, in the order of computation."""
    return {name.removesuffix(".neuron"): m for name, m in model.named_modules() if name.endswith("neuron")}


def count_parameters(model):
    """All weights and biases, without scores: the number that papers call the size of the network."""
    return sum(p.numel() for name, p in model.named_parameters() if not name.endswith("scores"))

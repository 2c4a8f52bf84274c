"""The same networks as users of other libraries write them, with our initial weights, to be timed beside ours.

CNNs are plain torch layers in torch's default memory layout. `SnnTorch` steps everything in a Python loop with
`snntorch.Leaky`; `SpikingJelly` is multi-step: layers see time folded into the batch, the first layer runs once
on a static image, as in its own examples. A spikformer is our graph with their neurons in it.
"""

import importlib.util
import warnings

import snntorch
import torch
from torch import nn

from sltlib import models
from sltlib.registry import TRANSFORMERS
from sltlib.models import build_model
from sltlib.pruning import prepare

HAS_SPIKINGJELLY = importlib.util.find_spec("spikingjelly") is not None


def leaky(lif):
    """snnTorch's neuron with the constants of ours."""
    return snntorch.Leaky(float(lif.beta), threshold=float(lif.threshold), reset_mechanism="zero")


def lif_node(lif):
    """spikingjelly's multi-step neuron with the constants of ours: v + (x - v / tau) = beta v + x."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from spikingjelly.activation_based import neuron, surrogate
    return neuron.LIFNode(
        tau=1 / (1 - float(lif.beta)), decay_input=False, v_threshold=float(lif.threshold), v_reset=0.0,
        surrogate_function=surrogate.ATan(alpha=2.0), detach_reset=True, step_mode="m",
    )  # fmt: skip


class _Masked(nn.Module):
    """A layer in a ticket search: its weights are made anew at every call, in torch's default layout."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        weight = self.layer.effective_weight()
        if x.dim() == 4:
            return nn.functional.conv2d(x, weight, padding=self.layer.padding)
        return nn.functional.linear(x, weight)


def _plain(layer):
    """nn.Conv2d or nn.Linear with a copy of the layer's weights, to be trained; or the same masked by scores."""
    if layer.connections == "search":
        return _Masked(layer)
    plain = layer.plain()
    for p in plain.parameters():
        p.requires_grad_(True)
    return plain


class _Layers(nn.Module):
    """The stack of a CNN: [(layer, pool, norm, neuron)] and the last layer."""

    def __init__(self, experiment, make_neuron):
        super().__init__()
        net = prepare(build_model(experiment), experiment)
        blocks = [*net.blocks, *net.hidden]
        self.timesteps, self.flat = experiment.timesteps, len(net.blocks)
        self.layers = nn.ModuleList(
            nn.Sequential(_plain(b.layer), nn.MaxPool2d(2) if isinstance(b.pool, nn.MaxPool2d) else nn.Identity(), b.norm)
            for b in blocks
        )
        self.neurons = nn.ModuleList(make_neuron(b.neuron) for b in blocks)
        self.head = _plain(net.head)


class SnnTorch(_Layers):
    """A time loop over the whole network, as in snnTorch's tutorials."""

    def __init__(self, experiment):
        super().__init__(experiment, leaky)

    def forward(self, images):
        membranes = [neuron.reset_mem() for neuron in self.neurons]
        recorded = []
        for _ in range(self.timesteps):
            x = images
            for i, (layer, neuron) in enumerate(zip(self.layers, self.neurons, strict=True)):
                x, membranes[i] = neuron(layer(x.flatten(1) if i == self.flat else x), membranes[i])
            recorded.append(self.head(x))
        return torch.stack(recorded).mean(0)


class SpikingJelly(_Layers):
    """Multi-step: (T, B, ...) through SeqToANNContainer and LIFNode; the first layer once."""

    def __init__(self, experiment):
        from spikingjelly.activation_based import functional, layer

        super().__init__(experiment, lif_node)
        self.clear, self.fold = functional.reset_net, [layer.SeqToANNContainer(x) for x in self.layers]
        self.fold_head = layer.SeqToANNContainer(self.head)

    def forward(self, images):
        self.clear(self)
        x = self.layers[0](images).unsqueeze(0).repeat(self.timesteps, *[1] * images.dim())
        x = self.neurons[0](x)
        for i in range(1, len(self.layers)):
            x = self.neurons[i](self.fold[i](x.flatten(2) if i == self.flat else x))
        return self.fold_head(x).mean(0)


class _Stepped(nn.Module):
    """snnTorch's neuron where ours was, for one step a call: (1, B, ...) or (B, ...) to (1, B, ...)."""

    def __init__(self, lif):
        super().__init__()
        self.neuron, self.membrane = leaky(lif), None

    def forward(self, current, steps=None):
        current = current if steps else current[0]
        spikes, self.membrane = self.neuron(current, self.neuron.reset_mem() if self.membrane is None else self.membrane)
        return spikes[None]


class _Multi(nn.Module):
    """spikingjelly's neuron where ours was: (T, B, ...) to the same."""

    def __init__(self, lif):
        super().__init__()
        self.neuron = lif_node(lif)

    def forward(self, current, steps=None):
        return self.neuron(current.unsqueeze(0).repeat(steps, *[1] * current.dim()) if steps else current)


def _swap(experiment, make):
    """Our network with other neurons, and those."""
    model, there = build_model(experiment), []
    for name, lif in list(model.named_modules()):
        if name.endswith("neuron") and isinstance(lif, models.nn.Module) and hasattr(lif, "reference"):
            parent, _, child = name.rpartition(".")
            there.append(make(lif))
            setattr(model.get_submodule(parent), child, there[-1])
    return model, there


class SnnTorchGraph(nn.Module):
    """Our spikformer's graph, stepped: the whole network once for every time step."""

    def __init__(self, experiment):
        super().__init__()
        self.timesteps = experiment.timesteps
        self.net, self.neurons = _swap(experiment.replace(timesteps=1), _Stepped)

    def forward(self, images):
        for neuron in self.neurons:
            neuron.membrane = None
        return torch.stack([self.net(images) for _ in range(self.timesteps)]).mean(0)


class SpikingJellyGraph(nn.Module):
    """Our spikformer's graph with spikingjelly's neurons."""

    def __init__(self, experiment):
        from spikingjelly.activation_based import functional

        super().__init__()
        self.clear = functional.reset_net
        self.net, _ = _swap(experiment, _Multi)

    def forward(self, images):
        self.clear(self)
        return self.net(images)


def contestants(experiment):
    """{name: a model} of the libraries that are here; "ours" is first."""
    graph = experiment.model in TRANSFORMERS
    out = {"ours": prepare(build_model(experiment), experiment), "snnTorch": (SnnTorchGraph if graph else SnnTorch)(experiment)}
    if HAS_SPIKINGJELLY:
        out["spikingjelly"] = (SpikingJellyGraph if graph else SpikingJelly)(experiment)
    return out

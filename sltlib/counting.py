"""How the operations of a network are counted: from what its layers really get, synapse by synapse.

`count(model, batch)` watches a network run and gives one row a layer. `sltlib.energy` prices them.
"""

import numpy as np
import pandas as pd
import snntorch
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sltlib import models, patches, spikformer
from sltlib.neurons import Sign

CHUNK = 100  # images that run at once
# What the columns of `count` are in; "an inference" is one image, or one recording of T frames.
UNITS = {
    "steps": "runs of the layer an inference",
    "inputs": "neurons or pixels",
    "outputs": "neurons, before pooling",
    "weights": "weights",
    "kept": "weights",
    "macs": "multiply-accumulates an inference",
    "kept_macs": "multiply-accumulates an inference",
    "effective_macs": "multiply-accumulates an inference",
    "synapses": "kept synapses an inference",
    "rate": "spikes an input and step, 0 to 1",
    "spikes": "spikes into the layer an inference",
    "sops": "additions an inference",
    "neurons": "LIF neurons that the layer feeds",
    "timesteps": "steps",
}
LAYERS = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
MEANS = models.Pool | nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d | nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d
ACTIVATIONS = nn.ReLU | nn.ReLU6 | nn.LeakyReLU | nn.PReLU | nn.ELU | nn.GELU | nn.SiLU | nn.Sigmoid | nn.Tanh | nn.Softmax
UNCOUNTED = nn.RNNBase | nn.RNNCellBase | nn.MultiheadAttention | nn.Bilinear  # one call of torch each: nothing to see inside


def neurons_of(model, more=()):
    """{name: (neuron, what it gives: "spikes", "sign" or "real")}, by type; the innermost of nested ones.

    LIF and all of snnTorch's neurons spike, and `more` types; so does what stands as the neuron of a block
    of this project in a network, or a ConvPEP, that calls itself spiking.
    """
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, (snntorch.SpikingNeuron, *more)):
            found[name] = module, "spikes"
        elif isinstance(module, Sign):
            found[name] = module, "sign"
        elif isinstance(module, ACTIVATIONS):
            found[name] = module, "real"
    for name, block in model.named_modules():
        if isinstance(block, models.Block | models.Residual | spikformer.Attention):
            part = model.stem if name.startswith("stem.") else model
            own = f"{name}.neuron".lstrip(".")
            if not any(f"{other}.".startswith(f"{own}.") for other in found):
                found[own] = block.neuron, "spikes" if getattr(part, "spiking", False) else "real"
    return {name: kind for name, kind in found.items() if not any(other.startswith(f"{name}.") for other in found)}


def fan_out(layer, kept, inputs):
    """How many kept synapses leave each input of one image, in the shape `inputs`: the gradient of the outputs' sum."""
    if isinstance(layer, nn.Linear):
        return kept.sum(0).expand(inputs)  # (features,), or (tokens, features)
    with torch.enable_grad():
        x = torch.zeros(1, *inputs, device=kept.device, requires_grad=True)
        (fan,) = torch.autograd.grad(layer._conv_forward(x, kept, None).sum(), x)
    return fan[0].round()


def _describe(layer, x, out):
    """What of a layer does not depend on spikes: a row, and its inputs' fan-out.

    A weight that is zero is a synapse that is not there. layer None : a residual's addition.
    """
    row = {"input_shape": tuple(x.shape[1:]), "output_shape": tuple(out.shape[1:]), "outputs": out[0].numel()}
    if layer is None:
        nothing = dict.fromkeys(("weights", "kept", "macs", "kept_macs"), 0)
        return row | nothing | {"kind": "add", "binary": False}, torch.ones_like(x[0])
    weight = layer.effective_weight() if hasattr(layer, "effective_weight") else layer.weight
    kept, places = weight != 0, out[0].numel() // len(weight)
    count, sizes = int(kept.sum()), weight[kept].abs()
    row |= {"kind": "conv" if weight.dim() > 2 else "linear", "weights": weight.numel(), "kept": count}
    row |= {"binary": bool(count and sizes.min() == sizes.max())}
    row |= {"macs": places * weight.numel(), "kept_macs": places * count}
    return row, fan_out(layer, kept.float(), x.shape[1:])


def _whole(x):
    return (x - x.round()).abs().max() <= 1e-3


class _Counter:
    """Hooks that fill `rows` in the order of computation, with sums over images; axes : from `_axes`."""

    def __init__(self, model, neurons, axes):
        self.rows, self.fans, self.sums, self.cells, self.hooks = {}, {}, {}, {}, []
        self.axes, self.last, self.pooled, self.fired, self.images = axes, None, None, False, 0
        kinds = {kind for _, kind in neurons.values()}
        self.input = next((kind for kind in ("spikes", "sign") if kind in kinds), "real")
        self.mixed = len(kinds) > 1  # then the values say what a layer gets
        watched = [
            (LAYERS, self._layer), (models.Residual, self._identity), (MEANS, self._pool), (spikformer.Add, self._sum),
            (patches.Rate, self._rate), (spikformer.Mix, self._mix), (patches.ColumnSums, self._columns),
        ]  # fmt: skip
        for name, module in model.named_modules():
            for types, function in watched:
                if isinstance(module, types):
                    self._hook(module, function, name)
        for name, (neuron, kind) in neurons.items():
            if kind != "real":
                self._hook(neuron, self._fire, name)

    def _hook(self, module, function, name):
        def called(module, args, out):
            with torch.autocast(args[0].device.type, enabled=False):  # sums that are exact
                function(name, module, args, out)

        self.hooks.append(module.register_forward_hook(called))

    def _kind(self, x):
        """What a layer gets: "real", "spikes" or "sign"; sums of spikes and of signs too."""
        if self.input == "real" or not self.fired:
            return "real"
        if not self.mixed:
            return self.input
        if not _whole(x):
            return "real"
        return "sign" if self.input == "sign" or (x < 0).any() else "spikes"

    def _layer(self, name, layer, args, out):
        x_axis, out_axis = self.axes[name]
        x = args[0].flatten(0, x_axis)
        if self.input == "real" and self.rows and x.any() and torch.equal(x, x.round()):
            raise ValueError(
                f"{name} gets whole numbers only, as spikes are, but the model has no neuron that is known to spike: "
                "give its type, count(model, batch, neurons=(YourNeuron,))"
            )
        self._tally(name, layer, x, out.flatten(0, out_axis))
        self.last = name

    def _identity(self, name, block, args, out):
        if block.shortcut is None:
            self._tally(f"{name}.identity", None, args[0], out)

    def _pool(self, name, module, args, out):
        """Remember the sums under a mean: in low precision the mean itself is not exact."""
        places = args[0].numel() // out.numel()
        sums = module.forward(args[0].double(), *args[1:]) * places
        self.pooled = out.flatten(), sums, places

    def _fire(self, name, neuron, args, out):
        self.fired = True
        spikes = out[0] if isinstance(out, tuple) else out
        if not isinstance(neuron, Sign):  # it has no membrane
            self.cells.setdefault(name, (self.last, spikes.shape[self.axes[name][1] + 1 :].numel()))

    def _sum(self, name, module, args, out):
        """A sum of reals costs additions; spikes that meet are delivered both, and counted where they are used."""
        if self._kind(out) == "real":
            return self._tally(name, None, out, out)
        row, _ = _describe(None, out, out)
        self._note(name, row | {"input": self._kind(out), "inputs": 0}, [len(out), 0, 0, 0, 0, 0])

    def _rate(self, name, module, args, scores):
        """A selector that counts spikes: an addition each (of reals, an addition each token and feature)."""
        self._tally(name, None, *[args[0].flatten(0, 1)] * 2)  # (T B, N, D)

    def _mix(self, name, mix, args, out):
        """Attention's two products, in the order in which they are computed."""
        q, k, v = (part.float() for part in args)
        k = k.transpose(-2, -1)
        if mix.scores_first(q):
            self._product(f"{name}.first", q, k)
            self._product(f"{name}.second", mix.scores(q, k), v)
        else:
            self._product(f"{name}.first", k, v)
            self._product(f"{name}.second", q, k @ v)
        self.last = f"{name}.second"

    def _columns(self, name, sums, args, out):
        """Linear attention's column sums, (sum of q) k: an addition each spike; a softmax needs all scores."""
        q, k = args
        if not sums.spiking:
            return self._product(name, q.float(), k.float().transpose(-2, -1))
        self._tally(name, None, *[torch.cat([q, k], 1)] * 2)  # (T B, 2 heads, N, d)

    def _product(self, name, left, right):
        """A product of two activations (B, heads, n, m) and (B, heads, m, p).

        Of whole numbers: an addition where both are not zero. Else multiply-accumulates.
        """
        kind = "real"
        if self.fired and _whole(left) and _whole(right):
            kind = "sign" if (left < 0).any() or (right < 0).any() else "spikes"
        used = [(side != 0).float() for side in (left, right)]
        active, inputs = sum(float(side.sum()) for side in used), left[0].numel() + right[0].numel()
        outputs, terms = left.shape[1] * left.shape[2] * right.shape[3], left[0].numel() * right.shape[3]
        row = {"input_shape": tuple(left.shape[1:]), "output_shape": (*left.shape[1:3], right.shape[3])}
        row |= {"outputs": outputs, "kind": "attention", "binary": False, "weights": 0, "kept": 0}
        row |= {"macs": terms, "kept_macs": terms, "input": kind, "inputs": inputs}
        both = float((used[0] @ used[1]).sum(dtype=torch.float64))
        counted = [0, 0, both] if self.rows.get(name, row)["input"] == "real" else [active, both, 0]
        self._note(name, row, [len(left), len(left) * terms, active, *counted])

    def _note(self, name, row, sums):
        """Add sums over images to a row, made the first time: steps, synapses, active, spikes, sops, effective."""
        if name not in self.rows:
            self.rows[name], self.sums[name] = row | {"pooled": 1}, np.zeros(6)
        self.sums[name] += sums

    def _tally(self, name, layer, x, out):
        """Add what (T B, ...) inputs make a layer do."""
        pooled = 1
        # A mean of n spiking neurons is an integer over n, and that 1/n goes to the weights.
        if self.pooled and self.input != "real" and torch.equal(x.flatten(), self.pooled[0]):
            x, pooled = self.pooled[1].reshape(x.shape), self.pooled[2]
        if name not in self.rows:
            kind, places = self._kind(x), pooled
            row, fan = _describe(layer, x, out)
            pooled = 1 if kind == "real" else places
            row |= {"input": kind, "pooled": pooled, "inputs": x[0].numel() * pooled}
            self.rows[name], self.fans[name], self.sums[name] = row, fan.double(), np.zeros(6)
        row, fan = self.rows[name], self.fans[name]
        if tuple(x.shape[1:]) != row["input_shape"]:
            raise ValueError(f"{name} gets inputs of the shapes {row['input_shape']} and {tuple(x.shape[1:])}: give it one")
        real, synapses = row["input"] == "real", len(x) * row["pooled"] * float(fan.sum())
        values = (x != 0).float() if real else x.abs()
        if not _whole(values):
            raise ValueError(f"{name} gets inputs that are no sums of spikes or signs: no way to count them")
        values = values.round().sum(0, dtype=torch.float64)
        active, delivered = float(values.sum()), float((values * fan).sum())
        sops = delivered if not real else synapses if layer is None else 0
        effective = delivered if real and layer is not None else 0
        self.sums[name] += [len(x), synapses, active, 0 if real else active, sops, effective]

    def table(self):
        table = pd.DataFrame.from_dict(self.rows, orient="index").rename_axis("layer")
        sums = np.array(list(self.sums.values())) / self.images
        table["steps"] = sums[:, 0].round().astype(int)
        table["synapses"], table["spikes"], table["sops"], table["effective_macs"] = sums[:, [1, 3, 4, 5]].T
        table["rate"] = sums[:, 2] / (table["inputs"] * table["steps"]).clip(lower=1)
        table["timesteps"], table["neurons"] = int(table["steps"].max()), 0
        for layer, cells in self.cells.values():
            if layer is not None:
                table.loc[layer, "neurons"] += cells
        table[["macs", "kept_macs"]] = table[["macs", "kept_macs"]].mul(table["steps"], axis=0)
        for shape in ("input_shape", "output_shape"):
            table[shape] = ["x".join(map(str, sizes)) for sizes in table[shape]]
        told = ["kind", "input", "input_shape", "output_shape", "binary"]
        table = table[[*told, *UNITS]]
        table.attrs["units"] = dict(UNITS)
        return table


def _axes(model, batch, watched):
    """{name: the axes of a watched module's input and output that grow with images}, and the network's MACs an image."""
    shapes, where = [], batch.dim() - 4
    names = {module: name for name, module in watched.items()}

    def see(module, args, out):
        shapes[-1][names[module]] = args[0].shape, (out[0] if isinstance(out, tuple) else out).shape

    hooks = [module.register_forward_hook(see) for module in names]
    try:
        for images in (1, 2):
            shapes.append({})
            with FlopCounterMode(display=False) as meter:
                model(torch.cat([batch.narrow(where, 0, 1)] * images, where))
    finally:
        for hook in hooks:
            hook.remove()
    axes = {name: tuple(map(_grown, [name] * 2, one, shapes[1][name])) for name, one in shapes[0].items()}
    return axes, meter.get_total_flops() // 4  # two images, two operations each


def _grown(name, one, two):
    """0 where time is folded into the images, or there is none; 1 where they lie behind time."""
    for axis in (0, 1):
        if len(one) > axis and [*one[:axis], 2 * one[axis], *one[axis + 1 :]] == [*two]:
            return axis
    raise ValueError(
        f"{name} has the shape {tuple(one)} for one image and {tuple(two)} for two: "
        "count wants the images first (time folded in) or behind time"
    )


@torch.no_grad()
def count(model, batch, neurons=()):
    """Count the operations of an inference in every layer: a DataFrame with a row a layer, units in attrs.

    model : any network of `build_model`, searched, masked, with a ticket applied, or materialized; or one of
    your own of nn.Conv1d to 3d and nn.Linear, whose inputs have the images first or behind time.
    batch : images (B, C, H, W) or frames (T, B, C, H, W), normalised as for training. Rows are means
    over the B images. The model is put in evaluation mode and left as it was found.
    neurons : types of modules that spike, beside LIF and snnTorch's, which are known.

    input : "real" (until a neuron fires, and all of a relu network), "spikes" or "sign" (plus or minus one).
    binary : all kept weights have one magnitude. macs : of the dense layer, zeros of the padding too, as
    papers count: once for the first layer of a static image, else times the steps. kept_macs : of the
    kept (not zero) weights. effective_macs : those of real inputs that are not zero (NeuroBench's), no
    padding. synapses : kept_macs without the padding. rate : spikes an input and step;
    of real inputs the share that is not zero. sops : additions, one for each kept synapse that an input
    spike really runs through; 0 for real inputs. The papers' rate * macs charges the padding too.
    Integer inputs count by value: the mean over places before ResNet-19's linear layers is folded into
    their weights, so every spike under it counts, and `inputs` are those before it.
    Attention is two rows of kind "attention", in the order in which they are computed: of spikes, an
    addition where both operands are not zero (an integer that a spike selects is one addition); of reals,
    multiply-accumulates. Softmax, and comparing scores to choose patches, cost nothing. What a selector
    of patches computes has rows of its own ("selector...").
    kind "add" : a residual without a convolution adds its input's values to the currents (a relu
    network adds every element). In a Spikformer spikes are added to spikes: nothing is computed, and
    what gets the sum counts it by value. A shortcut's convolution adds into its block's sums: no more additions.
    neurons (the column) : two layers that feed the same neurons have them at the later one.

    Raises ValueError for a batch of another shape, inputs of a spiking layer that are not integers, neurons
    that seem to spike and are not known, a model without layers, or one that multiplies outside of them.
    """
    if batch.dim() not in (4, 5) or not batch.numel():
        shape = tuple(batch.shape)
        raise ValueError(f"batch has the shape {shape}: give images (B, C, H, W) or frames (T, B, C, H, W)")
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LAYERS)}
    if not layers:
        raise ValueError(f"the model, a {type(model).__name__}, has no convolution and no linear layer: nothing to count")
    if opaque := [f"{n} ({type(m).__name__})" for n, m in model.named_modules() if isinstance(m, UNCOUNTED)]:
        raise ValueError(f"no way to count what {', '.join(opaque)} computes: give a model of convolutions and linear layers")
    found = neurons_of(model, tuple(neurons))
    was = {module: module.training for module in model.modules()}
    model.eval()
    counter = None
    try:
        axes, macs = _axes(model, batch, layers | {name: neuron for name, (neuron, _) in found.items()})
        counter = _Counter(model, found, axes)
        for part in batch.split(CHUNK, batch.dim() - 4):
            counter.images += part.shape[-4]
            model(part)
    finally:
        for hook in counter.hooks if counter else ():
            hook.remove()
        for module, training in was.items():
            module.training = training
    table = counter.table()
    if (counted := int(table["macs"].sum())) != macs:
        raise ValueError(
            f"the model multiplies {macs:,} times an image, and its convolutions, linear layers and attention "
            f"{counted:,} times: the others have no row here, so there is no way to count them"
        )
    return table

"""Operations of a network, counted from its real spikes, and their energy under three models.

`count(model, batch)` runs any network of this project and gives one row a layer; `energy(counts,
model)` prices them. Energy is that of arithmetic and memory at 45 nm: no clock, leakage or off-chip
memory. Pooling, normalisation and biases are folded into the layers and cost nothing.
"""

import numpy as np
import pandas as pd
import torch
from torch import nn

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
    "synapses": "kept synapses an inference",
    "rate": "spikes an input and step, 0 to 1",
    "spikes": "spikes into the layer an inference",
    "sops": "additions an inference",
    "neurons": "LIF neurons that the layer feeds",
    "timesteps": "steps",
}

ARITHMETIC = {"mac": 4.6, "add": 0.9}  # pJ, float32: 3.7 multiply + 0.9 add (Horowitz, ISSCC 2014, 45 nm)
INTEGER = {"mac": 0.23, "add": 0.1}  # pJ, int8: 0.2 multiply + 0.03 add; int32 add (the same source)
MEMORY = {"mac": 3.2, "add": 0.1}  # pJ, int32: 3.1 multiply + 0.1 add (the same source; Lemaire 2022)
SRAM = {2**13: 10.0, 2**15: 20.0, 2**20: 100.0}  # bytes: pJ an access (the same source; Lemaire 2022)
FIFO = 1000  # spikes that wait before a layer, 32 bits each (Lemaire 2022)

# The paper's energy on CIFAR10, one over the other (arXiv 2309.13302; SNN is dense, MPSLT its ticket).
PAPER = {("ANN", "SNN"): 4.80, ("ANN", "MPSLT"): 8.92, ("SNN", "MPSLT"): 1.86}


def _fan_out(layer, kept, inputs, outputs):
    """How many kept synapses leave each input, borders included; inputs, outputs: shapes of one image."""
    if isinstance(layer, nn.Linear):
        return kept.sum(0).expand(inputs)  # (features,), or (tokens, features)
    options = (layer.stride, layer.padding, layer.dilation, layer.groups)
    return nn.grad.conv2d_input((1, *inputs), kept, kept.new_ones(1, *outputs), *options)[0]


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
    row |= {"kind": "conv" if weight.dim() == 4 else "linear", "weights": weight.numel(), "kept": count}
    row |= {"binary": bool(count and sizes.min() == sizes.max())}
    row |= {"macs": places * weight.numel(), "kept_macs": places * count}
    return row, _fan_out(layer, kept.to(x.dtype), x.shape[1:], out.shape[1:])


def _whole(x):
    return (x - x.round()).abs().max() <= 1e-3


class _Counter:
    """Hooks that fill `rows` in the order of computation, with sums over images."""

    def __init__(self, model):
        self.rows, self.fans, self.sums, self.last, self.pooled, self.images = {}, {}, {}, None, 1, 0
        spiking, former = getattr(model, "spiking", False), isinstance(model, spikformer.Spikformer)
        stem_spiking = model.stem.spiking if former else spiking
        signs = any(isinstance(module, Sign) for module in model.modules())
        self.input, self.hooks = "spikes" if spiking or stem_spiking else "sign" if signs else "real", []
        # a ConvPEP of one neuron under blocks of another: then the values say what a layer gets
        self.mixed = former and len({type(neuron) for neuron in models.neurons(model).values()}) > 1
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                self._hook(module, self._layer, name)
            elif isinstance(module, models.Residual) and module.shortcut is None:
                self._hook(module, self._identity, f"{name}.identity")
            elif isinstance(module, models.Pool):
                self._hook(module, self._pool, name)
            elif isinstance(module, spikformer.Add):
                self._hook(module, self._sum, name)
            elif isinstance(module, patches.Rate):
                self._hook(module, self._rate, name)
            elif isinstance(module, spikformer.Mix | patches.ColumnSums):
                how = self._mix if isinstance(module, spikformer.Mix) else self._columns
                hook = module.register_forward_hook(lambda module, args, out, name=name, how=how: how(name, module, *args))
                self.hooks.append(hook)
        for name, neuron in models.neurons(model).items():
            if stem_spiking if name.startswith("stem.") else spiking:
                self._hook(neuron, self._neuron, name)

    def _hook(self, module, function, name):
        hook = module.register_forward_hook(lambda module, args, out: function(name, module, args[0], out))
        self.hooks.append(hook)

    def _kind(self, x):
        """What a layer gets: "real", "spikes" or "sign"; sums of spikes and of signs too."""
        if not self.mixed:
            return self.input
        if not _whole(x * self.pooled):
            return "real"
        return "sign" if self.input == "sign" or (x < 0).any() else "spikes"

    def _layer(self, name, layer, x, out):
        self._tally(name, layer, x, out)
        self.last = name

    def _identity(self, name, block, x, out):
        self._tally(name, None, x, out)

    def _pool(self, name, module, x, out):
        self.pooled = x[0, 0].numel()

    def _neuron(self, name, neuron, current, spikes):
        self.rows[self.last]["neurons"] = spikes[0, 0].numel()

    def _sum(self, name, module, x, out):
        """A sum of reals costs additions; spikes that meet are delivered both, and counted where they are used."""
        if self._kind(out) == "real":
            return self._tally(name, None, out, out)
        row, _ = _describe(None, out, out)
        self._note(name, row | {"input": self._kind(out), "inputs": 0}, [len(out), 0, 0, 0, 0])

    def _rate(self, name, module, tokens, scores):
        """A selector that counts spikes: an addition each (of reals, an addition each token and feature)."""
        tokens = tokens.flatten(0, 1)  # (T B, N, D)
        self._tally(name, None, tokens, tokens)

    def _mix(self, name, mix, q, k, v):
        """Attention's two products, in the order in which they are computed."""
        k = k.transpose(-2, -1)
        if mix.scores_first(q):
            self._product(f"{name}.first", q, k)
            self._product(f"{name}.second", mix.scores(q, k), v)
        else:
            self._product(f"{name}.first", k, v)
            self._product(f"{name}.second", q, k @ v)
        self.last = f"{name}.second"

    def _columns(self, name, sums, q, k):
        """Linear attention's column sums, (sum of q) k: an addition each spike; a softmax needs all scores."""
        if not sums.spiking:
            return self._product(name, q, k.transpose(-2, -1))
        both = torch.cat([q, k], 1)  # (T B, 2 heads, N, d)
        self._tally(name, None, both, both)

    def _product(self, name, left, right):
        """A product of two activations (B, heads, n, m) and (B, heads, m, p).

        Of whole numbers: an addition where both are not zero. Else multiply-accumulates.
        """
        kind = "real"
        if _whole(left) and _whole(right):
            kind = "sign" if (left < 0).any() or (right < 0).any() else "spikes"
        used = [(side != 0).float() for side in (left, right)]
        active, inputs = sum(float(side.sum()) for side in used), left[0].numel() + right[0].numel()
        outputs, terms = left.shape[1] * left.shape[2] * right.shape[3], left[0].numel() * right.shape[3]
        row = {"input_shape": tuple(left.shape[1:]), "output_shape": (*left.shape[1:3], right.shape[3])}
        row |= {"outputs": outputs, "kind": "attention", "binary": False, "weights": 0, "kept": 0}
        row |= {"macs": terms, "kept_macs": terms, "input": kind, "inputs": inputs}
        both = float((used[0] @ used[1]).sum(dtype=torch.float64))
        counted = [0, 0] if self.rows.get(name, row)["input"] == "real" else [active, both]
        self._note(name, row, [len(left), len(left) * terms, active, *counted])

    def _note(self, name, row, sums):
        """Add sums over images to a row, made the first time: steps, synapses, active, spikes, sops."""
        if name not in self.rows:
            self.rows[name], self.sums[name] = row | {"pooled": 1, "neurons": 0}, np.zeros(5)
        self.sums[name] += sums

    def _tally(self, name, layer, x, out):
        """Add what (T B, ...) inputs make a layer do."""
        if name not in self.rows:
            kind = self._kind(x) if self.rows else "real"
            pooled = 1 if kind == "real" else self.pooled
            row, fan = _describe(layer, x, out)
            row |= {"input": kind, "pooled": pooled, "inputs": x[0].numel() * pooled, "neurons": 0}
            self.rows[name], self.fans[name], self.sums[name] = row, fan.double(), np.zeros(5)
        row, fan, self.pooled = self.rows[name], self.fans[name], 1
        real, synapses = row["input"] == "real", len(x) * row["pooled"] * float(fan.sum())
        # A mean of n spiking neurons is an integer over n, and that 1/n goes to the weights.
        values = (x != 0).float() if real else (x * row["pooled"]).abs()
        if not _whole(values):
            raise ValueError(f"{name} gets inputs that are no sums of spikes or signs: no way to count them")
        values = values.round().sum(0, dtype=torch.float64)
        active = float(values.sum())
        sops = float((values * fan).sum()) if not real else synapses if layer is None else 0
        self.sums[name] += [len(x), synapses, active, 0 if real else active, sops]

    def table(self):
        table = pd.DataFrame.from_dict(self.rows, orient="index").rename_axis("layer")
        sums = np.array(list(self.sums.values())) / self.images
        table["steps"] = sums[:, 0].round().astype(int)
        table["synapses"], table["spikes"], table["sops"] = sums[:, 1], sums[:, 3], sums[:, 4]
        table["rate"] = sums[:, 2] / (table["inputs"] * table["steps"]).clip(lower=1)
        table["timesteps"] = int(table["steps"].max())
        table[["macs", "kept_macs"]] = table[["macs", "kept_macs"]].mul(table["steps"], axis=0)
        for shape in ("input_shape", "output_shape"):
            table[shape] = ["x".join(map(str, sizes)) for sizes in table[shape]]
        told = ["kind", "input", "input_shape", "output_shape", "binary"]
        table = table[[*told, *UNITS]]
        table.attrs["units"] = dict(UNITS)
        return table


@torch.no_grad()
def count(model, batch):
    """Count the operations of an inference in every layer: a DataFrame with a row a layer, units in attrs.

    model : any network of `build_model`, searched, masked, with a ticket applied, or materialized.
    batch : images (B, C, H, W) or frames (T, B, C, H, W), normalised as for training. Rows are means
    over the B images. The model is put in evaluation mode and left as it was found.

    input : "real" (the first layer, and all of a relu network), "spikes" or "sign" (plus or minus one).
    binary : all kept weights have one magnitude. macs : of the dense layer, zeros of the padding too, as
    papers count: once for the first layer of a static image, else times the steps. kept_macs : of the
    kept (not zero) weights. synapses : the same without the padding. rate : spikes an input and step;
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
    neurons : two layers that feed the same neurons have them at the later one.

    Raises ValueError for a batch of another shape, or inputs of a spiking layer that are not integers.
    """
    if batch.dim() not in (4, 5) or not batch.numel():
        shape = tuple(batch.shape)
        raise ValueError(f"batch has the shape {shape}: give images (B, C, H, W) or frames (T, B, C, H, W)")
    was = {module: module.training for module in model.modules()}
    model.eval()
    counter = _Counter(model)
    try:
        for part in batch.split(CHUNK, batch.dim() - 4):
            counter.images += part.shape[-4]
            model(part)
    finally:
        for hook in counter.hooks:
            hook.remove()
        for module, training in was.items():
            module.training = training
    return counter.table()


def dense_ann(counts):
    """The counts of the dense relu network of the same shape, which runs once (on frames: once a frame)."""
    ann, once = counts.copy(), int(counts["steps"].iloc[0])
    linear, add = counts["kind"] == "linear", counts["kind"] == "add"
    places = (counts["macs"] // (counts["steps"] * counts["weights"].clip(lower=1))).where(linear, 1)  # tokens
    ann["inputs"] = counts["inputs"].where(~linear, places * (counts["weights"] // (counts["outputs"] // places)))
    ann["inputs"] = ann["inputs"].where(~add, counts["outputs"])
    ann["macs"] = ann["kept_macs"] = counts["macs"] // counts["steps"] * once
    ann["kept"] = counts["weights"]
    ann["sops"] = (counts["outputs"] * float(once)).where(add, 0.0)
    ann["synapses"] = np.nan  # those of a dense layer are not known from a sparse one's
    ann["rate"], ann["spikes"], ann["neurons"] = np.nan, 0.0, 0
    return ann.assign(input="real", binary=False, steps=once, timesteps=once)


def arithmetic(counts):
    """The papers' model: a float32 multiply-accumulate a real input, a float32 addition a spike or sign.

    Neuron updates are free. Binary weights under real inputs are charged as multiply-accumulates.
    """
    macs = counts["kept_macs"].where(counts["input"] == "real", 0)
    return {"operations_pj": ARITHMETIC["mac"] * macs + ARITHMETIC["add"] * counts["sops"]}


def integer(counts):
    """Integers: an int32 addition where inputs or weights are binary, else an int8 multiply-accumulate.

    Neuron updates are free. That accuracy survives int8 is assumed, not measured.
    """
    macs = counts["kept_macs"].where(counts["input"] == "real", 0)
    price = np.where(counts["binary"], INTEGER["add"], INTEGER["mac"])
    return {"operations_pj": price * macs + INTEGER["add"] * counts["sops"]}


def access(size):
    """pJ to read or write one value in an SRAM of `size` bytes, linear between the published sizes.

    Ours: below the smallest its price holds, above the largest the last line goes on.
    """
    x, y = np.array(list(SRAM)), np.array(list(SRAM.values()))
    slope = (y[-1] - y[-2]) / (x[-1] - x[-2])
    return np.interp(size, x, y) + slope * np.maximum(np.asarray(size) - x[-1], 0)


def memory(counts):
    """Arithmetic and memory after Lemaire et al. 2022 (arXiv 2210.13107), int32, on exact counts.

    Real and sign inputs: every synapse reads an input and a weight (linear layers read each input once),
    every output is written once. Spikes: each is written to and read from its layer's queue; each
    synapse reads a weight and reads and writes a potential. A LIF neuron reads, leaks and writes its
    potential each step (and reads its current, where a layer of real inputs wrote it). Addresses: an
    addition a value walked over, or a spike's synapse; two multiply-accumulates a spike into a convolution.
    Values take 32 bits, binary weights and signs 1, a mask 1 a weight; an access moves one value
    whatever its width. Attention's second operand is read like a weight, at the smallest price (optimistic).
    Removed weights cost nothing else: finding the kept ones is free (optimistic).
    """
    spikes, add, conv = counts["input"] == "spikes", counts["kind"] == "add", counts["kind"] == "conv"
    real, steps = counts["input"] == "real", counts["steps"]
    synapses = counts["kept_macs"].where(real & ~add, counts["sops"])
    masked = counts["kept"] < counts["weights"]
    weight = access((counts["kept"] * np.where(counts["binary"], 1, 32) + counts["weights"] * masked) / 8)
    value = access(counts["inputs"] * np.where(real, 32, 1) / 8)
    output, state = access(4 * counts["outputs"]), access(4 * counts["neurons"])
    updates = counts["neurons"] * counts["timesteps"]
    read = synapses.where(counts["kind"] != "linear", steps * counts["inputs"]) * value
    written = (steps * counts["outputs"]).where(~add, 2 * synapses) * output
    multiplies = real & ~counts["binary"] & ~add
    formal = MEMORY["add"] * steps * (counts["inputs"] + counts["outputs"])
    events = MEMORY["add"] * counts["sops"] + 2 * MEMORY["mac"] * counts["spikes"] * conv
    return {
        "inputs_pj": read.where(~spikes, 2 * counts["spikes"] * access(4 * FIFO)),
        "weights_pj": synapses * weight * ~add,
        "outputs_pj": written.where(~spikes, 2 * synapses * output) + updates * (2 * state + real * output),
        "operations_pj": synapses * np.where(multiplies, MEMORY["mac"], MEMORY["add"])
        + updates * (MEMORY["mac"] + MEMORY["add"]),
        "addressing_pj": formal.where(~spikes, events),
    }


MODELS = {"arithmetic": arithmetic, "integer": integer, "memory": memory}


def energy(counts, model="arithmetic"):
    """The energy of an inference in pJ, a row a layer and a last row "total"; the column `pj` is the sum.

    counts : from `count`. model : "arithmetic" (the papers'), "integer" or "memory"; each is a function
    of that name here, whose docstring says what it charges. Raises ValueError for another name.
    """
    if model not in MODELS:
        raise ValueError(f"model={model!r}: choose from {', '.join(MODELS)}")
    table = pd.DataFrame(MODELS[model](counts), index=counts.index).astype(float)
    table["pj"] = table.sum(axis=1)
    table.loc["total"] = table.sum()
    return table


def at_rate(counts, rate):
    """The counts of a spiking network if every input of its spiking layers fired at this rate (0 to 1).

    Of attention's two operands one fires at the rate and the other always: an upper bound.
    """
    spiking = counts["input"] == "spikes"
    out = counts.copy()
    out["sops"] = (rate * counts["synapses"]).where(spiking, counts["sops"])
    out["spikes"] = (rate * counts["inputs"] * counts["steps"]).where(spiking, counts["spikes"])
    out["rate"] = counts["rate"].where(~spiking, rate)
    return out


def break_even_rate(counts, model="arithmetic", ann=None):
    """The firing rate under which a spiking network costs less than an ANN: by layer, and "total".

    counts : of the spiking network, dense or a ticket; its spikes do not matter. ann : the counts of
    the network it is held against, default the dense relu network of the same shape (`dense_ann`).
    The rate is in spikes an input and step; for the total all layers fire at the same. Above 1: the
    spiking one costs less at any rate; 0: at none; NaN: the layer gets no spikes.

    Raises ValueError for counts without spiking layers, or an ANN of other layers.
    """
    spiking = counts["input"] == "spikes"
    if not spiking.any():
        raise ValueError("counts: no layer gets spikes; give the counts of a network with neuron='lif'")
    ann = dense_ann(counts) if ann is None else ann
    if list(ann.index) != list(counts.index):
        raise ValueError("ann: its layers are not those of counts; count a network of the same shape")
    silent, full = (energy(at_rate(counts, rate), model)["pj"] for rate in (0, 1))
    rate = ((energy(ann, model)["pj"] - silent) / (full - silent)).clip(lower=0)
    return rate.where([*spiking, True]).rename("break_even_rate")


def ratios(totals):
    """Every total over every other: `ratios({"ANN": 9.0, "SNN": 3.0}).loc["ANN", "SNN"]` is 3.

    totals : {name: energy}, all in one unit. The paper's are in PAPER; a ticket at 11.2 % of the ANN is 8.92.
    """
    values = pd.Series(totals, dtype=float)
    return pd.DataFrame(np.divide.outer(values.to_numpy(), values.to_numpy()), values.index, values.index)

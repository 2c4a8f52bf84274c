"""What an inference costs: energy under four models, ratios, break-even rates.

`counts = count(model, batch)` counts the operations of any network of this project from its real spikes, a row
a layer (`sltlib.counting`); `energy(counts, model)` prices them. Energy is that of arithmetic and memory at 45 nm:
no clock, leakage or off-chip memory. Pooling, normalisation and biases are folded into the layers and cost nothing.
"""

import numpy as np
import pandas as pd

from sltlib.counting import UNITS, count

__all__ = ["MODELS", "PAPER", "UNITS", "at_rate", "break_even_rate", "count", "dense_ann", "energy", "ratios", "skip_zeros"]

NUMBERS = 1  # raise it where `count` or a reading comes to give other numbers: what was read before is then read anew
ARITHMETIC = {"mac": 4.6, "add": 0.9}  # pJ, float32: 3.7 multiply + 0.9 add (Horowitz, ISSCC 2014, 45 nm)
INTEGER = {"mac": 0.23, "add": 0.1}  # pJ, int8: 0.2 multiply + 0.03 add; int32 add (the same source)
MEMORY = {"mac": 3.2, "add": 0.1}  # pJ, int32: 3.1 multiply + 0.1 add (the same source; Lemaire 2022)
SRAM = {2**13: 10.0, 2**15: 20.0, 2**20: 100.0}  # bytes: pJ an access (the same source; Lemaire 2022)
FIFO = 1000  # spikes that wait before a layer, 32 bits each (Lemaire 2022)

# The paper's energy on CIFAR10, one over the other (arXiv 2309.13302; SNN is dense, MPSLT its ticket).
PAPER = {("ANN", "SNN"): 4.80, ("ANN", "MPSLT"): 8.92, ("SNN", "MPSLT"): 1.86}


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
    ann["synapses"] = ann["effective_macs"] = np.nan  # those of a dense layer are not known from a sparse one's
    ann["rate"], ann["spikes"], ann["neurons"] = np.nan, 0.0, 0
    return ann.assign(input="real", binary=False, steps=once, timesteps=once)


def skip_zeros(counts):
    """The counts of hardware that skips every multiplication by zero, of activations too (NeuroBench's effective MACs).

    Real inputs then cost only where they are not zero, as spikes always do: a relu network, most of whose
    activations are zero, is held to the same rule as a spiking one. Give it the counts of both. The memory model
    then reads only inputs that are not zero, and finding them is free (optimistic).

    Raises ValueError for counts from `dense_ann`: how many activations are zero is known of a real network only.
    """
    if counts["effective_macs"].isna().any():
        raise ValueError("counts: its zeros are not known; give what `count` finds in a relu network, not dense_ann's counts")
    real = counts["input"] == "real"
    active = counts["rate"] * counts["inputs"] * counts["steps"]
    return counts.assign(
        kept_macs=counts["effective_macs"].where(real, counts["kept_macs"]),
        sops=active.where(real & (counts["kind"] == "add"), counts["sops"]),
    )


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


def zeros_skipped(counts):
    """The papers' arithmetic where both networks skip multiplications by zero: `arithmetic` of `skip_zeros`."""
    return arithmetic(skip_zeros(counts))


MODELS = {"arithmetic": arithmetic, "integer": integer, "memory": memory, "zeros skipped": zeros_skipped}


def energy(counts, model="arithmetic"):
    """The energy of an inference in pJ, a row a layer and a last row "total"; the column `pj` is the sum.

    counts : from `count`. model : "arithmetic" (the papers'), "integer", "memory" or "zeros skipped"; each is a
    function in MODELS, whose docstring says what it charges. Raises ValueError for another name.
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
    the network it is held against, default the dense relu network of the same shape (`dense_ann`), whose zeros
    are not known: for "zeros skipped" give what `count` finds in one.
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

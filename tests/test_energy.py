"""Operations against loops over every synapse, and energies against sums done by hand."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
import snntorch
import torch
from hypothesis import given, settings
from torch import nn

from sltlib import counting, energy, layers, models, patches, pruning, spikformer, table2
from sltlib.experiment import Experiment
from sltlib.neurons import LIF
from sltlib.ticket import Ticket


def network(model="conv4", frames=False, steps=2, **changes):
    """A small network that fires, with statistics to normalise by, and images (3, 1, 8, 8) or two frames."""
    options = dict(width=0.05, image_size=8, timesteps=steps, threshold=0.3) | changes
    experiment = Experiment("fashion", model=model, **options)
    net = pruning.prepare(models.build_model(experiment), experiment)
    random = torch.Generator().manual_seed(3)
    batch = torch.randn(*((2,) if frames else ()), 3, 1, 8, 8, generator=random)
    for _ in range(3):
        net.train()(batch)
    return net.eval(), batch, experiment


def seen_inputs(net, batch):
    """What every layer, and every residual without a shortcut, gets to see."""
    seen, hooks = {}, []
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) or getattr(module, "shortcut", module) is None:
            see = lambda m, i, o, name=name: seen.update({name: (m, i[0])})  # noqa: E731
            hooks.append(module.register_forward_hook(see))
    with torch.no_grad():
        net(batch)
    for hook in hooks:
        hook.remove()
    return seen


def synapses_of(layer, kept, shape):
    """Every synapse of a layer that starts at an input and not in the padding: (input place, kept) pairs."""
    if isinstance(layer, nn.Linear):
        for out, i in itertools.product(*map(range, kept.shape)):
            yield (i,), kept[out, i]
        return
    (_, height, width), k, stride, pad = shape, layer.kernel_size[0], layer.stride[0], layer.padding[0]
    rows, columns = ((n + 2 * pad - k) // stride + 1 for n in (height, width))
    for out, c, i, j in itertools.product(*map(range, kept.shape)):
        for y, x in itertools.product(range(rows), range(columns)):
            at = (c, y * stride + i - pad, x * stride + j - pad)
            if 0 <= at[1] < height and 0 <= at[2] < width:
                yield at, kept[out, c, i, j]


def by_hand(layer, x):
    """(kept synapses, additions) of inputs (T B, ...), one synapse after the other."""
    weight = layer.effective_weight() if hasattr(layer, "effective_weight") else layer.weight
    kept, values = (weight != 0).tolist(), x.abs().sum(0, dtype=torch.float64).numpy()
    kept, synapses, additions = np.array(kept), 0, 0.0
    for at, one in synapses_of(layer, kept, x.shape[1:]):
        synapses += bool(one)
        additions += values[at] if one else 0
    return synapses * len(x), additions


KINDS = list(itertools.product(("relu", "sign", "lif"), ("float", "binary"), ("none", "edge-popup")))


@pytest.mark.parametrize(("neuron", "weights", "search"), KINDS)
@pytest.mark.parametrize("frames", [False, True])
def test_every_synapse_of_a_vgg_counted_by_a_loop(neuron, weights, search, frames):
    sparsity = 0.0 if search == "none" else 0.6
    net, batch, _ = network("conv2", frames, neuron=neuron, weights=weights, search=search, sparsity=sparsity)
    counts, first = energy.count(net, batch), True
    for name, (layer, x) in seen_inputs(net, batch).items():
        row = counts.loc[name]
        synapses, additions = by_hand(layer, x)
        real = first or neuron == "relu"
        assert row["input"] == ("real" if real else {"lif": "spikes", "sign": "sign"}[neuron])
        assert row["synapses"] == pytest.approx(synapses / 3)
        assert row["sops"] == pytest.approx(0 if real else additions / 3)
        assert row["steps"] == len(x) / 3 == ((1 if first or neuron != "lif" else 2) if not frames else 2)
        places = 64 if row["kind"] == "conv" else 1
        assert row["macs"] == row["steps"] * places * layer.weight.numel()
        assert row["kept_macs"] == row["steps"] * places * row["kept"]
        assert row["kept"] == layers.keep_count(layer.weight.numel(), sparsity)
        assert row["binary"] == (weights == "binary")
        assert row["rate"] == pytest.approx(float((x != 0).float().mean()))
        first = False
    assert list(counts.index) == list(layers.prunable(net))
    assert (counts["sops"] > 0).sum() == (0 if neuron == "relu" else len(counts) - 1)  # no layer is silent


@pytest.mark.parametrize("neuron", ["relu", "sign", "lif"])
def test_every_synapse_of_a_resnet_strides_shortcuts_residuals_and_pooled_sums(neuron):
    net, batch, _ = network("resnet19", neuron=neuron, search="edge-popup", sparsity=0.5, width=0.02)
    counts, first = energy.count(net, batch), True
    seen = seen_inputs(net, batch)
    assert [name for name in counts.index if name.endswith("identity")] == [
        f"{name}.identity" for name, (m, _) in seen.items() if isinstance(m, models.Residual)
    ]
    assert (counts["kind"] == "add").sum() == 5  # of eight blocks three change the size
    for name, (layer, x) in seen.items():
        real = first or neuron == "relu"
        if isinstance(layer, models.Residual):
            row, spikes = counts.loc[f"{name}.identity"], float(x.abs().sum())
            assert row["sops"] == pytest.approx((x.numel() if real else spikes) / 3)
            assert row["kept_macs"] == row["weights"] == 0
        else:
            row, (synapses, additions) = counts.loc[name], by_hand(layer, x)
            # the mean over 2x2 places is a sum of spikes, its quarter in the weights
            folded = 4 if name == "hidden.0.layer" and not real else 1
            assert row["synapses"] == pytest.approx(folded * synapses / 3)
            assert row["sops"] == pytest.approx(0 if real else folded * additions / 3, rel=1e-6)
            assert row["inputs"] == folded * x[0].numel()
            assert row["kept_macs"] == row["steps"] * row["kept"] * row["outputs"] / layer.weight.shape[0]
        first = False
    assert counts["rate"].between(0, 1).all()
    if neuron != "relu":
        assert counts.loc["hidden.0.layer", "spikes"] > 0


def place(index, size, mode):
    """Where an index outside of 0..size-1 reads, in a padding mode; None: nowhere."""
    if 0 <= index < size:
        return index
    reads = {"circular": index % size, "replicate": min(max(index, 0), size - 1), "reflect": abs(index)}
    if mode == "reflect" and index >= size:
        return 2 * (size - 1) - index
    return reads.get(mode)


def fan_out_by_hand(layer, kept, shape):
    """How many kept weights meet each input, one (output, weight) pair after the other; any convolution in 2-d."""
    found, (_, *sizes) = np.zeros(shape), shape
    reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    if layer.padding == "same":  # the odd one of what is missing goes behind
        before, pads = [r // 2 for r in reach], reach
    else:
        before, pads = layer.padding, [2 * n for n in layer.padding]
    outs = [(n + p - r - 1) // s + 1 for n, p, r, s in zip(sizes, pads, reach, layer.stride, strict=True)]
    mine, theirs = layer.out_channels // layer.groups, layer.in_channels // layer.groups
    for o, c, i, j in zip(*np.nonzero(kept), strict=True):
        for y, x in np.ndindex(*outs):
            at = [
                place(n * s + k * d - b, size, layer.padding_mode)
                for n, s, k, d, b, size in zip((y, x), layer.stride, (i, j), layer.dilation, before, sizes, strict=True)
            ]
            if None not in at:
                found[o // mine * theirs + c, *at] += 1
    return found


@pytest.mark.filterwarnings("ignore:Using padding=:UserWarning")  # torch, on even kernels
@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), st.sampled_from([1, 2]), st.sampled_from([0, 1, 2, "same"]),
    st.sampled_from(["zeros", "circular", "reflect", "replicate"]), st.integers(0, 99),
)  # fmt: skip
def test_fan_out_of_any_convolution(kernel, stride, dilation, groups, padding, mode, seed):
    random, stride = torch.Generator().manual_seed(seed), 1 if padding == "same" else stride
    options = dict(padding=padding, dilation=dilation, groups=groups, padding_mode=mode)
    layer = layers.Conv2d(2, 4, (kernel, 3), stride, **options)
    kept = (torch.rand(layer.weight.shape, generator=random) < 0.5).float()
    shape = (2, 7, 8)
    found = counting.fan_out(layer, kept, shape).numpy()
    np.testing.assert_array_equal(found, fan_out_by_hand(layer, kept.numpy(), shape))


@pytest.mark.parametrize(("neuron", "weights", "search"), KINDS)
def test_a_ticket_searched_applied_loaded_and_materialized_counts_the_same(neuron, weights, search, tmp_path):
    sparsity = 0.0 if search == "none" else 0.7
    net, batch, experiment = network(neuron=neuron, weights=weights, search=search, sparsity=sparsity)
    counts, ticket = energy.count(net, batch), Ticket.from_model(net, experiment)
    ticket.save(tmp_path / "ticket.safetensors")
    loaded = Ticket.load(tmp_path / "ticket.safetensors")
    for other in (
        ticket.apply(models.build_model(experiment)),
        loaded.apply(models.build_model(experiment)),
        loaded.materialize(models.build_model(experiment)),
    ):
        pd.testing.assert_frame_equal(energy.count(other, batch), counts)
    assert counts["kept"].sum() == ticket.kept


def test_masked_controls_are_counted_under_their_mask():
    net, batch, _ = network(search="random-trained", sparsity=0.8)
    masks = {name: int(layer.mask.sum()) for name, layer in layers.prunable(net).items()}
    assert energy.count(net, batch)["kept"].to_dict() == masks


def test_time_multiplies_all_but_the_first_layer_of_a_static_image():
    (two, batch, _), (six, _, _) = network(steps=2), network(steps=6)
    a, b = energy.count(two, batch), energy.count(six, batch)
    assert list(b["macs"] / a["macs"]) == [1] + [3] * (len(a) - 1)
    assert set(b["timesteps"]) == {6} and b["steps"].tolist() == [1] + [6] * (len(b) - 1)
    # A static image as frames: the same spikes, and only the first layer works more.
    frames = energy.count(two, batch.expand(2, *batch.shape))
    assert frames["macs"].iloc[0] == 2 * a["macs"].iloc[0]
    pd.testing.assert_series_equal(frames["sops"], a["sops"])


def test_a_relu_network_reads_each_frame():
    net, frames, _ = network(neuron="relu", frames=True)
    counts, still = energy.count(net, frames), energy.count(net, frames[0])
    assert (counts["macs"] == 2 * still["macs"]).all() and (counts["sops"] == 0).all()


def test_neurons_are_those_of_the_network():
    net, batch, _ = network("resnet19", width=0.02)
    counts, sizes = energy.count(net, batch), []
    for neuron in models.neurons(net).values():
        neuron.register_forward_hook(lambda m, i, o: sizes.append(o[0, 0].numel()))
    net(batch)
    assert counts["neurons"].sum() == sum(sizes)
    conv4, _, _ = network("conv4")
    halved = energy.count(conv4, batch).loc["blocks.1.layer"]  # pooled before its neurons
    assert halved["neurons"] == halved["outputs"] / 4
    assert energy.count(network(neuron="relu")[0], batch)["neurons"].sum() == 0


def test_counts_are_means_over_images_whatever_the_chunk(monkeypatch):
    net, batch, _ = network()
    whole, parts = energy.count(net, batch), [energy.count(net, image[None]) for image in batch]
    assert whole["sops"].tolist() == pytest.approx(np.mean([part["sops"] for part in parts], axis=0))
    frames = torch.stack([batch, -batch, batch])
    recordings = energy.count(net, frames)
    monkeypatch.setattr(counting, "CHUNK", 2)  # cut along the images, not along time
    pd.testing.assert_frame_equal(energy.count(net, batch), whole)
    pd.testing.assert_frame_equal(energy.count(net, frames), recordings)


def test_counting_leaves_the_model_as_it_was():
    net, batch, _ = network()
    net.train()
    net.blocks[0].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    energy.count(net, batch)
    assert net.training and not net.blocks[0].training and net.blocks[1].training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_wrong_input_is_refused():
    net, batch, _ = network()
    with pytest.raises(ValueError, match=r"shape \(3, 64\)"):
        energy.count(net, batch.flatten(1))
    net.blocks[1].neuron.register_forward_hook(lambda m, i, o: o * 0.3)
    with pytest.raises(ValueError, match="blocks.2.layer gets inputs that are no sums"):
        energy.count(net, batch)
    assert not net.blocks[2].layer._forward_hooks
    counts = energy.count(network()[0], batch)
    with pytest.raises(ValueError, match="'joules': choose from arithmetic, integer, memory, zeros skipped"):
        energy.energy(counts, "joules")
    relu = energy.count(network(neuron="relu")[0], batch)
    with pytest.raises(ValueError, match="no layer gets spikes"):
        energy.break_even_rate(relu)
    with pytest.raises(ValueError, match="not those of counts"):
        energy.break_even_rate(counts, ann=relu[:-1])


def test_every_number_has_a_unit():
    counts = energy.count(*network()[:2])
    assert set(counts.select_dtypes("number").columns) - {"binary"} == set(counts.attrs["units"])


@pytest.fixture(scope="module")
def conv6():
    net = models.build_model(Experiment("cifar10", model="conv6"))
    return energy.count(net, torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))


def test_conv6_costs_what_the_papers_say(conv6):
    ann = energy.dense_ann(conv6)
    assert ann["macs"].sum() == pytest.approx(153.9e6, rel=1e-3)
    assert ann["macs"].iloc[0] == conv6["macs"].iloc[0] == 1_769_472
    assert energy.energy(ann).loc["total", "pj"] == pytest.approx(4.6 * 153_881_088)
    # the paper's formula: rate times steps times all multiply-accumulates, padding too
    spiking = conv6["input"] == "spikes"
    papers = conv6.assign(sops=(1.02 / 4 * conv6["macs"]).where(spiking, 0))
    ratio = energy.energy(ann).loc["total", "pj"] / energy.energy(papers).loc["total", "pj"]
    assert ratio == pytest.approx(energy.PAPER["ANN", "SNN"], rel=0.01)
    # at 32x32 a tenth of what that formula charges lies in the padding
    assert conv6["synapses"][spiking].sum() / conv6["macs"][spiking].sum() == pytest.approx(0.8999, abs=1e-4)


@pytest.mark.parametrize("model", ["conv4", "resnet19"])
@pytest.mark.parametrize("frames", [False, True])
def test_dense_ann_is_what_counting_the_relu_network_gives(model, frames):
    ticket, batch, _ = network(model, frames, search="edge-popup", sparsity=0.5, weights="binary")
    relu = energy.count(network(model, frames, neuron="relu")[0], batch)
    ann = energy.dense_ann(energy.count(ticket, batch))
    unknown = ["rate", "synapses", "effective_macs"]
    pd.testing.assert_frame_equal(ann.drop(columns=unknown), relu.drop(columns=unknown))
    for name in ("arithmetic", "integer", "memory"):
        pd.testing.assert_frame_equal(energy.energy(ann, name), energy.energy(relu, name))
    with pytest.raises(ValueError, match="not dense_ann's counts"):
        energy.energy(ann, "zeros skipped")


def table(**changes):
    """A first layer of real inputs, a spiking convolution, a linear one and a residual."""
    rows = dict(
        kind=["conv", "conv", "linear", "add"], input=["real", "spikes", "spikes", "spikes"],
        binary=[False, False, True, False], steps=[1, 4, 4, 4], inputs=[100, 1000, 2000, 1000],
        outputs=[1000, 2000, 10, 1000], weights=[9, 4096, 20000, 0], kept=[9, 4096, 10000, 0],
        macs=[9000, 80000, 80000, 0], kept_macs=[9000, 80000, 40000, 0], spikes=[0.0, 500.0, 70.0, 30.0],
        sops=[0.0, 7000.0, 300.0, 30.0], synapses=[8000.0, 70000.0, 40000.0, 4000.0],
        neurons=[1000, 2000, 0, 0], rate=[1.0, 0.1, 0.1, 0.1], timesteps=4,
    )  # fmt: skip
    return pd.DataFrame(rows | changes, index=["first", "conv", "linear", "identity"])


def test_arithmetic_and_integer_energies_by_hand():
    counts = table()
    found = energy.energy(counts)["pj"]
    assert found.tolist() == pytest.approx([41400, 6300, 270, 27, 47997])
    assert energy.energy(counts, "integer")["pj"].tolist() == pytest.approx([2070, 700, 30, 3, 2803])
    # binary weights need no multiplication; float32 accounting charges it all the same
    binary = counts.assign(binary=True)
    assert energy.energy(binary, "integer")["pj"]["first"] == pytest.approx(900)
    assert energy.energy(binary)["pj"]["first"] == pytest.approx(41400)
    sign = counts.assign(input=["real", "sign", "sign", "sign"])
    assert energy.energy(sign)["pj"].tolist() == found.tolist()


def test_price_of_an_access_at_the_published_sizes_between_and_outside():
    assert energy.access([8192, 32768, 2**20]).tolist() == [10, 20, 100]
    assert energy.access((8192 + 32768) / 2) == pytest.approx(15)
    assert energy.access(0) == energy.access(4000) == 10
    assert energy.access(2 * 2**20) == pytest.approx(100 + 80 * 2**20 / (2**20 - 2**15))


def test_memory_energy_by_hand():
    found = energy.energy(table(), "memory")
    parts = ["inputs", "weights", "outputs", "operations", "addressing"]
    assert list(found.columns) == [*(f"{part}_pj" for part in parts), "pj"]
    small = 10  # every memory here but that of 4096 float weights, 16 KiB
    weights = 10 + 10 * 8192 / 24576
    expected = {
        "first": [9000 * small, 9000 * small, 1000 * small + 4000 * 3 * small,
                  9000 * 3.2 + 4000 * 3.3, 0.1 * (100 + 1000)],
        "conv": [2 * 500 * small, 7000 * weights, 2 * 7000 * small + 8000 * 2 * small,
                 700 + 8000 * 3.3, 700 + 500 * 2 * 3.2],
        "linear": [2 * 70 * small, 300 * small, 2 * 300 * small, 30, 30],
        "identity": [2 * 30 * small, 0, 2 * 30 * small, 3, 3],
    }  # fmt: skip
    for layer, parts in expected.items():
        assert found.loc[layer].tolist() == pytest.approx([*parts, sum(parts)])
    assert found.loc["total", "pj"] == pytest.approx(sum(sum(parts) for parts in expected.values()))


def test_memory_energy_of_relu_and_sign_layers_by_hand():
    ann = energy.energy(energy.dense_ann(table()), "memory")
    weights = 10 + 10 * 8192 / 24576
    assert ann.loc["conv"].tolist()[:5] == pytest.approx([200000, 20000 * weights, 20000, 64000, 300])
    big = energy.access(20000 * 4)  # float weights, all of them
    assert ann.loc["linear"].tolist()[:5] == pytest.approx([20000, 20000 * big, 100, 64000, 201])
    assert ann.loc["identity"].tolist()[:5] == pytest.approx([10000, 0, 20000, 100, 200])
    sign = energy.energy(table(input=["real", "sign", "sign", "sign"], neurons=0), "memory")
    assert sign.loc["conv"].tolist()[:5] == pytest.approx([70000, 7000 * weights, 80000, 700, 1200])
    wide = table(input=["real", "sign", "sign", "sign"], inputs=[100, 10**6, 2000, 1000])
    found = energy.energy(wide, "memory").loc["conv", "inputs_pj"]
    assert found == pytest.approx(7000 * energy.access(125000))


def test_masks_take_room_and_binary_weights_take_little():
    def price(**changes):
        return energy.energy(table(**changes), "memory").loc["conv", "weights_pj"] / 7000

    many = dict(weights=[9, 2**20, 20000, 0])
    assert price(**many, kept=[9, 2**20, 10000, 0]) == pytest.approx(energy.access(2**22))
    assert price(**many, kept=[9, 2**19, 10000, 0]) == pytest.approx(energy.access(2**21 + 2**17))
    ticket = dict(many, kept=[9, 2**19, 10000, 0], binary=True)
    assert price(**ticket) == pytest.approx(energy.access(2**16 + 2**17))


def test_a_dense_layer_breaks_even_where_arithmetic_says():
    rate = energy.break_even_rate(table())
    assert rate["conv"] == pytest.approx(4.6 * 20000 / (0.9 * 70000))
    assert np.isnan(rate["first"])
    assert rate["total"] == pytest.approx((4.6 * 40000 + 0.9 * 1000) / (0.9 * 114000))


@pytest.mark.parametrize("name", energy.MODELS)
@pytest.mark.parametrize("search", ["none", "edge-popup"])
def test_at_the_break_even_rate_both_cost_the_same(name, search):
    net, batch, _ = network("resnet19", search=search, sparsity=0.5 if search != "none" else 0.0, width=0.02)
    relu = network("resnet19", neuron="relu", width=0.02)[0]
    counts, ann = energy.count(net, batch), energy.count(relu, batch)
    rate = energy.break_even_rate(counts, name, ann)
    if name != "zeros skipped":
        pd.testing.assert_series_equal(rate, energy.break_even_rate(counts, name))
    goal = energy.energy(ann, name)["pj"]
    for layer, value in rate.dropna().items():
        if value > 0:
            there = energy.energy(energy.at_rate(counts, value), name)["pj"]
            assert there[layer] == pytest.approx(goal[layer])
    assert list(rate.index) == [*counts.index, "total"]


def test_an_snn_that_loses_even_in_silence_breaks_even_at_zero():
    counts = table(neurons=[10**6, 10**6, 0, 0])
    assert energy.break_even_rate(counts, "memory")["total"] == 0


def test_real_spikes_at_their_own_rate_are_the_counts():
    counts = energy.count(*network()[:2])
    full = energy.at_rate(counts, 1)
    spiking = counts["input"] == "spikes"
    assert (full["sops"][spiking] == counts["synapses"][spiking]).all()
    assert (full["spikes"][spiking] >= counts["spikes"][spiking]).all()
    assert (energy.at_rate(counts, 0)["sops"] == 0).all()


# --- spikformers: tokens, attention, sums of spikes, selectors ----------------------------------


def former(neuron="lif", stem="same", selector="none", depth=1, **changes):
    """A small spikformer that fires, with statistics to normalise by, and images (3, 1, 8, 8)."""
    whole = Experiment(
        "fashion", model="spikformer", width=1 / 48, heads=2, image_size=8, stem_pools=2, timesteps=2, threshold=0.3,
        neuron=neuron, stem_neuron=stem, depth=depth, **changes,
    )  # fmt: skip
    experiment = table2.multisp(whole, 0.0, "float", 0.5, selector) if selector != "none" else whole
    net = models.build_model(experiment)
    batch = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        frozen, net.frozen = net.frozen, ()
        net.train()(torch.cat([batch] * 4))
        net.frozen = frozen
        if selector == "attention":
            net.selector.train()(net.stem(batch), batch)
    return net.eval(), batch


def seen_calls(net, batch, kinds):
    """What every module of these kinds gets and gives, in the order of computation."""
    seen, hooks = {}, []
    for name, module in net.named_modules():
        if isinstance(module, kinds):
            see = lambda m, i, o, name=name: seen.update({name: (m, i, o)})  # noqa: E731
            hooks.append(module.register_forward_hook(see))
    with torch.no_grad():
        net(batch)
    for hook in hooks:
        hook.remove()
    return seen


# neuron, stem, layers (by a part of their names) that get real numbers besides the first
FORMERS = [
    ("lif", "same", ()),
    ("gelu", "same", ("",)),
    ("relu", "same", ("",)),
    ("sign", "same", ()),
    # blocks add reals to sums of signs or spikes: only the first block's q, k and v see whole numbers
    ("gelu", "sign", ("project", "expand", "contract", "head")),
    ("gelu", "lif", ("project", "expand", "contract", "head")),
    # spikes are added to reals: only what follows a neuron directly gets spikes
    ("lif", "relu", ("stem", ".q", ".k", ".v", "expand", "head")),
]


@pytest.mark.parametrize(("neuron", "stem", "real_names"), FORMERS)
def test_every_synapse_of_a_spikformer_counted_by_a_loop(neuron, stem, real_names):
    net, batch = former(neuron, stem)
    counts, first = energy.count(net, batch), True
    whole = {"lif": "spikes", "sign": "sign"}.get(neuron if stem == "same" or neuron == "lif" else stem)
    for name, (layer, (x, *_), _) in seen_calls(net, batch, nn.Conv2d | nn.Linear).items():
        row, real = counts.loc[name], first or any(part in name for part in real_names)
        pooled = 1 if real or name != "head" else 4  # the mean of 4 tokens, its quarter in the weights
        synapses, additions = by_hand(layer, x.flatten(0, 1) if x.dim() == 3 else x)
        assert row["input"] == ("real" if real else whole), name
        assert row["synapses"] == pytest.approx(pooled * synapses / 3)
        assert row["sops"] == pytest.approx(0 if real else pooled * additions / 3)
        tokens = 4 if x.dim() == 3 else 1
        assert row["steps"] == len(x) / 3 and row["inputs"] == x[0].numel() * pooled
        if layer.weight.dim() == 2:
            assert row["macs"] == row["steps"] * tokens * layer.weight.numel()
        first = False
    assert counts["rate"].between(0, 3).all()


@pytest.mark.parametrize("size", [8, 16])  # 4 tokens: scores first; 16 tokens of 4 features: k v first
def test_attention_of_spikes_is_counted_where_both_operands_fire(size):
    net, _ = former()
    batch = torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(0))
    counts = energy.count(net, batch)
    (mix, (q, k, v), _), = seen_calls(net, batch, spikformer.Mix).values()
    steps, heads, places, width = q.shape
    scores, coincide, selected = np.zeros((steps, heads, places, places)), 0, 0
    q, k, v = (part.numpy() for part in (q, k, v))
    for b, h, n, m in np.ndindex(scores.shape):
        scores[b, h, n, m] = sum(q[b, h, n, d] * k[b, h, m, d] for d in range(width))
    first, second = (counts.loc[f"blocks.0.attention.mix.{part}"] for part in ("first", "second"))
    if mix.scores_first(torch.from_numpy(q)):
        coincide = scores.sum()
        selected = sum((scores[b, h, n, m] > 0) * v[b, h, m].sum() for b, h, n, m in np.ndindex(scores.shape))
        macs = 2 * heads * places**2 * width
    else:
        kv = np.einsum("bhnd,bhne->bhde", k, v)
        coincide = kv.sum()
        selected = sum(q[i, h, :, d].sum() * (kv[i, h, d, e] > 0) for i, h, d, e in np.ndindex(kv.shape))
        macs = 2 * heads * places * width**2
    assert mix.scores_first(torch.from_numpy(q)) == (size == 8)
    assert coincide > 0 and first["sops"] == pytest.approx(coincide / 2)
    assert selected > 0 and second["sops"] == pytest.approx(selected / 2)
    assert first["macs"] == second["macs"] == macs and (first["kind"], first["input"]) == ("attention", "spikes")
    assert first["sops"] < first["macs"]
    assert second["neurons"] == counts.loc["blocks.0.attention.v.layer", "neurons"] == heads * places * width


def test_attention_of_the_twin_is_multiply_accumulates_and_its_residuals_are_additions():
    net, batch = former("gelu", depth=2)
    counts = energy.count(net, batch)
    rows = counts[counts["kind"] == "attention"]
    assert list(rows["macs"]) == [2 * 4**2 * 4] * 4 and (rows["sops"] == 0).all() and (rows["input"] == "real").all()
    adds = counts[counts["kind"] == "add"]
    assert list(adds.index) == ["stem.add", *(f"blocks.{i}.{a}" for i in (0, 1) for a in ("add", "add_mlp"))]
    assert (adds["sops"] == 4 * 8).all() and len(net.blocks) == 2
    spiking = energy.count(*former(depth=2))
    assert list(spiking.index) == list(counts.index)
    assert (spiking.loc[adds.index, ["sops", "spikes", "synapses"]] == 0).all(axis=None)
    priced = energy.energy(counts)["operations_pj"]
    assert priced["blocks.0.attention.mix.first"] == pytest.approx(4.6 * 2 * 4**2 * 4)


@pytest.mark.parametrize("neuron", ["lif", "gelu"])
def test_a_selectors_pass_is_counted(neuron):
    for selector, expected in {
        "random": [],
        "rate": ["selector"],
        "learned": ["selector.score"],
        "attention": ["selector.q.layer", "selector.k.layer", "selector.sums"],
    }.items():
        net, batch = former(neuron, selector=selector)
        counts = energy.count(net, batch)
        assert [name for name in counts.index if name.startswith("selector")] == expected
        with torch.no_grad():
            tokens = net.stem(batch)  # (T, B, N, D): whole numbers of spikes
        spikes = float(tokens.abs().sum()) / 3
        real = tokens[:, 0].numel()
        if selector == "rate":
            assert counts.loc["selector", "sops"] == pytest.approx(spikes if neuron == "lif" else real)
        if selector == "learned" and neuron == "lif":
            assert counts.loc["selector.score", "sops"] == pytest.approx(spikes)
        if selector == "attention":
            (_, (q, k), _), = seen_calls(net, batch, patches.ColumnSums).values()
            fired, row = float((q + k).sum()) / 3, counts.loc["selector.sums"]
            assert row["sops"] == pytest.approx(fired if neuron == "lif" else 0)
            assert row["kept_macs"] == (0 if neuron == "lif" else 2 * 4**2 * 4)
            assert counts.loc["selector.q.layer", "outputs"] == 4 * 8  # all patches; two of them go on
            assert counts.loc["blocks.0.attention.q.layer", "outputs"] == 2 * 8


@pytest.mark.parametrize("name", ["arithmetic", "integer", "memory"])
def test_a_spikformer_breaks_even_against_the_dense_network_of_its_shape(name):
    (spiking, batch), (relu, _) = former(), former("relu")
    counts, ann = energy.count(spiking, batch), energy.count(relu, batch)
    rate = energy.break_even_rate(counts, name)
    pd.testing.assert_series_equal(rate, energy.break_even_rate(counts, name, ann))
    goal, there = (energy.energy(c, name)["pj"] for c in (ann, energy.at_rate(counts, rate["total"])))
    if 0 < rate["total"]:
        assert there["total"] == pytest.approx(goal["total"])


def test_a_spikformers_counts_are_means_over_images_whatever_the_chunk_and_materialized(monkeypatch):
    net, batch = former(depth=2)
    whole = energy.count(net, batch)
    pd.testing.assert_frame_equal(energy.count(layers.materialize(net), batch), whole)
    monkeypatch.setattr(counting, "CHUNK", 2)
    pd.testing.assert_frame_equal(energy.count(net, batch), whole)


def test_ratios():
    found = energy.ratios({"ANN": 8.92, "SNN": 1.86, "MPSLT": 1})
    for pair in (("ANN", "MPSLT"), ("SNN", "MPSLT")):
        assert found.loc[pair] == pytest.approx(energy.PAPER[pair])
    assert found.loc["MPSLT", "ANN"] == pytest.approx(0.112, abs=5e-4)


# --- networks of one's own: neurons by type, images where they lie, or an error ------------------


class Folded(nn.Module):
    """A spiking network that is not of this project: no attribute says that it spikes, no name that it has neurons."""

    def __init__(self, steps=4, stride=1):
        super().__init__()
        torch.manual_seed(0)
        self.steps, self.see = steps, nn.Conv2d(1, 4, 3, stride, bias=False)
        self.first, self.second = LIF(0.9, 0.3), LIF(0.9, 0.3)
        self.along, self.out = nn.Conv1d(4, 6, 3, 2, padding=1), nn.Linear(6 * 18, 10, bias=False)

    def forward(self, x):
        spikes = self.first(self.see(x), steps=self.steps)  # (T, B, 4, 6, 6)
        current = self.along(spikes.flatten(0, 1).flatten(2)).unflatten(0, (self.steps, -1))
        return self.out(self.second(current).flatten(2)).mean(0)  # the last layer gets (T, B, features)


class Stepped(Folded):
    """The same, one step after the other, by snnTorch's own neuron."""

    def __init__(self, steps=4):
        super().__init__(steps)
        self.first, self.second = (snntorch.Leaky(0.9, threshold=0.3, reset_mechanism="zero") for _ in range(2))

    def forward(self, x):
        out, first, second = 0, None, None
        for _ in range(self.steps):
            spikes, first = self.first(self.see(x), first)
            spikes, second = self.second(self.along(spikes.flatten(2)), second)
            out = out + self.out(spikes.flatten(1))
        return out / self.steps


def digits(count, size=8):
    return torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(1))


def test_an_added_spiking_network_costs_the_same_whatever_the_batch():
    net, images = Folded(), digits(12)
    counts = energy.count(net, images)
    assert counts["input"].tolist() == ["real", "spikes", "spikes"] and counts["steps"].tolist() == [1, 4, 4]
    assert counts["inputs"].tolist() == [64, 4 * 36, 6 * 18] and counts["neurons"].tolist() == [144, 108, 0]
    for size in (1, 3, 4, 6):  # four images, as many as steps, too
        parts = [energy.count(net, part) for part in images.split(size)]
        for name in energy.MODELS:
            costs = [energy.energy(part, name).loc["total", "pj"] for part in parts]
            assert np.mean(costs) == pytest.approx(energy.energy(counts, name).loc["total", "pj"])
    with torch.no_grad():
        spikes = net.first(net.see(images), steps=4)  # (T, B, 4, 6, 6)
        fired = net.second(net.along(spikes.flatten(0, 1).flatten(2)).unflatten(0, (4, -1)))
    wide = torch.nn.functional.pad(spikes.flatten(3).flatten(2).unflatten(2, (4, -1)), (1, 1))
    read = sum(float(wide[..., place : place + 36 : 2].sum()) for place in range(3))  # three places, six outputs each
    assert counts.loc["along", "sops"] == pytest.approx(6 * read / 12) and read > 0
    assert counts.loc["out", "sops"] == pytest.approx(10 * float(fired.sum()) / 12) and fired.any()


def test_a_network_stepped_by_hand_with_snntorchs_neurons_is_counted():
    net, images = Stepped(), digits(7)
    counts = energy.count(net, images)
    assert counts["steps"].tolist() == [4, 4, 4]  # it sees the image at every step
    folded = energy.count(Folded(), images)
    pd.testing.assert_series_equal(counts["sops"], folded["sops"])
    assert counts["neurons"].tolist() == folded["neurons"].tolist()


class Step(nn.Module):
    """A neuron that no type tells: it fires where its current is above a threshold."""

    def forward(self, x):
        return (x > 0.3).float()


def test_neurons_of_an_unknown_type_are_refused_until_they_are_named():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), Step(), nn.Flatten(), nn.Linear(108, 5))
    with pytest.raises(ValueError, match=r"3 gets whole numbers only.*neurons=\(YourNeuron,\)"):
        energy.count(net, digits(3))
    counts = energy.count(net, digits(3), neurons=(Step,))
    fired = net[1](net[0](digits(3)))
    assert counts.loc["3", "sops"] == pytest.approx(5 * float(fired.sum()) / 3)
    assert counts["neurons"].tolist() == [108, 0]
    net[1] = nn.ReLU()
    assert energy.count(net, digits(3))["input"].tolist() == ["real", "real"]


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match="a Sequential, has no convolution and no linear layer"):
        energy.count(nn.Sequential(nn.Flatten()), digits(2))
    with pytest.raises(ValueError, match=r"no way to count what 1 \(GRU\)"):
        energy.count(nn.Sequential(nn.Linear(8, 8), nn.GRU(8, 8)), digits(2))
    hidden = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.ConvTranspose2d(2, 2, 3))
    with pytest.raises(ValueError, match="multiplies 1,944 times an image, and its .* 648 times"):
        energy.count(hidden, digits(2))
    assert not any(module._forward_hooks for module in hidden.modules()) and hidden.training

    class Across(nn.Module):  # images mixed with features
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 3)

        def forward(self, x):
            return self.layer(x.flatten()[None, :64])

    with pytest.raises(ValueError, match=r"layer has the shape \(1, 64\) for one image and \(1, 64\) for two"):
        energy.count(Across(), digits(2))

    class Shared(nn.Module):  # one layer, two sizes
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 1, 3, 2)

        def forward(self, x):
            return self.layer(self.layer(x))

    with pytest.raises(ValueError, match=r"layer gets inputs of the shapes \(1, 8, 8\) and \(1, 3, 3\)"):
        energy.count(Shared(), digits(2))


def test_means_over_places_are_counted_by_the_spikes_under_them():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), Step(), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(12, 5))
    counts, fired = energy.count(net, digits(4), neurons=(Step,)), net[1](net[0](digits(4)))
    assert counts.loc["4", "sops"] == pytest.approx(5 * float(fired.sum()) / 4) and counts.loc["4", "inputs"] == 108
    net[2] = nn.AvgPool2d(4, stride=2)  # places that overlap: their number says nothing of the mean
    with pytest.raises(ValueError, match="4 gets inputs that are no sums of spikes"):
        energy.count(net, digits(4), neurons=(Step,))


def test_nested_neurons_count_once_each():
    class Signed(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = LIF(0.9, 0.3), LIF(0.9, 0.3)

        def forward(self, current):
            return self.up(current) - self.down(-current)

    net, batch, _ = network("conv2")
    halved = energy.count(net, batch)["neurons"]
    for block in [*net.blocks, *net.hidden]:
        block.neuron = Signed()
    counts = energy.count(net, batch)
    assert set(counts["input"][1:]) == {"spikes"} and (counts["neurons"] == 2 * halved).all()  # two membranes each
    assert all(parts[0].endswith("neuron.up") for parts in [[n for n in counting.neurons_of(net) if "up" in n]])


@pytest.mark.parametrize("model", ["conv2", "resnet19"])
def test_counts_in_low_precision_are_exact(model):
    """Fan-outs above 256 and sums under a mean have no bfloat16 of their own."""
    size = 8 if model == "conv2" else 24
    options = dict(width=0.5 if model == "conv2" else 0.05, image_size=size, timesteps=2, threshold=0.3, precision="bfloat16")
    experiment = Experiment("fashion", model=model, search="edge-popup", sparsity=0.1, **options)
    net, batch = pruning.prepare(models.build_model(experiment), experiment), digits(3, size)
    for _ in range(3):
        net.train()(batch)
    counts, first = energy.count(net.eval(), batch), True
    for name, (layer, x) in seen_inputs(net, batch).items():
        if isinstance(layer, models.Residual) or name == "hidden.0.layer":
            continue
        weight, x = layer.effective_weight() != 0, x.double()
        if x.dim() == 4:
            met = nn.functional.conv2d((x != 0).double(), weight.double(), None, layer.stride, layer.padding)
            additions = float(nn.functional.conv2d(x, weight.double(), None, layer.stride, layer.padding).sum())
        else:
            met, additions = (x != 0).double() @ weight.double().T, float((x @ weight.double().T).sum())
        if first:
            assert counts.loc[name, "effective_macs"] == float(met.sum()) / 3
        else:
            assert counts.loc[name, "sops"] == additions / 3, name
        first = False
    if model == "resnet19":  # 36 places under each mean
        pooled = {}
        net.blocks[-2].neuron.register_forward_hook(lambda m, i, o: pooled.update(spikes=o.double().sum((0, 1, 3, 4))))
        with torch.no_grad():
            net(batch)
        row = counts.loc["hidden.0.layer"]
        assert row["spikes"] == pooled["spikes"].sum() / 3 > 0
        assert row["sops"] == float(pooled["spikes"] @ (net.hidden[0].layer.effective_weight() != 0).sum(0).double()) / 3


@pytest.mark.parametrize("model", ["conv2", "resnet19"])
def test_zeros_skipped_in_both_are_the_synapses_with_something_to_multiply(model):
    net, batch, _ = network(model, neuron="relu", search="edge-popup", sparsity=0.5, width=0.05)
    batch[:, :, :2] = 0  # zeros of the image are skipped too
    counts, priced = energy.count(net, batch), energy.skip_zeros(energy.count(net, batch))
    for name, (layer, x) in seen_inputs(net, batch).items():
        active = (x != 0).double()
        if isinstance(layer, models.Residual):
            assert priced.loc[f"{name}.identity", "sops"] == pytest.approx(float(active.sum()) / 3)
            continue
        _, multiplied = by_hand(layer, active)
        assert counts.loc[name, "effective_macs"] == pytest.approx(multiplied / 3)
    assert (counts["effective_macs"] <= counts["synapses"]).all()
    assert counts["effective_macs"].sum() < 0.8 * counts["synapses"].sum()
    adds = priced["sops"].sum() * energy.ARITHMETIC["add"]
    total = energy.ARITHMETIC["mac"] * counts["effective_macs"].sum() + adds
    assert energy.energy(priced).loc["total", "pj"] == pytest.approx(total)
    pd.testing.assert_frame_equal(energy.energy(counts, "zeros skipped"), energy.energy(priced))
    assert counts.attrs["units"]["effective_macs"] == "multiply-accumulates an inference"


def test_zeros_skipped_change_nothing_where_spikes_are_counted():
    net, batch, _ = network()
    counts = energy.count(net, batch)
    skipped = energy.skip_zeros(counts)
    spiking = counts["input"] == "spikes"
    assert (counts["effective_macs"][spiking] == 0).all() and counts["effective_macs"].iloc[0] == counts["synapses"].iloc[0]
    pd.testing.assert_frame_equal(energy.energy(skipped)[1:-1], energy.energy(counts)[1:-1])
    with pytest.raises(ValueError, match="not dense_ann's counts"):
        energy.skip_zeros(energy.dense_ann(counts))


def test_attention_of_reals_skips_a_product_where_one_side_is_zero():
    net, batch = former("relu")
    counts = energy.count(net, batch)
    (mix, (q, k, v), _), = seen_calls(net, batch, spikformer.Mix).values()
    multiplied = sum(
        float(((q[b, h, n] != 0) & (k[b, h, m] != 0)).sum())
        for b, h, n, m in np.ndindex(*q.shape[:3], k.shape[2])
    )
    assert counts.loc["blocks.0.attention.mix.first", "effective_macs"] == pytest.approx(multiplied / 3)
    assert 0 < multiplied < 3 * counts.loc["blocks.0.attention.mix.first", "macs"]


@pytest.mark.parametrize("model", ["conv4", "resnet19"])
def test_spikingjelly_counts_the_same(model):
    """Outside check: its counters see weights that are zero as synapses, so the networks are dense."""
    counters = pytest.importorskip("spikingjelly.activation_based.op_counter")
    net, batch, _ = network(model)
    counts = energy.count(net, batch)
    for name, (layer, x) in seen_inputs(net, batch).items():
        if isinstance(layer, models.Residual) or (model == "resnet19" and name == "hidden.0.layer"):
            continue  # it has no rule for a residual within a module, nor for sums of spikes
        plain, row = layer.plain(), counts.loc[name]
        plain.bias = None
        additions, macs = counters.ACCounter(), counters.MACCounter()
        with torch.no_grad(), counters.DispatchCounterMode([additions, macs]):
            plain(x)
        assert additions.get_total() == pytest.approx(3 * row["sops"])
        assert macs.get_total() == (3 * row["macs"] if row["input"] == "real" else 0)

"""Packed tickets give the spikes of an integer-count reference, bit for bit, whatever computes them."""

import ctypes
import json
import platform
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from sltlib import models, neurons, packed, packed_kernel
from sltlib.__main__ import main
from sltlib.base import paths
from sltlib.data import load_data
from sltlib.experiment import Experiment
from sltlib.packed import Packed
from sltlib.packed_layer import lists
from sltlib.pruning import prepare
from sltlib.ticket import Sparse, Ticket
from sltlib.train import batch, data_of

MOMENTS = {1: ((0.3,), (0.35,)), 3: ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)), 2: ((0.0, 0.0), (0.01, 0.02))}
compiled = pytest.mark.skipif(packed_kernel.compiler() is None, reason="no C++ compiler here")


@pytest.fixture(autouse=True)
def _no_compiled_neuron(monkeypatch):
    """Torch's own compiler takes longer than all of this; it gives the same spikes."""
    monkeypatch.setattr(neurons, "COMPILE_FROM", 2**60)


def random_ticket(experiment, channels, size, classes, density, norms, seed):
    """A ticket of random masks, signs, gains and statistics; some outputs keep nothing, some everything."""
    rng = np.random.default_rng(seed)
    wide, found, rest, names, last = lambda n: max(1, round(n * experiment.width)), {}, {}, 0, channels
    shapes = []
    for step in models.PLANS[experiment.model]:
        if step == "M":
            size //= 2
            continue
        shapes.append((f"blocks.{names}", (wide(step), last, 3, 3)))
        names, last = names + 1, wide(step)
    sizes = [last * size * size, wide(256), wide(256), classes]
    shapes += [(f"hidden.{i}", (b, a)) for i, (a, b) in enumerate(zip(sizes[:2], sizes[1:3], strict=True))]
    for name, shape in [*shapes, ("head", (sizes[3], sizes[2]))]:
        mask = rng.random(shape) < density
        if rng.random() < 0.3:
            mask[rng.integers(len(mask))] = rng.random() < 0.5
        kept, weight = rng.random(int(mask.sum())) < 0.5, f"{name}.layer" if name != "head" else name
        found[weight] = Sparse(shape, mask, kept, np.float32(rng.uniform(0.01, 1)))
        if name == "head":
            continue
        fan = max(1.0, mask.sum() / len(mask)) * float(found[weight].gain) ** 2
        middle, spread = rng.normal(0, 0.3 * fan**0.5, len(mask)), rng.uniform(0.02, 0.5, len(mask)) * fan
        if norms == "extreme":  # a channel that never changed, one that hardly fits a float, one far away
            spread[rng.integers(len(mask))], middle[rng.integers(len(mask))] = 0, 1e6
            spread[rng.integers(len(mask))] = 1e30
        rest |= {f"{name}.norm.running_mean": middle.astype("f4"), f"{name}.norm.running_var": spread.astype("f4")}
        if experiment.affine:  # a scale may be negative
            rest |= {f"{name}.norm.weight": rng.normal(0, 1, len(mask)).astype("f4")}
            rest |= {f"{name}.norm.bias": rng.normal(0, 0.3, len(mask)).astype("f4")}
    return Ticket(experiment, found, rest)


def whole(ticket, name):
    """The weights -1, 0, +1 of a layer, int64."""
    sparse = ticket.layers[name]
    full = np.zeros(sparse.shape, np.int64)
    full[sparse.mask] = np.where(sparse.kept, 1, -1)
    return full


def conv(x, weight):
    """3x3 convolution with zeros around, tap by tap, in x's and the weight's type: (B, C, H, W)."""
    padded, (_, _, height, width) = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), x.shape
    out = np.zeros((len(x), len(weight), height, width), np.result_type(x, weight))
    for dy in range(3):
        for dx in range(3):
            out += np.einsum("bchw,oc->bohw", padded[:, :, dy : dy + height, dx : dx + width], weight[:, :, dy, dx])
    return out


def reference(ticket, images, mean, std):
    """Every layer's spikes and the logits by counting in integers: the definition that Packed is held to."""
    e, spikes, x = ticket.experiment, {}, None
    steps = e.timesteps if e.event or e.spiking else 1
    pools = models.PLANS[e.model]
    pools = [pools[i + 1 : i + 2] == ("M",) for i, step in enumerate(pools) if step != "M"]
    for name in [n.removesuffix(".layer") for n in ticket.layers]:
        weight = whole(ticket, f"{name}.layer" if name != "head" else name)
        gain = float(ticket.layers[f"{name}.layer" if name != "head" else name].gain)
        if x is None:
            frames = images.reshape(-1, *images.shape[-3:]).astype(np.int64)
            inside = conv(np.ones((1, 1, *frames.shape[2:]), np.int64), weight.reshape(-1, 1, 3, 3))[0]
            inside = inside.reshape(*weight.shape[:2], *frames.shape[2:])  # weights that meet a pixel, not the padding
            offset = -(inside * (np.array(mean) / np.array(std))[None, :, None, None]).sum(1)
            current = np.repeat(offset.astype("f4")[None], len(frames), 0)
            for c in range(frames.shape[1]):
                current += conv(frames[:, c : c + 1], weight[:, c : c + 1]).astype("f4") * np.float32(1 / (255 * std[c]))
        else:
            bits = x.astype(np.int64) * (2 if e.neuron == "sign" else 1) - (e.neuron == "sign")
            if name == "head":
                total = (bits.reshape(len(images), steps, -1) @ weight.T).sum(1)
                return total.astype("f4") * np.float32(gain / steps), spikes
            if name.startswith("blocks"):
                current = conv(bits, weight)
                if pools[int(name.split(".")[1])]:
                    h = current.shape[2] // 2 * 2
                    current = np.stack([current[:, :, i:h:2, j:h:2] for i in (0, 1) for j in (0, 1)]).max(0)
            else:
                current = bits.reshape(len(bits), -1) @ weight.T
            current = current.astype("f4")
        factor = ticket.rest.get(f"{name}.norm.weight", 1.0) / np.sqrt(ticket.rest[f"{name}.norm.running_var"].astype("f8") + 1e-5)
        shift = ticket.rest.get(f"{name}.norm.bias", 0.0) - ticket.rest[f"{name}.norm.running_mean"].astype("f8") * factor
        shape = (-1,) + (1,) * (current.ndim - 2)
        current = current * (gain * factor).astype("f4").reshape(shape) + shift.astype("f4").reshape(shape)
        current = current.reshape(len(images), -1, *current.shape[1:])
        fired, u = [], None
        for t in range(steps):
            now = current[:, t % current.shape[1]]
            if e.neuron == "sign":
                fired.append(now >= 0)
                continue
            if u is None:
                u = now
            elif e.reset == "zero":
                u = np.float32(e.beta) * np.where(fired[-1], np.float32(0), u) + now
            else:
                u = np.float32(e.beta) * u + now - np.float32(e.threshold) * fired[-1].astype("f4")
            fired.append(u > np.float32(e.threshold))
        spikes[name] = np.stack(fired, 1).astype(np.uint8)
        x = spikes[name].reshape(-1, *spikes[name].shape[2:])
    raise AssertionError("no head")


def same(ticket, images, channels, **how):
    """Assert that a packed ticket gives the reference's spikes and logits; returns them."""
    network = ticket.pack(*MOMENTS[channels])
    logits, spikes = reference(ticket, images, *MOMENTS[channels])
    found = network.spikes(images, **how)
    assert list(found) == list(spikes)
    for name, bits in spikes.items():
        assert found[name].dtype == np.uint8 and found[name].shape == bits.shape, name
        assert np.array_equal(found[name], bits), f"{name}: {(found[name] != bits).sum()} of {bits.size} spikes differ"
    assert np.array_equal(network.predict(images, **how), logits)
    return logits, spikes


CASES = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["conv2", "conv4", "conv6", "conv8"]),
        "dataset": st.sampled_from(["fashion", "cifar10", "fashion-dvs"]),
        "size": st.integers(8, 40),
        "neuron": st.sampled_from(["lif", "sign"]),
        "reset": st.sampled_from(["zero", "subtract"]),
        "steps": st.sampled_from([1, 2, 3, 4, 5, 8, 11, 33]),
        "width": st.sampled_from([0.015, 0.05, 0.11]),
        "density": st.sampled_from([0.0, 0.02, 0.2, 0.5, 1.0]),
        "norms": st.sampled_from(["usual", "extreme"]),
        "affine": st.booleans(),
        "count": st.integers(1, 19),
        "threads": st.integers(1, 3),
        "seed": st.integers(0, 2**31),
    }
)
CHANNELS = {"fashion": 1, "cifar10": 3, "fashion-dvs": 2}


def case(c):
    """The ticket and images of a drawn case, and its number of channels."""
    size = max(c["size"], 16) if c["model"] == "conv8" else c["size"]
    experiment = Experiment(
        c["dataset"], model=c["model"], width=c["width"], image_size=size, neuron=c["neuron"], reset=c["reset"],
        weights="binary", timesteps=c["steps"], affine=c["affine"], beta=0.9,
    )  # fmt: skip
    channels = CHANNELS[c["dataset"]]
    ticket = random_ticket(experiment, channels, size, 10, c["density"], c["norms"], c["seed"])
    shape = (c["count"], c["steps"], 2, size, size) if experiment.event else (c["count"], channels, size, size)
    high = 4 if experiment.event else 256
    return ticket, np.random.default_rng(c["seed"]).integers(0, high, shape, dtype=np.uint8), channels


@compiled
@settings(max_examples=40)
@given(CASES)
def test_every_spike_is_the_references(c):
    ticket, images, channels = case(c)
    same(ticket, images, channels, threads=c["threads"], backend="compiled")


@settings(max_examples=12)
@given(CASES)
def test_numpy_gives_the_same_spikes(c):
    ticket, images, channels = case(c | {"count": min(c["count"], 5)})
    same(ticket, images, channels, backend="numpy")


@compiled
@pytest.mark.parametrize("neuron", ["lif", "sign"])
@pytest.mark.parametrize(("width", "more"), [(16, ()), (64, ()), (64, ("-mno-gfni",)), (16, ("-march=x86-64",)), (32, ("-march=haswell",))])
def test_vectors_of_every_width_and_processor_give_the_same_spikes(width, more, neuron):
    """Of 64 bytes too, where the processor has none: the compiler takes two of what it has. And older processors' code."""
    if more and (platform.machine() not in ("x86_64", "AMD64") or "avx2" not in packed_kernel._features()):
        pytest.skip("another kind of processor")
    library = ctypes.CDLL(str(packed_kernel.build(("-O1", f"-DVECTOR_BYTES={width}", *more))))
    assert library.packed_bytes() == width
    c = dict(model="conv6", dataset="cifar10", size=24, neuron=neuron, reset="zero", steps=3, width=0.11, density=0.4)
    ticket, images, _ = case(c | dict(norms="usual", affine=False, count=11, seed=1))
    network, (logits, spikes) = ticket.pack(*MOMENTS[3]), reference(ticket, images, *MOMENTS[3])
    for threads in (1, 2, 12):
        for group in (1, 2, 4, 8):
            got, found = packed_kernel.run(network, images, threads, True, library, group)
            assert np.array_equal(got, logits), (threads, group)
            assert all(np.array_equal(found[name], bits) for name, bits in spikes.items()), (threads, group)


@compiled
@pytest.mark.parametrize("width", [16, 64])
def test_linear_layers_of_many_steps_fill_several_vectors(width):
    """33 steps of 11 images are 66 bytes: five vectors of 16 bytes, two of 64."""
    library = ctypes.CDLL(str(packed_kernel.build(("-O1", f"-DVECTOR_BYTES={width}"))))
    c = dict(model="conv2", dataset="cifar10", size=8, neuron="lif", reset="zero", steps=33, width=0.11, density=0.5)
    ticket, images, _ = case(c | dict(norms="usual", affine=False, count=11, seed=2))
    got, found = packed_kernel.run(ticket.pack(*MOMENTS[3]), images, 1, True, library)
    logits, spikes = reference(ticket, images, *MOMENTS[3])
    assert np.array_equal(got, logits) and all(np.array_equal(found[name], bits) for name, bits in spikes.items())


@compiled
@pytest.mark.parametrize("neuron", ["lif", "sign"])
def test_counts_beyond_sixteen_bits(neuron):
    """65,536 inputs that all count, and a mean that makes some neurons fire."""
    c = dict(model="conv2", dataset="fashion", size=512, neuron=neuron, reset="zero", steps=1, width=0.015, density=1.0)
    ticket, images, _ = case(c | dict(norms="usual", affine=False, count=2, seed=3))
    assert ticket.layers["hidden.0.layer"].kept.size // len(ticket.layers["hidden.0.layer"].mask) == 2**16
    ticket.layers["hidden.0.layer"].kept[:] = True
    count = reference(ticket, images, *MOMENTS[1])[1]["blocks.1"].sum(dtype=np.int64) // 2
    gain, many = float(ticket.layers["hidden.0.layer"].gain), len(ticket.layers["hidden.0.layer"].mask)
    middle = gain * (count if neuron == "lif" else 2 * count - 2**16)
    ticket.rest["hidden.0.norm.running_mean"][:] = middle - np.linspace(-1e3, 1e3, many)
    ticket.rest["hidden.0.norm.running_var"][:] = 1e4
    _, spikes = same(ticket, images, 1, backend="compiled")
    assert 0 < spikes["hidden.0"].mean() < 1


@settings(max_examples=50)
@given(st.integers(0, 3000), st.integers(1, 4), st.sampled_from([0, 0.001, 0.01, 0.3, 1]), st.integers(0, 99))
def test_lists_hold_the_weights(inputs, outputs, density, seed):
    rng = np.random.default_rng(seed)
    weight = np.where(rng.random((outputs, inputs + 1)) < density, rng.choice([-1, 1], (outputs, inputs + 1)), 0)
    weight[0] = 0
    weight[0, -1] = 1  # a step from one end to the other
    deltas, begin, plus = lists(weight)
    none = np.zeros(0, "i4")
    layer = packed.PackedLayer("x", inputs + 1, outputs, 1, 1, False, deltas, begin, plus, np.ones(outputs), np.ones(outputs), none, none)
    assert np.array_equal(layer.weight(), weight)


def trained(**fields):
    """A ticket as a search leaves it, its statistics from a few batches; its model in evaluation mode; its data."""
    experiment = Experiment("fashion", model="conv2", width=0.25, image_size=14, weights="binary", **fields)
    data = load_data("fashion", 14)
    model = models.build_model(experiment)
    prepare(model, experiment)
    model.train()
    with torch.no_grad():
        for i in range(8):
            model(batch(data, data.train.x, torch.arange(100 * i, 100 * i + 100)))
    ticket = Ticket.from_model(model, experiment)
    return ticket, ticket.apply(models.build_model(experiment)), data


@pytest.mark.parametrize("fields", [dict(neuron="lif"), dict(neuron="lif", reset="subtract", timesteps=2), dict(neuron="sign")])
def test_the_torch_network_differs_at_ties_only(fields):
    ticket, model, data = trained(search="edge-popup", sparsity=0.5, **fields)
    images, network = data.test.x[:500], ticket.pack()
    theirs = {}
    for name, neuron in models.neurons(model).items():
        neuron.register_forward_hook(lambda module, args, out, name=name: theirs.setdefault(name, out.detach()))
    with torch.no_grad():
        logits = model(batch(data, images, torch.arange(len(images)))).numpy()
    ours, steps = network.spikes(images.numpy()), network.steps
    for name, out in theirs.items():
        out = out.reshape(steps, len(images), *out.shape[2 if fields["neuron"] == "lif" else 1 :]).transpose(0, 1) > 0
        out = out.numpy()
        if name == "blocks.1":  # the same order: pooled before the neuron
            assert out.shape == ours[name].shape
        assert 0.01 < out.mean() < 0.99 and (out != ours[name]).mean() < 1e-4, name
    close = np.abs(network.predict(images.numpy()) - logits).max(1) < 1e-4 * np.abs(logits).max()
    assert close.mean() > 0.98
    best = np.sort(logits, 1)
    tie = best[:, -1] - best[:, -2] < 1e-5 * np.abs(best).max()
    assert (network.predict(images.numpy()).argmax(1) == logits.argmax(1))[close & ~tie].all()


def test_a_half_ticket_takes_less_than_a_sixth_of_float32():
    ticket, _, _ = trained(search="edge-popup", sparsity=0.5)
    network = ticket.pack()
    assert network.nbytes < 4 * ticket.size / 6
    assert all(layer.nbytes for layer in network.layers)


def test_a_file_holds_it_all(tmp_path):
    ticket, _, data = trained(search="edge-popup", sparsity=0.8)
    network, images = ticket.pack(), data.test.x[:20].numpy()
    size = network.save(tmp_path / "network")
    assert size == (tmp_path / "network").stat().st_size
    again = Packed.load(tmp_path / "network")
    assert again.experiment == ticket.experiment and again.nbytes == network.nbytes
    assert np.array_equal(again.predict(images), network.predict(images))
    assert network.save(tmp_path / "again") == size
    assert (tmp_path / "again").read_bytes() == (tmp_path / "network").read_bytes()
    with safe_open(tmp_path / "again", "numpy") as file:
        head = json.loads(file.metadata()[packed.NAME])
    assert head["experiment"] == ticket.experiment.canonical(), "a new field must change no byte"


def test_the_committed_packed_ticket_has_the_accuracy_of_its_row():
    """What a fresh clone has to use at once: notebook 10's first seed with the most weights removed."""
    place = paths.ROOT / "results" / "mini" / "10_packed_tickets"
    network, table = Packed.load(place / "packed.safetensors"), pandas.read_csv(place / "table.csv", dtype={"key": str})
    (line,) = table[table.key == network.experiment.key].itertuples()
    assert (line.sparsity, line.seed) == (table.sparsity.max(), table.seed.min()) and line.bytes == network.nbytes
    test = data_of(network.experiment).test
    hit = network.predict(test.x.numpy()).argmax(1) == test.y.numpy()
    assert 100 * hit.mean() == pytest.approx(line.accuracy, abs=0.006)


def test_a_damaged_or_foreign_file_is_refused(tmp_path):
    ticket, _, _ = trained(search="edge-popup", sparsity=0.8)
    network, path = ticket.pack(), tmp_path / "network"
    network.save(path)
    content = bytearray(path.read_bytes())
    for place in (len(content) - 1, len(content) // 2, 20):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a whole packed network"):
            Packed.load(path)
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="not a whole packed network"):
        Packed.load(path)
    ticket.save(path)
    with pytest.raises(ValueError, match="a ticket is packed by"):
        Packed.load(path)
    with pytest.raises(FileNotFoundError, match="no packed network at"):
        Packed.load(tmp_path / "none")


def test_lists_that_lead_outside_are_refused():
    ticket, _, _ = trained(search="edge-popup", sparsity=0.8)
    layer = ticket.pack().layers[0]
    fields = {name: getattr(layer, name) for name in layer.__dataclass_fields__}
    for change in (
        {"inputs": 0}, {"deltas": layer.deltas[:-1]}, {"deltas": layer.deltas + np.uint8(9)}, {"plus": layer.plus + np.uint32(999)},
        {"begin": layer.begin[::-1].copy()}, {"scale": layer.scale * np.nan}, {"base": layer.base[:-1]},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="blocks.0"):
            packed.PackedLayer(**(fields | change))
    network = ticket.pack()
    with pytest.raises(ValueError, match="do not follow"):
        Packed(network.experiment, network.mean, network.std, network.layers[1:])


@pytest.mark.parametrize(
    "images",
    [np.zeros((3, 1, 14, 14), np.float32), np.zeros((3, 1, 28, 28), np.uint8), np.zeros((1, 14, 14), np.uint8), np.zeros((3, 3, 14, 14), np.uint8)],
)
def test_wrong_images_get_one_clear_error(images):
    network = trained(search="edge-popup", sparsity=0.8)[0].pack()
    with pytest.raises(ValueError, match=r"this network wants uint8 \(N, 1, 14, 14\)"):
        network.predict(images)


def test_wrong_options_get_one_clear_error():
    network, none = trained(search="edge-popup", sparsity=0.8)[0].pack(), np.zeros((0, 1, 14, 14), np.uint8)
    with pytest.raises(ValueError, match="threads=0"):
        network.predict(none, threads=0)
    with pytest.raises(ValueError, match="choose from auto"):
        network.predict(none, backend="gpu")
    assert network.predict(none).shape == network.predict(none, backend="numpy").shape == (0, 10)


def test_what_cannot_be_packed_says_why():
    def network(**fields):
        experiment = Experiment("fashion", width=0.05, image_size=14, **fields)
        return Ticket.from_model(models.build_model(experiment), experiment)

    for fields, words in (
        (dict(model="conv2", neuron="relu", weights="binary"), "neuron='relu'.*no bits"),
        (dict(model="conv2"), "float weights cannot be packed.*binary"),
        (dict(model="resnet19", weights="binary"), "a residual network adds currents"),
        (dict(model="linear"), "choose from conv2"),
    ):
        with pytest.raises(ValueError, match=words):
            network(**fields).pack()
    good = network(model="conv2", weights="binary")
    with pytest.raises(ValueError, match="std above 0"):
        good.pack((0.1,), (0.0,))
    other = network(model="conv2", weights="binary").layers
    with pytest.raises(ValueError, match="not one of conv4"):
        Ticket(good.experiment.replace(model="conv4"), other, good.rest).pack()
    with pytest.raises(ValueError, match="do not follow"):
        Ticket(good.experiment.replace(image_size=28), other, good.rest).pack()
    good.rest["blocks.0.norm.running_var"][0] = np.nan
    with pytest.raises(ValueError, match="not finite: blocks.0.norm.running_var"):
        good.pack()


@pytest.fixture
def no_kernel():
    """The kernel is looked for anew, before and after."""
    packed_kernel._library.cache_clear()
    packed._SAID.clear()
    yield
    packed_kernel._library.cache_clear()
    packed._SAID.clear()


@pytest.mark.parametrize("compiler, words", [("no-such-compiler", "no C.. compiler"), ("false", "cannot build the kernel")])
def test_without_a_compiler_it_says_so_once_and_predicts_the_same(no_kernel, monkeypatch, compiler, words):
    ticket, _, data = trained(search="edge-popup", sparsity=0.8)
    network, images = ticket.pack(), data.test.x[:40].numpy()
    monkeypatch.setenv("CXX", compiler)
    with pytest.warns(UserWarning, match=words):
        logits = network.predict(images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(network.predict(images), logits)
    assert packed_kernel.instructions() == "NumPy"
    with pytest.raises(ValueError, match=words):
        network.predict(images, backend="compiled")
    assert np.array_equal(logits, reference(ticket, images, network.mean, network.std)[0])


def test_a_kernel_is_built_once(tmp_path, monkeypatch):
    program = tmp_path / "compiler"  # notes that it ran, and writes what -o says
    program.write_text(f'#!/bin/sh\necho ran >> {tmp_path}/log\nwhile [ "$1" != -o ]; do shift; done\necho built > "$2"\n')
    program.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", str(program))
    made = packed_kernel.build()
    assert made.is_relative_to(tmp_path / "cache") and made.read_text() == "built\n"
    assert packed_kernel.build() == made and (tmp_path / "log").read_text() == "ran\n"
    assert packed_kernel.build(("-DNDEBUG",)) != made
    assert {path.suffix for path in made.parent.iterdir()} == {".so", ".sha256"}, "scratch is left behind"


def test_predicting_needs_no_torch(tmp_path):
    ticket, _, _ = trained(search="edge-popup", sparsity=0.8)
    ticket.pack().save(tmp_path / "network")
    code = (
        "import sys, numpy as np\nfrom sltlib import Packed\n"
        f"Packed.load({str(tmp_path / 'network')!r}).predict(np.zeros((2, 1, 14, 14), np.uint8))\n"
        "print([n for n in ('torch', 'pandas', 'numba') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_predict_command(tmp_path, capsys):
    from PIL import Image

    ticket, _, data = trained(search="edge-popup", sparsity=0.8)
    ticket.save(tmp_path / "ticket")
    images = data.test.x[:3].numpy()
    for i, image in enumerate(images):
        Image.fromarray(image[0]).save(tmp_path / f"{i}.png")
    names = [str(tmp_path / f"{i}.png") for i in range(3)]
    logits = ticket.pack().predict(images)
    for file in ("ticket", "network"):  # the second is what the first saves
        assert main(["predict", str(tmp_path / file), *names, "--save", str(tmp_path / "network")]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split("\t")[0] for line in lines] == names
        assert [line.split("\t")[1] for line in lines] == [data.info.classes[i] for i in logits.argmax(1)]
        assert np.allclose([[float(x) for x in line.split("\t")[3].split()] for line in lines], logits, atol=1e-3)
    assert main(["predict", str(tmp_path / "ticket"), str(tmp_path / "ticket")]) == 1
    assert "no picture that can be read" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "none"), names[0]]) == 1
    assert "no ticket at" in capsys.readouterr().err


def test_pictures_become_what_the_network_reads(tmp_path):
    from PIL import Image

    from sltlib.engine.predict import read

    Image.new("RGB", (20, 10), (10, 20, 30)).save(tmp_path / "colour.png")
    assert read(tmp_path / "colour.png", (3, 8, 8)).reshape(3, -1).T.tolist() == [[10, 20, 30]] * 64
    assert read(tmp_path / "colour.png", (1, 8, 8)).shape == (1, 8, 8)


@compiled
def test_a_damaged_or_foreign_kernel_is_built_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = packed_kernel.build()
    sound, built = path.read_bytes(), path.stat().st_mtime_ns
    assert packed_kernel.build() == path and path.stat().st_mtime_ns == built
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    assert packed_kernel.build() == path and packed_kernel._whole(path)
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)  # every folder is somebody else's
    with pytest.raises(RuntimeError, match="somebody else's"):
        packed_kernel.build()


def test_the_engines_compute_the_dense_network(tmp_path):
    """What the bench times is the network: folded, in torch and in every engine that is installed; int8 nearly so."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # bench/ lies beside sltlib and is not installed
    from bench import engines

    model = models.build_model(Experiment("cifar10", model="conv2", width=0.1, image_size=8, neuron="relu"))
    images = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype("f4")
    for _ in range(20):
        model(torch.from_numpy(images))
    wanted = engines.run(model.eval(), torch.from_numpy(images))
    before = engines.signal_stack()
    found = engines.contestants(model, images, 1, tmp_path)
    assert {"torch fp32", "torch fp32, channels last"} <= found.keys()
    for name, compute in found.items():
        assert np.abs(compute() - wanted).mean() < (1e-5 if "fp32" in name else 0.2) * np.abs(wanted).mean(), name
    assert engines.signal_stack() == before  # else a signal after the engines are gone ends the process

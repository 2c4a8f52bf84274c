"""A ticket as bits: binary spiking (and sign) networks that run on a CPU by counting, exactly.

Weights are -1, 0 or +1 and activations bits, so a convolution is a count: how many spikes meet a +1 weight less
how many meet a -1. What follows is `count * scale + shift` (gain and normalisation) and the neuron, in float32,
each operation rounded once, in this order everywhere: the compiled kernel (sltlib/packed.cpp), the NumPy path
below, and the test's integer reference give the same spikes, bit for bit. The torch network rounds otherwise:
there a neuron that sits on its threshold may fire or not.

    packed = Ticket.load(path).pack()          # or Packed.load(file), which imports no torch
    packed.predict(images)                     # uint8 (N, C, H, W) or frames (N, T, 2, H, W) to logits (N, classes)

A kept weight takes one byte: the lists of an output's +1 and -1 inputs, as steps from one to the next. Needs no torch.
"""

import hashlib
import json
import warnings
from dataclasses import dataclass

import numpy as np

from sltlib import packed_kernel, packed_numpy
from sltlib.base import files
from sltlib.experiment import Experiment
from sltlib.packed_layer import ARRAYS, TYPES, PackedLayer, lists

FORMAT = 1
NAME = "sltlib-packed"  # of the file's description
EPSILON = 1e-5  # of torch's batch normalisation
_SAID = []  # why there is no kernel, once it was said


@dataclass(frozen=True)
class Packed:
    """A network of bits: `predict(images)`.

    experiment : where it comes from. mean, std : of the training images' channels in 0..1 (of event frames 0 and
    the root mean square). layers : convolutions, hidden linear layers and the last one, in order.

    Raises ValueError where the layers do not follow one another.
    """

    experiment: Experiment
    mean: tuple
    std: tuple
    layers: tuple

    def __post_init__(self):
        convs = [layer for layer in self.layers if layer.kernel == 3]
        good = len(convs) >= 2 and len(self.layers) > len(convs) and all(x.kernel == 3 for x in self.layers[: len(convs)])
        good = good and len(self.mean) == len(self.std) == convs[0].inputs and not convs[0].pool and convs[0].base.size
        for a, b in zip(self.layers[:-1], self.layers[1:], strict=True):
            side = a.size // 2 if a.pool else a.size
            good = good and (b.inputs == a.outputs and b.size == side if b.kernel == 3 else b.inputs == a.outputs * side * side and b.size == 1)
        good = good and (self.experiment.neuron != "sign" or all(x.sums.size for x in convs[1:]))
        if not good:
            raise ValueError("its layers do not follow one another")

    @property
    def nbytes(self):
        """Bytes of weights and normalisation in memory."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def input_shape(self):
        """What `predict` takes after the number of images: (C, H, W), or (T, 2, H, W) of recordings."""
        first = self.layers[0]
        frame = (first.inputs, first.size, first.size)
        return (self.experiment.timesteps, *frame) if self.experiment.event else frame

    @property
    def steps(self):
        """Time steps: 1 of a sign network on images; each frame of a recording is one."""
        return self.experiment.timesteps if self.experiment.event or self.experiment.spiking else 1

    @property
    def neuron(self):
        """"sign", or the LIF's reset, "zero" or "subtract"."""
        return "sign" if self.experiment.neuron == "sign" else self.experiment.reset

    @property
    def worth(self):
        """What one grey level of each channel is worth after normalisation, float32."""
        return np.array([1 / (255 * s) for s in self.std], np.float32)

    def predict(self, images, threads=None, backend="auto"):
        """Logits, float32 (N, classes), of uint8 images (N, C, H, W) or frames (N, T, 2, H, W).

        threads : cores to use; None all that this process may. backend : "compiled" (a C++ compiler is needed
        once), "numpy", or "auto", which says so once where it has to fall back. Both give the same bits.

        Raises ValueError for images of another type or shape.
        """
        return self._run(images, threads, backend, False)[0]

    def spikes(self, images, threads=None, backend="auto"):
        """{layer: its neurons' bits, uint8 (N, T, C, H, W) or (N, T, features)}, pooled where a max-pool follows."""
        return self._run(images, threads, backend, True)[1]

    def _run(self, images, threads, backend, trace):
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != len(self.input_shape) + 1 or images.shape[1:] != self.input_shape:
            want = ", ".join(map(str, ("N", *self.input_shape)))
            raise ValueError(f"images: got {images.dtype} {tuple(images.shape)}, this network wants uint8 ({want})")
        if threads is not None and not threads >= 1:
            raise ValueError(f"threads={threads}: give a number of cores, at least 1, or None for all")
        if backend not in ("auto", "compiled", "numpy"):
            raise ValueError(f"backend={backend!r}: choose from auto, compiled, numpy")
        e, problem = self.experiment, packed_kernel.problem() if backend != "numpy" else ""
        if backend == "compiled" and problem:
            raise ValueError(f"backend='compiled': {problem}")
        if backend != "numpy" and not problem:
            return packed_kernel.run(self, images, threads, trace)
        if problem:
            _say_once(problem)
        logits, found = packed_numpy.run(self.layers, images, self.worth, self.steps, self.neuron, e.beta, e.threshold)
        return logits, found if trace else {}

    def save(self, path):
        """Write one safetensors file, atomically; returns its size in bytes."""
        from safetensors.numpy import save

        tensors = {f"{i}.{name}": getattr(layer, name) for i, layer in enumerate(self.layers) for name in ARRAYS}
        shapes = [[getattr(layer, field) for field in ("name", "inputs", "outputs", "kernel", "size", "pool")] for layer in self.layers]
        head = {"format": FORMAT, "experiment": self.experiment.canonical(), "mean": self.mean, "std": self.std, "layers": shapes}
        head["sha256"] = _digest(tensors, head)
        blob = save(tensors, metadata={NAME: json.dumps(head, sort_keys=True)})
        files.write(path, blob)
        return len(blob)

    @classmethod
    def from_ticket(cls, ticket, mean=None, std=None):
        """The network of a binary lif or sign ticket (or dense binary network) of conv2, conv4, conv6 or conv8.

        mean, std : of the training images' channels, as `load_data(...)` has them; by default it is asked.

        Raises ValueError saying what cannot be packed and why.
        """
        from sltlib import data, models

        e = ticket.experiment
        _packable(ticket, models.PLANS)
        info = data.info(e.dataset)
        if mean is None or std is None:
            found = data.load_data(e.dataset, e.image_size, e.train_images, timesteps=e.timesteps, binning=e.binning)
            mean, std = found.mean, found.std
        if not len(mean) == len(std) == info.channels or not np.isfinite([*mean, *std]).all() or min(std) <= 0:
            raise ValueError(f"mean={mean}, std={std}: {e.dataset} wants {info.channels} finite numbers each, std above 0")
        size, plan, made = e.image_size or info.size, models.PLANS[e.model], []
        for place, step in enumerate(plan):
            if step == "M":
                size //= 2
                continue
            number = place - plan[:place].count("M")
            pool = plan[place + 1 : place + 2] == ("M",)
            made.append(_layer(ticket, f"blocks.{number}", 3, size, pool, None if made else (mean, std)))
        for name in (*(f"hidden.{i}" for i in range(len(ticket.layers) - len(made) - 1)), "head"):
            made.append(_layer(ticket, name, 1, 1, False, None))
        return cls(e, tuple(mean), tuple(std), tuple(made))

    @classmethod
    def load(cls, path):
        """Read and verify a file of `save`. Raises ValueError saying what is wrong with it, never loads half."""
        from safetensors import safe_open

        try:
            with safe_open(path, "numpy") as file:
                found = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            if NAME not in found:
                raise ValueError("no packed network; a ticket is packed by Ticket.load(path).pack()")
            head = json.loads(found[NAME])
            if head["format"] != FORMAT:
                raise ValueError(f"format {head['format']}, this version reads {FORMAT}")
            if head.pop("sha256") != _digest(tensors, head):
                raise ValueError("its content does not match its sha256")
            layers = [
                PackedLayer(*shape, **{name: np.ascontiguousarray(tensors[f"{i}.{name}"], TYPES[name]) for name in ARRAYS})
                for i, shape in enumerate(head["layers"])
            ]
            return cls(Experiment.from_spec(head["experiment"]), tuple(head["mean"]), tuple(head["std"]), tuple(layers))
        except FileNotFoundError:
            raise FileNotFoundError(f"no packed network at {path}") from None
        except Exception as error:  # safetensors, JSON, shapes: whatever a broken file can raise
            raise ValueError(f"{path} is not a whole packed network ({error}); make it again or fetch it again") from error


def _digest(tensors, head):
    sha = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        sha.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return sha.hexdigest()


def _say_once(problem):
    if not _SAID:
        _SAID.append(problem)
        warnings.warn(f"sltlib: predictions run on NumPy: the same, and several times slower. {problem}", stacklevel=4)


def is_packed(path):
    """Whether a file says of itself that `Packed.save` wrote it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            return NAME in (file.metadata() or {})
    except (SafetensorError, FileNotFoundError):
        return False


def _packable(ticket, plans):
    """Raise one ValueError where a ticket is none of bits."""
    e = ticket.experiment
    if e.model not in plans:
        why = "a residual network adds currents" if e.model == "resnet19" else "its layers compute with more than bits"
        raise ValueError(f"model={e.model!r} cannot be packed ({why}): choose from {', '.join(plans)}")
    if e.neuron not in ("lif", "sign"):
        raise ValueError(f"neuron={e.neuron!r} cannot be packed: its activations are no bits; lif's and sign's are")
    real = [name for name, layer in ticket.layers.items() if layer.gain is None]
    if real:
        raise ValueError(f"float weights cannot be packed ({', '.join(real)}): search or train with weights='binary'")
    bad = [name for name, values in ticket.rest.items() if not np.isfinite(values).all()]
    if bad:
        raise ValueError(f"not finite: {', '.join(bad)}; this network cannot predict")


def _layer(ticket, name, kernel, size, pool, moments):
    """One layer of a ticket; moments : mean and std of the first layer's pixels, None of the others."""
    source = name if name == "head" else f"{name}.layer"
    try:
        sparse = ticket.layers[source]
        norm = {k: ticket.rest[f"{name}.norm.running_{k}"].astype(np.float64) for k in ("mean", "var")} if name != "head" else None
    except KeyError as error:
        raise ValueError(f"this ticket is not one of {ticket.experiment.model}: it has no {error.args[0]}") from None
    outputs, inputs = sparse.shape[0], sparse.shape[1]
    mask = np.ones(sparse.shape, bool) if sparse.mask is None else sparse.mask
    weight = np.zeros(sparse.shape, np.int8)
    weight[mask] = np.where(sparse.kept, 1, -1)
    gain, nothing = float(sparse.gain), np.zeros(0)
    if norm is None:
        steps = ticket.experiment.timesteps if ticket.experiment.spiking or ticket.experiment.event else 1
        scale, shift = np.full(outputs, gain / steps), ticket.rest.get("head.bias", np.zeros(outputs))
    else:
        factor = ticket.rest.get(f"{name}.norm.weight", 1.0) / np.sqrt(norm["var"] + EPSILON)
        bias = ticket.rest.get(f"{source}.bias", 0.0)
        scale, shift = gain * factor, ticket.rest.get(f"{name}.norm.bias", 0.0) + (bias - norm["mean"]) * factor
    sums = weight.sum(1, dtype=np.int32) if ticket.experiment.neuron == "sign" and kernel == 3 and not moments else nothing
    base = _borders(weight, *moments) if moments else nothing
    values = dict(zip(("deltas", "begin", "plus"), lists(weight.reshape(outputs, -1)), strict=True))
    values |= dict(scale=scale, shift=shift, sums=sums, base=base)
    arrays = {key: np.ascontiguousarray(value, TYPES[key]) for key, value in values.items()}
    return PackedLayer(name, inputs, outputs, kernel, size, pool, **arrays)


def _borders(weight, mean, std):
    """What the mean of the pixels adds to the first layer, (outputs, 3, 3) by row and column: the padding has none."""
    each = -(weight * (np.array(mean) / np.array(std))[:, None, None]).sum(1)  # (outputs, 3, 3), of one tap
    inside = (slice(1, 3), slice(0, 3), slice(0, 2))  # of the taps in the first row, an inner one, the last
    return np.stack([np.stack([each[:, y, x].sum((1, 2)) for x in inside], 1) for y in inside], 1)

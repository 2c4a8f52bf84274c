"""A Ticket: what a search found, as values that save to one small file.

Per layer a mask (one bit a weight), and under it either signs (one bit each) and a gain, or float
weights; besides, the normalisation's statistics. A dense network is the ticket with nothing removed.
"""

import hashlib
import json
import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sltlib import layers, models
from sltlib.base import files
from sltlib.experiment import Experiment
from sltlib.neurons import LIF
from sltlib.registry import MODELS, SPIKING, TABLES, lookup

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Sparse:
    """One layer: `mask` (bool, shape of the weight) or None when dense; `kept`: signs (bool) or float32 of
    the kept weights in index order; `gain`: float32 for signs, None for float weights.

    Raises ValueError for sizes that do not go together, and for values that no network computes with."""

    shape: tuple
    mask: np.ndarray | None
    kept: np.ndarray
    gain: np.ndarray | None

    def __post_init__(self):
        size = math.prod(self.shape) if self.mask is None else int(self.mask.sum())
        if self.mask is not None and self.mask.shape != tuple(self.shape):
            raise ValueError(f"a mask of shape {self.mask.shape} for a weight of {self.shape}")
        if self.kept.shape != (size,):
            raise ValueError(f"weights of shape {self.kept.shape} for the {size} that the mask keeps")
        if self.gain is not None and not (np.ndim(self.gain) == 0 and np.isfinite(self.gain) and self.gain >= 0):
            raise ValueError(f"a gain of {self.gain}: one finite number, 0 or above, is the magnitude of a layer's signs")
        if not np.isfinite(self.kept).all():
            raise ValueError("weights that are not finite")

    def __eq__(self, other):
        if not isinstance(other, Sparse):
            return NotImplemented
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("shape", "mask", "kept", "gain"))
        return all((a is None) == (b is None) and np.array_equal(a, b) for a, b in pairs)

    @property
    def density(self):
        """The fraction of weights kept."""
        return self.kept.size / math.prod(self.shape)

    def weight(self):
        """The effective weight, a float32 tensor of `shape`."""
        mask = np.ones(self.shape, bool) if self.mask is None else self.mask
        if self.gain is None:
            full = np.zeros(self.shape, np.float32)
            full[mask] = self.kept
            return torch.from_numpy(full)
        sign = np.ones(self.shape, np.float32)
        sign[mask] = np.where(self.kept, 1, -1)
        mask = None if self.mask is None else torch.from_numpy(self.mask)
        return layers.binary_weight(torch.from_numpy(sign), torch.tensor(float(self.gain)), mask)


@dataclass(frozen=True, eq=False)
class Ticket:
    """`Ticket.load(path).apply(build_model(experiment))` predicts.

    experiment : where it comes from. layers : a Sparse for each prunable layer, by name.
    rest : the other tensors of the network (normalisation, biases), by name.
    Tickets are equal that come from the same training and hold the same.
    """

    experiment: Experiment
    layers: dict
    rest: dict

    def __eq__(self, other):
        if not isinstance(other, Ticket):
            return NotImplemented
        same = self.experiment.canonical() == other.experiment.canonical() and self.layers == other.layers
        named = self.rest.keys() == other.rest.keys()
        return same and named and all(np.array_equal(value, other.rest[name]) for name, value in self.rest.items())

    @classmethod
    def from_model(cls, model, experiment):
        """Read the ticket off a searched (or trained) model."""
        found = {}
        for name, layer in layers.prunable(model).items():
            mask = layer.weight.detach() != 0 if layer.connections == "fixed" else layer.current_mask()
            if mask is not None and layer.connections == "fixed" and mask.all():
                mask = None
            where = torch.ones_like(layer.weight, dtype=torch.bool) if mask is None else mask
            if layer.gain is not None:  # a binary ticket was applied: it stays one
                kept, gain = layer.weight.detach()[where] >= 0, layer.gain
            elif layer.binary:
                kept, gain = layer.weight.detach()[where] >= 0, layers.gain_of(layer.weight, mask).cpu().numpy()
            else:
                kept, gain = layer.weight.detach()[where], None
            bits = None if mask is None else mask.cpu().numpy()
            found[name] = Sparse(tuple(layer.weight.shape), bits, kept.cpu().numpy(), gain)
        return cls(experiment, found, {k: v.cpu().numpy() for k, v in _rest(model).items()})

    @property
    def sparsity(self):
        """The fraction of all weights that is removed."""
        return 1 - self.kept / self.size

    @property
    def kept(self):
        """How many weights stay."""
        return sum(layer.kept.size for layer in self.layers.values())

    @property
    def size(self):
        """How many weights the dense network has."""
        return sum(math.prod(layer.shape) for layer in self.layers.values())

    def masks(self):
        """The mask of every layer as bool tensors, by name; all True where the layer is dense."""
        return {
            name: torch.ones(layer.shape, dtype=torch.bool) if layer.mask is None else torch.from_numpy(layer.mask)
            for name, layer in self.layers.items()
        }

    def apply(self, model):
        """Put the ticket into a model of the same shape and neurons; returns the model, in evaluation mode.

        Raises ValueError naming every layer and neuron that does not fit.
        """
        places, others = layers.prunable(model), _rest(model)
        problems = [f"no layer {name} in the model" for name in self.layers.keys() - places.keys()]
        problems += [f"no layer {name} in the ticket" for name in places.keys() - self.layers.keys()]
        problems += [
            f"{name} is {tuple(places[name].weight.shape)} in the model, {layer.shape} in the ticket"
            for name, layer in self.layers.items()
            if name in places and tuple(places[name].weight.shape) != tuple(layer.shape)
        ]
        if not problems and {k: tuple(v.shape) for k, v in others.items()} != {
            k: v.shape for k, v in self.rest.items()
        }:
            problems.append("normalisation or biases differ (affine?)")
        if not problems:
            found, wanted = _neurons(model), _neurons(_skeleton(self.experiment))
            problems += [
                f"{name} is {found.get(name)} in the model, {wanted.get(name)} in the ticket"
                for name in found.keys() | wanted.keys()
                if found.get(name) != wanted.get(name)
            ]
        if problems:
            raise ValueError(f"this ticket does not fit this model: {'; '.join(sorted(problems))}")
        for name, layer in self.layers.items():
            places[name].fix(layer.weight(), layer.gain)
        with torch.no_grad():
            for name, value in self.rest.items():
                others[name].copy_(torch.from_numpy(value))
        return model.eval()

    def materialize(self, model):
        """The network as plain nn.Conv2d and nn.Linear with the effective weights: ready to lift out."""
        return layers.materialize(self.apply(model))

    def pack(self, mean=None, std=None):
        """The network as bits, which runs fast on a CPU: a Packed (sltlib.packed says what can be packed)."""
        from sltlib.packed import Packed

        return Packed.from_ticket(self, mean, std)

    def save(self, path):
        """Write one safetensors file, bit-packed, atomically; returns its size in bytes.

        It holds what the experiment's key is made of, so that a field that is new some day changes no byte.
        """
        from safetensors.numpy import save

        tensors, shapes = {}, []
        for name, layer in self.layers.items():
            shapes.append([name, list(layer.shape)])
            if layer.mask is not None:
                tensors[f"{name}.mask"] = np.packbits(layer.mask.reshape(-1))
            if layer.gain is None:
                tensors[f"{name}.weight"] = layer.kept.astype(np.float32)
            else:
                tensors[f"{name}.sign"] = np.packbits(layer.kept)
                tensors[f"{name}.gain"] = np.asarray(layer.gain, np.float32).reshape(1)
        tensors.update({f"rest/{name}": value for name, value in self.rest.items()})
        head = {"format": FORMAT, "experiment": self.experiment.canonical(), "layers": shapes}
        head["sha256"] = _digest(tensors, head)
        # One metadata key: with two, the header's order would be random.
        blob = save(tensors, metadata={"sltlib": json.dumps(head, sort_keys=True)})
        files.write(path, blob)
        return len(blob)

    @classmethod
    def load(cls, path):
        """Read and verify a ticket file.

        Raises ValueError saying what is wrong with it, or what this process lacks to understand it (an added
        neuron or search); never loads half, and takes no more memory than the weights that are really there.
        """
        try:
            spec, found, rest = _read(path)
        except FileNotFoundError:
            raise FileNotFoundError(f"no ticket at {path}") from None
        except OSError:
            raise
        except Exception as error:  # safetensors, JSON, shapes: whatever a broken file can raise
            why = f"{type(error).__name__}: {error}"[:300]
            raise ValueError(f"{path} is not a whole ticket file ({why}); make it again or fetch it again") from error
        try:
            return cls(_experiment(spec), found, rest)
        except Exception as error:  # an unknown field, an added neuron; or nonsense, of any kind
            raise ValueError(f"{path} is whole, but where it comes from is not understood here: {error}"[:2000]) from error


def _read(path):
    """The description of the experiment, the layers and the rest of a ticket file, all verified."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        head = json.loads((file.metadata() or {})["sltlib"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if head["format"] != FORMAT:
        raise ValueError(f"format {head['format']}, this version reads {FORMAT}")
    if head.pop("sha256") != _digest(tensors, head):
        raise ValueError("its content does not match its sha256")
    found = {}
    for name, shape in head["layers"]:
        if name in found:
            raise ValueError(f"two layers {name}")
        try:
            found[name] = _layer(name, shape, tensors)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    rest = {name.removeprefix("rest/"): value for name, value in tensors.items() if name.startswith("rest/")}
    if len(rest) != len(tensors):
        raise ValueError(f"tensors of no layer: {', '.join(sorted(tensors.keys() - {f'rest/{n}' for n in rest}))}")
    for name, value in rest.items():
        if value.dtype.kind not in "fiub" or not np.isfinite(value).all():
            raise ValueError(f"{name} holds values that are no finite numbers")
        if name.endswith("running_var") and (value < 0).any():
            raise ValueError(f"{name} holds negative variances")
    return head["experiment"], found, rest


def _layer(name, shape, tensors):
    """Takes the tensors of a layer out; nothing is unpacked before its size is known to be right."""
    if not (isinstance(shape, list) and shape and all(type(n) is int and n > 0 for n in shape)):
        raise ValueError(f"no shape of a weight: {shape!r}")
    size, mask = math.prod(shape), tensors.pop(f"{name}.mask", None)
    if mask is not None:
        mask = _unpacked(mask, size).reshape(shape)
    count = size if mask is None else int(mask.sum())
    if f"{name}.weight" in tensors:
        kept, gain = _typed(tensors.pop(f"{name}.weight"), np.float32, (count,)), None
    else:
        kept = _unpacked(tensors.pop(f"{name}.sign"), count)
        gain = _typed(tensors.pop(f"{name}.gain"), np.float32, (1,))[0]
    return Sparse(tuple(shape), mask, kept, gain)


def _unpacked(packed, count):
    return np.unpackbits(_typed(packed, np.uint8, (-(-count // 8),)), count=count).astype(bool)


def _typed(array, dtype, shape):
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{array.dtype} of shape {array.shape}, want {np.dtype(dtype)} of {shape}")
    return array


def _experiment(spec):
    """The Experiment of a description, whole (older files) or canonical, if this process knows all it names."""
    lacking, part = [], spec
    while part is not None:
        if not isinstance(part, dict):
            raise ValueError(f"an experiment is a table of fields, this is {part!r:.80}")
        lacking += [
            f"{name} {part[name]!r} (sltlib.registry.{name.upper()}S[{part[name]!r}] = its function)"
            for name, table in TABLES.items()
            if part.get(name) is not None and part[name] not in table
        ]
        if part.get("neuron_spikes") and part.get("neuron") not in SPIKING:
            lacking.append(f"that its neuron spikes (sltlib.registry.SPIKING.add({part.get('neuron')!r}))")
        part = part.get("source")
    if lacking:
        raise ValueError(f"this process lacks its {', '.join(dict.fromkeys(lacking))}; add that first")
    experiment = Experiment.from_spec(spec)
    now = experiment.canonical()
    changed = [n for n in ("model", "neuron", "selector") if spec.get(f"{n}_source", now.get(f"{n}_source")) != now.get(f"{n}_source")]
    if changed:
        warnings.warn(f"the added {' and '.join(changed)} was another when this ticket was made: it may predict otherwise", stacklevel=3)
    return experiment


def _skeleton(experiment):
    """The experiment's network without weights, for its neurons; an added one, which may do anything, is built whole."""
    if "model" in experiment.added:
        return models.build_model(experiment)
    with torch.device("meta"):
        return lookup(MODELS, experiment.model)(experiment, 1, experiment.image_size or 64, 2)


def _neurons(model):
    """The neurons of a network by name, in words: what its predictions depend on besides the ticket's tensors."""
    out = {}
    for name, module in model.named_modules():
        if isinstance(module, LIF):
            constants = {"beta": module.beta, "threshold": module.threshold}
            said = [f"{n}={'learned' if isinstance(v, nn.Parameter) else f'{v.item():.7g}'}" for n, v in constants.items()]
            out[name] = f"{type(module).__name__}({', '.join(said)}, reset={module.reset_mechanism!r})"
        elif name.endswith("neuron"):
            out[name] = type(module).__name__
    return out


def _rest(model):
    """Tensors of the network outside the prunable weights that its predictions depend on."""
    inside = {f"{name}.{own}" for name in layers.prunable(model) for own in ("weight", "scores", "mask")}
    for name, module in model.named_modules():
        if isinstance(module, LIF):  # its constants are the experiment's
            inside |= {f"{name}.{own}" for own, _ in module.named_buffers()}
    state = model.state_dict(keep_vars=True).items()
    return {k: v.detach() for k, v in state if k not in inside and not k.endswith("num_batches_tracked")}


def _digest(tensors, head):
    sha = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        sha.update(f"{name} {array.dtype} {array.shape}".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()

"""A Ticket: what a search found, as values that save to one small file.

Per layer a mask (one bit a weight), and under it either signs (one bit each) and a gain, or float
weights; besides, the normalisation's statistics. A dense network is the ticket with nothing removed.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sltlib import layers
from sltlib.experiment import Experiment
from sltlib.neurons import LIF

FORMAT = 1


@dataclass(frozen=True)
class Sparse:
    """One layer: `mask` (bool, shape of the weight) or None when dense; `kept`: signs (bool) or float32 of
    the kept weights in index order; `gain`: float32 for signs, None for float weights."""

    shape: tuple
    mask: np.ndarray | None
    kept: np.ndarray
    gain: np.ndarray | None

    def __post_init__(self):
        size = int(np.prod(self.shape)) if self.mask is None else int(self.mask.sum())
        if self.mask is not None and self.mask.shape != tuple(self.shape):
            raise ValueError(f"a mask of shape {self.mask.shape} for a weight of {self.shape}")
        if self.kept.size != size:
            raise ValueError(f"{self.kept.size} weights for the {size} that the mask keeps")

    @property
    def density(self):
        """The fraction of weights kept."""
        return self.kept.size / int(np.prod(self.shape))

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


@dataclass(frozen=True)
class Ticket:
    """`Ticket.load(path).apply(build_model(experiment))` predicts.

    experiment : where it comes from. layers : a Sparse for each prunable layer, by name.
    rest : the other tensors of the network (normalisation, biases), by name.
    """

    experiment: Experiment
    layers: dict
    rest: dict

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
        return sum(int(np.prod(layer.shape)) for layer in self.layers.values())

    def masks(self):
        """The mask of every layer as bool tensors, by name; all True where the layer is dense."""
        return {
            name: torch.ones(layer.shape, dtype=torch.bool) if layer.mask is None else torch.from_numpy(layer.mask)
            for name, layer in self.layers.items()
        }

    def apply(self, model):
        """Put the ticket into a model of the same shape; returns the model, in evaluation mode.

        Raises ValueError naming every layer that does not fit.
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
        """Write one safetensors file, bit-packed, atomically; returns its size in bytes."""
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
        head = {"format": FORMAT, "experiment": self.experiment.spec(), "layers": shapes}
        head["sha256"] = _digest(tensors, head)
        # One metadata key: with two, the header's order would be random.
        blob = save(tensors, metadata={"sltlib": json.dumps(head, sort_keys=True)})
        path = Path(path)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_bytes(blob)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        return len(blob)

    @classmethod
    def load(cls, path):
        """Read and verify a ticket file. Raises ValueError saying what is wrong with it, never loads half."""
        try:
            return cls._load(path)
        except FileNotFoundError:
            raise FileNotFoundError(f"no ticket at {path}") from None
        except Exception as error:  # safetensors, JSON, shapes: whatever a broken file can raise
            raise ValueError(f"{path} is not a whole ticket file ({error}); make it again or fetch it again") from error

    @classmethod
    def _load(cls, path):
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
            size, mask = int(np.prod(shape)), tensors.get(f"{name}.mask")
            if mask is not None:
                mask = np.unpackbits(mask, count=size).astype(bool).reshape(shape)
            count, gain = size if mask is None else int(mask.sum()), tensors.get(f"{name}.gain")
            if gain is None:
                kept = tensors[f"{name}.weight"]
            else:
                kept, gain = np.unpackbits(tensors[f"{name}.sign"], count=count).astype(bool), gain[0]
            found[name] = Sparse(tuple(shape), mask, kept, gain)
        rest = {name.removeprefix("rest/"): value for name, value in tensors.items() if name.startswith("rest/")}
        return cls(Experiment.from_spec(head["experiment"]), found, rest)


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

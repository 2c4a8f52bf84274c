"""An Experiment: one training as a value, and the key that names its result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass

from sltlib import data, registry, rules
from sltlib.base.sources import code_hash
from sltlib.registry import MODELS, NEURONS, SEARCHES, SELECTORS, SPIKING, TABLES, TRANSFORMERS

# The version of the numbers that a training makes. It is part of every key: raise it when a
# change moves results (tests/test_train.py fails until then), and old results are kept apart.
NUMERICS = 1
# The same for a part: 2, attention's neuron fires at its threshold, as Zhou et al.'s does, and not only above.
ATTENTION = 2

# Fields of older versions, with the default at which they say nothing: what was written then is still read.
RETIRED = {"backward_steps": 0}
# What a canonical form says besides fields: it follows from them, or from code.
DERIVED = ("attention", "data_version", "neuron_spikes", *(f"{name}_source" for name in TABLES))


def field(default, help, right=None, words="", choices=None, read=None):
    """A field of an Experiment with every fact about it.

    help : one line. right, words : whether a value is right, and what is, in words. choices : what it may be.
    read : whether the training of an experiment depends on it; where it does not, it is in no key.
    """
    return dataclasses.field(
        default=default, metadata={"help": help, "right": right, "words": words, "choices": choices, "read": read}
    )


def _unrolled(e):
    return e.spiking


def _steps(e):
    return e.spiking or e.event


def _tokens(e):
    return e.model in TRANSFORMERS


def _blocks(e):
    return e.model == "spikformer"


def _layers(e):  # a convpep that ranks patches has no layers of its own but the head
    return not (e.model == "convpep" and e.source and e.search == "none")


@dataclass(frozen=True)
class Experiment:
    """One training, fully described (method of Cheng et al. 2023, arXiv 2311.12060).

    `neuron`, `weights` and `search` are the three switches that make every row of the paper's Table 1. What each
    field means, and its range, stands beside it. Tickets use the recipe on their scores, controls and dense
    rows on weights. Raises ValueError naming everything that is wrong at once. A field's default never changes.
    """

    dataset: str = field(dataclasses.MISSING, "the data set's name (`python -m sltlib data`)")
    model: str = field("conv4", "the network", choices=MODELS)
    width: float = field(
        1.0, "its channels and features, over the published number", lambda v: 0 < v <= 8, "above 0 and at most 8",
        read=lambda e: e.model != "linear",
    )
    image_size: int = field(0, "images are area-averaged to so many pixels a side", *data.RANGES["image_size"])
    train_images: int = field(0, "use only the first so many training images", *data.RANGES["train_images"])
    neuron: str = field("lif", "the activation", choices=NEURONS, read=lambda e: e.model != "linear")
    weights: str = field("float", "binary is a sign and one gain a layer", choices=("float", "binary"), read=_layers)
    search: str = field(
        "none", "none trains dense; edge-popup (binary: multi-prize) and bernoulli find a ticket; magnitude, early-bird and snip prune; the"
        " others are controls",
        choices=SEARCHES,
    )
    sparsity: float = field(
        0.0, "the fraction of weights *removed*", lambda v: 0 <= v < 1, "a fraction removed, at least 0 and below 1"
    )
    ranking: str = field(
        "layer", "what a search keeps: `sparsity` in every layer, or of all layers together: by raw scores (global), by"
        " scores over their initial scale (scaled), or in fixed shares (erdos-renyi: more in small layers)",
        choices=("layer", "global", "scaled", "erdos-renyi"),
    )
    timesteps: int = field(
        4, "steps of the LIF neuron for an image; frames of a recording", *data.RANGES["timesteps"], read=_steps
    )
    beta: float = field(0.99, "the LIF neuron's decay", lambda v: 0 <= v <= 1, "0 to 1", read=_unrolled)
    threshold: float = field(1.0, "the LIF neuron's threshold", lambda v: v > 0, "above 0", read=_unrolled)
    reset: str = field("zero", "what a spike does to the membrane", choices=("zero", "subtract"), read=_unrolled)
    surrogate: str = field(
        "atan", "the derivative of a spike", read=_unrolled,
        choices=("atan", "fast_sigmoid", "sigmoid", "triangle", "straight_through"),
    )
    affine: bool = field(False, "batch normalisation with learned scale and shift (not in a ticket search)", read=_layers)
    loss: str = field("mean", "cross-entropy of the mean logits, or the mean of every step's", choices=("mean", "per-step"), read=_steps)
    epochs: int = field(100, "passes over the training images", lambda v: v >= 1, "at least 1")
    batch_size: int = field(128, "images a step", lambda v: v >= 2, "at least 2 (normalisation needs two images)")
    optimizer: str = field("adam", "of scores or weights", choices=("adam", "sgd"))
    lr: float = field(0.1, "its rate", lambda v: v > 0, "above 0")
    momentum: float = field(0.9, "SGD's", lambda v: 0 <= v < 1, "at least 0 and below 1", read=lambda e: e.optimizer == "sgd")
    weight_decay: float = field(0.0, "of what is trained", lambda v: v >= 0, "0 or above")
    schedule: str = field("cosine", "of the rate over the whole training", choices=("cosine", "constant"))
    augment: str = field("none", "random views of the training images", choices=data.CHOICES["augment"])
    binning: str = field(
        "count", "a recording's frames hold equal numbers of events, or equal spans", choices=data.CHOICES["binning"], read=lambda e: e.event
    )
    seed: int = field(0, "of initial weights, scores and the order of batches", lambda v: 0 <= v < 2**31, "0 to 2**31 - 1")
    source: Experiment | None = field(
        None, "the experiment whose mask (found-mask-trained), whose network to prune (magnitude), or whose frozen ConvPEP"
        " (spikformer, convpep) it takes"
    )
    depth: int = field(4, "blocks of a spikformer", lambda v: 1 <= v <= 64, "1 to 64 blocks", read=_blocks)
    heads: int = field(12, "heads of its attention", lambda v: 1 <= v <= 64, "1 to 64 heads", read=_blocks)
    stem_pools: int = field(
        2, "max-pools in the ConvPEP, on its last stages", lambda v: 1 <= v <= 4,
        "1 to 4 (a patch has 2**stem_pools pixels a side)", read=_tokens,
    )
    stem_neuron: str = field(
        "same", "the ConvPEP's activation, if it is not that of the blocks", choices=("same", "lif", "relu", "sign", "gelu"),
        read=lambda e: _tokens(e) and e.stem_activation != e.neuron,
    )
    patch_sparsity: float = field(
        0.0, "the fraction of patches *removed*", lambda v: 0 <= v < 1,
        "a fraction of the patches removed, at least 0 and below 1", read=_tokens,
    )
    selector: str = field("none", "how patches are ranked (sltlib.patches)", choices=SELECTORS, read=_tokens)
    precision: str = field(
        "float32", "of products and activations; scores, norms' statistics and membranes stay float32",
        choices=("float32", "bfloat16"),
    )
    search_timesteps: int = field(
        0, "all epochs but the last run at so many steps, after Early-Time (Kim et al. 2022, arXiv 2207.01382)",
        lambda v: v >= 0, "0 (timesteps) or fewer steps than timesteps", read=_unrolled,
    )
    logit_scale: float = field(
        1.0, "the loss is taken of so many times the logits; predictions do not depend on it", lambda v: v > 0, "above 0"
    )
    penalty: float = field(
        1.0, "of search='bernoulli': how strongly the expected density is held to its target", lambda v: v >= 0, "0 or above",
        read=lambda e: e.search == "bernoulli",
    )
    stop_epoch: int = field(
        0, "a dense training ends after so many of its epochs, with the schedule of all: early weights", lambda v: v >= 0,
        "0 (epochs) or fewer epochs than epochs",
    )
    rewind_epoch: int = field(
        0, "search='magnitude' trains on from the dense network's weights after so many epochs; 0: as they were drawn",
        lambda v: v >= 0, "0 or fewer epochs than epochs", read=lambda e: e.search == "magnitude",
    )
    looks: int = field(
        1, "masks that search='early-bird' draws an epoch", lambda v: v >= 1, "at least 1", read=lambda e: e.search == "early-bird"
    )

    def __post_init__(self):
        problems = []
        for f in dataclasses.fields(self):
            value, kind = getattr(self, f.name), f.type
            if kind == "float" and type(value) is int and abs(value) < 2**53:
                value = float(value)
                object.__setattr__(self, f.name, value)
            if f.name == "source":
                if not (value is None or isinstance(value, Experiment)):
                    problems.append(f"source={value!r}: give an Experiment or None")
            elif type(value).__name__ != kind:
                problems.append(f"{f.name}={value!r} is a {type(value).__name__}, want {kind}")
            elif kind == "float" and not math.isfinite(value):
                problems.append(f"{f.name}={value!r}: give a finite number")
            elif wrong := misfit(f.name, value):
                problems.append(f"{f.name}={value!r}: {wrong}")
        if problems := problems or rules.contradictions(self):
            raise ValueError("Experiment: " + "; ".join(problems))

    @property
    def stem_activation(self) -> str:
        """The neuron of a spikformer's ConvPEP."""
        return self.neuron if self.stem_neuron == "same" else self.stem_neuron

    @property
    def spiking(self) -> bool:
        """Whether the network, or a part of it, unrolls its neurons over time."""
        stem = self.model == "spikformer" and self.stem_activation in SPIKING
        return stem or (self.neuron in SPIKING and self.model != "linear")

    @property
    def event(self) -> bool:
        """Whether the data are recordings, seen as `timesteps` frames; False for a data set that is not known."""
        return self.dataset in data.DATASETS and data.DATASETS[self.dataset].event

    @property
    def control(self) -> bool:
        """Whether it is a control, which draws other numbers than the tickets of its seed."""
        return self.search in registry.CONTROLS

    @property
    def early(self) -> Experiment | None:
        """The dense training to whose weights a pruned network is set back: its own, so far; None where it is to none."""
        if self.search != "magnitude" or not self.rewind_epoch:
            return None
        return self.replace(search="none", sparsity=0.0, source=None, rewind_epoch=0, stop_epoch=self.rewind_epoch)

    @property
    def needs(self) -> list[Experiment]:
        """The experiments that must be trained before: its source, and `early`."""
        return [e for e in (self.source, self.early) if e is not None]

    @property
    def passes(self) -> int:
        """Passes over the training images in this training alone, at most (Early-Bird may end sooner)."""
        return (self.stop_epoch or self.epochs) - self.rewind_epoch

    def replace(self, **changes) -> Experiment:
        """A copy with some fields changed; unknown names are refused."""
        if unknown := sorted(changes.keys() - FIELDS.keys()):
            raise ValueError(f"Experiment has no {', '.join(unknown)}")
        return dataclasses.replace(self, **changes)

    def spec(self) -> dict:
        """Every field as plain JSON values (what `experiment.json` holds)."""
        return {name: getattr(self, name) for name in FIELDS} | {"source": self.source.spec() if self.source else None}

    def canonical(self) -> dict:
        """What the training depends on: fields that differ from their default and are read at all."""
        out, added = {}, self.added
        for name, about in FIELDS.items():
            value, read = getattr(self, name), about.metadata["read"]
            if value != about.default and (read is None or added or read(self)):  # who knows what an added function reads
                out[name] = value.canonical() if isinstance(value, Experiment) else value
        if self.model == "spikformer" and self.neuron in SPIKING:
            out["attention"] = ATTENTION
        if (version := data.version(self.dataset, self.image_size, self.timesteps)) > 1:
            out["data_version"] = version
        for name in added:  # its code names its results, so that an edit is seen
            function = registry.lookup(TABLES[name], getattr(self, name))
            out[f"{name}_source"] = code_hash(function, f"{name} {getattr(self, name)!r}")
            if name == "neuron":
                out["neuron_spikes"] = self.spiking
        return out

    @property
    def key(self) -> str:
        """20 hex digits that name this training's result."""
        text = json.dumps([NUMERICS, self.canonical()], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @property
    def added(self) -> list[str]:
        """Which of model, neuron, search and selector was added to its table in this process."""
        return registry.added(self)

    @classmethod
    def from_spec(cls, spec: dict) -> Experiment:
        """The inverse of `spec()`, and of `canonical()`; unknown fields are refused by name, retired ones where they said
        something."""
        spec = {name: value for name, value in spec.items() if name not in DERIVED}
        for name, default in RETIRED.items():
            if spec.pop(name, default) != default:
                raise ValueError(f"{name} is a field of an older version, and here no training can do what it says")
        if unknown := sorted(spec.keys() - FIELDS.keys()):
            raise ValueError(f"Experiment has no {', '.join(unknown)}; was it written by a newer version?")
        if spec.get("source"):
            spec["source"] = cls.from_spec(spec["source"])
        if spec.get("model") not in TRANSFORMERS:  # older versions took there what transformers read, and read none of it
            found = cls(**{name: value for name, value in spec.items() if name not in rules.OF_TOKENS})
            if not found.added:
                return found
        return cls(**spec)


FIELDS = {f.name: f for f in dataclasses.fields(Experiment)}
CHOICES = {name: f.metadata["choices"] for name, f in FIELDS.items() if f.metadata["choices"]}
RANGES = {name: (f.metadata["right"], f.metadata["words"]) for name, f in FIELDS.items() if f.metadata["right"]}


def misfit(name: str, value) -> str:
    """What is wrong with a value of a field, in words, or ''. The type is not looked at."""
    if name in CHOICES and value not in CHOICES[name]:
        return f"choose from {', '.join(CHOICES[name])}"
    if name in RANGES:
        right, words = RANGES[name]
        try:
            fits = not isinstance(value, bool) and right(value)
        except TypeError:
            fits = False
        return "" if fits else f"give {words}"
    return ""

"""An Experiment: one training as a value, and the key that names its result."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import inspect
import json
import math
import re
import sys
from dataclasses import dataclass

# The version of the numbers that a training makes. It is part of every key: raise it when a
# change moves results (tests/test_train.py fails until then), and old results are kept apart.
NUMERICS = 1

# Adding a search, a neuron or a model is one function and one name here: "module:function" if it is to
# stay (workers read this file), or, in a process of your own, the function itself. `lookup` finds it.
SEARCHES = {
    "none": "sltlib.pruning:dense",
    "edge-popup": "sltlib.pruning:edge_popup",
    "random-readout": "sltlib.pruning:random_readout",
    "random-trained": "sltlib.pruning:random_trained",
    "found-mask-trained": "sltlib.pruning:found_mask_trained",
}
NEURONS = {
    "relu": "sltlib.neurons:relu",
    "sign": "sltlib.neurons:sign",
    "lif": "sltlib.neurons:lif",
    "gelu": "sltlib.neurons:gelu",
}
SPIKING = {"lif"}  # the neurons that map (T, B, ...) currents to (T, B, ...) spikes
# The data sets of recordings: there `timesteps` is the number of frames, which every neuron reads.
EVENTS = {"fashion-dvs", "n-mnist", "n-mnist-small", "dvs128-gesture", "cifar10-dvs"}
MODELS = {
    "conv2": "sltlib.models:vgg",
    "conv4": "sltlib.models:vgg",
    "conv6": "sltlib.models:vgg",
    "conv8": "sltlib.models:vgg",
    "resnet19": "sltlib.models:resnet19",
    "linear": "sltlib.models:linear",
    "spikformer": "sltlib.spikformer:spikformer",
    "convpep": "sltlib.spikformer:convpep",
}
SELECTORS = {
    "none": None,
    "rate": "sltlib.patches:rate",
    "attention": "sltlib.patches:attention",
    "learned": "sltlib.patches:learned",
    "random": "sltlib.patches:random",
}
TRANSFORMERS = {"spikformer", "convpep"}  # the models that read the fields from depth to selector
EMBEDDING = 384  # Spikformer's features a token at width 1
SMALLEST = {"conv8": 16}  # pixels a side, where 8 (the least there is) are too few for the pooling
TABLES = {"model": MODELS, "neuron": NEURONS, "search": SEARCHES, "selector": SELECTORS}
_SHIPPED = {name: dict(table) for name, table in TABLES.items()}
CHOICES = {
    **TABLES,
    "weights": ("float", "binary"),
    "ranking": ("layer", "global"),
    "reset": ("zero", "subtract"),
    "surrogate": ("atan", "fast_sigmoid", "sigmoid", "triangle", "straight_through"),
    "loss": ("mean", "per-step"),
    "optimizer": ("adam", "sgd"),
    "schedule": ("cosine", "constant"),
    "augment": ("none", "crop", "crop-flip", "crop-flip-cutout"),
    "stem_neuron": ("same", "lif", "relu", "sign", "gelu"),
    "binning": ("count", "time"),
    "precision": ("float32", "bfloat16"),
}
# field: (is right, what is right)
RANGES = {
    "width": (lambda v: 0 < v <= 8, "above 0 and at most 8"),
    "image_size": (lambda v: v == 0 or 8 <= v <= 1024, "0 (the data set's own) or 8 to 1024 pixels"),
    "train_images": (lambda v: v >= 0, "0 (all) or a number of images"),
    "sparsity": (lambda v: 0 <= v < 1, "a fraction removed, at least 0 and below 1"),
    "timesteps": (lambda v: 1 <= v <= 1024, "1 to 1024 steps"),
    "beta": (lambda v: 0 <= v <= 1, "0 to 1"),
    "threshold": (lambda v: v > 0, "above 0"),
    "epochs": (lambda v: v >= 1, "at least 1"),
    "batch_size": (lambda v: v >= 2, "at least 2 (normalisation needs two images)"),
    "lr": (lambda v: v > 0, "above 0"),
    "momentum": (lambda v: 0 <= v < 1, "at least 0 and below 1"),
    "weight_decay": (lambda v: v >= 0, "0 or above"),
    "seed": (lambda v: 0 <= v < 2**31, "0 to 2**31 - 1"),
    "depth": (lambda v: 1 <= v <= 64, "1 to 64 blocks"),
    "heads": (lambda v: 1 <= v <= 64, "1 to 64 heads"),
    "stem_pools": (lambda v: 1 <= v <= 4, "1 to 4 (a patch has 2**stem_pools pixels a side)"),
    "patch_sparsity": (lambda v: 0 <= v < 1, "a fraction of the patches removed, at least 0 and below 1"),
    "backward_steps": (lambda v: v >= 0, "0 (all of them) or a number of steps"),
    "search_timesteps": (lambda v: v >= 0, "0 (timesteps) or fewer steps than timesteps"),
}


@dataclass(frozen=True)
class Experiment:
    """One training, fully described (method of Cheng et al. 2023, arXiv 2311.12060).

    neuron, weights, search : the three switches that make every row of the paper's Table 1.
        `search="edge-popup"` finds a ticket; with `weights="binary"` it is the multi-prize
        ticket. `"random-readout"`, `"random-trained"` and `"found-mask-trained"` are controls.
    sparsity : the fraction of weights *removed* in every layer, in (0, 1) for a ticket, 0 dense.
    ranking : of a ticket search: "layer" keeps the best scores of every layer, "global" those of the
        whole network under one threshold (then `sparsity` is that of all layers together).
    image_size : images are area-averaged to this many pixels a side; 0 keeps their size.
    train_images : use only the first so many training images; 0 means all.
    timesteps : steps of the LIF neuron for an image; frames of an event recording.
    binning : a recording's frames hold equal numbers of events ("count") or equal spans ("time").
    beta, threshold, reset, surrogate : of the LIF neuron; other neurons ignore them.
    affine : batch normalisation with learned scale and shift (dense rows only).
    epochs, batch_size, optimizer, lr, momentum, weight_decay, schedule, augment, loss : the recipe;
        momentum is SGD's. Tickets use it on their scores, controls and dense rows on weights.
    source : for `found-mask-trained`, the experiment whose ticket gives the mask. For a spikformer or
        convpep, the one whose ConvPEP it takes as it was found and frozen; it trains the rest.
    depth, heads : blocks of a spikformer and heads of its attention. Its tokens have 384 * width features.
    stem_pools : max-pools in the ConvPEP, on its last stages.
    stem_neuron : the ConvPEP's activation, if it is not that of the blocks.
    patch_sparsity, selector : the fraction of patches *removed*, and by which ranking (sltlib.patches).
    precision : of products and activations; "bfloat16" is autocast. Weights, scores, norms' statistics and
        membranes stay float32.
    backward_steps : gradients flow through the last so many time steps only; 0 means all. A cheaper search,
        another gradient (the idea of Meng et al. 2023, arXiv 2302.14311).
    search_timesteps : all epochs but the last run at so many steps, the last at `timesteps`; 0 means all at
        `timesteps`. A cheaper search for static images (Early-Time, Kim et al. 2022, arXiv 2207.01382).

    Raises ValueError naming everything that is wrong at once. A field's default never changes.
    """

    dataset: str
    model: str = "conv4"
    width: float = 1.0
    image_size: int = 0
    train_images: int = 0
    neuron: str = "lif"
    weights: str = "float"
    search: str = "none"
    sparsity: float = 0.0
    ranking: str = "layer"
    timesteps: int = 4
    beta: float = 0.99
    threshold: float = 1.0
    reset: str = "zero"
    surrogate: str = "atan"
    affine: bool = False
    loss: str = "mean"
    epochs: int = 100
    batch_size: int = 128
    optimizer: str = "adam"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "cosine"
    augment: str = "none"
    binning: str = "count"
    seed: int = 0
    source: Experiment | None = None
    depth: int = 4
    heads: int = 12
    stem_pools: int = 2
    stem_neuron: str = "same"
    patch_sparsity: float = 0.0
    selector: str = "none"
    precision: str = "float32"
    backward_steps: int = 0
    search_timesteps: int = 0

    def __post_init__(self):
        problems = []
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), field.type
            if kind == "float" and type(value) is int:
                value = float(value)
                object.__setattr__(self, field.name, value)
            if field.name == "source":
                if not (value is None or isinstance(value, Experiment)):
                    problems.append(f"source={value!r}: give an Experiment or None")
            elif type(value).__name__ != kind:
                problems.append(f"{field.name}={value!r} is a {type(value).__name__}, want {kind}")
            elif kind == "float" and not math.isfinite(value):
                problems.append(f"{field.name}={value!r}: give a finite number")
            elif field.name in CHOICES and value not in CHOICES[field.name]:
                problems.append(f"{field.name}={value!r}: choose from {', '.join(CHOICES[field.name])}")
            elif field.name in RANGES and not RANGES[field.name][0](value):
                problems.append(f"{field.name}={value!r}: give {RANGES[field.name][1]}")
        if not problems:
            problems = self._contradictions()
        if problems:
            raise ValueError("Experiment: " + "; ".join(problems))

    def _contradictions(self):
        problems = []
        if self.search == "none" and self.sparsity:
            problems.append(f"sparsity={self.sparsity} needs a search (search='edge-popup'); dense means sparsity=0")
        if self.search != "none" and not self.sparsity:
            problems.append(f"search={self.search!r} needs a sparsity above 0 and below 1")
        if self.search == "edge-popup" and self.affine:
            problems.append("affine=True: a ticket search trains nothing but scores; leave affine=False")
        if self.ranking != "layer" and self.search != "edge-popup":
            problems.append(f"ranking={self.ranking!r} goes with search='edge-popup'")
        chained = self.model in TRANSFORMERS and self.search == "none"
        if self.search == "found-mask-trained" and self.source is None:
            problems.append("search='found-mask-trained' needs a source, the experiment whose mask it takes")
        if self.source is not None and self.search != "found-mask-trained" and not chained:
            problems.append(
                "source goes with search='found-mask-trained', or with search='none' of a spikformer or convpep"
            )
        if self.backward_steps > self.timesteps:
            problems.append(f"backward_steps={self.backward_steps}: give at most timesteps={self.timesteps}, or 0 for all")
        if self.search_timesteps:
            problems += self._early_time_problems(chained)
        if self.model in TRANSFORMERS:
            problems += self._transformer_problems()
        if self.source is not None and self.search == "found-mask-trained":
            if self.source.search != "edge-popup":
                problems.append("source must be a ticket search (search='edge-popup')")
            for name in ("dataset", "model", "width", "image_size", "sparsity"):
                mine, theirs = getattr(self, name), getattr(self.source, name)
                if mine != theirs:
                    problems.append(f"source has {name}={theirs!r}, this experiment {mine!r}: they must be equal")
        if self.image_size and self.image_size < SMALLEST.get(self.model, 0):
            least = SMALLEST[self.model]
            problems.append(f"image_size={self.image_size} is too small for {self.model}, which wants {least} pixels")
        if self.model == "linear" and (self.search != "none" or self.weights != "float" or self.affine):
            problems.append("model='linear' is a dense float classifier: leave search, weights and affine alone")
        return problems

    def _early_time_problems(self, chained):
        """What is wrong with a search at fewer steps."""
        given, problems = f"search_timesteps={self.search_timesteps}", []
        if self.search_timesteps >= self.timesteps:
            problems.append(f"{given}: give fewer than timesteps={self.timesteps}, or 0 for timesteps")
        if self.epochs < 2:
            problems.append(f"{given} needs 2 epochs or more: the last one runs at timesteps={self.timesteps}")
        if self.event:
            problems.append(f"{given}: the steps of a recording are its frames; it goes with static images")
        if 0 < self.search_timesteps < self.backward_steps:
            problems.append(f"backward_steps={self.backward_steps}: give at most {given}")
        if chained and self.source is not None:
            problems.append(f"{given}: a frozen ConvPEP gives its tokens for all timesteps; leave it 0")
        return problems

    def _transformer_problems(self):
        """What is wrong with a spikformer or convpep, its selector and its source."""
        problems, features = [], round(EMBEDDING * self.width)
        unit = math.lcm(8, self.heads) if self.model == "spikformer" else 8
        if features % unit:
            near = [n for n in (features // unit * unit, (features // unit + 1) * unit) if n]
            right = " or ".join(f"{n / EMBEDDING:.6g} ({n})" for n in near)
            heads = f" and its {self.heads} heads" if self.model == "spikformer" else ""
            problems.append(f"width={self.width} gives {features} features, which 8{heads} must divide: give {right}")
        if self.model == "spikformer" and self.search != "none":
            problems.append(
                f"search={self.search!r} with model='spikformer': search its ConvPEP alone (model='convpep') and give "
                "that experiment as the spikformer's source"
            )
        if self.model == "convpep" and self.stem_neuron != "same":
            problems.append("model='convpep' has one activation: name it as neuron and leave stem_neuron='same'")
        if (self.selector == "none") != (self.patch_sparsity == 0):
            problems.append("a selector goes with patch_sparsity above 0; all patches means selector='none'")
        if self.model == "convpep" and self.selector not in ("none", "learned"):
            problems.append(f"selector={self.selector!r} trains nothing: give it to the spikformer, not to the convpep")
        if self.selector != "none" and self.source is None:
            problems.append(f"selector={self.selector!r} ranks the patches of a frozen ConvPEP: give it as source")
        if self.source is not None and self.search == "none":
            problems += self._chain_problems()
        return problems

    def _chain_problems(self):
        """Whether the source is one whose ConvPEP, and selector, this experiment can take over."""
        source, problems = self.source, []
        if source.model not in TRANSFORMERS:
            return [f"source is a {source.model}: give a convpep or a spikformer"]
        if self.model == "spikformer" and self.selector == "learned":
            if (source.model, source.selector, source.patch_sparsity) != ("convpep", "learned", self.patch_sparsity):
                problems.append(
                    "selector='learned' takes over what a convpep with selector='learned' and the same "
                    "patch_sparsity has learned: give that as source"
                )
        elif source.selector != "none":
            problems.append(f"source has selector={source.selector!r}: give one that sees all patches")
        elif self.selector == "attention" and source.model != "spikformer":
            problems.append("selector='attention' ranks by a trained spikformer's first block: give that as source")
        same = ["dataset", "width", "image_size", "stem_pools", "timesteps", "stem_activation"]
        if self.stem_activation in SPIKING:
            same += ["beta", "threshold", "reset"]
        if self.selector == "attention":
            same += ["heads", "neuron"]
        for name in same:
            mine, theirs = getattr(self, name), getattr(source, name)
            if mine != theirs:
                problems.append(f"source has {name}={theirs!r}, this experiment {mine!r}: they must be equal")
        return problems

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
        """Whether the data are recordings, seen as `timesteps` frames."""
        return self.dataset in EVENTS

    def replace(self, **changes) -> Experiment:
        """A copy with some fields changed; unknown names are refused."""
        unknown = set(changes) - {f.name for f in dataclasses.fields(self)}
        if unknown:
            raise ValueError(f"Experiment has no {', '.join(sorted(unknown))}")
        return dataclasses.replace(self, **changes)

    def spec(self) -> dict:
        """Every field as plain JSON values (what `experiment.json` holds)."""
        out = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        out["source"] = self.source.spec() if self.source else None
        return out

    def canonical(self) -> dict:
        """What the training depends on: fields that differ from their default and are read at all."""
        unread = set()
        if not self.spiking:
            unread |= {"beta", "threshold", "reset", "surrogate", "backward_steps", "search_timesteps"}
            if not self.event:
                unread |= {"timesteps", "loss"}
        if not self.event:
            unread.add("binning")
        if self.backward_steps == self.timesteps:
            unread.add("backward_steps")
        if self.model == "linear":
            unread |= {"neuron", "width"}
        if self.optimizer != "sgd":
            unread.add("momentum")
        if self.model not in TRANSFORMERS:
            unread |= {"depth", "heads", "stem_pools", "stem_neuron", "patch_sparsity", "selector"}
        elif self.stem_activation == self.neuron:
            unread.add("stem_neuron")
        if self.model == "convpep":
            unread |= {"depth", "heads"}
            if self.source and self.search == "none":  # it has no layers of its own but the head
                unread |= {"weights", "affine"}
        if self.added:  # who knows what an added function reads
            unread = set()
        out = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.name not in unread and (f.default is dataclasses.MISSING or value != f.default):
                out[f.name] = value.canonical() if isinstance(value, Experiment) else value
        for name in self.added:  # its source names its results, so that an edit is seen
            out[f"{name}_source"] = _source_hash(name, getattr(self, name))
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
        """Which of model, neuron, search and selector was added to its table in this process, and so is unknown to others."""
        return [n for n in TABLES if TABLES[n][getattr(self, n)] is not _SHIPPED[n].get(getattr(self, n))]

    @classmethod
    def from_spec(cls, spec: dict) -> Experiment:
        """The inverse of `spec()`; unknown fields are refused by name."""
        unknown = set(spec) - {f.name for f in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"Experiment has no {', '.join(sorted(unknown))}; was it written by a newer version?")
        spec = dict(spec)
        if spec.get("source"):
            spec["source"] = cls.from_spec(spec["source"])
        return cls(**spec)


def lookup(table: dict, name: str):
    """The function that a table above names."""
    target = table[name]
    if callable(target):
        return target
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)


# The rows of the paper's Table 1: one network, three switches (arXiv 2311.12060, Table 1).
ROWS = {
    "ANN": dict(neuron="relu", weights="float", search="none"),
    "BNN": dict(neuron="relu", weights="binary", search="none"),
    "BinActBNN": dict(neuron="sign", weights="binary", search="none"),
    "SNN": dict(neuron="lif", weights="float", search="none"),
    "BinWSNN": dict(neuron="lif", weights="binary", search="none"),
    "ANN-ConnS": dict(neuron="relu", weights="float", search="edge-popup"),
    "BNN-ConnS": dict(neuron="relu", weights="binary", search="edge-popup"),
    "ActBNN-ConnS": dict(neuron="sign", weights="binary", search="edge-popup"),
    "SNN-ConnS": dict(neuron="lif", weights="float", search="edge-popup"),
    "BinWSNN-ConnS": dict(neuron="lif", weights="binary", search="edge-popup"),
}
TICKETS = tuple(name for name, switches in ROWS.items() if switches["search"] != "none")
CONTROLS = ("random-readout", "random-trained", "found-mask-trained")


def row(name, sparsity=0.5, **fields):
    """The Experiment of a row ("SNN"), of a ticket row's control ("SNN-ConnS random-trained"), or "linear".

    sparsity : of the ticket rows and their controls; dense rows leave it out. fields : all others.
    """
    if name == "linear":
        return Experiment(**fields | {"model": "linear", "neuron": "relu"})
    ticket, _, control = name.partition(" ")
    if ticket not in ROWS or (control and (control not in CONTROLS or ticket not in TICKETS)):
        known = [*ROWS, "linear", f"a ticket row and one of {', '.join(CONTROLS)}"]
        raise ValueError(f"no row {name!r}: choose from {', '.join(known)}")
    switches = ROWS[ticket] | ({"search": control} if control else {})
    return Experiment(**switches, sparsity=sparsity if ticket in TICKETS else 0.0, **fields)


def _source_hash(field, name):
    """Hash of an added function's source and of what it names in its own module."""
    first = lookup(TABLES[field], name)
    todo, texts = [first], {}
    while todo:
        thing = todo.pop()
        parts = [v for v in vars(thing).values() if inspect.isfunction(v)] if inspect.isclass(thing) else [thing]
        try:
            text = "".join(inspect.getsource(part) for part in parts)
        except (TypeError, OSError) as error:
            raise ValueError(
                f"{field} {name!r}: its key needs the source of {thing!r}: define it with def in a file or a notebook"
            ) from error
        texts[thing.__qualname__] = text
        module = vars(sys.modules[thing.__module__])
        for word in set(re.findall(r"[A-Za-z_]\w*", text)):
            used = module.get(word)
            own = (inspect.isfunction(used) or inspect.isclass(used)) and used.__module__ == thing.__module__
            if own and used.__qualname__ not in texts:
                todo.append(used)
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:12]

"""Table 2 of arXiv 2311.12060 and the levels of MultiSp, as chains of experiments, with their controls."""

from __future__ import annotations

from sltlib import stats, table1
from sltlib.experiment import Experiment

# [P]'s columns, accuracy in percent, (TINY, SMALL); patch sparsity 31.4 and 37.6 %, ConvPEP's 48.7 and 54.9 %.
PAPER = {
    "CIFAR10": {
        "Transformer": (85.71, 87.36),
        "Spikeformer": (84.81, 87.17),
        "Transformer-PatchS": (82.04, 83.76),
        "Spikeformer-PatchS": (81.75, 82.98),
        "Spikeformer-CPS": (81.21, 82.44),
    },
    "CIFAR100": {
        "Transformer": (67.37, 69.12),
        "Spikeformer": (66.54, 69.43),
        "Transformer-PatchS": (64.71, 66.22),
        "Spikeformer-PatchS": (62.98, 64.86),
        "Spikeformer-CPS": (62.82, 64.89),
    },
    "DVS128 Gesture": {
        "Transformer": (94.96, 97.12),
        "Spikeformer": (94.13, 96.99),
        "Transformer-PatchS": (93.89, 96.74),
        "Spikeformer-PatchS": (94.37, 96.88),
        "Spikeformer-CPS": (94.50, 97.22),
    },
    "CIFAR10-DVS": {
        "Transformer": (78.43, 80.01),
        "Spikeformer": (77.86, 79.77),
        "Transformer-PatchS": (76.61, 78.42),
        "Spikeformer-PatchS": (77.14, 78.91),
        "Spikeformer-CPS": (77.03, 79.02),
    },
}
MULTISP = {"MultiSp-SLT": 90.21, "MultiSp-LT": 90.21 - 0.34}  # arXiv 2309.13302, CIFAR10

KINDS = {"Spikeformer": "lif", "Transformer": "gelu"}
# What is sparse, or one bit, in each row. None: trained in one piece. whole: the ConvPEP of the network in one
# piece, frozen, under an encoder trained anew. All others take the four steps of Algorithm 1.
LEVELS = {
    "": None,
    "retrained": dict(whole=True),
    "PatchS": dict(whole=True, patches=True),
    "in steps": dict(),
    "binary ConvPEP": dict(weights="binary", ticket=True),
    "sign ConvPEP": dict(sign=True),
    "CPS": dict(ticket=True, patches=True),
    "MultiSp": dict(weights="binary", ticket=True, sign=True, patches=True),
}
CONTROLS = ("random patches", "random ConvPEP")  # of MultiSp: its patches, or its ConvPEP's mask, by chance


def paper(dataset):
    """{row: the papers' accuracy in percent} (TINY's) where the data is theirs, else None."""
    column = table1.COLUMNS.get(dataset)
    theirs = {name: tiny for name, (tiny, _) in PAPER[column].items()} if column else None
    return theirs | MULTISP if column == "CIFAR10" else theirs


def rows():
    """Every row's name, in reading order; a LIF's activations are bits already, so only one kind has "sign ConvPEP"."""
    names = [name_of(kind, level) for level in LEVELS for kind in KINDS if (kind, level) != ("Spikeformer", "sign ConvPEP")]
    return [*names, *(f"{name_of(kind, 'MultiSp')} {control}" for kind in KINDS for control in CONTROLS)]


def name_of(kind, level):
    """"Spikeformer-PatchS"; the rows of all levels are called MultiSp-SLT and MultiSp-LT."""
    if level == "MultiSp":
        return "MultiSp-SLT" if kind == "Spikeformer" else "MultiSp-LT"
    joint = "-" if level in ("PatchS", "CPS") else ", " if level else ""
    return f"{kind}{joint}{level}"


def arm(part, neuron, ticket=False):
    """The name of a recipe: of a "stem", "selector", "encoder" or "whole" network."""
    return f"{part} {neuron}{' ticket' if ticket else ''}"


def row(name, base, recipe, sparsity, patch_sparsity, seed, search_epochs, rank_epochs, selector="learned") -> Experiment:
    """The Experiment of a row's last step; its chain of sources are the steps before.

    base : fields of a spikformer. recipe : {arm: optimizer and lr}. sparsity : of the ConvPEP;
    patch_sparsity : of the patches, selector : their ranking. search_epochs, rank_epochs : of steps 1 and 3. A
    network in one piece (and the linear classifier) sees the training data as often as all steps together.
    """
    longer = {"epochs": search_epochs + rank_epochs + base["epochs"], "seed": seed}
    if name == "linear":
        unread = ("width", "depth", "heads", "stem_pools", "affine")
        fields = {field: value for field, value in base.items() if field not in unread}
        return Experiment(**fields | recipe["linear"] | longer | dict(model="linear", neuron="relu"))
    kind, level, control = _parts(name)
    neuron, what = KINDS[kind], LEVELS[level]
    network = dict(base, model="spikformer", neuron=neuron, seed=seed)
    whole = Experiment(**network | recipe[arm("whole", neuron)] | longer)
    if what is None:
        return whole
    stem = "sign" if what.get("sign") and neuron != "lif" else neuron
    how = recipe[arm("stem", stem, what.get("ticket", False))] | dict(epochs=search_epochs)
    if control == "random ConvPEP":
        how |= dict(search="random-readout")
    return multisp(
        Experiment(**network, **recipe[arm("encoder", neuron)], stem_neuron=stem if stem != neuron else "same"),
        sparsity=sparsity if what.get("ticket") else 0.0,
        weights=what.get("weights", "float"),
        patch_sparsity=patch_sparsity if what.get("patches") else 0.0,
        selector="random" if control == "random patches" else selector,
        search=how,
        rank=recipe[arm("selector", stem)] | dict(epochs=rank_epochs) if selector == "learned" else None,
        source=whole if what.get("whole") else None,
    )


def _parts(name):
    for kind in KINDS:
        for level in LEVELS:
            for control in ("", *CONTROLS):
                if name == f"{name_of(kind, level)} {control}".strip() and (not control or level == "MultiSp"):
                    return kind, level, control
    raise ValueError(f"no row {name!r}: choose from {', '.join(rows())}, linear")


def multisp(
    network, sparsity=0.5, weights="binary", patch_sparsity=0.3, selector="learned", search=None, rank=None, source=None
):
    """Multi-level sparsity, Algorithm 1 of arXiv 2311.12060: the Experiment whose Ticket holds all levels.

    network : a spikformer Experiment without source; its neuron makes MultiSp-SLT ("lif") or -LT ("gelu"), its
        stem_neuron is the ConvPEP's activation ("lif" or "sign" is one bit). Its recipe is that of step 4.
    sparsity, weights : of the ConvPEP; 0 trains it dense. patch_sparsity : 0 keeps all patches, then
        there is no step 3. selector : a name in registry.SELECTORS.
    search, rank : fields of steps 1 and 3 that differ from the network's, as dicts (epochs, lr, ...).
    source : an Experiment whose ConvPEP is taken in place of step 1's: patches of a spikformer trained
        as a whole. Then sparsity, weights and search are not read.

    `run([multisp(...)])` trains the steps that the store lacks; those that two chains share only once.
    """
    bare = dict(model="convpep", neuron=network.stem_activation, stem_neuron="same")
    # 1. Search the ConvPEP's scores under a temporary linear head.
    stem, how = source, dict(search="edge-popup", affine=False) if sparsity else {}  # it trains only scores
    if stem is None:
        stem = network.replace(**bare | how | dict(sparsity=sparsity, weights=weights) | (search or {}))
    # 2. Freeze what was found and drop the head: what a source does.
    if not patch_sparsity:
        return network.replace(source=stem)
    # 3. Rank the patches.
    ranking, chosen = stem, dict(selector=selector, patch_sparsity=patch_sparsity)
    if selector == "learned":
        ranking = network.replace(**bare | chosen | dict(source=stem) | (rank or {}))
    elif selector == "attention":
        ranking = network.replace(source=stem, **(rank or {}))
    # 4. Train encoder and head on the patches that are kept.
    return network.replace(source=ranking, **chosen)


# arm: the row, and how many sources back, whose validation accuracy judges its recipe. Those of the second
# group start from what was chosen in the first.
TUNED = (
    {
        "linear": ("linear", 0),
        "stem lif": ("Spikeformer, in steps", 1),
        "stem gelu": ("Transformer, in steps", 1),
        "stem sign": ("Transformer, sign ConvPEP", 1),
        "stem lif ticket": ("Spikeformer, binary ConvPEP", 1),
        "stem gelu ticket": ("Transformer, binary ConvPEP", 1),
        "stem sign ticket": ("MultiSp-LT", 2),
        "whole lif": ("Spikeformer", 0),
        "whole gelu": ("Transformer", 0),
    },
    {
        "selector lif": ("Spikeformer-PatchS", 1),
        "selector gelu": ("Transformer-PatchS", 1),
        "selector sign": ("MultiSp-LT", 1),
        "encoder lif": ("Spikeformer, in steps", 0),
        "encoder gelu": ("Transformer, in steps", 0),
    },
)


def judged(arm, candidate, recipe, base, *settings) -> Experiment:
    """The Experiment that judges a candidate recipe of an arm; base and settings as in `row`.

    recipe : those of the first group, for an arm of the second.
    """
    group = next(group for group in TUNED if arm in group)
    name, back = group[arm]
    unread = dict.fromkeys((a for g in TUNED for a in g), {})  # of steps that come after
    found = row(name, base, unread | recipe | {arm: candidate}, *settings)
    for _ in range(back):
        found = found.source
    return found


# Each in the paper's own direction: (a, b) is a - b, and (a, b, c, d) is (a - b) - (c - d).
ABOVE = {
    "Reward 2: MultiSp-SLT loses less than MultiSp-LT": ("MultiSp-SLT", "Spikeformer", "MultiSp-LT", "Transformer"),
    "the same against the network in steps": ("MultiSp-SLT", "Spikeformer, in steps", "MultiSp-LT", "Transformer, in steps"),
    "MultiSp-SLT above MultiSp-LT (the +0.34)": ("MultiSp-SLT", "MultiSp-LT"),
    "patches: the spiking network loses less": (
        "Spikeformer-PatchS", "Spikeformer, retrained", "Transformer-PatchS", "Transformer, retrained",
    ),
    "binary ConvPEP: the spiking network loses less": (
        "Spikeformer, binary ConvPEP", "Spikeformer, in steps", "Transformer, binary ConvPEP", "Transformer, in steps",
    ),
    "MultiSp-SLT above its random patches": ("MultiSp-SLT", "MultiSp-SLT random patches"),
    "MultiSp-SLT above its random ConvPEP": ("MultiSp-SLT", "MultiSp-SLT random ConvPEP"),
    "MultiSp-LT above its random patches": ("MultiSp-LT", "MultiSp-LT random patches"),
    "MultiSp-LT above its random ConvPEP": ("MultiSp-LT", "MultiSp-LT random ConvPEP"),
    "MultiSp-SLT above linear": ("MultiSp-SLT", "linear"),
    "the dense Spikeformer above linear": ("Spikeformer", "linear"),
}  # fmt: skip
WITHIN = {
    "MultiSp-SLT no worse than the dense Spikeformer": ("MultiSp-SLT", "Spikeformer"),
    "Spikeformer-CPS no worse than Spikeformer-PatchS": ("Spikeformer-CPS", "Spikeformer-PatchS"),
    "Spikeformer no worse than Transformer": ("Spikeformer", "Transformer"),
}


def compare(accuracy, margin=1.0):
    """What the paper reads from its table, and the controls, tested: two `stats.Family`, "above" and "no worse"."""
    return stats.family(accuracy, ABOVE), stats.family(accuracy, WITHIN, margin)

"""Table 1 of arXiv 2311.12060: its rows and their controls as experiments, and what the paper reads from it."""

from __future__ import annotations

from dataclasses import replace

from sltlib import stats
from sltlib.data.catalogue import DATASETS
from sltlib.experiment import Experiment
from sltlib.registry import CONTROLS

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


def row(name, sparsity=0.5, affine=False, **fields):
    """The Experiment of a row ("SNN"), of a ticket row's control ("SNN-ConnS random-trained"), or "linear".

    sparsity : of the ticket rows and their controls; dense rows leave it out. affine : of the dense rows, which
    alone may have it. A ticket row may name another search: "SNN-ConnS bernoulli". fields : all others.
    """
    if name == "linear":
        return Experiment(**fields | {"model": "linear", "neuron": "relu"})
    ticket, _, control = name.partition(" ")
    others = (*CONTROLS, "bernoulli")
    if ticket not in ROWS or (control and (control not in others or ticket not in TICKETS)):
        known = [*ROWS, "linear", f"a ticket row and one of {', '.join(others)}"]
        raise ValueError(f"no row {name!r}: choose from {', '.join(known)}")
    switches = ROWS[ticket] | ({"search": control} if control else {})
    dense = ticket not in TICKETS
    return Experiment(**switches, sparsity=0.0 if dense else sparsity, affine=affine and dense, **fields)


# VGG-9, tickets at 50 %, one run a row, in the order of ROWS.
PAPER = {
    "CIFAR10": (88.10, 86.75, 83.84, 87.71, 87.57, 87.73, 85.27, 81.30, 87.52, 87.76),
    "CIFAR100": (68.64, 67.27, 58.57, 67.94, 66.81, 67.56, 66.73, 55.81, 67.22, 66.74),
    "DVS128 Gesture": (92.92, 92.09, 85.41, 92.78, 91.97, 92.43, 91.74, 81.53, 92.17, 91.70),
    "CIFAR10-DVS": (78.65, 77.94, 69.21, 78.41, 77.49, 77.92, 77.31, 63.82, 77.94, 77.01),
}
COLUMNS = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "dvs128-gesture": "DVS128 Gesture", "cifar10-dvs": "CIFAR10-DVS"}
LT, SLT, MPLT, MPLT11, MPSLT = "ANN-ConnS", "SNN-ConnS", "BNN-ConnS", "ActBNN-ConnS", "BinWSNN-ConnS"

# The comparisons, each in the paper's own direction: (a, b) is a - b, and (a, b, c, d) is (a - b) - (c - d).
ABOVE = {
    "MPSLT above SLT (the +0.24)": (MPSLT, SLT),
    "MPSLT above MPLT 1/32": (MPSLT, MPLT),
    "MPSLT above MPLT 1/1 (sign)": (MPSLT, MPLT11),
    "SLT above MPLT 1/1 (sign)": (SLT, MPLT11),
    "SLT loses less than LT": (SLT, "SNN", LT, "ANN"),
    "MPSLT loses less than MPLT 1/32": (MPSLT, "BinWSNN", MPLT, "BNN"),
}
WITHIN = {
    "MPSLT no worse than dense SNN": (MPSLT, "SNN"),
    "SLT no worse than dense SNN": (SLT, "SNN"),
    "SLT no worse than LT": (SLT, LT),
    "dense SNN no worse than dense ANN": ("SNN", "ANN"),
}


def column(dataset):
    """The column of the paper's table that a data set is shown beside: its own, or that of its kind."""
    return COLUMNS.get(dataset, "CIFAR10-DVS" if dataset in DATASETS and DATASETS[dataset].event else "CIFAR10")


def paper(dataset):
    """{row: the paper's accuracy in percent} in the column of a data set."""
    return dict(zip(ROWS, PAPER[column(dataset)], strict=True))


def experiments(base, recipe, sparsity, seeds):
    """{(name, seed): Experiment}: the ten rows, the linear classifier, and every ticket row's controls.

    base : fields of all, `affine` for the dense rows. recipe : a function of (name, sparsity) that gives a
    row's optimizer and lr, such as a notebook's `p.recipe`. Of the control `found-mask-trained` there is the
    MPSLT's; its source is the ticket of its seed.
    """
    controls = ["linear", *(f"{name} {control}" for name in TICKETS for control in CONTROLS[:2])]
    made = {}
    for name in [*ROWS, *controls]:
        for seed in seeds:
            made[name, seed] = row(name, sparsity, **base, **recipe(name, sparsity), seed=seed)
    name = f"{MPSLT} {CONTROLS[2]}"
    for seed in seeds:
        made[name, seed] = row(name, sparsity, **base, **recipe(name, sparsity), seed=seed, source=made[MPSLT, seed])
    return made


def accuracies(table):
    """{row: {seed: test accuracy}} of a table with the columns row, seed and test_accuracy."""
    return {name: dict(zip(part.seed, part.test_accuracy, strict=True)) for name, part in table.groupby("row", sort=False)}


def compare(accuracy, dataset, margin=1.0):
    """What the paper reads from its table, tested: two `stats.Family`, those "above" and those "no worse".

    accuracy : from `accuracies`. margin : points that "no worse" may lose. Verdicts tell the paper's difference.
    """
    # Networks of other neurons or weights share nothing by their seed (mean correlation -.01 over these rows).
    above = stats.family(accuracy, ABOVE, groups="independent")
    within = stats.family(accuracy, WITHIN, margin, groups="independent")
    title, theirs = column(dataset), differences(dataset)
    title = {"CIFAR10": "CIFAR-10", "CIFAR100": "CIFAR-100"}.get(title, title)
    return tuple(
        replace(f, claims={c: replace(v, detail=f"{v.detail} Paper, {title}: {theirs[c]:+.2f}.") for c, v in f.claims.items()})
        for f in (above, within)
    )


def differences(dataset):
    """{claim: the paper's difference} of all comparisons, in the column of a data set."""
    values, out = paper(dataset), {}
    for claim, rows in (ABOVE | WITHIN).items():
        a, b, c, d = [values[name] for name in rows] + [0] * (4 - len(rows))
        out[claim] = a - b - (c - d)
    return out


def against_controls(accuracy):
    """A `stats.Family`: every ticket above linear, random-readout and random-trained, MPSLT above found-mask-trained."""
    pairs = {}
    for name in TICKETS:
        for control in ("linear", f"{name} random-readout", f"{name} random-trained"):
            pairs[f"{name} − {control.removeprefix(name + ' ')}"] = (name, control)
    pairs[f"{MPSLT} − found-mask-trained"] = (MPSLT, f"{MPSLT} found-mask-trained")
    found = stats.family(accuracy, pairs, groups="independent")
    return replace(found, claims={k: replace(v, claim=v.claim.replace("−", "beats")) for k, v in found.claims.items()})

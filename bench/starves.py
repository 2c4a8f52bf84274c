"""What else starves a sparse ticket, one change at a time: `python -m bench.starves [--only "6 epochs"]`.

The binary tickets of notebook 03, at 80 and 95 % of the weights removed and with the recipes that were tuned there, are
trained once more with one thing changed. Judged on the validation split with the tuning seeds; writes every training to
results/tuning/starves.csv, and prints a table: the difference to no change, paired by seed. One threshold for all layers
is not among them: it wants a learning rate of its own (notebook 03, section 7).
"""

import argparse


from sltlib import run
from sltlib.base import files, paths
from sltlib.experiment import FIELDS
from sltlib.intervals import interval, paired
from sltlib.notebook import profiles, recipes, tune
from sltlib.table1 import MPLT, MPLT11, MPSLT, row

KINDS = {MPSLT: "MPSLT (lif)", MPLT: "MPLT 1/32 (relu)", MPLT11: "MPLT 1/1 (sign)"}
SPARSITIES = (0.8, 0.95)
CHANGES = {
    "nothing": {},
    "6 epochs": {"epochs": 6},
    "12 epochs": {"epochs": 12},
    "24 epochs": {"epochs": 24},
    "twice the width": {"width": 1.0},
    "Erdős–Rényi shares": {"ranking": "erdos-renyi"},
    "searched at T = 2": {"search_timesteps": 2},
}
OF_LIF = ("searched at T = 2",)  # what networks without time cannot have
FILE = paths.ROOT / "results" / "tuning" / "starves.csv"


def pairs(changes):
    """[(change, ticket, sparsity, Experiment)] of the named changes."""
    found = profiles.settings("mini", tune.SWEEP)
    base = {name: value for name, value in found.items() if name in FIELDS and name not in (*recipes.NAMES, "sparsity", "seed")}
    out = []
    for change in changes:
        for name in KINDS:
            for sparsity in SPARSITIES:
                if change in OF_LIF and name != MPSLT:
                    continue
                fields = base | recipes.recipe(found["recipes"], name, sparsity) | CHANGES[change]
                out += [(change, name, sparsity, row(name, sparsity, **fields, seed=seed)) for seed in tune.SEEDS]
    return out


def told(table):
    """The table as Markdown: mean validation accuracy without a change, and each change's difference with its 95 % interval."""
    columns = [(name, sparsity) for sparsity in SPARSITIES for name in KINDS]
    lines = ["| change | " + " | ".join(f"{KINDS[name]}, {sparsity:.0%}".replace("%", " %") for name, sparsity in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    base = {key: part.set_index("seed").val_accuracy for key, part in table[table.change == "nothing"].groupby(["row", "sparsity"])}
    for change, part in table.groupby("change", sort=False):
        cells = []
        for key in columns:
            here = part[(part.row == key[0]) & (part.sparsity == key[1])].set_index("seed").val_accuracy
            if here.empty:
                cells.append("")
            elif change == "nothing":
                cells.append(f"{interval(here.tolist()).mean:.1f}")
            else:
                found = paired(here.to_dict(), base[key].to_dict())
                cells.append(f"{found.mean:+.1f} ({found.low:+.1f} to {found.high:+.1f})")
        lines.append(f"| {change} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv=None):
    parser = argparse.ArgumentParser("python -m bench.starves", description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=[name for name in CHANGES if name != "nothing"], help="this change only; may be repeated")
    given = parser.parse_args(argv)
    wanted = pairs(["nothing", *(given.only or [name for name in CHANGES if name != "nothing"])])
    table = run([e for *_, e in wanted])
    table.insert(0, "change", [change for change, *_ in wanted])
    table.insert(1, "row", [name for _, name, *_ in wanted])
    table = table[["change", "row", "sparsity", "seed", "val_accuracy", "key"]]
    if given.only:
        print(f"{FILE.name} stays as it is: it holds all changes")
    else:
        files.write(FILE, table.to_csv(index=False, lineterminator="\n", float_format="%.8g"))
    print(told(table))


if __name__ == "__main__":
    main()

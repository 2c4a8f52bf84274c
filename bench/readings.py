"""What the study's networks on CIFAR-10 cost, read in all four ways: `python -m bench.readings`.

The claim on energy is judged by the papers' arithmetic alone, and `python -m sltlib claims` counts nothing else before notebook
05 has run with all its rows. Here the networks that claims compare in notebook 02 are counted on the test images as there, and
priced by every model of `sltlib.energy`. Needs what `train --profile study --notebook 02 --primary` trains, with the networks.
Writes results/study/readings.csv, a line a network. Of one that is stored without its network (`unpack`) it keeps what that file
says of the same one, or leaves it out, and says so.
"""

import argparse

import pandas

from sltlib import Store, energy
from sltlib.base import files, paths
from sltlib.intervals import interval
from sltlib.notebook import plan, primary
from sltlib.table1 import MPSLT

PROFILE, NOTEBOOK = "study", "02_table1_cnn"
READINGS = plan.READINGS
PAIRS = {"ANN / MPSLT": ("ANN", MPSLT), "ANN / dense SNN": ("ANN", "SNN"), "dense SNN / MPSLT": ("SNN", MPSLT)}
ROWS = ("ANN", "SNN", MPSLT)
FILE = paths.ROOT / "results" / PROFILE / "readings.csv"


def line(row, seed, result, known):
    """A dict with the columns of readings.csv; None of a network that is not here. known : {(key, hash of the network, `energy.NUMBERS`): such a dict}."""
    what = (result.key, result.network_hash, energy.NUMBERS)
    if what in known or not result.ticket_path:
        return known.get(what)
    counts = primary.counted(result)
    return {"row": row, "seed": seed} | {name: primary.priced(counts, name) for name in READINGS} | dict(zip(("key", "network", "numbers"), what, strict=True))


def told(table):
    """The table as Markdown: how many times the energy of the one the other needs, by reading, with 95 % intervals over trainings."""
    out = ["| energy of the one over the other | " + " | ".join(READINGS) + " | n |", "|---" * (len(READINGS) + 2) + "|"]
    for words, (one, other) in PAIRS.items():
        a, b = (table[table.row == row].set_index("seed") for row in (one, other))
        found = [interval((a[reading] / b[reading]).dropna().to_dict()) for reading in READINGS]
        out.append(f"| {words} | " + " | ".join(f"{f.mean:.2f} ({f.low:.2f} to {f.high:.2f})" for f in found) + f" | {found[0].n} |")
    return "\n".join(out)


def main(argv=None):
    argparse.ArgumentParser("python -m bench.readings", description=__doc__.splitlines()[0]).parse_args(argv)
    store, known = Store(), {}
    if FILE.is_file():
        known = {(d["key"], d["network"], d["numbers"]): d for d in files.table(FILE).to_dict("records")}
    wanted = [(point["row"], seed, store.get(e)) for point, seed, e in plan.primary(PROFILE, NOTEBOOK) if point["row"] in ROWS]
    if missing := sum(result is None for *_, result in wanted):
        raise SystemExit(f"{missing} of {len(wanted)} trainings are not stored: `python -m sltlib train --profile {PROFILE} --notebook {NOTEBOOK[:2]} --primary`")
    lines = []
    for row, seed, result in wanted:
        if (found := line(row, seed, result, known)) is None:
            print(f"{row}, seed {seed}: left out, for it is stored without its network; remove {result.path} and train it again")
            continue
        lines.append(found)
        print(*(f"{name}={value}" for name, value in found.items() if name != "network"), flush=True)
    table = pandas.DataFrame(lines)
    files.write(FILE, table.to_csv(index=False, lineterminator="\n"))
    print(told(table))


if __name__ == "__main__":
    main()

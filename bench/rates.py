"""Does a verdict of the study hang on a learning rate? `python -m bench.rates`.

The recipes of notebook 03 were tuned for three epochs of a sample, and the study trains ten of all images. The
rows in TRIED are those whose accuracy looked short of passes. Each is trained at other rates with the first two of the
study's seeds, and where another rate than the recipe's is best on the validation split, with all of them; then the
claim is judged a second time, with these rows exchanged and all others as they are: in its favour, for nothing else
may choose anew. Needs what `train --profile study --notebook 03 --primary` trains. Writes results/study/rates.csv, a line a
training, and rates.zip, which `python -m sltlib unpack` takes into a store.
"""

import argparse
import statistics

import pandas

from sltlib import Store, claims, predictions, run
from sltlib.base import files, paths
from sltlib.engine import packs
from sltlib.intervals import paired
from sltlib.notebook import plan, tune
from sltlib.table1 import MPSLT

CLAIM, PROFILE, CHOOSING = "reward-1", "study", 2
TRIED = {(MPSLT, 0.95): (0.02, 0.063)}  # beside the recipe's own rate
NAMES = {MPSLT: "MPSLT"}
FOLDER = paths.ROOT / "results" / PROFILE
COLUMNS = ["row", "sparsity", "lr", "logit_scale", "seed", "val_accuracy", "test_accuracy", "key"]


def lines(point, experiments):
    """Trains what is missing; a dict a training, with the columns of rates.csv."""
    table = run(experiments)
    return [{**point, **e.spec(), "val_accuracy": v, "test_accuracy": t, "key": e.key}
            for e, v, t in zip(experiments, table.val_accuracy, table.test_accuracy, strict=True)]  # fmt: skip


def tried(wanted):
    """The lines of all rates of the rows in TRIED; wanted : what `plan.primary` gives."""
    out = []
    for (row, sparsity), rates in TRIED.items():
        point = {"row": row, "sparsity": sparsity}
        own = [e for where, _, e in wanted if where == point]
        found = lines(point, own)
        for lr in rates:
            found += lines(point, [e.replace(lr=lr) for e in own[:CHOOSING]])
        if (lr := best(found)) != own[0].lr:
            found += lines(point, [e.replace(lr=lr) for e in own[CHOOSING:]])
        out += found
    return out


def best(found):
    """The rate with the highest mean validation accuracy over the seeds that all rates have; the first on a tie."""
    rates = list(dict.fromkeys(line["lr"] for line in found))
    by_rate = {lr: {line["seed"]: line["val_accuracy"] for line in found if line["lr"] == lr} for lr in rates}
    seeds = set.intersection(*map(set, by_rate.values()))
    return max(rates, key=lambda lr: statistics.fmean(by_rate[lr][seed] for seed in seeds))


def judged(claim, base, found, right):
    """(the claim as registered, and with each row of TRIED at its best rate), each a `claims.Tested`.

    base : the lines that the claim is judged by, as `claims.judge` wants them. right : {key: `predictions.Right`} of both.
    """
    other = base
    for row, sparsity in TRIED:
        own = [line for line in found if (line["row"], line["sparsity"]) == (row, sparsity)]
        lr = best(own)
        other = [line for line in other if (line["row"], line["sparsity"]) != (row, sparsity)] + [line for line in own if line["lr"] == lr]
    return [claims.judge(claim, pandas.DataFrame(lines), right) for lines in (base, other)]


def told(found):
    """The lines as Markdown: a line a rate, and what it is worth beside the recipe's, paired by seed."""
    out = ["| row | rate | validation | test | test, beside the recipe's rate | n |", "|---" * 6 + "|"]
    table = pandas.DataFrame(found)
    for (row, sparsity), part in table.groupby(["row", "sparsity"], sort=False):
        own = part[part.lr == part.lr.iloc[0]].set_index("seed")
        for lr, here in part.groupby("lr", sort=False):
            here = here.set_index("seed")
            words = "the recipe's"
            if lr != part.lr.iloc[0]:
                worth = paired(here.test_accuracy.to_dict(), own.test_accuracy[here.index].to_dict())
                words = f"{worth.mean:+.2f}" + (f" ({worth.low:+.2f} to {worth.high:+.2f})" if len(here) > CHOOSING else "")
            out.append(f"| {NAMES[row]}, {100 * sparsity:g} % | {lr:g} | {here.val_accuracy.mean():.2f} | {here.test_accuracy.mean():.2f} | {words} | {len(here)} |")
    return "\n".join(out)


def main(argv=None):
    argparse.ArgumentParser("python -m bench.rates", description=__doc__.splitlines()[0]).parse_args(argv)
    claim, store = claims.load()[CLAIM], Store()
    wanted = plan.primary(PROFILE, tune.SWEEP)
    if missing := sum(store.get(e) is None for *_, e in wanted):
        raise SystemExit(f"{missing} of {len(wanted)} trainings of the claim are not stored: `python -m sltlib unpack results/study/trainings.zip`, "
                         f"then `python -m sltlib train --profile {PROFILE} --notebook 03 --primary`")  # fmt: skip
    found = tried(wanted)
    text = pandas.DataFrame(found)[COLUMNS].to_csv(index=False, lineterminator="\n", float_format="%.8g")
    files.write(FOLDER / "rates.csv", text)
    packs.pack(store, [line["key"] for line in found], FOLDER / "rates.zip")
    print(told(found))
    every = {e.key: store.get(e) for *_, e in wanted} | {line["key"]: store.read(line["key"]) for line in found}
    right = predictions.unpack(predictions.pack({key: result.predictions() for key, result in every.items()}))
    base = [{"sparsity": None, **point, "seed": seed, "test_accuracy": every[e.key].metrics["test_accuracy"], "key": e.key} for point, seed, e in wanted]
    for words, each in zip(("as registered", "with these rates"), judged(claim, base, found, right), strict=True):
        print(f"\n{words}: {each.verdict}. {each.why}")


if __name__ == "__main__":
    main()

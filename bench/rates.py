"""Do verdicts of the study hang on a learning rate? `python -m bench.rates`.

The recipes of notebooks 03 and 04 were tuned for three epochs of a sample, 04's at T = 4 only, and the study trains ten of
all images; those of 02 for three epochs of a fifth of the images, and it trains five of all. TRIED names the networks whose
recipe could have made a verdict: they lost by more than expected, or were never tuned where they lost. Each is trained at
other rates with the first two of the study's seeds, and where another rate than the recipe's is best on the validation
split, with all of them; then its claim is judged a second time, with this network exchanged and all others as they are: in
the network's favour, for nothing else may choose anew. Needs what `train --profile study --notebook 03 --primary`, and 04
and 02, train. Writes results/study/rates.csv, a line a training, and rates.zip, which `python -m sltlib unpack` takes into a
store. With --stored it trains nothing and writes what is there so far; with a network that lacks trainings no claim is
judged a second time.
"""

import argparse
import dataclasses
import statistics

import pandas

from sltlib import Store, claims, compared, predictions, run
from sltlib.base import files, paths
from sltlib.engine import packs
from sltlib.intervals import paired
from sltlib.notebook import plan
from sltlib.table1 import MPSLT

PROFILE, CHOOSING = "study", 2


@dataclasses.dataclass(frozen=True)
class Tried:
    """A network of a claim, and the rates that are tried beside its recipe's; point : how the claim names it."""

    claim: str
    network: str
    point: tuple
    rates: tuple


TRIED = (
    Tried("reward-1", "MPSLT, 95 %", (("row", MPSLT), ("sparsity", 0.95)), (0.02, 0.063)),
    Tried("time-and-decay", "MPSLT, T = 1", (("row", "MPSLT"), ("sweep", "T"), ("value", 1)), (0.0063, 0.063)),
    Tried("cifar10", "MPSLT, CIFAR-10", (("row", MPSLT),), (0.0063, 0.02)),
)
FOLDER = paths.ROOT / "results" / PROFILE
COLUMNS = ["network", "lr", "logit_scale", "seed", "val_accuracy", "test_accuracy", "key"]


def lines(network, experiments, stored=None):
    """A dict a training, with the columns of rates.csv. Trains what is missing; of a Store given: only what it has."""
    if stored is not None:
        experiments = [e for e in experiments if stored.get(e) is not None]
    if not experiments:
        return []
    table = run(experiments)
    return [e.spec() | {"network": network, "val_accuracy": v, "test_accuracy": t, "key": e.key}
            for e, v, t in zip(experiments, table.val_accuracy, table.test_accuracy, strict=True)]  # fmt: skip


def trained(one, wanted, stored=None):
    """The lines of all rates of a Tried; wanted : what `plan.primary` gives; stored : as in `lines`."""
    own = [e for where, _, e in wanted if where == dict(one.point)]
    found = lines(one.network, own, stored)
    for lr in one.rates:
        found += lines(one.network, [e.replace(lr=lr) for e in own[:CHOOSING]], stored)
    if (lr := best(found)) != own[0].lr:
        found += lines(one.network, [e.replace(lr=lr) for e in own[CHOOSING:]], stored)
    return found


def best(found):
    """The rate with the highest mean validation accuracy over the seeds that all rates have; the first on a tie."""
    rates = list(dict.fromkeys(line["lr"] for line in found))
    by_rate = {lr: {line["seed"]: line["val_accuracy"] for line in found if line["lr"] == lr} for lr in rates}
    seeds = set.intersection(*map(set, by_rate.values()))
    return max(rates, key=lambda lr: statistics.fmean(by_rate[lr][seed] for seed in seeds))


def complete(one, found):
    """Has a network all that `trained` wants: the first seeds of every rate, and all of the best one?"""
    own = [line for line in found if line["network"] == one.network]
    count = {lr: sum(line["lr"] == lr for line in own) for lr in (own[0]["lr"], *one.rates)}
    return count[best(own)] == count[own[0]["lr"]] and min(count.values()) >= CHOOSING


def judged(claim, base, found, right):
    """(the claim as registered, and with each network of TRIED at its best rate), each a `claims.Tested`.

    Only the first where a network is not `complete`.

    base : the lines that the claim is judged by, as `claims.judge` wants them. right : {key: `predictions.Right`} of both.
    """
    mine, other = [one for one in TRIED if one.claim == claim.name], base
    for one in mine:
        point, own = dict(one.point), [line for line in found if line["network"] == one.network]
        lr = best(own)
        exchanged = [point | {name: line[name] for name in ("seed", "test_accuracy", "key")} for line in own if line["lr"] == lr]
        other = [line for line in other if not compared.fits(line, point)] + exchanged
    each = (base, other) if all(complete(one, found) for one in mine) else (base,)
    return [claims.judge(claim, pandas.DataFrame(lines), right) for lines in each]


def told(found):
    """The lines as Markdown: a line a rate, and what it is worth beside the recipe's, paired by seed."""
    out = ["| network | rate | validation | test | test, beside the recipe's rate | n |", "|---" * 6 + "|"]
    for network, part in pandas.DataFrame(found).groupby("network", sort=False):
        own = part[part.lr == part.lr.iloc[0]].set_index("seed")
        for lr, here in part.groupby("lr", sort=False):
            here = here.set_index("seed")
            words = "the recipe's"
            if lr != part.lr.iloc[0]:
                worth = paired(here.test_accuracy.to_dict(), own.test_accuracy[here.index].to_dict())
                words = f"{worth.mean:+.2f}" + (f" ({worth.low:+.2f} to {worth.high:+.2f})" if len(here) > CHOOSING else "")
            out.append(f"| {network} | {lr:g} | {here.val_accuracy.mean():.2f} | {here.test_accuracy.mean():.2f} | {words} | {len(here)} |")
    return "\n".join(out)


def needed(name, store):
    """What `plan.primary` gives for a claim; SystemExit where a training is not stored."""
    notebook = claims.load()[name].notebook
    wanted = plan.primary(PROFILE, notebook)
    if missing := sum(store.get(e) is None for *_, e in wanted):
        raise SystemExit(f"{missing} of {len(wanted)} trainings of {name} are not stored: `python -m sltlib unpack results/study/trainings.zip`, "
                         f"then `python -m sltlib train --profile {PROFILE} --notebook {notebook[:2]} --primary`")  # fmt: skip
    return wanted


def main(argv=None):
    parser = argparse.ArgumentParser("python -m bench.rates", description=__doc__.splitlines()[0])
    parser.add_argument("--stored", action="store_true", help="train nothing; write and tell what the store has so far")
    store, stored = Store(), parser.parse_args(argv).stored
    wanted = {name: needed(name, store) for name in dict.fromkeys(one.claim for one in TRIED)}  # all problems before any work
    found = [line for one in TRIED for line in trained(one, wanted[one.claim], store if stored else None)]
    text = pandas.DataFrame(found)[COLUMNS].to_csv(index=False, lineterminator="\n", float_format="%.8g")
    keys, pack = {line["key"] for line in found}, FOLDER / "rates.zip"
    if lost := packs.packed(pack) - keys if pack.is_file() else ():
        raise SystemExit(f"{pack} has {len(lost)} trainings that would be lost: `python -m sltlib unpack {pack}` first, or remove it")
    packs.pack(store, keys, pack)
    files.write(FOLDER / "rates.csv", text)
    print(told(found))
    for name, mine in wanted.items():
        every = {e.key: store.get(e) for *_, e in mine} | {line["key"]: store.read(line["key"]) for line in found}
        right = predictions.unpack(predictions.pack({key: result.predictions() for key, result in every.items()}))
        base = [point | {"seed": seed, "test_accuracy": every[e.key].metrics["test_accuracy"], "key": e.key} for point, seed, e in mine]
        each = judged(claims.load()[name], base, found, right)
        for words, one in zip(("as registered", "with these rates"), each, strict=False):
            print(f"\n{name}, {words}: {one.verdict}. {one.why}")
        if len(each) == 1:
            print("With these rates it is not judged: trainings are missing, which the same command without --stored makes")


if __name__ == "__main__":
    main()

"""Recipes searched in the open: the same budget for every arm, judged on the validation split.

`python -m sltlib tune` searches the recipes of every notebook of a profile that has rows of its own, and writes
under results/tuning/<name>/: grid.csv (every candidate and its validation accuracy) and choices.json (the
best of each arm, which the notebooks read). Nothing here looks at the test split, and the tuning seeds are not
those of the reported runs. Trainings are stored, and what a committed grid.csv has under the key of a training is
not trained again: a search that was interrupted, or widened, goes on where it stopped, and begun.csv, which stands beside
these files until a search has ended, takes it to another machine. `--anew` believes no file.

Every arm of a group has the same number of candidates in the same rounds, and most notebooks' arms are one group. First
a coarse grid, then two more learning rates around the best one of each scale of the logits. That round is repeated, for
all arms, while any arm's best is at the lowest or highest rate that it tried. Then the best three of every arm are trained
with two more seeds, and the mean decides: the best of many single trainings is often only a lucky one. Where the mean moved
a choice to an end of what was tried, all arms get one round more, and the best candidate left of each arm those seeds.
"""

import argparse
import functools
import json
import math
import sys

import pandas

from sltlib import claims, compared, standard, table2
from sltlib.base import files
from sltlib.experiment import FIELDS
from sltlib.notebook import candidates, profiles, recipes
from sltlib.table1 import ROWS, TICKETS, row

# The notebooks with rows of their own.
IMAGES, SWEEP, EVENT, TRANSFORMER = "02_table1_cnn", "03_reward1_sparsity", "06_event_data", "08_table2_multisp"
STANDARD = "09_standard_tickets"
NOTEBOOKS = (IMAGES, SWEEP, EVENT, TRANSFORMER, STANDARD)
SEEDS = (1000, 1001, 1002)  # every candidate of every arm is trained with the first, its best ones with all
FINALISTS = 3
RATES, SCALES = (0.002, 0.02, 0.2), (1.0, 4.0)  # the first round: each rate at each scale, by Adam
ROUNDS = (2, 3)  # at least, at most
# Where a whole training of every candidate takes too long, all arms alike are tuned on less: of a profile, or of one tuning.
SMALLER = {"study": dict(train_images=9000, epochs=3), "mini-08": dict(train_images=4000)}
# Where even that takes hours: the rows of 02 that a claim compares are a group of their own, searched before all others.
CLAIMED_FIRST = ("study",)
CONTROLS = ("random-readout", "random-trained")
# The rows that are tuned, by notebook; a row more is a word more. Those of SWEPT at every sparsity of 03.
SWEPT = (
    *TICKETS,
    *(f"{name} bernoulli" for name in ("BNN-ConnS", "BinWSNN-ConnS")),
    *(f"{name} random-trained" for name in ("ANN-ConnS", "SNN-ConnS")),
)
TABLE1 = (*ROWS, "linear", *(f"{name} {control}" for name in TICKETS for control in CONTROLS))
DENSE = tuple(name for name in ROWS if name not in TICKETS)
# The rows of 09: the dense ones, and at each of its sparsities the pruned ones, searches and controls.
PRUNED = tuple(f"{dense} {pruner}" for dense in ("SNN", "ANN") for pruner in ("magnitude", "snip"))
RIVALS = (
    *("SNN-ConnS", "BinWSNN-ConnS", "BinWSNN-ConnS bernoulli", "SNN-ConnS random-trained"),
    *("ANN-ConnS", "BNN-ConnS", "ANN-ConnS random-trained"),
)
STEPS = ("search_epochs", "rank_epochs")  # settings of a transformer that are no fields
LEVELS = ("sparsity", "sparsities", "patch_sparsity", "rounds", "rewind", "rivals")


def name_of(profile, notebook=IMAGES):
    """The name of a tuning: the profile's, and the notebook's number where it is not 02."""
    return profile if notebook == IMAGES else f"{profile}-{notebook[:2]}"


def subject(name):
    """(profile, notebook) of a tuning's name: the inverse of `name_of`; ValueError where there is no such notebook."""
    profile, dash, number = name.partition("-")
    for notebook in NOTEBOOKS:
        if notebook == IMAGES if not dash else notebook[:2] == number:
            return profile, notebook
    raise ValueError(f"no tuning is called {name!r}: give a profile, and after a dash one of {', '.join(n[:2] for n in NOTEBOOKS)}")


def settings(profile, notebook=IMAGES):
    """The parameters of a notebook in a profile that its recipes are tuned for."""
    values = profiles.settings(profile, notebook)
    wanted = {*FIELDS, *STEPS, *LEVELS} - {"seed", *recipes.NAMES}
    return {name: value for name, value in values.items() if name in wanted}


def reduced(profile, notebook=IMAGES):
    """The settings that the candidates are trained with: those of the notebook, or fewer passes where SMALLER says so."""
    return settings(profile, notebook) | SMALLER.get(profile, {}) | SMALLER.get(name_of(profile, notebook), {})


def arms(profile, notebook=IMAGES):
    """Groups of {arm: its sparsity}, searched one after the other: the steps of transformers start from what was chosen before."""
    found = settings(profile, notebook)
    if notebook == TRANSFORMER:
        return [dict.fromkeys(group, found["sparsity"]) for group in table2.TUNED]
    if notebook == SWEEP:
        at = {f"{arm}{recipes.AT}{sparsity:g}": sparsity for sparsity in found["sparsities"] for arm in SWEPT}
        return [dict.fromkeys((*DENSE, "linear"), 0.0) | at]
    if notebook == STANDARD:
        names, points = dict.fromkeys((*PRUNED, *RIVALS, *found["rivals"])), [standard.after(n) for n in found["rounds"]]
        at = {f"{arm}{recipes.AT}{sparsity:.4g}": sparsity for sparsity in points for arm in names}
        return [dict.fromkeys(("SNN", "ANN", "linear"), 0.0) | at]
    every = dict.fromkeys(TABLE1, found["sparsity"])
    if profile not in CLAIMED_FIRST:
        return [every]
    claimed = {point["row"] for claim in claims.load().values() for point in compared.needs(claim, IMAGES)}
    return [{arm: every[arm] for arm in every if (arm in claimed) == first} for first in (True, False)]


def judge(notebook, found, arm, sparsity, recipe, seed, chosen=None):
    """The Experiment whose validation accuracy judges a recipe of an arm.

    found : the notebook's `settings`. chosen : of transformers, the recipes of the earlier group's arms.
    """
    found = dict(found)
    steps, patches = [found.pop(name, None) for name in STEPS], found.pop("patch_sparsity", 0.0)
    fixed = {name: value for name, value in found.items() if name not in LEVELS}
    if notebook == TRANSFORMER:
        return table2.judged(arm, recipe, chosen or {}, fixed, sparsity, patches, seed, *steps)
    name = arm.partition(recipes.AT)[0]
    dense, _, pruner = name.partition(" ")
    if name in PRUNED:
        network = row(dense, **fixed, **recipe, seed=seed)
        return standard.one_shot(network, sparsity, found["rewind"]) if pruner == "magnitude" else network.replace(search=pruner, sparsity=sparsity)
    return row(name, sparsity, **fixed, **recipe, seed=seed)


# --- the search --------------------------------------------------------------------------------


def first_round():
    """The recipes that every arm begins with."""
    return [dict(optimizer="adam", lr=lr, logit_scale=scale) for lr in RATES for scale in SCALES]


def next_round(table, arm):
    """Recipes around an arm's best rate at each scale: the rates half-way (in the logarithm) to its neighbours.

    At an end of what was tried the outer one lies as far beyond it as a neighbour of the first round.
    """
    made, step = [], math.sqrt(RATES[1] / RATES[0])
    for scale in SCALES:
        part = table[(table.arm == arm) & (table.logit_scale == scale)]
        means = part.fillna({"val_accuracy": -1.0}).groupby("lr", sort=False).val_accuracy.agg(["mean", "count"])
        tried, found = sorted(means.index), means[means["count"] == means["count"].max()]["mean"].idxmax()
        place = tried.index(found)
        lower = math.sqrt(tried[place - 1] * found) if place else found / step
        higher = math.sqrt(tried[place + 1] * found) if place + 1 < len(tried) else found * step
        made += [dict(optimizer="adam", lr=float(f"{lr:.2g}"), logit_scale=scale) for lr in (lower, higher)]
    return made


def finalists(table, arm, count=FINALISTS):
    """An arm's best recipes by the first seed, of those that no other seed was tried with; the first of the table on a tie."""
    part = table[table.arm == arm]
    part = part[part.groupby(list(recipes.NAMES)).seed.transform("nunique") == 1].dropna(subset="val_accuracy")
    return part.sort_values("val_accuracy", ascending=False, kind="stable")[list(recipes.NAMES)].head(count).to_dict("records")


def at_edge(table):
    """The arms whose choice is the lowest or highest rate that was tried for them at its scale."""
    tried = table.groupby(["arm", "logit_scale"]).lr.agg(["min", "max"])
    return [arm for arm, found in best(table).items() if found["lr"] in tuple(tried.loc[(arm, found["logit_scale"])])]


def best(table):
    """{arm: its best recipe} by mean validation accuracy, of the recipes with the most seeds; the first on a tie.

    Raises ValueError naming an arm of which no candidate trained.
    """
    groups = table.groupby(["arm", *recipes.NAMES], sort=False)["val_accuracy"]
    means = groups.agg(["mean", "count"]).reset_index().query("count > 0")
    if missing := set(table.arm) - set(means.arm):
        raise ValueError(f"no candidate of {', '.join(sorted(missing))} could be trained")
    means = means[means["count"] == means.groupby("arm")["count"].transform("max")]
    top = means.loc[means.groupby("arm", sort=False)["mean"].idxmax()].set_index("arm")
    return {
        arm: {"optimizer": r.optimizer, "lr": float(r.lr), "logit_scale": float(r.logit_scale), "val_accuracy": round(r.mean, 2)}
        for arm, r in zip(dict.fromkeys(table.arm), top.loc[list(dict.fromkeys(table.arm))].itertuples(), strict=True)
    }


def bare(choices):
    """{arm: recipe} of choices, without their scores."""
    return {arm: {name: found[name] for name in recipes.NAMES} for arm, found in choices.items()}


def search(profile, notebook, known=None, say=print, keep=None, groups=None):
    """Search the recipes of a notebook's arms, group after group; the table of all candidates, with their rounds.

    known : {key: validation accuracy} of trainings that need not be done again. keep(table) is called
    after every round with its candidates. groups : how many of the groups; None for all.
    """
    done, found, name = [], reduced(profile, notebook), name_of(profile, notebook)
    for group in arms(profile, notebook)[:groups]:
        chosen = bare(best(pandas.concat(done))) if done else None
        done.append(_searched(notebook, found, group, chosen, known or {}, lambda words: say(f"{name}: {words}"), keep or (lambda table: None)))
    return pandas.concat(done, ignore_index=True)


def _searched(notebook, found, group, chosen, known, say, keep):
    """The candidates of one group of arms, {arm: its sparsity}."""
    table = None

    def train(words, tried, seeds):
        nonlocal table
        wanted = [(arm, recipe, seed) for arm in group for recipe in tried(arm) for seed in seeds]
        pairs = [(arm, judge(notebook, found, arm, group[arm], recipe, seed, chosen)) for arm, recipe, seed in wanted]
        say(f"{words}, {len(group)} arms, {len(pairs)} trainings")
        part = trained(pairs, list(recipes.NAMES), known)
        part.insert(1, "round", 1 if table is None else table["round"].max() + 1)
        keep(part)
        table = part if table is None else pandas.concat([table, part], ignore_index=True)

    train("round 1", lambda arm: first_round(), SEEDS[:1])
    for number in range(2, ROUNDS[1] + 1):
        if number <= ROUNDS[0] or at_edge(table):
            train(f"round {number}", lambda arm: next_round(table, arm), SEEDS[:1])
    train("the best again", lambda arm: finalists(table, arm), SEEDS[1:])
    if at_edge(table):
        train("a round more, for an edge", lambda arm: next_round(table, arm), SEEDS[:1])
        train("the best one left, again", lambda arm: finalists(table, arm, 1), SEEDS[1:])
    return table


def trained(pairs, columns, known=None):
    """Train (arm, Experiment) pairs; a table of arm, the named columns, seed, validation accuracy and key.

    known : {key: validation accuracy} of those that are not trained again.
    """
    from sltlib.engine.run import run
    from sltlib.engine.store import Store

    known = dict(known or {})
    new = list({made.key: made for _, made in pairs if made.key not in known}.values())
    try:
        table = run(new) if new else None
        known |= dict(zip(table.key, table.val_accuracy, strict=True)) if new else {}
    except RuntimeError as error:  # a rate too high for its row must not end the search: it has no score
        print(error, file=sys.stderr)
        store = Store()
        known |= {made.key: found.metrics["val_accuracy"] for made in new if (found := store.get(made))}
        if not any(made.key in known for _, made in pairs):
            raise  # nothing trains: no table of holes over an older one
    rows = [made.spec() | {"arm": arm, "val_accuracy": float(f"{known.get(made.key, math.nan):.8g}"), "key": made.key} for arm, made in pairs]
    return pandas.DataFrame(rows)[["arm", *columns, "seed", "val_accuracy", "key"]]


def about(profile, notebook, table):
    """What choices.json holds: the settings, the budget of every arm in words, and each arm's choice."""
    return {
        "settings": reduced(profile, notebook),
        "budget": "; ".join(_budgets(table)),
        "at_edge": at_edge(table),
        "choices": best(table),
    }


def _budgets(table):
    """What every arm had, in words; and which arms where that differs."""
    found = {}
    for arm, part in table.groupby("arm", sort=False):
        found.setdefault(tuple(int((part.seed == seed).sum()) for seed in SEEDS[:2]), []).append(arm)
    for (each, again), names in found.items():
        whose = "every arm" if len(found) == 1 else f"each of {', '.join(names)}"
        yield (
            f"{each} candidates of one seed for {whose}: Adam at {len(RATES)} learning rates ({', '.join(map(str, RATES))}) "
            f"and logit scales {', '.join(f'{s:g}' for s in SCALES)}, then {each - len(RATES) * len(SCALES)} more rates around the best of each "
            f"scale; the best {again} with {len(SEEDS) - 1} more seeds"
        )


# --- the sizes, and the command ----------------------------------------------------------------


def sizes(profile, notebook=IMAGES):
    """(the columns that sizes.csv varies, its arms and Experiments): what a notebook's size was chosen among.

    The file is the history: a line names an arm, fields of its Experiment and a seed, and holds the score
    and key that training gave. To compare another size add lines, with these two empty.
    """
    path = recipes.folder(name_of(profile, notebook)) / "sizes.csv"
    if not path.is_file():
        raise ValueError(f"there is no {path}: write the sizes to compare there, a line each with arm, fields and seed")
    table = files.table(path)
    found = settings(profile, notebook)
    columns = [name for name in table.columns if name not in ("arm", "seed", "val_accuracy", "key")]
    pairs = []
    for line in table.to_dict("records"):
        recipe = {name: line[name] for name in columns if name in recipes.NAMES}
        size = {name: line[name] for name in columns if name not in recipe}
        pairs.append((line["arm"], judge(notebook, found | size, line["arm"], found["sparsity"], recipe, line["seed"])))
    return columns, pairs


def main(argv=None):
    """`python -m sltlib tune [--profile mini] [--notebook 06] [--primary] [--sizes] [--anew]`."""
    parser = argparse.ArgumentParser(prog="python -m sltlib tune", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="mini", help="whose settings to tune for (default: mini)")
    words = f"whose rows: {', '.join(n[:2] for n in NOTEBOOKS)} (default: those that read a tuning of their own)"
    parser.add_argument("--notebook", metavar="NUMBER", help=words)
    words = f"of 02 in {', '.join(CLAIMED_FIRST)}: only the rows that the claims compare; the same command without it goes on with the others"
    parser.add_argument("--primary", action="store_true", help=words)
    parser.add_argument("--sizes", action="store_true", help="train the sizes in sizes.csv again instead")
    parser.add_argument("--anew", action="store_true", help="train what a committed grid.csv holds already, too")
    given = parser.parse_args(argv)
    there = [name for name in NOTEBOOKS if name in profiles.blocks(given.profile)]
    own = [name for name in there if profiles.settings(given.profile, name)["recipes"] == name_of(given.profile, name)]
    chosen = [name for name in there if given.notebook in (name, name[:2])] if given.notebook else own
    if not chosen:
        what = f"no rows of {given.notebook!r} in {given.profile}" if given.notebook else f"every notebook of {given.profile} reads another's recipes"
        raise ValueError(f"{what}: choose --notebook from {', '.join(n[:2] for n in there)}")
    if given.primary:
        chosen, grid = [name for name in chosen if name == IMAGES], recipes.folder(name_of(given.profile)) / candidates.GRID
        if given.profile not in CLAIMED_FIRST or not chosen:
            raise ValueError(f"--primary is for 02 of {', '.join(CLAIMED_FIRST)}: other rows are searched together, so leave it out")
        if grid.is_file() and set(files.table(grid).arm) - set(arms(given.profile)[0]):
            raise ValueError(f"{grid} has the other rows, too, and --primary would lose them: leave it out")
    for notebook in chosen:
        place = recipes.folder(name_of(given.profile, notebook))
        if given.sizes:
            if given.notebook or (place / "sizes.csv").is_file():
                columns, pairs = sizes(given.profile, notebook)
                table = trained(pairs, columns)
                candidates.write(table, place / "sizes.csv")
                print(table.drop(columns=["seed", "key"]).to_string(index=False))
            continue
        if given.anew:
            (place / candidates.BEGUN).unlink(missing_ok=True)
        keep, groups = functools.partial(candidates.keep, place), 1 if given.primary else None
        table = search(given.profile, notebook, {} if given.anew else candidates.scores(), keep=keep, groups=groups)
        found = about(given.profile, notebook, table)
        candidates.write(table, place / candidates.GRID)
        files.write(place / "choices.json", json.dumps(found, indent=1) + "\n")
        candidates.ended(place, whole=not given.primary)
        for arm, choice in found["choices"].items():
            edge = "  (at the edge of what was tried)" if arm in found["at_edge"] else ""
            print(f"{arm:40} lr={choice['lr']:<7g} logit_scale={choice['logit_scale']:<3g} validation {choice['val_accuracy']:.2f} %{edge}")

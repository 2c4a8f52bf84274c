"""The claims under test: one primary hypothesis each (claims.yaml), and what the results of a profile say of it.

A claim is judged from what its notebook leaves in results/<profile>/<notebook>: table.csv, a line a training,
and predictions.safetensors, which test images each training got right. So every page, the README and the notebook
itself have the same verdict by the same function.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from sltlib import evidence, predictions
from sltlib.base import paths
from sltlib.compared import number, records, select, terms
from sltlib.evidence import Evidence
from sltlib.stats import EQUAL, OPEN, UNTESTED

FILE = paths.ROOT / "claims.yaml"
PROFILES = ("mini", "study")  # from the small evidence to the large
LEAST, HEADLINE = 6, 10  # trainings a row: a sign test of 6 can come below .05, a headline is held to more
GROUPS = ("paired", "independent")
ALONE = "primary_only"  # in a metrics.json: the folder holds the claim's own trainings, and its notebook has not run


@dataclass(frozen=True)
class Claim:
    """One entry of claims.yaml, where its fields are explained."""

    name: str
    claim: str
    source: str
    notebook: str
    hypothesis: str
    measure: str
    compare: list
    kind: str
    margin: float
    groups: str
    n: int
    sanity: list
    paper: dict
    bar: float = 0.0
    saving: bool = False
    headline: bool = False
    ours: bool = False


@dataclass(frozen=True)
class Tested:
    """What a profile's results say of a claim; found is None where it is not tested.

    why : the interval's words, or what is missing. inside : is the papers' value in our interval? None where
    the papers give none of the same quantity. dataset : of the notebook's run, where its metrics tell.
    early : judged from the store before all of the claim's seeds are there, and before its notebook has run.
    """

    claim: Claim
    verdict: str
    why: str
    found: Evidence | None = None
    inside: bool | None = None
    dataset: str | None = None
    early: bool = False

    @property
    def n(self) -> int:
        return self.found.trainings.n if self.found else 0

    def __str__(self):
        return f"{self.claim.claim}: {self.verdict}. {self.why}"


def load(path=FILE) -> dict[str, Claim]:
    """{name: Claim} in the file's order; ValueError naming everything wrong in it."""
    path = Path(path)
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{path.name} must be a mapping of names to claims")
    problems = [f"{name}: {problem}" for name, entry in found.items() for problem in _problems(entry)]
    if problems:
        raise ValueError(f"{path.name}: {'; '.join(problems)}")
    return {name: Claim(name, **entry) for name, entry in found.items()}


def _problems(entry):
    """What is wrong with an entry of the file, in words."""
    if not isinstance(entry, dict):
        return ["must be a mapping"]
    known = {field.name: field for field in fields(Claim) if field.name != "name"}
    needed = {name for name in known if not hasattr(Claim, name)}  # fields without a default
    out = [f"has no {name}" for name in known if name in needed - entry.keys()]
    out += [f"{name!r} is no field of a claim: {', '.join(known)}" for name in entry.keys() - known.keys()]
    if out:
        return out
    for name in ("claim", "source", "notebook", "hypothesis", "measure"):
        if not isinstance(entry[name], str) or not entry[name].strip():
            out.append(f"{name}={entry[name]!r}: give words")
    for name, choices in (("kind", evidence.KINDS), ("groups", GROUPS)):
        if entry[name] not in choices:
            out.append(f"{name}={entry[name]!r}: choose from {', '.join(choices)}")
    if not number(entry["margin"]) or not entry["margin"] > 0:
        out.append(f"margin={entry['margin']!r}: give points above 0")
    if not number(entry.get("bar", 0)):
        out.append(f"bar={entry['bar']!r}: give a number")
    out += [f"{name}={entry[name]!r}: give true or false" for name in ("saving", "headline", "ours") if not isinstance(entry.get(name, False), bool)]
    least = HEADLINE if entry.get("headline") else LEAST
    if not isinstance(entry["n"], int) or entry["n"] < least:
        out.append(f"n={entry['n']!r}: give at least {least} trainings a row{', for it is a headline' if least == HEADLINE else ''}")
    return out + _rows_problems(entry)


def _rows_problems(entry):
    out, terms = [], entry["compare"]
    if not isinstance(terms, list) or not all(isinstance(t, dict) and number(t.get("weight")) and isinstance(t.get("row"), str) for t in terms):
        out.append("compare: give a list of {weight: number, row: name, ...}")
    elif len(terms) < 2 or abs(sum(term["weight"] for term in terms)) > 1e-9:
        out.append("compare: the weights of a difference sum to 0")
    elif entry.get("saving") and ([term["weight"] for term in terms] != [1, -1] or entry["groups"] != "paired"):
        out.append("compare: a saving has two paired terms, of weights 1 and -1")
    sanity = entry["sanity"]
    whole = isinstance(sanity, list) and sanity and all(
        isinstance(pair, dict)
        and {"row", "above"} <= pair.keys() <= {"row", "above", "notebook"}
        and all(isinstance(pair[side], dict) and "row" in pair[side] for side in ("row", "above"))
        for pair in sanity
    )
    if not whole:
        out.append("sanity: give a list of {row: {row: name}, above: {row: name}}, at least one")
    paper = entry["paper"]
    if not isinstance(paper, dict) or paper.keys() != {"value", "same", "note"}:
        out.append("paper: give value, same and note")
    elif not (paper["value"] is None or number(paper["value"])) or not isinstance(paper["same"], bool):
        out.append("paper: value is a number or null, same is true or false")
    return out


# --- what the results say


def judge(claim: Claim, table, right: Mapping | None = None, others: Mapping | None = None) -> Tested:
    """The verdict on a claim.

    table : the notebook's, as a DataFrame or a file's path, with the columns row, seed, key, the claim's measure
        and those that its `compare` names. right : {key: `predictions.Right` or Predictions} of its trainings;
        without it the interval is over trainings only. others : tables of other notebooks that a sanity check names, by name.
    """
    lines = records(table)
    try:
        found_terms = terms(claim, lines)
        insane = _insane(claim, lines, others or {})
    except ValueError as error:
        return Tested(claim, UNTESTED, f"{error}.")
    if insane:
        return Tested(claim, UNTESTED, f"{insane}.")
    found = _evidence(claim, found_terms, right)
    verdict, why = evidence.judge(found, claim.kind, claim.margin, claim.bar)
    paper, shown = claim.paper, found.decisive
    inside = shown.low <= paper["value"] <= shown.high if paper["same"] and paper["value"] is not None else None
    return Tested(claim, verdict, _words(claim, found, verdict, why), found, inside)


def _evidence(claim, found_terms, right):
    values = [(w, {seed: line[claim.measure] for seed, line in group.items()}) for w, group in found_terms]
    if claim.saving:
        first, second = (group for _, group in values)
        if first.keys() != second.keys():
            raise ValueError(f"{claim.name}: the two rows have other seeds, {sorted(first)} and {sorted(second)}")
        saved = {seed: 100 * (1 - second[seed] / first[seed]) for seed in first}
        return evidence.evidence([(1, saved)], "paired", bar=claim.bar)
    images = None
    if right and claim.measure == "test_accuracy":
        images = [_images(claim, group, right) for _, group in found_terms]
        if len({one.labels for group in images for one in group.values()}) > 1:
            raise ValueError(f"{claim.name}: its trainings were tested on other images: run the notebook again")
        images = [{seed: one.images for seed, one in group.items()} for group in images]
    return evidence.evidence(values, claim.groups, images, claim.bar)


def _images(claim, group, right):
    """{seed: Right} of the lines of a row, held to the accuracies that the lines tell."""
    out = {}
    for seed, line in group.items():
        if line["key"] not in right:
            raise ValueError(f"{claim.name}: no predictions of {line['row']}, seed {seed} ({line['key']}): run the notebook again")
        out[seed] = right[line["key"]]
        if abs(out[seed].accuracy - line["test_accuracy"]) > 0.006:
            raise ValueError(
                f"{claim.name}: {line['row']}, seed {seed} has {line['test_accuracy']:.2f} % in the table and "
                f"{out[seed].accuracy:.2f} % by its predictions: run the notebook again"
            )
    return out


def _insane(claim, lines, others):
    """What fails of the sanity check, in words, or None."""
    for pair in claim.sanity:
        own = lines
        if "notebook" in pair:
            if pair["notebook"] not in others:
                raise ValueError(f"the sanity check wants the table of {pair['notebook']}")
            own = records(others[pair["notebook"]])
        row, other = ({s: line["test_accuracy"] for s, line in select(own, pair[side]).items()} for side in ("row", "above"))
        if not evidence.above(row, other):
            names = [_named(**pair[side]) for side in ("row", "above")]
            means = [sum(group.values()) / len(group) for group in (row, other)]
            alone = min(len(row), len(other)) < 2
            clear = "" if means[0] <= means[1] else ": one training cannot tell" if alone else " beyond chance"
            return f"{names[0]} ({means[0]:.2f}) is not above {names[1]} ({means[1]:.2f}){clear}"
    return None


def _named(row, **where):
    """A row and where: "MPSLT at T 1"."""
    return f"{row} at {' '.join(map(str, where.values()))}" if where else row


def _words(claim, found, verdict, why):
    narrow, wide = found.over_trainings, found.over_images
    unit = " %" if claim.saving else " points"
    sign = "" if claim.saving else "+"
    text = f"{narrow.mean:{sign}.2f}{unit}, 95 % interval over trainings {narrow.low:{sign}.2f} to {narrow.high:{sign}.2f}"
    if not found.trainings.known:
        none = "one training gives" if narrow.n == 1 else "equal in every seed, which gives"
        text = f"{narrow.mean:{sign}.2f}{unit}, {none} no interval over trainings"
    if wide and narrow.n > 1:
        text += f", for new images {wide.low:{sign}.2f} to {wide.high:{sign}.2f}"
    text += f"; n={narrow.n}" + (f" of {claim.n} planned: preliminary" if narrow.n < claim.n else "")
    text += f"; {found.wins}" if not claim.saving else ""
    return f"{text}. {why[0].upper()}{why[1:]}." if why else f"{text}."


def table(profiles=PROFILES, results=None, claims: Mapping | None = None) -> dict[str, dict[str, Tested]]:
    """{claim's name: {profile: Tested}} of all claims whose notebook has left a table in that profile.

    results : the folder of results, `paths.results()`. Files are read once.
    """
    folder, out = Path(results or paths.results()), {}
    for name, claim in (claims or load()).items():
        out[name] = {}
        for profile in profiles:
            place = folder / profile
            if (place / claim.notebook / "table.csv").is_file():
                out[name][profile] = _stored(claim, place)
    return out


def _stored(claim, place):
    """The verdict on a claim from the files of a profile."""
    own = place / claim.notebook
    packed, metrics = own / predictions.FILE, own / "metrics.json"
    right = predictions.unpack(packed.read_bytes()) if packed.is_file() else None
    names = {pair["notebook"] for pair in claim.sanity if "notebook" in pair}
    others = {name: place / name / "table.csv" for name in names if (place / name / "table.csv").is_file()}
    if right is None and claim.measure == "test_accuracy":  # over trainings alone the interval would be too narrow
        tested = Tested(claim, UNTESTED, f"{predictions.FILE} is missing beside its table: run the notebook again.")
    else:
        tested = judge(claim, own / "table.csv", right, others)
    about = json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else {}
    dataset = about.get("dataset") or about.get("settings", {}).get("dataset")
    alone = about.get(ALONE)
    early = alone is not None and len(alone["seeds"]) < claim.n
    why = f"{tested.why} Judged from the store; its notebook has not run." if alone is not None else tested.why
    return Tested(claim, tested.verdict, why, tested.found, tested.inside, dataset, early)


def markdown(found: Mapping, profiles=PROFILES, ours: bool = False) -> str:
    """The claims as a table: claim, paper, a column a profile, and the verdict of the last profile that has one.

    What is early gives no verdict: the first trainings of many are not to stand over a smaller run that is whole.

    found : from `table`. ours : with the claims that are not the papers'.
    """
    lines = [f"| claim | paper | {' | '.join(profiles)} | verdict |", "|---" * (len(profiles) + 3) + "|"]
    for claim in load().values():
        if claim.name not in found or (claim.ours and not ours):
            continue
        tested = [found[claim.name].get(profile) for profile in profiles]
        paper = "" if claim.paper["value"] is None else f"{claim.paper['value']:{'' if claim.saving else '+'}g}: "
        last = next((one for one in reversed(tested) if one and not one.early), None)
        cells = [f"[{claim.claim}](notebooks/{claim.notebook}.ipynb)", f"{paper}{claim.paper['note']}", *map(_cell, tested)]
        lines.append(f"| {' | '.join(cells)} | {f'**{last.verdict}**' if last else 'first trainings only' if any(tested) else 'not run'} |")
    return "\n".join(lines)


def _cell(tested):
    """A verdict in few words, for a table: "does not hold: -0.85 (-1.14 to -0.55; new images -1.16 to -0.53), n=6"."""
    if tested is None:
        return "not run"
    where = f"{tested.dataset}: " if tested.dataset else ""
    if not tested.found:
        return f"{where}{tested.verdict}. {tested.why}".replace("|", "/")
    narrow, wide, claim = tested.found.over_trainings, tested.found.over_images, tested.claim
    sign, unit = ("", " %") if claim.saving else ("+", "")
    spread = f"{narrow.low:{sign}.2f} to {narrow.high:{sign}.2f}" if tested.found.trainings.known else "one training" if narrow.n == 1 else "no spread"
    spread += f"; new images {wide.low:{sign}.2f} to {wide.high:{sign}.2f}" if wide and narrow.n > 1 else ""
    count = f"n={narrow.n}" + (f" of {claim.n}" if narrow.n < claim.n else "")
    more = f"; {evidence.judge(tested.found, claim.kind, claim.margin, claim.bar)[1]}" if tested.verdict in (OPEN, EQUAL) else ""
    return f"{where}{tested.verdict}: {narrow.mean:{sign}.2f}{unit} ({spread}), {count}{more}"


def contradictions(metrics: Mapping) -> list[str]:
    """Claims that two notebooks of a profile judge differently, in words; metrics : {notebook: its metrics.json}."""
    seen, out = {}, []
    for notebook, found in metrics.items():
        for one in found.get("claims", []):
            words = " ".join(one["claim"].lower().replace("beats", "above").removeprefix("the ").split())
            first = seen.setdefault(words, (notebook, one["verdict"]))
            if first[1] != one["verdict"]:
                out.append(f"{one['claim']!r}: {first[1]} in {first[0]}, {one['verdict']} in {notebook}")
    return out

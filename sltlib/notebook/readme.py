"""The README's tables, made from the committed results: `python -m sltlib readme` (with --check: only compare).

Between `<!-- NAME -->` and `<!-- /NAME -->` stands what the function of that name below returns, so no
number in the README is typed in.
"""

import argparse
import csv
import json
import re
import sys

from sltlib.base import files, paths
from sltlib.notebook import profiles
from sltlib.table1 import ROWS

PROFILE = "mini"
# notebook: (what it shows, its time class on two cores from an empty store)
NOTEBOOKS = {
    "00_spiking_neuron": ("the LIF neuron by hand, by snnTorch, fused; surrogate gradients, decay, reset", "seconds"),
    "01_first_ticket": ("find a spiking ticket, hold it against chance, look inside, use it, add a search", "a minute"),
    "02_table1_cnn": ("the ten rows of Table 1 and their controls, with intervals and verdicts", "minutes"),
    "03_reward1_sparsity": ("accuracy and loss over sparsity for all ticket kinds, global ranking", "minutes"),
    "04_time_and_decay": ("time steps and decay: accuracy, firing rate, energy", "minutes"),
    "05_energy": ("operations counted from real spikes, energy under three models, firing rates", "seconds after 02"),
    "06_event_data": ("from recordings to frames to spikes; the ten rows of Table 1 on (simulated) events", "minutes"),
    "07_patch_tickets": ("which patches a (spiking) transformer needs: four rankings, random as the control", "minutes"),
    "08_table2_multisp": ("multi-level sparsity: Table 2, each level alone and together, Reward 2", "minutes"),
}


def _metrics(notebook):
    path = paths.ROOT / "results" / PROFILE / notebook / "metrics.json"
    if not path.is_file():
        raise ValueError(f"no {path}: run `python -m sltlib figure {notebook} --profile {PROFILE}` first")
    return json.loads(path.read_text())


def notebooks():
    """A row for each notebook: command, time class and main result."""
    lines = ["| notebook | shows | command | time | main result (`mini`) |", "|---|---|---|---|---|"]
    for name in profiles.blocks(PROFILE):
        shows, time = NOTEBOOKS[name]
        command = f"`dvc repro figure@{name}`"
        lines.append(f"| [{name}](notebooks/{name}.ipynb) | {shows} | {command} | {time} | {_metrics(name)['result']} |")
    return "\n".join(lines)


def claims():
    """A row for each claim under test: its verdict, the measured difference and n, and where it is tested."""
    lines = ["| claim | verdict | measured | n | notebook |", "|---|---|---|---|---|"]
    for name in profiles.blocks(PROFILE):
        for found in _metrics(name).get("claims", []):
            cells = (found["claim"], f"**{found['verdict']}**", found["detail"], found["n"], name[:2])
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def rows():
    """The ten rows and the linear classifier: mean, interval and n, from the committed table."""
    accuracy = _metrics("02_table1_cnn")["accuracy"]
    lines = ["| row | test accuracy (%) | 95 % interval | n |", "|---|---|---|---|"]
    for name in (*ROWS, "linear"):
        found = accuracy[name]
        interval = "" if found["low"] is None else f"{found['low']:.1f} to {found['high']:.1f}"
        lines.append(f"| {name} | {found['mean']:.2f} | {interval} | {found['n']} |")
    return "\n".join(lines)


def speed():
    """What `make bench` measured: steps beside the other libraries' and the floor, memory, searches; the goals missed."""
    place = paths.ROOT / "results" / "bench"

    def lines_of(name):
        with open(place / f"{name}.csv") as file:
            return list(csv.DictReader(file))

    def number(text):
        return f"{float(text):.2f}" if text else ""

    steps = lines_of("ratios")
    columns = list(steps[0])[2:]
    out = [f"| network | T | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for line in steps:
        out.append(f"| {line['network']} | {line['T']} | {' | '.join(number(line[name]) for name in columns)} |")
    about = json.loads((place / "about.json").read_text())["step"]
    rounds = [int(line["rounds"]) for line in lines_of("step")]
    out += ["", f"One thread of {about['device']}, torch {about['versions']['torch']}, huge pages for every contestant; "
            f"medians of {min(rounds)} to {max(rounds)} interleaved steps."]  # fmt: skip
    goals = lines_of("goals")
    missed = [f"{line['goal']}: {number(line['measured'])} (goal {number(line['limit'])})" for line in goals if line["met"] != "True"]
    out += ["", f"{len(goals) - len(missed)} of {len(goals)} goals met (results/bench/goals.csv)."]
    out[-1] += f" Missed: {'; '.join(missed)}." if missed else ""
    search = {}
    for line in lines_of("search"):
        search.setdefault(line["contestant"], []).append(line)
    target = lines_of("search")[0]["target"]
    ours = [float(line["seconds"]) for line in search["ours"]]
    words = []
    for name, found in search.items():
        if name != "ours" and all(line["seconds"] for line in found):
            over = sorted(float(line["seconds"]) / mine for line, mine in zip(found, ours, strict=True))
            words.append(f"{over[len(over) // 2]:.2f} ({over[0]:.2f} to {over[-1]:.2f}) times as long with {name}")
    out += ["", f"A ticket search (MPSLT, mini) to {float(target):g} % validation accuracy takes {', '.join(words)} as with ours "
            f"(median and range of n={len(ours)} seeds)."]  # fmt: skip
    verdicts = json.loads((place / "cheaper.json").read_text())
    ways = {}
    for line in lines_of("cheaper"):
        ways.setdefault((line["way"], int(line["epochs"])), []).append(line)
    out += ["", "| cheaper search (MPSLT, mini) | epochs | time over exact | test accuracy (%) | at most 1 point below exact |"]
    out += ["|---" * 5 + "|"]
    told = {found["claim"].rsplit(":", 1)[0]: found for found in verdicts}
    for (way, epochs), found in ways.items():
        if epochs == max(e for w, e in ways if w == way):
            mean = sum(float(line["test_accuracy"]) for line in found) / len(found)
            verdict = f"**{told[way]['verdict']}** (n={told[way]['n']})" if way in told else ""
            out.append(f"| {way} | {epochs} | {number(found[0]['time over exact'])} | {mean:.2f} | {verdict} |")
    return "\n".join(out)


def filled(text):
    """The README's text with every generated part made anew."""
    for make in (notebooks, claims, rows, speed):
        name = make.__name__
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"README.md must have one part between <!-- {name} --> and <!-- /{name} -->")
        made = make()
        text = pattern.sub(lambda found, made=made: f"{found[1]}{made}\n{found[2]}", text)
    return text


def main(argv=None):
    """`python -m sltlib readme [--check]`: fill the README's tables, or say (status 1) that they are stale."""
    parser = argparse.ArgumentParser(prog="python -m sltlib readme", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail if README.md is out of date")
    check = parser.parse_args(argv).check
    path = paths.ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    new = filled(old)
    if old == new:
        return 0
    if check:
        print("README.md does not show the committed results: run `python -m sltlib readme`", file=sys.stderr)
        return 1
    files.write(path, new)
    print("README.md: tables made anew")
    return 0

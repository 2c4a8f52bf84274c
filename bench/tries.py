"""The variations that a notebook's last cell proposes ("Try it"), run: what the folded answers there are written from.

    python -m bench.tries 03 05 --to /tmp/tries

Every item begins with the parameters that it changes, `epochs = 4`; words after ", then" are a run of their own. Each run is
papermill's, at the notebook's own defaults but for those, and leaves its results and the executed notebook in the folder
named; what is trained is stored as ever. After each run stand the metrics that differ from those of the defaults, or, where the item
names a profile, from those of that profile.
"""

from __future__ import annotations

import argparse
import ast
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from sltlib.base import paths
from sltlib.notebook import profiles
from sltlib.notebook.pipeline import resolve

ITEM = re.compile(r"^\d+\. (.+?)(?=^\d+\. |^\*\*|\Z)", re.MULTILINE | re.DOTALL)


def items(notebook: str) -> list[tuple[list[dict], str]]:
    """[([{parameter: value} of each run], the item's text)] of a notebook's "Try it"; ValueError for one without parameters."""
    cells = json.loads((paths.NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "".join(cells[-1]["source"])
    found = []
    for item in ITEM.findall(text):
        head = item.partition(":")[0]
        runs = [{name: ast.literal_eval(value) for name, value in re.findall(r"`(\w+) = ([^`]+)`", part)} for part in head.split(", then")]
        if not all(runs):
            raise ValueError(f"{notebook}: {item[:60]!r} names no parameter before its colon")
        found.append((runs, item))
    if not found:
        raise ValueError(f"{notebook} has no numbered items in its last cell")
    return found


def run(notebook: str, changes: dict, folder: Path) -> dict:
    """Execute a notebook with changed parameters; its metrics."""
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    given = [word for name, value in changes.items() for word in ("-y", json.dumps({name: value}))]
    command = [sys.executable, "-m", "papermill", f"{paths.NOTEBOOKS / notebook}.ipynb", str(folder / "run.ipynb"), "--no-progress-bar", "--log-level", "ERROR"]
    done = subprocess.run([*command, *given], cwd=paths.NOTEBOOKS, env=os.environ | {"SLT_RESULTS": str(folder)}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{notebook} with {changes}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads((folder / profiles.DRAFT / notebook / "metrics.json").read_text(encoding="utf-8"))


def flat(metrics, head="") -> dict:
    """{path: number or verdict} of a metrics.json, the lists of verdicts under their claims' words."""
    if isinstance(metrics, list) and all(isinstance(one, dict) and "claim" in one for one in metrics):
        return {f"{head}{one['claim']}": f"{one['verdict']}, {one['detail']}" for one in metrics}
    if isinstance(metrics, dict | list):
        pairs = metrics.items() if isinstance(metrics, dict) else enumerate(metrics)
        return {path: value for name, inner in pairs for path, value in flat(inner, f"{head}{name}/").items()}
    return {head.rstrip("/"): metrics}


def compared(first: dict, other: dict) -> list[str]:
    """What differs between two metrics, a line each."""
    one, two = flat(first), flat(other)
    return [f"{path}: {one.get(path)} -> {two.get(path)}" for path in dict.fromkeys([*one, *two]) if one.get(path) != two.get(path)]


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.tries", description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", help="numbers or names (default: all)")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where the executed notebooks go")
    args = parser.parse_args(argv)
    failed = 0
    wanted = {name: items(name) for name in map(resolve, args.notebooks or profiles.names())}  # all problems before any work
    for name, every in wanted.items():
        base = functools.cache(lambda profile, name=name: run(name, {profiles.PARAMETER: profile}, args.to / name / (profile or "defaults")))
        for number, (runs, _) in enumerate(every, 1):
            for i, changes in enumerate(runs):
                print(f"== {name} {number}{'abc'[i] if len(runs) > 1 else ''} {changes}", flush=True)
                profile = changes.get(profiles.PARAMETER, "").split(" ")[0]
                try:
                    print(*compared(base(profile), run(name, changes, args.to / name / f"{number}-{i}")), sep="\n", flush=True)
                except RuntimeError as error:
                    failed += 1
                    print(error, flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:
        sys.exit(f"error: {error}")

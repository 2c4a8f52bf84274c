"""What is damaged in the store, in the data's caches and in DVC's files, and how it is repaired."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sltlib import data
from sltlib.base import files, paths
from sltlib.engine import checkpoints, kernels, leases
from sltlib.engine.store import BrokenResult, Store, UnknownExperiment


def main(argv=None) -> int:
    """`python -m sltlib doctor [--fix]`: say what is damaged, and repair it; 1 if something is left."""
    parser = argparse.ArgumentParser(
        "python -m sltlib doctor", description="Explain what is damaged in the store, the caches and DVC's files."
    )
    parser.add_argument("--fix", action="store_true", help="repair it too; no training is lost")
    fix = parser.parse_args(argv).fix
    problems = examine(Store(sweep=False))
    for problem, repair, action in problems:
        if fix:
            action()
        print(f"{problem}\n  {'done' if fix else 'repair'}: {repair}")
    if not problems:
        print("nothing is wrong")
    elif not fix:
        print(f"{len(problems)} found; `python -m sltlib doctor --fix` repairs them")
    return int(bool(problems) and not fix)


def examine(store: Store) -> list[tuple]:
    """What is wrong in every folder: (problem, repair, a function that repairs)."""
    return [*_results(store), *_checkpoints(store), *_kernels(store), *_leftovers(store), *_data(), *_dvc()]


def _results(store):
    for key in store.keys():
        try:
            store.read(key)
        except UnknownExperiment as error:
            print(f"{error}: left alone")  # sound, and somebody's own
        except BrokenResult as error:
            problem = str(error).split(". The result")[0]
            yield problem, "set the result aside", lambda key=key: store.set_aside(key)


def _checkpoints(store):
    for key in checkpoints.keys(store.root):
        path = checkpoints.path_of(store.root, key)
        try:
            checkpoints.read(path, key)
        except FileNotFoundError:
            continue  # a training just finished
        except ValueError as error:
            yield str(error), "set the checkpoint aside", lambda path=path: store.aside(path)
            continue
        if _stored(store, key):
            problem = f"{path} is of a finished training: its process was killed right after"
            yield problem, "remove it", lambda path=path: files.remove(path)


def _stored(store, key):
    try:
        return store.read(key) is not None
    except (BrokenResult, UnknownExperiment):
        return False


def _kernels(store):
    for path in kernels.folders(store.root):
        if wrong := kernels.damaged(path):
            problem = f"{path} holds {len(wrong)} damaged compiled kernels ({wrong[0]}, ...)"
            yield problem, "remove them all; they are compiled again", lambda path=path: files.remove(path)


def _data():
    for path, why in data.examine():
        yield f"{path}: {why}", "remove it; it is made again", lambda path=path: files.remove(path)


def _leftovers(store):
    for note, who in leases.abandoned(store.root):
        yield f"{note} was left by {who}, which is gone", "remove the note", lambda note=note: files.remove(note)
    for path in files.leftovers(store.root / "tmp"):
        yield f"{path} was left by a process that is gone", "remove it", lambda path=path: files.remove(path)


def _dvc():
    import yaml

    local = paths.ROOT / ".dvc/config.local"
    if (paths.ROOT / ".dvc").is_dir() and not (paths.ROOT / ".git").exists() and not _no_scm(local):
        problem = f"{paths.ROOT} is no git repository (a download?), and dvc expects one"
        yield problem, f"say so in {local}", lambda: local.write_text(f"{_text(local)}[core]\n    no_scm = true\n")
    path = paths.ROOT / ".dvc/tmp/rwlock"
    if path.is_file() and not _parses(json.loads, path):
        problem = f"{path} is empty or damaged: a killed dvc left it, and every dvc command fails"
        yield problem, "remove it (while no dvc runs)", path.unlink
    for path in [paths.ROOT / "dvc.lock", *sorted(paths.ROOT.glob("*/dvc.lock"))]:
        if path.is_file() and not _parses(yaml.safe_load, path):
            problem = f"{path} is damaged: dvc was killed while writing it"
            yield problem, "remove it; `dvc repro` writes it again, no training is lost", path.unlink


def _no_scm(path):
    return "no_scm = true" in _text(path)


def _text(path):
    return path.read_text() if path.is_file() else ""


def _parses(parse, path: Path):
    try:
        return isinstance(parse(path.read_text()), dict)
    except Exception:  # every parser has its own error
        return False

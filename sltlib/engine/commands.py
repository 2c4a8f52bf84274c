"""The commands that train one experiment and list what is stored."""

from __future__ import annotations

import argparse
import dataclasses

from sltlib import data
from sltlib.base import words
from sltlib.engine.run import BACKENDS, run
from sltlib.engine.store import BrokenResult, Store, UnknownExperiment, short
from sltlib.experiment import Experiment


def run_main(argv=None) -> int:
    """`python -m sltlib run field=value ...`: train one experiment and print what came out."""
    parser = argparse.ArgumentParser(
        "python -m sltlib run",
        description="Train one experiment, or find it in the store; print its key, metrics and ticket.",
        epilog="example: python -m sltlib run dataset=fashion search=edge-popup sparsity=0.5 epochs=2",
    )
    parser.add_argument("fields", nargs="*", metavar="field=value", help="a field of Experiment; source=KEY")
    parser.add_argument("--backend", default="auto", help=", ".join(BACKENDS))
    arguments = parser.parse_args(argv)
    try:
        store = Store()
        experiment = parse(arguments.fields, store)
        run([experiment], arguments.backend, store=store)
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    except RuntimeError as error:
        parser.exit(1, f"{error}\n")
    result = store.get(experiment)
    print(f"{'key':24} {result.key}")
    for name, value in result.metrics.items():
        print(f"{name:24} {value}")
    without = "left out of the file that it was unpacked from" if result.apart else "none: nothing was searched"
    print(f"{'ticket':24} {result.ticket_path or without}")
    return 0


def parse(texts, store=None) -> Experiment:
    """An Experiment from `field=value` texts; ValueError names all that is wrong at once.

    `source` is the key of a stored result.
    """
    kinds = {f.name: f.type for f in dataclasses.fields(Experiment)}
    values, problems = {}, []
    for word in texts:
        name, equals, text = word.partition("=")
        if not equals:
            problems.append(f"{words.shown(word)}: write field=value")
        elif name not in kinds:
            problems.append(f"Experiment has no {words.shown(name)}{words.close(name, kinds)}")
        elif name in values:
            problems.append(f"{name} is given twice")
        else:
            try:
                values[name] = _value(name, kinds[name], text, store)
            except ValueError as error:
                values[name] = None
                problems.append(str(error))
    if "dataset" not in values:
        problems.append(f"dataset is missing: choose from {', '.join(data.DATASETS)}")
    if problems:
        raise ValueError("\n".join(problems))
    return Experiment(**values)


def _value(name, kind, text, store):
    if name == "source":
        try:
            result = (store or Store()).read(text)
        except (BrokenResult, UnknownExperiment, ValueError) as error:
            raise ValueError(f"source={words.shown(text)}: {error}") from None
        if result is None:
            raise ValueError(f"source={words.shown(text)}: no such key in the store; see `python -m sltlib list`")
        return result.experiment
    if kind == "bool":
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{name}={words.shown(text)}: give true or false")
        return text.lower() == "true"
    try:
        return {"int": int, "float": float, "str": str}[kind](text)
    except ValueError:
        right = "a whole number" if kind == "int" else "a number"
        raise ValueError(f"{name}={words.shown(text)}: give {right}") from None


def list_main(argv=None) -> int:
    """`python -m sltlib list`: every stored result with its accuracy and date."""
    parser = argparse.ArgumentParser("python -m sltlib list", description="List the stored results.")
    parser.parse_args(argv)
    store = Store()
    keys = store.keys()
    if not keys:
        print(f"no results in {store.root}")
    for key in keys:
        try:
            result = store.read(key)
        except (BrokenResult, OSError) as error:
            print(f"{key}  {'BROKEN' if isinstance(error, BrokenResult) else 'UNREADABLE'}: {error}")
            continue
        except UnknownExperiment as error:
            print(f"{key}  {str(error).removeprefix(key).strip()}")
            continue
        if result is not None:  # else it was just set aside
            date = str(result.provenance.get("finished", ""))[:10] or "no date"
            scores = [_score(result.metrics, name) for name in ("val_accuracy", "test_accuracy")]
            print(f"{key}  {date}  val {scores[0]}  test {scores[1]}  {short(result.experiment)}")
    return 0


def _score(metrics, name):
    value = metrics.get(name)
    return f"{value:6.2f}" if isinstance(value, int | float) else "     -"

"""What a notebook leaves in results/<profile>/<notebook>: its folder, and the call that ends a notebook."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

from sltlib import convergence, predictions
from sltlib.base import files, paths
from sltlib.base.words import plain, shown
from sltlib.engine import curves

OUTPUTS = ("table.csv", "metrics.json", "figure.png", "figures", "tickets")  # what every notebook leaves
# What some leave besides: in git, and none of the pipeline's business. The last is a ticket to use at once (notebook 10).
ALSO = (predictions.FILE, convergence.FILE, "packed.safetensors")
DIGITS = 6  # of the numbers in them


def folder(profile: str, notebook: str) -> Path:
    """results/<profile>/<notebook>, absolute."""
    return paths.results() / profile / notebook


def begin(output: Path) -> None:
    """Make a notebook's folder and empty it of an earlier run: one that stops half-way leaves no older half."""
    output.mkdir(parents=True, exist_ok=True)
    for name in (*OUTPUTS, *ALSO):
        path = output / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    (output / "tickets").mkdir()


def finish(output: Path, table, metrics: dict, claims=None, verdicts=None, tickets=None) -> None:
    """Write table.csv, metrics.json and tickets/, and print the verdicts; see `Parameters.finish`."""
    if clash := {"claims", "verdicts"} & metrics.keys():
        raise ValueError(f"metrics holds {', '.join(sorted(clash))}: give them by that name")
    metrics = dict(metrics)
    for name, found in (("claims", claims), ("verdicts", verdicts)):
        if found is not None:
            metrics[name] = list(found)
    texts = {"table.csv": table_text(table), "metrics.json": metrics_text(metrics)}
    for name, source in (tickets or {}).items():
        if Path(name).name != name or len(name) > 200:
            raise ValueError(f"tickets[{shown(name)}]: give a file name without folder and ending")
        _ticket(source, name).save(output / "tickets" / f"{name}.safetensors")
    if "key" in table:
        results = _results(dict.fromkeys(table["key"]))
        files.write(output / predictions.FILE, predictions.pack({key: result.predictions() for key, result in results.items()}))
        files.write(output / convergence.FILE, curves_text(results))
    for name, text in texts.items():
        files.write(output / name, text)
    for verdict in [*(claims or []), *(verdicts or [])]:
        print(f"- {verdict}")


def curves_text(results: dict) -> str:
    """curves.csv of {key: Result}: a line a training, its key, the scale of its logits and the training loss of each epoch.

    Epochs are counted from 1. One that a training had not (a rewound network begins later) and a loss that was not
    finite are left empty.
    """
    if not results:
        return "key,logit_scale\n"
    losses = {key: {line["epoch"] + 1: line["train_loss"] for line in result.history if "train_loss" in line} for key, result in results.items()}
    longest = max((max(each, default=0) for each in losses.values()), default=0)
    return curves.write([_curve(key, results[key], each, longest) for key, each in losses.items()])


def _curve(key, result, losses, longest):
    values = {epoch: losses.get(epoch) for epoch in range(1, longest + 1)}
    cells = {epoch: f"{x:.5g}" if isinstance(x, int | float) and math.isfinite(x) else "" for epoch, x in values.items()}
    return {"key": key, "logit_scale": f"{result.experiment.logit_scale:g}"} | cells


def _results(keys):
    """{key: the stored Result}."""
    from sltlib.engine.store import Store

    store = Store()
    return {key: store.read(key) for key in keys}


def _ticket(source, name):
    """The ticket of an Experiment, a Result or a Ticket."""
    from sltlib.experiment import Experiment

    if isinstance(source, Experiment):
        from sltlib.engine.store import Store

        found = Store().get(source)
        if found is None:
            raise ValueError(f"tickets[{name!r}] is an experiment that the store lacks: run it first")
        source = found
    if callable(getattr(source, "ticket", None)):  # a Result
        source = source.ticket()
    if not callable(getattr(source, "save", None)):
        raise ValueError(f"tickets[{name!r}] is a {type(source).__name__}: give an Experiment, its Result or a Ticket")
    return source


def metrics_text(metrics: dict) -> str:
    """metrics.json: keys sorted, floats to 6 digits; leave times, hosts and dates out of it."""
    return json.dumps(plain(metrics, digits=DIGITS), indent=1, sort_keys=True, allow_nan=False) + "\n"


def table_text(table) -> str:
    """table.csv: floats to 6 digits, nothing for what is missing, nested values as JSON."""

    def cell(value):
        value = plain(value, "table", DIGITS)
        if value is None or isinstance(value, str):
            return value
        return f"{value:.{DIGITS}g}" if isinstance(value, float) else json.dumps(value, sort_keys=True)

    named = any(name is not None for name in table.index.names)
    return table.astype(object).map(cell).to_csv(index=named, lineterminator="\n")

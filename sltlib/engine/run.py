"""run(): train what the store lacks, side by side, and return a table.

Every training computes on one thread and leaves its result in the Store; only a word of success
or a traceback travels back. So the backend, the order and the number of workers change no bit.
"""

from __future__ import annotations

import dataclasses
import math
import random

from sltlib import data
from sltlib.base import machine
from sltlib.base.progress import Trainings
from sltlib.engine import cluster, kernels
from sltlib.engine import workers as pool
from sltlib.engine.queue import Others, Queue, cost, missing
from sltlib.engine.store import Store
from sltlib.experiment import Experiment

BACKENDS = ("auto", "inline", "processes", "dask:<address | scheduler file | local:N>")
TRAIN = "sltlib.engine.work:train"  # what trains one experiment; workers look it up when they start


def run(experiments, backend="auto", workers=0, store=None):
    """Train what the store lacks and return a DataFrame, one row for each experiment, in order.

    backend : "processes" (what "auto" means, unless an experiment uses a search, neuron or model
        that is a function of this process), "inline" (in this process), or "dask:<address |
        scheduler file | local:N>" with workers that share the store's disk (docs/cluster.md).
    workers : trainings at once; 0 means one for each core, on a cluster one for each thread or GPU that it offers.
    Columns: every field of Experiment (`source` as its key), `key`, and every metric. How many
    were trained is in `.attrs["trained"]`.

    ValueError names all that is wrong before anything trains. A failing training stops no other:
    at the end one RuntimeError names all that failed. What is finished stays stored. OSError where a
    stored result cannot be read now.
    """
    experiments = _checked(experiments, backend, workers)
    if backend == "auto" and any(_added(e) for e in experiments):
        backend = "inline"
    store = store or Store()
    todo = missing(experiments, store)
    if todo:
        _train(todo, backend, workers, store)
    return _table(experiments, store, trained=len(todo))


def claim(experiments, backend="auto", workers=0, store=None) -> int:
    """Train, beside other machines that do the same over one store, what no living one holds; how many were missing.

    Ends when everything is stored, whoever trained it: what a dead one held is taken over. Each begins with
    another training of about the same length. Compiled kernels stay on this machine. Raises as `run` does.
    """
    experiments = _checked(experiments, backend, workers)
    store = store or Store()
    todo = missing(experiments, store)
    if todo:
        with kernels.alone(store.root):
            _train(todo, backend, workers, store, random.Random())
    return len(todo)


def _train(todo, backend, workers, store, order=None):
    wanted = {}
    for e in todo:
        wanted[e.dataset] = max(wanted.get(e.dataset, 0), e.train_images)
    data.check(wanted)
    count = min(workers or machine.cores(), len(todo))
    with Trainings({e.key: cost(e) for e in todo}, count) as progress:
        queue = Queue(todo, progress.done, progress.lost, Others(store.root), order)
        if backend == "inline":
            pool.inline(queue, store, TRAIN, progress)
        elif backend.startswith(cluster.PREFIX):
            cluster.train(queue, store, TRAIN, progress, backend, workers)
        else:
            pool.processes(queue, store, TRAIN, progress, count)
    if queue.failures:
        raise RuntimeError(queue.summary())


def _checked(experiments, backend, workers):
    problems = []
    if isinstance(experiments, Experiment | str) or not hasattr(experiments, "__iter__"):
        problems.append(f"experiments={experiments!r}: give a list of Experiments")
        experiments = []
    experiments = list(experiments)
    for place, e in enumerate(experiments):
        if not isinstance(e, Experiment):
            problems.append(f"experiments[{place}]={e!r}: give an Experiment")
        elif (added := _added(e)) and backend not in ("auto", "inline"):
            words = " and ".join(added)
            problems.append(f"experiments[{place}]: {words} was added in this process only: use backend='inline'")
    if backend not in BACKENDS[:3] and not str(backend).startswith(cluster.PREFIX):
        problems.append(f"backend={backend!r}: choose from {', '.join(BACKENDS)}")
    elif backend.startswith(cluster.PREFIX) and (problem := cluster.check(backend)):
        problems.append(problem)
    if type(workers) is not int or workers < 0:
        problems.append(f"workers={workers!r}: give 0 (one a core) or a number of trainings at once")
    if problems:
        raise ValueError("run: " + "; ".join(problems))
    return experiments


def _added(experiment):
    """What of an experiment other processes do not know: "search 'mine'"."""
    added = [f"{name} {getattr(experiment, name)!r}" for name in experiment.added]
    known = data.DATASETS.get(experiment.dataset)
    if known is not None and known.reader.__module__.partition(".")[0] != "sltlib":
        added.append(f"dataset {experiment.dataset!r}")
    return added


def one_data(results) -> None:
    """Raise ValueError where two results of one data set were trained on other images, by the fingerprint in their provenance.

    Every split is drawn from the order of the images, which of JPEG files goes by their names: two copies of one data set
    can differ though each is whole, and their results have the same keys.
    """
    seen = {}
    for result in results:
        e, found = result.experiment, result.provenance.get("data")
        what = (e.dataset, *((e.timesteps, e.image_size, e.binning) if e.event else ()))
        first, key = seen.setdefault(what, (found, e.key)) if found else (found, e.key)
        if first != found:
            raise ValueError(
                f"{e.dataset}: {key} and {e.key} were trained on other images (data {first} and {found} in their provenance): they cannot stand "
                "in one table. Keep each copy of the data set, and what was trained on it, in a store of its own (SLT_DATA, SLT_STORE)"
            )


def _table(experiments, store, trained):
    import pandas

    rows, results = [], {}
    fields = [f.name for f in dataclasses.fields(Experiment)]
    for e in experiments:
        if e.key not in results:
            results[e.key] = store.get(e)
        row = {name: getattr(e, name) for name in fields}
        row |= {"source": e.source.key if e.source else None, "key": e.key}
        metrics = results[e.key].metrics
        rows.append(row | {name: math.nan if value is None else value for name, value in metrics.items()})
    one_data(results.values())
    table = pandas.DataFrame(rows, columns=None if rows else [*fields, "key"])
    table.attrs["trained"] = trained
    return table

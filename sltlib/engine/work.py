"""One training from the store to the store: its lease, its source, its checkpoint, its published result."""

import functools
import hashlib
import importlib
import time
import traceback

from sltlib.base import machine, paths
from sltlib.engine.checkpoints import Checkpoint
from sltlib.engine.store import BrokenResult, Store
from sltlib.experiment import NUMERICS
from sltlib.predictions import encode


class Foreseen(RuntimeError):
    """A training failed in a way that one line explains."""


def perform(experiment, store, how, report) -> bool:
    """Train one experiment unless it is stored by now, and whether it was trained here; `Busy` where another process does.

    how : "module:function" that trains it, called with (experiment, store, report).
    """
    with store.lease(experiment.key):
        if store.get(experiment) is not None:
            return False
        module, function = how.split(":")
        getattr(importlib.import_module(module), function)(experiment, store, report)
    if store.get(experiment) is None:
        raise RuntimeError("the training ended without a stored result")
    return True


def reason(error) -> str:
    """Why a training failed: one line where that was foreseen, else the traceback."""
    if isinstance(error, Foreseen | BrokenResult) or (isinstance(error, OSError) and error.errno is not None):
        return str(error)
    return traceback.format_exc()


def train(experiment, store=None, report=None):
    """Train one Experiment, or find that it is stored; returns its Result.

    report(done_steps, total_steps) is called at most four times a second. What it needs is trained first.
    Resumes from a checkpoint and leaves them every `$SLT_CHECKPOINT_S` seconds (20). Raises Foreseen
    where the loss stops being finite, OSError where the store cannot be written.
    """
    from sltlib import train as training

    store = store or Store()
    source, early = (_ticket(e, store) for e in (experiment.source, experiment.early))
    with store.lease(experiment.key, wait=True):
        stored = store.get(experiment)
        if stored:
            return stored
        where = machine.hardware()
        made_by = {"code": source_hash(), "versions": where["versions"], "device": where["device"]}
        checkpoint = Checkpoint(store, experiment.key, made_by)
        try:
            found = training.train(experiment, source, checkpoint, report, early)
        except training.Diverged as error:
            raise Foreseen(str(error)) from error
        about = found.provenance | stamp()
        result = store.publish(experiment, found.metrics, found.history, about, found.ticket.save, encode(found.predictions))
        checkpoint.drop()
        return result


def _ticket(experiment, store):
    """The ticket of what an experiment starts from; Foreseen where the store has its numbers only."""
    if experiment is None:
        return None
    result = train(experiment, store)
    try:
        return result.ticket()
    except ValueError as error:
        raise Foreseen(str(error)) from error


@functools.cache
def source_hash() -> str:
    """sha256 of sltlib's sources, 16 digits: says which code made a result."""
    sha = hashlib.sha256()
    for path in sorted(paths.SOURCES.rglob("*.py")):
        sha.update(path.relative_to(paths.SOURCES).as_posix().encode() + path.read_bytes())
    return sha.hexdigest()[:16]


def stamp() -> dict:
    """The code behind a result and the time when it was finished."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"numerics": NUMERICS, "source": source_hash(), "finished": now}


def provenance() -> dict:
    """The hardware, versions and code behind what this process measures."""
    return machine.hardware() | stamp()

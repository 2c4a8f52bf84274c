"""Training on a machine of a cluster: what runs in dask's workers.

A dask worker trains nothing itself. Each of its threads has a process as the backend "processes" has them, with
their environment and one thread, which dies with it; a training that is killed takes no dask worker along.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

from sltlib.engine import kernels, leases, work, workers
from sltlib.experiment import Experiment

REPORT = 2.0  # seconds between two words to the driver of how far a training is
OWN = ("SLT_DATA", "SLT_DEVICE")  # a machine's own setting counts where the driver has none


@dataclass(frozen=True)
class Job:
    """What a driver asks of the workers: the store's folder, how to train, its settings, code and name."""

    root: str
    how: str
    settings: tuple
    code: str
    name: str


def settings() -> tuple:
    """This process's settings, as pairs, for workers elsewhere."""
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("SLT_")))


def perform(spec: dict, job: Job) -> tuple:
    """Train one experiment in a process of this machine; ("done",), ("held",), ("failed", why) or ("died", how)."""
    from distributed import get_worker

    dask = get_worker()
    if wrong := _unfit(job):
        return "failed", wrong
    e = Experiment.from_spec(spec)
    dask.log_event(job.name, (e.key, "start"))
    worker, told = _POOL.get(job), 0.0
    worker.give(e)
    while True:
        wait([worker.connection, worker.process.sentinel])
        word, *rest = worker.hear()
        if word != "report":
            break
        if time.monotonic() - told >= REPORT:
            told = time.monotonic()
            dask.log_event(job.name, (e.key, list(rest)))
    if word != "died":
        worker.training = None
        _POOL.put(job, worker)
    return word, *rest


def stop():
    """End all processes of this one that train for drivers."""
    _POOL.stop()


def _unfit(job):
    """Why this machine cannot train for a driver, in one line; None where it can."""
    if leases.holder(Path(job.root), job.name) is None:
        return (
            f"the dask worker on {os.uname().nodename} does not see the driver's store {job.root}:"
            " SLT_STORE has to be a folder that all machines share, under one path"
        )
    if work.source_hash() != job.code:
        return f"the dask worker on {os.uname().nodename} has other code of sltlib than the driver: update it, and start it again"
    return None


class Pool:
    """Processes that train, kept while they are idle; they belong to the last driver that asked."""

    def __init__(self):
        self.lock, self.idle, self.every, self.guards = threading.Lock(), {}, [], {}

    def get(self, job):
        """An idle process with a job's settings, or a new one."""
        arguments = (job.root, job.how, job.settings)
        with self.lock:  # starting one changes this process's environment for a moment
            for other in [key for key in self.idle if key != arguments]:
                for worker in self.idle.pop(other):
                    worker.stop()
                    self.every.remove(worker)
            if free := self.idle.get(arguments):
                return free.pop()
            worker = workers.Worker(workers.context(), job.root, self._settings(job), job.how)
            with _may_have_children():
                worker.start()
            self.every.append(worker)
            return worker

    def put(self, job, worker):
        """Give a process back."""
        with self.lock:
            self.idle.setdefault((job.root, job.how, job.settings), []).append(worker)

    def stop(self):
        """End them all, those that train by force; compiled kernels are sealed."""
        with self.lock:
            for worker in self.every:
                worker.stop()
            self.idle, self.every = {}, []
            for guard in self.guards.values():
                with contextlib.suppress(OSError):
                    guard.close()
            self.guards = {}

    def _settings(self, job):
        """The driver's settings, this machine's own where the driver has none, and this machine's compiled kernels."""
        values = {name: os.environ[name] for name in OWN if name in os.environ} | dict(job.settings)
        folder = kernels.local(job.root)
        if folder not in self.guards:
            self.guards[folder] = contextlib.ExitStack()
            self.guards[folder].enter_context(kernels.guarded(folder))
        return values | {kernels.VARIABLE: str(folder)}


@contextlib.contextmanager
def _may_have_children():
    """Dask's nanny starts its workers as daemons, which multiprocessing forbids to have children; ours die with them."""
    config = multiprocessing.current_process()._config
    before = config.get("daemon")
    config["daemon"] = False
    try:
        yield
    finally:
        config["daemon"] = before


_POOL = Pool()
atexit.register(stop)

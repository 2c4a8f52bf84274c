"""Training on many machines: dask's workers, which share the store's disk."""

from __future__ import annotations

import importlib.util
import traceback

from sltlib.engine import work
from sltlib.engine.store import Store
from sltlib.experiment import Experiment

PREFIX = "dask:"


def check(backend: str) -> str | None:
    """What is wrong with a backend that begins with `dask:`, None where nothing is."""
    if importlib.util.find_spec("distributed") is None:
        return f"backend={backend!r} needs dask: pip install distributed"
    return None


def train(queue, store, how, progress, backend: str) -> None:
    """Train a queue in the workers of the scheduler that `dask:<address or scheduler file>` names."""
    import distributed

    address = backend.removeprefix(PREFIX)
    where = {"address": address} if ":" in address else {"scheduler_file": address}
    client, running = distributed.Client(**where), {}
    try:
        while queue.unfinished:
            while task := queue.take():
                future = client.submit(_remote, task[0].spec(), str(store.root), how, pure=False)
                running[future] = task[0]
                progress.start(task[0].key)
            for future in distributed.wait(list(running), return_when="FIRST_COMPLETED").done:
                e, error = running.pop(future), future.exception()
                if error is None:
                    queue.done(e)
                else:
                    text = traceback.format_exception(type(error), error, future.traceback())
                    queue.failed(e, "".join(text))
    finally:
        client.cancel(list(running))
        client.close()


def _remote(spec, root, how):
    work.perform(Experiment.from_spec(spec), True, Store(root), how, lambda done, total: None)

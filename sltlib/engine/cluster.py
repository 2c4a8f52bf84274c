"""Training on many machines: the driver's side of dask, whose workers share the store's disk.

What travels through the scheduler is an experiment's description, how far it is, and a word at its end; results
travel through the store. So a worker or a scheduler that dies costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import queue as queues
import re
import secrets
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

from sltlib.engine import remote, work

PREFIX = "dask:"
CONNECT = 10  # seconds within which a scheduler answers, at the start and after a broken connection
LOOK = 1.0  # seconds between looks at the workers that there are


def check(backend: str) -> str | None:
    """What is wrong with a backend that begins with `dask:`, None where nothing is. Nothing is reached for it."""
    if importlib.util.find_spec("distributed") is None:
        return f"backend={backend!r} needs dask: pip install -c constraints.txt -e '.[cluster]'"
    try:
        _address(backend)
    except ValueError as error:
        return f"backend={backend!r}: {error}"
    return None


def _address(backend):
    """("local", N) or ("scheduler", address) of a backend; ValueError says what is wrong with it."""
    text = backend.removeprefix(PREFIX)
    if local := re.fullmatch(r"local:(\d+)", text):
        if not int(local[1]):
            raise ValueError("give local:N with at least one worker")
        return "local", int(local[1])
    if re.fullmatch(r"(\w+://)?[^/:]*:\d+", text):
        return "scheduler", text if "://" in text else f"tcp://{text}"
    try:
        found = json.loads(Path(text).expanduser().read_text())["address"]
    except OSError as error:
        why = f"{error.strerror}; give the scheduler's address (tcp://host:8786), its scheduler file, or local:N"
        raise ValueError(f"{text or 'nothing'}: {why}") from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{text} is no scheduler file: `dask scheduler --scheduler-file {text}` writes it") from None
    return "scheduler", str(found)


def train(queue, store, how, progress, backend: str, limit: int = 0) -> None:
    """Train a queue in the workers of a scheduler; limit : at most so many trainings at once, 0: as many as it has.

    RuntimeError in one line where the scheduler does not answer, or is gone in the middle.
    """
    with contextlib.ExitStack() as stack:
        name = f"driver-{secrets.token_hex(4)}"  # the workers look for it: it says that they see this store
        stack.enter_context(store.lease(name))
        client = stack.enter_context(_client(backend, stack))
        job = remote.Job(str(store.root), how, remote.settings(), work.source_hash(), name)
        driver = Driver(client, queue, progress, job, limit)
        try:
            driver.run()
        finally:
            driver.close()


def _client(backend, stack):
    """A connection to the scheduler; RuntimeError in one line where there is none."""
    import dask
    import distributed

    stack.enter_context(dask.config.set({"distributed.comm.timeouts.connect": f"{CONNECT}s"}))
    kind, where = _address(backend)
    if kind == "local":
        # The trainings run in processes of their own (remote.py): dask's side of it can be threads.
        cluster = distributed.LocalCluster(
            n_workers=1, threads_per_worker=where, processes=False, dashboard_address=None, memory_limit=0
        )
        stack.enter_context(cluster)
        stack.callback(remote.stop)
        return distributed.Client(cluster)
    url = urlsplit(where)
    try:
        socket.create_connection((url.hostname, url.port), CONNECT).close()
        return distributed.Client(where, timeout=CONNECT)
    except (OSError, ValueError) as error:
        words = str(error).partition("\n")[0] or type(error).__name__
        raise RuntimeError(f"no scheduler answers at {where} ({words}): is it running, and reachable from here?") from None


class Driver:
    """Gives a cluster's workers what a queue has, until all of it is over."""

    def __init__(self, client, queue, progress, job, limit):
        self.client, self.queue, self.progress, self.job, self.limit = client, queue, progress, job, limit
        self.news = queues.SimpleQueue()  # (key, what): what dask's threads hear
        self.address = client.scheduler.address
        self.running = {}  # key: (experiment, future)

    def run(self):
        """Train everything; RuntimeError in one line where the scheduler is gone."""
        self.client.subscribe_topic(self.job.name, lambda event: self.news.put(event[1]))
        told = False
        while self.queue.unfinished:
            self._connected()
            slots, resources = self._slots()
            if not slots and not told:
                print("the scheduler has no workers yet: waiting for them", file=sys.stderr)
                told = True
            # A few more than are trained at once, so that no worker waits for this loop.
            while slots and len(self.running) < (self.limit or slots + slots // 8 + 1) and (e := self.queue.take()):
                self._submit(e, resources)
            with contextlib.suppress(queues.Empty):
                news = self.news.get(timeout=LOOK)
                while True:
                    self._hear(*news)
                    news = self.news.get_nowait()
            self.progress.draw()

    def close(self):
        """Drop what no worker has begun; what one trains it may finish."""
        if self.client.status == "running":
            self.client.cancel([future for _, future in self.running.values()])

    def _connected(self):
        """Wait for a connection that broke: dask tries again, and ends the client where that was in vain."""
        if self.client.status == "connecting":
            return
        if self.client.status != "running":
            raise RuntimeError(
                f"the scheduler at {self.address} is gone. Everything that is finished is stored:"
                " start a scheduler and run again, and only the rest is trained"
            )

    def _slots(self):
        """(how many trainings the cluster takes at once, the resources that each asks for)."""
        if self.client.status != "running":
            return 0, None
        try:
            workers = self.client.scheduler_info()["workers"].values()
        except (OSError, TimeoutError):  # it just went away
            return 0, None
        gpus = int(sum(w["resources"].get("GPU", 0) for w in workers))
        slots = gpus or sum(w["nthreads"] for w in workers)
        self.progress.workers = max(min(slots, self.limit or slots), 1)
        return slots, {"GPU": 1} if gpus else None

    def _submit(self, e, resources):
        key = e.key
        # `retries` is the queue's matter; a worker of dask that dies is replaced by the scheduler.
        future = self.client.submit(remote.perform, e.spec(), self.job, resources=resources, pure=False, key=f"{key}-{secrets.token_hex(4)}")
        self.running[key] = e, future
        future.add_done_callback(lambda future: self.news.put((key, future)))

    def _hear(self, key, what):
        """Of a training: it began, its steps, or its future, which is over."""
        if key not in self.running:
            return
        if what == "start":
            self.progress.start(key)
        elif isinstance(what, list | tuple):
            self.progress.report(key, *what)
        elif what is self.running[key][1]:
            e, future = self.running.pop(key)
            if future.status == "finished":
                word, *rest = future.result()
                {"done": self.queue.done, "held": self.queue.held, "failed": self.queue.failed, "died": self.queue.died}[word](e, *rest)
            elif future.status == "error":
                self.queue.failed(e, _reason(future.exception()))
            else:  # cancelled: the connection broke, and what its worker still trains is its own to finish
                self.queue.again(e)


def _reason(error):
    name = type(error).__name__
    if name == "KilledWorker":
        return f"its dask worker died {error.allowed_failures + 1} times"
    return f"the worker cannot begin: {name}: {error}"

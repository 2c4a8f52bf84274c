"""Training in this process, or side by side in processes of one machine that die with it.

A worker is forked from a server that has imported torch, trains one experiment after another and answers
in a word; what it finds travels through the store.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from multiprocessing.connection import wait

from tqdm import tqdm

from sltlib.base import machine
from sltlib.engine import kernels, work
from sltlib.engine.leases import Busy
from sltlib.engine.store import Store
from sltlib.experiment import Experiment

# Imported once, in the process that workers are forked from. Of sltlib only what warms the compiler up:
# workers then see the rest as it is now.
PRELOAD = ["torch", "snntorch", "torch._dynamo", "torch._inductor.compile_fx", "sltlib.engine.warm"]


def inline(queue, store, how, progress) -> None:
    """Train a queue in this process, one after another."""
    with _compiled(store), _environment(_settings(store)):
        while queue.unfinished:
            if (e := queue.take()) is None:
                time.sleep(0.05)  # others hold what is left
                continue
            progress.start(e.key)
            try:
                work.perform(e, store, how, functools.partial(progress.report, e.key))
            except Busy:
                queue.held(e)
            except Exception as error:
                queue.failed(e, work.reason(error))
            else:
                queue.done(e)


def processes(queue, store, how, progress, count: int) -> None:
    """Train a queue in `count` long-lived workers, each of which trains one experiment after another."""
    starts, workers, idle = context(), [], []
    with _compiled(store), contextlib.ExitStack() as stack:
        stack.callback(_stop, workers)
        while queue.unfinished:
            while (idle or len(workers) < count) and (e := queue.take()):
                if not idle:
                    worker = Worker(starts, store.root, _settings(store), how)
                    workers.append(worker)
                    worker.start()
                    idle.append(worker)
                worker = idle.pop()
                worker.give(e)
                progress.start(e.key)
            busy = {w.connection: w for w in workers if w.training}
            busy |= {w.process.sentinel: w for w in workers}
            for worker in dict.fromkeys(busy[ready] for ready in wait(list(busy), timeout=0.2 if queue.busy else 1)):
                word, *rest = worker.hear()
                if word == "report":
                    progress.report(worker.training.key, *rest)
                    continue
                e, worker.training = worker.training, None
                if word == "died":
                    workers.remove(worker)
                    if e is None:
                        idle.remove(worker)
                    else:
                        queue.died(e, *rest)
                    continue
                idle.append(worker)
                {"done": queue.done, "held": queue.held, "failed": queue.failed}[word](e, *rest)
            progress.draw()


def context():
    """How processes are started here: from a server that has imported what trainings need, where there is one."""
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    found = multiprocessing.get_context(kind)
    if kind == "forkserver":
        found.set_forkserver_preload(PRELOAD)
    return found


def _stop(workers):
    for worker in workers:
        worker.connection.close()  # all at once: idle ones end side by side
    for worker in workers:
        worker.stop()


class Worker:
    """The parent's side of a worker process; `training` is the experiment it works on, or None."""

    def __init__(self, context, root, settings, how):
        self.training, self.context = None, context
        self.arguments = (str(root), settings, how)

    def start(self):
        """Start the process; RuntimeError where the server that forks it dies at its start, twice."""
        deaths, until = 0, time.monotonic() + 30
        while True:
            self.connection, theirs = self.context.Pipe()
            self.process = self.context.Process(target=_serve, args=(theirs, *self.arguments), daemon=True)
            try:
                # The server that workers are forked from compiles too: into the folder that is guarded.
                with _environment(machine.ENVIRONMENT | {kernels.VARIABLE: self.arguments[1][kernels.VARIABLE]}), _no_main():
                    self.process.start()
                return
            except (EOFError, ConnectionError) as error:
                deaths += not isinstance(error, ConnectionRefusedError)  # which one gives that is just dying
                if deaths > 1 or time.monotonic() > until:
                    raise RuntimeError(
                        "the process that workers are forked from died at its start, often for lack of memory:"
                        " nothing is lost; free some and run again, or use backend='inline'"
                    ) from error
            finally:
                theirs.close()  # so that the pipe ends with the worker
            time.sleep(0.05)

    def give(self, e):
        """Let it train `e`."""
        self.training = e
        with contextlib.suppress(BrokenPipeError):  # it just died: hear() says so
            self.connection.send(e.spec())

    def hear(self):
        """The next word: report, done, held, failed or died, and what belongs to it."""
        try:
            if self.connection.poll():
                return self.connection.recv()
        except (EOFError, ConnectionError):
            pass
        self.process.join()
        code = self.process.exitcode
        lack = ", often for lack of memory" if code == -signal.SIGKILL else ""
        return "died", f"exit code {code}" + (f" (killed{lack})" if lack else "")

    def stop(self):
        """End the process: an idle one ends with its pipe, one that trains by force."""
        if self.process.pid is None:
            return
        if self.training is None:
            self.process.join(5)
        self.process.kill()
        self.process.join()


def _serve(connection, root, settings, how):
    """A worker's life: train what comes through the pipe, answer in a word, die with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with_parent, daemon=True).start()
    for name in [name for name in os.environ if name.startswith("SLT_")]:
        del os.environ[name]  # those of the time when the fork server started
    os.environ |= settings
    # The compiler uses tqdm, whose own lock is a semaphore that a killed worker would leave behind.
    tqdm.set_lock(threading.RLock())
    store = Store(root)
    while True:
        try:
            spec = connection.recv()
        except EOFError:
            return
        try:
            e = Experiment.from_spec(spec)
            work.perform(e, store, how, lambda *steps: connection.send(("report", *steps)))
            answer = ("done",)
        except Busy:
            answer = ("held",)
        except Exception as error:
            answer = ("failed", work.reason(error))
        connection.send(answer)


def _die_with_parent():
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _settings(store):
    """What a worker must know of this process's environment, and where compiled code is kept."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("SLT_")}
    return settings | {kernels.VARIABLE: os.environ.get(kernels.VARIABLE) or str(kernels.folder(store.root))}


def _compiled(store):
    """Guard the store's kernels, unless the reader has a folder of their own for them."""
    if os.environ.get(kernels.VARIABLE):
        return contextlib.nullcontext()
    return kernels.guarded(kernels.folder(store.root))


@contextlib.contextmanager
def _environment(values):
    """Environment variables for a while; what the user has set stays."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ |= added
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _no_main():
    """Hide `__main__`: a new process would run it again, which ruins a script without a guard."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main

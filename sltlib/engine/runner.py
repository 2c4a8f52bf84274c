"""run(): train what the store lacks, side by side, and return a table.

Every training computes on one thread and leaves its result in the Store; only a word of success
or a traceback travels back. So the backend, the order and the number of workers change no bit.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import functools
import importlib
import importlib.util
import json
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import types
from multiprocessing.connection import wait

from tqdm import tqdm

from sltlib import data
from sltlib.experiment import Experiment
from sltlib.engine.store import BrokenResult, Busy, Store, short

# What a process that trains wants in its environment before it starts: memory in huge pages,
# kept instead of given back (glibc's and torch's own switches), and one thread a training.
ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "THP_MEM_ALLOC_ENABLE": "1",
    "OMP_NUM_THREADS": "1",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",  # one kernel to compile: no pool of compiler processes
}
# Imported once, in the process that workers are forked from. Of sltlib only what warms the compiler up:
# workers then see the rest as it is now.
PRELOAD = ["torch", "snntorch", "torch._dynamo", "torch._inductor.compile_fx", "sltlib.engine.warm"]
BACKENDS = ("auto", "inline", "processes", "dask:<address or scheduler file>")


def run(experiments, backend="auto", workers=0, store=None, _train="sltlib.train:train"):
    """Train what the store lacks and return a DataFrame, one row for each experiment, in order.

    backend : "processes" (what "auto" means, unless an experiment uses a search, neuron or model
        that is a function of this process), "inline" (in this process), or "dask:<address or
        scheduler file>" with workers that share the store's disk, started with --nthreads 1.
    workers : trainings at once; 0 means one for each core.
    Columns: every field of Experiment (`source` as its key), `key`, and every metric. How many
    were trained is in `.attrs["trained"]`.

    ValueError names all that is wrong before anything trains. A failing training stops no other:
    at the end one RuntimeError names all that failed. What is finished stays stored.
    """
    experiments = _checked(experiments, backend, workers)
    if backend == "auto" and any(_added(e) for e in experiments):
        backend = "inline"
    store = store or Store()
    missing = _missing(experiments, store)
    if missing:
        wanted = {}
        for e in missing:
            wanted[e.dataset] = max(wanted.get(e.dataset, 0), e.train_images)
        data.check(wanted)
        queue = _Queue(missing)
        workers = min(workers or _cores(), len(missing))
        with Progress({e.key: cost(e) for e in missing}, workers) as progress:
            queue.on_done, queue.on_lost = progress.done, progress.lost
            if backend == "inline":
                _inline(queue, store, _train, progress)
            elif backend.startswith("dask:"):
                _dask(queue, store, _train, progress, backend.removeprefix("dask:"))
            else:
                _processes(queue, store, _train, progress, workers)
        if queue.failures:
            raise RuntimeError(queue.summary())
    return _table(experiments, store, trained=len(missing))


def _cores():
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _checked(experiments, backend, workers):
    problems = []
    if isinstance(experiments, (Experiment, str)) or not hasattr(experiments, "__iter__"):
        problems.append(f"experiments={experiments!r}: give a list of Experiments")
        experiments = []
    experiments = list(experiments)
    for place, e in enumerate(experiments):
        if not isinstance(e, Experiment):
            problems.append(f"experiments[{place}]={e!r}: give an Experiment")
        elif (added := _added(e)) and backend not in ("auto", "inline"):
            words = " and ".join(added)
            problems.append(f"experiments[{place}]: {words} was added in this process only: use backend='inline'")
    if backend not in BACKENDS[:3] and not str(backend).startswith("dask:"):
        problems.append(f"backend={backend!r}: choose from {', '.join(BACKENDS)}")
    elif backend.startswith("dask:") and importlib.util.find_spec("distributed") is None:
        problems.append(f"backend={backend!r} needs dask: pip install distributed")
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


def _missing(experiments, store):
    """What must be trained, each key once, with the sources that those need; damaged ones too."""
    missing, seen, todo = [], set(), list(experiments)
    while todo:
        e = todo.pop(0)
        if e.key in seen:
            continue
        seen.add(e.key)
        try:
            stored = store.get(e)
        except BrokenResult as error:
            print(f"{error}: set aside as {store.set_aside(e.key)}", file=sys.stderr)
            stored = None
        if stored is None:
            missing.append(e)
            todo += [e.source] if e.source else []
    return missing


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
    table = pandas.DataFrame(rows, columns=None if rows else [*fields, "key"])
    table.attrs["trained"] = trained
    return table


# Multiplications for one 32x32 image at width 1, in millions; only their ratios matter.
_SIZES = {"linear": 0.1, "conv2": 40, "conv4": 96, "conv6": 153, "conv8": 210, "resnet19": 2300}
_SIZES |= {"spikformer": 320, "convpep": 200}


def cost(experiment: Experiment) -> float:
    """Roughly how long a training takes beside others, in no unit: for the order and the time left."""
    info = data.info(experiment.dataset)
    images = experiment.train_images or info.counts["train"]
    size = experiment.image_size or info.size
    one = _SIZES.get(experiment.model, 100) * experiment.width**1.5 * (size / 32) ** 2
    steps = experiment.timesteps if experiment.spiking else 1
    if experiment.spiking and experiment.search_timesteps:
        steps = experiment.search_timesteps + (steps - experiment.search_timesteps) / experiment.epochs
    return images * experiment.epochs * (0.2 + one * steps)


# --- what is to be done, in which order --------------------------------------------------------


class _Queue:
    """The trainings still to do. One whose source is among them waits for it; long ones go first."""

    def __init__(self, experiments):
        needed = {}  # what waits for a source counts as a part of it
        for e in experiments:
            if e.source:
                needed[e.source.key] = max(needed.get(e.source.key, 0), cost(e))
        self.waiting = sorted(experiments, key=lambda e: -cost(e) - needed.get(e.key, 0))
        self.total = len(self.waiting)
        self.unfinished = {e.key for e in experiments}
        self.busy, self.deaths, self.failures = set(), {}, {}
        self.on_done = self.on_lost = lambda key: None

    def take(self):
        """The next training and whether to wait for its lease; None when none is ready."""
        for e in self.waiting:
            if not (e.source and e.source.key in self.unfinished):
                self.waiting.remove(e)
                return e, e.key in self.busy
        return None

    def done(self, e):
        self.unfinished.discard(e.key)
        self.on_done(e.key)

    def held(self, e):
        """Another process trains it: do the others first, then wait for that one."""
        self.busy.add(e.key)
        self.waiting.append(e)

    def died(self, e, how):
        """A worker died: the training gets one more try."""
        self.deaths[e.key] = self.deaths.get(e.key, 0) + 1
        if self.deaths[e.key] > 1:
            self.failed(e, f"its process died twice, {how}")
        else:
            self.on_lost(e.key)
            self.waiting.insert(0, e)

    def failed(self, e, why):
        self.failures[e.key] = (e, why)
        self.done(e)
        for other in [other for other in self.waiting if other.source and other.source.key == e.key]:
            self.waiting.remove(other)
            self.failed(other, f"its source {e.key} failed")

    def summary(self):
        """All failures; what several share is told once."""
        groups = {}
        for e, why in self.failures.values():
            groups.setdefault(why.strip(), []).append(f"  {e.key} {short(e)}")
        lines = [f"{len(self.failures)} of {self.total} trainings failed; the others are stored."]
        for why, names in groups.items():
            lines += ["", *names, why]
        return "\n".join(lines)


def _work(e, hold, store, train, report):
    """Train one experiment unless it is stored by now; `Busy` where another process does, if not hold."""
    if not hold:
        with store.lease(e.key):
            pass  # only looks: train() takes the lease itself
    if store.get(e) is None:
        train(e, store, report)
    if store.get(e) is None:
        raise RuntimeError("the training ended without a stored result")


def _import(name):
    module, function = name.split(":")
    return getattr(importlib.import_module(module), function)


# --- backends ----------------------------------------------------------------------------------


def _inline(queue, store, train, progress):
    with _environment(_settings(store)):
        while task := queue.take():
            e, hold = task
            progress.start(e.key)
            try:
                _work(e, hold, store, _import(train), functools.partial(progress.report, e.key))
            except Busy:
                queue.held(e)
            except Exception:
                queue.failed(e, traceback.format_exc())
            else:
                queue.done(e)


def _processes(queue, store, train, progress, count):
    """Long-lived workers, each of which trains one experiment after another."""
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(kind)
    if kind == "forkserver":
        context.set_forkserver_preload(PRELOAD)
    workers, idle = [], []
    try:
        while queue.unfinished:
            while (idle or len(workers) < count) and (task := queue.take()):
                if not idle:
                    worker = _Worker(context, store, train)
                    workers.append(worker)
                    worker.start()
                    idle.append(worker)
                worker = idle.pop()
                worker.give(*task)
                progress.start(worker.training.key)
            busy = {w.connection: w for w in workers if w.training}
            busy |= {w.process.sentinel: w for w in workers}
            for worker in dict.fromkeys(busy[ready] for ready in wait(list(busy), timeout=1)):
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
    finally:
        for worker in workers:
            worker.connection.close()  # all at once: idle ones end side by side
        for worker in workers:
            worker.stop()


class _Worker:
    """The parent's side of a worker process; `training` is the experiment it works on, or None."""

    def __init__(self, context, store, train):
        self.connection, self.theirs = context.Pipe()
        self.training = None
        arguments = (self.theirs, str(store.root), _settings(store), train)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)

    def start(self):
        with _environment(ENVIRONMENT), _no_main():
            self.process.start()
        self.theirs.close()  # so that the pipe ends with the worker

    def give(self, e, hold):
        self.training = e
        with contextlib.suppress(BrokenPipeError):  # it just died: hear() says so
            self.connection.send((e.spec(), hold))

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


def _serve(connection, root, settings, train):
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
            spec, hold = connection.recv()
        except EOFError:
            return
        try:
            e = Experiment.from_spec(spec)
            _work(e, hold, store, _import(train), lambda *steps: connection.send(("report", *steps)))
            answer = ("done",)
        except Busy:
            answer = ("held",)
        except Exception:
            answer = ("failed", traceback.format_exc())
        connection.send(answer)


def _die_with_parent():
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _settings(store):
    """What a worker must know of this process's environment, and where compiled code is kept."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("SLT_")}
    folder = os.environ.get("TORCHINDUCTOR_CACHE_DIR") or str(store.root / "inductor")
    return settings | {"TORCHINDUCTOR_CACHE_DIR": folder}


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


def _dask(queue, store, train, progress, address):
    import distributed

    where = {"address": address} if ":" in address else {"scheduler_file": address}
    client, running = distributed.Client(**where), {}
    try:
        while queue.unfinished:
            while task := queue.take():
                future = client.submit(_remote, task[0].spec(), str(store.root), train, pure=False)
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


def _remote(spec, root, train):
    _work(Experiment.from_spec(spec), True, Store(root), _import(train), lambda done, total: None)


# --- progress ----------------------------------------------------------------------------------


class Progress:
    """How far a run is and how long it still takes.

    A bar in a terminal or notebook; nothing under CI or `$SLT_QUIET`; where `$SLT_STATUS` names a
    file, one line of JSON there: {"done", "total", "fraction", "left_s"}, left_s null at first.

    The time left follows from the cost trained in each second of a worker, and the start-up time
    of those trainings that have begun. Between reports it counts down.
    """

    def __init__(self, costs: dict[str, float], workers: int, clock=time.monotonic):
        self.costs, self.workers, self.clock = costs, workers, clock
        self.fraction = dict.fromkeys(costs, 0.0)  # trained of each
        self.begun, self.first, self.last, self.ended = {}, {}, {}, set()
        self.estimate = None  # (seconds left, when that was)
        self.drawn, self.bar = -math.inf, None

    def __enter__(self):
        quiet = os.environ.get("CI") or os.environ.get("SLT_QUIET") or os.environ.get("SLT_STATUS")
        if not quiet and (sys.stderr.isatty() or "ipykernel" in sys.modules):
            shape = "{percentage:3.0f}% |{bar}| {desc}"
            self.bar = tqdm(total=1.0, bar_format=shape, leave=False)
        self.draw()
        return self

    def __exit__(self, *_):
        self.draw(always=True)
        if self.bar is not None:
            self.bar.close()

    def start(self, key):
        self.begun[key] = self.clock()

    def report(self, key, done, total):
        """A training is at step `done` of `total`."""
        now = self.clock()
        self.fraction[key] = min(done / max(total, 1), 1.0)
        # A resumed training begins part of the way: that part says nothing about the speed.
        self.first.setdefault(key, (now, self.fraction[key]))
        self.last[key] = now
        self._estimate(now)
        self.draw()

    def done(self, key):
        self.ended.add(key)
        self.fraction[key], self.last[key] = 1.0, self.clock()
        self._estimate(self.last[key])
        self.draw(always=True)

    def lost(self, key):
        """A worker died: its training starts again (from its checkpoint, but that shows later)."""
        self.fraction[key] = 0.0
        self.first.pop(key, None)
        self.last.pop(key, None)

    def _estimate(self, now):
        seen = [key for key in self.first if self.last[key] > self.first[key][0]]
        trained = sum(self.costs[key] * (self.fraction[key] - self.first[key][1]) for key in seen)
        if not trained:
            return
        slowness = sum(self.last[key] - self.first[key][0] for key in seen) / trained
        startup = sum(self.first[key][0] - self.begun[key] for key in self.first) / len(self.first)
        rest = []
        for key in self.costs.keys() - self.ended:
            left = slowness * self.costs[key] * (1 - self.fraction[key])
            rest.append(left + (0 if key in self.first else startup))
        self.estimate = max(sum(rest) / self.workers, max(rest, default=0.0)), now

    def left(self) -> float | None:
        """Seconds to the end, None before anything is known."""
        if len(self.ended) == len(self.costs):
            return 0.0
        if self.estimate is None:
            return None
        seconds, when = self.estimate
        return max(seconds - (self.clock() - when), 0.0)

    def status(self) -> dict:
        """What `$SLT_STATUS` holds."""
        total = sum(self.costs.values())
        fraction = sum(self.costs[key] * self.fraction[key] for key in self.costs) / total
        left = self.left()
        return {
            "done": len(self.ended),
            "total": len(self.costs),
            "fraction": round(fraction, 4),
            "left_s": None if left is None else round(left, 1),
        }

    def draw(self, always=False):
        """Show where things stand, five times a second at most."""
        now = self.clock()
        if not always and now - self.drawn < 0.2:
            return
        self.drawn = now
        status = self.status()
        if os.environ.get("SLT_STATUS"):
            _replace(os.environ["SLT_STATUS"], json.dumps(status) + "\n")
        if self.bar is not None:
            self.bar.n = status["fraction"]
            left = "" if status["left_s"] is None else f", {duration(status['left_s'])} left"
            self.bar.set_description_str(f"{status['done']}/{status['total']} trainings{left}")


def _replace(path, text):
    temporary = f"{path}.{os.getpid()}"
    with contextlib.suppress(OSError):  # a lost status line costs no training
        with open(temporary, "w") as file:
            file.write(text)
        os.replace(temporary, path)


def duration(seconds: float) -> str:
    """Seconds as a reader says them: 45 s, 12 min, 3.2 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


# --- command line ------------------------------------------------------------------------------


def main(argv=None) -> int:
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
    print(f"{'ticket':24} {result.ticket_path or 'none: nothing was searched'}")
    return 0


def parse(words, store=None) -> Experiment:
    """An Experiment from `field=value` words; ValueError names all that is wrong at once.

    `source` is the key of a stored result.
    """
    kinds = {f.name: f.type for f in dataclasses.fields(Experiment)}
    values, problems = {}, []
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            problems.append(f"{word!r}: write field=value")
        elif name not in kinds:
            close = difflib.get_close_matches(name, kinds)
            hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(kinds)}"
            problems.append(f"Experiment has no {name!r}: {hint}")
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
        result = (store or Store()).read(text)
        if result is None:
            raise ValueError(f"source={text}: no such key in the store; see `python -m sltlib list`")
        return result.experiment
    if kind == "bool":
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{name}={text}: give true or false")
        return text.lower() == "true"
    try:
        return {"int": int, "float": float, "str": str}[kind](text)
    except ValueError:
        raise ValueError(f"{name}={text}: give {'a whole number' if kind == 'int' else 'a number'}") from None

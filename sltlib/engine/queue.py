"""What is to be trained, in which order: long trainings first, and none before what it needs."""

from __future__ import annotations

import heapq
import math
import random
import sys
import time
from collections import deque

from sltlib import data
from sltlib.engine import leases
from sltlib.engine.store import BrokenResult, short

# Multiplications for one 32x32 image at width 1, in millions; only their ratios matter.
SIZES = {"linear": 0.1, "conv2": 40, "conv4": 96, "conv6": 153, "conv8": 210, "resnet19": 2300}
SIZES |= {"spikformer": 320, "convpep": 200}


def missing(experiments, store) -> list:
    """What must be trained, each key once, with the sources that those need; damaged ones are set aside."""
    found, seen, todo = [], set(), deque(experiments)
    while todo:
        e = todo.popleft()
        if e.key in seen:
            continue
        seen.add(e.key)
        try:
            stored = store.get(e)
        except BrokenResult as error:
            print(f"{error}: set aside as {store.set_aside(e.key)}", file=sys.stderr)
            stored = None
        if stored is None:
            found.append(e)
            todo += e.needs
    return found


def cost(experiment) -> float:
    """Roughly how long a training takes beside others, in no unit: for the order and the time left."""
    info = data.info(experiment.dataset)
    images = experiment.train_images or info.counts["train"]
    size = experiment.image_size or info.size
    one = SIZES.get(experiment.model, 100) * experiment.width**1.5 * (size / 32) ** 2
    steps = experiment.timesteps if experiment.spiking else 1
    if experiment.spiking and experiment.search_timesteps:
        steps = experiment.search_timesteps + (steps - experiment.search_timesteps) / experiment.epochs
    return images * experiment.passes * (0.2 + one * steps)


class Queue:
    """The trainings still to do. One whose source is among them waits for it; long ones go first.

    on_done, on_lost : called with the key of a training that is over, or whose worker died.
    others : what other processes hold, `Others`: those trainings come last, when they are free.
    order : a `random.Random` mixes trainings that take about as long as each other: of many processes with
        the same queue each begins with another one.
    """

    def __init__(self, experiments, on_done=lambda key: None, on_lost=lambda key: None, others=None, order=None):
        needed = {}  # what waits for a source counts as a part of it
        for e in experiments:
            for other in e.needs:
                needed[other.key] = max(needed.get(other.key, 0), cost(e))
        costs = {e.key: cost(e) + needed.get(e.key, 0) for e in experiments}
        if order:
            costs = {key: math.floor(math.log2(costs[key])) + order.random() for key in sorted(costs)}
        ranked = sorted(experiments, key=lambda e: -costs[e.key])
        self.rank = {e.key: place for place, e in enumerate(ranked)}
        self.unfinished = set(self.rank)
        self.total = len(ranked)
        self.ready = []  # a heap of (rank, experiment)
        self.lacks, self.blocked = {}, {}  # {key: the needs that are not over}, {key of a need: what waits for it}
        for e in ranked:
            self.lacks[e.key] = {other.key for other in e.needs} & self.unfinished
            for key in self.lacks[e.key]:
                self.blocked.setdefault(key, []).append(e)
            if not self.lacks[e.key]:
                self.ready.append((self.rank[e.key], e))
        self.busy, self.free, self.deaths, self.failures = {}, [], {}, {}
        self.on_done, self.on_lost, self.others = on_done, on_lost, others

    def take(self):
        """The next training; None when none is ready, or all that are left are held by other processes."""
        while self.ready:
            e = heapq.heappop(self.ready)[1]
            if self.others and self.others.hold(e.key) and e.key not in self.deaths:
                self.busy[e.key] = e
            else:
                return e
        if self.busy and not self.free:
            self.free = [self.busy.pop(key) for key in self.others.freed(list(self.busy))]
        return self.free.pop() if self.free else None

    def done(self, e):
        """It is stored."""
        self.unfinished.discard(e.key)
        for other in self.blocked.pop(e.key, []):
            self.lacks[other.key].discard(e.key)
            if not self.lacks[other.key] and other.key in self.unfinished:
                heapq.heappush(self.ready, (self.rank[other.key], other))
        self.on_done(e.key)

    def held(self, e):
        """Another process trains it: do the others first, then look whether that one is over."""
        self.busy[e.key] = e

    def again(self, e):
        """It has to be taken once more, by no fault of its own."""
        heapq.heappush(self.ready, (-1 - self.rank[e.key], e))

    def died(self, e, how):
        """A worker died: the training gets one more try."""
        self.deaths[e.key] = self.deaths.get(e.key, 0) + 1
        if self.deaths[e.key] > 1:
            self.failed(e, f"its process died twice, {how}")
        else:
            self.on_lost(e.key)
            self.again(e)

    def failed(self, e, why):
        """It cannot be trained, nor what waits for it."""
        self.failures[e.key] = (e, why)
        for other in self.blocked.pop(e.key, []):
            if other.key in self.unfinished:
                self.failed(other, f"its source {e.key} failed")
        self.done(e)

    def summary(self):
        """All failures; what several share is told once."""
        groups = {}
        for e, why in self.failures.values():
            groups.setdefault(why.strip(), []).append(f"  {e.key} {short(e)}")
        lines = [f"{len(self.failures)} of {self.total} trainings failed; the others are stored."]
        for why, names in groups.items():
            lines += ["", *names, why]
        return "\n".join(lines)


class Others:
    """What other processes train, looked at seldom: one listing of leases/ a look, however many wait.

    clock : seconds; looks are LOOK apart, and further (up to 10 seconds) the longer nothing changes.
    """

    LOOK = 0.2
    MANY = 20  # leases that are opened in one look, to see whether their holders live

    def __init__(self, root, clock=time.monotonic):
        self.root, self.clock = root, clock
        self.names, self.listed, self.pause = set(), -math.inf, self.LOOK

    def hold(self, key) -> bool:
        """Whether somebody holds `key`, as far as was seen within the last second."""
        self._list(1.0)
        return key in self.names

    def freed(self, keys) -> list[str]:
        """Those of `keys` that nobody holds any more; [] between two looks."""
        if not self._list(self.pause):
            return []
        gone = [key for key in keys if key not in self.names]
        held = [key for key in keys if key in self.names]
        gone += [key for key in random.sample(held, min(self.MANY, len(held))) if leases.holder(self.root, key) is None]
        self.pause = self.LOOK if gone else min(2 * self.pause, 10.0)
        return gone

    def _list(self, after):
        if self.clock() - self.listed < after:
            return False
        self.names, self.listed = leases.taken(self.root), self.clock()
        return True

"""What is to be trained, in which order: long trainings first, and none before what it needs."""

from __future__ import annotations

import sys

from sltlib import data
from sltlib.engine.store import BrokenResult, short

# Multiplications for one 32x32 image at width 1, in millions; only their ratios matter.
SIZES = {"linear": 0.1, "conv2": 40, "conv4": 96, "conv6": 153, "conv8": 210, "resnet19": 2300}
SIZES |= {"spikformer": 320, "convpep": 200}


def missing(experiments, store) -> list:
    """What must be trained, each key once, with the sources that those need; damaged ones are set aside."""
    found, seen, todo = [], set(), list(experiments)
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
    """

    def __init__(self, experiments, on_done=lambda key: None, on_lost=lambda key: None):
        needed = {}  # what waits for a source counts as a part of it
        for e in experiments:
            for other in e.needs:
                needed[other.key] = max(needed.get(other.key, 0), cost(e))
        self.waiting = sorted(experiments, key=lambda e: -cost(e) - needed.get(e.key, 0))
        self.total = len(self.waiting)
        self.unfinished = {e.key for e in experiments}
        self.busy, self.deaths, self.failures = set(), {}, {}
        self.on_done, self.on_lost = on_done, on_lost

    def take(self):
        """The next training and whether to wait for its lease; None when none is ready."""
        for e in self.waiting:
            if not any(other.key in self.unfinished for other in e.needs):
                self.waiting.remove(e)
                return e, e.key in self.busy
        return None

    def done(self, e):
        """It is stored."""
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
        """It cannot be trained, nor what waits for it."""
        self.failures[e.key] = (e, why)
        self.done(e)
        for other in [other for other in self.waiting if e.key in {need.key for need in other.needs}]:
            if other in self.waiting:  # what it needs too may have taken it along
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

"""Progress as it is shown everywhere: one rule for being quiet, one bar, one way to say the time left."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import threading
import time
from os import environ
from pathlib import Path

from sltlib.base import files, settings
from sltlib.base.words import duration

LINE_EVERY = 30  # seconds between lines where there is no terminal


def quiet() -> bool:
    """Whether nothing is to be shown: under CI, or where `$SLT_QUIET` is set."""
    return bool(environ.get("CI") or settings.get("SLT_QUIET"))


def shown() -> bool:
    """Whether this process draws bars: in a terminal or a notebook, if not quiet and no other one shows its progress."""
    return not (quiet() or settings.get("SLT_STATUS")) and (sys.stderr.isatty() or "ipykernel" in sys.modules)


def bar(words: str, total: float | None, **how):
    """A tqdm bar that goes away when it is done; nothing where none is to be shown."""
    from tqdm import tqdm

    return tqdm(total=total, desc=words, disable=not shown(), leave=False, **how)


def trainings(status: dict) -> str:
    """A status in words: 12/60 trainings, 20 %, 6 min left; "" where nothing trains."""
    if not status.get("total"):
        return ""
    words = f"{status['done']}/{status['total']} trainings, {100 * status['fraction']:.0f} %"
    return words if status.get("left_s") is None else f"{words}, {duration(status['left_s'])} left"


class Trainings:
    """How far a run's trainings are and how long they still take: as a bar, and in `$SLT_STATUS`.

    That file holds one line of JSON: {"done", "total", "fraction", "left_s"}, left_s null at first.

    costs : of each training by its key, in any unit. The time left follows from the cost trained in
    each second of a worker, and the start-up time of those that have begun; between reports it counts down.
    """

    def __init__(self, costs: dict[str, float], workers: int, clock=time.monotonic):
        self.costs, self.workers, self.clock = costs, workers, clock
        self.fraction = dict.fromkeys(costs, 0.0)  # trained of each
        self.begun, self.first, self.last, self.ended = {}, {}, {}, set()
        self.estimate = None  # (seconds left, when that was)
        self.drawn, self.bar = -math.inf, None

    def __enter__(self):
        if shown():
            self.bar = bar("", 1.0, bar_format="{percentage:3.0f}% |{bar}| {desc}")
        self.draw()
        return self

    def __exit__(self, *_):
        self.draw(always=True)
        if self.bar is not None:
            self.bar.close()

    def start(self, key):
        """A training begins to work: its process may still have to start."""
        self.begun[key] = self.clock()

    def report(self, key, done, total):
        """A training is at step `done` of `total`."""
        now = self.clock()
        self.fraction[key] = min(done / max(total, 1), 1.0)
        # A resumed training begins part of the way: that part says nothing about the speed.
        self.first.setdefault(key, (now, self.fraction[key]))
        self.last[key] = now
        if self.estimate is None or now - self.estimate[1] >= 0.2:  # of a thousand workers each reports
            self._estimate(now)
        self.draw()

    def done(self, key):
        """A training is over, stored or failed."""
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
        if path := settings.get("SLT_STATUS"):
            with contextlib.suppress(OSError):  # a lost status line costs no training
                files.write(Path(path), json.dumps(status) + "\n", durable=False)
        if self.bar is not None:
            self.bar.n = status["fraction"]
            self.bar.set_description_str(trainings(status))


class StatusLine:
    """Shows the status that a run in another process keeps in a file: trainings done, percent, time left.

    On a terminal one line that changes; elsewhere a line every 30 seconds; none where it is to be quiet.
    """

    POLL = 0.5  # seconds between looks at the file

    def __init__(self, title, path, stream=None, every=LINE_EVERY):
        self.title, self.path, self.stream, self.every = title, path, stream or sys.stderr, every
        self.over = threading.Event()
        self.last, self.printed = "", time.monotonic()
        self.quiet = quiet()

    def __enter__(self):
        self.thread = threading.Thread(target=self._loop, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        if self.last and self.stream.isatty():
            self.stream.write("\r" + " " * len(self.last) + "\r")
            self.stream.flush()

    def read(self) -> dict:
        """The last status, or {}."""
        try:
            return json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}

    def line(self) -> str:
        """`02_table1_cnn (mini): 12/60 trainings, 20 %, 6 min left`; "" while nothing trains."""
        words = trainings(self.read())
        return words and f"{self.title}: {words}"

    def _loop(self):
        while not self.over.wait(self.POLL):
            self.draw()

    def draw(self):
        """Show the present line, if it says something new."""
        line = "" if self.quiet else self.line()
        if not line or line == self.last:
            return
        if self.stream.isatty():
            self.stream.write("\r" + line.ljust(len(self.last)))
        elif time.monotonic() - self.printed >= self.every:
            self.stream.write(line + "\n")
            self.printed = time.monotonic()
        else:
            return
        self.stream.flush()
        self.last = line

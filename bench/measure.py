"""Times side by side: every contestant takes its turn in every round, so a slow moment meets them all."""

import gc
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

WARM_UP = 3  # rounds that are not counted


def interleaved(steps, rounds, warm_up=WARM_UP, settle=0.0):
    """{name: seconds of every counted round} of functions without arguments, {name: function}.

    settle : seconds of untimed calls, at least one, before each timed one; 0: none. The threads of the library that was
        called before still spin for a while, and the first calls of the next one share the cores with them.
    """
    taken = {name: [] for name in steps}
    for turn in range(rounds + warm_up):
        for name, step in steps.items():
            until = time.perf_counter() + settle
            while settle:
                step()
                if time.perf_counter() >= until:
                    break
            begin = time.perf_counter()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= warm_up:
                taken[name].append(time.perf_counter() - begin)
    return taken


def quartiles(taken, **more):
    """DataFrame of milliseconds: one row a contestant, its median and quartiles, rounds, and `more` columns."""
    rows = []
    for name, seconds in taken.items():
        low, median, high = np.percentile(np.array(seconds) * 1e3, (25, 50, 75))
        rows.append(more | {"contestant": name, "ms": median, "low": low, "high": high, "rounds": len(seconds)})
    return pd.DataFrame(rows)


def peak_of(function):
    """MiB that this process holds at the most while it calls a function, above what it held before (Linux)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _status("VmRSS")
    function()
    return _status("VmHWM") - before


def _status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field))) / 1024


def fresh(arguments, environment=None):
    """What `python -m bench ARGUMENTS` prints last, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", *map(str, arguments)], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise RuntimeError(f"bench {arguments} failed: {done.stderr.strip()[-800:]}")
    return done.stdout.strip().splitlines()[-1]

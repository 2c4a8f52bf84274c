"""What the pipeline itself costs: a no-op `dvc repro`, a notebook with everything stored, a new worker."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from sltlib.base import paths
from sltlib.engine import run as engine
from sltlib.notebook import profiles, tune
from sltlib.experiment import Experiment
from sltlib.engine.store import Store

STAGE = "smoke/dvc.yaml:figure@02_table1_cnn"
READY = "SLT_BENCH_READY"  # where `ready` leaves the time


def ready(experiment, store, report):
    """In place of a training: one step of it, the moment it is done, and no result."""
    from sltlib.models import build_model

    from .steps import random_batch, stepper

    stepper(build_model(experiment), experiment, random_batch(experiment))()
    Path(os.environ[READY]).write_text(repr(time.time()))
    raise RuntimeError("only looked how long it takes to get here")


def worker_seconds():
    """Seconds from `run` to a worker's first training step done: the first worker, with its server, and a next one."""
    fields = profiles.settings("mini", tune.IMAGES)
    mini = {k: fields[k] for k in ("dataset", "model", "width", "image_size", "batch_size")}
    out = []
    engine.TRAIN = "bench.pipeline:ready"
    with tempfile.TemporaryDirectory() as folder:
        os.environ[READY] = str(Path(folder) / "ready")
        for seed in range(4):
            begin = time.time()
            try:
                engine.run([Experiment(lr=0.01, seed=seed, **mini)], "processes", store=Store(Path(folder)))
            except Exception as error:
                if "only looked" not in str(error):
                    raise
            out.append(float(Path(os.environ[READY]).read_text()) - begin)
    return out[0], sorted(out[1:])[1]


def _seconds(command, folder, environment):
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()[-800:]}")
    return time.perf_counter() - begin


def stage_seconds():
    """A smoke stage in a clone with a store of its own: from nothing, no-op, and forced with everything stored."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", str(paths.ROOT), str(clone)], check=True)
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(clone),
            "SLT_STORE": str(Path(folder) / "store"), "JUPYTER_PREFER_ENV_PATH": "1",
        }  # fmt: skip
        dvc = [shutil.which("dvc", path=environment["PATH"]), "repro", "-q"]
        return {
            "a smoke notebook, everything to train": _seconds([*dvc, STAGE], clone, environment),
            "dvc repro with nothing to do": _seconds([*dvc, STAGE], clone, environment),
            "the notebook again, everything stored": _seconds([*dvc, "-f", "-s", STAGE], clone, environment),
        }


def table():
    """Seconds of each, one row a measurement."""
    first, following = worker_seconds()
    rows = {"first worker to a training step done (and its server, where none ran)": first, "a further worker": following}
    found = pd.DataFrame((rows | stage_seconds()).items(), columns=["what", "seconds"])
    print(found.round(2).to_string(index=False))
    return found

"""How the store and the queue grow: `python -m bench.scale [--results 100000] [--folder /tmp/x]`. Removes what it makes."""

import argparse
import contextlib
import io
import os
import shutil
import tempfile
import time
from pathlib import Path

from sltlib.base import files
from sltlib.engine import commands, doctor
from sltlib.engine.queue import Others, Queue
from sltlib.engine.store import Store
from sltlib.experiment import Experiment


def fill(root, count):
    """`count` sound results of about 2 kB each, written without the disk's word; returns their Experiments."""
    wanted = [Experiment("fashion", seed=seed) for seed in range(count)]
    parts = {
        "metrics.json": files.json_text({"test_accuracy": 80.0, "val_accuracy": 81.0}),
        "history.csv": "epoch,loss\n" + "".join(f"{i},0.5\n" for i in range(20)),
        "provenance.json": files.json_text({"finished": "2026-01-01T00:00:00Z", "device": "cpu"}),
    }
    same = {name: files.sha256(text.encode()) for name, text in parts.items()}
    for e in wanted:
        folder = Path(root) / "results" / e.key
        folder.mkdir(parents=True)
        texts = parts | {"experiment.json": files.json_text(e.spec())}
        hashes = same | {"experiment.json": files.sha256(texts["experiment.json"].encode())}
        texts["manifest.json"] = files.json_text({"key": e.key, "files": hashes})
        for name, text in texts.items():
            (folder / name).write_text(text)
    return wanted


def timed(name, call):
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        call()
    print(f"{name:44}{time.perf_counter() - began:9.3f} s", flush=True)


def drained(queue):
    while e := queue.take():
        queue.done(e)


def disk(trainings, machines, cores, minutes, checkpoint_s=20, beat_s=20):
    """What trainings of `minutes` do to a shared disk, in operations a second (a calculation, not a measurement)."""
    running, ends = machines * cores, machines * cores / (minutes * 60)
    print(f"{trainings} trainings of {minutes} min, {machines} machines of {cores}: {trainings * minutes / running / 60:.1f} h")
    print(f"  beats {running / beat_s:.0f}/s, checkpoints {running / checkpoint_s:.0f}/s, ends {ends:.2f}/s")
    print(f"  an end: about 60 operations (lease 3, publishing 40, verifying 16): {60 * ends:.0f}/s")
    print(f"  claimers' looks: at most {machines / 1:.0f} listings of leases/ a second, {machines / 10:.0f} when nothing changes")
    print(f"  dask: {running / 2:.0f} words of progress a second, at most {running + running // 8 + 1} tasks at once")


def main(argv=None):
    parser = argparse.ArgumentParser("python -m bench.scale", description=__doc__)
    parser.add_argument("--results", type=int, default=100_000)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args(argv)
    if args.results < 1:
        parser.error(f"--results {args.results}: give at least 1")
    folder = Path(tempfile.mkdtemp(prefix="slt-scale-", dir=args.folder))
    os.environ["SLT_STORE"] = str(folder)
    try:
        wanted = fill(folder, args.results)
        store = Store(folder)
        timed("open", lambda: Store(folder))
        timed("look up 1,000 keys", lambda: [store.get(e) for e in wanted[:: max(len(wanted) // 1000, 1)][:1000]])
        timed("list", lambda: commands.list_main([]))
        timed("doctor", lambda: doctor.examine(store))
        many = wanted[:10_000]
        chains = [e.replace(search="found-mask-trained", sparsity=0.5, source=e.replace(search="edge-popup", sparsity=0.5)) for e in many[:5000]]
        chains += [e.source for e in chains]
        timed("a queue of 10,000 trainings, half of them sources", lambda: drained(Queue(chains, others=Others(folder))))
    finally:
        shutil.rmtree(folder)
    disk(10_000, 100, 16, 30)


if __name__ == "__main__":
    main()

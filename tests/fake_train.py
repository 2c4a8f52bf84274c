"""A stand-in for `train()`: no torch, and steered by files in `$SLT_FAKE`.

<key>.wait   a FIFO: say the process id into the FIFO `started`, then wait until it is opened
<key>.die    kill -9 this process, `die` times (the file's text)
<key>.fail   raise an error with the file's text; <key>.foreseen one that is foreseen; <key>.full a full disk's
`real` trains in earnest: once, right after a checkpoint, it kills the process whose id is in `worker`.
<key>.compile  leave a file where compiled kernels are kept
Every training that runs is a line in `log`: key, process id, SLT_WORD, GLIBC_TUNABLES.
"""

import contextlib
import errno
import os
import signal
from pathlib import Path

from sltlib.engine.work import Foreseen


def train(experiment, store, report):
    folder = Path(os.environ["SLT_FAKE"])
    key = experiment.key
    with store.lease(key, wait=True):
        if stored := store.get(experiment):
            return stored
        words = [key, os.getpid(), os.environ.get("SLT_WORD"), os.environ.get("GLIBC_TUNABLES")]
        with open(folder / "log", "a") as log:
            print(*words, file=log)
        report(1, 4)
        if (folder / f"{key}.wait").exists():
            with open(folder / "started", "w") as started:
                print(os.getpid(), file=started)
            with open(folder / f"{key}.wait") as gate:
                gate.read()
        if (folder / f"{key}.fail").exists():
            raise ValueError((folder / f"{key}.fail").read_text())
        if (folder / f"{key}.foreseen").exists():
            raise Foreseen((folder / f"{key}.foreseen").read_text())
        if (folder / f"{key}.full").exists():
            raise OSError(errno.ENOSPC, "No space left on device", str(store.root))
        if (folder / f"{key}.compile").exists():
            (Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]) / "kernel.so").write_text(key)
        with contextlib.suppress(FileNotFoundError):
            times = int((folder / f"{key}.die").read_text())
            if times:
                (folder / f"{key}.die").write_text(str(times - 1))
                os.kill(os.getpid(), signal.SIGKILL)
        report(4, 4)
        source = store.get(experiment.source).metrics["score"] if experiment.source else 0
        metrics = {"score": experiment.seed * 2 + source, "rates": {"a": 0.5}, "lost": float("nan")}
        return store.publish(experiment, metrics, [{"epoch": 0, "loss": 0.1}], {"pid": os.getpid()})


def real(experiment, store, report):
    from sltlib.engine import work
    from sltlib.engine.checkpoints import Checkpoint

    victim, save = Path(os.environ["SLT_FAKE"]) / "worker", Checkpoint.save

    def save_then_kill(self, step, *state):
        save(self, step, *state)
        if step >= 3 and victim.exists():
            pid = int(victim.read_text())
            victim.unlink()
            os.kill(pid, signal.SIGKILL)
            signal.pause()  # until this process, too, is ended: its parent is dead

    Checkpoint.save = save_then_kill
    return work.train(experiment, store, report)

"""Many machines: dask's workers over the loopback, and claimers over one store."""

import dataclasses
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from test_runner import DENSE, HERE, MASK, TICKET, InThread, fake, seeds  # noqa: F401

from sltlib import Experiment
from sltlib.base.progress import Trainings
from sltlib.engine import cluster, leases, queue, remote, work
from sltlib.engine import run as engine
from sltlib.engine.store import Store
from sltlib.notebook import plan


class Cluster:
    """`dask scheduler` and `dask worker` in processes of their own."""

    def __init__(self, folder):
        self.folder, self.file, self.processes = folder, folder / "scheduler.json", []
        self.env = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(self.file))
        self.heard(self.scheduler, "Scheduler at")

    def worker(self, *options):
        made = self._start("worker", "--scheduler-file", str(self.file), "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard", *options)
        self.heard(made, "Registered to")
        return made

    def heard(self, process, words):
        for line in process.stdout:
            if words in line:
                return
        raise AssertionError(f"{process.args} ended without {words!r}")

    def _start(self, *words):
        made = subprocess.Popen(
            [sys.executable, "-m", "dask", *words], env=self.env, cwd=self.folder,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self.processes.append(made)
        return made

    def close(self):
        for process in self.processes:
            for each in [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []:
                each.kill()
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.fixture
def dask(fake):  # noqa: F811
    made = Cluster(fake.folder)
    yield made
    made.close()


def test_dask_trains_in_its_workers_and_names_what_failed(fake, dask):  # noqa: F811
    dask.worker()
    fake.set(seeds(1)[0], "fail", "boom")
    with pytest.raises(RuntimeError, match="(?s)1 of 4.*boom"):
        fake.run([MASK, *seeds(0, 1)], f"dask:{dask.file}", workers=0)
    assert fake.store.keys() == sorted(e.key for e in (MASK, TICKET, DENSE))
    assert leases.taken(fake.store.root) == set()


def test_a_dask_worker_that_is_killed_costs_one_training_again(fake, dask):  # noqa: F811
    first = dask.worker("--no-nanny")
    (e,) = seeds(0)
    fake.gate(e)
    running = InThread(fake.run, [e], f"dask:{dask.file}", 0)
    pid = fake.started()
    os.kill(first.pid, signal.SIGKILL)
    dask.worker("--no-nanny")
    assert fake.started() != pid
    fake.release(e)
    assert running.result().score.tolist() == [0] and fake.log() == [e.key] * 2


def test_a_training_process_that_dies_is_not_used_again(fake):  # noqa: F811
    first, second = seeds(0, 1)
    fake.set(first, "die", 1)
    fake.run([first, second], "dask:local:1", 0)
    assert sorted(fake.log()) == sorted([first.key, first.key, second.key]) and len(set(fake.log(1))) == 2


def test_a_dask_worker_killed_in_a_real_training_leaves_the_same_bytes(fake, dask, monkeypatch):  # noqa: F811
    monkeypatch.setenv("SLT_COMPILE", "0")
    monkeypatch.setenv("SLT_CHECKPOINT_S", "0")
    monkeypatch.setattr(engine, "TRAIN", "fake_train:real")
    e = Experiment("fashion", neuron="relu", model="conv2", width=0.1, image_size=8, train_images=400, epochs=1, batch_size=50)
    first = dask.worker("--no-nanny")
    (fake.folder / "worker").write_text(str(first.pid))
    running = InThread(fake.run, [e], f"dask:{dask.file}", 0)
    first.wait()
    dask.worker("--no-nanny")
    running.result()
    assert fake.store.get(e).provenance["resumed"] == 3, "it went on where the dead one stood"
    whole = Store(fake.folder / "whole")
    work.train(e, whole)
    assert bytes_of(fake.store) == bytes_of(whole)
    assert leases.taken(fake.store.root) == set()


def test_progress_comes_back_through_dask(fake, monkeypatch):  # noqa: F811
    told = []

    class Watched(Trainings):
        def start(self, key):
            told.append((key, "start"))
            super().start(key)

        def report(self, key, done, total):
            told.append((key, done, total))
            super().report(key, done, total)

    monkeypatch.setattr(engine, "Trainings", Watched)
    monkeypatch.setattr(remote, "REPORT", 0)
    monkeypatch.setenv("SLT_STATUS", str(fake.folder / "status.json"))
    wanted = seeds(0, 1)
    fake.run(wanted, "dask:local:1", 0)
    for e in wanted:
        own = [words[1:] for words in told if words[0] == e.key]
        assert own[0] == ("start",) and own[1:] == [(1, 4), (4, 4)][: len(own) - 1] and len(own) > 1
    status = json.loads((fake.folder / "status.json").read_text())
    assert (status["done"], status["total"], status["fraction"]) == (2, 2, 1.0)


@pytest.mark.parametrize("change, words", [
    (dict(root="/nowhere"), "does not see the driver's store /nowhere: SLT_STORE has to be a folder that all machines share"),
    (dict(name="another"), "does not see the driver's store"),
    (dict(code="0" * 16), "has other code of sltlib than the driver: update it"),
])  # fmt: skip
def test_a_machine_that_cannot_train_for_a_driver_says_why(fake, change, words):  # noqa: F811
    with fake.store.lease("driver-1"):
        right = remote.Job(str(fake.store.root), engine.TRAIN, (), work.source_hash(), "driver-1")
        assert remote._unfit(right) is None
        assert words in remote._unfit(dataclasses.replace(right, **change))


def test_a_worker_of_other_code_fails_its_trainings_in_one_line(fake, monkeypatch):  # noqa: F811
    monkeypatch.setattr(cluster.work, "source_hash", iter(["of the driver", *["of the worker"] * 9]).__next__)
    with pytest.raises(RuntimeError, match="has other code of sltlib than the driver"):
        fake.run([DENSE], "dask:local:1", 0)
    assert fake.log() == [] and not fake.store.keys()


def test_a_killed_scheduler_is_one_line_and_the_rest_trains_later(fake, dask, monkeypatch):  # noqa: F811
    monkeypatch.setattr(cluster, "CONNECT", 2)
    dask.worker("--no-nanny", "--death-timeout", "1")
    done, waiting = DENSE.replace(epochs=1000), DENSE
    fake.gate(waiting)
    running = InThread(fake.run, [done, waiting], f"dask:{dask.file}", 1)
    fake.started()
    os.kill(dask.scheduler.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="^the scheduler at .* is gone. Everything that is finished is stored.*$"):
        running.result()
    dask.close()
    (fake.folder / f"{waiting.key}.wait").unlink()
    assert fake.run([done, waiting]).attrs["trained"] == 1


def test_a_wrong_address_or_file_is_an_error_at_once(fake):  # noqa: F811
    with socket.socket() as free:  # bound, and nobody listens
        free.bind(("127.0.0.1", 0))
        with pytest.raises(RuntimeError, match="^no scheduler answers at tcp://127.0.0.1:.*refused"):
            fake.run([DENSE], f"dask:tcp://127.0.0.1:{free.getsockname()[1]}")
    (fake.folder / "file").write_text("{}")
    for what, why in (("/nowhere.json", "No such file"), (fake.folder / "file", "is no scheduler file"), ("local:0", "at least one")):
        with pytest.raises(ValueError, match=why):
            fake.run([DENSE], f"dask:{what}")
    assert fake.log() == []


class Offers:
    def __init__(self, *workers):
        self.status, self.workers, self.scheduler = "running", workers, self
        self.address = "tcp://here:1"

    def scheduler_info(self):
        return {"workers": dict(enumerate({"nthreads": n, "resources": r} for n, r in self.workers))}


@pytest.mark.parametrize("workers, wanted", [
    ([], (0, None)), ([(4, {}), (2, {})], (6, None)), ([(4, {"GPU": 1}), (8, {}), (1, {"GPU": 2})], (3, {"GPU": 1})),
])  # fmt: skip
def test_a_training_asks_for_a_gpu_where_workers_offer_some(workers, wanted):
    driver = cluster.Driver(Offers(*workers), None, type("Progress", (), {})(), None, 0)
    assert driver._slots() == wanted


# --- leases over machines ---------------------------------------------------------------------------


@pytest.fixture
def foreign(tmp_path):
    """A lease that another machine holds; its process id is that of none here, and its host name is ours."""
    path = tmp_path / "leases" / "k.json"
    path.parent.mkdir()
    record = {"host": socket.gethostname(), "place": "elsewhere", "pid": 2**22 + 7, "started": "1", "token": "x"}
    path.write_text(json.dumps(record))
    return path


def take(root):
    with leases.lease(root, "k"):
        return True


def test_a_lease_of_another_machine_is_held_while_its_holder_beats(tmp_path, foreign):
    with pytest.raises(leases.Busy):
        take(tmp_path)
    now = foreign.stat().st_mtime
    os.utime(foreign, (now - leases.STALE - 5, now - leases.STALE - 5))
    assert take(tmp_path) and not foreign.exists()


def test_the_clock_that_counts_is_the_disks(tmp_path, foreign, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 9e9)  # this machine is far ahead
    with pytest.raises(leases.Busy):
        take(tmp_path)


def test_a_holder_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "BEAT", 0.01)
    silent, beaten, touch = threading.Event(), threading.Event(), os.utime

    def heard(path, *times):
        touch(path, *times)
        if silent.is_set() and not times:  # a sign of life, since the file was made old
            beaten.set()

    monkeypatch.setattr(os, "utime", heard)
    with leases.lease(tmp_path, "k"):
        path = tmp_path / "leases" / "k.json"
        silent.set()
        touch(path, (1, 1))
        assert beaten.wait(60) and path.stat().st_mtime > 1
        assert not leases.abandoned(tmp_path)


def test_a_process_id_that_was_given_again_is_not_the_holder(tmp_path, foreign):
    record = {"host": "h", "place": leases.machine.place(), "pid": os.getpid(), "started": "1", "token": "x"}
    foreign.write_text(json.dumps(record))
    assert take(tmp_path) == (sys.platform == "linux")


def test_only_the_lease_that_was_judged_dead_is_put_away(tmp_path, foreign):
    newer = json.loads(foreign.read_text()) | {"token": "y"}
    foreign.write_text(json.dumps(newer))  # another process was faster
    leases._put_away(foreign, {"token": "x"})
    assert json.loads(foreign.read_text()) == newer and [p.name for p in foreign.parent.iterdir()] == ["k.json"]


def test_what_another_machine_of_the_same_name_writes_is_not_swept(tmp_path, monkeypatch):
    from sltlib.base import files, machine

    folder, real = tmp_path / "tmp", Path.read_text
    folder.mkdir()
    other = lambda path, *a: "another start" if str(path).endswith("boot_id") else real(path, *a)  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", other)
        patch.setattr(os, "getpid", lambda: 2**22 + 7)
        patch.setattr("uuid.getnode", lambda: 1)
        place, path = machine.place(), files.scratch(folder / "k")
    assert place != machine.place()
    path.write_text("")
    Store(tmp_path)
    assert path.exists()
    old = path.stat().st_mtime - files.DAY - 5
    os.utime(path, (old, old))
    Store(tmp_path)
    assert not path.exists()


# --- claimers ---------------------------------------------------------------------------------------

CLAIM = """
import sys
from sltlib import Experiment
from sltlib.engine import run as engine
from sltlib.engine.store import Store
engine.TRAIN = sys.argv[2]
specs = __import__("json").loads(sys.argv[3])
engine.claim([Experiment.from_spec(spec) for spec in specs], sys.argv[4], 2, store=Store(sys.argv[1]))
"""


def claimer(root, wanted, how="fake_train:train", backend="inline"):
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
    specs = json.dumps([e.spec() for e in wanted])
    return subprocess.Popen([sys.executable, "-c", CLAIM, str(root), how, specs, backend], env=env)


def test_a_claimer_takes_over_what_a_dead_one_held(fake):  # noqa: F811
    held, other = seeds(0, 1)
    fake.gate(held)
    dying = claimer(fake.store.root, [held])
    assert fake.started() == dying.pid
    running = InThread(engine.claim, [held, other], "inline", 1, fake.store)
    dying.kill()
    dying.wait()
    fake.started()
    fake.release(held)
    assert running.result() == 2
    assert sorted(fake.log()) == sorted([held.key, held.key, other.key])


def test_claimers_with_processes_train_everything_once(fake):  # noqa: F811
    wanted = [*seeds(*range(8)), MASK]
    claimers = [claimer(fake.store.root, wanted, backend="processes") for _ in range(2)]
    assert [process.wait() for process in claimers] == [0, 0]
    assert sorted(fake.log()) == sorted({e.key for e in (*wanted, TICKET)}) and leases.taken(fake.store.root) == set()


def test_the_claim_command_says_what_was_missing_and_what_failed(fake, monkeypatch, capfd):  # noqa: F811
    monkeypatch.setenv("SLT_STORE", str(fake.store.root))
    monkeypatch.setattr(plan, "experiments", lambda profile, name: seeds(0, 1) if name == "01_first_ticket" else [])
    needed = {"01_first_ticket": [({"row": "a"}, 1, DENSE.replace(seed=1))]}
    monkeypatch.setattr(plan, "primary", lambda profile, name: needed.get(name, []))
    command = ["--profile", "smoke", "--claim", "--backend", "inline"]
    fake.set(DENSE.replace(seed=0), "fail", "boom")
    assert plan.main(command) == 1
    assert "1 of 1" in (said := capfd.readouterr().err) and "boom" in said
    assert fake.log() == [DENSE.replace(seed=1).key, DENSE.replace(seed=0).key], "what a claim needs comes first"
    (fake.folder / f"{DENSE.replace(seed=0).key}.fail").unlink()
    for missing in (1, 0):
        assert plan.main(command) == 0
        assert f"everything is stored; {missing} trainings were missing at the start" in capfd.readouterr().out
    assert len(fake.log()) == 3


def test_claimers_begin_with_different_trainings_and_long_ones_first():
    wanted = [*seeds(*range(20)), *(e.replace(epochs=3000) for e in seeds(0, 1))]
    orders = []
    for seed in range(2):
        q = queue.Queue(wanted, order=random.Random(seed))
        orders.append([q.take() for _ in wanted])
    assert orders[0] != orders[1] and all({e.epochs for e in order[:2]} == {3000} for order in orders)


def bytes_of(store):
    return {
        path.relative_to(store.root): path.read_bytes()
        for path in sorted(store.root.glob("results/*/*"))
        if path.name not in ("provenance.json", "manifest.json")  # they hold the time
    }


def test_inline_processes_dask_and_two_claimers_leave_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("SLT_COMPILE", "0")  # the compiler takes longer than these trainings
    tiny = {"model": "conv2", "width": 0.25, "image_size": 8, "train_images": 100, "epochs": 1, "batch_size": 50}
    ticket = Experiment("fashion", search="edge-popup", sparsity=0.5, weights="binary", timesteps=2, **tiny)
    wanted = [ticket.replace(search="found-mask-trained", source=ticket.replace(seed=s), seed=s, lr=0.01) for s in range(3)]
    wanted += [Experiment("fashion", neuron="relu", lr=0.01, seed=s, **tiny) for s in range(6)]
    stores = {name: Store(tmp_path / name) for name in ("inline", "processes", "dask", "claim")}
    claimers = [claimer(stores["claim"].root, wanted, engine.TRAIN) for _ in range(2)]
    engine.run(wanted, "inline", store=stores["inline"])
    engine.run(wanted, "processes", 2, store=stores["processes"])
    engine.run(wanted, "dask:local:2", store=stores["dask"])
    assert [process.wait() for process in claimers] == [0, 0]
    first = bytes_of(stores["inline"])
    assert len({path.parent for path in first}) == 12 and any(path.name == "ticket.safetensors" for path in first)
    for name, store in stores.items():
        assert bytes_of(store) == first, name
        assert leases.taken(store.root) == set()


# --- the documented way -------------------------------------------------------------------------------


def test_the_documented_scripts_are_bash_and_name_options_that_exist():
    page = (HERE.parent / "docs" / "cluster.md").read_text()
    scripts = [part.split("```")[0] for part in page.split("```bash\n")[1:]]
    assert len(scripts) == 2
    for script in scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    for command in ("scheduler", "worker"):
        (line,) = [line for line in scripts[1].splitlines() if f"-m dask {command}" in line]
        known = subprocess.run([sys.executable, "-m", "dask", command, "--help"], capture_output=True, text=True, check=True).stdout
        assert all(word in known for word in line.split() if word.startswith("--"))

"""run(): order, backends, failures, kills. Most tests train with `fake_train`, without torch."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from multiprocessing import forkserver
from pathlib import Path

import psutil
import pytest

from sltlib import Experiment
from sltlib.base import machine
from sltlib.base.progress import Trainings
from sltlib.engine import commands, kernels, queue
from sltlib.engine import workers as pool
from sltlib.engine import run as engine
from sltlib.registry import SEARCHES
from sltlib.engine.store import Store

FAKE = "fake_train:train"
HERE = Path(__file__).resolve().parent
DENSE = Experiment("fashion")
TICKET = Experiment("fashion", search="edge-popup", sparsity=0.5)
MASK = TICKET.replace(search="found-mask-trained", source=TICKET)
BACKENDS = ("inline", "processes")


def seeds(*numbers):
    return [DENSE.replace(seed=number) for number in numbers]


class Fake:
    """A store, and the files that steer `fake_train`."""

    def __init__(self, folder):
        self.folder, self.store, self.pids = folder, Store(folder / "store"), None

    def set(self, experiment, what, text=""):
        (self.folder / f"{experiment.key}.{what}").write_text(str(text))

    def gate(self, *experiments):
        """Let these wait in the middle of their training."""
        os.mkfifo(self.folder / "started")
        self.pids = open(os.open(self.folder / "started", os.O_RDWR))  # stays open between two words
        for e in experiments:
            os.mkfifo(self.folder / f"{e.key}.wait")

    def started(self):
        """Wait until one more training waits at its gate; its process id."""
        return int(self.pids.readline())

    def release(self, experiment):
        (self.folder / f"{experiment.key}.wait").write_text("go")

    def log(self, column=0):
        path = self.folder / "log"
        return [line.split()[column] for line in path.read_text().splitlines()] if path.exists() else []

    def run(self, experiments, backend="processes", workers=2):
        return engine.run(experiments, backend, workers, self.store)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "TRAIN", FAKE)
    monkeypatch.setenv("SLT_FAKE", str(tmp_path))
    monkeypatch.syspath_prepend(str(HERE))
    made = Fake(tmp_path)
    yield made
    if made.pids is not None:
        made.pids.close()


class InThread(threading.Thread):
    """A call in a thread; `result()` waits for what it returned or raised."""

    def __init__(self, function, *arguments, **named):
        super().__init__(daemon=True)
        self.call, self.error = (function, arguments, named), None
        self.start()

    def run(self):
        function, arguments, named = self.call
        try:
            self.value = function(*arguments, **named)
        except BaseException as error:
            self.error = error

    def result(self):
        self.join()
        if self.error:
            raise self.error
        return self.value


# --- the table ---------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_for_each_experiment_in_their_order(fake, backend):
    wanted = [*seeds(3, 1), MASK, *seeds(3, 2)]
    table = fake.run(wanted, backend)
    assert table.key.tolist() == [e.key for e in wanted]
    assert table.score.tolist() == [6, 2, 0, 6, 4]
    assert table.rates[0] == {"a": 0.5} and table.lost.isna().all()
    assert table.source.tolist()[2] == TICKET.key and table.source.isna().sum() == 4
    fields = [f.name for f in dataclasses.fields(Experiment)]
    assert list(table.columns[: len(fields) + 1]) == [*fields, "key"]
    assert table.sparsity.tolist() == [0, 0, 0.5, 0, 0]
    assert table.attrs["trained"] == 5 and len(fake.log()) == 5  # the source too, the duplicate once
    again = fake.run(wanted, backend)
    assert again.attrs["trained"] == 0 and len(fake.log()) == 5
    assert again.equals(table)


def test_nothing_wanted_is_an_empty_table(fake):
    table = fake.run([])
    assert len(table) == 0 and "key" in table and table.attrs["trained"] == 0


def test_a_result_that_stands_needs_neither_its_source_nor_its_data(fake, monkeypatch):
    fake.run([MASK])
    fake.store.set_aside(TICKET.key)
    def missing(wanted):
        raise ValueError(f"missing: {wanted}")

    monkeypatch.setattr(engine.data, "check", missing)
    assert fake.run([MASK]).attrs["trained"] == 0
    with pytest.raises(ValueError, match="missing: {'fashion': 300}"):
        fake.run([TICKET, DENSE.replace(train_images=300), DENSE.replace(train_images=200)])


@pytest.mark.parametrize("backend", BACKENDS)
def test_everything_wrong_is_named_before_anything_trains(fake, backend):
    with pytest.raises(ValueError) as caught:
        engine.run([DENSE, "fashion", 3], "threads", -1, fake.store)
    for word in ("experiments[1]='fashion'", "experiments[2]=3", "backend='threads'", "workers=-1"):
        assert word in str(caught.value)
    with pytest.raises(ValueError, match="(?s)fashoin.*mnost"):
        fake.run([DENSE, Experiment("fashoin"), Experiment("mnost")], backend)
    with pytest.raises(ValueError, match="give a list of Experiments"):
        fake.run(DENSE, backend)
    assert fake.log() == [] and not fake.store.root.exists()


def test_dask_without_dask_says_how_to_get_it(fake, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install.*cluster"):
        fake.run([DENSE], "dask:tcp://127.0.0.1:1")


def test_a_stored_result_needs_no_torch(fake):
    fake.run([DENSE])
    code = (
        "import sys; from sltlib import Experiment, run; from sltlib.engine.store import Store;"
        f"t = run([Experiment('fashion')], store=Store({str(fake.store.root)!r}));"
        "assert t.score[0] == 0 and t.attrs['trained'] == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_damaged_result_is_set_aside_and_trained_again(fake, capsys, backend):
    fake.run([DENSE], backend)
    (fake.store.root / "results" / DENSE.key / "history.csv").write_text("")
    assert fake.run([DENSE], backend).attrs["trained"] == 1
    assert "history.csv" in capsys.readouterr().err
    assert len(list((fake.store.root / "broken").iterdir())) == 1


# --- order -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_sources_come_before_what_needs_them_and_long_trainings_before_short(fake, backend):
    short, long = DENSE.replace(epochs=2), DENSE.replace(epochs=30)
    mask = TICKET.replace(search="found-mask-trained", source=TICKET, epochs=1000)
    fake.run([short, long, mask], backend, workers=1)
    assert fake.log() == [e.key for e in (TICKET, mask, long, short)]


def test_a_training_waits_for_its_source(fake):
    mask = MASK.replace(epochs=1000)  # long, so that it would go next
    fake.gate(TICKET, DENSE)
    running = InThread(fake.run, [mask, DENSE])
    fake.started(), fake.started()
    assert sorted(fake.log()) == sorted([TICKET.key, DENSE.key])
    fake.release(DENSE)
    fake.release(TICKET)
    running.result()
    assert fake.log()[2:] == [mask.key]


def test_cost_grows_with_what_takes_time():
    small = Experiment("fashion", model="conv2", width=0.5, image_size=14, train_images=1000, epochs=2)
    for bigger in (
        {"model": "conv4"},
        {"model": "resnet19"},
        {"width": 1.0},
        {"image_size": 28},
        {"image_size": 0},
        {"train_images": 0},
        {"timesteps": 8},
        {"epochs": 3},
    ):
        assert queue.cost(small.replace(**bigger)) > queue.cost(small) > 0, bigger
    assert queue.cost(small.replace(neuron="relu")) < queue.cost(small)
    assert queue.cost(small.replace(neuron="relu", timesteps=8)) == queue.cost(small.replace(neuron="relu"))


# --- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_failing_training_stops_no_other_and_is_named_in_the_end(fake, backend):
    good, bad = seeds(0, 1, 2), seeds(3, 4)
    for e in (*bad, TICKET):
        fake.set(e, "fail", f"boom {e.search}")
    with pytest.raises(RuntimeError) as caught:
        fake.run([*bad, *good, MASK], backend)
    text = str(caught.value)
    assert "4 of 7 trainings failed" in text
    assert all(e.key in text for e in (*bad, TICKET, MASK)) and not any(e.key in text for e in good)
    assert f"its source {TICKET.key} failed" in text
    assert text.count("ValueError: boom none") == 1  # what several share is told once
    assert "in train\n" in text  # the traceback
    assert fake.store.keys() == sorted(e.key for e in good)
    for e in bad:
        (fake.folder / f"{e.key}.fail").unlink()
    assert fake.run([*bad, *good], backend).attrs["trained"] == 2


def test_a_killed_worker_loses_one_training_which_is_tried_again(fake):
    victim, other = seeds(0, 1)
    fake.gate(victim, other)
    running = InThread(fake.run, [victim, other])
    pids = [fake.started(), fake.started()]
    workers = dict(zip(fake.log(0), map(int, fake.log(1)), strict=True))
    assert sorted(pids) == sorted(workers.values())
    os.kill(workers[victim.key], signal.SIGKILL)
    again = fake.started()
    assert again not in pids
    fake.release(victim)
    fake.release(other)
    assert running.result().score.tolist() == [0, 2]
    assert sorted(fake.log()) == sorted([victim.key, victim.key, other.key])


def test_a_training_that_kills_two_workers_is_given_up(fake):
    deadly, *others = seeds(0, 1, 2)
    fake.set(deadly, "die", 9)
    with pytest.raises(RuntimeError, match=f"(?s)1 of 3.*{deadly.key}.*died twice.*exit code -9.*memory"):
        fake.run([deadly, *others])
    assert fake.log().count(deadly.key) == 2
    assert fake.store.keys() == sorted(e.key for e in others)


def test_workers_train_side_by_side_and_serve_again(fake):
    first, second, *rest = seeds(0, 1, 2, 3, 4, 5)
    fake.gate(first, second)
    running = InThread(fake.run, [first, second, *rest])
    assert fake.started() != fake.started()  # both are in the middle at the same time
    fake.release(first)
    fake.release(second)
    running.result()
    assert len(set(fake.log(1))) == 2 and len(fake.log()) == 6
    assert not any(psutil.pid_exists(int(pid)) for pid in fake.log(1))


def test_workers_have_the_settings_of_now_and_the_allocators(fake, monkeypatch):
    for name in machine.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    forkserver._forkserver._stop()  # the next one starts with the settings of now
    monkeypatch.setenv("SLT_WORD", "one")
    before = dict(os.environ)
    fake.run(seeds(0))
    monkeypatch.delenv("SLT_WORD")
    fake.run(seeds(1))
    monkeypatch.setenv("SLT_WORD", "two")
    fake.run(seeds(2))
    assert fake.log(2) == ["one", "None", "two"]
    assert set(fake.log(3)) == {machine.ENVIRONMENT["GLIBC_TUNABLES"]}
    assert dict(os.environ) == before | {"SLT_WORD": "two"}


# --- other processes ---------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_another_process_trains_is_waited_for_last(fake, backend):
    held, other = seeds(0, 1)
    fake.gate(other)
    with fake.store.lease(held.key):
        running = InThread(fake.run, [held, other], backend, workers=1)
        fake.started()  # the other goes on meanwhile
        fake.release(other)
    assert running.result().score.tolist() == [0, 2]
    assert fake.log() == [other.key, held.key]


def test_two_runs_at_once_train_everything_once(fake):
    wanted = seeds(*range(6))
    runs = [InThread(fake.run, wanted, backend) for backend in BACKENDS]
    assert [r.result().score.tolist() for r in runs] == [[0, 2, 4, 6, 8, 10]] * 2
    assert sorted(fake.log()) == sorted(e.key for e in wanted)


SCRIPT = """
import sys
from pathlib import Path
from sltlib import Experiment
from sltlib.engine import run as engine
from sltlib.engine.store import Store

engine.TRAIN = "fake_train:train"
with open(sys.argv[1] + "/ran", "a") as file:
    print("once", file=file)
wanted = [Experiment("fashion", seed=seed) for seed in range(3)]
table = engine.run(wanted, "processes", 2, Store(sys.argv[1] + "/store"))
print("trained", table.attrs["trained"])
"""


def start(fake):
    """A script without an `if __name__` guard, in a process group of its own."""
    script = fake.folder / "script.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join([str(HERE), str(HERE.parent)])
    return subprocess.Popen(
        [sys.executable, str(script), str(fake.folder)],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_script_without_a_guard_runs_once(fake):
    out, err = start(fake).communicate()
    assert out == "trained 3\n" and err == ""
    assert (fake.folder / "ran").read_text() == "once\n"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_its_parent(fake, how):
    done, *waiting = seeds(0, 1, 2)
    fake.gate(*waiting)
    parent = start(fake)
    fake.started(), fake.started()
    family = psutil.Process(parent.pid).children(recursive=True)
    assert len(family) >= 4  # two workers, the fork server, the resource tracker
    if how == signal.SIGINT:
        os.killpg(parent.pid, how)  # as Ctrl-C does: to every process of the terminal
    else:
        parent.send_signal(how)
    _, survivors = psutil.wait_procs(family, timeout=20)
    assert survivors == []
    _, err = parent.communicate()
    assert parent.returncode != 0
    if how == signal.SIGINT:
        assert err.count("Traceback") == 1 and "KeyboardInterrupt" in err and "leaked" not in err
    # The leases of the dead are free, what was finished is kept, and the rest trains now.
    for e in waiting:
        (fake.folder / f"{e.key}.wait").unlink()
    assert fake.run([done, *waiting]).attrs["trained"] == 2


# --- the real train() --------------------------------------------------------------------------


def test_backend_order_and_number_of_workers_change_no_bit(tmp_path, monkeypatch):
    monkeypatch.setenv("SLT_COMPILE", "0")  # the compiler takes longer than these trainings
    tiny = {"model": "conv2", "width": 0.25, "image_size": 8, "train_images": 200, "epochs": 2, "batch_size": 50}
    ticket = Experiment("fashion", search="edge-popup", sparsity=0.5, weights="binary", timesteps=2, **tiny)
    mask = ticket.replace(search="found-mask-trained", source=ticket, lr=0.01)
    dense = Experiment("fashion", neuron="relu", lr=0.01, augment="crop-flip", **tiny)
    wanted = [mask, dense, dense.replace(seed=1)]
    stores = [Store(tmp_path / name) for name in ("a", "b", "c")]
    engine.run(wanted, "inline", store=stores[0])
    engine.run(wanted, "processes", 2, store=stores[1])
    engine.run([wanted[2]], "processes", 1, store=stores[2])
    engine.run(wanted[::-1], "processes", 1, store=stores[2])
    contents = [
        {
            path.relative_to(store.root): path.read_bytes()
            for path in sorted(store.root.glob("results/*/*"))
            if path.name not in ("provenance.json", "manifest.json")  # they hold the time
        }
        for store in stores
    ]
    assert len(contents[0]) >= 4 * 3 and any(path.name == "ticket.safetensors" for path in contents[0])
    assert contents[0] == contents[1] == contents[2]


# --- progress ----------------------------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def simulate(monkeypatch, costs, workers, speed=1.0, startup=2.0, resumed=0.0):
    """Trainings of `costs` seconds, reported every quarter second; (true, told) seconds left."""
    monkeypatch.delenv("SLT_STATUS", raising=False)
    clock = Clock()
    progress = Trainings({str(i): cost for i, cost in enumerate(costs)}, workers, clock)
    todo, active, told = [str(i) for i in range(len(costs))], {}, []
    began = clock.now
    while todo or active:
        while todo and len(active) < workers:
            key = todo.pop(0)
            progress.start(key)
            active[key] = [clock.now + startup, resumed]
        for key, (ready, fraction) in list(active.items()):
            if clock.now < ready:
                continue
            if fraction >= 1:
                progress.done(key)
                del active[key]
            else:
                progress.report(key, fraction * 1000, 1000)
                active[key][1] += 0.25 * speed / costs[int(key)]
        told.append((clock.now, progress.left()))
        clock.now += 0.25
    return [(told[-1][0] - when, left) for when, left in told if when > began + startup + 1]


@pytest.mark.parametrize(
    "case",
    [
        {"costs": [60] * 8, "workers": 2},
        {"costs": [60] * 8, "workers": 2, "speed": 0.1},
        {"costs": [300, 20, 20, 20], "workers": 2},
        {"costs": [5] * 40, "workers": 4, "startup": 5.0},
        {"costs": [600], "workers": 1, "resumed": 0.9},
    ],
)
def test_the_time_left_is_right_from_early_on_and_never_jumps(monkeypatch, case):
    lefts = simulate(monkeypatch, **case)
    whole = lefts[0][0]
    for true, told in lefts:
        assert abs(told - true) < 0.15 * whole + 3, (true, told, case)
    growth = max(later[1] - earlier[1] for earlier, later in zip(lefts, lefts[1:], strict=False))
    assert growth < 0.05 * whole + 1


def test_between_reports_the_time_left_counts_down(monkeypatch):
    clock = Clock()
    progress = Trainings({"a": 100.0}, 1, clock)
    assert progress.left() is None
    progress.start("a")
    progress.report("a", 0, 100)
    clock.now += 10
    progress.report("a", 10, 100)
    assert progress.left() == pytest.approx(90)
    clock.now += 30
    assert progress.left() == pytest.approx(60)
    clock.now += 300
    assert progress.left() == 0


def test_the_status_file_tells_how_far_it_is(fake, monkeypatch):
    status = fake.folder / "status"
    monkeypatch.setenv("SLT_STATUS", str(status))
    first, second = seeds(0, 1)
    fake.gate(second)
    running = InThread(fake.run, [first, second], "inline")
    fake.started()
    middle = json.loads(status.read_text())
    fake.release(second)
    running.result()
    assert (middle["done"], middle["total"]) == (1, 2) and 0.5 <= middle["fraction"] < 1
    assert json.loads(status.read_text()) == {"done": 2, "total": 2, "fraction": 1.0, "left_s": 0.0}
    assert [path.name for path in fake.folder.glob("status*")] == ["status"]


def test_a_status_file_that_cannot_be_written_stops_nothing(fake, monkeypatch):
    monkeypatch.setenv("SLT_STATUS", str(fake.folder / "missing" / "status"))
    assert fake.run([DENSE], "inline").attrs["trained"] == 1


@pytest.mark.parametrize("name", ["CI", "SLT_QUIET", "SLT_STATUS", None])
def test_the_bar_is_quiet_where_it_should_be(fake, monkeypatch, capsys, name):
    for other in ("CI", "SLT_QUIET", "SLT_STATUS"):
        monkeypatch.delenv(other, raising=False)
    if name:
        monkeypatch.setenv(name, str(fake.folder / "status"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fake.run(seeds(0, 1), "inline")
    said = capsys.readouterr().err
    assert ("2/2 trainings" in said) == (name is None) and (name is None or said == "")


# --- command line ------------------------------------------------------------------------------


def test_an_experiment_from_words(fake):
    words = ["dataset=fashion", "width=1", "epochs=3", "affine=true", "neuron=relu", "lr=1e-3"]
    e = commands.parse(words)
    assert e == Experiment("fashion", width=1.0, epochs=3, affine=True, neuron="relu", lr=0.001)
    fake.run([TICKET], "inline")
    words = ["dataset=fashion", "search=found-mask-trained", "sparsity=0.5", f"source={TICKET.key}"]
    assert commands.parse(words, fake.store) == MASK


def test_wrong_words_are_named_all_at_once(fake):
    words = ["epoch=3", "lr=fast", "seed=1.5", "affine=yes", "width", "beta=1", "beta=2", "source=abc"]
    with pytest.raises(ValueError) as caught:
        commands.parse(words, fake.store)
    wrong = ["did you mean epochs", "lr='fast': give a number", "seed='1.5': give a whole number"]
    wrong += ["affine='yes': give true or false", "'width': write field=value", "beta is given twice"]
    wrong += ["source='abc': no such key", "dataset is missing"]
    assert all(text in str(caught.value) for text in wrong), caught.value


def test_the_command_prints_key_metrics_and_ticket(fake, monkeypatch, capsys):
    monkeypatch.setenv("SLT_STORE", str(fake.store.root))
    fake.run([DENSE.replace(seed=4)], "inline")
    assert commands.run_main(["dataset=fashion", "seed=4"]) == 0
    out = capsys.readouterr().out
    assert DENSE.replace(seed=4).key in out and "score" in out and "none: nothing was searched" in out
    with pytest.raises(SystemExit) as exit:
        commands.run_main(["dataset=fashion", "sparsity=1"])
    assert exit.value.code == 2 and "sparsity=1.0" in capsys.readouterr().err


def mine(model, experiment, data, found):
    """A search of this process."""


def test_what_is_a_function_of_this_process_runs_in_it(fake, monkeypatch):
    monkeypatch.setitem(SEARCHES, "mine", mine)
    own = TICKET.replace(search="mine")
    for backend in ("processes", "dask:somewhere"):
        with pytest.raises(ValueError, match="search 'mine' was added in this process.*inline"):
            fake.run([DENSE, own], backend)
    table = fake.run([own], "auto")
    assert table.attrs["trained"] == 1
    assert {int(pid) for pid in fake.log(1)} == {os.getpid()}


# --- failures that one line explains --------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_foreseen_failures_are_told_in_one_line_each(fake, backend):
    full, endless, strange = seeds(0, 1, 2)
    fake.set(full, "full")
    fake.set(endless, "foreseen", "the loss is not finite after epoch 0: lower lr=9")
    fake.set(strange, "fail", "boom")
    with pytest.raises(RuntimeError) as caught:
        fake.run([full, endless, strange], backend)
    *foreseen, last = str(caught.value).split("\n\n")[1:]
    parts = {part.split("\n")[0].split()[0]: part.split("\n")[1:] for part in [*foreseen, last]}
    assert parts[endless.key] == ["the loss is not finite after epoch 0: lower lr=9"]
    (line,) = parts[full.key]
    assert line.startswith("[Errno 28] No space left on device: ")
    assert parts[strange.key][0].startswith("Traceback") and parts[strange.key][-1] == "ValueError: boom"


def test_a_fork_server_that_dies_at_its_start_is_told_in_one_line(fake, monkeypatch):
    (fake.folder / "deadly.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.setenv("PYTHONPATH", str(fake.folder))
    monkeypatch.setattr(pool, "PRELOAD", ["deadly"])
    forkserver._forkserver._stop()
    try:
        with pytest.raises(RuntimeError, match="^the process that workers are forked from died at its start.*inline'$"):
            fake.run([DENSE])
    finally:
        forkserver._forkserver._stop()
    monkeypatch.undo()
    assert fake.log() == []


def test_a_fork_server_that_was_killed_is_started_again(fake, monkeypatch):
    monkeypatch.setattr(pool, "PRELOAD", ["json"])  # quick to start
    forkserver._forkserver._stop()
    fake.run(seeds(0))
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
    assert fake.run(seeds(1)).attrs["trained"] == 1
    forkserver._forkserver._stop()


def test_a_run_seals_the_kernels_that_it_compiled_and_drops_damaged_ones(fake, monkeypatch, capfd):
    monkeypatch.delenv(kernels.VARIABLE)
    folder = kernels.folder(fake.store.root)
    fake.set(DENSE, "compile")
    fake.run([DENSE])
    assert kernels.unsealed(folder) == [] and (folder / "kernel.so").read_text() == DENSE.key
    (folder / "kernel.so").write_text("x")
    fake.run(seeds(1))
    assert not (folder / "kernel.so").exists() and "compiled again" in capfd.readouterr().err


# --- the command line in a process of its own --------------------------------------------------------


def command(*words, code=None, **env):
    start = ["-c", code] if code else ["-m", "sltlib"]
    env = {k: v for k, v in os.environ.items() if k not in machine.ENVIRONMENT} | {"PYTHONPATH": str(HERE.parent)} | env
    return subprocess.run([sys.executable, *start, *words], env=env, capture_output=True, text=True, cwd="/")


def test_a_reader_that_has_enough_is_no_error(fake):
    for e in seeds(*range(40)):
        fake.store.publish(e, {})
    line = f"{sys.executable} -m sltlib list | head -1; echo ${{PIPESTATUS[0]}}"
    env = os.environ | {"PYTHONPATH": str(HERE.parent), "SLT_STORE": str(fake.store.root), "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(["bash", "-c", line], env=env, capture_output=True, text=True)
    first, status = done.stdout.splitlines()
    assert done.stderr == "" and status == "0" and first.split()[0] in fake.store.keys()


def test_the_interpreters_options_survive_the_new_start(fake):
    done = subprocess.run(
        [sys.executable, "-P", "-X", "importtime", "-m", "sltlib", "list"],
        env={k: v for k, v in os.environ.items() if k not in machine.ENVIRONMENT} | {"PYTHONPATH": str(HERE.parent)},
        capture_output=True, text=True, cwd=fake.folder,
    )  # fmt: skip
    assert done.stderr.count("import time: self") == 2, "once before, once after"


def test_on_another_system_a_command_says_so_first(fake):
    code = "import sys; sys.platform = 'win32'; from sltlib.__main__ import main; sys.exit(main(['list']))"
    done = command(code=code)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: sltlib runs on Linux and macOS") and done.stderr.count("\n") == 1


def test_on_another_system_nothing_is_opened_or_trained(fake, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    for call in (Store, lambda: engine.run([DENSE])):
        with pytest.raises(RuntimeError, match="Linux and macOS"):
            call()
    assert fake.log() == []

"""The store: what is read back is what was written, or an error; never something else."""

import contextlib
import dataclasses
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import disk_full_after
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sltlib import Experiment
from sltlib.base import files, paths
from sltlib.engine import checkpoints, commands, doctor, kernels, queue, store
from sltlib.engine.checkpoints import Checkpoint
from sltlib.engine.store import BrokenResult, Busy, Store

TICKET = Experiment("fashion", search="edge-popup", sparsity=0.5)
METRICS = {"test_accuracy": 81.25, "rates": {"a": 0.1, "b": [1, 2]}, "note": "ü"}
HISTORY = [{"epoch": 0, "loss": 0.1 + 0.2}, {"epoch": 1, "loss": 1e-30, "extra": 3}]
FILES = ("manifest.json", "experiment.json", "metrics.json", "history.csv", "provenance.json", store.TICKET)


def write_ticket(path):
    path.write_bytes(b"ticket" * 50)


def publish(where, experiment=TICKET, metrics=METRICS):
    return where.publish(experiment, metrics, HISTORY, {"device": "cpu"}, write_ticket)


@pytest.fixture
def here(tmp_path):
    return Store(tmp_path / "store")


def save(where, key, tensors, meta):
    checkpoints.write(checkpoints.path_of(where.root, key), key, tensors, meta)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- results -----------------------------------------------------------------------------------


def test_what_is_published_comes_back(here):
    assert here.get(TICKET) is None
    written, read = publish(here), Store(here.root).get(TICKET)
    assert written == read
    assert (read.metrics, read.history, read.provenance) == (METRICS, HISTORY, {"device": "cpu"})
    assert read.ticket_path.read_bytes() == b"ticket" * 50
    assert here.keys() == [TICKET.key]
    assert sorted(files_of(read.path)) == sorted(FILES)
    assert json.loads((read.path / "experiment.json").read_text()) == TICKET.spec()


def test_opening_a_store_makes_no_folder(here):
    assert here.get(TICKET) is None and here.keys() == [] and not here.root.exists()


def test_numbers_of_numpy_and_torch_become_plain_and_what_is_not_finite_none(here):
    metrics = {"a": torch.tensor(0.5), "b": np.float64("nan"), "c": [np.int64(3), float("inf")]}
    result = here.publish(TICKET, metrics, [{"x": np.float32(0.5), "y": float("nan")}])
    assert result.metrics == {"a": 0.5, "b": None, "c": [3, None]}
    assert result.history == [{"x": 0.5}]


def test_a_dense_result_has_no_ticket(here):
    result = here.publish(Experiment("fashion"), METRICS)
    assert result.ticket_path is None
    with pytest.raises(ValueError, match="'none'"):
        result.ticket()


def test_a_metric_named_like_a_field_is_refused(here):
    with pytest.raises(ValueError, match="key, sparsity"):
        publish(here, metrics={"sparsity": 1, "key": 2, "fine": 3})
    assert not here.root.exists()


def test_fields_that_the_training_does_not_read_may_differ(here):
    relu = Experiment("fashion", neuron="relu")
    here.publish(relu, METRICS)
    assert here.get(relu.replace(beta=0.5)).metrics == METRICS


@contextlib.contextmanager
def flipped(path, place, bit):
    """A file with one bit the other way round, for a while; place is in 0..1."""
    sound = path.read_bytes()
    raw = bytearray(sound)
    raw[int(place * len(raw))] ^= 1 << bit
    path.write_bytes(raw)
    yield
    path.write_bytes(sound)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    where = Store(tmp_path_factory.mktemp("shared"))
    publish(where)
    save(where, "k", {"a": torch.arange(6.0), "b": torch.ones(3, dtype=torch.int64)}, {"step": 3})
    return where


@pytest.mark.parametrize("name", FILES)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found(shared, name, place, bit):
    with flipped(shared.root / "results" / TICKET.key / name, place, bit):
        with pytest.raises(BrokenResult, match="doctor --fix"):
            shared.get(TICKET)
    assert shared.get(TICKET).metrics == METRICS


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "longer", "empty", "removed"])
def test_a_damaged_file_is_named(here, name, damage):
    path = publish(here).path / name
    raw = path.read_bytes()
    path.write_bytes({"truncated": raw[:-2], "longer": raw + b"\n\n}", "empty": b""}.get(damage, raw))
    if damage == "removed":
        path.unlink()
    with pytest.raises(BrokenResult, match=name):
        here.get(TICKET)


def test_a_result_under_another_name_is_refused(here):
    result = publish(here)
    other = TICKET.replace(seed=1)
    moved = result.path.rename(result.path.parent / other.key)
    with pytest.raises(BrokenResult, match=f"is of {TICKET.key}"):
        here.get(other)
    manifest = json.loads((moved / "manifest.json").read_text()) | {"key": other.key}
    (moved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BrokenResult, match="another experiment"):
        here.get(other)


def test_the_first_writer_wins(here):
    first = publish(here)
    second = publish(here, metrics={"test_accuracy": 0.0})
    assert second == first and here.get(TICKET).metrics == METRICS
    assert list((here.root / "tmp").iterdir()) == []


def test_a_damaged_result_gives_way_to_a_new_one(here):
    (publish(here).path / "metrics.json").write_text("{}")
    assert publish(here, metrics={"test_accuracy": 1.0}).metrics == {"test_accuracy": 1.0}
    assert (here.root / "broken" / f"{TICKET.key}.1" / "metrics.json").read_text() == "{}"


def test_many_writers_at_once_leave_one_result(here):
    results, together = [], threading.Barrier(8)

    def write(number):
        together.wait()
        results.append(publish(here, metrics={"test_accuracy": number}))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8 and all(result == here.get(TICKET) for result in results)
    assert list((here.root / "tmp").iterdir()) == []


class Killed(BaseException):
    """Stands for kill -9: nothing cleans up behind it."""


@contextlib.contextmanager
def killed_at(monkeypatch, call):
    """Die at the n-th time that a file reaches the disk or gets its name."""
    count = 0

    def dying(function):
        def counted(*arguments):
            nonlocal count
            count += 1
            if count == call:
                raise Killed
            return function(*arguments)

        return counted

    with monkeypatch.context() as patch:
        for name in ("fsync", "rename", "replace"):
            patch.setattr(os, name, dying(getattr(os, name)))
        patch.setattr(files, "remove", lambda path: None)
        with contextlib.suppress(Killed):
            yield
    if count < call:
        raise EOFError  # it came to its end


def test_a_kill_anywhere_leaves_all_or_nothing(tmp_path, monkeypatch):
    outcomes = []
    with contextlib.suppress(EOFError):
        for call in range(1, 100):
            where = Store(tmp_path / str(call))
            with killed_at(monkeypatch, call):
                publish(where)
            found = where.get(TICKET)  # BrokenResult would fail this test
            assert found is None or (found.metrics, found.history) == (METRICS, HISTORY)
            outcomes.append(found is not None)
    assert len(outcomes) >= len(FILES) + 2 and outcomes == sorted(outcomes) and outcomes[-1]


KILLED_WHILE_PUBLISHING = """
import os, signal, sys
from sltlib import Experiment
from sltlib.engine.store import Store
here = Store(sys.argv[1])
here.publish(Experiment("fashion"), {}, ticket_writer=lambda path: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_leftovers_of_the_dead_are_swept_and_those_of_the_living_kept(here):
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_PUBLISHING, str(here.root)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(files.leftovers(here.root / "tmp")) == 1 and here.keys() == []

    def look(path):
        Store(here.root)
        assert path.parent.is_dir() and [path.parent] == list((here.root / "tmp").iterdir())
        write_ticket(path)

    here.publish(TICKET, METRICS, ticket_writer=look)
    assert files.leftovers(here.root / "tmp") == []


def test_a_full_disk_is_an_error_that_names_the_path(here):
    with disk_full_after(4096), pytest.raises(OSError, match=f"File too large.*{here.root}"):
        here.publish(TICKET, {"long": list(range(10000))})
    assert here.get(TICKET) is None and list((here.root / "tmp").iterdir()) == []


# --- leases ------------------------------------------------------------------------------------


def test_a_lease_is_held_by_one_at_a_time(here):
    with here.lease("k"):
        with pytest.raises(Busy, match=f"k is being trained by process {os.getpid()} on"):
            with Store(here.root).lease("k"):
                pass
        with here.lease("other"):
            pass
    with here.lease("k"):
        pass


def test_waiting_for_a_lease_ends_with_it(here):
    order, asking = [], threading.Event()

    def wait():
        asking.set()
        with here.lease("k", wait=True):
            order.append("second")

    with here.lease("k"):
        thread = threading.Thread(target=wait)
        thread.start()
        asking.wait()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


HOLDS_A_LEASE = """
import sys
from sltlib.engine.store import Store
with Store(sys.argv[1]).lease("k"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_lease_of_a_dead_holder_is_free(here):
    command = [sys.executable, "-c", HOLDS_A_LEASE, str(here.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Busy, match=f"process {holder.pid} "), here.lease("k"):
            pass
        holder.kill()
    assert (here.root / "leases" / "k.json").is_file()
    with here.lease("k"):
        pass
    assert not (here.root / "leases" / "k.json").exists()


# --- checkpoints -------------------------------------------------------------------------------


def tensors():
    weight = torch.arange(12.0).reshape(3, 4)
    return {
        "weight": weight,
        "view": weight[1:],
        "transposed": weight.t(),
        "channels": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "half": weight.bfloat16(),
        "number": torch.tensor(3),
        "mask": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "generator": torch.Generator().get_state(),
        "nan": torch.tensor([float("nan"), -0.0]),
        "grad": torch.ones(2, requires_grad=True),
    }


def bits(loaded):
    return {
        name: (t.dtype, tuple(t.shape), t.contiguous().reshape(-1).view(torch.uint8).tolist())
        for name, t in loaded.items()
    }


META = {"step": 7, "history": HISTORY, "nested": {"a": [1, None, "ü"]}}


def test_a_checkpoint_comes_back_bit_by_bit(here):
    assert checkpoints.load(here, "k") is None
    saved = tensors()
    save(here, "k", saved, META)
    loaded, meta = checkpoints.load(here, "k")
    assert meta == META
    assert bits(loaded) == bits({name: t.detach() for name, t in saved.items()})
    loaded["weight"].add_(1)  # it can be written to
    Checkpoint(here, "k").drop()
    Checkpoint(here, "k").drop()
    assert checkpoints.load(here, "k") is None


def test_a_checkpoint_is_a_safetensors_file_of_stable_bytes(here):
    from safetensors import safe_open

    saved = {"b": torch.ones(3), "a": torch.zeros(2, 2)}
    save(here, "k", saved, {"x": 1, "y": 2})
    raw = checkpoints.path_of(here.root, "k").read_bytes()
    with safe_open(checkpoints.path_of(here.root, "k"), "pt") as file:
        assert sorted(file.keys()) == ["a", "b"] and list(file.metadata()) == ["slt"]
    save(here, "k", dict(reversed(saved.items())), {"y": 2, "x": 1})
    assert checkpoints.path_of(here.root, "k").read_bytes() == raw


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=300)
def test_a_flipped_bit_in_a_checkpoint_never_loads(shared, place, bit):
    path = checkpoints.path_of(shared.root, "k")
    with flipped(path, place, bit):
        assert checkpoints.load(shared, "k") is None
        assert not path.exists()
    assert checkpoints.load(shared, "k")[1] == {"step": 3}


@pytest.mark.parametrize("damage", ["truncated", "longer", "empty", "of another key", "without our hash"])
def test_a_damaged_checkpoint_is_set_aside_and_said_once(here, capsys, damage):
    from safetensors.torch import save as pack

    save(here, "k", {"a": torch.arange(6.0)}, {})
    path = checkpoints.path_of(here.root, "k")
    raw = path.read_bytes()
    if damage == "of another key":
        save(here, "j", {"a": torch.arange(6.0)}, {})
        path.write_bytes(checkpoints.path_of(here.root, "j").read_bytes())
    else:
        foreign = pack({"a": torch.arange(6.0)})
        others = {"truncated": raw[:-1], "longer": raw + b"0", "empty": b"", "without our hash": foreign}
        path.write_bytes(others[damage])
    assert checkpoints.load(here, "k") is None and checkpoints.load(here, "k") is None
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(path) in said and "starting from the beginning" in said
    assert [p.name for p in (here.root / "broken").iterdir()] == ["k.safetensors.1"]


def test_a_kill_while_saving_leaves_the_old_checkpoint_or_the_new(tmp_path, monkeypatch, capsys):
    steps = []
    with contextlib.suppress(EOFError):
        for call in range(1, 100):
            where = Store(tmp_path / str(call))
            save(where, "k", {"a": torch.zeros(3)}, {"step": 0})
            with killed_at(monkeypatch, call):
                save(where, "k", {"a": torch.ones(3)}, {"step": 1})
            loaded, meta = checkpoints.load(where, "k")
            assert loaded["a"].tolist() == [meta["step"]] * 3
            steps.append(meta["step"])
    assert len(steps) == 3 and steps == sorted(steps) and steps[-1] == 1
    assert capsys.readouterr().err == ""


def test_a_full_disk_keeps_the_old_checkpoint(here):
    save(here, "k", {"a": torch.zeros(3)}, {"step": 0})
    with disk_full_after(4096), pytest.raises(OSError, match=f"File too large.*{here.root}"):
        save(here, "k", {"a": torch.ones(10000)}, {"step": 1})
    assert checkpoints.load(here, "k")[1] == {"step": 0}
    assert list((here.root / "tmp").iterdir()) == []


# --- command line ------------------------------------------------------------------------------


@pytest.fixture
def damaged(here, tmp_path, monkeypatch):
    """A store and DVC files with one of each damage, beside sound ones."""
    monkeypatch.setenv("SLT_STORE", str(here.root))
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    publish(here)
    broken = TICKET.replace(seed=1)
    (publish(here, broken).path / "history.csv").write_text("x")
    save(here, "sound", {"a": torch.zeros(3)}, {})
    checkpoints.path_of(here.root, "torn").write_bytes(b"123")
    with here.lease("dead"):
        note = here.root / "leases" / "dead.json"
        record = json.loads(note.read_text())
    note.write_text(json.dumps(record | {"pid": 2**22 + 7}))  # no process has this number
    subprocess.run([sys.executable, "-c", KILLED_WHILE_PUBLISHING, str(here.root)], check=False)
    (tmp_path / ".git").mkdir()
    files = [".dvc/tmp/rwlock", "dvc.lock", "smoke/dvc.lock", "paper/dvc.lock"]
    for name, text in zip(files, ["", "stages: {a: [", "stages:\n  a: {}\n", "\0"], strict=True):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    bad = [str(broken.key), "torn.safetensors", "dead.json", "tmp/", "rwlock", "/dvc.lock", "paper/dvc.lock"]
    return here, bad


def test_doctor_explains_and_repairs(damaged, capsys):
    here, bad = damaged
    with here.lease("living"):
        assert doctor.main([]) == 1
        said = capsys.readouterr().out
        assert "7 found" in said and all(name in said for name in bad)
        assert "sound" not in said and "smoke" not in said and "living" not in said
        assert doctor.main([]) == 1  # looking repairs nothing
        capsys.readouterr()
        assert doctor.main(["--fix"]) == 0
        said = capsys.readouterr().out
        assert all(name in said for name in bad)
        assert doctor.main([]) == 0
        assert capsys.readouterr().out == "nothing is wrong\n"
    assert here.keys() == [TICKET.key] and checkpoints.load(here, "sound")


def test_list_shows_sound_and_broken_results(damaged, capsys):
    here, _ = damaged
    assert commands.list_main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    sound = next(line for line in lines if line.startswith(TICKET.key))
    assert "81.25" in sound and "search=edge-popup sparsity=0.5" in sound
    assert "BROKEN" in next(line for line in lines if line != sound)


def test_reading_results_imports_no_torch(here):
    publish(here)
    code = (
        "import sys; from sltlib import Experiment; from sltlib.engine.store import Store;"
        "e = Experiment('fashion', search='edge-popup', sparsity=0.5);"
        f"assert Store({str(here.root)!r}).get(e); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_field_is_compared(here):
    """A field that the stored spec gets wrong shows, whichever it is."""
    publish(here)
    path = here.root / "results" / TICKET.key
    changes = {"seed": 5, "width": 0.5, "neuron": "sign", "epochs": 3}
    assert changes.keys() <= {f.name for f in dataclasses.fields(Experiment)}
    for name, value in changes.items():
        text = json.dumps(TICKET.spec() | {name: value})
        (path / "experiment.json").write_text(text)
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["files"]["experiment.json"] = files.sha256(text.encode())
        (path / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(BrokenResult, match="another experiment"):
            here.get(TICKET)


def test_a_result_of_somebodys_own_search_is_sound(here, monkeypatch, capsys):
    from sltlib.registry import SEARCHES

    monkeypatch.setitem(SEARCHES, "theirs", "sltlib.pruning:dense")
    monkeypatch.setenv("SLT_STORE", str(here.root))
    experiment = TICKET.replace(search="theirs")
    here.publish(experiment, {"val_accuracy": 1.0})
    monkeypatch.delitem(SEARCHES, "theirs")
    with pytest.raises(store.UnknownExperiment, match="theirs"):
        here.read(here.keys()[0])
    assert doctor.examine(here) == []
    commands.list_main([])
    assert "BROKEN" not in capsys.readouterr().out


# --- unreadable is not damaged ------------------------------------------------------------------


@contextlib.contextmanager
def no_free_handles():
    """This process may open no further file, as when it holds too many (EMFILE)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/dev/fd"))
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 3, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open("/", os.O_RDONLY))
        yield
    finally:
        for handle in held:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_free_handles_nothing_is_called_damaged(here):
    publish(here)
    with no_free_handles(), pytest.raises(OSError, match="cannot be read now, which is no damage.*Too many open files"):
        here.get(TICKET)
    assert here.get(TICKET).metrics == METRICS and not (here.root / "broken").exists()


def test_without_the_right_to_read_nothing_is_called_damaged(here, monkeypatch):
    result = publish(here)
    real = Path.read_bytes

    def refuse(path):
        if path.name == "metrics.json":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setenv("SLT_STORE", str(here.root))
    for look in (lambda: here.get(TICKET), lambda: queue.missing([TICKET], here), lambda: doctor.main(["--fix"])):
        with pytest.raises(OSError, match=f"no damage.*{result.path}/metrics.json"):
            look()
    monkeypatch.undo()
    assert here.get(TICKET).metrics == METRICS and not (here.root / "broken").exists()


def test_a_read_only_store_with_a_leftover_is_listed_and_read(here, monkeypatch, capsys):
    publish(here)
    subprocess.run([sys.executable, "-c", KILLED_WHILE_PUBLISHING, str(here.root)], check=False)
    (left,) = files.leftovers(here.root / "tmp")  # a folder; and a file, as a checkpoint leaves it
    left.with_name("f" * 20 + left.name[20:]).write_text("")
    assert len(files.leftovers(here.root / "tmp")) == 2

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("unlink", "rmdir", "mkdir", "rename", "replace"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setenv("SLT_STORE", str(here.root))
    assert Store(here.root).get(TICKET).metrics == METRICS
    assert commands.list_main([]) == 0
    assert TICKET.key in capsys.readouterr().out and len(files.leftovers(here.root / "tmp")) == 2


def test_a_result_that_is_set_aside_while_it_is_read_is_absent(here, monkeypatch):
    publish(here)
    real = Path.read_bytes

    def meanwhile(path):
        if path.name == "metrics.json":
            Store(here.root).set_aside(TICKET.key)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", meanwhile)
    assert here.get(TICKET) is None


# --- other versions -------------------------------------------------------------------------------


def rewrite(path, spec):
    """Write another description into a result, with its right hash."""
    text = json.dumps(spec)
    (path / "experiment.json").write_text(text)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["experiment.json"] = files.sha256(text.encode())
    (path / "manifest.json").write_text(json.dumps(manifest))


MASK = TICKET.replace(search="found-mask-trained", source=TICKET)


def test_a_result_of_newer_code_with_a_new_field_at_its_default_is_used(here):
    path = publish(here, MASK).path
    rewrite(path, MASK.spec() | {"novelty": 0, "source": TICKET.spec() | {"novelty": 0}})
    assert here.get(MASK).experiment == MASK


def test_a_result_that_only_newer_code_knows_is_skipped_with_a_line(here, monkeypatch, capsys):
    monkeypatch.setenv("SLT_STORE", str(here.root))
    publish(here)
    path = publish(here, TICKET.replace(seed=1)).path
    newer = path.rename(path.parent / "0123456789abcdef0123")
    rewrite(newer, TICKET.replace(seed=1).spec() | {"novelty": 7})
    manifest = json.loads((newer / "manifest.json").read_text()) | {"key": newer.name}
    (newer / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(store.UnknownExperiment, match="novelty"):
        here.read(newer.name)
    assert commands.list_main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and "novelty" in next(line for line in lines if line.startswith(newer.name))
    assert doctor.main(["--fix"]) == 0
    said = capsys.readouterr().out
    assert said.count("novelty") == 1 and said.endswith("nothing is wrong\n") and newer.is_dir()
    with pytest.raises(ValueError, match="source='0123456789abcdef0123': .*novelty"):
        commands.parse(["dataset=fashion", "search=found-mask-trained", "sparsity=0.5", f"source={newer.name}"], here)
    assert queue.missing([TICKET, TICKET.replace(seed=1)], here) == [TICKET.replace(seed=1)]  # trained under its own key


@pytest.mark.parametrize("source", [".", "..", "", "a/b", "/", "\0"])
def test_a_source_that_is_no_key_is_refused_in_one_line(here, source):
    publish(here)
    with pytest.raises(ValueError) as caught:
        commands.parse(["dataset=fashion", f"source={source}"], here)
    assert f"source={source!r}: {source!r} is no key of a result" in str(caught.value) and "\n" not in str(caught.value)


def test_a_damaged_source_is_refused_in_one_line(here):
    (publish(here).path / "metrics.json").write_text("")
    with pytest.raises(ValueError, match="metrics.json does not match.*doctor --fix"):
        commands.parse(["dataset=fashion", f"source={TICKET.key}"], here)


# --- strange places -------------------------------------------------------------------------------


def test_a_store_that_is_a_file_is_refused_by_every_command(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SLT_STORE", str(tmp_path / "file"))
    for call in (Store, lambda: commands.list_main([]), lambda: doctor.main([])):
        with pytest.raises(OSError, match=f"the store {tmp_path}/file is a file"):
            call()


def test_a_file_where_a_results_folder_should_be_gives_way(here):
    (here.root / "results").mkdir(parents=True)
    (here.root / "results" / TICKET.key).write_text("what?")
    with pytest.raises(BrokenResult, match="Not a directory"):
        here.get(TICKET)
    assert publish(here).metrics == METRICS
    assert (here.root / "broken" / f"{TICKET.key}.1").read_text() == "what?"
    (here.root / "results" / ".DS_Store").write_text("")
    assert here.keys() == [TICKET.key]


# --- what a checkpoint is of ------------------------------------------------------------------------


class Model(torch.nn.Linear):
    def __init__(self):
        super().__init__(2, 2)


def saved(where, **made_by):
    model = Model()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    Checkpoint(where, "k", made_by).save(3, model, optimizer, HISTORY)
    return model, optimizer


def test_a_training_is_kept_whole(here):
    model, optimizer = saved(here, code="a")
    step, history, weights, state = Checkpoint(here, "k", {"code": "a"}).load()
    assert (step, history) == (3, HISTORY) and bits(weights) == bits(model.state_dict())
    kept = optimizer.state_dict()["state"]
    assert state.keys() == kept.keys() and all(bits(state[i]) == bits(kept[i]) for i in kept)


@pytest.mark.parametrize("other", [{"code": "b"}, {"versions": {"torch": "9"}}, {"device": "gpu"}])
def test_a_checkpoint_of_other_code_versions_or_device_is_not_resumed(here, capsys, other):
    mine = {"code": "a", "versions": {"torch": "2"}, "device": "cpu"}
    saved(here, **mine | other)
    assert Checkpoint(here, "k", mine).load() is None
    said = capsys.readouterr().err
    assert f"made by other {next(iter(other))}" in said and said.count("\n") == 1


def test_a_full_disk_at_a_checkpoint_ends_no_training(here, capsys):
    saved(here)
    model = torch.nn.Linear(100, 100)
    with disk_full_after(4096):
        Checkpoint(here, "k").save(7, model, torch.optim.SGD(model.parameters()), [])
    said = capsys.readouterr().err
    assert "checkpoint not saved at step 7, the training goes on" in said and said.count("\n") == 1
    assert Checkpoint(here, "k", {}).load()[0] == 3
    assert list((here.root / "tmp").iterdir()) == []


# --- compiled kernels ---------------------------------------------------------------------------


@pytest.fixture
def compiled(here):
    path = kernels.folder(here.root)
    with kernels.guarded(path):
        (path / "aa").mkdir()
        (path / "aa" / "kernel.so").write_bytes(b"code")
        (path / "aa" / "kernel.lock").write_bytes(b"")
    return path


def test_kernels_stay_while_they_are_as_they_were_sealed(compiled, capsys):
    with kernels.guarded(compiled):
        assert (compiled / "aa" / "kernel.so").read_bytes() == b"code"
    assert kernels.unsealed(compiled) == [] and capsys.readouterr().err == ""


@pytest.mark.parametrize("damage", ["bit", "added", "gone", "no seal", "seal"])
def test_kernels_that_are_not_as_they_were_sealed_are_never_used(compiled, capsys, damage):
    so, seal = compiled / "aa" / "kernel.so", compiled / kernels.SEAL
    if damage == "bit":
        so.write_bytes(b"codd")
    elif damage == "added":  # by a process that was killed
        (compiled / "more.so").write_bytes(b"half")
    elif damage == "seal":
        seal.write_text("{")
    else:
        (so if damage == "gone" else seal).unlink()
    with kernels.guarded(compiled):
        assert list(compiled.rglob("*.so")) == []
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert ("left by a run that was broken off" if "seal" in damage or damage == "added" else "not as they were sealed") in said


def test_kernels_in_use_by_another_run_are_left_alone(compiled):
    with kernels.guarded(compiled):
        (compiled / "new.so").write_bytes(b"new")
        with kernels.guarded(compiled):
            assert (compiled / "new.so").exists()
        assert kernels.unsealed(compiled) == ["new.so"]  # the last one seals
    assert kernels.unsealed(compiled) == []


def test_what_an_interrupted_run_compiled_is_not_sealed(compiled):
    with contextlib.suppress(KeyboardInterrupt), kernels.guarded(compiled):
        (compiled / "half.so").write_bytes(b"ha")
        raise KeyboardInterrupt
    assert kernels.unsealed(compiled) == ["half.so"]


def test_doctor_finds_damaged_kernels_and_arrays_and_what_a_killed_training_left(here, compiled, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SLT_STORE", str(here.root))
    monkeypatch.setenv("SLT_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    publish(here)
    save(here, TICKET.key, {"a": torch.zeros(3)}, {})  # killed between publishing and dropping
    (compiled / "aa" / "kernel.so").write_bytes(b"codd")
    (tmp_path / "data/frames/set/one").mkdir(parents=True)
    (tmp_path / ".dvc").mkdir()  # a download without .git
    assert doctor.main([]) == 1
    said = capsys.readouterr().out
    for words in ("4 found", "of a finished training", "1 damaged compiled kernels (aa/kernel.so", "data/frames/set/one: ", "no git repository"):
        assert words in said
    assert doctor.main(["--fix"]) == 0 and doctor.main([]) == 0
    assert capsys.readouterr().out.endswith("nothing is wrong\n")
    assert here.get(TICKET) and not compiled.exists()


@pytest.mark.parametrize("name", ["with space", "quote'd", "$dollar", "ünïcode", "plain"])
def test_the_compiler_is_given_a_path_that_it_can_read(tmp_path, name):
    path = kernels.folder(tmp_path / name)
    assert all(c.isascii() and (c.isalnum() or c in "/._-") for c in str(path))
    assert path.is_relative_to(tmp_path) == (name == "plain")
    assert path != kernels.folder(tmp_path / f"{name}2") and path == kernels.folder(tmp_path / name)

"""Results of trainings on disk: published atomically, verified whenever they are read.

    results/<key>/      experiment.json metrics.json history.csv provenance.json ticket.safetensors,
                        and manifest.json with the sha256 of each
    checkpoints/<key>.safetensors     where a training stands
    leases/<key>.lock, <key>.json     who is training it
    tmp/ broken/                      files being written · what was set aside as damaged

Done means that the manifest parses and every hash matches, never that a file exists.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import itertools
import json
import math
import os
import secrets
import shutil
import socket
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from sltlib.base import paths
from sltlib.experiment import Experiment

MANIFEST = "manifest.json"
TICKET = "ticket.safetensors"
FILES = ("experiment.json", "metrics.json", "history.csv", "provenance.json")


class BrokenResult(Exception):
    """A stored result is damaged, or not the one that its name says; the text has file and repair."""


class UnknownExperiment(Exception):
    """A sound result of a search, neuron or model that this process does not know."""


class Busy(Exception):
    """Another live process is training this experiment."""


@dataclass(frozen=True)
class Result:
    """What an Experiment left in the Store.

    metrics : plain JSON values; a number that was not finite is None.
    history : one dict of numbers for each line of the learning curve.
    provenance : device, threads, versions, times.
    ticket_path : the safetensors file, None where nothing was searched.
    """

    experiment: Experiment
    key: str
    path: Path
    metrics: dict
    history: list[dict]
    provenance: dict
    ticket_path: Path | None

    def ticket(self):
        """The found `Ticket`; ValueError where the experiment was no search."""
        if self.ticket_path is None:
            raise ValueError(f"result {self.key} has no ticket: its search is {self.experiment.search!r}")
        from sltlib.ticket import Ticket

        return Ticket.load(self.ticket_path)


class Store:
    """The folder of results, one a key; `root` defaults to `paths.store()`.

    Opening it removes what dead processes of this machine left in tmp/.
    """

    def __init__(self, root=None, sweep=True):
        self.root = Path(root or paths.store()).absolute()
        if sweep:
            for path in self.leftovers():
                _remove(path)

    # --- results ---------------------------------------------------------------------------

    def get(self, experiment: Experiment) -> Result | None:
        """The verified Result, None where there is none; `BrokenResult` where it is damaged."""
        result = self.read(experiment.key)
        if result and result.experiment.canonical() != experiment.canonical():
            raise BrokenResult(_broken(result.path / "experiment.json", "describes another experiment"))
        return result

    def read(self, key: str) -> Result | None:
        """The verified Result under a key; None where there is none.

        Raises `BrokenResult`, or `UnknownExperiment` where only its description is not understood here.
        """
        folder = self.root / "results" / key
        if not folder.is_dir():
            return None
        files = _verified(folder)
        try:
            experiment = Experiment.from_spec(json.loads(files["experiment.json"]))
        except (ValueError, TypeError) as error:
            raise UnknownExperiment(f"{key} is not known to this process: {error}") from error
        return Result(
            experiment,
            key,
            folder,
            metrics=json.loads(files["metrics.json"]),
            history=_read_history(files["history.csv"].decode()),
            provenance=json.loads(files["provenance.json"]),
            ticket_path=folder / TICKET if TICKET in files else None,
        )

    def keys(self) -> list[str]:
        """The keys of all stored results, sorted; damaged ones too."""
        return _names(self.root / "results", "")

    def publish(self, experiment, metrics, history=(), provenance=None, ticket_writer=None) -> Result:
        """Store a finished training, all or nothing; the first writer wins.

        metrics : JSON values, NumPy or torch scalars; numbers that are not finite become None. ValueError
            where a name is also a field of Experiment: in a table they would share a column.
        history : dicts of numbers; those that are not finite are left out.
        ticket_writer : called with the path to write the ticket to, where there is one.
        Returns what is stored, which is the earlier result where one stands already. OSError
        naming the path where it cannot be written; then nothing is left behind.
        """
        metrics = _plain(metrics)
        clash = sorted(metrics.keys() & experiment.spec().keys() | metrics.keys() & {"key"})
        if clash:
            raise ValueError(f"metrics {', '.join(clash)}: an Experiment has fields of these names, take others")
        texts = {
            "experiment.json": _json(experiment.spec()),
            "metrics.json": _json(metrics),
            "history.csv": _write_history(_plain(list(history))),
            "provenance.json": _json(_plain(provenance or {})),
        }
        with self._temporary(experiment.key) as folder:
            folder.mkdir()
            for name, text in texts.items():
                _write(folder / name, text.encode())
            if ticket_writer:
                ticket_writer(folder / TICKET)
                _sync(folder / TICKET)
            hashes = {path.name: _sha256(path.read_bytes()) for path in sorted(folder.iterdir())}
            manifest = {"key": experiment.key, "files": hashes}
            _write(folder / MANIFEST, _json(manifest).encode())
            _sync(folder)
            return self._rename_or_keep(experiment, folder)

    def _rename_or_keep(self, experiment, folder):
        final = self.root / "results" / experiment.key
        final.parent.mkdir(exist_ok=True)
        while True:
            try:
                os.rename(folder, final)  # fails where a result stands
                _sync(final.parent)
            except OSError:
                if not final.is_dir():
                    raise
            try:
                result = self.get(experiment)
            except BrokenResult:
                if not folder.exists():
                    raise  # what was just written does not verify: a bad disk
                self.set_aside(experiment.key)
            else:
                if result:
                    return result

    def set_aside(self, key: str) -> Path | None:
        """Move a result to broken/, so that its experiment is trained again; returns where it is."""
        return self._aside(self.root / "results" / key)

    def _aside(self, path):
        folder = self.root / "broken"
        folder.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            target = folder / f"{path.name}.{number}"
            if not target.exists():
                break
        try:
            os.rename(path, target)
        except FileNotFoundError:
            return None  # another process was faster
        return target

    # --- leases ----------------------------------------------------------------------------

    @contextmanager
    def lease(self, key: str, wait: bool = False):
        """Hold the right to train `key`; `Busy` where another live process holds it, or wait for it.

        The lock is the kernel's (flock): it is free the moment its holder dies.
        """
        lock, note = self._lease_files(key)
        note.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            raise Busy(f"{key} is being trained by {_holder(note)}: wait for it, or end it") from None
        try:
            _write(note, _json({"host": socket.gethostname(), "pid": os.getpid()}).encode())
            yield
        finally:
            note.unlink(missing_ok=True)
            lock.release()

    def _lease_files(self, key):
        folder = self.root / "leases"
        return FileLock(folder / f"{key}.lock"), folder / f"{key}.json"

    # --- checkpoints -----------------------------------------------------------------------

    def checkpoint_path(self, key: str) -> Path:
        """Where the checkpoint of `key` is, if there is one."""
        return self.root / "checkpoints" / f"{key}.safetensors"

    def save_checkpoint(self, key: str, tensors: dict, meta: dict):
        """Replace the checkpoint of `key` atomically: torch tensors by name, and JSON values."""
        import torch
        from safetensors.torch import save

        # A copy each: safetensors refuses views that share memory and strides that are not plain.
        plain = torch.contiguous_format
        tensors = {
            name: t.detach().to("cpu", copy=True, memory_format=plain) for name, t in tensors.items()
        }
        header, payload = _split(save(tensors))
        about = {"key": key, "meta": meta}
        about["sha256"] = _checkpoint_hash(header, payload, about)
        # One metadata key: safetensors would write several in random order.
        header["__metadata__"] = {"slt": json.dumps(about, sort_keys=True)}
        head = json.dumps(header).encode()
        head += b" " * (-len(head) % 8)
        final = self.checkpoint_path(key)
        final.parent.mkdir(parents=True, exist_ok=True)
        with self._temporary(key) as path:
            _write(path, len(head).to_bytes(8, "little"), head, payload)
            os.replace(path, final)
            _sync(final.parent)

    def load_checkpoint(self, key: str) -> tuple[dict, dict] | None:
        """(tensors, meta) as saved, tensors on the CPU; None where there is none.

        A damaged one is set aside with one line on stderr: the training starts again.
        """
        try:
            raw, meta = self._read_checkpoint(key)
        except FileNotFoundError:
            return None
        except ValueError as error:
            target = self._aside(self.checkpoint_path(key))
            print(f"checkpoint {error}: set aside as {target}; starting from the beginning", file=sys.stderr)
            return None
        from safetensors.torch import load

        return load(raw), meta

    def _read_checkpoint(self, key):
        path = self.checkpoint_path(key)
        raw = path.read_bytes()
        try:
            header, payload = _split(raw)
            about = json.loads(header.pop("__metadata__")["slt"])
            digest = about.pop("sha256")
            right = digest == _checkpoint_hash(header, payload, about) and about["key"] == key
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} cannot be read ({error!r})") from error
        if not right:
            raise ValueError(f"{path} does not match its own sha256")
        return raw, about["meta"]

    def drop_checkpoint(self, key: str):
        """Remove the checkpoint of `key`; nothing happens where there is none."""
        self.checkpoint_path(key).unlink(missing_ok=True)

    # --- temporary files -------------------------------------------------------------------

    @contextmanager
    def _temporary(self, key):
        name = f"{key}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
        path = self.root / "tmp" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield path
        finally:
            _remove(path)

    def leftovers(self) -> list[Path]:
        """What processes of this machine that are dead now left in tmp/."""
        found = []
        for path in sorted((self.root / "tmp").glob("*.*.*.*")):
            _, host, pid, _ = _tmp_name(path)
            if host == socket.gethostname() and not _alive(pid):
                found.append(path)
        return found


# --- files -------------------------------------------------------------------------------------


def _write(path, *chunks):
    try:
        with open(path, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, f"cannot write to the store: {error.strerror}", str(path)) from error


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path):
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _names(folder, suffix):
    if not folder.is_dir():
        return []
    return sorted(path.name.removesuffix(suffix) for path in folder.iterdir() if path.name.endswith(suffix))


def _json(value):
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


def _plain(value):
    """JSON values from nested dicts and lists of Python, NumPy or torch numbers."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no NaN
    return value


def _write_history(lines):
    columns = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _read_history(text):
    return [
        {name: _number(value) for name, value in line.items() if value != ""}
        for line in csv.DictReader(io.StringIO(text))
    ]


def _number(text):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _broken(path, why):
    return (
        f"{path} {why}. The result is not used. "
        "`python -m sltlib doctor --fix` sets it aside, and the next run trains it again"
    )


def _verified(folder):
    """Every file of a result by name, as bytes that match the manifest; raises BrokenResult."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        hashes, key = dict(manifest["files"]), manifest["key"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenResult(_broken(path, f"cannot be read ({error!r})")) from error
    if key != folder.name:
        raise BrokenResult(_broken(path, f"is of {key}"))
    files = {}
    for name in dict.fromkeys([*FILES, *hashes]):
        try:
            files[name] = (folder / name).read_bytes()
        except OSError as error:
            raise BrokenResult(_broken(folder / name, f"cannot be read ({error.strerror})")) from error
        if _sha256(files[name]) != hashes.get(name):
            raise BrokenResult(_broken(folder / name, "does not match its sha256 in manifest.json"))
    return files


def _split(raw):
    """Header (dict) and payload of a safetensors file; ValueError where it is damaged."""
    length = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or length > len(raw) - 8:
        raise ValueError("truncated")
    return json.loads(raw[8 : 8 + length]), memoryview(raw)[8 + length :]


def _checkpoint_hash(header, payload, about):
    digest = hashlib.sha256(json.dumps([header, about], sort_keys=True).encode())
    digest.update(payload)
    return digest.hexdigest()


def _holder(note):
    try:
        who = json.loads(note.read_text())
        return f"process {who['pid']} on {who['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _tmp_name(path):
    key, rest = path.name.split(".", 1)
    host, pid, token = rest.rsplit(".", 2)
    return key, host, int(pid) if pid.isdigit() else 0, token


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


# --- command line ------------------------------------------------------------------------------


def list_main(argv=None) -> int:
    """`python -m sltlib list`: every stored result with its accuracy and date."""
    parser = argparse.ArgumentParser("python -m sltlib list", description="List the stored results.")
    parser.parse_args(argv)
    store = Store()
    keys = store.keys()
    if not keys:
        print(f"no results in {store.root}")
    for key in keys:
        try:
            result = store.read(key)
        except BrokenResult as error:
            print(f"{key}  BROKEN: {error}")
            continue
        except UnknownExperiment as error:
            print(f"{key}  {str(error).removeprefix(key).strip()}")
            continue
        date = str(result.provenance.get("finished", ""))[:10] or "no date"
        scores = [_score(result.metrics, name) for name in ("val_accuracy", "test_accuracy")]
        print(f"{key}  {date}  val {scores[0]}  test {scores[1]}  {short(result.experiment)}")
    return 0


def _score(metrics, name):
    value = metrics.get(name)
    return f"{value:6.2f}" if isinstance(value, (int, float)) else "     -"


def short(experiment: Experiment) -> str:
    """An experiment on one line: the fields that differ from their defaults."""
    fields = experiment.canonical()
    source = fields.pop("source", None)
    words = [f"{name}={value}" for name, value in fields.items()]
    return " ".join(words + ([f"source={experiment.source.key}"] if source else []))


def main(argv=None) -> int:
    """`python -m sltlib doctor [--fix]`: say what is damaged, and repair it; 1 if something is left."""
    parser = argparse.ArgumentParser(
        "python -m sltlib doctor", description="Explain what is damaged in the store and in DVC's files."
    )
    parser.add_argument("--fix", action="store_true", help="repair it too; no training is lost")
    fix = parser.parse_args(argv).fix
    problems = examine(Store(sweep=False))
    for problem, repair, action in problems:
        if fix:
            action()
        print(f"{problem}\n  {'done' if fix else 'repair'}: {repair}")
    if not problems:
        print("nothing is wrong")
    elif not fix:
        print(f"{len(problems)} found; `python -m sltlib doctor --fix` repairs them")
    return int(bool(problems) and not fix)


def examine(store: Store) -> list[tuple]:
    """What is wrong in the store and in DVC's files: (problem, repair, a function that repairs)."""
    found = []
    for key in store.keys():
        try:
            store.read(key)
        except UnknownExperiment:
            continue  # sound, and somebody's own
        except BrokenResult as error:
            problem = str(error).split(". The result")[0]
            found.append((problem, "set the result aside", lambda key=key: store.set_aside(key)))
    for key in _names(store.root / "checkpoints", ".safetensors"):
        path = store.checkpoint_path(key)
        try:
            store._read_checkpoint(key)
        except FileNotFoundError:
            continue  # a training just finished
        except ValueError as error:
            found.append((str(error), "set the checkpoint aside", lambda path=path: store._aside(path)))
    for key in _names(store.root / "leases", ".json"):
        lock, note = store._lease_files(key)
        try:
            with lock.acquire(timeout=0):
                problem = f"{note} was left by {_holder(note)}, which is gone"
                found.append((problem, "remove the note", lambda note=note: note.unlink(missing_ok=True)))
        except Timeout:
            pass  # someone is training it
    for path in store.leftovers():
        problem = f"{path} was left by a process that is gone"
        found.append((problem, "remove it", lambda path=path: _remove(path)))
    return found + _examine_dvc()


def _examine_dvc():
    import yaml

    found = []
    path = paths.ROOT / ".dvc/tmp/rwlock"
    if path.is_file() and not _parses(json.loads, path):
        problem = f"{path} is empty or damaged: a killed dvc left it, and every dvc command fails"
        found.append((problem, "remove it (while no dvc runs)", path.unlink))
    for path in (paths.ROOT / "dvc.lock", paths.ROOT / "smoke/dvc.lock", paths.ROOT / "paper/dvc.lock"):
        if path.is_file() and not _parses(yaml.safe_load, path):
            problem = f"{path} is damaged: dvc was killed while writing it"
            repair = "remove it; `dvc repro` writes it again, no training is lost"
            found.append((problem, repair, path.unlink))
    return found


def _parses(parse, path):
    try:
        return isinstance(parse(path.read_text()), dict)
    except Exception:  # every parser has its own error
        return False

"""Results of trainings on disk: published atomically, verified whenever they are read.

    results/<key>/      experiment.json metrics.json history.csv provenance.json ticket.safetensors
                        predictions.safetensors, and manifest.json with the sha256 of each
    checkpoints/<key>.safetensors     where a training stands
    leases/<key>.json                 who is training it
    inductor/                         compiled kernels
    tmp/ broken/                      files being written · what was set aside as damaged

Done means that the manifest parses and every hash matches, never that a file exists. Only what proves
damage is damage: a file that cannot be read now (no right to, no free handle) is an error that says so.
"""

from __future__ import annotations

import itertools
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from sltlib.base import files, machine, paths
from sltlib.base.words import plain, shown
from sltlib.engine import curves, leases
from sltlib.engine.leases import Busy
from sltlib.experiment import Experiment
from sltlib.predictions import FILE as PREDICTIONS

__all__ = ["BrokenResult", "Busy", "Result", "Store", "UnknownExperiment", "short"]
MANIFEST = "manifest.json"
TICKET = "ticket.safetensors"
FILES = ("experiment.json", "metrics.json", "history.csv", "provenance.json")


class BrokenResult(Exception):
    """A stored result is damaged, or not the one that its name says; the text has file and repair."""


class UnknownExperiment(Exception):
    """A sound result of a search, neuron, model or version that this process does not know."""


@dataclass(frozen=True)
class Result:
    """What an Experiment left in the Store.

    metrics : plain JSON values; a number that was not finite is None.
    curve : the learning curve as CSV; `history` reads it.
    provenance : device, threads, versions, times.
    ticket_path : the safetensors file, None where nothing was searched.
    """

    experiment: Experiment
    key: str
    path: Path
    metrics: dict
    curve: str
    provenance: dict
    ticket_path: Path | None

    @property
    def history(self) -> list[dict]:
        """One dict of numbers for each line of the learning curve."""
        return curves.read(self.curve)

    @property
    def apart(self) -> bool:
        """Whether it came from a pack that left its ticket out."""
        return TICKET in json.loads((self.path / MANIFEST).read_text(encoding="utf-8")).get("apart", ())

    @property
    def network_hash(self) -> str | None:
        """The sha256 of the file of its ticket or trained weights, also where a pack left that out; None where there is none."""
        manifest = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
        return (manifest["files"] | manifest.get("apart", {})).get(TICKET)

    def ticket(self):
        """The found `Ticket`; ValueError where the experiment was no search, or where it came from a pack without tickets."""
        if self.ticket_path is None:
            if self.apart:
                raise ValueError(f"result {self.key} was unpacked from a file without tickets: remove {self.path} and run "
                                 "its experiment again, which trains it to the same ticket")  # fmt: skip
            raise ValueError(f"result {self.key} has no ticket: its search is {self.experiment.search!r}")
        from sltlib.ticket import Ticket

        return Ticket.load(self.ticket_path)

    def predictions(self):
        """What it says of every test image, `predictions.Predictions`: as stored, or of an older result computed anew."""
        from sltlib import predictions

        path = self.path / PREDICTIONS
        if path.is_file():
            return predictions.decode(path.read_bytes())
        from sltlib import train

        return train.predictions_of(self.network(), train.data_of(self.experiment))

    def network(self):
        """The experiment's network with its ticket applied, in evaluation mode."""
        from sltlib.models import build_model

        return self.ticket().apply(build_model(self.experiment)).eval()


class Store:
    """The folder of results, one a key; `root` defaults to `paths.store()`.

    Opening it makes no folder, and removes what dead processes of this machine left in tmp/. OSError
    where `root` is a file, RuntimeError on a system that is neither Linux nor macOS.
    """

    def __init__(self, root=None, sweep=True):
        machine.check_supported()
        self.root = Path(root or paths.store()).absolute()
        if self.root.exists() and not self.root.is_dir():
            raise NotADirectoryError(f"the store {self.root} is a file: name a folder, or set SLT_STORE to one")
        if sweep:
            files.sweep(self.root / "tmp")

    # --- results ---------------------------------------------------------------------------

    def get(self, experiment: Experiment) -> Result | None:
        """The verified Result, None where there is none; `BrokenResult` where it is damaged.

        OSError where it is there and cannot be read now: that is no damage.
        """
        try:
            result = self.read(experiment.key)
        except UnknownExperiment as error:  # its key says that it is ours, so what is written in it is wrong
            raise BrokenResult(_broken(self._folder(experiment.key) / FILES[0], f"is not understood ({error})")) from error
        if result and result.experiment.canonical() != experiment.canonical():
            raise BrokenResult(_broken(result.path / FILES[0], "describes another experiment"))
        return result

    def read(self, key: str) -> Result | None:
        """The verified Result under a key; None where there is none.

        Raises `BrokenResult`, `UnknownExperiment` where only its description is not understood here, or
        OSError where it cannot be read now.
        """
        folder, found = self._folder(key), self.contents(key)
        if found is None:
            return None
        return Result(
            _understood(json.loads(found["experiment.json"]), key),
            key,
            folder,
            metrics=json.loads(found["metrics.json"]),
            curve=found["history.csv"].decode(),
            provenance=json.loads(found["provenance.json"]),
            ticket_path=folder / TICKET if TICKET in found else None,
        )

    def keys(self) -> list[str]:
        """The keys of all stored results, sorted; damaged ones too."""
        try:
            return sorted(name for name in os.listdir(self.root / "results") if not name.startswith("."))
        except FileNotFoundError:
            return []

    def publish(self, experiment, metrics, history=(), provenance=None, ticket_writer=None, predictions=None) -> Result:
        """Store a finished training, all or nothing; the first writer wins.

        metrics : JSON values, NumPy or torch scalars; numbers that are not finite become None. ValueError
            where a name is also a field of Experiment: in a table they would share a column.
        history : dicts of numbers; those that are not finite are left out.
        ticket_writer : called with the path to write the ticket to, where there is one.
        predictions : the bytes of `predictions.encode`, where there are any.
        Returns what is stored, which is the earlier result where one stands already. OSError
        naming the path where it cannot be written; then nothing is left behind.
        """
        metrics = plain(metrics)
        clash = sorted(metrics.keys() & experiment.spec().keys() | metrics.keys() & {"key"})
        if clash:
            raise ValueError(f"metrics {', '.join(clash)}: an Experiment has fields of these names, take others")
        texts = {
            "experiment.json": files.json_text(experiment.spec()),
            "metrics.json": files.json_text(metrics),
            "history.csv": curves.write(plain(list(history), "history")),
            "provenance.json": files.json_text(plain(provenance or {}, "provenance")),
        }
        with self._temporary(experiment.key) as folder:
            for name, text in texts.items():
                files.put(folder / name, text)
            if ticket_writer:
                with files.named(folder / TICKET):
                    ticket_writer(folder / TICKET)
                files.sync(folder / TICKET)
            if predictions:
                files.put(folder / PREDICTIONS, predictions)
            hashes = {path.name: files.sha256(path.read_bytes()) for path in sorted(folder.iterdir())}
            files.put(folder / MANIFEST, files.json_text({"key": experiment.key, "files": hashes}))
            files.sync(folder)
            return self._rename_or_keep(experiment, folder)

    def contents(self, key: str) -> dict[str, bytes] | None:
        """What the files of a result hold, verified, by name, the manifest too; None where there is none. Raises as `read`."""
        try:
            return _verified(self._folder(key))
        except FileNotFoundError:
            return None

    def take(self, key: str, contents: dict) -> Result:
        """Store a result from elsewhere, {file's name: bytes}, once it is verified; the first writer wins.

        Raises `BrokenResult` where it is damaged or not the one that its key says, `UnknownExperiment`.
        """
        with self._temporary(key) as scratch:
            folder = scratch / key
            folder.mkdir()
            for name, content in contents.items():
                files.put(folder / name, content)
            experiment = _understood(json.loads(_verified(folder)["experiment.json"]), key)
            if experiment.key != key:
                raise BrokenResult(_broken(folder / FILES[0], "describes another experiment"))
            files.sync(folder)
            return self._rename_or_keep(experiment, folder)

    def _rename_or_keep(self, experiment, folder):
        final = self._folder(experiment.key)
        final.parent.mkdir(exist_ok=True)
        while True:
            try:
                os.rename(folder, final)  # fails where a result stands
                files.sync(final.parent)
            except OSError:
                if not os.path.lexists(final):
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
        return self.aside(self._folder(key))

    def aside(self, path: Path) -> Path | None:
        """Move something damaged to broken/; where it is then, None where another process was faster."""
        folder = self.root / "broken"
        folder.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            target = folder / f"{path.name}.{number}"
            if not os.path.lexists(target):
                break
        try:
            os.rename(path, target)
        except FileNotFoundError:
            return None
        return target

    def lease(self, key: str, wait: bool = False):
        """Hold the right to train `key` (a context); `Busy` where another live process does, or wait for it."""
        return leases.lease(self.root, key, wait)

    def _folder(self, key):
        if not key or key[0] == "." or "/" in key or "\0" in key:
            raise ValueError(f"{shown(key)} is no key of a result: see `python -m sltlib list`")
        return self.root / "results" / key

    @contextmanager
    def _temporary(self, key):
        folder = files.scratch(Path(key), self.root / "tmp")
        with files.named(folder.parent):
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            files.remove(folder)


def short(experiment: Experiment) -> str:
    """An experiment on one line: the fields that differ from their defaults."""
    spec = experiment.canonical()
    source = spec.pop("source", None)
    words = [f"{name}={value}" for name, value in spec.items()]
    return " ".join(words + ([f"source={experiment.source.key}"] if source else []))


def _understood(spec, key):
    """The Experiment of a stored description; UnknownExperiment where this code does not know it.

    A field that only newer code has is left out where the key shows that it had its default.
    """
    try:
        return Experiment.from_spec(spec)
    except (ValueError, TypeError, AttributeError) as error:
        reason = error
    try:
        experiment = Experiment.from_spec(_known(spec))
        if experiment.key == key:
            return experiment
    except (ValueError, TypeError, AttributeError):
        pass
    raise UnknownExperiment(f"{key} is not known to this process: {reason}") from reason


def _known(spec):
    names = {f.name for f in fields(Experiment)}
    return {
        name: _known(value) if name == "source" and value else value for name, value in spec.items() if name in names
    }


def _broken(path, why):
    return (
        f"{path} {why}. The result is not used. "
        "`python -m sltlib doctor --fix` sets it aside, and the next run trains it again"
    )


def _verified(folder):
    """Every file of a result by name, as bytes that match the manifest.

    FileNotFoundError where there is no result, BrokenResult where it is damaged.
    """
    path = folder / MANIFEST
    found = {MANIFEST: _bytes(path, folder)}
    try:
        manifest = json.loads(found[MANIFEST])
        hashes, key = dict(manifest["files"]), manifest["key"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BrokenResult(_broken(path, f"cannot be read ({error!r})")) from error
    if key != folder.name:
        raise BrokenResult(_broken(path, f"is of {key}"))
    for name in dict.fromkeys([*FILES, *hashes]):
        found[name] = _bytes(folder / name, folder)
        if files.sha256(found[name]) != hashes.get(name):
            raise BrokenResult(_broken(folder / name, "does not match its sha256 in manifest.json"))
    return found


def _bytes(path, folder):
    """What a file of a result holds; its absence, or another thing in its place, is damage."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError) as error:
        if not os.path.lexists(folder):
            raise FileNotFoundError(str(folder)) from error  # there is none, or it was just set aside
        raise BrokenResult(_broken(path, f"cannot be read ({getattr(error, 'strerror', error)})")) from error
    except OSError as error:
        text = f"cannot be read now, which is no damage ({error.strerror}); mend that and try again"
        raise OSError(error.errno, text, str(path)) from error

"""Where a training stands, on disk: one safetensors file a key, replaced atomically, with a hash of its own.

A checkpoint is a shortcut and never a promise: one that is damaged, or was made by other code, versions or
another device, is set aside with one line, and the training starts from the beginning.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path

from sltlib.base import files, settings

SUFFIX = ".safetensors"


class Checkpoint:
    """What `train.fit` needs to go on where an earlier process stopped: load(), due(), save().

    made_by : JSON values (code, versions, device); what others made is not resumed. Saved not more often
    than every `$SLT_CHECKPOINT_S` seconds (20).
    """

    def __init__(self, store, key: str, made_by: dict | None = None):
        self.store, self.key, self.made_by = store, key, made_by or {}
        self.path = path_of(store.root, key)
        self.every, self.last = settings.number("SLT_CHECKPOINT_S", 20), time.monotonic()

    def load(self):
        """(step, history, the model's state, the optimiser's state), tensors on the CPU; None where there is none."""
        found = load(self.store, self.key, self.made_by)
        if found is None:
            return None
        model, optimizer = {}, {}
        for name, value in found[0].items():
            part, rest = name.split("/", 1)
            if part == "model":
                model[rest] = value
            else:
                index, what = rest.split("/", 1)
                optimizer.setdefault(int(index), {})[what] = value
        return found[1]["step"], found[1]["history"], model, optimizer

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self.last >= self.every

    def save(self, step: int, model, optimizer, history: list):
        """Replace the checkpoint. Where the disk is full, say so and go on: the result may still fit."""
        tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{k}": v for k, v in state.items() if hasattr(v, "detach")}
        try:
            write(self.path, self.key, tensors, {"step": step, "history": history, "made_by": self.made_by})
        except OSError as error:
            print(f"checkpoint not saved at step {step}, the training goes on: {error}", file=sys.stderr)
        self.last = time.monotonic()

    def drop(self):
        """Remove it; nothing happens where there is none."""
        self.path.unlink(missing_ok=True)


def path_of(root: Path, key: str) -> Path:
    """Where the checkpoint of `key` is, if there is one."""
    return Path(root) / "checkpoints" / f"{key}{SUFFIX}"


def write(path: Path, key: str, tensors: dict, meta: dict):
    """Replace a checkpoint atomically: torch tensors by name, and JSON values."""
    import torch
    from safetensors.torch import save

    # A copy each: safetensors refuses views that share memory and strides that are not plain.
    plain = torch.contiguous_format
    tensors = {name: t.detach().to("cpu", copy=True, memory_format=plain) for name, t in tensors.items()}
    header, payload = _split(save(tensors))
    about = {"key": key, "meta": meta}
    about["sha256"] = _hash(header, payload, about)
    # One metadata key: safetensors would write several in random order.
    header["__metadata__"] = {"slt": json.dumps(about, sort_keys=True)}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    folder = path.parent.parent / "tmp"
    files.write(path, len(head).to_bytes(8, "little"), head, payload, folder=folder)


def load(store, key: str, made_by: dict | None = None) -> tuple[dict, dict] | None:
    """(tensors, meta) as they were written; None where there is no checkpoint, or none that is of use here.

    Such a one is set aside with one line on stderr.
    """
    path = path_of(store.root, key)
    try:
        raw, meta = read(path, key)
        if made_by is not None and (others := meta.get("made_by", {})) != made_by:
            what = [name for name in made_by if made_by[name] != others.get(name)]
            raise ValueError(f"{path} was made by other {', '.join(what)}")
    except FileNotFoundError:
        return None
    except ValueError as error:
        target = store.aside(path)
        print(f"checkpoint {error}: set aside as {target}; starting from the beginning", file=sys.stderr)
        return None
    from safetensors.torch import load as tensors

    return tensors(raw), meta


def read(path: Path, key: str) -> tuple[bytes, dict]:
    """(the whole file, meta) as saved; FileNotFoundError, or ValueError saying how it is damaged."""
    raw = path.read_bytes()
    try:
        header, payload = _split(raw)
        about = json.loads(header.pop("__metadata__")["slt"])
        digest = about.pop("sha256")
        right = digest == _hash(header, payload, about) and about["key"] == key
        meta = about["meta"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error!r})") from error
    if not right:
        raise ValueError(f"{path} does not match its own sha256")
    return raw, meta


def keys(root: Path) -> list[str]:
    """The keys that have a checkpoint, sorted."""
    folder = path_of(root, "").parent
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX) and files.owner(Path(name)) is None)


def _split(raw):
    """Header (dict) and payload of a safetensors file; ValueError where it is damaged."""
    length = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or length > len(raw) - 8:
        raise ValueError("truncated")
    return json.loads(raw[8 : 8 + length]), memoryview(raw)[8 + length :]


def _hash(header, payload, about):
    digest = hashlib.sha256(json.dumps([header, about], sort_keys=True).encode())
    digest.update(payload)
    return digest.hexdigest()

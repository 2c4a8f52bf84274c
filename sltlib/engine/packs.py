"""Stored results as one file, to be kept, sent or published: what was measured, without the networks.

A pack is a zip of results as the Store has them, `<key>/metrics.json` and so on, sorted and without dates, so that the
same results make the same bytes. Tickets and trained weights are nine tenths of a store and are left out unless they
are asked for; their sha256 stays in the manifest, so that a training done again can be held against it. Whatever is
taken from a pack is verified as the Store verifies: by hash, and by the key that its description makes.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from pathlib import Path

from sltlib.base import files
from sltlib.engine.store import FILES, MANIFEST, TICKET, BrokenResult, Store, UnknownExperiment
from sltlib.predictions import FILE as PREDICTIONS

NAMES = (*FILES, PREDICTIONS, TICKET, MANIFEST)
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
LARGEST = 1 << 30  # bytes that one file of a result may have


def pack(store: Store, keys, path: Path, tickets: bool = False) -> int:
    """Write the store's results under these keys to one file, whole or not at all; how many there are.

    tickets : with tickets and trained weights.
    Raises ValueError naming a key that the store lacks, and `BrokenResult` before anything is written.
    """
    keys = sorted(set(keys))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for key in keys:
            found = store.contents(key)
            if found is None:
                raise ValueError(f"the store {store.root} has no {key}")
            if not tickets and found.pop(TICKET, None):
                manifest = json.loads(found[MANIFEST])
                manifest.setdefault("apart", {})[TICKET] = manifest["files"].pop(TICKET)
                found[MANIFEST] = files.json_text(manifest).encode()
            for name in sorted(found):
                info = zipfile.ZipInfo(f"{key}/{name}", EPOCH)
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, found[name])
    files.write(Path(path), content.getvalue())
    return len(keys)


def packed(path: Path) -> set[str]:
    """The keys of the results that a file holds; ValueError where it is no pack."""
    with _opened(path) as archive:
        return {name.partition("/")[0] for name in archive.namelist()}


def _opened(path):
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is no pack of results ({error}): `python -m sltlib pack` writes them") from None


def unpack(store: Store, path: Path, say=print) -> tuple[int, int]:
    """Take what a pack holds into a store that lacks it; (how many were new, how many stood already).

    What is damaged, or of a search, neuron or version that this process does not know, is left out with one line
    each. ValueError where the file is no pack, or holds names that no result has; then nothing is taken.
    """
    with _opened(path) as archive:
        members: dict = {}
        for info in archive.infolist():
            key, slash, name = info.filename.partition("/")
            if not slash or not re.fullmatch(r"[0-9a-f]{20}", key) or name not in NAMES or info.file_size > LARGEST:
                raise ValueError(f"{path} is no pack of results: it holds {info.filename!r}")
            members.setdefault(key, {})[name] = info
        new = old = 0
        for key in sorted(members):
            try:
                if store.read(key) is not None:
                    old += 1
                    continue
                store.take(key, {name: archive.read(info) for name, info in members[key].items()})
            except UnknownExperiment as error:
                say(f"{key} is left out: {error}")
            except (BrokenResult, zipfile.BadZipFile, zlib.error, EOFError):
                say(f"{key} is left out: it is damaged in {path}, or in {store.root}")
            else:
                new += 1
    return new, old


"""Arrays on disk: whole or absent, whatever goes wrong while they are written or afterwards."""

import errno
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import disk_full_after

from sltlib.data import arrays
from sltlib.base import paths

ABOUT = {"dataset": "tiny", "sizes": (3, 4)}  # a tuple is a list in JSON, and equal all the same
SHAPES = {"train_x": ((5, 2, 3), "|u1"), "train_y": ((5,), "<i8")}


def fill(maps):
    maps["train_x"][:] = np.arange(30).reshape(5, 2, 3)
    maps["train_y"][:] = [4, 3, 2, 1, 0]


@pytest.fixture
def folder(tmp_path):
    arrays.publish(tmp_path / "cache" / "tiny", ABOUT, SHAPES, fill)
    return tmp_path / "cache" / "tiny"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_published_arrays_load_as_they_were_filled(folder):
    loaded = arrays.load(folder, ABOUT)
    assert loaded["train_x"].tolist() == np.arange(30).reshape(5, 2, 3).tolist()
    assert loaded["train_y"].tolist() == [4, 3, 2, 1, 0]
    assert {name: (a.shape, a.dtype.str) for name, a in loaded.items()} == SHAPES
    assert arrays.hashes(folder) == {name: arrays.sha256(np.array(a)) for name, a in loaded.items()}
    assert names(folder) == ["manifest.json", "train_x.npy", "train_y.npy"]
    assert names(folder.parent) == ["tiny"]


def test_writing_to_a_loaded_array_leaves_the_file_alone(folder):
    arrays.load(folder, ABOUT)["train_x"][:] = 9
    assert arrays.load(folder, ABOUT)["train_x"][0, 0, 0] == 0


@pytest.mark.parametrize(
    "damage",
    ["byte", "truncated", "empty", "shape", "no array", "no manifest", "manifest cut", "manifest list", "other"],
)
def test_a_damaged_or_foreign_folder_is_as_good_as_absent_and_is_made_anew(folder, damage):
    x, manifest = folder / "train_x.npy", folder / "manifest.json"
    raw, text = bytearray(x.read_bytes()), manifest.read_text()
    if damage == "byte":
        raw[-1] ^= 1
        x.write_bytes(raw)
    elif damage in ("truncated", "empty"):
        x.write_bytes(raw[:-1] if damage == "truncated" else b"")
    elif damage == "shape":  # the same values in another shape
        np.save(x, np.arange(30, dtype=np.uint8).reshape(5, 3, 2))
    elif damage in ("no array", "no manifest"):
        (x if damage == "no array" else manifest).unlink()
    elif damage == "other":
        manifest.write_text(text.replace('"tiny"', '"tinier"'))
    else:
        manifest.write_text(text[:-9] if damage == "manifest cut" else "[]")
    assert arrays.load(folder, ABOUT) is None
    arrays.publish(folder, ABOUT, SHAPES, fill)
    assert arrays.load(folder, ABOUT)["train_y"].tolist() == [4, 3, 2, 1, 0]
    assert names(folder.parent) == ["tiny"]


def test_another_description_is_another_set(folder):
    assert arrays.load(folder, ABOUT | {"more": 1}) is None
    assert arrays.load(folder.with_name("absent"), ABOUT) is None


def test_the_first_writer_wins(folder):
    before = os.stat(folder / "train_x.npy").st_ino
    arrays.publish(folder, ABOUT, SHAPES, lambda maps: maps["train_x"].fill(7))
    assert os.stat(folder / "train_x.npy").st_ino == before
    assert arrays.load(folder, ABOUT)["train_x"].max() == 29 and names(folder.parent) == ["tiny"]


def test_a_fill_that_fails_leaves_nothing(tmp_path):
    def fails(maps):
        fill(maps)
        raise ValueError("row 3 is damaged")

    with pytest.raises(ValueError, match="row 3"):
        arrays.publish(tmp_path / "cache" / "tiny", ABOUT, SHAPES, fails)
    assert names(tmp_path / "cache") == []


def test_a_full_disk_leaves_nothing_and_names_the_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="No space left on device: .*train_x.npy"):
        arrays.publish(tmp_path / "cache" / "tiny", ABOUT, SHAPES, fill)
    assert names(tmp_path / "cache") == []


def test_a_disk_that_fills_up_before_the_manifest_leaves_nothing_and_names_the_folder(tmp_path, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(arrays, "sync", full)
    with pytest.raises(OSError, match="No space left on device: .*tiny"):
        arrays.publish(tmp_path / "cache" / "tiny", ABOUT, SHAPES, fill)
    assert names(tmp_path / "cache") == []


def test_a_limit_on_file_sizes_leaves_nothing(tmp_path):
    with disk_full_after(4096), pytest.raises(OSError):
        arrays.publish(tmp_path / "cache" / "tiny", ABOUT, {"x": ((9999,), "|u1")}, lambda maps: None)
    assert names(tmp_path / "cache") == []


def test_a_killed_writer_leaves_nothing_that_counts_and_the_next_one_sweeps(tmp_path):
    code = (
        "import os, signal; from pathlib import Path; from sltlib import arrays\n"
        f"kill = lambda maps: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"arrays.publish(Path({str(tmp_path)!r}) / 'cache' / 'tiny', {{}}, {{'x': ((9,), '|u1')}}, kill)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT)
    cache = tmp_path / "cache"
    assert done.returncode == -signal.SIGKILL and len(names(cache)) == 1
    assert arrays.load(cache / "tiny", {}) is None
    other = cache / ".tiny.another-host.1.abc"  # not ours to judge
    living = cache / f"{names(cache)[0].rsplit('.', 2)[0]}.{os.getpid()}.abc"
    other.mkdir()
    living.mkdir()
    arrays.publish(cache / "new", ABOUT, SHAPES, fill)
    assert names(cache) == sorted([other.name, living.name, "new"])


def test_only_one_fills_while_others_wait(tmp_path):
    filled, loaded, barrier = [], [], threading.Barrier(4)

    def slow(maps):
        filled.append(1)
        fill(maps)

    def one():
        barrier.wait()
        loaded.append(arrays.made(tmp_path / "cache" / "tiny", ABOUT, SHAPES, slow))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(filled) == 1 and [a["train_x"].max() for a in loaded] == [29] * 4


def test_made_repairs_what_is_damaged(folder):
    (folder / "train_y.npy").write_bytes(b"")
    assert arrays.made(folder, ABOUT, SHAPES, fill)["train_y"].tolist() == [4, 3, 2, 1, 0]


def test_the_hash_is_of_the_values_in_order(tmp_path):
    x = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert arrays.sha256(x) == arrays.sha256(np.asfortranarray(x)) != arrays.sha256(x.T)

"""Arrays on disk: whole or absent, whatever goes wrong while they are written or afterwards."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import disk_full_after

from sltlib.base import files, paths
from sltlib.data import arrays

ABOUT = {"dataset": "tiny", "sizes": (3, 4)}  # a tuple is a list in JSON, and equal all the same
SHAPES = {"train_x": ((5, 2, 3), "|u1"), "train_y": ((5,), "<i8")}


def fill(maps):
    maps["train_x"][:] = np.arange(30).reshape(5, 2, 3)
    maps["train_y"][:] = [4, 3, 2, 1, 0]


@pytest.fixture
def folder(tmp_path):
    place = arrays.place(tmp_path / "cache" / "tiny", ABOUT)
    arrays.publish(place, ABOUT, SHAPES, fill)
    return place


def load(folder, about=ABOUT, shapes=SHAPES):
    found = arrays.load(folder, about, shapes)
    return found and found[0]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_published_arrays_load_as_they_were_filled(folder):
    loaded = load(folder)
    assert loaded["train_x"].tolist() == np.arange(30).reshape(5, 2, 3).tolist()
    assert loaded["train_y"].tolist() == [4, 3, 2, 1, 0]
    assert {name: (a.shape, a.dtype.str) for name, a in loaded.items()} == SHAPES
    assert arrays.load(folder, ABOUT, SHAPES)[1] == {name: arrays.sha256(np.array(a)) for name, a in loaded.items()}
    assert np.load(folder / "train_x.npy").tolist() == loaded["train_x"].tolist()  # a .npy file like any other
    assert names(folder) == ["manifest.json", "train_x.npy", "train_y.npy"]
    assert names(folder.parent) == [folder.name]


def test_writing_to_a_loaded_array_leaves_the_file_alone(folder):
    load(folder)["train_x"][:] = 9
    assert load(folder)["train_x"][0, 0, 0] == 0


@pytest.mark.parametrize(
    "damage",
    [
        "byte", "truncated", "empty", "shape", "no array", "no manifest", "manifest cut", "manifest list", "other",
        "manifest deep", "fewer", "more", "renamed", "type", "a folder", "a file", "forged",
    ],
)  # fmt: skip
def test_a_damaged_or_foreign_folder_is_as_good_as_absent_and_is_made_anew(folder, damage, capsys):
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
    elif damage in ("fewer", "more", "renamed", "type", "forged"):  # a manifest that is whole in itself
        found = json.loads(text)
        entries = found["arrays"]
        if damage == "fewer":
            del entries["train_y"]
            (folder / "train_y.npy").unlink()
        elif damage == "more":
            entries["test_y"] = entries["train_y"]
            (folder / "test_y.npy").write_bytes((folder / "train_y.npy").read_bytes())
        elif damage == "renamed":
            entries["test_y"] = entries.pop("train_y")
            (folder / "train_y.npy").rename(folder / "test_y.npy")
        elif damage == "type":
            np.save(folder / "train_y.npy", np.arange(5, dtype="<i4"))
            entries["train_y"] |= {"dtype": "<i4", "sha256": arrays.sha256(np.arange(5, dtype="<i4"))}
        else:
            entries["train_y"]["shape"] = [4 * 10**9]
        manifest.write_text(json.dumps(found))
    elif damage == "a folder":
        x.unlink()
        x.mkdir()
    elif damage == "a file":
        files.remove(folder)
        folder.write_text("")
    else:
        wrong = {"other": text.replace('"tiny"', '"tinier"'), "manifest cut": text[:-9], "manifest deep": "[" * 100_000}
        manifest.write_text(wrong.get(damage, "[]"))
    assert load(folder) is None
    seen = [path for path, _ in arrays.examine(folder.parent.parent, SHAPES)]
    assert seen == ([] if damage == "type" else [folder])  # only who asks for it knows its type
    maps, _ = arrays.made(folder, ABOUT, SHAPES, fill)
    assert maps["train_y"].tolist() == [4, 3, 2, 1, 0] == load(folder)["train_y"].tolist()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{folder} is damaged (") and line.endswith("): it is made again")
    assert names(folder.parent) == sorted([folder.name, f".{folder.name}.lock"])
    assert arrays.examine(folder.parent.parent, SHAPES) == []


def test_every_bit_of_a_header_counts(folder, capsys):
    """A flipped bit in a header once ended every run with an error of Python's tokenizer."""
    path = folder / "train_x.npy"
    raw = path.read_bytes()
    for bit in range(8 * (len(raw) - 30)):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert load(folder) is None, bit
    assert arrays.examine(folder.parent.parent, SHAPES) == [(folder, "the header of train_x.npy is not the one that was written")]


def test_every_byte_of_a_manifest_may_be_damaged(folder):
    manifest = folder / "manifest.json"
    raw = manifest.read_bytes()
    for place in range(len(raw)):
        for flip in (1, 4, 128):
            manifest.write_bytes(raw[:place] + bytes([raw[place] ^ flip]) + raw[place + 1 :])
            found = load(folder)  # white space may differ
            assert found is None or found["train_y"].tolist() == [4, 3, 2, 1, 0]


def test_what_cannot_be_read_is_an_error_and_no_damage(folder, monkeypatch):
    def refuse(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as changed:
        changed.setattr("builtins.open", refuse)
        for look in (load, lambda f: arrays.made(f, ABOUT, SHAPES, fill), lambda f: arrays.examine(f.parent.parent, SHAPES)):
            with pytest.raises(PermissionError, match="train_x.npy"):
                look(folder)
    assert load(folder)["train_y"].tolist() == [4, 3, 2, 1, 0]


def test_examining_tells_what_is_left_over(folder):
    root = folder.parent.parent
    assert arrays.examine(root, SHAPES) == [] == arrays.examine(root / "absent", SHAPES)
    (folder / "train_z.npy").write_bytes(b"")
    moved = folder.with_name("0123456789abcdef")
    arrays.publish(moved, ABOUT, SHAPES, fill)
    dead, living = (files.scratch(folder).name.split(".") for _ in range(2))
    dead[-2] = "999999999"
    for name in (dead, living):
        (folder.parent / ".".join(name)).mkdir()
    found = dict(arrays.examine(root, SHAPES))
    assert found == {
        folder.parent / ".".join(dead): "a process that died left it",
        folder: "it holds train_z.npy beside its arrays",
        moved: "manifest.json is of something else",
    }


def test_values_that_do_not_fit_make_wider_arrays(tmp_path):
    """Counts above 255 were cut off."""
    shapes = {"x": ((2,), ("|u1", "<i2", "<i4")), "y": ((2,), "<i8")}
    for most, kind in ((255, "|u1"), (256, "<i2"), (40_000, "<i4")):
        tried = []

        def count(maps, most=most, tried=tried):
            tried.append(maps["x"].dtype.str)
            if most > np.iinfo(maps["x"].dtype).max:
                raise OverflowError
            maps["x"][:], maps["y"][:] = most, 7

        folder = arrays.place(tmp_path / "cache", {"most": most})
        maps, _ = arrays.made(folder, {"most": most}, shapes, count)
        assert maps["x"].dtype.str == kind == tried[-1] and maps["x"].tolist() == [most] * 2 and maps["y"].dtype.str == "<i8"
        arrays.made(folder, {"most": most}, shapes, count)
        assert tried == ["|u1", "<i2", "<i4"][: len(tried)] and len(tried) == shapes["x"][1].index(kind) + 1

    def never(maps):
        raise OverflowError("wider than all")

    with pytest.raises(OverflowError):
        arrays.made(tmp_path / "cache" / "never", {}, shapes, never)
    assert not (tmp_path / "cache" / "never").exists() and len(names(tmp_path / "cache")) == 7


def test_another_description_is_another_set(folder):
    assert load(folder, ABOUT | {"more": 1}) is None
    assert load(folder.with_name("absent")) is None


def test_the_first_writer_wins(folder):
    before = os.stat(folder / "train_x.npy").st_ino
    arrays.publish(folder, ABOUT, SHAPES, lambda maps: maps["train_x"].fill(7))
    assert os.stat(folder / "train_x.npy").st_ino == before
    assert load(folder)["train_x"].max() == 29 and names(folder.parent) == [folder.name]


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

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(OSError, match="No space left on device: .*tiny"):
        arrays.publish(tmp_path / "cache" / "tiny", ABOUT, SHAPES, fill)
    assert names(tmp_path / "cache") == []


def test_a_limit_on_file_sizes_leaves_nothing(tmp_path):
    with disk_full_after(4096), pytest.raises(OSError):
        arrays.publish(tmp_path / "cache" / "tiny", ABOUT, {"x": ((9999,), "|u1")}, lambda maps: None)
    assert names(tmp_path / "cache") == []


def test_a_killed_writer_leaves_nothing_that_counts_and_the_next_one_sweeps(tmp_path):
    code = (
        "import os, signal; from pathlib import Path; from sltlib.data import arrays\n"
        f"kill = lambda maps: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"arrays.publish(Path({str(tmp_path)!r}) / 'cache' / 'tiny', {{}}, {{'x': ((9,), '|u1')}}, kill)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT)
    cache = tmp_path / "cache"
    assert done.returncode == -signal.SIGKILL and len(names(cache)) == 1
    assert load(cache / "tiny", {}, {"x": ((9,), "|u1")}) is None
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
        loaded.append(arrays.made(tmp_path / "cache" / "tiny", ABOUT, SHAPES, slow)[0])

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(filled) == 1 and [a["train_x"].max() for a in loaded] == [29] * 4


def test_made_repairs_what_is_damaged(folder):
    (folder / "train_y.npy").write_bytes(b"")
    assert arrays.made(folder, ABOUT, SHAPES, fill)[0]["train_y"].tolist() == [4, 3, 2, 1, 0]


def test_the_hash_is_of_the_values_in_order(tmp_path):
    x = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert arrays.sha256(x) == arrays.sha256(np.asfortranarray(x)) != arrays.sha256(x.T)

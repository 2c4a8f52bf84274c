"""Results as one file: byte-equal for the same results, verified when taken, and honest about what it leaves out."""

import json
import shutil
import zipfile

import pytest

from sltlib import Experiment, run
from sltlib.__main__ import main
from sltlib.engine.packs import pack, packed, unpack
from sltlib.engine.store import BrokenResult, Store
from sltlib.notebook import sharing

TINY = dict(dataset="fashion", model="conv2", width=0.1, image_size=8, train_images=100, epochs=1, batch_size=50)
WANTED = [Experiment(**TINY, search="edge-popup", sparsity=0.5, weights="binary", seed=seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("full"))
    run(WANTED, backend="inline", store=store)
    return store


def files_of(store, key):
    return {path.name: path.read_bytes() for path in sorted((store.root / "results" / key).iterdir())}


def test_what_is_packed_comes_out_equal_without_its_ticket(full, tmp_path):
    file, other = tmp_path / "a.zip", Store(tmp_path / "other")
    assert pack(full, full.keys(), file) == 2
    assert unpack(other, file) == (2, 0) and unpack(other, file) == (0, 2)
    for e in WANTED:
        mine, theirs = full.get(e), other.get(e)
        assert theirs.metrics == mine.metrics and theirs.history == mine.history and theirs.provenance == mine.provenance
        assert (theirs.predictions().classes == mine.predictions().classes).all()
        names = {"manifest.json", "ticket.safetensors"}
        assert {n: c for n, c in files_of(other, e.key).items() if n not in names} == {
            n: c for n, c in files_of(full, e.key).items() if n not in names
        }
        with pytest.raises(ValueError, match=f"{e.key} was unpacked from a file without tickets: remove .*{e.key} and run"):
            theirs.ticket()
        with pytest.raises(ValueError, match="without tickets"):
            theirs.network()
        kept = json.loads(files_of(other, e.key)["manifest.json"])["apart"]["ticket.safetensors"]
        assert kept == json.loads(files_of(full, e.key)["manifest.json"])["files"]["ticket.safetensors"]
    assert run(WANTED, backend="inline", store=other).attrs["trained"] == 0
    assert not list((other.root / "tmp").iterdir())
    again = tmp_path / "again.zip"
    pack(other, other.keys(), again)
    assert again.read_bytes() == file.read_bytes(), "the same results make the same bytes"


def test_a_result_that_was_removed_is_trained_again_with_its_ticket(full, tmp_path):
    other, e = Store(tmp_path / "other"), WANTED[0]
    pack(full, [e.key], tmp_path / "a.zip")
    unpack(other, tmp_path / "a.zip")
    shutil.rmtree(other.get(e).path)
    run([e], backend="inline", store=other)
    assert files_of(other, e.key)["ticket.safetensors"] == files_of(full, e.key)["ticket.safetensors"]


def test_what_starts_from_a_result_without_its_ticket_says_so_in_one_line(full, tmp_path, monkeypatch, capsys):
    other, source = Store(tmp_path / "other"), WANTED[0]
    pack(full, [source.key], tmp_path / "a.zip")
    unpack(other, tmp_path / "a.zip")
    after = source.replace(search="found-mask-trained", source=source)
    with pytest.raises(RuntimeError, match=f"{source.key} was unpacked from a file without tickets: remove ") as error:
        run([after], backend="inline", store=other)
    assert "Traceback" not in str(error.value)
    monkeypatch.setenv("SLT_STORE", str(other.root))
    words = [f"{name}={value}" for name, value in source.canonical().items()]
    assert main(["run", *words]) == 0 and "left out of the file that it was unpacked from" in capsys.readouterr().out


def test_with_tickets_a_pack_is_the_whole_result(full, tmp_path):
    other = Store(tmp_path / "other")
    pack(full, full.keys(), tmp_path / "a.zip", tickets=True)
    unpack(other, tmp_path / "a.zip")
    assert [files_of(other, key) for key in other.keys()] == [files_of(full, key) for key in full.keys()]
    assert other.get(WANTED[0]).ticket() == full.get(WANTED[0]).ticket()


def rewritten(file, target, change):
    """A copy of a pack with change(name, content) in the place of each file; None leaves it out."""
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(*content if isinstance(content, tuple) else (name, content))
    return target


@pytest.mark.parametrize("name", ["metrics.json", "experiment.json", "history.csv", "provenance.json", "predictions.safetensors", "manifest.json"])
@pytest.mark.parametrize("fault", ["flipped", "absent"])
def test_damage_in_a_pack_is_left_out_and_the_rest_taken(full, tmp_path, name, fault):
    first, second = full.keys()
    pack(full, full.keys(), tmp_path / "a.zip")

    def change(member, content):
        if member != f"{first}/{name}":
            return content
        return bytes([content[0] ^ 1]) + content[1:] if fault == "flipped" else None

    said, other = [], Store(tmp_path / "other")
    assert unpack(other, rewritten(tmp_path / "a.zip", tmp_path / "b.zip", change), said.append) == (1, 0)
    assert other.keys() == [second] and len(said) == 1 and first in said[0] and "damaged" in said[0]
    assert not list((other.root / "tmp").iterdir())


def test_a_result_under_another_key_is_refused(full, tmp_path):
    """With every hash right: the description decides whose result it is."""
    first, second = full.keys()
    pack(full, [first], tmp_path / "a.zip")

    def change(member, content):
        return (member.replace(first, second), content.replace(first.encode(), second.encode()) if "manifest" in member else content)

    said, other = [], Store(tmp_path / "other")
    assert unpack(other, rewritten(tmp_path / "a.zip", tmp_path / "b.zip", change), said.append) == (0, 0)
    assert not other.keys() and second in said[0]


@pytest.mark.parametrize("name", ["../../x", "a/metrics.json", "0123456789abcdef0123/../../x", "0123456789abcdef0123/run.py", "x"])
def test_a_zip_with_other_names_is_no_pack(full, tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, "{}")
    with pytest.raises(ValueError, match="is no pack of results: it holds"):
        unpack(Store(tmp_path / "other"), tmp_path / "a.zip")
    assert not (tmp_path / "other").exists()


def test_a_file_that_is_no_zip_is_named(tmp_path):
    (tmp_path / "a.zip").write_text("hello")
    with pytest.raises(ValueError, match="a.zip is no pack of results .*`python -m sltlib pack` writes them"):
        unpack(Store(tmp_path / "other"), tmp_path / "a.zip")


def test_nothing_is_written_of_a_store_with_damage_or_without_a_key(full, tmp_path):
    with pytest.raises(ValueError, match="has no 00000000000000000000"):
        pack(full, ["0" * 20], tmp_path / "a.zip")
    broken = Store(tmp_path / "broken")
    shutil.copytree(full.root / "results", broken.root / "results")
    (broken.root / "results" / broken.keys()[0] / "metrics.json").write_text("{}")
    with pytest.raises(BrokenResult):
        pack(broken, broken.keys(), tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_the_commands(full, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SLT_STORE", str(full.root))
    assert main(["pack", str(tmp_path / "a.zip")]) == 0 and "2 results" in capsys.readouterr().out
    assert main(["pack", str(tmp_path / "b.zip"), "--profile", "smoke", "--notebook", "01"]) == 1
    assert "has no such results: nothing is written" in capsys.readouterr().err and not (tmp_path / "b.zip").exists()
    made = {e.key: e for e in (full.read(key).experiment for key in full.keys())}
    first, second = made.values()

    def ready(profile, name, claimed=False):  # 02 has recipes for what a claim compares, 03 no data, 07 no recipe and no claim
        if name == "01_first_ticket":
            yield name, {first.key: first}, ""
        elif name == "02_table1_cnn" and claimed:
            yield name, {second.key: second}, ""
        elif name == "07_patch_tickets" and claimed:
            yield name, {}, ""
        else:
            raise ValueError(f"{name}: not here,\nand why")

    monkeypatch.setattr(sharing.plan, "ready", ready)
    monkeypatch.setattr(sharing.plan, "notebooks", lambda profile, only: ["01_first_ticket", "02_table1_cnn", "03_reward1_sparsity", "07_patch_tickets"])
    file = tmp_path / "c.zip"
    assert main(["pack", str(file), "--profile", "smoke"]) == 0
    said = capsys.readouterr()
    assert "2 of 2 results" in said.out and said.err.splitlines() == [
        "02_table1_cnn: only what the claims need of it: not here, and why",
        f"03_reward1_sparsity is left out, but for what {file} has of it: not ready: not here, and why",
        f"07_patch_tickets is left out, but for what {file} has of it: not ready: not here, and why",
    ]
    monkeypatch.setattr(sharing.plan, "notebooks", lambda profile, only: ["03_reward1_sparsity"])
    assert main(["pack", str(file), "--profile", "smoke"]) == 0 and packed(file) == made.keys(), "nothing that it held is lost"
    held = file.read_bytes()
    monkeypatch.setenv("SLT_STORE", str(tmp_path / "empty"))
    for words in ([], ["--profile", "smoke"]):
        assert main(["pack", str(file), *words]) == 1 and file.read_bytes() == held
        assert f"c.zip has 2 results that {tmp_path / 'empty'} lacks, and they would be lost: `python -m sltlib unpack " in capsys.readouterr().err
    monkeypatch.setenv("SLT_STORE", str(full.root))
    file.write_bytes(b"no zip")
    assert main(["pack", str(file), "--profile", "smoke"]) == 1 and "is no pack of results" in capsys.readouterr().err
    monkeypatch.setenv("SLT_STORE", str(tmp_path / "other"))
    assert main(["unpack", str(tmp_path / "a.zip")]) == 0
    assert "2 results taken, 0 stood already" in capsys.readouterr().out
    assert main(["doctor"]) == 0

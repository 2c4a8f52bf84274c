"""DVC's data stage: what it describes, the frames that it makes, and what it refuses."""

import hashlib
import json

import pytest
from conftest import write_notebook
from test_data import folder, register_events  # noqa: F401 (a fixture)

from sltlib import data
from sltlib.base import paths
from sltlib.notebook import stage


@pytest.fixture
def profiles(tmp_path, monkeypatch):
    """A repository root with a params.yaml of its own."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "PARAMS", tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text(
        "mini:\n  a: {dataset: fashion, lr: 0.1}\n  b: {seeds: [0]}\n  c: {dataset: [fashion]}\n"
        "paper:\n  a: {dataset: cifar10}\n  b: {dataset: imagenet}\nnone:\n  a:\n"
    )
    return tmp_path


def test_prepare_describes_the_data_sets_of_a_profile(profiles, capsys):
    assert stage.main(["prepare", "--profile", "mini"]) == 0
    path = profiles / "data" / "prepared" / "mini" / "manifest.json"
    text = path.read_text()
    described = json.loads(text)
    assert list(described) == ["fashion"] and str(paths.ROOT) not in text
    test = described["fashion"]["test"]
    assert test["shape"] == [2000, 1, 28, 28] and test["images_per_class"] == [200] * 10
    x, y = data.info("fashion").read()["test"]
    assert test["sha256"] == hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest()
    assert stage.main(["prepare", "--profile", "mini"]) == 0
    assert path.read_text() == text and [p.name for p in path.parent.iterdir()] == ["manifest.json"]
    assert stage.main(["prepare", "--profile", "none"]) == 0


def test_prepare_makes_the_frames_that_notebooks_need(profiles, folder, monkeypatch, capsys):  # noqa: F811
    register_events(monkeypatch)
    monkeypatch.setattr(paths, "NOTEBOOKS", profiles / "notebooks")
    write_notebook(paths.NOTEBOOKS / "01_a.ipynb", parameters="timesteps = 2\nimage_size = 8\ndatasets = ['tiny']")
    (profiles / "params.yaml").write_text("mini:\n  01_a: {}\n  02_b: {dataset: tiny, times: [1, 3], binning: time}\n")
    assert stage.main(["prepare", "--profile", "mini"]) == 0, capsys.readouterr().err
    path = profiles / "data" / "prepared" / "mini" / "manifest.json"
    text = path.read_text()
    described = json.loads(text)["tiny"]
    assert list(described) == ["T=1 10x10 time", "T=2 8x8 count", "T=3 10x10 time"]
    x = data.load_data("tiny", 8, timesteps=2).test.x
    assert described["T=2 8x8 count"]["test"]["shape"] == list(x.shape)
    read_from = register_events(monkeypatch)
    data.forget()
    assert stage.main(["prepare", "--profile", "mini"]) == 0 and path.read_text() == text
    data.load_data("tiny", timesteps=3, binning="time")
    assert not read_from  # nothing was binned again


def test_prepare_names_all_that_is_missing_and_writes_nothing(profiles, folder, capsys):  # noqa: F811
    assert stage.main(["prepare", "--profile", "paper"]) == 1
    error = capsys.readouterr().err
    assert "cifar10: not found" in error and "imagenet" in error
    assert stage.main(["prepare", "--profile", "papre"]) == 1
    assert "params.yaml has no profile 'papre' (did you mean paper?)" in capsys.readouterr().err
    assert not (profiles / "data").exists()


def test_the_command_has_the_words_of_data_and_the_stage(folder, capsys):  # noqa: F811
    assert stage.main([]) == 0 and "fashion-dvs" in capsys.readouterr().out
    assert stage.main(["get", "cifar10-jpeg"]) == 1 and "cannot be fetched" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        stage.main(["--help"])
    text = capsys.readouterr().out
    assert all(word in text for word in ("list", "get", "use", "prepare"))

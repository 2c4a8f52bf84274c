"""Data sets: the pinned sample, splits, damage, resizing, normalising, augmenting, the command line."""

import dataclasses
import gzip
import hashlib
import importlib.util
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sltlib import Experiment, data
from sltlib.base import paths
from sltlib.data import arrays, events, reading, transforms

FASHION_MNIST = data.DATASETS["fashion-mnist"]
needs_fashion_mnist = pytest.mark.skipif(
    bool(FASHION_MNIST.problems()), reason="the full Fashion-MNIST is not on this machine"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty data folder in place of the repository's."""
    monkeypatch.setenv("SLT_DATA", str(tmp_path))
    return tmp_path


def register(monkeypatch, name, **changes):
    """Replace fields of a data set, such as the counts of tiny files in the true layout."""
    monkeypatch.setitem(data.DATASETS, name, dataclasses.replace(data.DATASETS[name], **changes))
    return data.DATASETS[name]


def idx(array):
    """An array as the bytes of an idx file."""
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def tiny_fashion_mnist(root, monkeypatch):
    """Tiny idx files in Fashion-MNIST's layout: 6 training and 2 test images a class."""
    rng = np.random.RandomState(1)
    where = root / "fashion-mnist"
    where.mkdir()
    arrays = []
    for count in (60, 20):
        arrays += [rng.randint(0, 256, (count, 28, 28)), rng.permutation(np.arange(count) % 10)]
    raws = dict(zip(FASHION_MNIST.files, map(idx, arrays), strict=True))
    for name, raw in raws.items():
        (where / name).write_bytes(gzip.compress(raw, mtime=0))
    register(
        monkeypatch,
        "fashion-mnist",
        places=("fashion-mnist",),
        counts={"train": 50, "val": 10, "test": 20},
        files={name: len(raw) for name, raw in raws.items()},
        sha256={name: hashlib.sha256(raw).hexdigest() for name, raw in raws.items()},
    )
    return arrays, where


def test_nothing_heavy_is_imported():
    code = "import sys, sltlib.data as d; d.check(['fashion']); d.table(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT).returncode == 0


# --- the embedded sample


def test_sample_has_its_sizes_balance_and_values():
    splits = data.info("fashion").read()
    for split, each in (("train", 800), ("val", 100), ("test", 200)):
        x, y = splits[split]
        assert x.shape == (10 * each, 1, 28, 28) and x.dtype == np.uint8 and y.dtype == np.int64
        assert np.bincount(y).tolist() == [each] * 10
    # pinned: another choice or order of images is another data set
    assert splits["train"][1][:10].tolist() == list(range(10))
    assert [int(splits[s][0].sum(dtype=np.int64)) for s in data.SPLITS] == SAMPLE_SUMS


SAMPLE_SUMS = [458882569, 58009553, 115163600]


def test_no_image_is_in_two_splits():
    seen = {s: {image.tobytes() for image in x} for s, (x, _) in data.info("fashion").read().items()}
    assert all(len(seen[s]) == n for s, n in data.info("fashion").counts.items())
    assert (
        not seen["train"] & seen["val"]
        and not seen["train"] & seen["test"]
        and not seen["val"] & seen["test"]
    )


@needs_fashion_mnist
def test_sample_holds_official_images_with_their_labels():
    train, test = data.read_idx(FASHION_MNIST, FASHION_MNIST.find())
    label_of = [{x.tobytes(): y for x, y in zip(*half, strict=True)} for half in (train, test)]
    for split, (x, y) in data.info("fashion").read().items():
        official = label_of[split == "test"]
        assert all(official[image.tobytes()] == label for image, label in zip(x, y, strict=True))


def load_script():
    spec = importlib.util.spec_from_file_location(
        "make_sample", paths.ROOT / "data" / "make_fashion_sample.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs_fashion_mnist
def test_script_makes_the_committed_sample_again(tmp_path, capsys):
    assert load_script().main(FASHION_MNIST.find(), tmp_path) == 0, capsys.readouterr().err
    committed = paths.ROOT / "data" / "fashion" / "fashion-sample.xz"
    assert (tmp_path / "fashion-sample.xz").read_bytes() == committed.read_bytes()


def test_script_refuses_other_sources_and_writes_nothing(tmp_path, monkeypatch, capsys):
    arrays, where = tiny_fashion_mnist(tmp_path, monkeypatch)
    name = next(iter(FASHION_MNIST.files))
    raw = bytearray(gzip.decompress((where / name).read_bytes()))
    raw[-1] ^= 1
    (where / name).write_bytes(gzip.compress(bytes(raw)))
    target = tmp_path / "out"
    target.mkdir()
    assert load_script().main(where, target) == 1
    assert "sha256" in capsys.readouterr().err and not list(target.iterdir())


@pytest.mark.parametrize("damage", ["truncated", "one byte flipped", "empty"])
def test_damaged_sample_is_refused(folder, monkeypatch, damage):
    raw = bytearray((paths.ROOT / "data" / "fashion" / "fashion-sample.xz").read_bytes())
    raw[len(raw) // 2] ^= damage == "one byte flipped"
    keep = {"truncated": len(raw) - 1, "empty": 0}.get(damage, len(raw))
    (folder / "fashion").mkdir()
    (folder / "fashion" / "fashion-sample.xz").write_bytes(raw[:keep])
    with pytest.raises(ValueError, match=r"damaged .*git checkout data/fashion"):
        data.load_data("fashion")
    if damage != "one byte flipped":  # a quick look sees sizes, reading sees every byte
        with pytest.raises(ValueError, match="damaged"):
            data.check(["fashion"])


def test_sample_is_found_when_the_data_folder_is_elsewhere(folder):
    assert data.info("fashion").find() == paths.ROOT / "data" / "fashion"


# --- splits


@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_every_prefix_is_balanced(seed, classes, each):
    labels = np.random.RandomState(seed).permutation(np.repeat(np.arange(classes), each))
    order = data.balanced(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    for n in range(len(labels) + 1):
        counts = np.bincount(labels[order[:n]], minlength=classes)
        assert counts.max() - counts.min() <= 1


@given(st.integers(0, 10**6), st.lists(st.integers(1, 40), min_size=1, max_size=12), st.booleans())
@settings(max_examples=100, deadline=None)
def test_every_part_of_an_unbalanced_set_holds_each_class_in_proportion(seed, counts, dominant):
    """The last of an unbalanced set were the leftovers of its larger classes: no digit 5 in N-MNIST's validation."""
    counts = [500, *counts] if dominant else counts
    labels = np.random.RandomState(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    order = data.balanced(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    held = (labels[order][:, None] == np.arange(len(counts))).cumsum(0)  # (N, classes), of each prefix
    share = np.outer(np.arange(1, len(labels) + 1), counts) / len(labels)
    assert np.abs(held - share).max() < 1  # and so those of each suffix: whole minus prefix


def test_splits_of_unbalanced_sets_by_hand():
    labels = np.repeat([0, 1, 2], [10, 20, 30])
    assert np.bincount(labels[data.balanced(labels)[-12:]]).tolist() == [2, 4, 6]
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]  # MNIST's digits
    labels = np.repeat(np.arange(10), counts)
    val = np.bincount(labels[data.balanced(labels)[-5000:]], minlength=10)
    assert np.abs(val - np.array(counts) / 12).max() < 1


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_classes_of_one_size_take_turns_as_they_always_did(seed, classes, each):
    labels = np.random.RandomState(seed).permutation(np.repeat(np.arange(classes), each))
    order = np.random.RandomState(seed).permutation(len(labels))
    turn = np.empty(len(labels), np.int64)
    for label in range(classes):
        own = labels[order] == label
        turn[own] = np.arange(own.sum())
    assert data.balanced(labels, seed).tolist() == order[np.lexsort((labels[order], turn))].tolist()


def test_order_is_random_within_a_class_and_depends_on_the_seed():
    labels = np.arange(1000) % 10
    first = data.balanced(labels, 0)[::10]
    assert np.any(np.diff(first) < 0) and np.any(first != data.balanced(labels, 1)[::10])
    assert data.balanced(labels, 0)[:5].tolist() == ORDER


ORDER = [310, 971, 672, 993, 784]


def test_fashion_mnist_splits_the_official_training_set(folder, monkeypatch):
    (x, y, x_test, y_test), _ = tiny_fashion_mnist(folder, monkeypatch)
    splits = data.info("fashion-mnist").read()
    assert np.bincount(splits["val"][1]).tolist() == [1] * 10
    both = np.concatenate([splits["train"][0], splits["val"][0]])[:, 0]
    labels = np.concatenate([splits["train"][1], splits["val"][1]])
    want = sorted((image.astype(np.uint8).tobytes(), label) for image, label in zip(x, y, strict=True))
    assert sorted((image.tobytes(), label) for image, label in zip(both, labels, strict=True)) == want
    assert np.array_equal(splits["test"][0][:, 0], x_test) and np.array_equal(splits["test"][1], y_test)


@needs_fashion_mnist
def test_whole_fashion_mnist_reads():
    splits = FASHION_MNIST.read()
    assert {split: len(y) for split, (_, y) in splits.items()} == FASHION_MNIST.counts
    assert np.bincount(splits["val"][1]).tolist() == [500] * 10


def test_class_names_are_as_many_as_classes():
    counts = {name: len(set(found.classes)) for name, found in data.DATASETS.items()}
    assert counts == dict.fromkeys(data.DATASETS, 10) | {"cifar100": 100, "dvs128-gesture": 11}
    assert data.DATASETS["cifar100"].classes == tuple(sorted(data.DATASETS["cifar100"].classes))


# --- damage and wrong arguments


def test_wrong_counts_are_refused(folder, monkeypatch):
    tiny_fashion_mnist(folder, monkeypatch)
    register(monkeypatch, "fashion-mnist", counts={"train": 50, "val": 10, "test": 21})
    with pytest.raises(ValueError, match="Fashion-MNIST is not what it should be: test: 20 images, want 21: on Debian"):
        data.info("fashion-mnist").read()


def test_truncated_archive_is_refused(folder, monkeypatch):
    _, where = tiny_fashion_mnist(folder, monkeypatch)
    data.check(["fashion-mnist"])
    images, labels, *_ = (where / name for name in FASHION_MNIST.files)
    whole = images.read_bytes()
    images.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match=f"{images.name} is damaged"):
        data.check(["fashion-mnist"])
    # damage that leaves the length alone
    images.write_bytes(whole[:200] + bytes([whole[200] ^ 255]) + whole[201:])
    with pytest.raises(ValueError, match=images.name):
        data.load_data("fashion-mnist")
    images.write_bytes(whole)
    labels.write_bytes(
        gzip.compress(idx(np.zeros((60, 28, 28)))[: data.info("fashion-mnist").files[labels.name]])
    )
    register(monkeypatch, "fashion-mnist", sha256={})
    with pytest.raises(ValueError, match="no idx file of 1 dimensions"):
        data.load_data("fashion-mnist")


def test_check_names_every_problem_at_once(folder, monkeypatch):
    _, where = tiny_fashion_mnist(folder, monkeypatch)
    (where / next(iter(FASHION_MNIST.files))).unlink()
    with pytest.raises(ValueError) as error:
        data.check({"fashion": 8001, "fashoin": 0, "cifar10": 0, "fashion-mnist": 0})
    lines = str(error.value).splitlines()[1:]
    assert len(lines) == 4
    assert "train_images=8001" in lines[0] and "fashoin" in lines[1] and "did you mean fashion" in lines[1]
    assert lines[2].startswith("cifar10: not found") and "cifar-10-binary.tar.gz" in lines[2]
    assert "train-images-idx3-ubyte.gz is missing" in lines[3]
    data.check(["fashion", "fashion"])


def test_a_whole_copy_is_preferred_to_a_partial_one(folder, monkeypatch):
    _, where = tiny_fashion_mnist(folder, monkeypatch)
    partial = folder / "partial"
    partial.mkdir()
    shutil.copy(where / next(iter(FASHION_MNIST.files)), partial)
    register(monkeypatch, "fashion-mnist", places=("partial", "fashion-mnist"))
    assert data.info("fashion-mnist").find() == where


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "fashon"}, ["fashon", "fashion", "did you mean"]),
        ({"name": ["fashion"]}, ["is not known"]),
        ({"name": "fashion", "train_images": 8001}, ["8001", "has 8000 training images"]),
        ({"name": "x", "image_size": 7, "train_images": -1}, ["'x'", "image_size=7", "train_images=-1"]),
        ({"name": "fashion", "image_size": 14.0}, ["image_size=14.0"]),
        ({"name": "fashion", "train_images": 1}, ["train_images=1", "2 or more"]),
        ({"name": "cifar10"}, ["not found", "cifar-10-binary.tar.gz"]),
    ],
)
def test_wrong_arguments_are_named_at_once(folder, arguments, words):
    with pytest.raises(ValueError) as error:
        data.load_data(**arguments)
    assert all(word in str(error.value) for word in words)


# --- added data sets


GOOD = {"train": 8, "val": 4, "test": 4}


def added(monkeypatch, change=lambda split, x, y: (x, y), reader=None, **fields):
    """A data set "added", whose splits are changed before they are given."""

    def read(info, folder):
        made = {}
        for split, n in GOOD.items():
            x, y = np.arange(n * 100, dtype=np.uint8).reshape(n, 1, 10, 10), np.arange(n) % 2
            made[split] = change(split, x, y)
        return made

    fields = {"channels": 1, "size": 10, "classes": ("a", "b"), "counts": GOOD} | fields
    fields |= {"title": "Added", "places": (".",), "files": {}, "needs": "nothing", "how": "mend its reader"}
    monkeypatch.setitem(data.DATASETS, "added", data.Info(**fields, reader=reader or read))


def only(split, new):
    """A change of one split."""
    return lambda s, x, y: new(x, y) if s == split else (x, y)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (only("train", lambda x, y: (x / 255, y)), "train: the images are float64 from 0 to 1, want uint8 from 0 to 255"),
        (only("val", lambda x, y: (x.astype(int) * 16, y)), "val: the images are int64 from 0 to 4080, want uint8"),
        (only("test", lambda x, y: (x.astype(np.uint16), y)), "test: the images are uint16 from 0 to 255, want uint8"),
        (only("test", lambda x, y: (x[:, 0], y)), r"test: the images are (4, 10, 10), want (N, C, H, W) with (C, H, W) = (1, 10, 10)"),
        (only("train", lambda x, y: (x[..., :9], y)), "the images are (8, 1, 10, 9), want"),
        (only("train", lambda x, y: (x.transpose(0, 2, 3, 1), y)), "the images are (8, 10, 10, 1), want"),
        (only("train", lambda x, y: (x, y + 1)), "train: the labels are 1 to 2, want 0 to 1"),
        (only("val", lambda x, y: (x, np.where(y == 1, -100, y))), "val: the labels are -100 to 0, want 0 to 1"),
        (only("val", lambda x, y: (x, y.astype(float))), "val: the labels are float64 (4,), want whole numbers (N,)"),
        (only("val", lambda x, y: (x, np.eye(2, dtype=int)[y])), "val: the labels are int64 (4, 2), want whole numbers (N,)"),
        (only("test", lambda x, y: (x[:0], y[:0])), "test: 0 images, want 4"),
        (only("test", lambda x, y: (x, y[:3])), "test: 4 images have 3 labels, want one each"),
        (only("train", lambda x, y: (x[:7], y[:7])), "train: 7 images, want 8"),
        (only("train", lambda x, y: (x.tolist(), y)), "train: the reader gives ['list', 'ndarray'], want (images, labels), two NumPy arrays"),
        (only("train", lambda x, y: x), "train: the reader gives ndarray, want (images, labels)"),
        (lambda s, x, y: (x / 255, y + 1), "want uint8 from 0 to 255 (scale and round them in the reader); train: the labels are 1 to 2"),
    ],
)  # fmt: skip
def test_what_a_reader_gives_is_checked_and_one_error_names_it(folder, monkeypatch, change, words):
    """Floats became 0 and 1 and trained, 12 bits wrapped, labels from 1 ended in an index that is out of range."""
    added(monkeypatch, change)
    with pytest.raises(ValueError) as error:
        data.load_data("added")
    assert str(error.value).startswith("Added is not what it should be: ") and words in str(error.value)
    assert str(error.value).endswith(": mend its reader")


@pytest.mark.parametrize(
    ("given", "words"), [(None, "the reader gives NoneType"), ({"train": 0, "test": 0}, "gives ['test', 'train'], want {split: ...}")]
)
def test_a_reader_that_gives_other_splits_is_told(folder, monkeypatch, given, words):
    added(monkeypatch, reader=lambda info, folder: given)
    with pytest.raises(ValueError) as error:
        data.load_data("added")
    assert words in str(error.value) and "train, val, test" in str(error.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"counts": GOOD | {"test": 0}}, "counts={'train': 8, 'val': 4, 'test': 0}: give train (2 or more"),
        ({"counts": GOOD | {"train": 1}}, "give train (2 or more"),
        ({"counts": {"train": 8, "test": 4}}, "counts={'train': 8, 'test': 4}: give"),
        ({"size": (10, 12)}, "size=(10, 12): give the pixels of a side; images are square"),
        ({"channels": 0}, "channels=0: give 1 or more"),
        ({"channels": 1, "event": True}, "channels=1: give the two polarities, 2"),
        ({"classes": ("a",)}, "classes=('a',): give two names or more"),
        ({"reader": "read"}, "reader='read': give a function"),
    ],
)
def test_an_entry_that_is_no_data_set_is_refused_at_once(monkeypatch, fields, words):
    with pytest.raises(ValueError) as error:
        added(monkeypatch, **fields)
    assert str(error.value).startswith("data set 'Added': ") and words in str(error.value)


def test_a_good_added_set_loads_and_its_small_labels_are_widened(folder, monkeypatch):
    added(monkeypatch, lambda s, x, y: (x, y.astype(np.uint8)))
    loaded = data.load_data("added")
    assert loaded.train.y.dtype == torch.int64 and loaded.test.y.tolist() == [0, 1, 0, 1] and not Experiment("added").event
    first = loaded.train.x
    added(monkeypatch, lambda s, x, y: (255 - x, y))  # another set of that name is not the one in memory
    assert not torch.equal(data.load_data("added").train.x, first)
    for call in (lambda: data.load_data("added", 8, 1), lambda: data.check({"added": 1}), lambda: Experiment("added", train_images=1)):
        with pytest.raises(ValueError, match="train_images=1: give 0 .*2 or more"):
            call()
    with pytest.raises(ValueError, match="train_images=9: added has 8 training images"):
        data.load_data("added", 8, 9)


# --- event data


def register_events(monkeypatch, labels=(30, 10, 10), sensor=10, counts=None, **changes):
    """An event data set "tiny" whose recordings i of a split hold i + 1 ON events of pixel (i % sensor, 2)."""
    read_from = []

    def reader(info, folder):
        def recordings(n, source):
            def read(indices):
                read_from.append(source)
                for i in indices:
                    made = np.zeros(i + 1, events.EVENT)
                    made["t"], made["x"], made["y"], made["p"] = np.arange(i + 1), i % sensor, 2, 1
                    yield made

            return events.Recordings(np.arange(n) % 10, (sensor, sensor), changes.get("source", source), read)

        return {s: recordings(n, s) for s, n in zip(data.SPLITS, labels, strict=True)}

    tiny = data.Info(
        title="Tiny recordings",
        channels=2,
        size=sensor,
        classes=tuple("0123456789"),
        counts=counts or {"train": 30, "val": 10, "test": 10},
        places=(".",),
        files={},
        reader=reader,
        needs="nothing",
        how="it is computed",
        event=True,
        packages=changes.get("packages", ()),
    )
    monkeypatch.setitem(data.DATASETS, "tiny", tiny)
    return read_from


def test_an_added_set_of_recordings_is_one_for_experiments_too(folder, monkeypatch):
    assert not Experiment("tiny").event and Experiment("tiny", binning="time").key == Experiment("tiny").key
    register_events(monkeypatch)
    assert Experiment("tiny").event and Experiment("tiny", binning="time").key != Experiment("tiny").key
    assert {name for name in data.DATASETS if Experiment(name).event} == EVENTS | {"tiny"}


EVENTS = {"fashion-dvs", "fashion-mnist-dvs", "n-mnist", "n-mnist-small", "dvs128-gesture", "cifar10-dvs"}


def test_the_version_of_a_sets_numbers_is_a_part_of_keys():
    """Where counts were cut off or splits were not in proportion; all other keys are what they were."""
    assert {name for name in data.DATASETS if data.version(name) == 2} == EVENTS - {"fashion-dvs", "fashion-mnist-dvs"}
    assert data.version("none") == data.version("fashion-dvs", 17, 1) == data.version("fashion-dvs", 8, 3) == 1
    assert data.version("fashion-dvs", 8, 1) == data.version("fashion-dvs", 8, 2) == data.version("fashion-dvs", 10, 1) == 2
    assert Experiment("n-mnist").canonical()["data_version"] == 2 and "data_version" not in Experiment("fashion-dvs").canonical()
    assert Experiment.from_spec(Experiment("n-mnist").canonical()) == Experiment("n-mnist")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(labels=np.arange(30) % 10 + 1), "train: the labels are 1 to 10, want 0 to 9"),
        (dict(labels=np.arange(29) % 10), "train: 29 recordings, want 30"),
        (dict(sensor=(10, 9)), r"train: the sensor is \(10, 9\), want \(height, width\) of 10 or more"),
        (dict(read=lambda indices: iter([])), "Tiny recordings, train: 30 recordings are promised, and reading them gives 0"),
        (dict(read=lambda indices: iter([np.zeros((1, 4))])), "Tiny recordings, train: recording 0: events are float64"),
    ],
)
def test_added_recordings_are_checked(folder, monkeypatch, change, words):
    register_events(monkeypatch)
    read = data.info("tiny").reader

    def changed(info, folder):
        splits = read(info, folder)
        return splits | {"train": dataclasses.replace(splits["train"], **change)}

    monkeypatch.setitem(data.DATASETS, "tiny", dataclasses.replace(data.info("tiny"), reader=changed))
    with pytest.raises(ValueError, match=words):
        data.load_data("tiny")
    assert not list((folder / "frames").glob("*/*/manifest.json"))


def test_no_event_is_lost_on_the_way_into_a_network(folder, monkeypatch):
    """Counts above 255 were 255: a quarter of a gesture's events. The last of 300 recordings has 300 at one pixel."""
    register_events(monkeypatch, labels=(300, 10, 10), counts={"train": 300, "val": 10, "test": 10})
    loaded = data.load_data("tiny", timesteps=1)
    x = loaded.train.x
    assert x.dtype == loaded.val.x.dtype == torch.int16 and x.shape == (300, 1, 2, 10, 10)
    assert x.sum((1, 2, 3, 4)).tolist() == list(range(1, 301)) and x[299, 0, 1, 2, 9] == 300
    assert loaded.mean == (0.0, 0.0)
    assert loaded.std[1] == pytest.approx((x[:, :, 1].double() / 255).square().mean().sqrt().item(), rel=1e-12)
    batch = loaded.batch(x, torch.arange(300))
    assert batch[299, 0, 1, 2, 9].item() == pytest.approx(300 / 255 / loaded.std[1], rel=1e-6)
    views = loaded.batch(x, torch.arange(300), "crop-flip", torch.Generator().manual_seed(0))
    assert views[295].max() == batch[295].max()  # 296 events in the middle: no crop loses them
    data.forget()
    read_from = register_events(monkeypatch, labels=(300, 10, 10), counts={"train": 300, "val": 10, "test": 10})
    assert torch.equal(data.load_data("tiny", timesteps=1).train.x, x) and not read_from  # kept as wide as they are
    assert data.load_data("tiny", timesteps=2).train.x.dtype == torch.uint8  # as narrow as they may be


def test_frames_of_other_labels_or_another_sensor_are_not_those_that_are_kept(folder, monkeypatch):
    register_events(monkeypatch, source="one")
    first = data.load_data("tiny")
    read = data.info("tiny").reader

    def turned(info, folder):
        return {s: dataclasses.replace(part, labels=part.labels[::-1].copy()) for s, part in read(info, folder).items()}

    monkeypatch.setitem(data.DATASETS, "tiny", dataclasses.replace(data.info("tiny"), reader=turned))
    assert data.load_data("tiny").train.y.tolist() == first.train.y.tolist()[::-1]


def test_what_is_kept_can_be_examined(folder, monkeypatch, capsys):
    assert data.examine() == []
    register_events(monkeypatch)
    data.load_data("tiny")
    assert data.examine() == []
    (path,) = (folder / "frames" / "tiny").glob("*/val_x.npy")
    raw = bytearray(path.read_bytes())
    raw[20] ^= 4  # of the header: this ended every run with an error of Python's tokenizer
    path.unlink()
    path.write_bytes(raw)
    assert data.examine() == [(path.parent, "the header of val_x.npy is not the one that was written")]
    data.forget()
    data.load_data("tiny")
    assert f"{path.parent} is damaged (" in capsys.readouterr().err and data.examine() == []


def test_recordings_load_as_frames(folder, monkeypatch):
    register_events(monkeypatch)
    loaded = data.load_data("tiny", timesteps=3)
    assert loaded.train.x.shape == (30, 3, 2, 10, 10) and loaded.train.x.dtype == torch.uint8
    assert loaded.train.y.tolist() == list(np.arange(30) % 10) and len(loaded.val) == len(loaded.test) == 10
    # six ON events at (5, 2), two in each slice
    assert loaded.test.x[5, :, 1, 2, 5].tolist() == [2, 2, 2] and loaded.test.x[5].sum() == 6
    assert data.load_data("tiny", 8, 20, timesteps=2, binning="time").train.x.shape == (20, 2, 2, 8, 8)


def test_frames_are_binned_once_for_each_setting(folder, monkeypatch):
    read_from = register_events(monkeypatch)
    settings = [(0, 4, "count"), (0, 4, "time"), (0, 2, "count"), (8, 4, "count")]
    for image_size, timesteps, binning in settings * 2:
        data.forget()
        data.load_data("tiny", image_size, timesteps=timesteps, binning=binning)
        data.load_data("tiny", image_size, 10, timesteps=timesteps, binning=binning)  # fewer are the same frames
    assert len(read_from) == 3 * len(settings)
    folders = [path for path in (folder / "frames" / "tiny").iterdir() if path.is_dir()]
    assert len(folders) == len(settings) and all(len(path.name) == 16 for path in folders)
    register_events(monkeypatch, source="other")
    data.load_data("tiny")
    assert sum(path.is_dir() for path in (folder / "frames" / "tiny").iterdir()) == len(settings) + 1
    monkeypatch.setattr(reading, "BINNED", -1)  # another way to bin
    data.forget()
    data.load_data("tiny")
    assert sum(path.is_dir() for path in (folder / "frames" / "tiny").iterdir()) == len(settings) + 2


def test_damaged_frames_are_binned_again(folder, monkeypatch):
    read_from = register_events(monkeypatch)
    before = data.load_data("tiny")
    (path,) = (folder / "frames" / "tiny").glob("*/train_x.npy")
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.unlink()  # `before` is a map of the old file
    path.write_bytes(raw)
    data.forget()
    after = data.load_data("tiny")
    assert len(read_from) == 6 and torch.equal(after.train.x, before.train.x)
    assert after.fingerprint == before.fingerprint


def test_frames_keep_cells_without_events_at_zero(folder, monkeypatch):
    register_events(monkeypatch)
    loaded = data.load_data("tiny", timesteps=3)
    x = loaded.train.x
    assert loaded.mean == (0.0, 0.0) and loaded.std[0] == 1.0  # no OFF events at all
    on = x[:, :, 1].double() / 255
    assert loaded.std[1] == pytest.approx(on.square().mean().sqrt().item(), rel=1e-12)
    batch = loaded.batch(x, torch.tensor([4, 0]))
    assert batch.shape == (2, 3, 2, 10, 10) and torch.equal(batch == 0, x[[4, 0]] == 0)
    whole = loaded.batch(x, torch.arange(30))
    assert whole[:, :, 1].square().mean().item() == pytest.approx(1, rel=1e-5)
    views = loaded.batch(x, torch.arange(30), "crop-flip", torch.Generator().manual_seed(0))
    assert views.shape == whole.shape and not torch.equal(views, whole)


def test_frames_of_one_setting_share_one_fingerprint(folder, monkeypatch):
    register_events(monkeypatch)
    prints = [data.load_data("tiny", timesteps=t).fingerprint for t in (2, 3)]
    assert prints[0] == data.load_data("tiny", train_images=10, timesteps=2).fingerprint != prints[1]
    splits, again = reading.splits("tiny", 2, 10, "count")
    assert again == prints[0] == reading.fingerprint(arrays.sha256(part) for s in data.SPLITS for part in splits[s])


def test_images_ignore_how_recordings_are_binned(folder):
    first = data.load_data("fashion", 8, 100)
    assert data.load_data("fashion", 8, 100, timesteps=9, binning="time") is first
    assert first.fingerprint == data.load_data("fashion", 0, 200).fingerprint == SAMPLE_FINGERPRINT


SAMPLE_FINGERPRINT = "0ea4caa8a17c41b0"


def test_wrong_event_arguments_are_named_at_once(folder, monkeypatch):
    register_events(monkeypatch)
    with pytest.raises(ValueError) as error:
        data.load_data("tiny", 8.0, timesteps=0, binning="events")
    for words in ("image_size=8.0", "timesteps=0", "binning='events': choose from count, time"):
        assert words in str(error.value)
    with pytest.raises(ValueError, match="image_size=11: the sensor of tiny has 10 pixels a side"):
        data.load_data("tiny", 11)
    with pytest.raises(ValueError, match="tiny has 30 training recordings"):
        data.load_data("tiny", train_images=31)
    register_events(monkeypatch, labels=(30, 10, 9))
    with pytest.raises(ValueError, match="test: 9 recordings, want 10"):
        data.load_data("tiny")
    assert not (folder / "frames").exists()


def test_a_missing_package_is_told_with_its_install_line_unless_frames_are_there(folder, monkeypatch):
    register_events(monkeypatch, packages=("no_such_package",))
    with pytest.raises(ValueError, match=r"needs no_such_package: pip install .*-e '\.\[events\]'"):
        data.check(["tiny"])
    data.load_data("tiny")
    data.check(["tiny"])


def test_missing_folders_of_recordings_are_named(folder):
    (folder / "n-mnist" / "Train").mkdir(parents=True)
    with pytest.raises(ValueError) as error:
        data.check(["n-mnist", "dvs128-gesture"])
    assert f"{folder / 'n-mnist' / 'Test'} is missing: `python -m sltlib data get n-mnist`" in str(error.value)
    assert f"not found in {folder / 'dvs128-gesture'}" in str(error.value)


def test_folders_of_too_few_recordings_are_no_data_set(folder, capsys):
    for half in ("Train", "Test"):
        (folder / "n-mnist" / half).mkdir(parents=True)
    with pytest.raises(ValueError, match="n-mnist: N-MNIST has 0 .bin recordings in .*Train, want 60,000"):
        data.check(["n-mnist"])
    data.main([])
    assert f"found in {folder / 'n-mnist'}\n" not in capsys.readouterr().out


# --- tensors


def test_loaded_splits_and_their_moments():
    loaded = data.load_data("fashion", train_images=200)
    assert loaded.train.x.shape == (200, 1, 28, 28) and loaded.train.x.dtype == torch.uint8
    assert loaded.train.y.dtype == torch.int64 and torch.bincount(loaded.train.y).tolist() == [20] * 10
    assert (len(loaded.val), len(loaded.test)) == (1000, 2000)
    pixels = loaded.train.x.double() / 255
    assert loaded.mean == pytest.approx((pixels.mean().item(),), abs=1e-12)
    assert loaded.std == pytest.approx((pixels.std(correction=0).item(),), abs=1e-12)
    assert torch.equal(loaded.train.x, data.load_data("fashion").train.x[:200])
    assert data.load_data("fashion", train_images=200) is loaded


def test_moments_are_per_channel_and_a_blank_channel_is_left_alone():
    x = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    x[:, 1], x[:2, 2] = 255, 255
    assert transforms.moments(x) == ((0.0, 1.0, 0.5), (1.0, 1.0, 0.5))


def test_a_batch_is_normalised_by_the_training_split():
    loaded = data.load_data("fashion", 14)
    index = torch.tensor([5, 0, 5])
    batch = loaded.batch(loaded.test.x, index)
    want = (loaded.test.x[index].double() / 255 - loaded.mean[0]) / loaded.std[0]
    assert batch.dtype == torch.float32 and batch.shape == (3, 1, 14, 14)
    assert torch.allclose(batch.double(), want, atol=1e-5)
    whole = loaded.batch(loaded.train.x, torch.arange(8000))
    assert abs(whole.mean()) < 1e-4 and abs(whole.std() - 1) < 1e-4


def test_moments_of_wide_counts_are_exact():
    x = torch.tensor([70_000] + [3] * 1500, dtype=torch.int32).reshape(-1, 1, 1, 1, 1)  # more than are summed at once
    assert transforms.scale(x)[1][0] == pytest.approx((x.double() / 255).square().mean().sqrt().item(), rel=1e-12)


def test_normalise_uses_each_channels_own_moments():
    x = torch.randint(0, 256, (2, 5, 2, 4, 4), dtype=torch.uint8)  # frames (B, T, 2, H, W)
    out = data.normalise(x, (0.25, 0.5), (0.5, 2.0))
    want = (x.double() / 255 - torch.tensor([0.25, 0.5])[:, None, None]) / torch.tensor([0.5, 2.0])[
        :, None, None
    ]
    assert torch.allclose(out.double(), want, atol=1e-6)


def test_halving_takes_exact_means_of_two_by_two():
    x = np.random.RandomState(0).randint(0, 256, (30, 3, 28, 28), np.uint8)
    sums = x.reshape(30, 3, 14, 2, 14, 2).sum((3, 5))
    assert np.array_equal(data.resize(x, 14), (sums + 2) // 4)


@given(st.integers(8, 40), st.integers(8, 40), st.integers(8, 40))
@settings(max_examples=40, deadline=None)
def test_resizing_is_adaptive_average_pooling(height, width, size):
    x = np.random.RandomState(height * 41 + width).randint(0, 256, (2, 2, height, width), np.uint8)
    out = data.resize(x, size)
    want = torch.nn.functional.adaptive_avg_pool2d(torch.tensor(x, dtype=torch.float64), size).numpy()
    assert out.shape == (2, 2, size, size) and out.dtype == np.uint8
    assert np.abs(out - want).max() <= 0.5 + 1e-9


def test_sums_of_large_images_are_exact():
    """A cell of 300x300 white pixels and one grey one is beyond the whole numbers of 32-bit floats."""
    x = np.full((1, 1, 2400, 2400), 255, np.uint8)
    x[0, 0, :300, :300].flat[: 300 * 300 // 2] = 254  # the mean is halfway: rounded up
    x[0, 0, :300, 300:600].flat[: 300 * 300 // 2 + 1] = 254  # a pixel less: rounded down
    assert data.resize(x, 8)[0, 0, 0, :3].tolist() == [255, 254, 255]


def test_resizing_a_set_in_parts_is_resizing_each_image():
    x = np.random.RandomState(0).randint(0, 256, (2100, 1, 10, 10), np.uint8)
    assert np.array_equal(
        data.resize(x, 8), np.concatenate([data.resize(x[i : i + 1], 8) for i in range(2100)])
    )


# --- augmentation


def reference_view(x, dy, dx, flip, pad_y, pad_x):
    """One image (C, H, W) padded, cut and flipped the plain way."""
    _, h, w = x.shape
    padded = torch.nn.functional.pad(x, (pad_x, pad_x, pad_y, pad_y))
    view = padded[:, dy : dy + h, dx : dx + w]
    return view.flip(2) if flip else view


@given(st.sampled_from(["crop", "crop-flip"]), st.integers(0, 1000), st.sampled_from([(16, 16), (14, 24)]))
@settings(max_examples=30, deadline=None)
def test_each_augmented_image_is_one_crop_of_its_own(kind, seed, size):
    h, w = size
    x = torch.randint(1, 256, (6, 2, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    out = data.augment(x, kind, torch.Generator().manual_seed(seed))
    assert out.dtype == torch.uint8 and out.shape == x.shape
    for image, got in zip(x, out, strict=True):
        views = [
            reference_view(image, dy, dx, flip, h // 8, w // 8)
            for dy in range(2 * (h // 8) + 1)
            for dx in range(2 * (w // 8) + 1)
            for flip in ([False, True] if "flip" in kind else [False])
        ]
        assert sum(torch.equal(got, view) for view in views) == 1


def test_every_crop_and_both_flips_occur_about_equally():
    x = torch.arange(1, 257, dtype=torch.float32).reshape(1, 1, 16, 16).expand(9000, 1, 16, 16)
    out = data.augment(x, "crop-flip", torch.Generator().manual_seed(0))
    centre = out[:, 0, 8, 7:9].long() - 1  # two neighbours tell the offset and the flip
    kinds, counts = torch.unique(centre, dim=0, return_counts=True)
    assert len(kinds) == 2 * 5 * 5  # pad 2 on each side
    assert counts.min() > 120 and counts.max() < 240


def test_cutout_blanks_a_square_of_half_the_size():
    x = torch.ones(4000, 1, 16, 16)
    cropped = data.augment(torch.ones(4000, 1, 48, 48), "crop-flip-cutout", torch.Generator().manual_seed(0))
    blank = (cropped[:, 0, 12:36, 12:36] == 0).flatten(1).sum(1)  # away from the padding
    assert blank.max() == 24 * 24 and blank.min() == 0
    out = data.augment(x, "crop-flip-cutout", torch.Generator().manual_seed(1))[:, 0] == 0
    plain = data.augment(x, "crop-flip", torch.Generator().manual_seed(1))[:, 0] == 0
    assert torch.all(out | ~plain)  # the same views, with more blanked
    extra = (out & ~plain).flatten(1).sum(1)
    assert extra.max() == 64 and extra.float().mean() > 36
    rate = (out & ~plain).float().mean((0, 1))[3:13]  # by column, away from the crop's padding
    assert (rate - rate.flip(0)).abs().max() < 0.1  # around its pixel, not to one side of it


def test_augmentation_is_the_generators_and_leaves_its_input_alone():
    x = torch.randint(0, 256, (32, 1, 16, 16), dtype=torch.uint8)
    before = x.clone()
    views = [data.augment(x, "crop-flip-cutout", torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(views[0], views[1]) and not torch.equal(views[0], views[2]) and torch.equal(x, before)
    generator = torch.Generator().manual_seed(0)
    state = torch.get_rng_state()
    first, second = (data.augment(x, "crop", generator) for _ in range(2))
    assert not torch.equal(first, second) and torch.equal(torch.get_rng_state(), state)
    assert data.augment(x, "none", None) is x


def test_frames_of_a_recording_share_one_view():
    frame = torch.randint(1, 256, (8, 1, 1, 16, 16), dtype=torch.uint8)
    out = data.augment(frame.expand(8, 3, 2, 16, 16), "crop-flip", torch.Generator().manual_seed(0))
    assert out.shape == (8, 3, 2, 16, 16) and torch.equal(out, out[:, :1, :1].expand_as(out))
    assert not torch.equal(out[:, :1, :1], frame)


def test_wrong_augmentation_is_refused():
    x = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="augment='flip': choose from none, crop"):
        data.augment(x, "flip", torch.Generator())
    with pytest.raises(ValueError, match="needs a torch.Generator"):
        data.augment(x, "crop", None)


# --- the command line


def test_list_says_where_each_data_set_is_and_what_to_do(folder, capsys):
    assert data.main([]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in data.DATASETS)
    assert f"found in {paths.ROOT / 'data' / 'fashion'}" in text
    assert f"not found in {folder / 'cifar100'}: `python -m sltlib data get cifar100` fetches it" in text
    assert "cifar-100-binary.tar.gz" in text

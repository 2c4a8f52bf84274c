"""Image sets in every format they come in, whole and hostile; and the real CIFAR-10 JPEGs where they are at hand."""

import dataclasses
import gzip
import hashlib
import importlib.util
import io
import os
import pickle
import shutil
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sltlib import data
from sltlib.data import arrays, binary, formats, reading, splits
from sltlib.base import paths

SHARED = paths.ROOT.parent / "shared" / "data"
REAL = SHARED / "cifar10-jpeg-q75.tar.xz"
LOSSLESS = ("binary", "parquet", "classes", "pickle")
PER_CLASS = (4, 1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty data folder in place of the repository's."""
    monkeypatch.setenv("SLT_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


class Tiny:
    """A few images of each class, to be written in any of the formats, and the data set that expects them."""

    def __init__(self, monkeypatch, name="cifar10", seed=0):
        self.name, self.monkeypatch = name, monkeypatch
        classes, rng = data.info(name).classes, np.random.RandomState(seed)
        self.ten = len(classes) == 10
        self.halves = {}
        for split, each in zip(("train", "test"), PER_CLASS, strict=True):
            labels = rng.permutation(np.repeat(np.arange(len(classes)), each)).astype(np.uint8)
            self.halves[split] = (rng.randint(0, 256, (len(labels), 3, 32, 32), np.uint8), labels)
        n, test = len(self.halves["train"][1]), len(self.halves["test"][1])
        counts = {"train": n - len(classes), "val": len(classes), "test": test}
        row = 3073 if self.ten else 3074
        shares = dict.fromkeys(data.info(name).files, n // (5 if self.ten else 1) * row)
        files = {file: test * row if file.startswith("test") else size for file, size in shares.items()}
        self.register(counts=counts, files=files, mean_pixel=())

    def register(self, **changes):
        changed = dataclasses.replace(data.DATASETS[self.name], **changes)
        self.monkeypatch.setitem(data.DATASETS, self.name, changed)

    def parts(self, split, names):
        """(file name, images, labels) of a split's files."""
        names = [name for name in names if name.startswith("test") == (split == "test")]
        return zip(names, *(np.array_split(part, len(names)) for part in self.halves[split]), strict=True)

    def binary(self, where):
        where = where / ("cifar-10-batches-bin" if self.ten else "cifar-100-binary")
        where.mkdir(parents=True)
        for split in self.halves:
            for name, images, labels in self.parts(split, data.info(self.name).files):
                head = [labels[:, None]] if self.ten else [labels[:, None] // 5, labels[:, None]]
                (where / name).write_bytes(np.concatenate([*head, images.reshape(len(labels), -1)], 1).tobytes())
        return where

    def pickle(self, where):
        where = where / ("cifar-10-batches-py" if self.ten else "cifar-100-python")
        where.mkdir(parents=True)
        for split in self.halves:
            for name, images, labels in self.parts(split, data.info(self.name).md5):
                batch = {"data": images.reshape(len(labels), -1), "filenames": ["a.png"] * len(labels)}
                batch["labels" if self.ten else "fine_labels"] = labels.tolist()
                (where / name).write_bytes(python2(batch))
        self.pin(where)
        return where

    def pin(self, where):
        names = data.info(self.name).md5
        self.register(md5={name: hashlib.md5((where / name).read_bytes()).hexdigest() for name in names})

    def classes(self, where, kind="png", **how):
        for split, (images, labels) in self.halves.items():
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                path = where / split / data.info(self.name).classes[label] / f"{i:04}.{kind}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encoded(image, kind, **how))
        return where

    def parquet(self, where, shards=2, kind="png"):
        pyarrow = pytest.importorskip("pyarrow", reason="parquet files need the extra `cifar`")
        from pyarrow import parquet

        where = where / ("plain_text" if self.ten else "cifar100")
        where.mkdir(parents=True)
        for split, n in (("train", shards), ("test", 1)):
            names = [f"{split}-{i:05}-of-{n:05}.parquet" for i in range(n)]
            for name, images, labels in self.parts(split, names):
                raw = [{"bytes": encoded(image, kind), "path": None} for image in images]
                columns = {"img": raw, "label" if self.ten else "fine_label": labels.astype(np.int64)}
                columns |= {} if self.ten else {"coarse_label": labels.astype(np.int64) // 5}
                parquet.write_table(pyarrow.table(columns), where / name)
        return where

    def write(self, form, where):
        return getattr(self, form)(where)


def encoded(image, kind, **how):
    """The bytes of a file with that image (C, H, W)."""
    out = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(out, {"png": "png", "jpg": "jpeg"}[kind], **how)
    return out.getvalue()


def python2(value):
    """A pickle as Python 2 wrote it: its strings are bytes, and NumPy has its old names."""

    class Pickler(pickle._Pickler):
        dispatch = dict(pickle._Pickler.dispatch)

        def string(self, text):
            raw = text.encode("latin1") if isinstance(text, str) else text
            self.write(b"T" + struct.pack("<i", len(raw)) + raw)
            self.memoize(text)

        dispatch[str] = dispatch[bytes] = string

    out = io.BytesIO()
    Pickler(out, 2).dump(value)
    return out.getvalue().replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")


def same(splits, other):
    return all(np.array_equal(a, b) for s in data.SPLITS for a, b in zip(splits[s], other[s], strict=True))


# --- every format gives the same set


@pytest.mark.parametrize("form", LOSSLESS)
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_every_image_is_read_once_with_its_label(folder, monkeypatch, name, form):
    tiny = Tiny(monkeypatch, name)
    tiny.write(form, folder / name)
    splits = data.info(name).read()
    label_of = {image.tobytes(): label for image, label in zip(*tiny.halves["train"], strict=True)}
    for split in ("train", "val"):
        assert all(label_of.pop(a.tobytes()) == b for a, b in zip(*splits[split], strict=True))
    assert not label_of
    label_of = {image.tobytes(): label for image, label in zip(*tiny.halves["test"], strict=True)}
    assert all(label_of.pop(a.tobytes()) == b for a, b in zip(*splits["test"], strict=True)) and not label_of
    assert set(np.bincount(splits["val"][1])) == {1}
    assert splits["train"][0].dtype == np.uint8 and splits["train"][1].dtype == np.int64


def test_a_name_is_one_set_whatever_its_format(folder, monkeypatch):
    tiny, read = Tiny(monkeypatch), {}
    for form in LOSSLESS:
        tiny.write(form, folder / "cifar10")
        read[form] = data.info("cifar10").read()
        shutil.rmtree(folder / "cifar10")
    assert all(same(read["binary"], splits) for splits in read.values())
    first = read["binary"]["test"][0]
    assert [hashlib.sha256(image).hexdigest() for image in first] == sorted(
        hashlib.sha256(image).hexdigest() for image in first
    )


def test_formats_are_tried_in_their_order(folder, monkeypatch):
    tiny, place = Tiny(monkeypatch), folder / "cifar10"
    for form in reversed(LOSSLESS):
        tiny.write(form, place)
        assert formats.find(data.info("cifar10"), [place]).format == form
    (place / "cifar-10-batches-bin" / "data_batch_1.bin").unlink()
    assert formats.find(data.info("cifar10"), [place]).format == "parquet"  # a whole one before a part
    for path in ("plain_text", "train", "test", "cifar-10-batches-py"):
        shutil.rmtree(place / path)
    assert data.info("cifar10").find() == place / "cifar-10-batches-bin"
    assert "data_batch_1.bin is missing" in data.info("cifar10").problems()[0]


def test_classes_keep_the_sets_own_order(folder, monkeypatch):
    names = tuple(reversed(data.info("cifar10").classes))  # not that of the alphabet
    tiny = Tiny(monkeypatch)
    tiny.register(classes=names)
    tiny.classes(folder / "cifar10")
    x, y = data.info("cifar10").read()["test"]
    label_of = {image.tobytes(): label for image, label in zip(*tiny.halves["test"], strict=True)}
    assert [label_of[image.tobytes()] for image in x] == y.tolist()


def test_jpegs_are_a_set_of_their_own(folder, monkeypatch):
    tiny = Tiny(monkeypatch, "cifar10-jpeg")
    tiny.classes(folder / "cifar10-jpeg", "jpg", quality=75)
    splits = data.info("cifar10-jpeg").read()
    assert splits["test"][1].tolist() == list(range(10))
    x, y = tiny.halves["test"]
    with Image.open(io.BytesIO(encoded(x[y.tolist().index(3)], "jpg", quality=75))) as image:
        assert np.array_equal(splits["test"][0][3], np.asarray(image).transpose(2, 0, 1))
    assert data.info("cifar10-jpeg").title == "CIFAR-10 (JPEG q75)"


# --- wrong and hostile files, one clear error each


def refused(name, *words):
    """The one error of reading a data set; it names all of `words` and says what to do."""
    with pytest.raises(ValueError) as error:
        data.load_data(name)
    text = str(error.value)
    assert all(str(word) in text for word in words), text
    return text


def test_jpegs_do_not_pass_as_cifar10_nor_pngs_as_jpegs(folder, monkeypatch):
    tiny = Tiny(monkeypatch)
    tiny.classes(folder / "cifar10", "jpg", quality=75)
    for check in (lambda: data.check(["cifar10"]), lambda: data.load_data("cifar10")):
        with pytest.raises(ValueError, match="holds JPEG images, .* is the data set cifar10-jpeg"):
            check()
    shutil.rmtree(folder / "cifar10")
    tiny.classes(folder / "cifar10")
    path = folder / "cifar10" / "train" / "cat" / "9.png"
    path.write_bytes(encoded(tiny.halves["train"][0][0], "jpg", quality=75))  # whatever it is called
    refused("cifar10", path, "a JPEG, which has lost pixels", "cifar10-jpeg")
    shutil.rmtree(folder / "cifar10")
    tiny.parquet(folder / "cifar10", kind="jpg")
    refused("cifar10", "train-00000-of-00002.parquet, row 0", "a JPEG, which has lost pixels")
    jpeg = Tiny(monkeypatch, "cifar10-jpeg")
    jpeg.classes(folder / "cifar10-jpeg")
    refused("cifar10-jpeg", "holds PNG images")
    shutil.rmtree(folder / "cifar10-jpeg")
    jpeg.classes(folder / "cifar10-jpeg", "jpg", quality=80)
    refused("cifar10-jpeg", "quantisation tables are not those of quality 75")


@pytest.mark.parametrize("form", LOSSLESS)
def test_a_truncated_file_is_refused(folder, monkeypatch, form):
    where = Tiny(monkeypatch).write(form, folder / "cifar10")
    path = max(path for path in where.rglob("*") if path.is_file() and path.name != "test_batch")
    path.write_bytes(path.read_bytes()[:-100])
    refused("cifar10", path)
    path.write_bytes(b"")
    refused("cifar10", path)
    assert not list((folder / "arrays").rglob("*.npy"))


def test_rows_of_another_length_are_refused(folder, monkeypatch):
    tiny = Tiny(monkeypatch)
    where = tiny.binary(folder / "cifar10")
    size = data.info("cifar10").files["data_batch_5.bin"]
    (where / "data_batch_5.bin").write_bytes(bytes(size - 1))
    refused("cifar10", "data_batch_5.bin is damaged", f"want {size:,}")
    tiny.register(files=data.info("cifar10").files | {"data_batch_5.bin": size - 1})
    refused("cifar10", "data_batch_5.bin is damaged", "whole rows of 3,073")


@pytest.mark.parametrize("form", ["binary", "parquet", "pickle"])
def test_a_label_out_of_range_is_refused(folder, monkeypatch, form):
    tiny = Tiny(monkeypatch)
    tiny.halves["train"][1][0] = 10
    tiny.write(form, folder / "cifar10")
    refused("cifar10", "label 10, want 0 to 9")


@pytest.mark.parametrize("form", LOSSLESS)
def test_a_class_with_too_few_images_is_named(folder, monkeypatch, form):
    tiny = Tiny(monkeypatch)
    labels = tiny.halves["train"][1]
    labels[labels == 3] = 5
    tiny.write(form, folder / "cifar10")
    refused("cifar10", "train has no class cat" if form == "classes" else "0 training images of class cat, want 4")


def test_missing_and_unknown_classes_are_named(folder, monkeypatch):
    where = Tiny(monkeypatch).classes(folder / "cifar10")
    os.rename(where / "train" / "cat", where / "train" / "katze")
    text = refused("cifar10", where / "train" / "katze", "is no class of CIFAR-10", "train has no class cat")
    assert len(text.splitlines()) == 3
    with pytest.raises(ValueError, match="katze"):
        data.check(["cifar10"])
    shutil.rmtree(where / "train" / "katze")
    shutil.rmtree(where / "test")
    refused("cifar10", "train has no class cat", "test has no class airplane, automobile")


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (Image.new("RGB", (33, 32)), "(33, 32), want PNG RGB (32, 32)"),
        (Image.new("L", (32, 32)), "PNG L (32, 32), want PNG RGB"),
        (Image.new("RGBA", (32, 32)), "PNG RGBA"),
    ],
)
def test_images_of_another_size_or_kind_are_refused(folder, monkeypatch, image, words):
    where = Tiny(monkeypatch).classes(folder / "cifar10")
    path = where / "test" / "dog" / "x.png"
    image.save(path)
    refused("cifar10", path, words)
    path.write_bytes(b"GIF89a" + bytes(99))
    refused("cifar10", path, "is not an image of CIFAR-10")


def test_an_image_too_many_is_refused(folder, monkeypatch):
    where = Tiny(monkeypatch).classes(folder / "cifar10")
    file = next((where / "test" / "dog").iterdir())
    shutil.copy(file, file.with_name("copy.png"))
    refused("cifar10", "2 test images of class dog, want 1")
    os.rename(file.with_name("copy.png"), file.with_name(".copy.png"))  # hidden files are no images
    data.load_data("cifar10")


def test_channels_in_another_order_are_noticed(folder, monkeypatch):
    tiny = Tiny(monkeypatch)
    for images, _ in tiny.halves.values():
        images[:, 0] //= 2
    mean = tuple((tiny.halves["train"][0].mean((0, 2, 3)) / 255).tolist())
    tiny.binary(folder / "cifar10")
    tiny.register(mean_pixel=tuple(round(m, 4) for m in mean))
    data.info("cifar10").read()
    tiny.register(mean_pixel=tuple(round(m, 4) for m in reversed(mean)))
    refused("cifar10", "mean pixel", "red, green, blue")
    tiny.register(mean_pixel=(mean[0], mean[1], mean[2] + 3e-4))
    refused("cifar10", "mean pixel")


def test_a_missing_shard_is_noticed(folder, monkeypatch):
    where = Tiny(monkeypatch).parquet(folder / "cifar10", shards=3)
    (where / "train-00001-of-00003.parquet").unlink()
    refused("cifar10", "has 2 train*.parquet, which is not all")
    shutil.rmtree(folder / "cifar10")
    where = Tiny(monkeypatch).parquet(folder / "cifar10")
    (where / "test-00000-of-00001.parquet").unlink()
    refused("cifar10", "has 0 test*.parquet")


def test_parquet_without_its_columns_or_with_empty_rows_is_refused(folder, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow", reason="parquet files need the extra `cifar`")
    from pyarrow import parquet

    where = Tiny(monkeypatch).parquet(folder / "cifar10", shards=1)
    path = where / "train-00000-of-00001.parquet"
    table = parquet.read_table(path)
    parquet.write_table(table.drop_columns(["label"]), path)
    refused("cifar10", path, "label")
    rows = table.to_pylist()
    rows[7]["img"]["bytes"] = None
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    refused("cifar10", path, "a row lacks its image or its label")


def test_what_the_parquet_reader_has_not_implemented_is_damage(folder, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow", reason="parquet files need the extra `cifar`")
    from pyarrow import parquet

    def fails(*_, **__):  # what a wrong byte in the schema gives
        raise pyarrow.ArrowNotImplementedError("Integers with more than 64 bits not implemented")

    where = Tiny(monkeypatch).parquet(folder / "cifar10", shards=1)
    monkeypatch.setattr(parquet, "read_table", fails)
    refused("cifar10", where / "train-00000-of-00001.parquet", "Integers with more than 64 bits")


def test_without_pyarrow_a_parquet_file_says_what_to_install(folder, monkeypatch):
    Tiny(monkeypatch).parquet(folder / "cifar10")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused("cifar10", "needs pyarrow: pip install -c constraints.txt -e '.[cifar]'")


class Runs:
    """What unpickles by running a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickle_that_would_run_code_is_not_opened(folder, monkeypatch):
    tiny = Tiny(monkeypatch)
    where, ran = tiny.pickle(folder / "cifar10"), folder / "ran"
    evil = pickle.dumps({"data": Runs(ran), "labels": [0]}, 2)
    pickle.loads(evil)
    assert ran.exists()  # it would
    ran.unlink()
    (where / "data_batch_3").write_bytes(evil)
    refused("cifar10", "data_batch_3 is not the published file", "an unknown pickle is not opened")
    tiny.pin(where)  # even if somebody made a file of the same md5
    refused("cifar10", "data_batch_3 cannot be read", "it names posix.system")
    assert not ran.exists()


@pytest.mark.parametrize(
    "batch",
    [
        {"labels": [0] * 8},
        {"labels": [0] * 8, "data": np.zeros((8, 3071), np.uint8)},
        {"labels": [0] * 8, "data": np.zeros((8, 3072))},
        {"labels": ["x"] * 8, "data": np.zeros((8, 3072), np.uint8)},
        [1, 2],
    ],
)
def test_a_pickle_of_something_else_is_refused(folder, monkeypatch, batch):
    tiny = Tiny(monkeypatch)
    where = tiny.pickle(folder / "cifar10")
    (where / "test_batch").write_bytes(python2(batch))
    tiny.pin(where)
    refused("cifar10", "test_batch cannot be read")


# --- decoded once


def test_images_are_decoded_once_and_the_arrays_are_enough(folder, monkeypatch):
    Tiny(monkeypatch).classes(folder / "cifar10")
    first = data.load_data("cifar10")
    reads = []
    monkeypatch.setattr(formats, "read", lambda *_: reads.append(1))
    shutil.rmtree(folder / "cifar10")
    data.forget()
    again = data.load_data("cifar10")
    assert not reads and again.fingerprint == first.fingerprint and (again.train.x == first.train.x).all()
    data.check(["cifar10"])
    assert str(folder / "arrays" / "cifar10") in data.table()
    (path,) = (folder / "arrays").rglob("test_y.npy")
    path.unlink()
    path.write_bytes(b"")
    data.forget()
    refused("cifar10", f"{path.parent} is damaged, and to make it again", "not found")


def test_half_decoded_images_are_never_taken_for_the_set(folder, monkeypatch):
    where = Tiny(monkeypatch).classes(folder / "cifar10")
    last = max((where / "test" / "truck").iterdir())
    raw = last.read_bytes()
    last.write_bytes(raw[:-30])
    refused("cifar10", last)
    assert not [path for path in (folder / "arrays").rglob("*") if not path.name.endswith(".lock") and path.is_file()]
    last.write_bytes(raw)
    data.load_data("cifar10")


# --- a folder or an archive that the user names


def packed(folder, archive, kind="w:gz"):
    with tarfile.open(archive, kind) as tar:
        tar.add(folder, "somewhere")
    return archive


@pytest.mark.parametrize("form", LOSSLESS)
@pytest.mark.parametrize("kind", ["folder", "w:gz", "w:xz", "zip"])
def test_a_folder_or_archive_that_the_user_names(folder, monkeypatch, tmp_path, form, kind, capsys):
    tiny, mine = Tiny(monkeypatch), tmp_path / "mine"
    tiny.write(form, mine)
    if kind == "zip":
        path = Path(shutil.make_archive(str(tmp_path / "mine"), "zip", mine))
    else:
        path = mine if kind == "folder" else packed(next(mine.iterdir()) if form != "classes" else mine, tmp_path / "a", kind)
    before = sorted(tmp_path.rglob("*"))
    assert data.main(["use", "cifar10", str(path)]) == 0, capsys.readouterr().err
    new = {p.name for p in set(tmp_path.rglob("*")) - set(before)}
    assert {"manifest.json", "train_x.npy"} <= new and not {"cat", "test_batch.bin"} & new
    shutil.rmtree(mine)
    loaded = data.load_data("cifar10")
    images = {image.tobytes() for image in tiny.halves["test"][0]}
    assert {image.numpy().tobytes() for image in loaded.test.x} == images


def test_what_is_there_is_not_replaced_by_another_set(folder, monkeypatch, tmp_path, capsys):
    Tiny(monkeypatch).binary(tmp_path / "one")
    Tiny(monkeypatch, seed=1).binary(tmp_path / "two")
    assert data.main(["use", "cifar10", str(tmp_path / "one")]) == 0
    before = data.load_data("cifar10").fingerprint
    assert data.main(["use", "cifar10", str(tmp_path / "one")]) == 0
    assert data.main(["use", "cifar10", str(tmp_path / "two")]) == 1
    assert "holds other images as cifar10: remove it first" in capsys.readouterr().err
    data.forget()
    assert data.load_data("cifar10").fingerprint == before


@pytest.mark.parametrize("kind", ["note", "archive"])
def test_a_file_in_a_data_sets_place_hides_no_other_problem(folder, monkeypatch, tmp_path, kind):
    where = Tiny(monkeypatch).binary(tmp_path)
    if kind == "note":
        (folder / "cifar10").write_text("hello")
    else:
        with tarfile.open(folder / "cifar10", "w") as pack:
            pack.add(where, where.name)
    assert f"not found in {folder / 'cifar10'}: " in data.table()
    with pytest.raises(ValueError) as error:
        data.check(["cifar10", "cifar100"])
    assert "cifar10: not found in" in str(error.value) and "cifar100: not found in" in str(error.value)


def test_of_two_that_use_different_images_at_once_one_is_told(folder, monkeypatch, tmp_path):
    Tiny(monkeypatch, seed=1).binary(tmp_path / "two")
    Tiny(monkeypatch).binary(tmp_path / "one")
    publish = arrays.publish

    def slower(place, about, shapes, fill):
        monkeypatch.setattr(arrays, "publish", publish)
        other = splits.hold_out(data.info("cifar10"), *formats.read(data.info("cifar10"), two))
        publish(place, about, shapes, lambda maps: reading.copy(other, maps))
        publish(place, about, shapes, fill)

    two = formats.find(data.info("cifar10"), [tmp_path / "two"])
    monkeypatch.setattr(arrays, "publish", slower)
    with pytest.raises(ValueError, match="holds other images as cifar10"):
        data.use("cifar10", tmp_path / "one")
    assert "is ready" in data.use("cifar10", tmp_path / "two")


def test_what_cannot_be_used_is_told(folder, monkeypatch, tmp_path, capsys):
    Tiny(monkeypatch)
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("hello")
    for name, path, words in (
        ("cifar10", tmp_path / "none", "does not exist"),
        ("cifar10", tmp_path / "empty", "holds nothing of CIFAR-10; it may be the binary version"),
        ("cifar10", tmp_path / "note.txt", "it is no .tar or .zip archive"),
        ("fashion", tmp_path / "empty", "fashion is read from its own place only"),
        ("cifar11", tmp_path / "empty", "did you mean cifar10"),
    ):
        assert data.main(["use", name, str(path)]) == 1
        assert words in capsys.readouterr().err
    assert not list(folder.rglob("*.npy"))


# --- files that other sets share


def test_gz_files_tell_their_size_and_their_damage(tmp_path):
    raw = bytes(1000)
    (tmp_path / "a.gz").write_bytes(gzip.compress(raw))
    info = dataclasses.replace(data.info("fashion-mnist"), files={"a.gz": 1000}, sha256={})
    assert binary.file_problems(info, tmp_path) == [] and binary.contents(info, tmp_path, "a.gz") == raw
    info = dataclasses.replace(info, files={"a.gz": 999, "b.gz": 1})
    damaged, missing = binary.file_problems(info, tmp_path)
    assert "a.gz is damaged (1,000 bytes unpacked, want 999)" in damaged and "b.gz is missing" in missing
    (tmp_path / "a.gz").write_bytes(gzip.compress(raw)[:-9])
    with pytest.raises(ValueError, match="a.gz cannot be read"):
        binary.contents(info, tmp_path, "a.gz")


# --- the real images


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not there")
def test_the_real_jpegs_are_read_and_held_to_their_mean(folder, capsys):
    assert data.main(["use", "cifar10-jpeg", str(REAL)]) == 0, capsys.readouterr().err
    loaded = data.load_data("cifar10-jpeg")
    assert [tuple(part.x.shape) for part in (loaded.train, loaded.val, loaded.test)] == [
        (45000, 3, 32, 32), (5000, 3, 32, 32), (10000, 3, 32, 32),
    ]  # fmt: skip
    assert set(np.bincount(loaded.train.y)) == {4500} and set(np.bincount(loaded.test.y)) == {1000}
    assert loaded.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=2e-3)  # of nine tenths of the images
    assert list(folder.iterdir()) == [folder / "arrays"]  # nothing was unpacked
    # the first test image of each class, by the sum of its pixels
    assert loaded.test.x[::1000].sum((1, 2, 3)).tolist() == pytest.approx(REAL_SUMS, rel=1e-3)


REAL_SUMS = [475641, 233260, 343208, 332902, 245161, 284731, 329465, 226117, 477112, 405142]

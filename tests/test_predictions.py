"""What is right of every test image: packed, verified, the same bytes each time."""

import numpy as np
import pytest

from sltlib import predictions
from sltlib.predictions import Predictions

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 10, 1003)
GUESSED = np.where(RNG.random(1003) < 0.8, LABELS, RNG.integers(0, 10, 1003))


def test_a_results_file_comes_back_whole_in_one_byte_an_image():
    found = Predictions.of(GUESSED, LABELS)
    content = predictions.encode(found)
    again = predictions.decode(content)
    assert np.array_equal(again.classes, GUESSED) and again.classes.dtype == np.uint8
    assert np.array_equal(again.right, GUESSED == LABELS) and again.right.dtype == bool
    assert again.labels == predictions.fingerprint(LABELS) == predictions.fingerprint(LABELS.astype(np.uint8))
    assert again.accuracy == pytest.approx(100 * (GUESSED == LABELS).mean())
    assert len(content) < len(LABELS) + 400
    assert predictions.encode(Predictions.of(GUESSED.astype(np.int32), LABELS)) == content


def test_a_hundred_classes_fit_and_more_are_refused():
    classes = np.arange(128)
    found = predictions.decode(predictions.encode(Predictions.of(classes, classes[::-1])))
    assert np.array_equal(found.classes, classes) and not found.right.any()
    with pytest.raises(ValueError, match="go from 0 to 128: give 0 to 127"):
        Predictions.of(np.arange(129), np.zeros(129, int))


@pytest.mark.parametrize(
    ("classes", "labels", "words"),
    [
        ([1, 2], [1], "2 classes for 1 labels"),
        ([[1]], [1], r"classes is int64 of shape \(1, 1\)"),
        ([0.5], [1], "classes is float64"),
        ([-1], [1], "classes go from -1"),
        ([], [], "classes is float64 of shape"),
    ],
)
def test_what_is_no_prediction_is_refused(classes, labels, words):
    with pytest.raises(ValueError, match=words):
        Predictions.of(classes, labels)


def test_a_notebooks_pack_has_a_bit_an_image_and_the_same_bytes_in_any_order():
    other = np.roll(LABELS, 1)[:50]
    found = {
        "b": Predictions.of(GUESSED, LABELS),
        "a": Predictions.of(LABELS, LABELS),
        "c": Predictions.of(LABELS[:50], other),  # of another test split
    }
    content = predictions.pack(found)
    assert predictions.pack(dict(reversed(found.items()))) == content
    assert len(content) < 3 * 1003 / 8 + 700
    again = predictions.unpack(content)
    for key, one in found.items():
        assert np.array_equal(again[key].images, one.right)
        assert again[key].labels == one.labels and again[key].accuracy == one.accuracy
    assert predictions.pack(again) == content
    assert predictions.unpack(predictions.pack({})) == {}


@pytest.mark.parametrize("where", [4, 40, 200, -1, -500])
def test_a_damaged_file_is_refused(where):
    for content, read in (
        (predictions.encode(Predictions.of(GUESSED, LABELS)), predictions.decode),
        (predictions.pack({"a": Predictions.of(np.tile(GUESSED, 5), np.tile(LABELS, 5))}), predictions.unpack),
    ):
        broken = bytearray(content)
        broken[where] ^= 1
        with pytest.raises(ValueError, match="no whole file of predictions"):
            read(bytes(broken))
        with pytest.raises(ValueError, match="no whole file of predictions"):
            read(content[:where])


def test_one_kind_of_file_is_not_read_as_the_other():
    with pytest.raises(ValueError, match="wanted 'sltlib predictions of many 1'"):
        predictions.unpack(predictions.encode(Predictions.of(GUESSED, LABELS)))

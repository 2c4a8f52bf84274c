"""The key of an added function sees every value that the function reaches, or refuses it by name."""

import importlib
import itertools
import sys

import numpy as np
import pytest

from sltlib.base.sources import code_hash
from sltlib.experiment import Experiment
from sltlib.registry import SEARCHES

COUNT = itertools.count()
TEXT = """
import numpy as np
import helper_of_mine
from helper_of_mine import inner
KEEP = {keep}
TABLE = {{"a": [1, {deep}]}}
ARRAY = np.arange({array})

class Base:
    scale = {scale}

class Rule(Base):
    def apply(self, x, power={default}):
        def late():
            return x * KEEP ** power * self.scale
        return late() + TABLE["a"][1] + ARRAY.sum()

def make(bound):
    def search(model, experiment, data, found):
        return Rule().apply(bound) + inner(1) + helper_of_mine.WHOLE
    return search

search = make({bound})
"""
HELPER = "WHOLE = {whole}\nFACTOR = {factor}\ndef inner(x):\n    return x * FACTOR\n"
SAME = dict(keep=0.9, deep=2, array=3, scale=1, default=1, bound=4, whole=5, factor=6)


def function(tmp_path, monkeypatch, **changes):
    """The search of a file written anew, beside a helper module of the same author."""
    folder = tmp_path / str(next(COUNT))
    folder.mkdir()
    values = SAME | changes
    (folder / "mine.py").write_text(TEXT.format(**values))
    (folder / "helper_of_mine.py").write_text(HELPER.format(**values))
    monkeypatch.syspath_prepend(str(folder))
    for name in ("mine", "helper_of_mine"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return importlib.import_module("mine").search


def test_every_value_that_is_reached_counts(tmp_path, monkeypatch):
    same = {code_hash(function(tmp_path, monkeypatch), "x") for _ in range(2)}
    assert len(same) == 1
    changed = {name: code_hash(function(tmp_path, monkeypatch, **{name: 7}), "x") for name in SAME}
    assert len({*changed.values(), *same}) == len(SAME) + 1, "two changes look alike, or like none"


def test_a_constant_of_a_search_is_part_of_the_key(tmp_path, monkeypatch):
    """KEEP = .9, then .1: the second must not find the first one's result."""
    keys = []
    for keep in (0.9, 0.1, 0.9):
        monkeypatch.setitem(SEARCHES, "mine", function(tmp_path, monkeypatch, keep=keep))
        keys.append(Experiment("fashion", search="mine", sparsity=0.5).key)
    assert keys[0] == keys[2] != keys[1]


def test_what_cannot_be_hashed_is_named():
    lock = object()

    def search(model, experiment, data, found):
        return lock

    with pytest.raises(ValueError, match="search 'mine': its key needs the value of lock, and a object cannot be hashed"):
        code_hash(search, "search 'mine'")


def test_installed_code_counts_by_name():
    def search(model, experiment, data, found):
        return np.linalg.norm(model)

    assert code_hash(search, "x") == code_hash(search, "x")
    array = np.zeros(2)

    def other(model, experiment, data, found):
        return array

    before = code_hash(other, "x")
    array[0] = 1
    assert code_hash(other, "x") != before


MUTUAL = """
KEEP = {keep}
def a(x): return b(x) + c(x) + d(x) + KEEP
def b(x): return a(x) + c(x) + d(x)
def c(x): return a(x) + b(x) + d(x)
def d(x): return a(x) + b(x) + c(x)
"""


def test_functions_that_use_each_other_are_described_once(tmp_path, monkeypatch):
    """Every way through them would never end; a constant behind them still counts."""
    monkeypatch.syspath_prepend(str(tmp_path))
    hashes = []
    for name, keep in (("mutual_one", 1), ("mutual_two", 1), ("mutual_three", 2)):
        (tmp_path / f"{name}.py").write_text(MUTUAL.format(keep=keep))
        importlib.invalidate_caches()
        hashes.append(code_hash(importlib.import_module(name).d, "x"))
    assert hashes[0] == hashes[1] != hashes[2]


def test_equal_constants_hash_alike_whether_or_not_they_are_one_object():
    def search(model, experiment, data, found):
        return one, two

    one = two = int("123456")
    shared = code_hash(search, "x")
    two = int("123456")
    assert one is not two and code_hash(search, "x") == shared

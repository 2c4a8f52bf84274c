"""The key of an added function sees every value that the function reaches, or refuses it by name."""

import importlib
import itertools
import linecache
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from sltlib.base.sources import code_hash
from sltlib.experiment import Experiment
from sltlib.registry import SEARCHES

ROOT = Path(__file__).resolve().parent.parent
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


# --- every way on which a value is reached ----------------------------------------------------------

HELD = """
import logging, threading
import further_of_mine
LOCK, LOG = threading.Lock(), logging.getLogger("mine")
X = further_of_mine.Y
class Rule:
    rate = X
def f(): return X
def through(): return further_of_mine.f()
"""
FURTHER = "Y = {x}\ndef f(): return Y\n"
CLEAN = "from further_of_mine import Y\n"  # nothing in it that cannot be hashed
WRAPS = """
import functools
def times(factor):
    def wrap(function):
        @functools.wraps(function)
        def wrapped(*given):
            return factor * function(*given)
        return wrapped
    return wrap
"""
# What a file of one's own says; {x} is the value that must count.
REACHED = {
    "a module of a module": "import held_of_mine\ndef search(): return held_of_mine.through()",
    "a module's value": "import held_of_mine as h\ndef search(): return h.X",
    "a module's class": "import held_of_mine\ndef search(): return held_of_mine.Rule().rate",
    "a name that a module imported": "import held_of_mine\ndef search(): return held_of_mine.further_of_mine.Y",
    "a module of a package": "import package_of_mine.part\ndef search(): return package_of_mine.part.X",
    "a name of a package": "import package_of_mine\ndef search(): return package_of_mine.value()",
    "import": "def search():\n    import held_of_mine\n    return held_of_mine.X",
    "import as": "def search():\n    import held_of_mine as h\n    return h.through()",
    "import of a part": "def search():\n    import package_of_mine.part\n    return package_of_mine.part.X",
    "import of a part as": "def search():\n    import package_of_mine.part as p\n    return p.X",
    "from": "def search():\n    from held_of_mine import f as g\n    return g()",
    "from a package": "def search():\n    from package_of_mine import part\n    return part.X",
    "relative": "from package_of_mine.part import late as search",
    "import in an inner function": "def search():\n    def inner():\n        from held_of_mine import X\n        return X\n    return inner()",
    "import in a method": "class Rule:\n    def f(self):\n        import held_of_mine\n        return held_of_mine.f()\ndef search(): return Rule().f()",
    "import for what it does": "def search():\n    import package_of_mine.part",
    "a module in a closure": "def make():\n    import held_of_mine\n    def search(): return held_of_mine.X\n    return search\nsearch = make()",
    "a module in a list": "import clean_of_mine\nALL = [clean_of_mine]\ndef search(): return ALL[0].Y",
    "a module that is asked for names": "import clean_of_mine\ndef search(): return getattr(clean_of_mine, 'Y')",
    "a wrapper's argument": WRAPS + "N = {x}\n@times(N)\ndef search(): return 1",
    "a wrapper's text": WRAPS.replace("factor *", "{x} *") + "@times(1)\ndef search(): return 1",
    "an outer wrapper": WRAPS + "N = {x}\n@times(N)\n@times(1)\ndef search(): return 1",
    "an inner wrapper": WRAPS + "N = {x}\n@times(1)\n@times(N)\ndef search(): return 1",
    "a value behind a wrapper": WRAPS + "K = {x}\n@times(1)\ndef search(): return K",
    "a wrapped helper": WRAPS + "N = {x}\n@times(N)\ndef helper(): return 1\ndef search(): return helper()",
    "a wrapped method": WRAPS + "N = {x}\nclass Rule:\n    @times(N)\n    def f(self): return 1\ndef search(): return Rule().f()",
    "functools.cache": "import functools\nK = {x}\n@functools.cache\ndef helper(): return K\ndef search(): return helper()",
    "an installed decorator": "import torch\nK = {x}\n@torch.no_grad()\ndef search(): return K",
    "an installed decorator's argument": "import torch\nK = [torch.float16, torch.bfloat16][{x} % 2]\n@torch.autocast('cpu', dtype=K)\ndef search(): return 1",
    "what an installed function was given": "import torch\nK = {x}\ndef f(x): return x * K\nsearch = torch.func.grad(f)",
    "dispatch by type": "import functools\nK = {x}\n@functools.singledispatch\ndef search(a): return 1\n@search.register(int)\ndef _(a): return K",
    "under another's name": "import functools, numpy\nK = {x}\n@functools.wraps(numpy.linalg.norm)\ndef helper(): return K\ndef search(): return helper()",
    "a function's attribute": "def helper(): return 1\nhelper.rate = {x}\ndef search(): return helper.rate",
    "a bound method": "class Rule:\n    rate = {x}\n    @classmethod\n    def f(cls): return cls.rate\nf = Rule.f\ndef search(): return f()",
    "a dict's method": "get = dict(a={x}).get\ndef search(): return get('a')",
    "the first of two methods' defaults": "K = {x}\nclass Rule:\n    def f(self, x=K): return x\n    def g(self, x=1): return x\ndef search(): return Rule()",
    "the first of two made methods": "K = {x}\ndef make(n):\n    def f(self): return n\n    return f\nclass Rule:\n    f = make(K)\n    g = make(1)\ndef search(): return Rule()",
    "what sets a property": "K = {x}\nclass Rule:\n    @property\n    def f(self): return 1\n    @f.setter\n    def f(self, x): self.x = K\ndef search(): return Rule()",
    "a metaclass": "class Meta(type):\n    rate = {x}\nclass Rule(metaclass=Meta): pass\ndef search(): return Rule.rate",
    "a class that is a key": "class Rule:\n    rate = {x}\nALL = {{Rule: 1}}\ndef search(): return ALL",
    "a variable beside a constant of its name": "f = 1\ndef make(f):\n    def search(a): return f + a.f\n    return search\nsearch = make({x})",
    "an array of objects": "import numpy\nK = numpy.array([{x}, None])\ndef search(): return K",
}


def hash_of(folder, monkeypatch, text, x):
    """The hash of the function `search` of a file with this text, where everything that has a value has x."""
    place = folder / str(next(COUNT))
    (place / "package_of_mine").mkdir(parents=True)
    for name, content in {
        "mine_of_today": text, "held_of_mine": HELD, "further_of_mine": FURTHER, "clean_of_mine": CLEAN, "package_of_mine/__init__": "",
        "package_of_mine/part": "X = {x}\ndef late():\n    from . import other\n    return other.Z\n", "package_of_mine/other": "Z = {x}\n",
    }.items():  # fmt: skip
        (place / f"{name}.py").write_text(content.format(x=x))
    if "package_of_mine.value" in text:
        (place / "package_of_mine/__init__.py").write_text("from package_of_mine.part import X\ndef value(): return X\n")
    for name in [name for name in sys.modules if "_of_mine" in name or name == "mine_of_today"]:
        del sys.modules[name]
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(place))
        importlib.invalidate_caches()
        return code_hash(importlib.import_module("mine_of_today").search, "search 'mine'")


@pytest.mark.parametrize("way", REACHED)
def test_a_value_counts_on_whatever_way_it_is_reached(tmp_path, monkeypatch, way):
    one, again, two = (hash_of(tmp_path, monkeypatch, REACHED[way], x) for x in (3, 3, 4))
    assert one == again != two


def test_a_value_counts_that_a_module_got_after_it_was_written(tmp_path, monkeypatch):
    """`mine.ALPHA = .9` in a notebook, then .5."""
    (tmp_path / "late_of_mine.py").write_text("ALPHA = .1\n")
    (tmp_path / "user_of_mine.py").write_text("import late_of_mine\ndef search(): return late_of_mine.ALPHA\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    module, search = importlib.import_module("late_of_mine"), importlib.import_module("user_of_mine").search
    hashes = [code_hash(search, "x")]
    for alpha in (0.9, 0.5, 0.1):
        module.ALPHA = alpha
        module.LOCK = open  # what the code does not name is none of its business
        hashes.append(code_hash(search, "x"))
    assert len(set(hashes)) == 3 and hashes[0] == hashes[3]


WHOLE = {
    "import held_of_mine\ndef search(name): return getattr(held_of_mine, name)": r"held_of_mine\.\*\.LOCK, and a lock",
    "def search(name):\n    import held_of_mine\n    return vars(held_of_mine)": r"held_of_mine\.\*\.LOCK, and a lock",
    "import held_of_mine\ndef search(): return held_of_mine.LOG": r"held_of_mine\.LOG, and a Logger",
    "class Rule:\n    def f(self): return 1\nf = Rule().f\ndef search(): return f()": r"f\.self, and a Rule",
    "def f(a): return lambda: a\nALL = {{f(1), f(2)}}\ndef search(): return ALL": "ALL, and a set of things without an order",
}


@pytest.mark.parametrize("text", WHOLE)
def test_what_is_reached_and_cannot_be_hashed_is_named(tmp_path, monkeypatch, text):
    with pytest.raises(ValueError, match=f"search 'mine': its key needs the value of {WHOLE[text]} cannot be hashed") as error:
        hash_of(tmp_path, monkeypatch, text, 3)
    assert ("say in the code what it needs of the module" in str(error.value)) == ("LOCK" in str(error.value))


HARMLESS = """
import math
import numpy as np
import torch
import held_of_mine
from random import gauss, uniform
class Net(torch.nn.Module):
    @property
    def rate(self): return self.x
    @staticmethod
    def f(): return math.sqrt(2)
NAMES, KINDS = {{"a", "b", "c", ("d", frozenset("efg"))}}, {{torch.nn.Conv2d, torch.nn.Linear, Net}}
TABLE = {{("a", 1): held_of_mine.f, math.sqrt: 2}}
OBJECTS = np.array([None, "a", held_of_mine.f], dtype=object)
@torch.no_grad()
def search(model, experiment, data, found):
    import math
    import absent_of_mine
    from scipy.special import expit
    part = lambda x: x + held_of_mine.X
    out = gauss(0, 1) + uniform(0, 1) + np.random.rand() + torch.relu(0) + np.add(1, 2) + torch.nn.functional.max_pool2d(0)
    return part(held_of_mine.f()), Net, NAMES, KINDS, TABLE, OBJECTS, out
"""


def test_what_is_installed_counts_by_name_and_a_hash_is_the_same_in_every_process(tmp_path):
    """No order of a set, no address and no folder is in it; nor is what a call leaves behind in an installed decorator."""
    (tmp_path / "mine_of_today.py").write_text(HARMLESS.format())
    (tmp_path / "held_of_mine.py").write_text(HELD.format(x=3))
    (tmp_path / "further_of_mine.py").write_text(FURTHER.format(x=3))
    code = "import mine_of_today; from sltlib.base.sources import code_hash; print(code_hash(mine_of_today.search, 'x'))"
    run = [
        subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
                       capture_output=True, text=True, check=False) for seed in ("1", "2")
    ]  # fmt: skip
    assert [each.stderr for each in run] == ["", ""] and run[0].stdout == run[1].stdout and len(run[0].stdout) == 13


def test_a_class_of_a_notebook_counts_by_its_methods(monkeypatch):
    """inspect finds no source of a class in a notebook, whose `__main__` is no file."""

    def made(rate, sign):
        text = f"K = {rate}\nclass Net:\n    scale = 1\n    def f(self, x=K): return {sign}x * K\ndef search(): return Net()\n"
        name = f"<cell {next(COUNT)}>"
        monkeypatch.setitem(linecache.cache, name, (len(text), None, text.splitlines(keepends=True), name))
        cell = {"__name__": "__main__"}
        exec(compile(text, name, "exec"), cell)
        return cell

    cells = [made(*given) for given in ((1, ""), (1, ""), (2, ""), (1, "-"))]
    hashes = [code_hash(cell["search"], "x") for cell in cells]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3
    cells[0]["Net"].scale = 2
    assert code_hash(cells[0]["search"], "x") not in hashes


def test_own_code_under_the_interpreters_own_folder_is_own_code(tmp_path, monkeypatch):
    """A project in /usr/src beside a Python in /usr."""
    found = sysconfig.get_paths()
    monkeypatch.setattr(sysconfig, "get_paths", lambda *given: found | {"data": str(tmp_path)})
    text = REACHED["a module's value"]
    assert hash_of(tmp_path, monkeypatch, text, 3) != hash_of(tmp_path, monkeypatch, text, 4)


def test_an_added_search_of_the_pages_has_the_key_that_it_had():
    """The example of docs/use.md and of notebook 01: results that readers stored are found again."""
    from sltlib.layers import prunable, top_k

    def largest_at_birth(model, experiment, data, found):
        """Keep the largest random weights of every layer, and train them."""
        for layer in prunable(model).values():
            layer.set_mask(top_k(layer.weight.abs(), experiment.sparsity))

    assert code_hash(largest_at_birth, "x") == "95f5ae25f4ab"

"""What a notebook leaves as text: metrics and tables with fixed digits, nothing that JSON cannot hold."""

import json
import math
from pathlib import Path

import numpy as np
import pandas
import pytest

from sltlib import stats
from sltlib.notebook import outputs


def test_metrics_are_sorted_rounded_and_without_nan():
    metrics = {
        "z": np.float32(0.1),
        "a": stats.interval([5.0]),
        "verdict": stats.superior([2, 3.01], [1, 2], "a claim"),
        "seeds": np.arange(3),
        "yes": np.bool_(True),
        "none": None,
        4: math.nan,
    }
    text = outputs.metrics_text(metrics)
    found = json.loads(text)
    assert list(found) == sorted(found) == ["4", "a", "none", "seeds", "verdict", "yes", "z"]
    assert found["z"] == 0.1 and found["4"] is None and found["seeds"] == [0, 1, 2] and found["yes"] is True
    assert (found["a"]["mean"], found["a"]["low"], found["a"]["n"]) == (5, None, 1)
    assert found["verdict"]["verdict"] == "holds" and text.endswith("}\n")


def test_metrics_that_json_cannot_hold_are_named():
    with pytest.raises(TypeError, match=r"metrics\.rows\[1\]\.path is a PosixPath"):
        outputs.metrics_text({"rows": [{}, {"path": Path("a")}]})


def test_table_has_fixed_digits():
    table = pandas.DataFrame(
        {
            "row": ["a", "b"],
            "mean": [88.123456789, math.nan],
            "n": [3, 1],
            "lr": [1e-3, 0.1],
            "rates": [{"conv2": 0.25, "conv1": 1 / 3}, None],
            "spiking": [True, False],
        }
    )
    assert outputs.table_text(table) == (
        "row,mean,n,lr,rates,spiking\n"
        'a,88.1235,3,0.001,"{""conv1"": 0.333333, ""conv2"": 0.25}",true\n'
        "b,,1,0.1,,false\n"
    )
    assert outputs.table_text(table.set_index("row")[["n"]]) == "row,n\na,3\nb,1\n"

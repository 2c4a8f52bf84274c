"""What the notebooks propose to try: runs that exist, each with an answer."""

import json
import re

import pytest

from bench import tries
from sltlib.base import paths
from sltlib.notebook import by_profile, parameters, profiles

ANSWER = re.compile(r"<details><summary>Answer</summary>(.+?)</details>", re.DOTALL)


@pytest.mark.parametrize("name", profiles.names())
def test_every_item_is_a_run_and_has_its_answer(name, monkeypatch, tmp_path):
    monkeypatch.setenv("SLT_RESULTS", str(tmp_path))
    for runs, text in tries.items(name):
        for changes in runs:
            declared = profiles.declared(name)
            assert changes.keys() <= {profiles.PARAMETER, *declared}, text
            if named := changes.pop(profiles.PARAMETER, ""):
                profile, more = by_profile.read(named, declared)
                declared |= profiles.block(profile, name) | more
            values = declared | changes
            if not values.get("dataset", "fashion").startswith("fashion"):  # another data set is not here
                values["dataset"] = profiles.declared(name)["dataset"]
            parameters.check(name, values)
        answer = ANSWER.findall(text)
        assert len(answer) == 1 and len(answer[0].split()) > 5 and "?" in text.partition("<details>")[0], text
        assert not re.search(r"[`*]", answer[0]), f"Markdown is not read inside HTML: {answer[0]}"


def leave(folder, *items):
    folder.mkdir()
    cells = [{"cell_type": "markdown", "source": ["## Try it\n\n", *items, "\n**Next:** [x](x.ipynb)"]}]
    (folder / "01_x.ipynb").write_text(json.dumps({"cells": cells}))


def test_an_item_is_read_as_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    leave(paths.NOTEBOOKS, "1. `a = 0.5` with `b = [1, 2]`: so?\n\n   <details>`c = 1`</details>\n\n", "2. `a = 2`, then `c = \"x\"` instead: and?\n")
    (first, _), (second, text) = tries.items("01_x")
    assert first == [{"a": 0.5, "b": [1, 2]}] and second == [{"a": 2}, {"c": "x"}] and "Next" not in text


def test_an_item_without_a_parameter_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    leave(paths.NOTEBOOKS, "1. `a = 1`: so?\n", "2. think about it: why?\n")
    with pytest.raises(ValueError, match="think about it.* names no parameter"):
        tries.items("01_x")


def test_what_differs_is_told():
    verdicts = [{"claim": "a above b", "verdict": "holds", "detail": "+2"}]
    first = {"n": 3, "rows": {"a": {"mean": 1.0}, "b": {"mean": 5}}, "claims": verdicts}
    other = {"n": 3, "rows": {"a": {"mean": 2.0}, "b": {"mean": 5}}, "claims": [verdicts[0] | {"verdict": "not resolved"}], "more": [1]}
    said = tries.compared(first, other)
    assert said == ["rows/a/mean: 1.0 -> 2.0", "claims/a above b: holds, +2 -> not resolved, +2", "more/0: None -> 1"]
    assert tries.compared(first, first) == []


def test_a_run_is_made_and_what_it_changes_is_told(tmp_path, monkeypatch, capsys):
    """Of real notebooks; the second answer of this one says that the rate doubles. A run that fails ends no other."""
    made, run = [], tries.run
    monkeypatch.setattr(tries, "items", lambda name: [([{"threshold": -1.0}, {"threshold": 0.5}], "")])
    monkeypatch.setattr(tries, "run", lambda name, changes, folder: made.append(changes) or run(name, changes, folder))
    assert tries.main(["00", "--to", str(tmp_path / "to")]) == 1
    first, refused, second, *changed = capsys.readouterr().out.splitlines()
    assert first == "== 00_spiking_neuron 1a {'threshold': -1.0}" and second == "== 00_spiking_neuron 1b {'threshold': 0.5}"
    assert "threshold=-1.0: give" in refused and "rate_by_hand: 0.15 -> 0.3" in changed
    assert made == [{"profile": ""}, {"threshold": -1.0}, {"threshold": 0.5}], "the defaults run once"

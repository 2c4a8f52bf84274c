"""curves.csv, and the picture of how far the trainings of Reward 1 came."""

from types import SimpleNamespace

import pytest

from sltlib import convergence, figures
from sltlib.base import files
from sltlib.compared import records
from sltlib.notebook import outputs

ROWS = [("BinWSNN", 0.0, 1.0), ("BinWSNN-ConnS", 0.5, 4.0), ("BinWSNN-ConnS", 0.9499, 4.0), ("BNN", 0.0, 1.0), ("BNN-ConnS", 0.5, 1.0)]


def result(losses, scale, begin=0):
    history = [{"epoch": i, "train_loss": x} for i, x in enumerate(losses, begin)]
    return SimpleNamespace(history=history, experiment=SimpleNamespace(logit_scale=scale))


def leave(folder, epochs=3, seeds=3):
    """A folder as notebook 03 leaves it; losses are known: 2 / epoch + seed / 10."""
    lines, results = ["row,sparsity,seed,key"], {}
    for i, (row, sparsity, scale) in enumerate(ROWS):
        for seed in range(seeds):
            key = f"{i}{seed}".ljust(20, "f")
            lines.append(f"{row},{sparsity},{seed},{key}")
            results[key] = result([2 / (n + 1) + seed / 10 for n in range(epochs)], scale)
    folder.mkdir()
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    files.write(folder / convergence.FILE, outputs.curves_text(results))
    return folder


def test_the_text_has_a_line_a_training_and_nothing_for_what_is_not_there(tmp_path):
    text = outputs.curves_text({"a": result([1.0, 0.123456789], 1.0), "b": result([2.0, float("nan"), 0.5], 4.0), "c": result([], 1.0)})
    assert text.splitlines() == ["key,logit_scale,1,2,3", "a,1,1,0.12346,", "b,4,2,,0.5", "c,1,,,"]
    rewound = outputs.curves_text({"a": result([2.0, 1.0, 0.5], 1.0), "r": result([0.7, 0.4], 1.0, begin=1)})
    assert rewound.splitlines()[2] == "r,1,,0.7,0.4"  # begins in its second epoch
    assert outputs.curves_text({}) == "key,logit_scale\n"


def test_what_is_read_are_the_rows_that_reward_1_compares(tmp_path):
    found = convergence.read(leave(tmp_path / "03"))
    assert set(found) == {("lif", "dense"), ("lif", "50 %"), ("lif", "95 %"), ("relu", "dense"), ("relu", "50 %")}  # relu at 95 % is not trained
    assert found["lif", "95 %"]["scale"] == 4 and found["relu", "50 %"]["scale"] == 1
    assert found["lif", "dense"]["losses"] == [pytest.approx([2 + s / 10, 1 + s / 10, 0.66667 + s / 10], abs=1e-4) for s in range(3)]
    assert convergence.read(tmp_path / "none") == {}
    assert {line["key"] for line in records(tmp_path / "03" / convergence.FILE)} == {line["key"] for line in records(tmp_path / "03" / "table.csv")}


def test_a_training_is_found_by_a_key_that_looks_like_a_number(tmp_path):
    folder = leave(tmp_path / "03")
    found = convergence.read(folder)
    for old, new in (("00".ljust(20, "f"), "4239e469279095633760"), ("01".ljust(20, "f"), "1e999999999999999999")):  # both infinity
        for name in ("table.csv", convergence.FILE):
            (folder / name).write_text((folder / name).read_text().replace(old, new))
    assert convergence.read(folder) == found


def test_a_loss_that_was_not_finite_is_a_gap_and_no_other_epoch(tmp_path):
    folder = leave(tmp_path / "03")
    text = (folder / convergence.FILE).read_text().replace("00ffffffffffffffffff,1,2,1,", "00ffffffffffffffffff,1,2,,")
    (folder / convergence.FILE).write_text(text)
    found = convergence.read(folder)
    assert found["lif", "dense"]["losses"][0] == [2, None, pytest.approx(0.66667)]
    line = convergence.draw({"mini": found}).axes[0].lines[0].get_ydata()
    assert line[0] == pytest.approx(2.1) and line[1] != line[1] and line[2] == pytest.approx(0.76667, abs=1e-4)


def test_the_picture_says_which_losses_compare_with_nothing_else(tmp_path):
    found = {"mini": convergence.read(leave(tmp_path / "a")), "study": convergence.read(leave(tmp_path / "b", epochs=10, seeds=6))}
    fig = convergence.draw(found)
    assert [ax.get_title() for ax in fig.axes] == ["mini", "study"]
    assert "over 3 to 6 seeds" in " ".join(fig.get_supxlabel().split())
    assert "Of mini's lif 50 % and 95 %; study's lif 50 % and 95 % the loss is taken of a multiple" in " ".join(fig.get_supxlabel().replace("\N{NO-BREAK SPACE}", " ").split())
    assert "study, relu dense: 2.25 to 0.45 in 10 epochs (n=6)" in figures.alt(fig)
    dense = fig.axes[0].lines[0]
    assert list(dense.get_xdata()) == [1, 2, 3] and dense.get_ydata() == pytest.approx([2.1, 1.1, 0.76667], abs=1e-4)
    assert [ax.get_title() for ax in convergence.draw({"mini": found["mini"], "study": {}}).axes] == ["mini"]
    with pytest.raises(ValueError, match="run notebook 03_reward1_sparsity first"):
        convergence.draw({"mini": {}})

"""Figures: what is drawn, stable bytes in fresh processes, tables and metrics, all-or-nothing writes."""

import json
import math
import os
import subprocess
import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas
import pytest
from matplotlib.colors import to_hex

from sltlib import figures, stats
from sltlib.base import paths

TABLE = pandas.DataFrame(
    [
        {"row": row, "neuron": neuron, "seed": seed, "accuracy": accuracy + gain}
        for row, neuron, accuracy in (("SNN", "lif", 88), ("ANN", "relu", 90), ("BinActBNN", "sign", 80))
        for seed, gain in enumerate((0, 1, 3))
    ]
)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def words(fig):
    return fig._supxlabel.get_text().replace("\n", " ")


def lines(ax):
    """Every line of the axes as (colour, x values, y values)."""
    return [(to_hex(a.get_color()).upper(), [*a.get_xdata()], [*a.get_ydata()]) for a in ax.lines]


def test_import_is_light():
    code = (
        "import sys, sltlib.figures; sys.exit('torch' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT).returncode == 0


def test_dots_show_mean_interval_and_every_seed():
    fig = figures.dots(TABLE, "accuracy", "row", reference={"SNN": 87.71, "other": 1}, xlabel="accuracy (%)")
    (ax,) = fig.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["SNN", "ANN", "BinActBNN"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row on top
    drawn = lines(ax)
    for i, (row, neuron) in enumerate((("SNN", "lif"), ("ANN", "relu"), ("BinActBNN", "sign"))):
        found = stats.interval(TABLE[TABLE.row == row].accuracy)
        assert (figures.COLOURS[neuron], [found.low, found.high], [i, i]) in drawn
        assert (figures.COLOURS[neuron], [found.mean], [i]) in drawn
        assert [*ax.collections[i].get_offsets()[:, 0]] == [*TABLE[TABLE.row == row].accuracy]
    assert ("#FFFFFF", [87.71], [0]) in drawn and len(drawn) == 7
    assert "n=3" in words(fig)
    legend = [t.get_text() for t in fig.legends[0].get_texts()]
    assert legend == ["lif", "relu", "sign", "the paper's"]


def test_a_neuron_looks_the_same_wherever_it_stands():
    for i in range(9):
        for neuron in ("relu", "lif", "sign"):
            assert figures.look(neuron, i) == figures.look(neuron)
            assert figures.look("other", i)["color"] != figures.look(neuron)["color"]
    looks = [figures.look(neuron) for neuron in ("relu", "lif", "sign")]
    for part in ("color", "marker", "linestyle"):  # readable in grey too
        assert len({look[part] for look in looks}) == 3


def test_dots_of_several_hues_in_a_row_do_not_overlap():
    twice = pandas.concat([TABLE.assign(weights="float"), TABLE.assign(weights="binary")])
    (ax,) = figures.dots(twice, "accuracy", "row", hue="weights").axes
    means = [y[0] for _, x, y in lines(ax) if len(x) == 1]
    assert {colour for colour, x, _ in lines(ax)} == {figures.look("", i)["color"] for i in (0, 1)}
    assert len(set(means)) == 6 and [round(y) for y in means] == [0, 0, 1, 1, 2, 2]


def test_caption_tells_n():
    assert "n=1" in words(figures.dots(TABLE[TABLE.seed == 0], "accuracy", "row"))
    uneven = TABLE.drop(index=0)
    assert "n=2 to 3" in words(figures.dots(uneven, "accuracy", "row", hue=None))
    assert "n=2 to 3" in words(figures.curves(uneven, "row", "accuracy", hue=None))


def test_differences_are_filled_where_zero_is_outside():
    found = {
        "up": stats.paired([3, 4, 5], [1, 2, 3.1]),
        "open": stats.paired([3, 4, 5], [1, 9, 3]),
        "down": stats.paired([1, 2, 3.1], [3, 4, 5]),
        "one": stats.paired([3], [1]),
    }
    fig = figures.differences(found, margin=1.0)
    means = [a for a in fig.axes[0].lines if len(a.get_xdata()) == 1]
    assert [to_hex(a.get_markerfacecolor()) != "#ffffff" for a in means] == [True, False, True, False]
    assert [*fig.axes[0].lines[1].get_xdata()] == [-1.0, -1.0]
    assert "n=1 to 3" in words(fig) and "margin of 1" in words(fig)
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == list(found)


def test_curves_are_sorted_means_with_a_band():
    table = pandas.DataFrame(
        [{"neuron": n, "T": t, "y": t * k} for n in ("lif", "relu") for t in (8, 1, 4) for k in (1, 2, 3)]
    )
    fig = figures.curves(table, "T", "y")
    (ax,) = fig.axes
    assert lines(ax)[0] == (figures.COLOURS["lif"], [1, 4, 8], [2, 8, 16])
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(stats.interval([8, 16, 24]).high)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["lif", "relu"]
    single = figures.curves(table.drop_duplicates(["neuron", "T"]), "T", "y")
    assert not single.axes[0].collections and "n=1" in words(single)


def test_drawing_into_given_axes():
    fig, (left, right) = figures.new(figures.PAGE, 2, 1, 2)
    assert figures.dots(TABLE, "accuracy", "row", ax=left) is fig
    assert figures.curves(TABLE, "seed", "accuracy", ax=right) is fig
    assert left.lines and right.lines and fig.get_figwidth() == 7


def test_images_share_one_scale_and_keep_their_order():
    pictures = np.arange(5 * 4 * 4).reshape(5, 1, 4, 4)
    fig = figures.images(pictures, list("abcde"), columns=3)
    shown = [ax for ax in fig.axes if ax.images]
    assert [ax.get_title() for ax in shown] == list("abcde") and len(fig.axes) == 6
    assert all(ax.images[0].get_clim() == (0, 79) for ax in shown)
    assert np.array_equal(shown[4].images[0].get_array(), pictures[4, 0])
    colour = figures.images(np.zeros((2, 3, 4, 5), np.uint8))
    assert colour.axes[0].images[0].get_array().shape == (4, 5, 3)
    with pytest.raises(ValueError, match="titles has 1"):
        figures.images(pictures, ["a"])
    with pytest.raises(ValueError, match=r"shape \(4, 4\)"):
        figures.images(pictures[0, 0])


def test_a_difference_is_filled_where_it_is_resolved_after_correction():
    found = {"a": stats.Interval(1.2, 0.66, 1.78, 3, 0.01), "b": stats.Interval(1.2, 0.66, 1.78, 3, 0.01)}

    def faces(**options):
        ax = figures.differences(found, **options).axes[0]
        return [line.get_markerfacecolor() for line in ax.lines if line.get_marker() == "o"]

    assert "white" not in faces()
    assert [face == "white" for face in faces(adjusted={"a": 0.04, "b": 0.08})] == [False, True]
    assert [face == "white" for face in faces(margin=1.0)] == [False, False]
    near = {"a": stats.Interval(-1.2, -2.2, -0.2, 3, 0.03)}  # excludes zero, but not the margin
    assert figures.differences(near, margin=1.0).axes[0].lines[-1].get_markerfacecolor() == "white"
    marks = [line.get_marker() for line in figures.differences(found, reference={"b": 2.0}).axes[0].lines]
    assert marks.count("D") == 1


DRAW = """
import matplotlib; matplotlib.use("Agg")
import sys, pandas
from sltlib import figures
table = pandas.DataFrame({"row": list("aabb"), "neuron": list("rrll"), "y": [1.0, 2, 3, 5]})
fig = figures.dots(table, "y", "row")
figures.save(fig, sys.argv[1], "dots")
figures.headline(fig, sys.argv[1])
figures.write_metrics({"b": {2: 0.1, 1: {"x"}.pop()}, "a": 1}, sys.argv[1])
figures.write_table(table, sys.argv[1])
"""


def test_files_are_the_same_in_every_process_and_at_every_time(tmp_path):
    for i, epoch in ((0, "0"), (1, "1700000000")):
        # hash order and the clock are what differs between two honest runs
        env = {**os.environ, "PYTHONHASHSEED": str(i), "SOURCE_DATE_EPOCH": epoch}
        subprocess.run([sys.executable, "-c", DRAW, tmp_path / str(i)], cwd=paths.ROOT, env=env, check=True)
    found = [
        {p.relative_to(r): p.read_bytes() for p in r.rglob("*") if p.is_file()}
        for r in sorted(tmp_path.iterdir())
    ]
    names = ["figure.png", "figures/dots.pdf", "figures/dots.png", "metrics.json", "table.csv"]
    assert sorted(map(str, found[0])) == names
    assert found[0] == found[1]
    pdf = found[0][next(p for p in found[0] if p.suffix == ".pdf")]
    assert b"Date" not in pdf and b"matplotlib" not in pdf.lower()
    assert b"Software" not in found[0][next(p for p in found[0] if p.suffix == ".png")]


def test_saved_png_has_its_size_in_pixels(tmp_path):
    fig, _ = figures.new(figures.COLUMN, 2)
    figures.save(fig, tmp_path, "empty")
    assert plt.imread(tmp_path / "figures" / "empty.png").shape[:2] == (400, 680)


@pytest.mark.parametrize("name", ["", "a/b", "../a"])
def test_figure_names_are_plain(tmp_path, name):
    fig, _ = figures.new()
    with pytest.raises(ValueError, match="name="):
        figures.save(fig, tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_metrics_are_sorted_rounded_and_without_nan(tmp_path):
    metrics = {
        "z": np.float32(0.1),
        "a": stats.interval([5.0]),
        "verdict": stats.superior([2, 3], [1, 2], "a claim"),
        "seeds": np.arange(3),
        "yes": np.bool_(True),
        "none": None,
        4: math.nan,
    }
    figures.write_metrics(metrics, tmp_path)
    text = (tmp_path / "metrics.json").read_text()
    found = json.loads(text)
    assert list(found) == sorted(found) == ["4", "a", "none", "seeds", "verdict", "yes", "z"]
    assert found["z"] == 0.1 and found["4"] is None and found["seeds"] == [0, 1, 2] and found["yes"] is True
    assert found["a"] == {"mean": 5, "low": None, "high": None, "n": 1, "p": None}
    assert found["verdict"]["verdict"] == "holds" and text.endswith("}\n")


def test_metrics_that_json_cannot_hold_are_named_and_nothing_is_written(tmp_path):
    with pytest.raises(TypeError, match=r"metrics\.rows\[1\]\.path is a PosixPath"):
        figures.write_metrics({"rows": [{}, {"path": tmp_path}]}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_table_has_fixed_digits(tmp_path):
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
    figures.write_table(table, tmp_path)
    want = (
        "row,mean,n,lr,rates,spiking\n"
        'a,88.1235,3,0.001,"{""conv1"": 0.333333, ""conv2"": 0.25}",true\n'
        "b,,1,0.1,,false\n"
    )
    assert (tmp_path / "table.csv").read_text() == want
    figures.write_table(table.set_index("row")[["n"]], tmp_path)
    assert (tmp_path / "table.csv").read_text() == "row,n\na,3\nb,1\n"


def test_a_failed_write_leaves_the_old_file_and_no_scratch(tmp_path, monkeypatch):
    figures.write_metrics({"a": 1}, tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    figures.write_text("µ\n", tmp_path / "new" / "a.txt")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"\xc2\xb5\n"
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        figures.write_text("longer", tmp_path / "new" / "a.txt")
    assert [p.read_text() for p in (tmp_path / "new").iterdir()] == ["µ\n"]
    with pytest.raises(OSError, match="No space"):
        figures.write_metrics({"a": 2}, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.json", "new"]
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"a": 1}


def test_frames_are_coloured_by_polarity_and_white_where_nothing_happened():
    frames = np.zeros((3, 2, 4, 4))
    frames[0, 1, 0, 0] = frames[0, 0, 1, 1] = 5  # an ON and an OFF event
    pictures = figures.frame_pictures(frames, full=5)
    assert pictures.shape == (3, 3, 4, 4)
    assert (pictures[1:] == 1).all() and (pictures[0, :, 2:] == 1).all()
    for place, colour in (((0, 0), figures.ON), ((1, 1), figures.OFF)):
        assert pictures[0, :, *place] == pytest.approx([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    assert (figures.frame_pictures(frames * 100, full=5) >= 0).all()


def test_a_recording_is_drawn_with_y_upwards_and_thinned():
    found = np.zeros(50_000, [("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
    found["t"], found["p"] = np.arange(50_000), np.arange(50_000) % 3 == 0
    fig = figures.recording(found, (34, 34), most=1000)
    on, off = fig.axes[0].collections
    assert 900 < len(on._offsets3d[0]) + len(off._offsets3d[0]) <= 1000
    assert set(on._offsets3d[2]) == {33}  # the upper row, y = 0, is on top


def test_recordings_are_shown_as_the_sum_of_their_frames():
    frames = np.zeros((2, 3, 2, 4, 4), np.uint8)
    frames[0, :, 1, 0, 0] = 250  # three frames of 250 ON events: more than a byte holds
    frames[0, 0, 1, 1, 1] = 250  # one frame of 250: a third of the colour, but more than 750 modulo 256
    fig = figures.images(frames, columns=2)
    drawn = [ax.images[0].get_array() for ax in fig.axes]
    white = np.ones(3)
    assert np.abs(white - drawn[0][1, 1]).sum() == pytest.approx(np.abs(white - drawn[0][0, 0]).sum() / 3, rel=0.05)
    assert np.array_equal(figures.faded(frames, np.zeros((2, 1), int), 1), figures.frame_pictures(frames.sum(1, dtype=int)))
    assert (drawn[1] == 1).all() and drawn[0].shape == (4, 4, 3)
    assert drawn[0][0, 0].tolist() == pytest.approx([int(figures.ON[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def test_only_removed_patches_are_faded():
    pictures = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 1, 8, 8)
    shown = figures.faded(pictures, np.array([[0, 3], [1, 2]]), 2)  # 2 x 2 patches of 4 x 4 pixels
    same = np.isclose(shown, pictures / 255).all(1)  # (N, H, W), all three colours
    for picture, kept in zip(same, ([(0, 0), (4, 4)], [(0, 4), (4, 0)]), strict=True):
        for row in (0, 4):
            for column in (0, 4):
                assert picture[row : row + 4, column : column + 4].all() == ((row, column) in kept)

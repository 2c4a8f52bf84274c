"""Figures: what is drawn agrees with what is said, in one style, the same bytes in every process."""

import os
import subprocess
import sys

import hypothesis.strategies as st
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from matplotlib.colors import to_hex

from sltlib import figures, stats
from sltlib.base import paths
from sltlib.data import DATASETS

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
    return fig._supxlabel.get_text().replace("\n", " ").replace("\N{NO-BREAK SPACE}", " ")


def lines(ax):
    """Every line of the axes as (colour, x values, y values)."""
    return [(to_hex(a.get_color()).upper(), [*a.get_xdata()], [*a.get_ydata()]) for a in ax.lines]


def test_import_is_light():
    code = (
        "import sys, sltlib.figures; sys.exit('torch' in sys.modules or 'matplotlib.pyplot' in sys.modules or 'seaborn' in sys.modules)"
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
        assert (figures.COLOURS[neuron], [found.low, found.high], [i - 0.08, i - 0.08]) in drawn
        assert (figures.COLOURS[neuron], [found.mean], [i - 0.08]) in drawn
    fig.canvas.draw()  # the swarm takes its places
    seeds = np.concatenate([swarm.get_offsets() for swarm in ax.collections])
    assert sorted(seeds[:, 0]) == sorted(TABLE.accuracy) and (seeds[:, 1] % 1 < 0.5).all()  # below their interval
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


def by_step(points):
    return pandas.DataFrame([{"neuron": n, "T": t, "y": t * k} for n in ("lif", "relu") for t in points for k in (1, 2, 3)])


def bars(ax):
    """Every error bar of the axes as (places, means, half lengths)."""
    return [
        ([*c.lines[0].get_xdata()], [*c.lines[0].get_ydata()], [(s[1, 1] - s[0, 1]) / 2 for s in c.lines[2][0].get_segments()])
        for c in ax.containers
    ]


def test_curves_of_few_points_are_dodged_bars_and_of_many_are_bands():
    fig = figures.curves(by_step((8, 1, 4)), "T", "y")
    (ax,) = fig.axes
    (lif, relu) = bars(ax)
    assert lif[1] == relu[1] == [2, 8, 16] and lif[2] == pytest.approx([stats.interval([t, 2 * t, 3 * t]).half for t in (1, 4, 8)])
    assert [a < t < b for a, t, b in zip(lif[0], (1, 4, 8), relu[0], strict=True)] == [True] * 3  # none hides another
    assert [to_hex(c.lines[0].get_color()).upper() for c in ax.containers] == [figures.COLOURS[n] for n in ("lif", "relu")]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["lif", "relu"]
    single = figures.curves(by_step((8, 1, 4)).drop_duplicates(["neuron", "T"]), "T", "y")
    assert "n=1" in words(single) and bars(single.axes[0])[0][2] == [0, 0, 0]
    many = figures.curves(by_step(range(1, 15)), "T", "y").axes[0]
    assert lines(many)[0] == (figures.COLOURS["lif"], list(range(1, 15)), [2 * t for t in range(1, 15)])
    band = many.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(stats.interval([14, 28, 42]).high)


def test_no_line_joins_kinds():
    kinds = by_step((1, 2, 3)).assign(T=lambda t: t["T"].map({1: "linear", 2: "conv", 3: "attention"}))
    (ax,) = figures.curves(kinds, "T", "y").axes
    assert [c.lines[0].get_linestyle() for c in ax.containers] == ["None"] * 2
    assert [t.get_text() for t in ax.get_xticklabels()] == ["linear", "conv", "attention"]
    (ax,) = figures.curves(by_step((1, 2, 3)), "T", "y").axes
    assert [c.lines[0].get_linestyle() for c in ax.containers] == ["--", "-"]


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


def intervals(ax, row):
    """Lines along x in a row, the longest first."""
    found = [[*a.get_xdata()] for a in ax.lines if len(a.get_xdata()) == 2 and set(a.get_ydata()) == {row}]
    return sorted(found, key=lambda ends: ends[0] - ends[1])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-4, 4), min_size=1, max_size=6), st.integers(2, 8), st.integers(0, 999))
def test_a_mark_is_filled_exactly_where_its_corrected_interval_excludes_zero(means, n, seed):
    random = np.random.default_rng(seed)
    found = {f"d{i}": stats.paired(list(mean + random.normal(0, 1, n)), [0] * n) for i, mean in enumerate(means)}
    adjusted = dict(zip(found, stats.holm([f.p for f in found.values()]), strict=True))
    (ax,) = figures.differences(found, adjusted=adjusted).axes
    for i, label in enumerate(found):
        (mark,) = [a for a in ax.lines if a.get_marker() == "o" and [*a.get_ydata()] == [i]]
        low, high = intervals(ax, i)[0]
        assert (mark.get_markerfacecolor() != "white") == (low > 0 or high < 0) == (adjusted[label] < 0.05)
        assert low <= found[label].low and high >= found[label].high
    plt.close("all")


def test_the_corrected_interval_of_a_family_of_two_is_that_of_97_and_a_half_percent():
    a, b = [1.0, 2.0, 4.0, 3.0], [5.0, 1.0, 3.0, 2.5]
    found = {"a": stats.paired(a, [0] * 4), "b": stats.paired(b, [0] * 4)}
    first = min(found, key=lambda label: found[label].p)  # Holm doubles the smaller p-value
    adjusted = dict(zip(found, stats.holm([f.p for f in found.values()]), strict=True))
    (ax,) = figures.differences(found, adjusted=adjusted).axes
    want = stats.interval({"a": a, "b": b}[first], level=0.975)
    assert intervals(ax, list(found).index(first))[0] == pytest.approx([want.low, want.high])


def test_the_corrected_interval_of_independent_groups_has_their_degrees_of_freedom():
    scipy_t = pytest.importorskip("scipy.stats").t
    df, error, mean = 2.37, 0.4, 4.0  # Welch's degrees of freedom, which are no n - 1
    half, p = error * scipy_t.ppf(0.975, df), 2 * scipy_t.sf(mean / error, df)
    found = {"w": stats.Interval(mean, mean - half, mean + half, 3, p)}
    (ax,) = figures.differences(found, adjusted={"w": 5 * p}).axes
    assert intervals(ax, 0)[0] == pytest.approx([mean - error * scipy_t.ppf(0.995, df), mean + error * scipy_t.ppf(0.995, df)], rel=1e-4)


def test_ratios_are_dots_on_a_log_axis_that_hide_none_of_each_other():
    found = {"ANN / MPSLT": {way: stats.interval([k, k + 1, k + 2]) for k, way in ((4, "arithmetic"), (2, "memory"))}}
    fig = figures.ratios(found, reference={"ANN / MPSLT": 8.92}, about="Fashion-MNIST")
    (ax,) = fig.axes
    assert ax.get_xscale() == "log" and not ax.patches  # no bars: they would begin nowhere
    means = [(y[0], x[0]) for _, x, y in lines(ax) if len(x) == 1]
    assert sorted(x for _, x in means) == [3, 5, 8.92] and len({y for y, _ in means}) == 3
    assert words(fig).startswith("Fashion-MNIST. Mean") and "n=3" in words(fig)
    assert {"2", "5"} <= {t.get_text() for t in ax.get_xticklabels()}


def test_a_distribution_shows_every_value_and_says_their_medians():
    fig = figures.distribution(TABLE, "accuracy", "row", xlabel="accuracy (%)")
    (ax,) = fig.axes
    fig.canvas.draw()
    points = [c.get_offsets()[:, 0] for c in ax.collections if len(c.get_offsets()) == 3]
    assert [sorted(p) for p in points] == [sorted(part.accuracy) for _, part in TABLE.groupby("row", sort=False)]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["SNN", "ANN", "BinActBNN"]
    assert "SNN median 89.00" in figures.alt(fig) and "n=3 a row" in words(fig)


def test_captions_name_the_data_set_and_are_read_at_column_width():
    fig = figures.dots(TABLE.assign(dataset="fashion"), "accuracy", "row")
    assert words(fig).startswith(DATASETS["fashion"].title)
    assert words(figures.dots(TABLE, "accuracy", "row", about="CIFAR-10")).startswith("CIFAR-10. Mean")
    for width in (figures.COLUMN, figures.PAGE):
        fig, _ = figures.new(width, 2)
        figures.caption(fig, "of the words that are below a figure " * 12)
        pixels = fig._supxlabel.get_fontsize() / 72 * 500 / width  # shown 500 pixels wide
        assert pixels >= 8.5
        box = fig._supxlabel.get_window_extent(fig.canvas.get_renderer())
        assert box.width <= fig.bbox.width and box.width > 0.8 * fig.bbox.width


def test_alt_texts_tell_the_numbers_and_travel_within_the_file(tmp_path):
    fig = figures.dots(TABLE, "accuracy", "row", xlabel="accuracy (%)")
    figures.save(fig, tmp_path, "dots")
    figures.headline(fig, tmp_path, alt="Ein Überblick − kurz")
    told = figures.alt_of(tmp_path / "figures" / "dots.png")
    assert told.startswith("accuracy (%) by row: SNN 89.33 ± 3.79 (n=3), ANN") and told.endswith("each seed.")
    assert figures.alt_of(tmp_path / "figure.png") == "Ein Überblick − kurz"
    fig, ax = figures.new()
    ax.set(xlabel="time", ylabel="U")
    figures.caption(fig, "One neuron.")
    assert figures.alt(fig) == "U; time; One neuron."
    fig, axes = figures.new(figures.PAGE, 2, 1, 2)
    for ax, label in zip(axes, "ab", strict=True):
        figures.differences({label: stats.paired([3, 4, 5], [1, 2, 3.1])}, ax=ax)
    assert "a 1.97" in figures.alt(fig) and "b 1.97" in figures.alt(fig)


def test_no_library_and_no_method_wears_a_neurons_colour_and_no_row_is_black():
    neurons = {colour for name, colour in figures.COLOURS.items() if name != "linear"}
    assert not neurons & {*figures.PALETTE, figures.GREY, figures.ON, figures.OFF}
    for name in figures.OTHERS:
        assert figures.look(name)["color"] not in neurons and figures.look(name, 3) == figures.look(name)
    for row in ("MPSLT", "BinWSNN-ConnS", "dense SNN", "SLT"):
        assert figures.look(row, 0)["color"] == figures.COLOURS["lif"]
    assert figures.look("MPSLT") == figures.look("BinWSNN-ConnS") != figures.look("SLT")
    for colour in (*figures.PALETTE, figures.GREY, *neurons):  # seen on white: not yellow
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        assert 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.75


DRAW = """
import matplotlib; matplotlib.use("Agg")
import sys, pandas
from sltlib import figures
table = pandas.DataFrame({"row": list("aabb"), "neuron": list("rrll"), "y": [1.0, 2, 3, 5]})
fig = figures.dots(table, "y", "row")
figures.save(fig, sys.argv[1], "dots")
figures.headline(fig, sys.argv[1])
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
    names = ["figure.png", "figures/dots.pdf", "figures/dots.png"]
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

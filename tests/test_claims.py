"""claims.yaml is whole, and a claim's verdict comes from its own rows, its sanity check and its predictions."""

import copy
import itertools
import json
import math
import re
import subprocess
import sys

import numpy as np
import pandas
import pytest
import yaml

from sltlib import claims, evidence, figures, forest, predictions, stats
from sltlib.base import files, paths
from sltlib.notebook import outputs
from sltlib.predictions import Predictions

CLAIMS = claims.load()
ENTRIES = yaml.safe_load(claims.FILE.read_text())
LABELS = np.random.default_rng(0).integers(0, 10, 1000)
COMMITTED = paths.ROOT / "results" / "mini"


def world(shares, n=6, images=1000):
    """(lines, {key: Right}) of rows that get these shares of the images right; shares : {row: share}."""
    rng, lines, right = np.random.default_rng(1), [], {}
    ease = rng.random(images)
    for row, share in shares.items():
        for seed in range(n):
            hit = ease + rng.normal(0, 0.02, images) < share
            key = f"{row}-{seed}"
            right[key] = Predictions.of(np.where(hit, LABELS[:images], (LABELS[:images] + 1) % 10), LABELS[:images])
            lines.append({"row": row, "seed": seed, "key": key, "test_accuracy": right[key].accuracy})
    return pandas.DataFrame(lines), predictions.unpack(predictions.pack(right))


CIFAR = {"SNN": 0.85, "BinWSNN-ConnS": 0.852, "BinWSNN-ConnS random-readout": 0.6, "linear": 0.4}


# --- the file


def test_seven_claims_of_the_papers_and_one_of_ours():
    assert [claim.ours for claim in CLAIMS.values()] == [False] * 7 + [True]
    assert all(claim.n >= 6 for claim in CLAIMS.values())
    known = {path.stem for path in paths.NOTEBOOKS.glob("*.ipynb")} | {"09_standard_tickets"}
    assert {claim.notebook for claim in CLAIMS.values()} <= known
    assert len({claim.claim for claim in CLAIMS.values()}) == 8


def test_the_papers_numbers_are_those_of_the_tables():
    from sltlib import table1, table2

    theirs = table1.paper("cifar10")
    reward = theirs["BinWSNN-ConnS"] - theirs["BinWSNN"] - (theirs["BNN-ConnS"] - theirs["BNN"])
    assert CLAIMS["reward-1"].paper["value"] == pytest.approx(reward)
    assert CLAIMS["cifar10"].paper["value"] == pytest.approx(theirs["BinWSNN-ConnS"] - theirs["SNN"])
    dvs = table1.paper("cifar10-dvs")
    assert CLAIMS["data-sets"].paper["value"] == pytest.approx(dvs["BinWSNN-ConnS"] - dvs["SNN"])
    two = table2.paper("cifar10")
    assert CLAIMS["reward-2"].paper["value"] == pytest.approx(two["MultiSp-SLT"] - two["MultiSp-LT"])
    assert CLAIMS["multisp"].paper["value"] == pytest.approx(two["Spikeformer-CPS"] - two["Spikeformer"])


@pytest.mark.parametrize("name", CLAIMS)
def test_every_hypothesis_names_rows_that_the_committed_table_has(name):
    table = COMMITTED / CLAIMS[name].notebook / "table.csv"
    if not table.is_file():
        pytest.skip(f"{CLAIMS[name].notebook} has no results yet")
    assert claims.terms(CLAIMS[name], claims.records(table))


def test_no_torch_to_read_the_claims():
    code = "import sys; from sltlib import claims; claims.table(); assert not {'torch', 'matplotlib', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=paths.ROOT)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(n=5), "n=5: give at least 6 trainings a row"),
        (dict(headline=True), "n=6: give at least 10 trainings a row, for it is a headline"),
        (dict(kind="better"), "kind='better': choose from above, no worse"),
        (dict(groups="both"), "groups='both'"),
        (dict(margin=0), "margin=0: give points above 0"),
        (dict(hypothesis=" "), "hypothesis=' ': give words"),
        (dict(sanity=[]), "sanity: give a list"),
        (dict(sanity=[{"row": {"row": "a"}}]), "sanity: give a list"),
        (dict(compare=[{"weight": 1, "row": "a"}, {"weight": -0.5, "row": "b"}]), "weights of a difference sum to 0"),
        (dict(compare=[{"row": "a"}]), "compare: give a list of"),
        (dict(saving=True), "a saving has two paired terms"),
        (dict(ours="no"), "ours='no': give true or false"),
        (dict(paper={"value": 1}), "paper: give value, same and note"),
        (dict(paper={"value": "1", "same": True, "note": ""}), "value is a number or null"),
        (dict(colour=1), "'colour' is no field of a claim"),
    ],
)
def test_a_wrong_claim_is_named_with_what_would_be_right(tmp_path, change, words):
    entries = copy.deepcopy(ENTRIES)
    entries["cifar10"] |= change
    entries["reward-1"].pop("source")
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(entries))
    with pytest.raises(ValueError) as caught:
        claims.load(path)
    assert words in str(caught.value) and "cifar10: " in str(caught.value)
    assert "reward-1: has no source" in str(caught.value)  # all at once


# --- the verdicts


def test_a_claim_is_judged_by_its_rows_with_both_intervals():
    table, right = world(CIFAR)
    found = claims.judge(CLAIMS["cifar10"], table, right)
    assert found.verdict == stats.HOLDS and found.n == 6 and "for new images" in found.why
    assert found.found.difference == pytest.approx(
        table[table.row == "BinWSNN-ConnS"].test_accuracy.mean() - table[table.row == "SNN"].test_accuracy.mean()
    )
    assert found.inside is True  # the papers' +0.05
    alone = claims.judge(CLAIMS["cifar10"], table)
    assert alone.found.over_images is None and "for new images" not in alone.why
    worse, right = world(CIFAR | {"BinWSNN-ConnS": 0.7})
    found = claims.judge(CLAIMS["cifar10"], worse, right)
    assert (found.verdict, found.inside) == (stats.FAILS, False)


def test_keys_that_look_like_numbers_are_read_as_they_are(tmp_path):
    """4239e469279095633760 was infinity, and its predictions were missed."""
    table, right = world(CIFAR)
    digits = dict(zip(table.key, ["12345678901234567890", "4239e469279095633760", *(f"{n:020}" for n in range(len(table)))], strict=False))
    table, right = table.assign(key=table.key.map(digits)), {digits[key]: found for key, found in right.items()}
    (tmp_path / "table.csv").write_text(outputs.table_text(table))
    assert [line["key"] for line in claims.records(tmp_path / "table.csv")] == list(digits.values())
    assert str(claims.judge(CLAIMS["cifar10"], tmp_path / "table.csv", right)) == str(claims.judge(CLAIMS["cifar10"], table, right))


def test_a_row_has_the_name_that_it_was_given(tmp_path):
    (tmp_path / "table.csv").write_text("row,seed,sparsity\n1e5,0,0.5\n")
    assert claims.records(tmp_path / "table.csv") == [{"row": "1e5", "seed": 0, "sparsity": 0.5}]


def test_fewer_trainings_than_planned_are_called_preliminary():
    table, right = world(CIFAR, n=3)
    assert "n=3 of 6 planned: preliminary" in claims.judge(CLAIMS["cifar10"], table, right).why
    one, right = world(CIFAR, n=1)
    found = claims.judge(CLAIMS["cifar10"], one, right)
    assert found.verdict == stats.UNTESTED  # one training cannot be said to be above linear


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"linear": 0.9}, r"SNN \(8.* is not above linear \(8"),
        ({"BinWSNN-ConnS random-readout": 0.86}, "BinWSNN-ConnS .* is not above BinWSNN-ConnS random-readout"),
        ({"linear": CIFAR["SNN"] - 0.004}, r"SNN \(8.* is not above linear \(8.*\) beyond chance\.$"),
    ],
)
def test_a_claim_on_networks_that_fail_their_sanity_check_is_not_tested(change, words):
    table, right = world(CIFAR | change)
    found = claims.judge(CLAIMS["cifar10"], table, right)
    assert (found.verdict, found.found, found.n) == (stats.UNTESTED, None, 0)
    assert re.search(words, found.why), found.why


def test_a_sanity_check_names_the_row_and_where_it_was_looked_at():
    assert [claims._named("linear"), claims._named("MPSLT", sweep="T", value=1)] == ["linear", "MPSLT at T 1"]


def test_what_a_table_lacks_is_not_tested_and_said():
    table, _ = world({name: share for name, share in CIFAR.items() if name != "linear"})
    assert "the table has no row linear" in claims.judge(CLAIMS["cifar10"], table).why
    doubled = pandas.concat([table, table])
    assert "two lines for row BinWSNN-ConnS, seed 0" in claims.judge(CLAIMS["cifar10"], doubled).why


def test_a_table_and_predictions_that_disagree_are_refused():
    table, right = world(CIFAR)
    table.loc[0, "test_accuracy"] += 1
    with pytest.raises(ValueError, match="SNN, seed 0 has .* run the notebook again"):
        claims.judge(CLAIMS["cifar10"], table, right)
    table, right = world(CIFAR)
    right.pop("SNN-3")
    with pytest.raises(ValueError, match="no predictions of SNN, seed 3"):
        claims.judge(CLAIMS["cifar10"], table, right)
    table, right = world(CIFAR)
    right["SNN-3"] = predictions.Right(right["SNN-3"].images, "another")
    with pytest.raises(ValueError, match="tested on other images"):
        claims.judge(CLAIMS["cifar10"], table, right)


def test_a_mean_over_sparsities_is_spread_out():
    lines = [
        {"row": row, "sparsity": s, "seed": seed, "key": f"{row}{s}{seed}", "test_accuracy": value - 10 * s * (s > 0) * (row == "BNN-ConnS") + seed / 100}
        for row, points, value in (("BinWSNN-ConnS", (0.5, 0.8001, 0.95), 85), ("BinWSNN", (0.0,), 85),
                                   ("BNN-ConnS", (0.5, 0.8001, 0.95), 85), ("BNN", (0.0,), 85), ("linear", (0.0,), 60))
        for s, seed in itertools.product(points, range(6))
    ]  # fmt: skip
    found = claims.judge(CLAIMS["reward-1"], pandas.DataFrame(lines))
    assert found.verdict == stats.HOLDS
    assert found.found.difference == pytest.approx(10 * (0.5 + 0.8001 + 0.95) / 3)


def test_a_saving_is_a_share_of_the_first_row_against_its_bar():
    def lines(mpslt):
        return [
            {"row": row, "model": model, "seed": seed, "key": "k", "nJ": nj + seed / 10}
            for row, nj in (("ANN", 1000), ("BinWSNN-ConnS", mpslt))
            for model, seed in itertools.product(("arithmetic", "memory"), range(6))
        ]

    accuracies, _ = world({"ANN": 0.8, "BinWSNN-ConnS": 0.8, "linear": 0.4})
    others = {"02_table1_cnn": accuracies}
    found = claims.judge(CLAIMS["energy"], pandas.DataFrame(lines(112)), others=others)
    assert found.verdict == stats.HOLDS and found.found.difference == pytest.approx(88.8, abs=0.1)
    assert claims.judge(CLAIMS["energy"], pandas.DataFrame(lines(250)), others=others).verdict == stats.FAILS
    assert "wants the table of 02_table1_cnn" in claims.judge(CLAIMS["energy"], pandas.DataFrame(lines(112))).why


# --- from files to the README's table and the forest plot


@pytest.fixture
def results(tmp_path):
    for profile, n, images in (("mini", 3, 300), ("study", 6, 1000)):
        table, right = world(CIFAR, n, images)
        folder = tmp_path / profile / "02_table1_cnn"
        files.write(folder / "table.csv", outputs.table_text(table))
        files.write(folder / "metrics.json", outputs.metrics_text({"dataset": "cifar10"}))
        files.write(folder / predictions.FILE, predictions.pack(right))
    return tmp_path


def test_the_table_has_a_row_a_claim_and_the_verdict_of_the_larger_profile(results):
    found = claims.table(results=results)
    assert list(found) == list(CLAIMS) and list(found["cifar10"]) == ["mini", "study"] and not found["reward-1"]
    table, right = world(CIFAR)
    direct = claims.judge(CLAIMS["cifar10"], table, right)
    assert found["cifar10"]["study"].why == direct.why  # through the files as in the notebook
    assert found["cifar10"]["study"].dataset == "cifar10"
    lines = claims.markdown(found).splitlines()
    assert len(lines) == 2 + 7 and len(claims.markdown(found, ours=True).splitlines()) == 2 + 8
    assert len({line.count("|") for line in lines}) == 1
    row = next(line for line in lines if "02_table1_cnn" in line)
    assert row.endswith(f"| **{found['cifar10']['study'].verdict}** |") and "cifar10: " in row and "+0.05" in row
    assert sum("not run" in line for line in lines) == 6


def test_a_cell_of_the_table_says_a_verdict_with_both_intervals_in_few_words(results):
    """The numbers are those that the notebook's page has at length."""
    found = claims.table(results=results)["cifar10"]["study"]
    cell = claims.markdown({"cifar10": {"study": found}}).splitlines()[-1].split(" | ")[3]
    short = re.fullmatch(r"cifar10: holds: (\S+) \((\S+ to \S+); new images (\S+ to \S+)\), n=6", cell)
    assert short and re.match(
        rf"{re.escape(short[1])} points, 95 % interval over trainings {re.escape(short[2])}, for new images {re.escape(short[3])}; n=6;", found.why
    )
    mini = found.claim, evidence.evidence([(1, [80.0, 84.0]), (-1, [81.0, 84.5])], "independent")
    open_ = claims.Tested(mini[0], stats.OPEN, "x", mini[1])
    assert re.search(r"not resolved: -0\.75 \(\S+ to \S+\), n=2 of 6; n would have to be about \d+ \(power 80%\) ", claims.markdown({"cifar10": {"mini": open_}}))
    equal = claims.Tested(CLAIMS["reward-1"], stats.EQUAL, "x", evidence.evidence([(1, [80.0, 80.1, 80.2]), (-1, [80.1, 80.0, 80.2])], "independent"))
    assert re.search(r"equal[^:]*: \S+ \(.*\), n=3 of 6; margin 1 ", claims.markdown({"reward-1": {"mini": equal}}))
    flat = claims.Tested(CLAIMS["energy"], stats.OPEN, "x", evidence.evidence([(1, [89.0, 89.0])], "paired", bar=80))
    assert "not resolved: 89.00 % (no spread), n=2 of 6; " in claims.markdown({"energy": {"mini": flat}})
    single = claims.Tested(CLAIMS["energy"], stats.OPEN, "x", evidence.evidence([(1, [89.0])], "paired", bar=80))
    assert "not resolved: 89.00 % (one training), n=1 of 6; n would have to be at least 2 " in claims.markdown({"energy": {"mini": single}})


def test_without_its_predictions_a_folder_gives_no_verdict(results):
    """The interval over trainings alone is the narrower one: it would hold what new images leave open."""
    (results / "study" / "02_table1_cnn" / predictions.FILE).unlink()
    found = claims.table(results=results)["cifar10"]["study"]
    assert found.verdict == stats.UNTESTED and "predictions.safetensors is missing beside its table" in found.why


def test_a_notebook_judges_its_claim_as_the_pages_do():
    """Notebook 09 judges its claim itself: what it committed is what the pages read from its files, interval by interval."""
    told = json.loads((paths.ROOT / "results" / "mini" / "09_standard_tickets" / "metrics.json").read_text())["primary"]
    read = claims.table(("mini",), paths.ROOT / "results")["standard-tickets"]["mini"]
    assert (told["verdict"], told["why"]) == (read.verdict, read.why) and "for new images" in read.why


def test_a_row_with_no_other_spread_than_its_images_goes_by_these():
    """Equal differences have no interval over trainings; that for new images is known all the same."""
    right = np.random.default_rng(0).random((3, 400)) < 0.8
    right[1:] = right[0]
    a = dict(enumerate(right))
    b = {seed: images & (np.arange(400) > 40) for seed, images in a.items()}
    found = evidence.evidence([(1, {s: 100 * x.mean() for s, x in a.items()}), (-1, {s: 100 * x.mean() for s, x in b.items()})], "paired", [a, b])
    assert math.isinf(found.over_trainings.half) and 0 < found.decisive.half < 10 and evidence.judge(found, "above", 1)[0] == stats.HOLDS
    bare = evidence.evidence([(1, [81.0, 82.0, 83.0]), (-1, [80.0, 81.0, 82.0])], "paired")
    assert evidence.judge(bare, "above", 0.5) == (stats.OPEN, "n would have to be at least 4")


def test_the_forest_plot_draws_what_its_rows_tell(results):
    found = claims.table(results=results)
    rows = {row["profile"]: row for row in forest.rows(found)}
    wins = found["cifar10"]["study"].found.wins
    assert rows["study"]["unit"] == "points of accuracy" and rows["study"]["wins"] == (wins.share, wins.low, wins.high)
    assert rows["study"]["needs"] == -1 and rows["study"]["paper"] == 0.05 and rows["study"]["n"] == 6
    low, high = rows["study"]["images"]
    assert low <= rows["study"]["trainings"][0] < rows["study"]["estimate"] < rows["study"]["trainings"][1] <= high
    fig = forest.draw(found)
    drawn = [tuple(line.get_xdata()) for line in fig.axes[0].lines]
    assert (low, high) in drawn and rows["mini"]["trainings"] in drawn and (-1, -1) in drawn
    assert rows["study"]["dataset"] == "cifar10" and "study, cifar10: holds (n=6)" in [text.get_text() for text in fig.axes[1].texts]
    assert "study, cifar10: holds (n=6)" in figures.alt(fig) and f"{rows['study']['estimate']:+.2f}" in figures.alt(fig)
    for one, folder in ((fig, "a"), (forest.draw(found), "b")):
        figures.headline(one, results / folder)
    assert (results / "a" / "figure.png").read_bytes() == (results / "b" / "figure.png").read_bytes()
    with pytest.raises(ValueError, match="run their notebooks first"):
        forest.draw({})


def test_a_claim_that_is_not_tested_has_a_row_without_a_mark():
    tested = claims.Tested(CLAIMS["reward-2"], stats.UNTESTED, "x")
    (row,) = forest.rows({"reward-2": {"mini": tested}})
    assert row["estimate"] is None and row["images"] is None and row["verdict"] == "not tested"
    over = claims.Tested(CLAIMS["energy"], stats.HOLDS, "x", evidence.evidence([(1, [89.0, 90.0])], "paired", bar=80))
    (row,) = forest.rows({"energy": {"mini": over}})  # beyond the 80 %
    assert row["unit"] == "% saved, beyond 80" and row["estimate"] == pytest.approx(9.5) and sum(row["trainings"]) / 2 == pytest.approx(9.5) and row["paper"] == pytest.approx(8.8)
    fig = forest.draw({"reward-2": {"mini": tested}})
    assert any("mini: not tested" == text.get_text() for text in fig.axes[1].texts)


def test_one_claim_with_two_verdicts_is_found():
    said = {
        "07": {"claims": [{"claim": "the dense Spikeformer beats linear", "verdict": "holds"}]},
        "08": {"claims": [{"claim": "the dense Spikeformer above linear", "verdict": "not resolved"}]},
        "05": {"result": "no claims"},
    }
    assert claims.contradictions(said) == [
        "'the dense Spikeformer above linear': holds in 07, not resolved in 08"
    ]
    said["08"]["claims"][0]["verdict"] = "holds"
    assert claims.contradictions(said) == []

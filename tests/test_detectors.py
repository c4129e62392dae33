"""Detectors on labelled pairs: counts by hand, curves as scikit-learn has them, calibration, the command."""

import json
import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_curve, precision_score, recall_score

from trl_math.cli.main import main
from trl_math.contamination.detectors import DETECTORS
from trl_math.contamination.harness import Settings, evaluate, given_scores, run_detector, run_detectors
from trl_math.contamination.labelled import read_pairs
from trl_math.contamination.matches import Match, in_order
from trl_math.contamination.pair_measures import (
    Scored,
    best_threshold,
    calibrate,
    clean_weight,
    measure,
    measure_kinds,
    threshold_curve,
)
from trl_math.errors import DataError, MissingPackageError
from trl_math.evaluation.intervals import proportion


INF = math.inf


def scored(scores, labels, groups=None):
    groups = range(len(labels)) if groups is None else groups
    return Scored(np.array(scores, dtype=float), np.array(labels, dtype=bool), np.array(groups))


def random_pairs(seed, num=400, num_items=60, step=None):
    """Scores that tell the labels apart somewhat; with `step`, many are equal."""
    random = np.random.default_rng(seed)
    labels = random.random(num) < 0.3
    scores = np.clip(random.normal(0.4 + 0.25 * labels, 0.2), 0, 1)
    scores = scores if step is None else np.round(scores / step) * step
    return Scored(scores, labels, random.integers(num_items, size=num))


def row(test, train, is_contaminated, kind="paraphrase", **columns):
    return {"test": test, "train": train, "is_contaminated": is_contaminated, "kind": kind, **columns}


# Six items: 3 found, 1 missed, 1 wrongly flagged, 3 rightly left.
HAND = scored([0.9, 0.8, 0.7, 0.2, 0.75, 0.1, 0.0, -INF], [1, 1, 1, 1, 0, 0, 0, 0], [0, 1, 2, 3, 0, 1, 4, 5])


def test_counts_by_hand():
    found = measure(HAND, 0.7)
    assert [
        found[f"{name}s"] for name in ("true_positive", "false_positive", "false_negative", "true_negative")[:2]
    ] == [3, 1]
    assert (found["false_negatives"], found["true_negatives"]) == (1, 3)
    assert found["precision"] == proportion(3, 4)._asdict() and found["recall"] == proportion(3, 4)._asdict()
    assert found["f1"]["value"] == 0.75 and found["f1"]["n"] == 6
    assert found["f1"]["low"] < 0.75 < found["f1"]["high"]


def test_clean_rows_are_weighted_to_their_prevalence():
    """25 clean to one: 4 contaminated stand for 100 clean, so each of 4 clean counts for 25."""
    assert clean_weight(HAND.labels, 25) == 25
    found = measure(HAND, 0.7, clean_ratio=25)
    assert found["precision"]["value"] == pytest.approx(3 / (3 + 25))
    assert found["recall"]["value"] == 0.75
    assert found["f1"]["value"] == pytest.approx(6 / (6 + 25 + 1))
    recall, wrong = proportion(3, 4), proportion(1, 4)
    assert found["precision"]["low"] == pytest.approx(recall.low / (recall.low + 25 * wrong.high))
    assert found["precision"]["high"] == pytest.approx(recall.high / (recall.high + 25 * wrong.low))


def test_nothing_flagged_has_no_precision_and_recall_zero():
    found = measure(HAND, 0.95)
    assert found["precision"] is None and found["recall"]["value"] == 0 and found["f1"]["value"] == 0


def test_unknown_pairs_are_counted_by_themselves():
    pairs = scored([0.9, math.nan, 0.1, math.nan], [1, 1, 0, 0])
    found = measure(pairs, 0.5)
    assert found["num_unknown"] == {"contaminated": 1, "clean": 1}
    assert (found["recall"]["value"], found["precision"]["value"]) == (0.5, 1.0)
    assert found["if_unknown_is_flagged"] == {"precision": 2 / 3, "recall": 1.0, "f1": pytest.approx(0.8)}
    assert "if_unknown_is_flagged" not in measure(HAND, 0.5)


@pytest.mark.parametrize("step", [None, 0.1])
@pytest.mark.parametrize("ratio", [None, 25])
def test_curves_are_those_of_scikit_learn(step, ratio):
    pairs = random_pairs(3, step=step)
    weights = np.where(pairs.labels, 1.0, clean_weight(pairs.labels, ratio))
    precision, recall, thresholds = precision_recall_curve(pairs.labels, pairs.scores, sample_weight=weights)
    curve = threshold_curve(pairs, ratio)
    np.testing.assert_allclose(curve.thresholds, thresholds)
    np.testing.assert_allclose(curve.precision, precision[:-1])
    np.testing.assert_allclose(curve.recall, recall[:-1])


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.77])
@pytest.mark.parametrize("ratio", [None, 4])
def test_measures_are_those_of_scikit_learn(threshold, ratio):
    pairs = random_pairs(4)
    flagged = pairs.scores >= threshold
    weights = np.where(pairs.labels, 1.0, clean_weight(pairs.labels, ratio))
    found = measure(pairs, threshold, ratio)
    for name, theirs in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        assert found[name]["value"] == pytest.approx(theirs(pairs.labels, flagged, sample_weight=weights))


def test_what_is_not_returned_lowers_recall_and_has_no_place_on_a_curve():
    curve = threshold_curve(HAND)
    assert curve.thresholds.tolist() == [0.0, 0.1, 0.2, 0.7, 0.75, 0.8, 0.9]
    missing = scored([0.9, -INF, -INF], [1, 1, 0])
    assert threshold_curve(missing).recall.tolist() == [0.5]
    nothing = scored([-INF, -INF], [1, 0])
    assert len(threshold_curve(nothing).thresholds) == 0 and best_threshold(threshold_curve(nothing)) is None


def test_the_interval_of_f1_is_wider_where_pairs_of_an_item_are_alike():
    """40 items of which each has ten copies of its pair: 400 pairs tell no more than 40."""
    few = random_pairs(5, num=40, num_items=40)
    alone = few._replace(groups=np.arange(40))
    copies = Scored(*(np.repeat(values, 10) for values in alone))
    apart = copies._replace(groups=np.arange(400))
    widths = [(one := measure(pairs, 0.5)["f1"])["high"] - one["low"] for pairs in (alone, copies, apart)]
    assert widths[1] == pytest.approx(widths[0], rel=1e-9)
    assert widths[2] < 0.6 * widths[1]


def test_the_interval_of_f1_covers_what_it_should():
    """120 data sets of 80 items: the F1 of a large one lies in 95 % of the intervals, give or take the draw."""
    truth = measure(random_pairs(0, num=200_000, num_items=200_000), 0.5, num_bootstrap=1)["f1"]["value"]
    inside = 0
    for seed in range(1, 121):
        found = measure(random_pairs(seed, num=160, num_items=80), 0.5, num_bootstrap=300, seed=seed)["f1"]
        inside += found["low"] <= truth <= found["high"]
    assert inside / 120 > 0.87


def test_the_same_seed_gives_the_same_interval_and_another_another():
    pairs = random_pairs(6)
    assert measure(pairs, 0.5, seed=1) == measure(pairs, 0.5, seed=1)
    assert measure(pairs, 0.5, seed=1)["f1"] != measure(pairs, 0.5, seed=2)["f1"]


def test_the_best_threshold_has_the_largest_f1_and_lies_between_scores():
    for seed in range(5):
        pairs = random_pairs(seed)
        threshold = best_threshold(threshold_curve(pairs))
        every = [f1_score(pairs.labels, pairs.scores >= one) for one in np.unique(pairs.scores)]
        assert f1_score(pairs.labels, pairs.scores >= threshold) == pytest.approx(max(every))
        assert threshold not in pairs.scores
    # Where all that is returned is right, the threshold is half-way to what was not looked for.
    curve = threshold_curve(scored([0.9, 0.8, -INF], [1, 1, 0]))
    assert best_threshold(curve, lowest=0.2) == pytest.approx(0.5) and best_threshold(curve) == 0.8


def test_calibration_measures_on_the_other_half():
    pairs = random_pairs(7)
    second = pairs.groups % 2 == 1
    found = calibrate(pairs, second)
    first = pairs.of(~second)
    assert found.threshold == best_threshold(threshold_curve(first))
    assert found.chosen_on == measure(first, found.threshold)
    assert found.measured_on == measure(pairs.of(second), found.threshold)
    assert calibrate(pairs, np.zeros(len(pairs.scores), dtype=bool)) is None


def test_halves_divide_test_items_whatever_the_order_of_rows():
    rows = [
        row(f"test {number % 10}", f"train {number}", number % 3 == 0, pair_id=str(number)) for number in range(60)
    ]
    pairs, turned = read_pairs(rows), read_pairs(rows[::-1])
    halves = pairs.halves(0)
    sides = {
        text: {bool(half) for one, half in zip(pairs.test, halves, strict=True) if one == text} for text in pairs.test
    }
    assert all(len(side) == 1 for side in sides.values()) and sum(side == {True} for side in sides.values()) == 5
    assert turned.halves(0)[::-1].tolist() == halves.tolist()
    assert turned.groups[::-1].tolist() == pairs.groups.tolist()
    assert any(pairs.halves(seed).tolist() != halves.tolist() for seed in range(1, 5))


def test_blanks_are_left_out_and_counted_whatever_their_label():
    """The original counted an empty rephrasing as found."""
    rows = [row("a", "b", True), row("c", "d", False, "random"), row("e", " \n", True), row("", "x", False, "random")]
    pairs = read_pairs([*rows, row("e", None, True)])
    assert pairs.test == ["a", "c"]
    facts = pairs.facts
    assert (facts["num_rows"], facts["num_pairs"], facts["num_blank"]) == (5, 2, 3)
    assert facts["blank_of_kind"] == {"paraphrase": 2, "random": 1}
    assert facts["blank_ids"] == ["pair-2", "pair-3", "pair-4"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no ones only"),
        ([row("a", "b", True)], "has contaminated ones only"),
        ([row("a", "b", True), row("c", "", False)], "1 are blank"),
        ([{"test": "a", "train": "b"}], "has no is_contaminated"),
        ([row("a", "b", "yes")], "must be true or false, got 'yes'"),
        ([row("a", "b", None)], "must be true or false, got None"),
        ([row("a", 3, True)], "train must be a text, got 3"),
        ([row("a", "b", True, pair_id="x"), row("c", "d", False, pair_id="x")], "'x' is that of rows 0 and 1"),
    ],
)
def test_rows_that_are_no_pairs_are_refused(rows, message):
    with pytest.raises(DataError, match=message):
        read_pairs(rows)


@pytest.mark.parametrize(
    ("value", "message"), [("high", "must be a number"), (True, "must be a number"), (INF, "number or null")]
)
def test_scores_that_are_none_are_refused(value, message):
    with pytest.raises(DataError, match=message):
        read_pairs([row("a", "b", True, cosine=value)], ["cosine"])
    with pytest.raises(DataError, match="no column 'cosine'"):
        read_pairs([row("a", "b", True)], ["cosine"])


class Neighbour:
    """Finds the row that is nearest in length: what it returns depends on the other rows."""

    name = "neighbour"

    def __init__(self, threshold=0.6):
        self.threshold = threshold

    def find(self, test, train):
        matches = []
        for number, text in enumerate(test):
            score, place = max((1 / (1 + abs(len(text) - len(other))), -place) for place, other in enumerate(train))
            matches += [Match(number, -place, score, {})] if score >= self.threshold else []
        return in_order(matches)


def test_a_detector_sees_all_rows_as_it_does_in_use():
    """The second row is nearest to both items, so the first item's own row is not returned for it."""
    pairs = read_pairs([row("aaaa", "bb", True), row("aaaaa", "cccc", False), row("aaaaaa", "bb", True)])
    found = run_detector("neighbour", Neighbour, pairs, curve_from=0.1)
    assert found.threshold == 0.6 and found.curve_from == 0.1
    assert found.scores.tolist() == [-INF, 0.5, -INF]


def test_a_detector_whose_package_is_absent_is_named_and_the_others_run():
    def absent(threshold=0.5):
        raise MissingPackageError("absent needs the package 'nothing': pip install 'trl-math[contamination]'.")

    pairs, lines = read_pairs([row("a", "b", True), row("c", "d", False)]), []
    measured, missing = run_detectors({"absent": absent, "neighbour": Neighbour}, pairs, lines.append)
    assert [one.name for one in measured] == ["neighbour"] and list(missing) == ["absent"]
    assert "trl-math[contamination]" in lines[0]
    with pytest.raises(MissingPackageError, match="nothing"):
        run_detectors({"absent": absent}, pairs, lines.append)


def test_every_string_detector_finds_copies_and_no_other_text():
    texts = [
        f"A farmer named {name} has {number} sheep and sells {number // 3} of them to a neighbour; how many sheep are "
        "left on the farm after this sale is done?"
        for name, number in (("Ruth", 45), ("Igor", 33), ("Anna", 72), ("Omar", 21))
    ]
    rows = [row(text, text, True, "copy") for text in texts]
    rows += [
        row(text, f"Which planet of number {place} is far from the sun, and how long is its year?", False)
        for place, text in enumerate(texts)
    ]
    pairs = read_pairs(rows)
    for name, make in DETECTORS.items():
        found = evaluate(run_detector(name, make, pairs), pairs, Settings(num_bootstrap=50))["as_it_is"]
        assert (found["recall"]["value"], found["false_positives"]) == (1.0, 0), name


def test_kinds_have_measures_of_their_own():
    pairs = scored([0.9, 0.2, 0.9, 0.8, 0.1, 0.1], [1, 1, 1, 0, 0, 0])
    kinds = np.array(["light", "light", "heavy", "renumbered", "random", "random"])
    found = measure_kinds(pairs, kinds, 0.5)
    assert found["light"]["recall"]["value"] == 0.5 and found["heavy"]["recall"]["value"] == 1.0
    # Each kind is set against all clean pairs.
    assert found["heavy"]["precision"]["value"] == 0.5
    assert found["renumbered"]["false_positive_rate"] == proportion(1, 1)._asdict()
    assert found["random"]["false_positive_rate"]["value"] == 0.0 and "recall" not in found["random"]


def write_pairs(path, rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return str(path)


@pytest.fixture
def labelled(tmp_path):
    rows = []
    for number in range(24):
        text = f"Tom number {number} buys {number + 3} red apples and {number + 7} pears at the old market. How many?"
        other = f"Pears and apples, {number + 3} and {number + 7}: that is what Tom number {number} has bought. Total?"
        rows.append(
            row(text, text.replace("red ", "green "), True, "copy", pair_id=f"{number}/c", cosine=0.9 - number / 90)
        )
        rows.append(row(text, other, True, "retold", pair_id=f"{number}/r", cosine=0.7))
        rows.append(row(text, f"What is the square of {number}?", False, "random", pair_id=f"{number}/n", cosine=0.2))
    rows.append(row("only this", "", True, "retold", pair_id="blank", cosine=None))
    return write_pairs(tmp_path / "labelled.jsonl", rows)


def test_the_command(labelled, tmp_path, capsys):
    words = ["detectors", "--pairs", labelled, "--detectors", "normalised", "ngram_8_plain", "--prevalence", "25"]
    words += ["--score_columns", "cosine:0.75", "--output", str(tmp_path / "out")]
    assert main([*words, "--dry-run"]) == 0 and not (tmp_path / "out").exists()
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "72 pairs of 24 test items: 48 contaminated, 24 clean." in said
    assert "1 rows have an empty text and were left out: 1 retold." in said
    found = json.loads((tmp_path / "out" / "detectors.json").read_text())
    assert list(found["detectors"]) == ["normalised", "ngram_8_plain", "cosine"]
    plain = found["detectors"]["ngram_8_plain"]
    assert plain["kinds"]["copy"]["recall"]["value"] == 1.0 and plain["kinds"]["retold"]["recall"]["value"] == 0.0
    cosine = found["detectors"]["cosine"]
    assert cosine["as_it_is"]["true_positives"] == sum(0.9 - number / 90 >= 0.75 for number in range(24))
    assert cosine["calibrated"]["measured_on"]["f1"]["value"] == 1.0
    assert 0.2 < cosine["calibrated"]["threshold"] < 0.7
    scores = [json.loads(line) for line in (tmp_path / "out" / "scores.jsonl").read_text().splitlines()]
    assert len(scores) == 72 and scores[2]["scores"] == {"cosine": 0.2}
    ElementTree.parse(tmp_path / "out" / "detectors.svg")
    assert (tmp_path / "out" / "detectors.png").stat().st_size > 10_000
    # Again: nothing to do, the same tables; with other settings: refused.
    table = said[said.index("detector  ") :]
    assert main(words) == 0
    again = capsys.readouterr().out
    assert "nothing to do" in again and table in again
    assert main([*words, "--seed", "1"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_the_command_with_a_judge(labelled, tmp_path, capsys):
    """The real tiny model: all pairs in both orders; its answers are kept for other runs."""
    few = tmp_path / "few.jsonl"
    few.write_text("".join(Path(labelled).read_text().splitlines(keepends=True)[:9]))
    words = ["detectors", "--pairs", str(few), "--detectors", "judge", "--model", "embedded:tiny"]
    words += ["--backend", "transformers", "--judge_folder", str(tmp_path / "judge")]
    assert main([*words, "--price_input", "1", "--price_output", "2", "--output", str(tmp_path / "one")]) == 0
    said = capsys.readouterr().out
    assert "9 pairs are 18 questions (both orders), of which 18 are to be asked" in said and "cost: at most" in said
    found = json.loads((tmp_path / "one" / "detectors.json").read_text())
    assert found["judge"]["model"] == "embedded:tiny"
    counts = found["detectors"]["judge"]["as_it_is"]
    assert counts["true_positives"] + counts["false_negatives"] == 6
    assert main([*words, "--judge_threshold", "0.6", "--output", str(tmp_path / "two")]) == 0
    assert "of which 0 are to be asked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--detectors", "ngram_8"], "Which pairs?"),
        (["--pairs", "x.jsonl"], "Which detectors?"),
        (["--pairs", "x.jsonl", "--detectors", "ngram8"], "Did you mean 'ngram_8'"),
        (["--pairs", "x.jsonl", "--detectors", "judge"], "Which model judges?"),
        (["--pairs", "x.jsonl", "--detectors", "exact", "--model", "m"], "model is for the judge"),
        (["--pairs", "x.jsonl", "--detectors", "exact", "--judge_margin", "0.1"], "judge_margin is for the judge"),
        (["--pairs", "x.jsonl", "--score_columns", "cosine"], "COLUMN:THRESHOLD"),
        (["--pairs", "x.jsonl", "--detectors", "exact", "--score_columns", "exact:0.5"], "rename the column"),
        (["--pairs", "x.jsonl", "--detectors", "exact", "--prevalence", "0"], "prevalence is clean rows"),
        (["--pairs", "x.jsonl", "--detectors", "exact", "--curve_from", "2"], "curve_from must be"),
        (["--pairs", "x.jsonl", "--detectors", "exact", "--num_bootstrap", "0"], "num_bootstrap must be"),
        (["--pairs", "x.jsonl", "--detectors", "exact", "--smoke"], "no smoke form"),
        (["--pairs", "nowhere.jsonl", "--detectors", "exact"], "nowhere.jsonl"),
    ],
)
def test_what_cannot_work_is_refused_in_a_line(words, message, tmp_path, capsys):
    assert main(["detectors", *words, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_embedder_that_no_detector_uses_is_refused(labelled, tmp_path, capsys):
    words = ["detectors", "--pairs", labelled, "--detectors", "exact", "--embedder", "some/model"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 2
    assert "embedder is for detectors that embed" in capsys.readouterr().err


def test_scores_that_came_with_pairs_are_measured_as_they_are():
    rows = [row("a", "b", True, cosine=-0.5), row("c", "d", False, cosine=None), row("e", "f", True, cosine=0.9)]
    pairs = read_pairs(rows, ["cosine"])
    found = evaluate(given_scores(pairs, {"cosine": -1.0})[0], pairs, Settings(num_bootstrap=10))
    assert found["as_it_is"]["recall"]["value"] == 1.0
    assert found["as_it_is"]["num_unknown"] == {"contaminated": 0, "clean": 1}
    assert found["curve_from"] is None and found["curve"]["thresholds"] == [-0.5, 0.9]

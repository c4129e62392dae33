"""From graded rows to a summary; coverage from log-probabilities; the benchmark of both."""

import json
import math
import re
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest

from trl_math.errors import UsageError
from trl_math.evaluation import (
    coverage_at_k,
    coverage_estimates,
    mean_estimate,
    pass_at_k,
    problem_metrics,
    proportion,
    summarise,
    tally,
)


def row(problem_id: str, index: int, extracted: str | None, correct: bool | None, **more) -> dict:
    return {
        "problem_id": problem_id,
        "sample_index": index,
        "extracted": extracted,
        "correct": correct,
        "finish_reason": "stop",
        "sampler": "s1",
    } | more


ROWS = [
    row("a", 0, "1/2", True),
    row("b", 0, "3", False),
    row("a", 2, None, False, finish_reason="length"),
    row("a", 1, "0.5", True),
    row("b", 2, "7", True, finish_reason="length"),
    row("b", 1, "3", False),
    row("unreadable", 0, "3", None),
]
PROBLEMS = {"a": {"level": 2, "subject": "algebra", "answer_kind": "math"}, "b": {"level": 10, "subject": ""}}


def cluster(answers, kind):
    """Stand in for `grading.equivalence.cluster`."""
    assert kind == "math"
    return [{"1/2": "half", "0.5": "half"}.get(answer, answer) for answer in answers]


def test_rows_are_counted_by_problem_in_order_of_samples() -> None:
    tallies, num_unreadable = tally(ROWS, PROBLEMS, cluster)
    assert num_unreadable == 1
    assert [one.problem_id for one in tallies] == ["a", "b"]
    a, b = tallies
    assert (a.num_samples, a.num_correct, a.num_unanswered, a.num_truncated) == (3, 2, 1, 1)
    assert (a.votes, a.correct_classes, a.level, a.subject) == (("half", "half", None), {"half"}, "2", "algebra")
    assert (b.num_correct, b.num_truncated, b.votes, b.subject) == (1, 1, ("3", "3", "7"), None)


def test_summary_has_every_number_with_its_n() -> None:
    tallies, num_unreadable = tally(ROWS, PROBLEMS, cluster)
    summary = summarise(tallies, ks=(1, 2), majority_ks=(1, 3), num_unreadable=num_unreadable)
    assert {name: estimate.value for name, estimate in summary.metrics.items()} == pytest.approx(
        {
            "accuracy": 0.5,
            "unanswered": 1 / 6,
            "truncated": 1 / 3,
            "pass@2": (1 + 2 / 3) / 2,
            "maj@1": 0.5,
            "maj@3": 0.5,  # a's two halves win, b's 3 beats its 7
        }
    )
    assert all(estimate.n == 2 for estimate in summary.metrics.values())
    assert list(summary.levels) == ["2", "10"]
    assert summary.levels["2"]["accuracy"] == mean_estimate([2 / 3])
    assert list(summary.subjects) == ["algebra", "none"]
    assert (summary.num_problems, summary.num_samples, summary.samples_per_problem) == (2, 6, (3, 3))
    assert (summary.num_unreadable, summary.majority_error) == (1, {"maj@1": 0, "maj@3": 0})
    written = json.loads(json.dumps(summary.as_dict()))
    assert written["metrics"]["accuracy"].keys() == {"value", "low", "high", "n", "method", "confidence"}
    assert written["levels"]["10"]["pass@2"]["n"] == 1


def test_without_groups_and_without_classes() -> None:
    tallies, _ = tally(ROWS)
    assert summarise(tallies).levels == summarise(tallies).subjects == {}
    with pytest.raises(UsageError, match="maj@k needs the classes"):
        summarise(tallies, majority_ks=(2,))


def test_greedy_runs_have_wilsons_interval() -> None:
    tallies, _ = tally([row(f"p{i}", 0, "1", i < 15) for i in range(148)])
    assert summarise(tallies).metrics["accuracy"][:4] == pytest.approx(proportion(15, 148)[:4])


def test_a_group_of_one_problem_is_uncertain() -> None:
    tallies, _ = tally([row("a", i, "1", True) for i in range(64)], {"a": {"level": 5}})
    accuracy = summarise(tallies).levels["5"]["accuracy"]
    assert (accuracy.n, accuracy.value, accuracy.high) == (1, 1, 1)
    assert accuracy.low < 0.3


def test_what_cannot_be_summarised_is_refused() -> None:
    with pytest.raises(UsageError, match=r"pass@4 .* problem 0 \(a\) has 3"):
        problem_metrics(tally(ROWS)[0], ks=(4,))
    with pytest.raises(UsageError, match=r"maj@4 .* problem 0 \(a\) has 3"):
        problem_metrics(tally(ROWS, PROBLEMS, cluster)[0], majority_ks=(4,))
    with pytest.raises(UsageError, match="no problem to summarise"):
        summarise(tally([ROWS[-1]])[0])
    with pytest.raises(UsageError, match="two samples with index 0"):
        tally([row("a", 0, "1", True), row("a", 0, "1", True)])
    with pytest.raises(UsageError, match=r"2 settings \(s1, s2\)"):
        tally([row("a", 0, "1", True), row("a", 1, "1", True, sampler="s2")])


# ---- Coverage from log-probabilities ----

LOGPS = [0.0, -1e-300, -1e-17, -1e-9, -0.1, -math.log(2), -1.0, -20.0, -100.0, -600.0]


@pytest.mark.parametrize("k", [1, 2, 64, 100_000, 0.5])
def test_coverage_agrees_with_60_digits(k: float) -> None:
    with mpmath.workdps(700):
        expected = [float(1 - (-mpmath.expm1(mpmath.mpf(logp))) ** k) for logp in LOGPS]
    np.testing.assert_allclose(coverage_at_k(LOGPS, k), expected, rtol=1e-12)


def test_coverage_is_what_pass_at_k_estimates() -> None:
    n = np.arange(101)
    chance = np.array([math.comb(100, int(c)) * 0.05**c * 0.95 ** (100 - c) for c in n])
    np.testing.assert_allclose(coverage_at_k(math.log(0.05), [1, 8]), chance @ pass_at_k(100, n, [1, 8]), rtol=1e-12)


def test_coverage_of_a_benchmark() -> None:
    estimates = coverage_estimates(np.log([0.5, 0.25, 1.0]), [1, 2])
    assert [one.value for one in estimates] == pytest.approx([1.75 / 3, (0.75 + 0.4375 + 1) / 3])
    assert all(one.low < one.value < one.high and one.n == 3 for one in estimates)
    assert coverage_at_k([-math.inf, -800.0], 1000).tolist() == [0, 0]
    assert coverage_at_k([[0.0, -1.0]], [1, 2, 3]).shape == (1, 2, 3)
    assert coverage_at_k(1e-7, 3) == 1  # a float32 sum above 0
    with pytest.raises(UsageError, match=r"problem 1 has 0\.5"):
        coverage_at_k([-1.0, 0.5], 1)
    with pytest.raises(UsageError, match="problem 0 has nan"):
        coverage_at_k([math.nan], 1)
    with pytest.raises(UsageError, match="k must be a number above 0"):
        coverage_at_k([-1.0], 0)


# ---- The benchmark ----


@pytest.mark.slow
def test_benchmark_prints_its_figure_last(monkeypatch, capsys) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import metrics

    try:
        metrics.main(["--quick"])
    finally:
        del sys.modules["metrics"]
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"metrics: all pass@k in \d\.\d{3} s; coverage of means 30: \d+\.\d\.\.\d+\.\d %", last)

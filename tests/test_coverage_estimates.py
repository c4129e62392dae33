"""Estimates of F(N, p) from k of n: what is unbiased is so exactly, and what is not is known by how much."""

import importlib.util
from math import comb
from pathlib import Path

import numpy as np
import pytest
import torch

from trl_math.evaluation.sequential import AgreementRule
from trl_math.evaluation.sequential_exact import GO_ON, stops
from trl_math.losses.coverage_estimates import COVERAGE_ESTIMATORS, estimate, pass_at_n, pass_at_n_slope


SCRIPT = importlib.util.spec_from_file_location(
    "coverage_estimates_benchmark", Path(__file__).parents[1] / "benchmarks" / "coverage_estimates.py"
)
benchmark = importlib.util.module_from_spec(SCRIPT)
SCRIPT.loader.exec_module(benchmark)
bias_and_spread, binomial, true_weight = benchmark.bias_and_spread, benchmark.binomial, benchmark.true_weight

RATES = (0.0005, 0.01, 0.1, 0.37, 0.9, 0.999)


def counts(num_samples):
    right = torch.arange(num_samples + 1, dtype=torch.float64)
    return right, torch.full_like(right, num_samples)


@pytest.mark.parametrize(("num_samples", "num_attempts"), [(4, 1), (4, 4), (16, 2), (16, 16), (64, 16), (64, 64)])
def test_the_parts_of_f_are_estimated_without_bias(num_samples, num_attempts):
    """The sum over k of probability times estimate is the truth, to rounding."""
    right, total = counts(num_samples)
    for rate in RATES:
        chance = binomial(rate, num_samples)
        coverage = chance @ pass_at_n(right, total, num_attempts).numpy()
        slope = chance @ pass_at_n_slope(right, total, num_attempts).numpy()
        assert coverage == pytest.approx(benchmark.true_coverage(rate, num_attempts), rel=1e-9, abs=1e-14)
        assert slope == pytest.approx(benchmark.true_slope(rate, num_attempts), rel=1e-9, abs=1e-14)


def test_the_ratio_is_the_one_of_its_parts_and_is_biased():
    right, total = counts(16)
    found = estimate("u_statistic", right, total, 4)
    parts = pass_at_n_slope(right, total, 4)[1:] / pass_at_n(right, total, 4)[1:]
    torch.testing.assert_close(found[1:], parts)
    assert found[0] == 1, "the limit of F at p = 0"
    bias, _ = bias_and_spread(found.numpy(), 0.1, true_weight(0.1, 4))
    assert abs(bias) > 1e-3


def test_counting_subsets_gives_the_same():
    """4 of 7 samples: pass@3 is the share of subsets of three with a right one, the slope that of exactly one."""
    from itertools import combinations

    samples = [1, 0, 1, 1, 0, 1, 0]
    subsets = [sum(chosen) for chosen in combinations(samples, 3)]
    right, total = torch.tensor([4.0]).double(), torch.tensor([7.0]).double()
    share = sum(number > 0 for number in subsets) / comb(7, 3)
    assert float(pass_at_n(right, total, 3)) == pytest.approx(share)
    one = sum(number == 1 for number in subsets) / comb(7, 3)
    assert float(pass_at_n_slope(right, total, 3)) == pytest.approx(one)


@pytest.mark.parametrize("name", COVERAGE_ESTIMATORS)
def test_all_find_the_truth_with_many_samples(name):
    """The error shrinks with the samples, at every pass rate."""
    for rate in (0.01, 0.1, 0.5):
        truth = true_weight(rate, 4)
        errors = []
        for num_samples in (16, 128, 512):
            bias, spread = bias_and_spread(
                estimate(name, np.arange(num_samples + 1), num_samples, 4).numpy(), rate, truth
            )
            errors.append(np.hypot(bias, spread))
        assert errors[0] > errors[1] > errors[2] and errors[2] < 0.05


def test_more_attempts_than_samples_is_refused_where_it_has_no_meaning():
    with pytest.raises(ValueError, match="at least so many samples"):
        estimate("u_statistic", [1], [4], 8)
    assert 0 < float(estimate("plug_in", [1], [4], 8)[0]) < 1
    assert 0 < float(estimate("posterior_mean", [1], [4], 8)[0]) < 1


def test_the_table_tells_each_estimator_and_truth():
    head, rule, *lines = benchmark.table(16, 4, (0.1, 0.5))
    assert all(f"| {name} " in head for name in COVERAGE_ESTIMATORS) and head.count("|") == rule.count("|")
    cells = [cell.strip() for cell in lines[0].strip("|").split("|")]
    assert cells[:2] == ["0.1", f"{true_weight(0.1, 4):.3f}"]
    assert cells[-1].startswith(("+0.000 ±", "-0.000 ±")), "the slope has no bias"
    assert "u_statistic" in benchmark.table(4, 8, (0.1,))[0] and "| - |" in benchmark.table(4, 8, (0.1,))[2]


def test_the_benchmark_runs(capsys):
    benchmark.main(["--quick"])
    last = capsys.readouterr().out.strip().split("\n")[-1]
    assert last.startswith("root mean square error of F, N = 4, n = 8: plug_in 0.")


@pytest.mark.parametrize(
    ("rate", "whole", "stopped"),
    [(0.01, (0.761, 0.639), (0.869, 0.545)), (0.03, (0.426, 0.392), (0.638, 0.430)),
     (0.05, (0.229, 0.235), (0.451, 0.323)), (0.08, (0.084, 0.105), (0.250, 0.191))],
)  # fmt: skip
def test_stopping_early_biases_the_share(rate, whole, stopped):
    """Mean F(64, p) with all of 64 samples and with those that settle a gate of 0.1, as docs/objectives.md has it."""
    rule = AgreementRule(0.1, 64, 0.98)
    for table, expected in ((np.full_like(rule.table, GO_ON), whole), (rule.table, stopped)):
        chance = stops(table, rate).probability
        samples, right = np.nonzero(chance)
        for name, value in zip(("plug_in", "posterior_mean"), expected, strict=True):
            mean = chance[samples, right] @ estimate(name, right, samples, 64).numpy()
            assert mean == pytest.approx(value, abs=6e-4), name

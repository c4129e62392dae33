"""Stopping rules: what they promise, exactly, by dynamic programming that is itself held against all sequences."""

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest

from trl_math.errors import UsageError
from trl_math.evaluation.posterior import JEFFREYS, Prior, posterior_interval, predictive
from trl_math.evaluation.sequential import (
    AgreementRule,
    FixedRule,
    LevelRule,
    ThresholdRule,
    WidthRule,
)
from trl_math.evaluation.sequential_exact import GO_ON, stops


SCRIPT = importlib.util.spec_from_file_location(
    "sequential_sampling_benchmark", Path(__file__).parents[1] / "benchmarks" / "sequential_sampling.py"
)
benchmark = importlib.util.module_from_spec(SCRIPT)
SCRIPT.loader.exec_module(benchmark)

RATES = np.concatenate([[0, 1e-4, 0.01], np.linspace(0.02, 0.98, 25), [0.99, 1]])


def play(rule, sequence):
    """Return where a sequence of samples stops, by asking the rule as its users do."""
    right = 0
    for number, sample in enumerate(sequence, start=1):
        right += sample
        if rule.settled(right, number) is not None:
            return right, number
    return right, len(sequence)


@pytest.mark.parametrize(
    "rule", [ThresholdRule(0.4, 0.8, 9), AgreementRule(0.3, 9, 0.9), LevelRule(3, "released", 0.7, 9)]
)
def test_the_exact_sums_are_those_of_all_sequences(rule):
    for rate in (0.0, 0.17, 0.6):
        reached = np.zeros((10, 10))
        for sequence in itertools.product((0, 1), repeat=9):
            right, number = play(rule, sequence)
            reached[number, right] += rate ** sum(sequence) * (1 - rate) ** (9 - sum(sequence))
        found = stops(rule.table, rate)
        np.testing.assert_allclose(found.probability, reached, atol=1e-14)
        assert found.expected_samples == pytest.approx(float(reached.sum(axis=1) @ np.arange(10)))


def test_costs_are_known_at_every_place():
    """What is expected from here on, and the least that it may take, agree with the sums from here."""
    rule = AgreementRule(0.1, 32, 0.95, Prior(0.3, 1.0))
    for right, number in ((0, 0), (0, 2), (1, 5), (2, 8)):
        found = stops(rule.table, rule.prior, start=(right, number))
        assert found.probability.sum() == pytest.approx(1)
        assert found.expected_samples - number == pytest.approx(rule.expected[number, right])
        nearest = np.flatnonzero(found.probability.sum(axis=1) > 0)[0]
        assert nearest - number == rule.fewest[number, right]


# ---- threshold ----


@pytest.mark.parametrize(
    ("threshold", "confidence", "most"),
    [
        (0.1, 0.95, 64),
        (0.1, 0.98, 64),
        (0.1, 0.95, 128),
        (0.5, 0.9, 24),
        (0.5, 0.99, 100),
        (0.9, 0.95, 64),
        (0.02, 0.9, 160),
    ],
)
def test_threshold_keeps_its_promise_at_every_pass_rate(threshold, confidence, most):
    rule = ThresholdRule(threshold, confidence, most)
    low, high = rule.zone
    assert low < threshold < high
    for rate in [*RATES[low >= RATES], low]:
        assert stops(rule.table, rate).of_verdict(rule.table, 1) <= 1 - confidence + 1e-12
    for rate in [high, *RATES[high <= RATES]]:
        assert stops(rule.table, rate).of_verdict(rule.table, 0) <= 1 - confidence + 1e-12
    # And always ends with a verdict, far from the threshold soon.
    assert (rule.table[-1] != GO_ON).all()
    assert stops(rule.table, 0.0).expected_samples < most and stops(rule.table, 1.0).expected_samples < most


def test_threshold_takes_a_zone():
    rule = ThresholdRule(0.1, 0.95, 200, zone=(0.06, 0.16))
    assert rule.facts["zone"] == [0.06, 0.16]
    assert max(rule.facts["errors"]) <= 0.05
    with pytest.raises(UsageError, match=r"64 samples do not tell pass rates of 0.06 from 0.16 with confidence 0.95"):
        ThresholdRule(0.1, 0.95, 64, zone=(0.06, 0.16))
    with pytest.raises(UsageError, match=r"with the threshold 0.1 between them"):
        ThresholdRule(0.1, zone=(0.2, 0.3))
    with pytest.raises(UsageError, match=r"too few to tell on which side of 0.1"):
        ThresholdRule(0.1, 0.99, 1)


def test_more_samples_make_a_narrower_zone():
    widths = [high - low for low, high in (ThresholdRule(0.1, 0.95, most).zone for most in (32, 64, 128))]
    assert widths == sorted(widths, reverse=True) and widths[0] > 1.6 * widths[-1]


# ---- agreement ----


@pytest.mark.parametrize(
    ("name", "rates"), benchmark.mixtures().items(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_agreement_with_64_samples(name, rates):
    """The same decision at 0.1 for at least 97 % of problems with at most 0.4 of the samples, as by default."""
    rule = benchmark.fitted_rule(rates, 64, 0.1, 0.98)
    share, agrees = benchmark.over(rates, rule, 64, 0.1)
    assert agrees >= 0.97, (name, share, agrees)
    assert share <= 0.4, (name, share, agrees)


def test_the_benchmark_counts_what_a_rule_decides():
    """Its exact sums against samples that are drawn."""
    rule, generator = AgreementRule(0.2, 20, 0.9, Prior(0.4, 1.2)), np.random.default_rng(3)
    for rate in (0.05, 0.2, 0.45):
        drawn = []
        for _ in range(1500):
            sequence = generator.random(20) < rate
            right, number = play(rule, sequence.tolist())
            drawn.append((number, rule.best(right, number) == ("at_least" if sequence.sum() >= 4 else "below")))
        samples, agrees = np.mean(drawn, axis=0)
        expected = benchmark.agreement(rule, rate, 20, 0.2)
        assert samples == pytest.approx(expected[0], abs=4 * np.std(drawn, axis=0)[0] / 1500**0.5)
        assert agrees == pytest.approx(expected[1], abs=0.03)


def test_the_benchmark_runs(capsys):
    benchmark.main(["--quick"])
    assert (
        capsys.readouterr().out.strip().split("\n")[-1].startswith("sequential sampling: the decision of 16 samples")
    )


@pytest.mark.parametrize("confidence", [0.9, 0.98])
@pytest.mark.parametrize("prior", [JEFFREYS, Prior(0.12, 0.5), Prior(1, 4)])
def test_agreement_keeps_its_promise_on_average_over_the_prior(prior, confidence):
    rule = AgreementRule(0.1, 64, confidence, prior)
    found = stops(rule.table, prior)
    wrong = 0.0
    for number, right in np.argwhere(found.probability > 0):
        above = predictive(int(right), int(number), int(64 - number), prior)[max(7 - right, 0) :].sum()
        says_above = rule.best(right, number) == "at_least"
        wrong += found.probability[number, right] * (1 - above if says_above else above)
    assert 0 < wrong <= 1 - confidence


def test_agreement_is_certain_when_nothing_can_change_it():
    """Curtailment: at whatever confidence, 7 right ones of 64 are 0.1 of them, and 58 wrong ones are too many."""
    rule = AgreementRule(0.1, 64, 1 - 1e-12, Prior(1, 1))
    assert rule.settled(7, 7) == "at_least" and rule.settled(7, 60) == "at_least"
    assert rule.settled(0, 58) == "below" and rule.settled(6, 64) == "below"
    assert rule.settled(6, 63) is None and rule.best(6, 63) == "below"
    assert AgreementRule(0.1, 10).settled(1, 10) == "at_least", "0.1 itself is at least 0.1"


# ---- level and width ----


@pytest.mark.parametrize("kind", ["released", "report"])
def test_level_is_right_as_often_as_it_says(kind):
    """Over pass rates of the prior, by quadrature: of the problems that settle, the share whose level is right."""
    from trl_math.data.difficulty import difficulty_level

    prior, rule = Prior(1, 1), LevelRule(4, kind, 0.8, 48, Prior(1, 1))
    settled = right = 0.0
    for rate in (np.arange(100) + 0.5) / 100:
        found = stops(rule.table, rate)
        level = difficulty_level(rate, 4, kind)
        for place, verdict in enumerate(rule.verdicts):
            share = found.of_verdict(rule.table, place)
            settled += share
            # A level of its own for p = 0 can only be said of problems in which it is not told from the one below.
            right += share * (verdict == level or (kind == "report" and (verdict, level) == (4, 3)))
    assert settled > 0.5 * 100, "most settle"
    assert right / settled >= 0.8
    assert prior == rule.prior


def test_levels_are_numbered_as_their_rule_says():
    released, report = (LevelRule(5, kind, 0.9, 64) for kind in ("released", "report"))
    assert (released.verdicts, report.verdicts) == ((1, 2, 3, 4, 5), (0, 1, 2, 3, 4, 5))
    assert (released.best(0, 40), report.best(0, 40), report.best(1, 60)) == (5, 5, 4)
    assert (released.best(40, 40), report.best(40, 40)) == (1, 0)


def test_width_is_that_of_the_posterior():
    rule = WidthRule(0.25, 0.9, 80)
    number, right = (places[1:] for places in np.tril_indices(81))
    low, high = posterior_interval(right, number, 0.9)
    found = [rule.settled(int(k), int(n)) for k, n in zip(right, number, strict=True)]
    assert found == ["narrow" if is_narrow else None for is_narrow in high - low <= 0.25]
    assert rule.settled(0, 8) is not None and rule.settled(10, 20) is None


def test_fixed_takes_them_all():
    rule = FixedRule(3)
    assert [rule.settled(0, number) for number in range(4)] == [None, None, None, "sampled"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ThresholdRule(0.0), "threshold must be between 0 and 1, got 0.0"),
        (lambda: AgreementRule(1.5), "threshold must be between 0 and 1, got 1.5"),
        (lambda: AgreementRule(0.1, 0), "from 1 to 1024, got 0"),
        (lambda: AgreementRule(0.1, 64, 1.0), "confidence must be between 0 and 1"),
        (lambda: LevelRule(1), "levels must be at least 2, got 1"),
        (lambda: LevelRule(5, "relesed"), "Did you mean 'released'"),
        (lambda: WidthRule(0.0), "width must be between 0 and 1"),
        (lambda: FixedRule(4).settled(5, 4), "0 to 4 samples, of which 0 to all are right; got 5 of 4"),
        (lambda: FixedRule(4).best(0, 5), "got 0 of 5"),
    ],
)
def test_bad_input(make, says):
    with pytest.raises(UsageError, match=says):
        make()

"""Calibration error: by hand, against a calibrated model, and the coverage of its interval."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_math.errors import UsageError
from trl_math.evaluation import calibration


PAIRS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.125, 0.5, 0.75, 1.0]), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=30
)


def test_by_hand() -> None:
    confidence = [0.1, 0.3, 0.6, 0.7, 0.9, 1.0]
    correct = [0, 1, 0, 1, 1, 1]
    result = calibration(confidence, correct, num_bins=2, binning="width")
    # Below one half: |1 - 0.4| of 6; above: |3 - 3.2| of 6.
    assert result.plug_in == pytest.approx((0.6 + 0.2) / 6)
    assert [(one.low, one.high, one.accuracy.n) for one in result.bins] == [(0, 0.5, 2), (0.5, 1, 4)]
    assert [one.confidence for one in result.bins] == pytest.approx([0.2, 0.8])
    assert [one.accuracy.value for one in result.bins] == pytest.approx([0.5, 0.75])
    assert result.overconfidence.value == pytest.approx((3.6 - 4) / 6)
    assert result.binning == "2 bins of equal width"


def test_bins_of_equal_mass_keep_equal_confidences_together() -> None:
    confidence = [1.0] * 50 + [0.5] * 30 + [0.25] * 20
    result = calibration(confidence, [1.0] * 100)
    assert [(one.confidence, one.accuracy.n) for one in result.bins] == [(0.25, 20), (0.5, 30), (1.0, 50)]
    spread = calibration(np.linspace(0, 1, 200), [0.5] * 200)
    assert [one.accuracy.n for one in spread.bins] == [20] * 10
    assert len(calibration(np.linspace(0, 1, 60), [0.5] * 60).bins) == 3
    assert spread.binning == "10 bins of equal mass"


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.sampled_from(["mass", "width"]), st.randoms(use_true_random=False))
def test_bounds_and_order(pairs: list[tuple[float, float]], binning: str, random) -> None:
    def of(rows: list[tuple[float, float]]):
        return calibration([c for c, _ in rows], [y for _, y in rows], binning=binning, num_resamples=20)

    result = of(pairs)
    assert 0 <= result.error.low <= result.error.value <= result.error.high <= 1
    assert 0 <= result.plug_in <= 1
    assert sum(one.accuracy.n for one in result.bins) == len(pairs) == result.error.n
    assert result.plug_in >= abs(result.overconfidence.value) - 1e-12  # more bins, more gaps
    assert result == of(pairs)
    random.shuffle(pairs)
    assert of(pairs).plug_in == pytest.approx(result.plug_in)
    assert of(pairs).error.value == pytest.approx(result.error.value)


def test_a_calibrated_model_is_not_called_miscalibrated() -> None:
    """The usual number is a tenth where the truth is 0; a bootstrap of it would exclude the truth every time."""
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(100):
        confidence = rng.beta(2, 1, 100)
        result = calibration(confidence, rng.random(100) < confidence, num_bins=10, num_resamples=200, seed=seed)
        covered.append(result.error.low == 0)
        assert result.error.value < result.plug_in
    assert np.mean(covered) >= 0.92
    assert 0.07 < result.plug_in_if_calibrated < 0.13


@pytest.mark.parametrize("exponent", [1.2, 2.0, 4.0])
def test_interval_of_the_error_contains_the_truth(exponent: float) -> None:
    """90 % and more of 95 % intervals: the error is a sum of absolute values, which no bootstrap likes."""
    rng = np.random.default_rng(0)
    population = np.ceil(64 * rng.beta(1.2, 0.8, 100_000)) / 64
    gap = population**exponent - population
    inside = []
    for seed in range(200):
        confidence = rng.choice(population, 300)
        result = calibration(confidence, rng.random(300) < confidence**exponent, num_resamples=200, seed=seed)
        members = np.searchsorted([one.low for one in result.bins[1:]], population, side="right")
        truth = np.abs(np.bincount(members, gap)).sum() / len(population)
        inside.append(result.error.low <= truth <= result.error.high)
    assert np.mean(inside) >= 0.9


def test_an_overconfident_model() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.beta(5, 1, 1000)
    result = calibration(confidence, rng.random(1000) < confidence - 0.3)
    assert result.error.low > 0.2
    assert result.overconfidence.low > 0.2
    assert result.error.value == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([], []), {}, "confidence is empty"),
        (([0.5], [0, 1]), {}, "1 confidences, but 2 outcomes"),
        (([1.5], [1]), {}, "confidence must be numbers from 0 to 1"),
        (([0.5], [2]), {}, "correct must be numbers from 0 to 1"),
        (([0.5], [1]), {"binning": "with"}, "Did you mean 'width'"),
        (([0.5], [1]), {"num_bins": 0}, "num_bins"),
    ],
)
def test_nonsense_is_refused(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        calibration(*arguments, **options)

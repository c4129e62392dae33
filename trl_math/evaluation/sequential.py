"""When a problem has been sampled enough: rules that stop as soon as what is asked of its pass rate is settled.

    rule = ThresholdRule(threshold=0.1, confidence=0.95, max_samples=64)
    rule.settled(num_correct, num_samples)    # "below", "at_least", or None: go on

    fixed        nothing: it takes `max_samples` of every problem
    threshold    On which side of the threshold is the pass rate? At every single pass rate outside of a zone around
                 the threshold, the verdict is wrong with probability 1 - confidence at most.
    agreement    What would `max_samples` samples say of the threshold? On average over the prior, they would say
                 something else of a share of 1 - confidence of problems at most.
    level        Which level of difficulty is it? The verdict is right with the posterior probability `confidence`.
    width        What is the pass rate, to within an interval of this width, of that posterior probability?

`threshold` is Wald's sequential probability ratio test between the ends of the zone (Wald, "Sequential Tests of
Statistical Hypotheses", 1945), ended at `max_samples`. Wald's boundaries bound errors loosely, and say nothing of a
test that has an end; ours is a low one whose errors, computed exactly (`sequential_exact`), keep the promise. More
samples right never turn "at_least" into "below", so errors are largest at the ends of the zone, and the promise holds
for all pass rates beyond them. It needs no prior. If no zone is given it is the narrowest one, even in log-odds, whose
ends so many samples tell apart with half of the error; the other half is for stopping early.

`agreement` stops when the decision is certain whatever follows (curtailment) or when the rest of the samples, whose
number of right ones is beta-binomial, would leave it as it is with probability `confidence`. Right at the threshold,
where all samples would say either, more are decided otherwise. The three rules that
look at posteriors may stop when they like, as long as pass rates are distributed as their prior says: fit it to the
set.

Every rule is a table of verdicts by (n, k), made once; a decision is a look-up.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from trl_math.errors import UsageError, pick
from trl_math.evaluation.posterior import (
    JEFFREYS,
    Prior,
    check_confidence,
    posterior_interval,
    probability_at_least,
)
from trl_math.evaluation.sequential_exact import GO_ON, expected_further, fewest_further, stops


LEVEL_RULES = ("released", "report")  # as in data/difficulty.py, which would import `datasets`
BELOW, AT_LEAST = "below", "at_least"
Verdict = str | int
Thing = TypeVar("Thing")

# Of the zone that is chosen if none is given: half its width in log-odds, the candidates from narrow to wide.
ZONE_WIDTHS = np.arange(1, 31) / 10
BOUNDARIES = np.arange(1, 401) / 20  # of the log-likelihood ratio, from low to high
MOST_SAMPLES = 1024  # of a table
ROWS = 64  # of a table that are computed at once


class Rule:
    """A table of verdicts: `table[n, k]` is a place in `verdicts`, or -1 for going on; so is `leaning`, without -1."""

    def __init__(
        self, verdicts: tuple[Verdict, ...], table: np.ndarray, leaning: np.ndarray, prior: Prior = JEFFREYS
    ) -> None:
        self.verdicts = verdicts
        self.table = table
        self.leaning = leaning
        self.max_samples = len(table) - 1
        self.prior = prior
        self.expected = expected_further(table, prior)  # how many more samples it will take
        self.fewest = fewest_further(table)  # and at the least

    def settled(self, num_correct: int, num_samples: int) -> Verdict | None:
        """Return the verdict if it is settled; None if more samples are needed, or would be if there were any."""
        self._check(num_correct, num_samples)
        place = self.table[num_samples, num_correct]
        return None if place == GO_ON else self.verdicts[place]

    def best(self, num_correct: int, num_samples: int) -> Verdict:
        """Return the verdict that is nearest, settled or not."""
        self._check(num_correct, num_samples)
        return self.verdicts[self.leaning[num_samples, num_correct]]

    @property
    def facts(self) -> dict[str, Any]:
        """What follows from the settings, to be written down."""
        return {"prior": self.prior._asdict()}

    def _check(self, num_correct: int, num_samples: int) -> None:
        if not 0 <= num_correct <= num_samples <= self.max_samples:
            raise UsageError(
                f"This rule is for 0 to {self.max_samples} samples, of which 0 to all are right; got {num_correct} of "
                f"{num_samples}."
            )


class FixedRule(Rule):
    """As many samples of every problem."""

    def __init__(self, max_samples: int) -> None:
        n, _, possible = _places(max_samples)
        nothing = np.zeros(possible.shape, dtype=int)
        super().__init__(("sampled",), np.where(n == max_samples, 0, GO_ON) + nothing, nothing)


class ThresholdRule(Rule):
    """On which side of the threshold the pass rate is, at whatever pass rate outside of `zone`."""

    def __init__(
        self,
        threshold: float,
        confidence: float = 0.95,
        max_samples: int = 64,
        zone: tuple[float, float] | None = None,
        prior: Prior = JEFFREYS,
    ) -> None:
        _check_threshold(threshold)
        check_confidence(confidence)
        if zone is not None and not 0 < zone[0] < threshold < zone[1] < 1:
            raise UsageError(
                f"zone is two pass rates between 0 and 1 with the threshold {threshold} between them, got {zone}."
            )
        error = 1 - confidence
        self.zone = zone or _narrowest_zone(threshold, error, max_samples)
        found = _first(_tests(self.zone, max_samples), lambda table: max(_errors(table, self.zone)) <= error)
        if found is None:
            raise UsageError(
                f"{max_samples} samples do not tell pass rates of {self.zone[0]:g} from {self.zone[1]:g} with "
                f"confidence {confidence}: allow more samples, a wider zone or less confidence."
            )
        self.errors = _errors(found, self.zone)
        super().__init__((BELOW, AT_LEAST), found, _signs(self.zone, max_samples), prior)

    @property
    def facts(self) -> dict[str, Any]:
        return {**super().facts, "zone": list(self.zone), "errors": list(self.errors)}


class AgreementRule(Rule):
    """Whether `num_fixed` samples would have a share of right ones of at least the threshold."""

    def __init__(
        self, threshold: float, num_fixed: int = 64, confidence: float = 0.95, prior: Prior = JEFFREYS
    ) -> None:
        _check_threshold(threshold)
        check_confidence(confidence)
        n, k, possible = _places(num_fixed)
        needed = int(np.argmax(np.arange(num_fixed + 1) / num_fixed >= threshold))
        chance = np.zeros(possible.shape)  # of at least `needed` right ones at the end
        chance[-1] = np.arange(num_fixed + 1) >= needed
        for seen in reversed(range(num_fixed)):
            right = (np.arange(seen + 1) + prior.a) / (seen + prior.a + prior.b)
            more, same = chance[seen + 1, 1 : seen + 2], chance[seen + 1, : seen + 1]
            chance[seen, : seen + 1] = right * more + (1 - right) * same
        is_up = (chance >= confidence) | (k >= needed)
        is_down = (chance <= 1 - confidence) | (k + num_fixed - n < needed)
        table = np.where(is_up, 1, np.where(is_down, 0, GO_ON))
        super().__init__((BELOW, AT_LEAST), table, (chance >= 0.5).astype(int), prior)


class LevelRule(Rule):
    """Which of the levels 1 - p falls into, of width 1/levels each.

    Rule `released` counts them from 1, and `report` from 0. The report's highest level, for p = 0 alone, is one that
    no number of samples settles: of problems in the hardest interval it is said of those without a right sample.
    """

    def __init__(
        self,
        levels: int,
        level_rule: str = "released",
        confidence: float = 0.95,
        max_samples: int = 64,
        prior: Prior = JEFFREYS,
    ) -> None:
        if levels < 2:
            raise UsageError(f"levels must be at least 2, got {levels}.")
        pick("level_rule", level_rule, LEVEL_RULES)
        check_confidence(confidence)
        n, k, possible = _places(max_samples)
        beyond = np.array(
            [probability_at_least(1 - edge / levels, np.minimum(k, n), n, prior) for edge in range(levels + 1)]
        )
        chances = np.diff(beyond, axis=0)  # (levels, M + 1, M + 1), from the easiest
        leaning = chances.argmax(axis=0)
        if level_rule == "report":
            leaning = np.where((leaning == levels - 1) & (k == 0), levels, leaning)
        table = np.where((chances.max(axis=0) >= confidence) & possible, leaning, GO_ON)
        first = 1 if level_rule == "released" else 0
        super().__init__(tuple(range(first, levels + 1)), table, leaning, prior)


class WidthRule(Rule):
    """The pass rate, to within an equal-tailed posterior interval that is no wider than this."""

    def __init__(self, width: float, confidence: float = 0.95, max_samples: int = 64, prior: Prior = JEFFREYS) -> None:
        if not 0 < width < 1:
            raise UsageError(f"width must be between 0 and 1, got {width!r}.")
        n, k, possible = _places(max_samples)
        table = np.where(possible, 0, GO_ON)
        for first in range(0, max_samples + 1, ROWS):
            here = np.s_[first : first + ROWS]
            seen, right = (places[possible[here]] for places in np.broadcast_arrays(n[here], k))
            low, high = posterior_interval(right, seen, confidence, prior)
            table[here][possible[here]] = np.where(high - low <= width, 0, GO_ON)
            if np.all(high[seen == seen.max()] - low[seen == seen.max()] <= width):
                break  # and so are all intervals of more samples
        super().__init__(("narrow",), table, np.zeros(table.shape, dtype=int), prior)


RULES: dict[str, Callable[..., Rule]] = {
    "fixed": FixedRule,
    "threshold": ThresholdRule,
    "agreement": AgreementRule,
    "level": LevelRule,
    "width": WidthRule,
}


def _check_threshold(threshold: float) -> None:
    if not 0 < threshold < 1:
        raise UsageError(f"threshold must be between 0 and 1, got {threshold!r}.")


def _places(max_samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return n, (M + 1, 1), k, (1, M + 1), and where k of n is possible, of a table for so many samples."""
    if not 1 <= max_samples <= MOST_SAMPLES:
        raise UsageError(f"The most samples of a problem must be from 1 to {MOST_SAMPLES}, got {max_samples}.")
    n, k = np.arange(max_samples + 1)[:, None], np.arange(max_samples + 1)[None]
    return n, k, k <= n


def _ratios(zone: tuple[float, float], max_samples: int) -> np.ndarray:
    """Return the log-likelihood ratio of the zone's upper end against its lower one, at each [n, k]."""
    n, k, _ = _places(max_samples)
    low, high = zone
    return k * np.log(high / low) + (n - k) * np.log((1 - high) / (1 - low))


def _signs(zone: tuple[float, float], max_samples: int) -> np.ndarray:
    return (_ratios(zone, max_samples) >= 0).astype(int)


def _tests(zone: tuple[float, float], max_samples: int) -> Sequence[Callable[[], np.ndarray]]:
    """Return what makes the tables of tests between the ends of a zone, from those that stop soonest."""
    ratios = _ratios(zone, max_samples)
    signs = (ratios >= 0).astype(int)

    def table(boundary: float) -> np.ndarray:
        found = np.where(np.abs(ratios) >= boundary, signs, GO_ON)
        found[-1] = signs[-1]
        return found

    return [partial(table, boundary) for boundary in BOUNDARIES]


def _errors(table: np.ndarray, zone: tuple[float, float]) -> tuple[float, float]:
    """Return the probability of the wrong verdict at each end of the zone."""
    low, high = zone
    return stops(table, low).of_verdict(table, 1), stops(table, high).of_verdict(table, 0)


def _narrowest_zone(threshold: float, error: float, max_samples: int) -> tuple[float, float]:
    """Return the narrowest zone around a threshold whose ends so many samples tell apart with half the error."""
    centre = np.log(threshold / (1 - threshold))

    def zone(width: float) -> tuple[float, float]:
        return float(1 / (1 + np.exp(width - centre))), float(1 / (1 + np.exp(-width - centre)))

    def are_told_apart(ends: tuple[float, float]) -> bool:
        table = np.full((max_samples + 1, max_samples + 1), GO_ON)
        table[-1] = _signs(ends, max_samples)[-1]
        return max(_errors(table, ends)) <= error / 2

    found = _first([partial(zone, width) for width in ZONE_WIDTHS], are_told_apart)
    if found is None:
        raise UsageError(
            f"{max_samples} samples are too few to tell on which side of {threshold} a pass rate is with confidence "
            f"{1 - error:g}, wherever it is: allow more samples or less confidence."
        )
    return found


def _first(makers: Sequence[Callable[[], Thing]], is_good: Callable[[Thing], bool]) -> Thing | None:
    """Return the first thing that is good, of things that are made when looked at, by bisection; None if none is.

    Bisection takes it that all things behind a good one are good, which is nearly so, counts being whole numbers. In
    any case what is returned is good, and the one before it is not.
    """
    low, high = -1, len(makers) - 1
    best = makers[high]()
    if not is_good(best):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        thing = makers[middle]()
        if is_good(thing):
            high, best = middle, thing
        else:
            low = middle
    return best

"""What pairs are made of, in numbers: from which problems, how different in length, and what was left out.

Length is the shortcut that preference training takes first. The question is how well a classifier does that knows
nothing but the two lengths and says that the shorter response is the chosen one: its AUC over pairs is the share of
pairs in which the chosen response is shorter, ties counting half. Pairs of one problem are alike, so the interval is
clustered by problem: the variance of that ratio over problems gives an effective number of pairs, and that Wilson's
interval. If it lies wholly outside of `SAFE_AUC`, length alone tells chosen from rejected, and the pairs say so.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from trl_math.wilson import wilson


SAFE_AUC = (0.4, 0.6)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NUM_BINS = 30

# Bins of pass rates: none right, up to 10 %, ..., below 100 %, all right.
PASS_RATES = ("0", *(f"{low / 10:.1f}-{(low + 1) / 10:.1f}" for low in range(10)), "1")


class Spread(NamedTuple):
    """How numbers are spread."""

    mean: float
    quantiles: dict[str, float]  # "0.05", ...
    edges: list[float]  # of the bins; the first and the last also hold what lies outside
    counts: list[int]
    n: int

    @property
    def median(self) -> float:
        return self.quantiles["0.5"]


class Share(NamedTuple):
    """A share of pairs with its 95 % interval, clustered by problem."""

    value: float
    low: float
    high: float
    n: int  # pairs
    num_problems: int


@dataclass(frozen=True)
class PairFacts:
    """What is counted of one pair."""

    length_difference: int  # chosen minus rejected
    logprob_difference: float | None


@dataclass(frozen=True)
class ProblemFacts:
    """What is counted of one problem."""

    problem_id: str
    pass_rate: float | None  # None if no sample has a verdict
    num_samples: int  # that have a verdict
    num_answers: int  # different ones
    pairs: tuple[PairFacts, ...]


@dataclass(frozen=True)
class PairStatistics:
    """The numbers of a build. Pairs are all that were made, held out or not."""

    num_problems: int
    num_used: int  # problems that have pairs
    num_samples: int  # that have a verdict
    num_pairs: int
    pairs_per_problem: dict[int, int]  # how many of the used problems have so many
    pass_rates: dict[str, int]  # of all problems, by the bins of PASS_RATES
    pass_rates_used: dict[str, int]  # of those that have pairs
    distinct_answers: dict[int, int]  # how many of the used problems have so many
    length_unit: str
    length_difference: Spread | None  # chosen minus rejected
    length_auc: Share | None  # that the shorter response is the chosen one
    logprob_difference: Spread | None  # of the sampler, chosen minus rejected, where known
    dropped: dict[str, int]  # what was left out, by reason

    @property
    def length_tells(self) -> bool:
        """Whether length alone tells chosen from rejected."""
        auc = self.length_auc
        return auc is not None and (auc.low > SAFE_AUC[1] or auc.high < SAFE_AUC[0])

    @property
    def warnings(self) -> list[str]:
        """What should make one think."""
        auc = self.length_auc
        if auc is None or not self.length_tells:
            return []
        return [
            f"Length alone tells chosen from rejected: in {auc.value:.0%} of the pairs the chosen response is the "
            f"shorter one (95 % interval {auc.low:.0%} to {auc.high:.0%}), and training may learn that instead of "
            "mathematics. Rule length_matched avoids it; a length-normalised loss lessens it."
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON can write them."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("length_difference", "length_auc", "logprob_difference"):
            found[name] = found[name] and found[name]._asdict()
        return {**found, "length_tells": self.length_tells}

    def lines(self) -> list[str]:
        """Return the numbers as a table for people."""
        rows = [
            ("pairs", f"{self.num_pairs:,} of {self.num_used:,} problems; {self.num_problems:,} problems were sampled")
        ]
        if self.num_pairs:
            rows += [
                ("pairs of a problem", _counts(self.pairs_per_problem)),
                ("distinct answers", f"{_counts(self.distinct_answers)} of a problem"),
            ]
        rows += [
            ("pass rates, all", describe_pass_rates(self.pass_rates)),
            ("pass rates, used", describe_pass_rates(self.pass_rates_used)),
        ]
        if self.length_difference is not None and self.length_auc is not None:
            auc = self.length_auc
            rows += [
                ("length, chosen - rejected", f"{_spread(self.length_difference)} {self.length_unit}"),
                ("AUC of length alone", f"{auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}] that chosen is shorter"),
            ]
        if self.logprob_difference is not None:
            rows.append(("log-prob, chosen - rejected", f"{_spread(self.logprob_difference)} nats of the sampler"))
        for kind in ("problems", "samples", "pairs"):
            found = {key.partition(": ")[2]: num for key, num in self.dropped.items() if key.startswith(f"{kind}: ")}
            if found:
                said = ", ".join(f"{count:,} {reason}" for reason, count in found.items())
                rows.append((f"left out, {kind}", said))
        width = max(len(name) for name, _ in rows)
        return [f"{name:{width}}  {text}" for name, text in rows]


def statistics(
    facts: Sequence[ProblemFacts], dropped: Mapping[str, int], *, length_unit: str, equal_problems: bool
) -> PairStatistics:
    """Count. `equal_problems`: the length classifier is asked as training weighs the pairs, problems alike."""
    used = [problem for problem in facts if problem.pairs]
    pairs = [pair for problem in used for pair in problem.pairs]
    logprobs = [pair.logprob_difference for pair in pairs if pair.logprob_difference is not None]
    return PairStatistics(
        num_problems=len(facts),
        num_used=len(used),
        num_samples=sum(problem.num_samples for problem in facts),
        num_pairs=len(pairs),
        pairs_per_problem=_histogram([len(problem.pairs) for problem in used]),
        pass_rates=_pass_rates(facts),
        pass_rates_used=_pass_rates(used),
        distinct_answers=_histogram([problem.num_answers for problem in used]),
        length_unit=length_unit,
        length_difference=_spread_of([pair.length_difference for pair in pairs]),
        length_auc=_length_auc(used, equal_problems=equal_problems),
        logprob_difference=_spread_of(logprobs),
        dropped=dict(sorted(dropped.items())),
    )


def describe_pass_rates(histogram: Mapping[str, int]) -> str:
    """Return how many problems have which pass rate, in a line."""
    said = [f"{count:,} at {name}" for name, count in histogram.items() if count]
    return ", ".join(said) or "none is known"


def clustered_share(sums: Sequence[float], weights: Sequence[float], num_pairs: int) -> Share:
    """Return sum(sums) / sum(weights), one of each for a problem, with an interval for it as a share of pairs."""
    over, under = np.asarray(sums, dtype=float), np.asarray(weights, dtype=float)  # (P,)
    share = float(np.clip(over.sum() / under.sum(), 0, 1))
    num = len(over)
    num_effective = under.sum() ** 2 / (under**2).sum()  # problems, if all pairs of each say the same
    if num > 1:
        variance = num / (num - 1) * ((over - share * under) ** 2).sum() / under.sum() ** 2
        if variance > 0 and 0 < share < 1:
            num_effective = share * (1 - share) / variance
    low, high = map(float, wilson(share, np.clip(num_effective, 1, num_pairs)))
    return Share(share, low, high, num_pairs, num)


def _length_auc(used: Sequence[ProblemFacts], *, equal_problems: bool) -> Share | None:
    if not used:
        return None
    shorter = [np.mean([_is_shorter(pair.length_difference) for pair in problem.pairs]) for problem in used]
    weights = [1.0 if equal_problems else float(len(problem.pairs)) for problem in used]
    sums = [float(mean * weight) for mean, weight in zip(shorter, weights, strict=True)]
    return clustered_share(sums, weights, sum(len(problem.pairs) for problem in used))


def _is_shorter(difference: int) -> float:
    return 1.0 if difference < 0 else 0.5 if difference == 0 else 0.0


def _spread_of(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    array = np.asarray(values, dtype=float)
    quantiles = {str(share): float(np.quantile(array, share)) for share in QUANTILES}
    edges = _edges(array)
    counts, _ = np.histogram(np.clip(array, edges[0], edges[-1]), edges)
    return Spread(float(array.mean()), quantiles, edges.tolist(), counts.tolist(), len(array))


def _edges(values: np.ndarray) -> np.ndarray:
    """Return the ends of bins for most of the values: a few that lie far out do not set the scale."""
    low, high = np.quantile(values, (0.005, 0.995))
    if (values == np.round(values)).all():  # each whole number lies within a bin
        low, high = np.floor(low), np.ceil(high)
        step = np.ceil((high - low + 1) / NUM_BINS)
        return np.arange(low - 0.5, high + step + 0.5, step)
    return np.linspace(low, high, NUM_BINS + 1) if low < high else np.array([low - 0.5, low + 0.5])


def _histogram(values: Sequence[int]) -> dict[int, int]:
    return dict(sorted(Counter(values).items()))


def _pass_rates(problems: Sequence[ProblemFacts]) -> dict[str, int]:
    counts = Counter(_bin(problem.pass_rate) for problem in problems if problem.pass_rate is not None)
    return {name: counts[name] for name in PASS_RATES}


def _bin(pass_rate: float) -> str:
    """Return the bin of a pass rate: 0.1 is in 0.0-0.1, what is above 0.9 and below 1 in 0.9-1.0."""
    place = 0 if pass_rate <= 0 else 11 if pass_rate >= 1 else int(np.ceil(round(pass_rate * 10, 9)))
    return PASS_RATES[place]


def _counts(histogram: Mapping[int, int]) -> str:
    total = sum(histogram.values())
    mean = sum(value * count for value, count in histogram.items()) / total
    return f"mean {mean:.1f}, {min(histogram)} to {max(histogram)}"


def _spread(spread: Spread) -> str:
    low, high = spread.quantiles[str(QUANTILES[0])], spread.quantiles[str(QUANTILES[-1])]
    return f"mean {spread.mean:+.1f}, median {spread.median:+.1f}, 90 % in {low:+.1f} to {high:+.1f}"

"""How many right answers each problem is to have, and which samples are drawn until it has them.

The targets are those of "DART-Math: Difficulty-Aware Rejection Tuning for Mathematical Problem-Solving" (2407.13690):

    uniform      n_i = k
    prop2diff    n_i = max(1, ceil(k f_i / max f)), f = 1 - pass rate: the hardest problem gets k, each at least one

Differences from the published code (github.com/hkust-nlp/dart-math, pipeline/gen.py):

1. A problem is done when it has its target. There, when it has more than that, which is one to spare.
2. The trials of a problem have a cap, and who is short of the target then is counted and listed. There, the command
   for the released data has none, and says that it is to be killed.
3. Samples come in rounds of as many as are expected to do. There, each open problem gets one more, in turn.
4. Right answers with the same text count once, unless asked otherwise, and those that ran out of tokens do not count.
   There, all count.
5. prop2diff is a rule. There, it is said how it is done, and no script does it.

What is asked follows from the verdicts on samples in the order of their numbers, and from nothing else (see
`allocation`): a run that goes on after an interruption arrives at the same samples.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from trl_math.errors import DataError, UsageError, pick
from trl_math.evaluation.allocation import MOST_WEIGHT, Verdicts, without_verdict
from trl_math.evaluation.posterior import Prior, fit_prior


ROUNDING = 1e-9  # 10 (1 - 0.7) / 1 is 3 and one step of float64, and is meant to be 3


def uniform(num_correct: int, pass_rates: Sequence[float]) -> list[int]:
    """Return the same number for every problem."""
    return [num_correct] * len(pass_rates)


def prop2diff(num_correct: int, pass_rates: Sequence[float]) -> list[int]:
    """Return numbers in proportion to how often problems are failed, rounded up, and at least one."""
    hardest = max(1 - rate for rate in pass_rates)
    if not hardest > 0:
        raise DataError(
            f"All {len(pass_rates):,} problems have pass rate 1, so prop2diff has nothing to be in proportion to: use "
            "targets uniform."
        )
    return [max(1, math.ceil(num_correct * (1 - rate) / hardest - ROUNDING)) for rate in pass_rates]


TARGETS: dict[str, Callable[[int, Sequence[float]], list[int]]] = {"uniform": uniform, "prop2diff": prop2diff}
# Those that look at pass rates.
NEED_PASS_RATES = ("prop2diff",)


def find_targets(
    name: str, num_correct: int, ids: Sequence[str], pass_rates: Mapping[str, float] | None
) -> dict[str, int]:
    """Return how many right answers each problem is to have, by the rule of this name."""
    rule = TARGETS[pick("targets", name, TARGETS)]
    if num_correct < 1:
        raise UsageError(f"num_correct must be at least 1, got {num_correct}.")
    if name not in NEED_PASS_RATES:
        return dict(zip(ids, rule(num_correct, [0.0] * len(ids)), strict=True))
    if pass_rates is None:
        raise UsageError(f"targets {name} needs the pass rates of problems.")
    return dict(zip(ids, rule(num_correct, [pass_rates[name] for name in ids]), strict=True))


class Collected(NamedTuple):
    """One problem at the end."""

    problem_id: str
    num_samples: int
    num_correct: int  # that count towards the target; the last round may have brought more
    target: int

    @property
    def is_short(self) -> bool:
        return self.num_correct < self.target


class TargetRounds:
    """The rounds, for `adaptive_sampling`.

    In the first, a problem gets as many samples as it needs at least, its target. From what these show of all problems
    a prior is fitted; after that a problem gets as many as are expected to bring what it lacks, by the posterior mean
    of its pass rate, but

    - no fewer than it lacks, nor than `round_samples`;
    - no more than it has, so that what a few samples say of the pass rate cannot be far too expensive;
    - no more than `max_trials` in all.
    """

    def __init__(self, targets: Mapping[str, int], max_trials: int, round_samples: int = 4) -> None:
        over = next((name for name, target in targets.items() if target > max_trials), None)
        if over is not None:
            raise UsageError(
                f"max_trials {max_trials:,} is below the target of {targets[over]:,} right answers ({over!r}): raise "
                "it, or lower num_correct."
            )
        self.max_trials = max_trials
        self.unjudged: list[str] = []  # their gold answers cannot be read
        self.num_asked = 0  # samples so far
        self.prior: Prior | None = None
        self._round_samples = round_samples
        self._targets = dict(targets)
        self._asked = dict.fromkeys(targets, 0)
        self._num_lacking = sum(targets.values())

    def next_round(self, verdicts: Verdicts) -> dict[str, int]:
        """Return how many samples, those before included, problems must have now; nothing at the end.

        `verdicts` are those on the samples that were asked for so far, at least; true are those that count.
        """
        if not self.num_asked:
            return self._ask(dict(self._targets))
        for name in without_verdict(self._asked, verdicts):
            self.unjudged.append(name)
            del self._targets[name], self._asked[name]
        right = {name: _num_right(verdicts[name], asked) for name, asked in self._asked.items()}
        self._num_lacking = sum(max(self._targets[name] - number, 0) for name, number in right.items())
        if self.prior is None and right:
            self.prior = fit_prior([*right.values()], [*self._asked.values()], MOST_WEIGHT)
        return self._ask(
            {
                name: min(asked + self._more(name, right[name]), self.max_trials)
                for name, asked in self._asked.items()
                if right[name] < self._targets[name] and asked < self.max_trials
            }
        )

    def counts(self, verdicts: Verdicts) -> list[Collected]:
        """Return the problems as they are at the end."""
        return [
            Collected(name, asked, _num_right(verdicts[name], asked), self._targets[name])
            for name, asked in self._asked.items()
        ]

    @property
    def standing(self) -> str:
        """What is still to be had, to be said with a round; those that were cut off do not count as right."""
        return f" ({self._num_lacking:,} right answers lacking)"

    @property
    def facts(self) -> dict[str, Any]:
        """What the rounds came to, to be written down."""
        return {"num_samples": self.num_asked, "prior": None if self.prior is None else self.prior._asdict()}

    def _more(self, name: str, num_right: int) -> int:
        """Return how many samples more a problem gets that lacks some."""
        assert self.prior is not None
        asked, lacking = self._asked[name], self._targets[name] - num_right
        mean = (num_right + self.prior.a) / (asked + self.prior.a + self.prior.b)
        least = max(lacking, self._round_samples)
        return min(max(math.ceil(lacking / mean), least), max(asked, least))

    def _ask(self, wanted: dict[str, int]) -> dict[str, int]:
        self.num_asked += sum(total - self._asked[name] for name, total in wanted.items())
        self._asked |= wanted
        return wanted


def _num_right(verdicts: Sequence[bool | None], number: int) -> int:
    return sum(map(bool, verdicts[:number]))

"""What a judge's answers come to: yes, no, or unknown, which is never counted as clean.

A pair is asked about in both orders. It is unknown if a model says yes in one order and no in the other, further apart
than a margin; and if an order has no answer at all: another text, a refusal, a failure, a pair that does not fit into
the context. So a share of contaminated items has two ends: all that is unknown clean, and none of it.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from trl_math.contamination.matches import Match
from trl_math.errors import UsageError
from trl_math.evaluation.intervals import Estimate, proportion
from trl_math.records import FINISHED


YES, NO, UNKNOWN = "yes", "no", "unknown"
OUTCOMES = (YES, NO, UNKNOWN)

# Why a pair is unknown, and how to say it.
REASONS = {
    "orders_disagree": "yes in one order, no in the other",
    "other_answer": "answered something else",
    "refused": "refused by the server or its model",
    "prompt_too_long": "too long for the context",
    "not_answered": "not asked, or not answered",
}


class Answer(NamedTuple):
    """What was said about a pair in one order."""

    share: float | None  # probability of yes among yes and no; None if there is no answer
    said: str | None = None
    reason: str | None = None  # why there is none


class Rules(NamedTuple):
    """When answers make an outcome."""

    threshold: float = 0.5  # the probability from which on it is yes
    margin: float = 0.25  # how far apart two orders may be that would say otherwise


class Verdict(NamedTuple):
    """The outcome of a pair. `score`: the mean probability of yes in both orders, where both are known."""

    outcome: str
    score: float | None
    reason: str | None
    answers: tuple[Answer, Answer]

    def evidence(self) -> dict[str, Any]:
        """Return what a reader needs to believe it."""
        return {
            "outcome": self.outcome,
            **({"reason": self.reason} if self.reason else {}),
            "yes": [answer.share for answer in self.answers],
            "said": [answer.said for answer in self.answers],
        }


def check_rules(rules: Rules) -> None:
    """Raise unless threshold and margin are probabilities that make sense."""
    if not 0 < rules.threshold < 1:
        raise UsageError(f"The judge's threshold must be between 0 and 1, got {rules.threshold:g}.")
    if not 0 <= rules.margin <= 1:
        raise UsageError(
            f"The judge's margin must be from 0 (any disagreement is unknown) to 1, got {rules.margin:g}."
        )


def read_answer(text: str, finish_reason: str | None, logprob: float | None, choices: Sequence[str]) -> Answer:
    """Return what a sample says. `choices`: yes and no; how they are written, and a full stop, count for nothing.

    Without a log-probability an answer is certain.
    """
    if finish_reason in ("prompt_too_long", "refused"):
        return Answer(None, text or None, finish_reason)
    said = _plain(text)
    if said not in (_plain(choices[0]), _plain(choices[1])) or finish_reason not in (*FINISHED, "length"):
        return Answer(None, text, "other_answer")
    share = 1.0 if logprob is None else math.exp(min(logprob, 0.0))
    return Answer(share if said == _plain(choices[0]) else 1 - share, text.strip())


def decide(answers: tuple[Answer, Answer], rules: Rules) -> Verdict:
    """Return the outcome of a pair."""
    reason = next((answer.reason for answer in answers if answer.share is None), None)
    shares = [answer.share for answer in answers if answer.share is not None]
    if len(shares) < len(answers):
        return Verdict(UNKNOWN, None, reason or "not_answered", answers)
    score = sum(shares) / len(shares)
    opinions = {share >= rules.threshold for share in shares}
    if len(opinions) > 1 and max(shares) - min(shares) > rules.margin:
        return Verdict(UNKNOWN, score, "orders_disagree", answers)
    return Verdict(YES if score >= rules.threshold else NO, score, None, answers)


class Bounds(NamedTuple):
    """A share with what is unknown about it: as if none of the unknown counted, and as if all did."""

    low: Estimate
    high: Estimate
    num_yes: int
    num_unknown: int
    num: int

    def as_dict(self) -> dict[str, Any]:
        """Return it as it is written down."""
        return self._asdict() | {"low": self.low._asdict(), "high": self.high._asdict()}

    def __str__(self) -> str:
        if not self.num_unknown:
            return f"{self.low.value:.1%} [{self.low.low:.1%}, {self.low.high:.1%}] of {self.num:,}"
        return (
            f"between {self.low.value:.1%} and {self.high.value:.1%} [{self.low.low:.1%}, {self.high.high:.1%}] of "
            f"{self.num:,}, of which {self.num_unknown:,} are unknown"
        )


def share_bounds(num_yes: int, num_unknown: int, num: int, confidence: float = 0.95) -> Bounds:
    """Return the share of contaminated items, from all unknown ones clean to all of them contaminated."""
    low = proportion(num_yes, num, confidence)
    high = proportion(num_yes + num_unknown, num, confidence)
    return Bounds(low, high, num_yes, num_unknown, num)


def is_unknown(match: Match) -> bool:
    """Whether a match says that it is not known whether there is one."""
    return match.evidence.get("outcome") == UNKNOWN


def item_bounds(matches: Iterable[Match], num_test: int, confidence: float = 0.95) -> Bounds:
    """Return the share of test items that some row contains; one with unknown pairs alone is unknown."""
    found: dict[int, bool] = {}  # item -> whether it is known
    for match in matches:
        found[match.test] = found.get(match.test, False) or not is_unknown(match)
    num_yes = sum(found.values())
    return share_bounds(num_yes, len(found) - num_yes, num_test, confidence)


def _plain(text: str) -> str:
    return text.strip().rstrip(".!").casefold()

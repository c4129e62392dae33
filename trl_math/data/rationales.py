"""Which of a teacher's samples become rationales to train on, and how much each row weighs.

Every decision looks at the samples of one problem in the order of their numbers, whatever order they arrived in, and
at nothing that comes after: whether a sample is right, has ended, is long enough, and whether one before it says the
same. So the rationales of the first D samples are the first of those of any larger D, to the letter.

Near duplicates are found greedily: a rationale is left out if it shares with one that was kept before it at least
`near_threshold` of their word trigrams (Jaccard's index), case and punctuation aside. Numbers and signs count as
words, since `3 + 4` and `3 * 4` are two ways to solve a problem.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from trl_math.errors import DataError, UsageError, pick
from trl_math.records import FINISHED


Row = Mapping[str, Any]

DUPLICATES = ("near", "exact", "keep")
WEIGHTS = ("uniform", "inverse_count")
NUM_WORDS = 3  # of a piece by which texts are compared

# Why a sample serves not, in the order in which it is asked.
REASONS = {
    "wrong": "wrong",
    "refused": "refused",
    "unfinished": "out of tokens",
    "empty": "without reasoning",
    "too_short": "too short",
    "too_long": "too long",
    "duplicate": "too like another of the problem",
    "over_cap": "above max_per_problem",
}

_WORD = re.compile(r"\d[\d,]*(?:\.\d+)?|[^\W\d_]+|[-+*/=<>^%]")


@dataclass(frozen=True)
class Rules:
    """Which samples serve. Lengths are tokens of a whole sample, as its engine counts them."""

    num_rationales: int = 8
    keep_wrong: bool = False
    keep_unfinished: bool = False
    duplicates: str = "near"
    near_threshold: float = 0.8
    min_tokens: int | None = None
    max_tokens: int | None = None
    max_per_problem: int | None = None

    def __post_init__(self) -> None:
        pick("duplicates", self.duplicates, DUPLICATES)
        for name in ("num_rationales", "min_tokens", "max_tokens", "max_per_problem"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}.")
        if not 0 < self.near_threshold <= 1:
            raise UsageError(f"near_threshold must be above 0 and at most 1, got {self.near_threshold:g}.")
        if None not in (self.min_tokens, self.max_tokens) and self.min_tokens > self.max_tokens:  # type: ignore[operator]
            raise UsageError(f"min_tokens {self.min_tokens} is above max_tokens {self.max_tokens}: no sample serves.")


class Chosen(NamedTuple):
    """What one problem comes to."""

    num_samples: int  # of the first D, those that are there
    right: list[int]  # their numbers, in order
    kept: list[int]  # the numbers of those that serve, in order
    dropped: Counter[str]  # by `REASONS`


def has_ended(row: Row) -> bool:
    """Whether a sample ended by itself: of two stages, both."""
    return all(row.get(name) in FINISHED for name in ("reasoning_finish_reason", "finish_reason"))


def reasoning_has_ended(row: Row) -> bool:
    """Whether the reasoning of a sample ended by itself, whatever became of the answer behind it."""
    return (row.get("reasoning_finish_reason") or row.get("finish_reason")) in FINISHED


def choose(
    samples: Sequence[Row],
    rules: Rules,
    text_of: Callable[[Row], str],
    ended: Callable[[Row], bool] = has_ended,
) -> Chosen:
    """Return which of a problem's graded samples serve.

    `text_of`: the text by which a sample is compared; `ended`: whether what is used of it ended by itself.
    """
    asked = sorted(
        (row for row in samples if row["sample_index"] < rules.num_rationales), key=lambda row: row["sample_index"]
    )
    seen = _Seen(rules)
    kept: list[int] = []
    dropped: Counter[str] = Counter()
    for row in asked:
        text = text_of(row)
        why = _why_not(row, rules, text, is_ended=ended(row)) or seen.why_not(text)
        if why is None and rules.max_per_problem is not None and len(kept) == rules.max_per_problem:
            why = "over_cap"
        if why is not None:
            dropped[why] += 1
            continue
        kept.append(row["sample_index"])
    return Chosen(len(asked), [row["sample_index"] for row in asked if row["correct"]], kept, dropped)


def inverse_counts(numbers: Mapping[str, int]) -> dict[str, float]:
    """Return by problem what each of its rows weighs, so that problems weigh the same and rows 1 on average."""
    used = {name: number for name, number in numbers.items() if number}
    mean = sum(used.values()) / max(len(used), 1)
    return {name: mean / number for name, number in used.items()}


def pieces(text: str) -> frozenset[str]:
    """Return the runs of three words of a text, by which texts are compared; of a shorter one all words together."""
    words = _WORD.findall(text.casefold())
    if len(words) <= NUM_WORDS:
        return frozenset([" ".join(words)])
    return frozenset(" ".join(words[place : place + NUM_WORDS]) for place in range(len(words) - NUM_WORDS + 1))


def _why_not(row: Row, rules: Rules, text: str, *, is_ended: bool) -> str | None:
    """Return why a sample does not serve, whatever others there are."""
    if not row["correct"] and not rules.keep_wrong:
        return "wrong"
    if row.get("finish_reason") == "refused":
        return "refused"
    if not rules.keep_unfinished and not is_ended:
        return "unfinished"
    if not text:
        return "empty"
    number = _length(row) if rules.min_tokens or rules.max_tokens else 0
    if rules.min_tokens is not None and number < rules.min_tokens:
        return "too_short"
    if rules.max_tokens is not None and number > rules.max_tokens:
        return "too_long"
    return None


def _length(row: Row) -> int:
    """Return how many tokens a sample has; raise if nobody counted them, as in published files."""
    if row.get("num_tokens") is None:
        raise DataError(
            f"Sample {row['sample_index']} of {row['problem_id']!r} does not say how many tokens it has, as imported "
            "ones do not: leave the bounds of their number out."
        )
    return int(row["num_tokens"])


class _Seen:
    """The texts of one problem that were kept."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._exact: set[str] = set()
        self._near: list[frozenset[str]] = []

    def why_not(self, text: str) -> str | None:
        """Return `duplicate` if a text before says the same; else note it."""
        if self._rules.duplicates == "keep":
            return None
        if text in self._exact:
            return "duplicate"
        if self._rules.duplicates == "near":
            own = pieces(text)
            if any(_overlap(own, other) >= self._rules.near_threshold for other in self._near):
                return "duplicate"
            self._near.append(own)
        self._exact.add(text)
        return None


def _overlap(first: frozenset[str], second: frozenset[str]) -> float:
    """Return Jaccard's index of two sets."""
    common = len(first & second)
    return common / (len(first) + len(second) - common)

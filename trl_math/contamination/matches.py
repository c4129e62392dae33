"""What a detector returns: pairs of a test item and a training row, a score, and what one needs to believe it."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable


class Match(NamedTuple):
    """A test item that a training row contains, as far as one detector can tell."""

    test: int  # number of the test item
    train: int  # number of the training row
    score: float  # in [0, 1]; higher is more alike
    evidence: dict[str, Any]


@runtime_checkable
class Detector(Protocol):
    """One way to find test items in training rows."""

    name: str
    threshold: float

    def find(self, test: Sequence[str], train: Sequence[str]) -> list[Match]:
        """Return every pair whose score is at least `threshold`, in the order of `in_order`.

        The same pairs come whatever the order of texts, the size of chunks and the number of processes.
        """
        ...


def in_order(matches: Iterable[Match]) -> list[Match]:
    """Return matches by test item, the most alike first."""
    return sorted(matches, key=lambda match: (match.test, -match.score, match.train))

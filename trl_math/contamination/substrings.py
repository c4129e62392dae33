"""Fifty characters in common, as in GPT-4's report (https://huggingface.co/papers/2303.08774, appendix C).

There, spaces and symbols are removed, three substrings of 50 characters are drawn at random from the test item, and a
row that has one of them is a leak; an item of fewer characters is compared whole (here: with whole rows). So is
`plain=True`, with draws that follow from the seed and the text, so that the order of texts does not matter; letters
are small here. Otherwise, as for n-grams: a substring counts by its inverse document frequency, and what the row says
must be the same (`agreement`), and letters and digits are those of the normal form. `num_samples=None` looks for all
positions instead of a draw.
"""

import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from trl_math.contamination.agreement import MAX_CHANGED, Agreement, agreement
from trl_math.contamination.matches import Match, in_order
from trl_math.contamination.normalise import joined, normalised_words, words_of
from trl_math.contamination.reading import CHUNK
from trl_math.contamination.search import Sought, search
from trl_math.contamination.shares import Shares, document_weights, shares
from trl_math.contamination.short_items import ShortItems
from trl_math.contamination.windows import BOUNDARY, WindowIndex
from trl_math.errors import UsageError


THRESHOLD = 0.3  # one of three samples, unless many texts have it
ANY = 1e-9
_NO_CHARACTER = re.compile(r"[^\w\0]+|_+")


class SubstringDetector:
    """Find rows that have runs of characters of test items; see the module."""

    def __init__(
        self,
        length: int = 50,
        num_samples: int | None = 3,
        *,
        seed: int = 0,
        plain: bool = False,
        threshold: float | None = None,
        max_changed: float = MAX_CHANGED,
        processes: int = 1,
        chunk: int = CHUNK,
    ) -> None:
        if length < 1 or (num_samples is not None and num_samples < 1):
            raise UsageError(f"length and num_samples must be at least 1, got {length} and {num_samples}.")
        if processes < 1 or chunk < 1:
            raise UsageError(f"processes and chunk must be at least 1, got {processes} and {chunk}.")
        self.length, self.num_samples, self.seed = length, num_samples, seed
        self.plain, self.max_changed = plain, max_changed
        self.name = f"substring_{length}_plain" if plain else f"substring_{length}"
        self.threshold = (ANY if plain else THRESHOLD) if threshold is None else threshold
        if not 0 < self.threshold <= 1:
            raise UsageError(f"The threshold of {self.name} must be above 0 and at most 1, got {self.threshold}.")
        self.processes, self.chunk = processes, chunk

    def find(self, test: Sequence[str], train: Sequence[str]) -> list[Match]:
        """Return every pair whose share of substrings is at least `threshold`; see `Detector`."""
        if not test or not train:
            return []
        read = squeezed if self.plain else squeezed_normal
        symbols = read(test)
        index = WindowIndex(symbols, self.length, self._starts(symbols, test))
        sought = Sought(read, index, ShortItems(symbols, self.length, inside=False))
        hits, whole = search(sought, train, size=self.chunk, processes=self.processes)
        weights = np.ones(index.num_runs) if self.plain else document_weights(index, hits, len(test) + len(train))
        found = shares(index, hits, weights, len(test), self.threshold)
        return in_order([*self._with_substrings(found, test, train), *self._whole(whole, test, train)])

    def _starts(self, symbols: np.ndarray, test: Sequence[str]) -> np.ndarray | None:
        """Return where the substrings that are drawn begin."""
        if self.num_samples is None:
            return None
        starts, begin = [], 0
        for text, end in zip(test, np.flatnonzero(symbols == BOUNDARY).tolist(), strict=True):
            draw = random.Random(f"{self.seed} {text}")
            num_places = end - begin - self.length + 1
            if num_places > 0:
                starts += [begin + draw.randrange(num_places) for _ in range(self.num_samples)]
            begin = end + 1
        return np.unique(np.array(starts, dtype=np.int64))

    def _with_substrings(self, found: Shares, test: Sequence[str], train: Sequence[str]) -> Iterator[Match]:
        for row, item, share, num_shared, num_runs in zip(*(column.tolist() for column in found), strict=True):
            evidence: dict[str, Any] = {"num_shared": num_shared, "num_substrings": num_runs}
            if not self.plain:
                difference = self._difference(test[item], train[row])
                if not difference.agrees:
                    continue
                evidence |= {"only_test": list(difference.only_test), "only_train": list(difference.only_train)}
            yield Match(item, row, share, evidence | {"shared": self._example(test[item], train[row])})

    def _example(self, test: str, train: str) -> str:
        """Return the first run of `length` characters that both have."""
        first, second = (self._letters(text) for text in (test, train))
        starts = range(len(first) - self.length + 1)
        at = next((start for start in starts if first[start : start + self.length] in second), 0)
        return first[at : at + self.length]

    def _whole(self, pairs: np.ndarray, test: Sequence[str], train: Sequence[str]) -> Iterator[Match]:
        for row, item in pairs.tolist():
            # Without their symbols, 22.5 is 225.
            if self.plain or self._difference(test[item], train[row]).agrees:
                evidence = {"num_shared": 1, "num_substrings": 1, "shared": self._letters(test[item])}
                yield Match(item, row, 1.0, evidence)

    def _letters(self, text: str) -> str:
        return _NO_CHARACTER.sub("", text.casefold() if self.plain else "".join(words_of(normalised_words, text)))

    def _difference(self, test: str, train: str) -> Agreement:
        return agreement(words_of(normalised_words, test), words_of(normalised_words, train), self.max_changed)


def squeezed(texts: Sequence[str]) -> np.ndarray:
    """Return the letters and digits of texts as numbers, each text ended by a 0."""
    return _numbers(joined(texts).casefold())


def squeezed_normal(texts: Sequence[str]) -> np.ndarray:
    """Return the letters and digits of the normal forms of texts as numbers, each text ended by a 0."""
    return _numbers("".join(normalised_words(texts)))


def _numbers(text: str) -> np.ndarray:
    return np.frombuffer(_NO_CHARACTER.sub("", text).encode("utf-32-le", "surrogatepass"), dtype=np.int32)

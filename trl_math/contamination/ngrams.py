"""Word n-grams in common: as published, and with what keeps them from flagging a third of a clean training set.

As published (`plain=True`; Brown et al. 2020, https://huggingface.co/papers/2005.14165, with n = 13, others with 8 or
10), one common n-gram of a test item and a row is a leak; words are runs of letters and digits. With n = 8 that flags
35.3 % of MATH's training problems against its test problems, of which ten are copies: problems are made of boilerplate
(`Express your answer as a common fraction`) and from templates. Otherwise:

1. Words are those of the normal form (`normalise`), operators included.
2. The score is the share of the test item's n-grams that the row has, each weighted by its inverse document frequency
   (`shares`), and a pair is found from a share of `threshold` on.
3. What the row says must be the same but for words that say nothing: `agreement`.

A test item of fewer than n words is compared whole: with whole rows, and, if it has at least four words, with as many
words in a row whose neighbours are no part of a formula. (Plain: with whole rows.) Scores depend on document
frequencies, so on all texts of both sides; plain scores do not.
"""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from trl_math.contamination.agreement import MAX_CHANGED, agreement
from trl_math.contamination.matches import Match, in_order
from trl_math.contamination.normalise import Reader, normalised_words, plain_words, words_of
from trl_math.contamination.reading import CHUNK, Vocabulary
from trl_math.contamination.search import Sought, search
from trl_math.contamination.shares import Shares, document_weights, shares
from trl_math.contamination.short_items import ShortItems, stands_in
from trl_math.contamination.windows import WindowIndex
from trl_math.errors import UsageError


THRESHOLD = 0.5
ANY = 1e-9  # one common n-gram, of however many
MAX_SHOWN = 2000  # words among which the longest common run is looked for


class NgramDetector:
    """Find rows that have the word n-grams of test items; see the module."""

    def __init__(
        self,
        n: int = 8,
        *,
        plain: bool = False,
        threshold: float | None = None,
        max_changed: float = MAX_CHANGED,
        processes: int = 1,
        chunk: int = CHUNK,
    ) -> None:
        if n < 1 or processes < 1 or chunk < 1:
            raise UsageError(f"n, processes and chunk must be at least 1, got {n}, {processes} and {chunk}.")
        self.n, self.plain, self.max_changed = n, plain, max_changed
        self.name = f"ngram_{n}_plain" if plain else f"ngram_{n}"
        self.threshold = (ANY if plain else THRESHOLD) if threshold is None else threshold
        if not 0 < self.threshold <= 1:
            raise UsageError(f"The threshold of {self.name} must be above 0 and at most 1, got {self.threshold}.")
        self.processes, self.chunk = processes, chunk
        self.reader: Reader = plain_words if plain else normalised_words

    def find(self, test: Sequence[str], train: Sequence[str]) -> list[Match]:
        """Return every pair whose share is at least `threshold`; see `Detector`."""
        if not test or not train:
            return []
        vocabulary = Vocabulary(self.reader, test)
        index = WindowIndex(vocabulary.test, self.n)
        short_items = ShortItems(vocabulary.test, self.n, inside=not self.plain)
        sought = Sought(vocabulary.read, index, short_items)
        hits, whole = search(sought, train, size=self.chunk, processes=self.processes)
        weights = np.ones(index.num_runs) if self.plain else document_weights(index, hits, len(test) + len(train))
        found = shares(index, hits, weights, len(test), self.threshold)
        return in_order([*self._with_ngrams(found, test, train), *self._whole(whole, test, train)])

    def _with_ngrams(self, found: Shares, test: Sequence[str], train: Sequence[str]) -> Iterator[Match]:
        for row, item, share, num_shared, num_runs in zip(*(column.tolist() for column in found), strict=True):
            evidence: dict[str, Any] = {"n": self.n, "num_shared": num_shared, "num_ngrams": num_runs}
            if not self.plain:
                own, theirs = self._words(test[item]), self._words(train[row])
                difference = agreement(own, theirs, self.max_changed)
                if not difference.agrees:
                    continue
                evidence["shared"] = longest_shared(own, theirs)
                evidence |= {"only_test": list(difference.only_test), "only_train": list(difference.only_train)}
            yield Match(item, row, share, evidence)

    def _whole(self, pairs: np.ndarray, test: Sequence[str], train: Sequence[str]) -> Iterator[Match]:
        for row, item in pairs.tolist():
            words = self._words(test[item])
            if stands_in(words, self._words(train[row])):
                yield Match(item, row, 1.0, {"n": len(words), "num_shared": 1, "num_ngrams": 1} | _text(words))

    def _words(self, text: str) -> list[str]:
        return words_of(self.reader, text)


def longest_shared(test: Sequence[str], train: Sequence[str]) -> str:
    """Return the longest run of words that both have, shortened if it is long."""
    matcher = difflib.SequenceMatcher(None, test[:MAX_SHOWN], train[:MAX_SHOWN], autojunk=False)
    match = matcher.find_longest_match()
    return _text(test[match.a : match.a + match.size])["shared"]


def _text(words: Sequence[str]) -> dict[str, str]:
    return {"shared": " ".join(words)}

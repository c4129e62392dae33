"""Near copies by the Jaccard similarity of their runs of three words, with MinHash and LSH (datasketch) to find them.

LSH proposes pairs (32 bands of 3 hashes: at the threshold of 0.7 it misses one pair in 700,000), and each is then
compared exactly: the score is the Jaccard similarity itself, |A and B| / |A or B|, and what both say must be the same
(`agreement`).

A row of similarity t to a test item has at least the share t of its own runs in common with it, hence with all test
items together. That is quickly counted (`windows`), and only rows that pass get a MinHash: the result is that of LSH
over all rows. Texts of fewer than three words are one run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trl_math.contamination.agreement import MAX_CHANGED, agreement
from trl_math.contamination.matches import Match, in_order
from trl_math.contamination.normalise import normalised_words, words_of
from trl_math.contamination.reading import CHUNK, Vocabulary, over_chunks
from trl_math.contamination.windows import BOUNDARY, WindowIndex, all_windows, text_numbers
from trl_math.errors import UsageError
from trl_math.optional import require


THRESHOLD = 0.7
RUN = 3
BANDS, HASHES_A_BAND = 32, 3
SEED = 1
NEEDED_FOR = "the detector 'minhash'"
_ROW = np.uint64(0x9E3779B97F4A7C15)


class MinHashDetector:
    """Find rows that are near copies of test items; see the module."""

    name = "minhash"

    def __init__(
        self,
        threshold: float = THRESHOLD,
        *,
        n: int = RUN,
        max_changed: float = MAX_CHANGED,
        processes: int = 1,
        chunk: int = CHUNK,
    ) -> None:
        if not 0 < threshold <= 1:
            raise UsageError(f"The threshold of minhash must be above 0 and at most 1, got {threshold}.")
        if n < 1 or processes < 1 or chunk < 1:
            raise UsageError(f"n, processes and chunk must be at least 1, got {n}, {processes} and {chunk}.")
        self._datasketch = require("datasketch", NEEDED_FOR)
        self.threshold, self.n, self.max_changed = threshold, n, max_changed
        self.processes, self.chunk = processes, chunk

    def find(self, test: Sequence[str], train: Sequence[str]) -> list[Match]:
        """Return every pair whose Jaccard similarity is at least `threshold`; see `Detector`."""
        if not test or not train:
            return []
        hasher = Hasher()
        lsh = self._datasketch.MinHashLSH(num_perm=BANDS * HASHES_A_BAND, params=(BANDS, HASHES_A_BAND))
        items = [runs_of(words_of(normalised_words, text), self.n) for text in test]
        for item, runs in enumerate(items):
            if runs:
                lsh.insert(item, hasher(runs), check_duplication=False)
        vocabulary = Vocabulary(normalised_words, test)
        sought = Sought(vocabulary, WindowIndex(vocabulary.test, self.n), self.threshold, items, lsh, hasher)
        return in_order(
            Match(item, start + row, num_shared / num_runs, evidence)
            for start, near in over_chunks(near_copies, sought, train, size=self.chunk, processes=self.processes)
            for row, item, num_shared, num_runs in near
            if (evidence := self._evidence(test[item], train[start + row], num_shared, num_runs)) is not None
        )

    def _evidence(self, item: str, row: str, num_shared: int, num_runs: int) -> dict[str, Any] | None:
        own, theirs = words_of(normalised_words, item), words_of(normalised_words, row)
        difference = agreement(own, theirs, self.max_changed)
        if not difference.agrees:
            return None
        evidence: dict[str, Any] = {"n": self.n, "num_shared": num_shared, "num_runs": num_runs}
        return evidence | {"only_test": list(difference.only_test), "only_train": list(difference.only_train)}


class Hasher:
    """Runs of words to a MinHash; its permutations are drawn once."""

    def __init__(self) -> None:
        self._empty = require("datasketch", NEEDED_FOR).MinHash(num_perm=BANDS * HASHES_A_BAND, seed=SEED)

    def __call__(self, runs: set[str]) -> Any:
        """Return the MinHash of a text by its runs."""
        minhash = self._empty.copy()
        minhash.update_batch([run.encode("utf-8", "surrogatepass") for run in runs])
        return minhash


@dataclass(frozen=True)
class Sought:
    """What is looked for in training rows; it goes to every process."""

    vocabulary: Vocabulary
    index: WindowIndex
    threshold: float
    items: list[set[str]]
    lsh: Any
    hasher: Hasher


def near_copies(sought: Sought, texts: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """Return (text, test item, runs of both, runs of one or the other) where their similarity is large enough."""
    near = []
    for text in rows_that_may(sought, texts).tolist():
        runs = runs_of(words_of(normalised_words, texts[text]), sought.index.n)
        for item in sorted(sought.lsh.query(sought.hasher(runs))) if runs else ():
            num_shared = len(runs & sought.items[item])
            num_runs = len(runs) + len(sought.items[item]) - num_shared
            if num_shared >= sought.threshold * num_runs:
                near.append((text, item, num_shared, num_runs))
    return near


def runs_of(words: Sequence[str], n: int) -> set[str]:
    """Return the different runs of n words, or the whole text if it is shorter."""
    return {" ".join(words[start : start + n]) for start in range(max(1, len(words) - n + 1))} if words else set()


def rows_that_may(sought: Sought, texts: Sequence[str]) -> np.ndarray:
    """Return which texts have at least the share `threshold` of their runs in the index, or are shorter than a run."""
    index = sought.index
    symbols = sought.vocabulary.read_apart(texts)
    numbers = text_numbers(symbols)
    windows = all_windows(symbols, index.n, known=False)
    known = np.zeros(len(symbols), dtype=bool)
    known[index.places(symbols)[0]] = True
    # Each run of a text once: runs that are the same have the same hash. (If two that are not had, the text would
    # count as more alike than it is, and be compared.)
    keys = windows.hashes ^ (numbers[windows.starts].astype(np.uint64) * _ROW)
    _, first = np.unique(keys, return_index=True)
    starts = windows.starts[first]
    num_runs = np.bincount(numbers[starts], minlength=len(texts))
    num_known = np.bincount(numbers[starts[known[starts]]], minlength=len(texts))
    lengths = np.diff(np.flatnonzero(symbols == BOUNDARY), prepend=-1) - 1
    return np.flatnonzero((num_known >= sought.threshold * num_runs - 1e-9) & (num_known > 0) | (lengths < index.n))

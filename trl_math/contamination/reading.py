"""Training rows as numbers, a chunk at a time and on several processes; the test items give the vocabulary.

Only words that a test item has can be part of a match, so all others are one number, and reading a million rows costs
one look into a dictionary a word. A chunk is a number of characters, so that texts of a megabyte come alone. What is
done with a chunk is a function of that chunk, and results come in the order of the chunks: the number of processes and
the size of chunks change nothing.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from typing import Any, TypeVar

import numpy as np

from trl_math.contamination.normalise import BOUNDARY, Reader
from trl_math.contamination.windows import BOUNDARY as BOUNDARY_NUMBER
from trl_math.contamination.windows import UNKNOWN


CHUNK = 1_000_000  # characters
# Starting a process takes as long as reading this much.
MIN_CHARACTERS = 20_000_000

Result = TypeVar("Result")


class Vocabulary:
    """The words of the test items, numbered from 1."""

    def __init__(self, reader: Reader, test: Sequence[str]) -> None:
        self.reader = reader
        words = reader(test)
        self.numbers = {BOUNDARY: BOUNDARY_NUMBER}
        self.numbers |= {
            word: number for number, word in enumerate((word for word in dict.fromkeys(words) if word != BOUNDARY), 1)
        }
        self.words = list(self.numbers)
        self.test = self._numbered(words)

    def read(self, texts: Sequence[str]) -> np.ndarray:
        """Return the numbers of the words of texts, one after the other, each text ended by a 0."""
        return self._numbered(self.reader(texts))

    def read_apart(self, texts: Sequence[str]) -> np.ndarray:
        """As `read`, but words that no test item has are negative numbers by their hash, not all the same one."""
        words = self.reader(texts)
        own = np.fromiter(map(self.numbers.get, words, repeat(UNKNOWN)), np.int64, len(words))
        return np.where(own >= 0, own, -1 - (np.fromiter(map(hash, words), np.int64, len(words)) & (2**62 - 1)))

    def _numbered(self, words: list[str]) -> np.ndarray:
        return np.fromiter(map(self.numbers.get, words, repeat(UNKNOWN)), np.int32, len(words))


def chunks(texts: Sequence[str], size: int) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield consecutive texts of about `size` characters, with the number of the first."""
    start = length = 0
    for number, text in enumerate(texts):
        length += len(text) + 1
        if length >= size:
            yield start, texts[start : number + 1]
            start, length = number + 1, 0
    if start < len(texts):
        yield start, texts[start:]


def over_chunks(
    work: Callable[[Any, Sequence[str]], Result], state: Any, texts: Sequence[str], *, size: int, processes: int
) -> Iterator[tuple[int, Result]]:
    """Yield `work(state, chunk)` for every chunk of texts, in order, with the number of its first text.

    Where it pays, chunks go to `processes` new processes. These are started afresh and not forked, which is safe
    beside the threads of torch; so a script that sets `processes` above 1 begins under `if __name__ == "__main__":`.
    """
    parts = list(chunks(texts, size))
    if processes == 1 or len(parts) < 2 or sum(map(len, texts)) < MIN_CHARACTERS:
        yield from ((start, work(state, part)) for start, part in parts)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_keep, initargs=(work, state)) as pool:
        results = pool.map(_work, (part for _, part in parts))
        yield from zip((start for start, _ in parts), results, strict=True)


_KEPT: list[Any] = []


def _keep(work: Callable[..., Any], state: Any) -> None:
    _KEPT[:] = [work, state]


def _work(part: Sequence[str]) -> Any:
    work, state = _KEPT
    return work(state, part)

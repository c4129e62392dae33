"""Which training rows have what is sought: the work of every detector that looks for runs of symbols."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trl_math.contamination.reading import over_chunks
from trl_math.contamination.short_items import ShortItems
from trl_math.contamination.windows import Hits, WindowIndex


@dataclass(frozen=True)
class Sought:
    """How texts are read, and what is looked for in them; it goes to every process."""

    read: Callable[[Sequence[str]], np.ndarray]
    index: WindowIndex
    short_items: ShortItems


def search(sought: Sought, train: Sequence[str], *, size: int, processes: int) -> tuple[Hits, np.ndarray]:
    """Return which rows have which runs of the index, and pairs of a row and a short item that it may have whole."""
    rows, runs, whole = [], [], []
    for start, (hits, pairs) in over_chunks(search_chunk, sought, train, size=size, processes=processes):
        rows.append(hits.texts + np.int32(start))
        runs.append(hits.runs)
        whole.append(pairs + np.array([start, 0]))
    return Hits(np.concatenate(rows), np.concatenate(runs)), np.concatenate(whole)


def search_chunk(sought: Sought, texts: Sequence[str]) -> tuple[Hits, np.ndarray]:
    """Do the work of `search` for the texts of one chunk."""
    symbols = sought.read(texts)
    hits = sought.index.search(symbols)
    return Hits(hits.texts.astype(np.int32), hits.runs.astype(np.int32)), sought.short_items.search(symbols)

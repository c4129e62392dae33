"""Test items that are too short to have an n-gram are compared whole.

With whole rows, or, from `MIN_INSIDE` words on, also with as many words inside of a row, whose neighbours are no part
of a formula: `Compute 2 + 2` is in `Question: Compute 2 + 2. Answer: 4`, and not in `Compute 2 + 2 * 3`.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from trl_math.contamination.agreement import is_formula
from trl_math.contamination.windows import BOUNDARY, WindowIndex


MIN_INSIDE = 4


class ShortItems:
    """The items of fewer than n symbols. `inside`: they may also stand inside of a row."""

    def __init__(self, symbols: np.ndarray, n: int, *, inside: bool) -> None:
        self._n = n
        self._whole: dict[bytes, list[int]] = defaultdict(list)
        by_length: dict[int, dict[int, np.ndarray]] = defaultdict(dict)
        for number, item in enumerate(_texts(symbols)):
            if 0 < len(item) < n:
                self._whole[item.tobytes()].append(number)
                if inside and len(item) >= MIN_INSIDE:
                    by_length[len(item)][number] = item
        self._inside = [
            (WindowIndex(_ended(items.values()), length), np.array(list(items)))
            for length, items in sorted(by_length.items())
        ]

    def search(self, symbols: np.ndarray) -> np.ndarray:
        """Return (text, item), each pair once, for items that these texts are or may have inside."""
        ends = np.flatnonzero(symbols == BOUNDARY)
        starts = np.concatenate([[0], ends[:-1] + 1])
        pairs = {
            (text, item)
            for text in np.flatnonzero(ends - starts < self._n).tolist()
            for item in self._whole.get(symbols[starts[text] : ends[text]].tobytes(), ())
        }
        for index, items in self._inside:
            hits = index.search(symbols)
            for text, run in zip(hits.texts.tolist(), hits.runs.tolist(), strict=True):
                owners = index.owners[index.bounds[run] : index.bounds[run + 1]]
                pairs |= {(text, item) for item in items[owners].tolist()}
        return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


def stands_in(item: Sequence[str], row: Sequence[str]) -> bool:
    """Whether a row is the item, or has it with neighbours that are no part of a formula."""
    if len(item) == len(row):
        return list(item) == list(row)
    return any(
        all(not is_formula(word) for word in (*row[max(0, start - 1) : start], *row[start + len(item) :][:1]))
        for start in range(len(row) - len(item) + 1)
        if row[start] == item[0] and list(row[start : start + len(item)]) == list(item)
    )


def _texts(symbols: np.ndarray) -> list[np.ndarray]:
    ends = np.flatnonzero(symbols == BOUNDARY)
    return [symbols[start:end] for start, end in zip([0, *(ends[:-1] + 1)], ends, strict=True)] if len(ends) else []


def _ended(items: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([part for item in items for part in (item, [BOUNDARY])]).astype(np.int32)

"""Rows of tokens on their way: some thousands at once, as flat arrays, with what is counted of them.

A `Block` has no padding. Everything that makes, changes or writes token files passes blocks on, so that memory depends
on the size of a block and not of a file.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from trl_math.data.token_format import EXCLUDED, PADDING, REAL
from trl_math.errors import DataError


NUM_TOKENS = 2**20  # about so many tokens are in a block
IGNORED = -100  # the label of what is not trained


class Block(NamedTuple):
    """Rows without padding: their ids and masks one after the other, and how long each is."""

    ids: np.ndarray
    mask: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of_labels(cls, ids: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]) -> "Block":
        """Return rows as trainers have them: what has the label -100 is excluded from the loss."""
        lengths = np.array([len(row) for row in ids], np.int64)
        flat = np.concatenate([np.asarray(row, np.int64) for row in ids]) if len(ids) else np.empty(0, np.int64)
        targets = np.concatenate([np.asarray(row, np.int64) for row in labels]) if len(ids) else flat
        return cls(flat, np.where(targets == IGNORED, REAL | EXCLUDED, REAL).astype(np.int8), lengths)

    @classmethod
    def of_padded(cls, ids: np.ndarray, mask: np.ndarray, where: str) -> "Block":
        """Return the real tokens of padded rows, whose padding must stand at the end of each."""
        is_real = (mask & REAL).astype(bool)
        holes = (is_real[:, 1:] & ~is_real[:, :-1]).any(axis=1)
        if holes.any():
            raise DataError(
                f"{where} has real tokens behind padding, the first in row {int(holes.argmax())} of a block."
            )
        return cls(ids[is_real], mask[is_real], is_real.sum(axis=1))

    def padded(self, length: int, pad_id: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and masks as rows of `length`, filled up at the end."""
        is_real = np.arange(length) < self.lengths[:, None]
        ids = np.full(is_real.shape, pad_id, dtype)
        mask = np.full(is_real.shape, PADDING, np.int8)
        ids[is_real], mask[is_real] = self.ids, self.mask
        return ids, mask

    def labels(self) -> np.ndarray:
        """Return the ids, with -100 in place of those that are excluded from the loss."""
        return np.where(self.mask & EXCLUDED, IGNORED, self.ids.astype(np.int32))


class Counts:
    """What is known of a token file when all its rows went by."""

    def __init__(self) -> None:
        self.num_rows = self.num_tokens = self.num_trained = self.longest = 0
        self.shortest: int | None = None
        self.largest_id = -1

    def over(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Pass blocks on, and count them."""
        for block in blocks:
            if len(block.lengths):
                self._add(block)
                yield block

    def _add(self, block: Block) -> None:
        self.num_rows += len(block.lengths)
        self.num_tokens += len(block.ids)
        self.num_trained += int(((block.mask & EXCLUDED) == 0).sum())
        self.longest = max(self.longest, int(block.lengths.max()))
        self.shortest = min(int(block.lengths.min()), self.longest if self.shortest is None else self.shortest)
        self.largest_id = max(self.largest_id, int(block.ids.max()) if len(block.ids) else -1)

    def as_facts(self) -> dict[str, Any]:
        """Return the counts as a manifest has them."""
        return {
            "num_rows": self.num_rows,
            "num_tokens": self.num_tokens,
            "num_trained": self.num_trained,
            "largest_id": self.largest_id,
            "lengths": {
                "shortest": self.shortest or 0,
                "mean": round(self.num_tokens / max(self.num_rows, 1), 2),
                "longest": self.longest,
            },
        }

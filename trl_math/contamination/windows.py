"""Runs of n symbols (words, characters) of the test items, indexed once; whoever has one of them, found quickly.

A text is numbers, one a symbol; what is below 1 ends a run: 0 is the boundary of texts, a negative number a symbol
that no test item has. All windows of a chunk of texts are hashed together: with `S` the running sum of
`symbol * P^i`, all modulo 2^64, the window from i is `(S[i+n] - S[i]) * P^-i`, whatever n. A small table says of most
windows that the index has no such hash, and what is left is looked up and then compared symbol by symbol, so no two
runs are ever taken for one because of their hashes. Where two runs of the index would share one, `P` is another.
"""

from typing import NamedTuple

import numpy as np


BOUNDARY = 0
UNKNOWN = -1
_MULTIPLIERS = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03, 0xAEF17502108EF2D9, 0xF1357AEA2E62A9C5)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_SLOTS_A_RUN = 32


class Windows(NamedTuple):
    """All runs of n symbols in a chunk of texts, without those that cross a boundary or hold an unknown symbol."""

    starts: np.ndarray
    hashes: np.ndarray


class Hits(NamedTuple):
    """Which text has which run of the index, each pair once."""

    texts: np.ndarray
    runs: np.ndarray


class WindowIndex:
    """The different runs of `n` symbols in the test items.

    `num_runs` of them; `owners[bounds[run]:bounds[run + 1]]` are the test items that have a run, in their order.
    """

    def __init__(self, symbols: np.ndarray, n: int, starts: np.ndarray | None = None) -> None:
        """Index all runs in `symbols`, or those that begin at `starts`."""
        self.n, self._symbols = n, symbols
        for multiplier in _MULTIPLIERS:
            self.multiplier = multiplier
            windows = all_windows(symbols, n, multiplier)
            if starts is not None:
                windows = Windows(*(column[np.isin(windows.starts, starts)] for column in windows))
            self._hashes, first, run = np.unique(windows.hashes, return_index=True, return_inverse=True)
            self._first = windows.starts[first]
            if _same(symbols, windows.starts, symbols, self._first[run], n).all():
                break
        else:
            raise AssertionError(f"Different runs of {n} symbols share a hash under every multiplier.")
        self.num_runs = len(self._hashes)
        owners = text_numbers(symbols)[windows.starts]
        pairs = np.unique(np.stack([run, owners], axis=1), axis=0) if len(run) else np.empty((0, 2), dtype=np.int64)
        self.owners = pairs[:, 1]
        self.bounds = np.searchsorted(pairs[:, 0], np.arange(self.num_runs + 1))
        bits = max(8, (self.num_runs * _SLOTS_A_RUN).bit_length())
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, dtype=bool)
        self._table[self._hashes >> self._shift] = True

    def search(self, symbols: np.ndarray, texts: np.ndarray | None = None) -> Hits:
        """Return which of these texts have which runs. `texts`: the number of each symbol's text."""
        texts = text_numbers(symbols) if texts is None else texts
        starts, runs = self.places(symbols)
        pairs = np.unique(texts[starts].astype(np.int64) * max(self.num_runs, 1) + runs)
        return Hits(*np.divmod(pairs, max(self.num_runs, 1)))

    def places(self, symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where in these symbols runs of the index begin, and which."""
        starts, hashes = all_windows(symbols, self.n, self.multiplier)
        maybe = np.flatnonzero(self._table[hashes >> self._shift])
        starts, hashes = starts[maybe], hashes[maybe]
        if not self.num_runs:
            return starts, starts
        runs = np.minimum(np.searchsorted(self._hashes, hashes), self.num_runs - 1)
        known = np.flatnonzero(self._hashes[runs] == hashes)
        starts, runs = starts[known], runs[known]
        same = _same(symbols, starts, self._symbols, self._first[runs], self.n)
        return starts[same], runs[same]


def all_windows(symbols: np.ndarray, n: int, multiplier: int = _MULTIPLIERS[0], *, known: bool = True) -> Windows:
    """Return the runs of n symbols that cross no boundary; `known`: nor hold a symbol below 1."""
    num = len(symbols) - n + 1
    if num <= 0:
        return Windows(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint64))
    ends = np.zeros(len(symbols) + 1, dtype=np.int32)
    np.cumsum(symbols < 1 if known else symbols == BOUNDARY, out=ends[1:])
    starts = np.flatnonzero(ends[n:] == ends[:num])
    powers, inverses = _powers(len(symbols), multiplier)
    sums = np.zeros(len(symbols) + 1, dtype=np.uint64)
    np.cumsum(symbols.astype(np.int64).view(np.uint64) * _MIX * powers, out=sums[1:])
    hashes = (sums[starts + n] - sums[starts]) * inverses[starts]
    # The last bits of a product mod 2^64 say least; the table reads the first.
    return Windows(starts, (hashes ^ (hashes >> np.uint64(32))) * _MIX)


def text_numbers(symbols: np.ndarray) -> np.ndarray:
    """Return for every symbol the number of its text; a boundary belongs to the text that it ends."""
    ends = (symbols == BOUNDARY).astype(np.int64)
    return np.cumsum(ends) - ends


def _same(symbols: np.ndarray, starts: np.ndarray, others: np.ndarray, other_starts: np.ndarray, n: int) -> np.ndarray:
    """Return which runs of n symbols are the same as those beside them."""
    same = np.ones(len(starts), dtype=bool)
    for place in range(n):
        same &= symbols[starts + place] == others[other_starts + place]
    return same


_POWERS: dict[int, tuple[np.ndarray, np.ndarray]] = {}


def _powers(number: int, multiplier: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first powers of a multiplier and of its inverse modulo 2^64, kept for the next chunk."""
    kept = _POWERS.get(multiplier)
    if kept is None or len(kept[0]) < number:
        inverse = pow(multiplier, -1, 1 << 64)
        kept = _POWERS[multiplier] = (_first_powers(multiplier, number), _first_powers(inverse, number))
    return kept[0][:number], kept[1][:number]


def _first_powers(factor: int, number: int) -> np.ndarray:
    factors = np.full(number, factor, dtype=np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)

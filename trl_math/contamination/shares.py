"""From which row has which run to which row has how much of which test item, without looking at all pairs.

A run counts by its inverse document frequency, log((D + 1000) / df) with the D texts of both sides: a sentence that
hundreds of problems have in common says little, and is not even a reason to look at a pair. (The thousand are texts
that do not have it: among three texts, that two have a run does not make it boilerplate.) For a share of at least t
a row must have one of the rarest runs of a test item, those that make up more than 1 - t of it; so only those propose
pairs, and each pair that is proposed is counted in full.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from trl_math.contamination.windows import Hits, WindowIndex


BACKGROUND = 1000
ROUNDING = 1e-12
PAIRS_AT_ONCE = 1 << 22


class Shares(NamedTuple):
    """Pairs of a row and a test item, with the share of the item's runs that the row has."""

    rows: np.ndarray
    tests: np.ndarray
    shares: np.ndarray  # by weight
    num_shared: np.ndarray
    num_runs: np.ndarray  # of the test item


def document_weights(index: WindowIndex, hits: Hits, num_documents: int) -> np.ndarray:
    """Return the weight of each run of the index. `hits`: of all training rows."""
    num_documents_with = np.diff(index.bounds) + np.bincount(hits.runs, minlength=index.num_runs)
    return np.log((num_documents + BACKGROUND) / num_documents_with)


def shares(index: WindowIndex, hits: Hits, weights: np.ndarray, num_tests: int, threshold: float) -> Shares:
    """Return all pairs whose share is at least `threshold`, in the order of rows and test items."""
    runs = np.repeat(np.arange(index.num_runs, dtype=np.int64), np.diff(index.bounds))
    totals = np.bincount(index.owners, weights[runs], num_tests)
    nums = np.bincount(index.owners, minlength=num_tests)
    proposing = _proposing(index.owners, runs, weights, totals, threshold)
    bounds = np.searchsorted(runs[proposing], np.arange(index.num_runs + 1))
    pairs = _pairs(hits, index.owners[proposing], bounds, num_tests)
    rows, tests = np.divmod(pairs, num_tests)

    # Of each pair, all runs that the row has, and which of them the test item has.
    held = np.sort(index.owners.astype(np.int64) * index.num_runs + runs)
    row_bounds = np.searchsorted(hits.texts, np.stack([rows, rows + 1]))
    found, num_shared = np.zeros(len(pairs)), np.zeros(len(pairs), dtype=np.int64)
    for part in _parts(row_bounds[1] - row_bounds[0]):
        lengths = (row_bounds[1] - row_bounds[0])[part]
        pair = np.repeat(np.arange(part.start, part.stop), lengths)
        run = hits.runs[_ranges(row_bounds[0][part], lengths)]
        key = tests[pair] * index.num_runs + run
        place = np.minimum(np.searchsorted(held, key), len(held) - 1)
        has = held[place] == key
        found += np.bincount(pair[has], weights[run[has]], len(pairs))
        num_shared += np.bincount(pair[has], minlength=len(pairs))
    share = np.minimum(found / np.maximum(totals[tests], ROUNDING), 1.0)
    kept = (share >= threshold - ROUNDING) & (num_shared > 0)
    return Shares(rows[kept], tests[kept], share[kept], num_shared[kept], nums[tests[kept]])


def _proposing(
    owners: np.ndarray, runs: np.ndarray, weights: np.ndarray, totals: np.ndarray, threshold: float
) -> np.ndarray:
    """Return which (run, test item) propose a pair: the rarest of an item, until the rest weighs under `threshold`."""
    order = np.lexsort((runs, weights[runs], owners))  # the commonest of an item first
    weight, owner = weights[runs][order], owners[order]
    sums = np.cumsum(weight)
    before = np.searchsorted(owner, owner)
    within = sums - np.concatenate([[0.0], sums])[before]
    proposing = np.empty(len(owners), dtype=bool)
    proposing[order] = within >= (threshold - 1e-9) * totals[owner]
    return proposing


def _pairs(hits: Hits, owners: np.ndarray, bounds: np.ndarray, num_tests: int) -> np.ndarray:
    """Return the pairs that runs propose, as row * num_tests + test, each once and in order."""
    lengths = np.diff(bounds)[hits.runs]
    pairs = [np.empty(0, dtype=np.int64)]
    for part in _parts(lengths):
        rows = np.repeat(hits.texts[part].astype(np.int64), lengths[part])
        tests = owners[_ranges(bounds[:-1][hits.runs[part]], lengths[part])]
        pairs.append(np.unique(rows * num_tests + tests))
    return np.unique(np.concatenate(pairs))


def _parts(lengths: np.ndarray) -> list[slice]:
    """Cut places into slices of about `PAIRS_AT_ONCE` in sum of `lengths`."""
    sums = np.cumsum(lengths)
    total = int(sums[-1]) if len(sums) else 0
    cuts = np.searchsorted(sums, np.arange(PAIRS_AT_ONCE, total, PAIRS_AT_ONCE)) + 1
    edges = np.unique([0, *cuts.tolist(), len(lengths)]).tolist()
    return [slice(low, high) for low, high in pairwise(edges)]


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return start, start + 1, ... (length of them) for each start."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))

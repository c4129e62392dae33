"""Fit the regressions of `paraphrase` to rows whose test item is known.

A detector is asked about rows, so it is fitted at the row: of every training row counts the test item that looks most
like it, which depends on the weights; so choosing and fitting alternate a few times. A paraphrase counts with its own
test item as well, whichever looks most like it.

The threshold is the one with the largest F1 if there are `CLEAN_PER_PARAPHRASE` clean rows to each paraphrase, and it
is moved into the intercept, so that it is 0.5 for every kind of pairs.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trl_math.contamination.paraphrase import Regression
from trl_math.errors import DataError


CLEAN_PER_PARAPHRASE = 25
NUM_ROUNDS = 5


class Candidates(NamedTuple):
    """Pairs of one kind: their features, and of which row they are."""

    features: NDArray[np.float64]
    rows: NDArray[np.int64]
    is_paraphrase: NDArray[np.bool_]  # whether the test item is the row's own
    weights: NDArray[np.float64]  # of rows: how much a pair of this row counts in the fit
    is_clean: NDArray[np.bool_]  # whether the row counts as clean for the threshold


def calibrate(pairs: Candidates) -> Regression:
    """Return the regression of these pairs, whose threshold is 0.5."""
    if not pairs.is_paraphrase.any() or pairs.is_paraphrase.all():
        raise DataError("Nothing to calibrate: labelled rows must hold paraphrases and rows that are none.")
    # At first the test item with the nearest meaning and the most numbers in common.
    scores = pairs.features[:, 0] + 2 * pairs.features[:, 2]
    for _ in range(NUM_ROUNDS):
        chosen = best_of_rows(scores, pairs.rows) | pairs.is_paraphrase
        fitted = fit(pairs.features[chosen], pairs.is_paraphrase[chosen], pairs.weights[chosen])
        scores = pairs.features @ np.array(fitted.weights) + fitted.intercept
    best = best_of_rows(scores, pairs.rows)
    own = pairs.is_paraphrase & (pairs.weights >= 1)
    used = own | (best & pairs.is_clean)
    num_clean = max(int((used & ~own).sum()), 1)
    weights = np.where(own[used], 1.0, own.sum() * CLEAN_PER_PARAPHRASE / num_clean)
    threshold = best_threshold(scores[used], own[used], weights)
    return Regression(fitted.weights, fitted.intercept - threshold)


def best_of_rows(scores: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which pairs are the best of their row."""
    order = np.lexsort((-scores, rows))
    is_first = np.r_[True, rows[order][1:] != rows[order][:-1]]
    best = np.zeros(len(scores), bool)
    best[order[is_first]] = True
    return best


def fit(
    features: NDArray[np.float64], labels: NDArray[np.bool_], weights: NDArray[np.float64], ridge: float = 1.0
) -> Regression:
    """Return a logistic regression, by Newton's method.

    `ridge` pulls the weights of standardised features to 0, so that pairs that can be told apart without an error
    still have a finite answer.
    """
    mean, scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-9)
    x = np.column_stack([(features - mean) / scale, np.ones(len(features))])
    penalty = np.diag([ridge] * features.shape[1] + [1e-6])
    beta = np.zeros(x.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        gradient = x.T @ (weights * (p - labels)) + penalty @ beta
        step = np.linalg.solve((x * (weights * p * (1 - p))[:, None]).T @ x + penalty, gradient)
        beta -= step
        if np.abs(step).max() < 1e-9:
            break
    return Regression(tuple((beta[:-1] / scale).tolist()), float(beta[-1] - (beta[:-1] * mean / scale).sum()))


def best_threshold(scores: NDArray[np.float64], labels: NDArray[np.bool_], weights: NDArray[np.float64]) -> float:
    """Return the score with the largest F1, in the middle between it and the next."""
    order = np.argsort(-scores, kind="stable")
    ordered, right, weight = scores[order], labels[order], weights[order]
    f1 = 2 * np.cumsum(weight * right) / (np.cumsum(weight) + (weight * right).sum())
    # A cut between equal scores is none.
    f1[:-1][ordered[:-1] == ordered[1:]] = -1
    cut = int(f1.argmax())
    below = ordered[cut + 1] if cut + 1 < len(ordered) else ordered[cut] - 1
    return float((ordered[cut] + below) / 2)

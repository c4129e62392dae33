"""Precision, recall and F1 of scores at a threshold, over thresholds, and with one that half of the pairs calibrates.

A score may be unknown (NaN): such a pair is not flagged, is counted by itself, and what would be if all of them were
flagged stands beside the numbers. A pair that a detector does not return has the score -inf.

Labelled sets have few clean pairs to a contaminated one, real data have many. With `clean_ratio` each clean pair
counts for so many that there are that many clean to one contaminated; recall stays, precision falls as it would.

Precision and recall have Wilson intervals, over pairs. Where clean pairs are weighted, precision is a function of two
shares, the contaminated and the clean pairs that are flagged, and its ends are those of both their Wilson intervals.
F1 has a bootstrap interval: test items are drawn with all their pairs, since pairs of one item are alike.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from trl_math.errors import UsageError
from trl_math.evaluation.intervals import Estimate, proportion


CONFIDENCE = 0.95
BOTH = "Wilson score, of both shares"
BOOTSTRAP = "bootstrap over test items"


class Scored(NamedTuple):
    """Scores of pairs, with what is known of them."""

    scores: np.ndarray  # NaN: unknown; -inf: not returned
    labels: np.ndarray  # of bool
    groups: np.ndarray  # the test item of each

    def of(self, chosen: np.ndarray) -> "Scored":
        """Return some of the pairs."""
        return Scored(self.scores[chosen], self.labels[chosen], self.groups[chosen])


class Curve(NamedTuple):
    """Precision and recall where the threshold is a score that occurs, from the lowest."""

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / np.where(total > 0, total, 1.0)


class Calibrated(NamedTuple):
    """A threshold chosen on one half of the test items, and what it does on either."""

    threshold: float
    chosen_on: dict[str, Any]
    measured_on: dict[str, Any]


def clean_weight(labels: np.ndarray, clean_ratio: float | None) -> float:
    """Return what a clean pair counts for, so that there are `clean_ratio` to a contaminated one."""
    if clean_ratio is None:
        return 1.0
    num_contaminated, num_clean = int(labels.sum()), int((~labels).sum())
    return clean_ratio * num_contaminated / num_clean if num_clean else 0.0


def threshold_curve(pairs: Scored, clean_ratio: float | None = None) -> Curve:
    """Return precision and recall at every score that a detector returned."""
    weight = clean_weight(pairs.labels, clean_ratio)
    known = np.isfinite(pairs.scores)
    order = np.argsort(-pairs.scores[known], kind="stable")
    scores, labels = pairs.scores[known][order], pairs.labels[known][order]
    true, false = np.cumsum(labels), np.cumsum(~labels)
    last = np.flatnonzero(np.diff(scores, append=-np.inf))  # of equal scores
    found, wrong = true[last].astype(float), weight * false[last]
    flagged = found + wrong
    precision = found / np.where(flagged > 0, flagged, 1.0)
    recall = found / max(int(pairs.labels.sum()), 1)
    return Curve(scores[last][::-1], precision[::-1], recall[::-1])


def best_threshold(curve: Curve, lowest: float = -math.inf) -> float | None:
    """Return the threshold of the largest F1, half-way to the next lower score; None if nothing is ever found.

    Of several the highest. Half-way, since a score that is a little lower is more like those above than below.
    `lowest`: what was not returned is below this.
    """
    f1 = curve.f1
    if not len(f1) or f1.max() <= 0:
        return None
    place = int(np.flatnonzero(f1 >= f1.max() - 1e-12)[-1])
    here = float(curve.thresholds[place])
    below = float(curve.thresholds[place - 1]) if place else lowest
    return (here + below) / 2 if math.isfinite(below) else here


def measure(
    pairs: Scored,
    threshold: float,
    clean_ratio: float | None = None,
    *,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return counts, precision, recall and F1 at a threshold, with intervals; None for what has no denominator."""
    unknown = np.isnan(pairs.scores)
    flagged = pairs.scores >= threshold  # NaN is not
    found: dict[str, Any] = {"threshold": float(threshold), **_counts(flagged, pairs.labels)}
    found |= _rates(flagged, pairs.labels, clean_ratio)
    found["f1"] = _f1_estimate(flagged, pairs, clean_ratio, num_bootstrap, seed)
    found["num_unknown"] = {
        "contaminated": int((unknown & pairs.labels).sum()),
        "clean": int((unknown & ~pairs.labels).sum()),
    }
    if unknown.any():
        all_flagged = flagged | unknown
        rates = _rates(all_flagged, pairs.labels, clean_ratio)
        found["if_unknown_is_flagged"] = {
            **{name: None if one is None else one["value"] for name, one in rates.items()},
            "f1": _f1(*_weighted(all_flagged, pairs.labels, clean_ratio)),
        }
    return found


def measure_kinds(
    pairs: Scored, kinds: np.ndarray, threshold: float, clean_ratio: float | None = None, **bootstrap: int
) -> dict[str, dict[str, Any]]:
    """Return what a threshold does to each kind of pair: contaminated against all clean ones, clean by themselves."""
    found: dict[str, dict[str, Any]] = {}
    for kind in sorted(set(kinds.tolist())):
        own = kinds == kind
        labels = pairs.labels[own]
        entry: dict[str, Any] = {"num_contaminated": int(labels.sum()), "num_clean": int((~labels).sum())}
        if labels.any():
            chosen = (own & pairs.labels) | ~pairs.labels
            entry |= measure(pairs.of(chosen), threshold, clean_ratio, **bootstrap)
        if not labels.all():
            flagged = pairs.scores[own & ~pairs.labels] >= threshold
            entry["false_positive_rate"] = proportion(int(flagged.sum()), len(flagged), CONFIDENCE)._asdict()
        found[kind] = entry
    return found


def calibrate(
    pairs: Scored,
    measures: np.ndarray,
    clean_ratio: float | None = None,
    lowest: float = -math.inf,
    **bootstrap: int,
) -> Calibrated | None:
    """Choose the threshold of the largest F1 on one half, and measure it on the other, which `measures` has.

    None if the first half finds nothing, or the second has no pairs of one label.
    """
    first, second = pairs.of(~measures), pairs.of(measures)
    threshold = best_threshold(threshold_curve(first, clean_ratio), lowest)
    if threshold is None or not second.labels.any() or second.labels.all():
        return None
    return Calibrated(
        threshold,
        measure(first, threshold, clean_ratio, **bootstrap),
        measure(second, threshold, clean_ratio, **bootstrap),
    )


def _counts(flagged: np.ndarray, labels: np.ndarray) -> dict[str, int]:
    return {
        "true_positives": int((flagged & labels).sum()),
        "false_positives": int((flagged & ~labels).sum()),
        "false_negatives": int((~flagged & labels).sum()),
        "true_negatives": int((~flagged & ~labels).sum()),
    }


def _rates(flagged: np.ndarray, labels: np.ndarray, clean_ratio: float | None) -> dict[str, Any]:
    """Return precision and recall as dictionaries of an estimate."""
    true, false = int((flagged & labels).sum()), int((flagged & ~labels).sum())
    num_contaminated, num_clean = int(labels.sum()), int((~labels).sum())
    recall = proportion(true, num_contaminated, CONFIDENCE) if num_contaminated else None
    precision = proportion(true, true + false, CONFIDENCE) if true + false else None
    if clean_ratio is not None and precision is not None and recall is not None and num_clean:
        wrong = proportion(false, num_clean, CONFIDENCE)
        precision = Estimate(
            _precision(recall.value, wrong.value, clean_ratio),
            _precision(recall.low, wrong.high, clean_ratio),
            _precision(recall.high, wrong.low, clean_ratio),
            true + false,
            BOTH,
            CONFIDENCE,
        )
    return {
        "precision": None if precision is None else precision._asdict(),
        "recall": None if recall is None else recall._asdict(),
    }


def _precision(recall: float, wrong: float, clean_ratio: float) -> float:
    return recall / (recall + clean_ratio * wrong) if recall + wrong > 0 else 0.0


def _weighted(flagged: np.ndarray, labels: np.ndarray, clean_ratio: float | None) -> tuple[float, float, float]:
    """Return (found, weighted wrongly flagged, missed)."""
    wrong = clean_weight(labels, clean_ratio) * (flagged & ~labels).sum()
    return float((flagged & labels).sum()), float(wrong), float((~flagged & labels).sum())


def _f1(found: float, wrong: float, missed: float) -> float | None:
    total = 2 * found + wrong + missed
    return 2 * found / total if total > 0 else None


def _f1_estimate(
    flagged: np.ndarray, pairs: Scored, clean_ratio: float | None, num_bootstrap: int, seed: int
) -> dict[str, Any] | None:
    value = _f1(*_weighted(flagged, pairs.labels, clean_ratio))
    if value is None:
        return None
    if num_bootstrap < 1:
        raise UsageError(f"num_bootstrap must be at least 1, got {num_bootstrap}.")
    places = np.unique(pairs.groups, return_inverse=True)[1]
    kinds = (flagged & pairs.labels, flagged & ~pairs.labels, ~flagged & pairs.labels, ~pairs.labels)
    table = np.stack([np.bincount(places, one) for one in kinds], axis=1)  # (test items, 4)
    num = len(table)
    random = np.random.default_rng(seed)
    found, wrong, missed, clean = (random.multinomial(num, np.full(num, 1 / num), size=num_bootstrap) @ table).T
    if clean_ratio is not None:
        wrong = wrong * clean_ratio * (found + missed) / np.maximum(clean, 1)
    total = 2 * found + wrong + missed
    drawn = (2 * found / np.where(total > 0, total, 1.0))[total > 0]
    ends = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) if len(drawn) else (value, value)
    return Estimate(value, float(ends[0]), float(ends[1]), num, BOOTSTRAP, CONFIDENCE)._asdict()

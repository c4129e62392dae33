"""How good are detectors? Each is asked about labelled pairs as it is used on data, and measured (`pair_measures`).

A detector gets all test items and all rows of the pairs at once, so that what it does with frequencies and neighbours
is what it does in use, and finds with a threshold that is low enough for a curve; what it does not return even so has
no score. One that scores pairs by themselves (`score_pairs`, the judge) is asked about just these.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from trl_math.contamination.labelled import LabelledPairs
from trl_math.contamination.matches import Detector
from trl_math.contamination.pair_measures import Scored, calibrate, measure, measure_kinds, threshold_curve
from trl_math.errors import MissingPackageError


# Scores below this are of no interest, and cost much to find.
CURVE_FROM = 0.1


@runtime_checkable
class PairScorer(Protocol):
    """A detector that scores pairs without looking for them."""

    def score_pairs(self, test: Sequence[str], train: Sequence[str]) -> list[float]:
        """Return the score of each pair; NaN where it is unknown."""
        ...


class Measured(NamedTuple):
    """The scores that a detector gave the pairs, and the threshold that it is used with."""

    name: str
    threshold: float
    scores: np.ndarray  # NaN: unknown; -inf: not returned
    curve_from: float  # no score below this was looked for


class Settings(NamedTuple):
    """How scores are measured."""

    clean_ratio: float | None = None  # clean pairs to one contaminated; None: as the labelled set has them
    num_bootstrap: int = 1000
    seed: int = 0


def score_pairs(detector: Detector, pairs: LabelledPairs) -> np.ndarray:
    """Return the score that a detector gives each pair: -inf where it does not return it, NaN where it is unknown."""
    if isinstance(detector, PairScorer):
        return np.array(detector.score_pairs(pairs.test, pairs.train), dtype=float)
    tests, trains = list(dict.fromkeys(pairs.test)), list(dict.fromkeys(pairs.train))
    found = {(match.test, match.train): match.score for match in detector.find(tests, trains)}
    test_places = {text: place for place, text in enumerate(tests)}
    train_places = {text: place for place, text in enumerate(trains)}
    places = ((test_places[test], train_places[train]) for test, train in zip(pairs.test, pairs.train, strict=True))
    return np.array([found.get(place, -np.inf) for place in places], dtype=float)


def run_detector(
    name: str, make: Callable[..., Detector], pairs: LabelledPairs, curve_from: float = CURVE_FROM
) -> Measured:
    """Make a detector with a threshold low enough for a curve, and return its scores beside its own threshold."""
    detector = make()
    threshold = detector.threshold
    lowest = min(curve_from, threshold)
    if "threshold" in inspect.signature(make).parameters and not isinstance(detector, PairScorer):
        detector = make(threshold=lowest)
    else:
        lowest = threshold
    return Measured(name, threshold, score_pairs(detector, pairs), lowest)


def run_detectors(
    makers: Mapping[str, Callable[..., Detector]],
    pairs: LabelledPairs,
    say: Callable[[str], None],
    curve_from: float = CURVE_FROM,
) -> tuple[list[Measured], dict[str, str]]:
    """Return the scores of each detector, and why some could not run: a package is not installed."""
    measured, absent = [], {}
    for name, make in makers.items():
        try:
            measured.append(run_detector(name, make, pairs, curve_from))
        except MissingPackageError as error:
            absent[name] = str(error)
            say(f"{name} is left out: {error}")
            last = error
    if not measured and absent:
        raise last
    return measured, absent


def given_scores(pairs: LabelledPairs, thresholds: Mapping[str, float]) -> list[Measured]:
    """Return the scores that came with the pairs, each with the threshold that it is used with."""
    return [Measured(name, thresholds[name], scores, -np.inf) for name, scores in pairs.columns.items()]


def evaluate(measured: Measured, pairs: LabelledPairs, settings: Settings) -> dict[str, Any]:
    """Return all that is to be known of one detector's scores, as it is written down."""
    scored = Scored(measured.scores, pairs.labels, pairs.groups)
    bootstrap = {"num_bootstrap": settings.num_bootstrap, "seed": settings.seed}
    curve = threshold_curve(scored, settings.clean_ratio)
    calibrated = calibrate(scored, pairs.halves(settings.seed), settings.clean_ratio, measured.curve_from, **bootstrap)
    return {
        "as_it_is": measure(scored, measured.threshold, settings.clean_ratio, **bootstrap),
        "calibrated": None if calibrated is None else calibrated._asdict(),
        "kinds": measure_kinds(scored, np.array(pairs.kinds), measured.threshold, settings.clean_ratio, **bootstrap),
        "curve": {name: values.tolist() for name, values in curve._asdict().items()},
        "curve_from": measured.curve_from if np.isfinite(measured.curve_from) else None,
    }


def score_rows(measured: Sequence[Measured], pairs: LabelledPairs) -> list[dict[str, Any]]:
    """Return each pair with its scores: null where one is unknown, none where it was not returned."""
    rows = []
    for number, pair_id in enumerate(pairs.ids):
        scores = {
            one.name: None if np.isnan(one.scores[number]) else float(one.scores[number])
            for one in measured
            if not np.isneginf(one.scores[number])
        }
        rows.append(
            {
                "pair_id": pair_id,
                "kind": pairs.kinds[number],
                "is_contaminated": bool(pairs.labels[number]),
                "scores": scores,
            }
        )
    return rows

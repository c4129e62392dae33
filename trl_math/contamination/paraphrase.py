"""Paraphrases without a language model: the embedder says what is near, evidence says which of these ask the same.

An embedder alone takes a problem for its neighbours that tell the same story with other numbers. So what it finds is
read: numbers, rare words and terms of formulas on both sides (`evidence`), and a logistic regression of six features
says how likely the training row is the test item in other words. Texts with formulas have one of their own: their
terms say more than their words. The weights lie beside this file with what they were fitted on (`paraphrase.json`);
`calibrate` makes new ones from labelled rows.

The score of a pair is a function of its two texts and nothing else: how rare a word is comes from a fixed table. A
problem with other numbers, which asks for another answer, is no paraphrase. Nor is a translation found, unless the
embedder knows both languages.
"""

import json
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from importlib.resources import files
from math import exp, log, log1p
from typing import Any, NamedTuple

from trl_math.contamination.embedding import Embedder, near_windows
from trl_math.contamination.evidence import (
    Overlap,
    Rarity,
    Reading,
    num_in_order,
    overlap,
    rarest,
    read,
    shared_weight,
)
from trl_math.contamination.matches import Match, in_order
from trl_math.contamination.number_words import Meanings


# The features of texts in words, and of texts with formulas.
PLAIN = ("closeness", "words", "numbers", "order", "conflict", "numberless")
FORMULA = ("closeness", "terms", "numbers", "order", "conflict", "numberless")
KINDS = {"plain": PLAIN, "formula": FORMULA}
# Little in common by chance where there is little: so much weight is added, half of it as shared.
PRIOR_WORDS = 3.0
PRIOR_NUMBERS = 2.0
MOST_CONFLICTS = 3
MOST_MENTIONS = 40
NUM_SHOWN = 8


class Regression(NamedTuple):
    """A fitted logistic regression of the features of one kind of pairs."""

    weights: tuple[float, ...]
    intercept: float


class Model(NamedTuple):
    """A regression for each kind of pairs, and where to ask them."""

    regressions: dict[str, Regression]  # one for each of KINDS
    threshold: float
    floor: float  # pairs with a smaller cosine are not read
    top_k: int  # of each training row, so many test items are read
    embedder: str
    fitted_on: dict[str, Any]

    def score(self, pair: "Pair") -> float:
        """Return how likely a pair is a paraphrase; 0.5 and more is one, as often as it was in the fit."""
        weights, intercept = self.regressions[pair.kind]
        return sigmoid(sum(w * x for w, x in zip(weights, pair.features, strict=True)) + intercept)


class Pair(NamedTuple):
    """The features of a pair, those of its kind, and what they were made of."""

    kind: str
    features: tuple[float, ...]
    numbers: Overlap
    words_in_common: float


def compare(test: Reading, train: Reading, cosine: float, rarity: Rarity) -> Pair:
    """Return the features of a test item and a training row.

    `conflict` counts the more, the more words are the same: the same words around another number are another problem,
    while other words may say a number in another way.
    """
    numbers = overlap(test, train)
    shared, only_test, only_train = (sum(map(rarity.of_number, side)) for side in numbers)
    in_common = shared_weight(test.words, train.words)
    words = sum((in_common + PRIOR_WORDS / 2) / (side.weight + PRIOR_WORDS) for side in (test, train)) / 2
    mentions = [side.numbers.mentions[:MOST_MENTIONS] for side in (test, train)]
    longest = max(map(len, mentions))
    has_formula = bool(test.terms or train.terms)
    features = (
        -log(1.05 - min(cosine, 1.0)),
        _agreement(test.terms, train.terms) if has_formula else words,
        (shared + PRIOR_NUMBERS / 2) / (shared + only_test + only_train + PRIOR_NUMBERS),
        num_in_order(*mentions) / max(longest, 1) * log1p(shared),
        min(len(numbers.only_first), len(numbers.only_second), MOST_CONFLICTS) * words,
        float(longest == 0),
    )
    return Pair("formula" if has_formula else "plain", features, numbers, words)


def _agreement(test: dict[str, float], train: dict[str, float]) -> float:
    shared = shared_weight(test, train)
    total = sum(test.values()) + sum(train.values()) - shared
    return (shared + PRIOR_WORDS / 2) / (total + PRIOR_WORDS)


def sigmoid(logit: float) -> float:
    return 1 / (1 + exp(-logit)) if logit >= 0 else exp(logit) / (1 + exp(logit))


class ParaphraseDetector:
    """Training rows that are test items in other words."""

    name = "paraphrase"

    def __init__(
        self,
        embedder: str | Embedder | None = None,
        threshold: float | None = None,
        model: Model | None = None,
    ):
        self.model = model or shipped_model()
        self.threshold = self.model.threshold if threshold is None else threshold
        self._embedder = embedder or self.model.embedder

    def find(self, test: Sequence[str], train: Sequence[str]) -> list[Match]:
        """Return pairs whose score is at least the threshold, among the nearest test items of each training row."""
        near = near_windows(self._embedder, test, train, top_k=self.model.top_k, floor=self.model.floor)
        rarity = shipped_rarity()
        tests = _Readings(near.test.texts)
        trains = _Readings(near.train.texts)
        best: dict[tuple[int, int], Match] = {}
        for test_window, train_window, cosine in near.pairs():
            here, there = tests[test_window], trains[train_window]
            pair = compare(here, there, cosine, rarity)
            score = self.model.score(pair)
            if score < self.threshold:
                continue
            evidence = describe(here, there, pair, cosine) | {"embedder": near.embedder}
            for item, row in near.texts_of(test_window, train_window):
                known = best.get((item, row))
                if known is None or score > known.score:
                    best[item, row] = Match(item, row, score, evidence)
        return in_order(best.values())


def describe(test: Reading, train: Reading, pair: Pair, cosine: float) -> dict[str, Any]:
    """Return what a reader needs to believe or to doubt a score."""
    return {
        "cosine": round(cosine, 4),
        "words_in_common": round(pair.words_in_common, 4),
        "rare_words": rarest(test.words, train.words, NUM_SHOWN),
        "terms": [term.removeprefix("$") for term in rarest(test.terms, train.terms, NUM_SHOWN)],
        "numbers_shared": written(pair.numbers.shared),
        "numbers_only_test": written(pair.numbers.only_first),
        "numbers_only_train": written(pair.numbers.only_second),
    }


def written(numbers: Sequence[Meanings]) -> list[str]:
    """Return numbers as a reader writes them; `50 or 1/2` where a text leaves it open."""
    return [" or ".join(sorted(number, key=Fraction, reverse=True)) for number in numbers]


class _Readings:
    """Texts, read when they are asked for."""

    def __init__(self, texts: Sequence[str]):
        self._texts = texts
        self._read: dict[int, Reading] = {}

    def __getitem__(self, number: int) -> Reading:
        if number not in self._read:
            self._read[number] = read(self._texts[number], shipped_rarity())
        return self._read[number]


@lru_cache(maxsize=1)
def shipped_model() -> Model:
    """Return the regression that is part of the package."""
    return model_of(json.loads(files("trl_math.contamination").joinpath("paraphrase.json").read_text()))


def model_of(known: dict[str, Any]) -> Model:
    """Return the model that `as_json` wrote."""
    fitted = {kind: known["regressions"][kind] for kind in KINDS}
    regressions = {
        kind: Regression(tuple(fitted[kind]["weights"][name] for name in names), fitted[kind]["intercept"])
        for kind, names in KINDS.items()
    }
    return Model(**(known | {"regressions": regressions}))


def as_json(model: Model) -> dict[str, Any]:
    """Return a model as it is kept in a file."""
    regressions = {
        kind: {
            "weights": {name: round(w, 4) for name, w in zip(KINDS[kind], fitted.weights, strict=True)},
            "intercept": round(fitted.intercept, 4),
        }
        for kind, fitted in model.regressions.items()
    }
    return model._asdict() | {"regressions": regressions}


@lru_cache(maxsize=1)
def shipped_rarity() -> Rarity:
    """Return how many of the training problems of GSM8K and MATH have a word or a number."""
    known = json.loads(files("trl_math.contamination").joinpath("rarity.json").read_text())
    return Rarity(known["words"], known["numbers"], known["num_texts"])

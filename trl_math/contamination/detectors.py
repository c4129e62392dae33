"""Every way to compare test items with training rows, by its name.

    exact, normalised                     the same text
    ngram_8, ngram_10, ngram_13           word n-grams, discounted; what is said must agree
    substring_50                          three runs of 50 characters, likewise
    minhash                               near copies
    embedding                             near in meaning, for an embedder
    paraphrase                            the same problem in other words: an embedder, and numbers and words
    ngram_8_plain, ..., substring_50_plain   as published, for comparison: they flag much that is no copy

A detector is made by calling its entry, with its settings as keywords. One whose packages are not installed says which
extra brings them when it is made; the others work.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from trl_math.contamination.exact import SameText, normal_forms, stripped
from trl_math.contamination.matches import Detector
from trl_math.contamination.minhash import MinHashDetector
from trl_math.contamination.ngrams import NgramDetector
from trl_math.contamination.substrings import SubstringDetector
from trl_math.errors import pick


if TYPE_CHECKING:
    from trl_math.contamination.embedding import Embedder


MINILM = "embedded:minilm"
DETECTORS: dict[str, Callable[..., Detector]] = {
    "exact": partial(SameText, "exact", stripped),
    "normalised": partial(SameText, "normalised", normal_forms),
    "ngram_8": partial(NgramDetector, 8),
    "ngram_10": partial(NgramDetector, 10),
    "ngram_13": partial(NgramDetector, 13),
    "substring_50": partial(SubstringDetector, 50),
    "minhash": MinHashDetector,
    "ngram_8_plain": partial(NgramDetector, 8, plain=True),
    "ngram_10_plain": partial(NgramDetector, 10, plain=True),
    "ngram_13_plain": partial(NgramDetector, 13, plain=True),
    "substring_50_plain": partial(SubstringDetector, 50, plain=True),
}
# Those that read texts as texts, without a model; and of them, those that are there to be compared with.
STRING_DETECTORS = tuple(DETECTORS)
PLAIN_DETECTORS = tuple(name for name in DETECTORS if name.endswith("_plain"))


def _embedding(embedder: "str | Embedder" = MINILM, threshold: float = 0.85, top_k: int = 20) -> Detector:
    from trl_math.contamination.embedding import EmbeddingDetector  # noqa: PLC0415 - torch

    return EmbeddingDetector(embedder, threshold, top_k)


def _paraphrase(embedder: "str | Embedder | None" = None, threshold: float | None = None) -> Detector:
    from trl_math.contamination.paraphrase import ParaphraseDetector  # noqa: PLC0415 - torch

    return ParaphraseDetector(embedder, threshold)


DETECTORS |= {"embedding": _embedding, "paraphrase": _paraphrase}


def make_detector(name: str, **settings: object) -> Detector:
    """Return the detector of that name."""
    return DETECTORS[pick("detector", name, DETECTORS)](**settings)

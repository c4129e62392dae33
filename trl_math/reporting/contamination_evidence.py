"""Why a detector takes a pair for a leak, in words: what stands in `matches.jsonl` as evidence, for people."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trl_math.reporting.page.markup import Child, tag
from trl_math.reporting.page.plot import share


LONGEST = 160  # characters of a common text
REASONS = {
    "orders_disagree": "yes in one order, no in the other",
    "other_answer": "answered something else",
    "refused": "refused to answer",
    "prompt_too_long": "too long to be asked",
    "not_answered": "not asked, or not answered",
}


def evidence_line(evidence: Mapping[str, Any]) -> Child:
    """Return evidence as one line."""
    parts: list[Child] = []
    for part in _parts(evidence):
        parts += [" · ", part] if parts else [part]
    return parts or "the same text"


def _parts(evidence: Mapping[str, Any]) -> Iterator[Child]:
    if "outcome" in evidence:
        yield from _verdict(evidence)
        return
    if "same" in evidence:
        yield "the same text"
    if "cosine" in evidence:
        yield f"cosine {evidence['cosine']:.2f}"
    for whole, what in (("num_ngrams", "grams"), ("num_runs", "grams of both"), ("num_substrings", "substrings")):
        if whole in evidence:
            unit = f"{evidence['n']}-{what}" if "n" in evidence else what
            yield f"{evidence['num_shared']:,} of {evidence[whole]:,} {unit}"
    if evidence.get("shared"):
        yield tag("q", _clipped(str(evidence["shared"])))
    yield from _lists(evidence)


def _lists(evidence: Mapping[str, Any]) -> Iterator[Child]:
    for name, words in (
        ("numbers_shared", "numbers in both"),
        ("rare_words", "rare words in both"),
        ("terms", "terms in both"),
        ("numbers_only_test", "numbers of the test item only"),
        ("numbers_only_train", "numbers of the training row only"),
        ("only_test", "words of the test item only"),
        ("only_train", "words of the training row only"),
    ):
        if evidence.get(name):
            yield f"{words}: {_list(evidence[name])}"


def _verdict(evidence: Mapping[str, Any]) -> Iterator[Child]:
    """Say what a judge answered, and who proposed the pair."""
    if evidence["outcome"] == "unknown":
        yield f"unknown: {REASONS.get(str(evidence.get('reason')), evidence.get('reason'))}"
    shares = ["no answer" if one is None else f"{share(one, 0)} %" for one in evidence.get("yes", ())]
    if shares:
        yield f"says yes with {' and '.join(shares)}"
    candidate = evidence.get("candidate")
    if candidate:
        yield f"proposed by {candidate['detector']} ({candidate['score']:.2f})"


def _list(values: Sequence[Any]) -> str:
    return _clipped(", ".join(map(str, values)))


def _clipped(words: str) -> str:
    return words if len(words) <= LONGEST else f"{words[:LONGEST]}…"

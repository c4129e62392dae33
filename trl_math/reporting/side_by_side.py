"""What two texts have in common, word by word, to be shown side by side.

A run of words that stands in both is *same*, and so is a longer word or a number of one that stands anywhere in the
other: what a paraphrase keeps. A number that the other does not have is *other*: what tells two problems of one
template apart.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple


SAME, OTHER = "same", "other"
WORD = re.compile(r"\d+(?:[.,/:]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)*")
LEAST_RUN = 3  # words
LEAST_LETTERS = 4  # of a word that says something by itself
MOST_ALIGNED = 2500  # words: of longer texts, words are looked up only
LONGEST = 1600  # characters that are shown
BEFORE = 300  # of them, in front of what is the same


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


CONNECTING = _words(
    "about after also each from have into many more much only other over some such than that their them then there "
    "these they this those what when where which while will with would your"
)


class Span(NamedTuple):
    """A part of a text. `kind`: same, other, or nothing."""

    text: str
    kind: str = ""


class Word(NamedTuple):
    form: str
    start: int
    end: int


def side_by_side(first: str, second: str) -> tuple[list[Span], list[Span]]:
    """Return two texts in parts; a long one as the part of it around what is the same."""
    words = [
        [Word(match[0].casefold(), match.start(), match.end()) for match in WORD.finditer(text)]
        for text in (first, second)
    ]
    runs = _runs(*words)
    spans = []
    for number, text in enumerate((first, second)):
        own, forms = words[number], {word.form for word in words[1 - number]}
        kinds = [_kind(word, forms) for word in own]
        for run in runs:
            kinds[run[number] : run[number] + run.size] = [SAME] * run.size
        start = own[max(runs, key=lambda run: run.size)[number]].start if runs else 0
        spans.append(_cut(list(_spans(text, own, kinds, runs, number)), start))
    return spans[0], spans[1]


def _runs(first: Sequence[Word], second: Sequence[Word]) -> list[difflib.Match]:
    if max(len(first), len(second)) > MOST_ALIGNED:
        first, second = first[:MOST_ALIGNED], second[:MOST_ALIGNED]
    matcher = difflib.SequenceMatcher(None, [w.form for w in first], [w.form for w in second], autojunk=False)
    return [run for run in matcher.get_matching_blocks() if run.size >= LEAST_RUN]


def _kind(word: Word, others: set[str]) -> str:
    is_number = word.form[0].isdigit()
    if word.form in others:
        return SAME if is_number or (len(word.form) >= LEAST_LETTERS and word.form not in CONNECTING) else ""
    return OTHER if is_number else ""


def _spans(
    text: str, words: Sequence[Word], kinds: Sequence[str], runs: Sequence[difflib.Match], number: int
) -> Iterator[Span]:
    """Yield the parts of a text in order; what stands between two words of a run belongs to it."""
    inside = {place for run in runs for place in range(run[number] + 1, run[number] + run.size)}
    at = 0
    for place, (word, kind) in enumerate(zip(words, kinds, strict=True)):
        if word.start > at:
            yield Span(text[at : word.start], SAME if place in inside else "")
        yield Span(text[word.start : word.end], kind)
        at = word.end
    yield Span(text[at:])


def _cut(spans: Sequence[Span], start: int) -> list[Span]:
    """Return spans of like kinds as one; of a long text those around a place."""
    total = sum(len(span.text) for span in spans)
    low = 0 if total <= LONGEST else max(0, min(start - BEFORE, total - LONGEST))
    high = min(total, low + LONGEST)
    cut: list[Span] = [Span("… ")] if low else []
    at = 0
    for span in spans:
        part = span.text[max(low - at, 0) : max(high - at, 0)]
        at += len(span.text)
        if part and cut and cut[-1].kind == span.kind:
            cut[-1] = Span(cut[-1].text + part, span.kind)
        elif part:
            cut.append(Span(part, span.kind))
    return [*cut, Span(" …")] if high < total else cut

"""Matches as rows of files: pairs with their evidence, what is known of each test item, and which rows go, and why."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from trl_math.contamination.leak_counts import CLEAN, LEAKED, UNKNOWN, States
from trl_math.contamination.leaks import Ran
from trl_math.contamination.matches import Match
from trl_math.contamination.outcomes import is_unknown
from trl_math.contamination.sources import Source


STATE_NAMES = {CLEAN: "clean", UNKNOWN: "unknown", LEAKED: "contaminated"}
LONGEST = 10_000  # characters of a text that stand beside a match
MARGIN = 500  # of them, in front of what is the same
WORD = re.compile(r"\w+")


class Side(NamedTuple):
    """All texts of a side, with where each is from."""

    sources: Sequence[Source]
    texts: list[str]
    places: list[tuple[int, int]]  # of each text: its source, and its number among the texts of that

    def source(self, number: int) -> Source:
        return self.sources[self.places[number][0]]

    def id(self, number: int) -> str:
        source, place = self.places[number]
        return self.sources[source].texts.ids[place]

    def row(self, number: int) -> int:
        """Return the number of the row in its source."""
        source, place = self.places[number]
        return self.sources[source].numbers[place]


def side_of(sources: Sequence[Source]) -> Side:
    """Return all texts of some sources as one side."""
    places = [(number, place) for number, source in enumerate(sources) for place in range(len(source.texts.ids))]
    return Side(sources, [text for source in sources for text in source.texts.texts], places)


def match_rows(ran: Sequence[Ran], tests: Side, trains: Side) -> Iterator[dict[str, Any]]:
    """Yield a row for each pair and detector, pair by pair."""
    pairs: dict[tuple[int, int], list[tuple[str, Match]]] = {}
    for one in ran:
        for match in one.matches:
            pairs.setdefault((match.test, match.train), []).append((one.name, match))
    for (test, train), found in sorted(pairs.items()):
        for name, match in found:
            yield {
                "benchmark": tests.source(test).name,
                "test_id": tests.id(test),
                "source": trains.source(train).name,
                "train_id": trains.id(train),
                "train_row": trains.row(train),
                "detector": name,
                "score": None if is_unknown(match) else match.score,
                "evidence": match.evidence,
                "test_text": clipped(tests.texts[test], trains.texts[train]),
                "train_text": clipped(trains.texts[train], tests.texts[test]),
            }


def item_rows(ran: Sequence[Ran], tests: Side, trains: Side, found: States) -> Iterator[dict[str, Any]]:
    """Yield a row for each test item, in order, the clean ones too."""
    named = _by_place(ran, "test")
    for number in range(len(tests.texts)):
        mine = named.get(number, {})
        rows = sorted({match.train for matches in mine.values() for match in matches})
        yield {
            "benchmark": tests.source(number).name,
            "test_id": tests.id(number),
            "state": STATE_NAMES[int(found[number])],
            **_who(mine),
            "train_ids": [trains.id(row) for row in rows],
            "train_sources": [trains.source(row).name for row in rows],
        }


def removed_rows(ran: Sequence[Ran], tests: Side, trains: Side) -> Iterator[dict[str, Any]]:
    """Yield a row for each training row that is not clean, with the test items that it may have."""
    for number, mine in sorted(_by_place(ran, "train").items()):
        items = sorted({match.test for matches in mine.values() for match in matches})
        why = [
            {
                "benchmark": tests.source(item).name,
                "test_id": tests.id(item),
                **_who({name: [one for one in matches if one.test == item] for name, matches in mine.items()}),
            }
            for item in items
        ]
        yield {
            "source": trains.source(number).name,
            "train_id": trains.id(number),
            "train_row": trains.row(number),
            "why": why,
        }


def _by_place(ran: Sequence[Ran], side: str) -> dict[int, dict[str, list[Match]]]:
    found: dict[int, dict[str, list[Match]]] = {}
    for one in ran:
        for match in one.matches:
            found.setdefault(getattr(match, side), {}).setdefault(one.name, []).append(match)
    return found


def _who(matches: Mapping[str, Sequence[Match]]) -> dict[str, Any]:
    """Return which detectors say so, with their highest scores, and which do not know."""
    known = {name: [one.score for one in some if not is_unknown(one)] for name, some in matches.items() if some}
    return {
        "detectors": {name: max(scores) for name, scores in known.items() if scores},
        "unknown": [name for name, scores in known.items() if not scores],
    }


def clipped(text: str, other: str) -> str:
    """Return a text; of a long one the part with the most runs of three words that the other has."""
    if len(text) <= LONGEST:
        return text
    start = _densest(text, other)
    before, after = start, len(text) - start - LONGEST
    parts = [f"[{before:,} characters before] "] if before else []
    parts.append(text[start : start + LONGEST])
    return "".join([*parts, f" [{after:,} more characters]"] if after > 0 else parts)


def _densest(text: str, other: str) -> int:
    """Return where so many characters begin that have the most in common with the other text."""
    wanted = set(_runs([word.casefold() for word in WORD.findall(other)]))
    words = list(WORD.finditer(text))
    forms = [word[0].casefold() for word in words]
    hits = [words[place].start() for place, run in enumerate(_runs(forms)) if run in wanted]
    best, most, last = 0, 0, 0
    for first, start in enumerate(hits):
        while last < len(hits) and hits[last] < start + LONGEST - MARGIN:
            last += 1
        if last - first > most:
            best, most = start, last - first
    return min(max(best - MARGIN, 0), max(len(text) - LONGEST, 0))


def _runs(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return zip(words, words[1:], words[2:], strict=False)

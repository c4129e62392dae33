"""The same text: as it is written, or in its normal form (`normalise`)."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from trl_math.contamination.matches import Match, in_order
from trl_math.contamination.normalise import BOUNDARY, normalised_words
from trl_math.contamination.reading import CHUNK, over_chunks


MAX_SHOWN = 300  # characters
Keys = Callable[[Sequence[str]], list[str]]


def stripped(texts: Sequence[str]) -> list[str]:
    """Return texts without the spaces around them."""
    return [text.strip() for text in texts]


def normal_forms(texts: Sequence[str]) -> list[str]:
    """Return the normal forms of texts."""
    return [form.strip() for form in " ".join(normalised_words(texts)).split(BOUNDARY)[:-1]]


class SameText:
    """Find rows that are a test item. A text of which nothing is left in its normal form is like no other."""

    threshold = 1.0

    def __init__(self, name: str, keys: Keys, *, processes: int = 1, chunk: int = CHUNK) -> None:
        self.name, self.keys, self.processes, self.chunk = name, keys, processes, chunk

    def find(self, test: Sequence[str], train: Sequence[str]) -> list[Match]:
        """Return every pair of the same text; see `Detector`."""
        items = defaultdict(list)
        for number, key in enumerate(self.keys(test)):
            if key:
                items[key].append(number)
        state = (self.keys, frozenset(items))
        return in_order(
            Match(item, start + row, 1.0, {"same": key[:MAX_SHOWN]})
            for start, found in over_chunks(rows_among, state, train, size=self.chunk, processes=self.processes)
            for row, key in found
            for item in items[key]
        )


def rows_among(state: tuple[Keys, frozenset[str]], texts: Sequence[str]) -> list[tuple[int, str]]:
    """Return which texts have one of the keys, with their key."""
    keys, wanted = state
    return [(row, key) for row, key in enumerate(keys(texts)) if key in wanted]

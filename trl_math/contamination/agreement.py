"""Whether the part of a row that is like a test item says the same, or asks for something else in the same words.

Problems made from one template share most of their n-grams and are no copies of each other:

    Find the integer n, -90 < n < 90, such that tan n° = tan 252°.     (with 312°: another problem)
    In right triangle ABC with angle A = 90°, AB = 6 and BC = 10, find cos A.     (find cos C: another problem)

So the words of both are compared without those that ask in general or only connect (`SAYS_NOTHING`):

1. Where the test item would stand in the row follows from the n-grams that they share: most of them lie at one
   distance. What the row has before and behind (a heading, choices, a solution) is not compared.
2. Numbers, also as words, single letters, operators and words for what is asked (`sum`, `area`, `least`, `cos`) must
   be the same, in the same order.
3. Of all other words at most one in twelve (`MAX_CHANGED`) may differ, be missing or be more.
"""

import difflib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple


MAX_CHANGED = 0.08
ANCHOR = 4  # words of the runs by which the part of the row is found
MIN_SLACK = 4  # words by which a run may be out of place
SLACK = 0.1  # the same, as a share of the test item
# From here on, a character that is a word is no letter of a formula.
FIRST_SPACELESS = "\u0e00"
# Longer texts are compared as bags of words where they are not equal.
MAX_ALIGNED = 4000


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SAYS_NOTHING = _words(
    "a an the of and to in is are be it its that this these those there here for with by on at from as has have which "
    "what how find compute determine evaluate calculate then if let suppose we us such can an your you answer express "
    "please given give following below shown value simplest"
)
NUMBER_WORDS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million first second "
    "third fourth fifth sixth seventh eighth ninth tenth half twice"
)
# What problems with one premise ask for.
ASKED_FOR = _words(
    "sum difference product quotient remainder ratio average mean median mode range domain number percent percentage "
    "fraction probability odds maximum minimum max min greatest least largest smallest greater less more fewer most "
    "longest shortest highest lowest first last even odd prime composite positive negative not no none neither never "
    "area perimeter volume surface circumference length width height depth side diagonal radius diameter slope "
    "intercept angle degree degrees triangle quadrilateral square rectangle circle cube sphere row rows column "
    "columns sin cos tan cot sec csc arcsin arccos arctan log ln real imaginary before after increase decrease left "
    "right up down distinguishable indistinguishable"
)


class Agreement(NamedTuple):
    """How a test item and its part of a row differ, in words that say something."""

    agrees: bool
    only_test: tuple[str, ...]
    only_train: tuple[str, ...]


def agreement(test: Sequence[str], train: Sequence[str], max_changed: float = MAX_CHANGED) -> Agreement:
    """Compare the words (in normal form) of a test item with the words of a row."""
    if test == train:
        return Agreement(True, (), ())
    told = [word for word in test if word not in SAYS_NOTHING]
    best: Agreement | None = None
    for part in _parts(test, train):
        found = _compare(told, [word for word in part if word not in SAYS_NOTHING], max_changed)
        if found.agrees:
            return found
        if best is None or len(found.only_test) + len(found.only_train) < len(best.only_test) + len(best.only_train):
            best = found
    return best or Agreement(False, tuple(told), ())


def must_agree(word: str) -> bool:
    """Whether a word is a number, a letter, an operator or what is asked, which tell problems of a template apart."""
    return is_formula(word) or word in NUMBER_WORDS or word in ASKED_FOR


def is_formula(word: str) -> bool:
    """Whether a word is a number, a letter or an operator."""
    if len(word) == 1:
        return not word.isalpha() or word < FIRST_SPACELESS
    return word[-1].isdigit()


def _compare(test: list[str], train: list[str], max_changed: float) -> Agreement:
    if test == train:
        return Agreement(True, (), ())
    more, less = Counter(test) - Counter(train), Counter(train) - Counter(test)
    only = tuple(more.elements()), tuple(less.elements())
    if [word for word in test if must_agree(word)] != [word for word in train if must_agree(word)]:
        return Agreement(False, *only)
    num_changed = max(len(only[0]), len(only[1]))
    if max(len(test), len(train)) <= MAX_ALIGNED and num_changed <= max_changed * len(test):
        blocks = difflib.SequenceMatcher(None, test, train, autojunk=False).get_opcodes()
        num_changed = sum(max(b - a, d - c) for kind, a, b, c, d in blocks if kind != "equal")
    return Agreement(num_changed <= max_changed * len(test), *only)


def _parts(test: Sequence[str], train: Sequence[str]) -> list[Sequence[str]]:
    """Return what of a row may be the test item: as long as it, and with the little that the row has around it."""
    if len(test) < ANCHOR or len(train) < ANCHOR:
        return [train]
    places: dict[tuple[str, ...], int] = {}
    for place in range(len(test) - ANCHOR, -1, -1):
        places[tuple(test[place : place + ANCHOR])] = place
    shared = [
        (place - places[run], place)
        for place, run in enumerate(zip(*(train[skip:] for skip in range(ANCHOR)), strict=False))
        if run in places
    ]
    if not shared:
        return [train]
    slack = max(MIN_SLACK, int(SLACK * len(test)))
    votes = Counter(distance for distance, _ in shared)
    distance = max(votes, key=lambda distance: (votes[distance], -abs(distance), -distance))
    near = [(own, place) for own, place in shared if abs(own - distance) <= slack]
    start, end = max(0, near[0][0]), min(len(train), near[-1][0] + len(test))
    starts = [start, 0] if 0 < start <= slack else [start]
    ends = [end, len(train)] if 0 < len(train) - end <= slack else [end]
    return [train[start:end] for start in starts for end in ends]

r"""What two texts have in common beside their meaning: numbers, rare words, formulas. Pure functions, no model.

    Tom has 48 apples and eats half of them.        Tom's 48 apples: 50 % of these are eaten.    all numbers shared
                                                    Tom has 36 apples and eats half of them.     48 against 36

An embedder takes a problem for its neighbours that tell the same story with other numbers; a paraphrase keeps its
numbers. What counts is a *conflict*: a number on each side that the other side lacks. A number on one side only may be
what the other says in another way (`a week`), so it counts for less.

Words count by how rare they are in the collection, with light stemming; names and objects are what a paraphrase keeps.
Formulas are cut into terms (`2x^2+mx-8` is `2x^2`, `+mx`, `-8`), which stand among the words, since rearranging keeps
terms, and a term is as rare as a name.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import log
from typing import NamedTuple

from trl_math.contamination.number_words import Meanings, Numbers, clean, numbers_of


# Words and numbers that fewer texts have are not in the table.
LEAST_COUNT = 8


class Reading(NamedTuple):
    """What is read from one text: its numbers, and the weights of its words and of the terms of its formulas."""

    numbers: Numbers
    named: tuple[Meanings, ...]
    words: dict[str, float]
    weight: float  # of all words and terms
    terms: dict[str, float]  # those of the words that are terms


class Overlap(NamedTuple):
    """Numbers of two texts: on both sides, on one side only."""

    shared: tuple[Meanings, ...]
    only_first: tuple[Meanings, ...]
    only_second: tuple[Meanings, ...]


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


_STOP = _listed(
    "a an the this that these those there here it its itself i you your we our us they them their theirs he him his"
    " she her hers who whom whose which what when where why how is are was were be been being am do does did done have"
    " has had having can could shall should will would may might must if then else so thus hence and or but nor yet"
    " for as at by from in into of off on onto out over to toward towards under up upon with within without about"
    " after before all any both each every either neither no not only just also still already again more most much"
    " many some such same than too very per one ones s t let find determine calculate compute evaluate express give"
    " given suppose assume"
)
_COMMAND = re.compile(
    r"\\(?:begin|end)\{[a-z*]+\}|\\(?:left|right|displaystyle|text[a-z]*|math[a-z]*|quad|qquad|mbox)\b|\\[^a-z]"
)
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_FORMULA = re.compile(r"\$\$?(.+?)\$\$?|\\\[(.+?)\\\]|\\\((.+?)\\\)", re.DOTALL)
_TERM = re.compile(r"[-+]?[^-+=<>,;:&()\[\]|{}\s\\]*(?:\^\{[^{}]*\})?[^-+=<>,;:&()\[\]|{}\s\\]*")


class Rarity:
    """How much a word or a number counts: the less, the more of a collection's texts have it."""

    def __init__(self, words: Mapping[str, int], numbers: Mapping[str, int], num_texts: int):
        self._words = words
        self._numbers = numbers
        self._num_texts = num_texts

    def of_word(self, word: str) -> float:
        return self._weight(self._words.get(word, 0))

    def of_number(self, number: Meanings) -> float:
        """Return the weight of a number; of one that a text leaves open, that of the commonest it may mean."""
        return self._weight(max(self._numbers.get(str(meaning), 0) for meaning in number))

    def _weight(self, num_texts: int) -> float:
        # What the table has not is taken for as rare as what it has least of.
        return log((self._num_texts + 1) / (max(num_texts, LEAST_COUNT) + 1)) + 0.1


def read(text: str, rarity: Rarity) -> Reading:
    """Return what the evidence is made of."""
    cleaned = clean(text)
    plain = _COMMAND.sub(" ", cleaned)
    words = {stem(word) for word in _WORD.findall(plain) if word not in _STOP and len(word) > 1}
    weights = {word: rarity.of_word(word) for word in sorted(words.union(_terms(cleaned)))}
    numbers = numbers_of(cleaned)
    terms = {word: weight for word, weight in weights.items() if word[0] == "$"}
    return Reading(numbers, numbers.named, weights, sum(weights.values()), terms)


def _terms(cleaned: str) -> Iterable[str]:
    """Yield the terms of formulas that hold a letter and something else: `2x^2`, `-x`, `f(x)` as `f` and `x`."""
    for groups in _FORMULA.findall(cleaned):
        inside = _COMMAND.sub(" ", "".join(groups))
        # `$20 for the first and $5` are two prices.
        if not _STOP.isdisjoint(word for word in _WORD.findall(inside) if len(word) > 1):
            continue
        formula = re.sub(r"\s+", "", inside)
        for term in _TERM.findall(formula.replace("{", "").replace("}", "")):
            if len(term) > 1 and not term.replace(".", "").lstrip("+-").isdigit():
                yield f"${term.removeprefix('+')}"


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """Return a word without its ending: `bakes`, `baked`, `baking` and `bake` are one."""
    word = word.removesuffix("'s").removesuffix("'")
    for ending, instead in (("ies", "y"), ("ied", "y"), ("ing", ""), ("ed", ""), ("ly", ""), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: -len(ending)] + instead
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word[-1] == "e" else word


def overlap(first: Reading, second: Reading) -> Overlap:
    """Return which numbers of two texts are shared; one that the other implies is neither shared nor missing."""
    shared, only_first = _sides(first, second)
    _, only_second = _sides(second, first)
    return Overlap(shared, only_first, only_second)


def _sides(first: Reading, second: Reading) -> tuple[tuple[Meanings, ...], tuple[Meanings, ...]]:
    meant = frozenset().union(*second.named)
    shared = tuple(number for number in first.named if not meant.isdisjoint(number))
    implied = second.numbers.implied
    missing = tuple(number for number in first.named if meant.isdisjoint(number) and implied.isdisjoint(number))
    return shared, missing


def num_in_order(first: Sequence[Meanings], second: Sequence[Meanings]) -> int:
    """Return how many mentions of numbers two texts have in common in the same order (longest common subsequence)."""
    row = [0] * (len(second) + 1)
    for mention in first:
        diagonal = 0
        for place, other in enumerate(second, start=1):
            above = row[place]
            row[place] = max(above, row[place - 1]) if mention.isdisjoint(other) else diagonal + 1
            diagonal = above
    return row[-1]


def shared_weight(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Return the weight of the words that two texts share."""
    if len(second) < len(first):
        first, second = second, first
    return sum(weight for word, weight in first.items() if word in second)


def rarest(first: Mapping[str, float], second: Mapping[str, float], num: int) -> list[str]:
    """Return the rarest of the words that two texts share."""
    return sorted(first.keys() & second.keys(), key=lambda word: (-first[word], word))[:num]

"""Which number of a calculation is which of the question; see `renumber` for how that is found out."""

import itertools
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from trl_math.contamination.calculation import REASONS as READING_REASONS
from trl_math.contamination.calculation import Calculation
from trl_math.contamination.question_numbers import CENTS, PERCENT, Mention
from trl_math.errors import DataError


REASONS = READING_REASONS | {
    "has_options": "the problem has options, which would need other numbers, too",
    "unexplained_number": "a number of the solution is neither in the question nor implied by it",
    "ambiguous": "it is open which number of the question a step uses",
    "no_number": "no number of the calculation is one of the question that could be another",
    "no_new_numbers": "no other numbers were found for which all results are as before in kind",
}
MAX_READINGS = 256
# Readings are compared on so many draws.
NUM_COMPARED = 5
# Of so many things one knows without being told that there are so many.
SMALL = 5
HUNDRED = Fraction(100)


class CannotRenumber(DataError):
    """A problem that has no new numbers by rule; `reason` is one of `REASONS`."""

    def __init__(self, reason: str, said: str = "") -> None:
        super().__init__(f"{REASONS[reason]}{f': {said}' if said else ''}.")
        self.reason = reason


# What a literal stands for: ("question", old value, form), ("step", number) or ("constant", value).
Source = tuple[Any, ...]
# Old values of the question that may change -> new ones. Equal numbers stay equal.
Key = tuple[str, Fraction]
Values = Mapping[Key, Fraction]


def write_value(value: Fraction) -> str:
    """Return a number as an answer: a whole number, a decimal, or a fraction where it has no end."""
    if value.denominator == 1:
        return str(value.numerator)
    places = num_places(value)
    return str(value) if places is None else f"{float(value):.{places}f}"


def key_of(mention: Mention) -> Key:
    return mention.kind, mention.value


def _forms(kind: str, value: Fraction) -> dict[str, Fraction]:
    """Return what someone may calculate with who reads a number: 30 % is 30, 0.3, 0.7 (what is left) and 1.3."""
    if kind == PERCENT:
        share = value / HUNDRED
        return {
            "itself": value,
            "share": share,
            "rest": 1 - share,
            "more": 1 + share,
            "rest_percent": HUNDRED - value,
            "more_percent": HUNDRED + value,
        }
    if kind == CENTS:
        return {"itself": value, "share": value / HUNDRED}
    return {"itself": value}


def _candidates(
    calculation: Calculation, number: int, keys: Sequence[Key], implied: frozenset[Fraction]
) -> list[Source]:
    """Return what a literal may stand for."""
    value = calculation.literals[number]
    if value in calculation.unannotated:
        raise CannotRenumber("ambiguous")
    found: list[Source] = [
        ("question", key, form) for key in keys for form, is_worth in _forms(*key).items() if is_worth == value
    ]
    # 30 % and what 70 % leave are the same where both are named; what 50 % and the rest of it are is open.
    named = {source[1] for source in found if source[2] in ("itself", "share")}
    found = [source for source in found if not (named - {source[1]} and source[2] in ("rest", "rest_percent"))]
    earlier = calculation.results[: calculation.step_of_literal[number]]
    found += [("step", step) for step, result in enumerate(earlier) if result == value]
    if value in implied:
        if any(source[0] == "question" for source in found):
            raise CannotRenumber("ambiguous")  # two farms, and twice as many
        found.append(("constant", value))
    return found


def read_sources(calculation: Calculation, mentions: Sequence[Mention], implied: frozenset[Fraction]) -> list[Source]:
    """Return what every literal stands for; raise if that is not known."""
    keys = list(dict.fromkeys(key_of(mention) for mention in mentions if not mention.is_fixed))
    choices = [_candidates(calculation, number, keys, implied) for number in range(len(calculation.literals))]
    for value, found in zip(calculation.literals, choices, strict=True):
        if not found:
            raise CannotRenumber("unexplained_number", write_value(value))
    num_readings = 1
    for found in choices:
        num_readings *= len(found)
        if num_readings > MAX_READINGS:
            raise CannotRenumber("ambiguous")
    readings = [list(reading) for reading in itertools.product(*choices)]
    uses = [_num_used(calculation, reading) for reading in readings]
    best = [reading for reading, used in zip(readings, uses, strict=True) if used == max(uses)]
    if not all(_agree(calculation, best[0], other, keys) for other in best[1:]):
        raise CannotRenumber("ambiguous")
    if not any(source[0] == "question" for source in best[0]):
        raise CannotRenumber("no_number")
    _check_counts(best[0], mentions)
    if any(_is_with_itself(step, best[0]) for step in calculation.steps):
        raise CannotRenumber("ambiguous")  # 3 dollars / 3 scoops: both are not one number
    return best[0]


def _is_with_itself(tree: tuple[Any, ...], reading: Sequence[Source]) -> bool:
    """Whether a step divides a number by itself, or subtracts it from itself."""
    if tree[0] in ("literal", "step"):
        return False
    if tree[0] in ("/", "-") and tree[1][0] == tree[2][0] == "literal":
        first, second = (reading[child[1]] for child in tree[1:])
        if first == second:
            return True
    return any(_is_with_itself(child, reading) for child in tree[1:])


def _check_counts(reading: Sequence[Source], mentions: Sequence[Mention]) -> None:
    """Raise if a small number is used more often than it is named: one of them may count something else.

    `A family of parents and a child ... a ticket is $12 ... they buy 2 popcorns for $3`: 12 * 2 + 2 * 3.
    """
    named = Counter(key_of(mention) for mention in mentions)
    used = Counter(source[1] for source in reading if source[0] == "question")
    if any(number > named[key] for key, number in used.items() if key[1] <= SMALL and key[1].denominator == 1):
        raise CannotRenumber("ambiguous")


def _num_used(calculation: Calculation, reading: Sequence[Source]) -> tuple[int, int]:
    """Return how many results are used by later steps, and how many numbers of the question."""
    named = {tree[1] for step in calculation.steps for tree in _leaves(step) if tree[0] == "step"}
    results = named | {source[1] for source in reading if source[0] == "step"}
    return len(results), len({source[1] for source in reading if source[0] == "question"})


def _leaves(tree: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    if tree[0] in ("literal", "step"):
        return [tree]
    return [leaf for child in tree[1:] for leaf in _leaves(child)]


def _agree(calculation: Calculation, first: list[Source], second: list[Source], keys: Sequence[Key]) -> bool:
    """Whether two readings come to the same answer, whatever the numbers are."""
    draws = random.Random(0)
    for _ in range(NUM_COMPARED):
        values = {key: Fraction(draws.randrange(2, 10_000), 7) for key in keys}
        answers = []
        for reading in (first, second):
            try:
                answers.append(compute(calculation, reading, values)[calculation.answer])
            except (ZeroDivisionError, OverflowError):
                return False
        if answers[0] != answers[1]:
            return False
    return True


def compute(calculation: Calculation, reading: Sequence[Source], values: Values) -> list[Fraction]:
    """Return the results of all steps."""
    literals: list[Fraction] = [Fraction(0)] * len(calculation.literals)
    results: list[Fraction] = []
    number = 0
    for step in range(len(calculation.steps)):
        while number < len(reading) and calculation.step_of_literal[number] == step:
            source = reading[number]
            if source[0] == "question":
                literals[number] = _forms(source[1][0], values[source[1]])[source[2]]
            else:
                literals[number] = results[source[1]] if source[0] == "step" else source[1]
            number += 1
        results.append(calculation.value(step, literals, results))
    return results


def num_places(value: Fraction) -> int | None:
    """Return how many decimals a number has; None if they do not end."""
    below, places = value.denominator, 0
    while below % 10 == 0:
        below, places = below // 10, places + 1
    twos = fives = 0
    while below % 2 == 0:
        below, twos = below // 2, twos + 1
    while below % 5 == 0:
        below, fives = below // 5, fives + 1
    return places + max(twos, fives) if below == 1 else None

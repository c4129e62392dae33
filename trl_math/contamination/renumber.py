"""A problem with other numbers and the answer that these give: by code, without a model.

    Janet's ducks lay 16 eggs per day. She eats three ...   <<16-3-4=9>> <<9*2=18>>      18
    Janet's ducks lay 21 eggs per day. She eats five ...     21 - 5 - 6 = 10, 10 * 3       30

Every number of the calculation must be a number of the question, a result of an earlier step, or one that words of the
question imply (`calculation`, `question_numbers`). Where it could be a result or a number of the question, readings
are compared: one that uses more results and more numbers of the question is the right one, and two that are as good
must always agree. Otherwise the problem is refused by name, since the answer would be a guess.

New numbers are of the same kind and size: from half to twice the old one, as round, with as many decimals, in words
where it was in words, in the same order (who was older stays older), a sum or product of others if the old one was.
New results are as the old ones: positive, whole, above one, with as many decimals, in the same order.
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from trl_math.contamination.calculation import Calculation, CannotRead, read_calculation
from trl_math.contamination.question_numbers import (
    PERCENT,
    Mention,
    find_mentions,
    implied_numbers,
    replace_mentions,
    write_number,
)
from trl_math.contamination.renumber_sources import (
    HUNDRED,
    CannotRenumber,
    Key,
    Source,
    compute,
    key_of,
    num_places,
    read_sources,
    write_value,
)
from trl_math.contamination.renumber_sources import REASONS as REASONS


MAX_DRAWS = 3000
# From so many draws on, some numbers may stay as they are.
PATIENCE = 1500


class Renumbered(NamedTuple):
    """A problem with new numbers."""

    problem: str
    answer: str
    changed: list[tuple[str, str]]  # old and new, as they are written
    results: list[str]  # of the steps


def renumber(row: Mapping[str, Any], seed: int | str = 0) -> Renumbered:
    """Return a problem with other numbers, or raise `CannotRenumber`. `row`: problem, answer, and how it is found."""
    question = str(row["problem"])
    if row.get("choices"):
        raise CannotRenumber("has_options")
    try:
        calculation = read_calculation(row)
    except CannotRead as error:
        raise CannotRenumber(error.reason) from error
    mentions = find_mentions(question)
    reading = read_sources(calculation, mentions, implied_numbers(question, mentions))
    draws = random.Random(f"{seed}\n{question}")
    values, results = _draw(calculation, reading, mentions, draws)
    written = {
        mention.start: write_number(values[key_of(mention)], mention)
        for mention in mentions
        if not mention.is_fixed and values[key_of(mention)] != mention.value
    }
    return Renumbered(
        replace_mentions(question, written),
        write_value(results[calculation.answer]),
        [(mention.text, written[mention.start]) for mention in mentions if mention.start in written],
        [write_value(result) for result in results],
    )


# ---- new numbers ----


def _draw(
    calculation: Calculation, reading: list[Source], mentions: Sequence[Mention], draws: random.Random
) -> tuple[dict[Key, Fraction], list[Fraction]]:
    """Return new values of the question's numbers, and what the steps come to with them."""
    changeable = {key_of(mention): mention for mention in mentions if not mention.is_fixed}
    used = [key for key in changeable if any(source[0] == "question" and source[1] == key for source in reading)]
    relations, frozen = _relations(list(changeable), used)
    used = [key for key in used if key not in frozen]
    if not used:
        raise CannotRenumber("no_number")
    most = {
        key: min((one.most for one in mentions if key_of(one) == key and one.most is not None), default=None)
        for key in used
    }
    for number in range(MAX_DRAWS):
        values = {key: key[1] for key in changeable}
        stays = draws.choice(used) if number >= PATIENCE and len(used) > 1 else None
        for key in used:
            if key != stays:
                values[key] = _other(changeable[key], most[key], draws)
        _keep_relations(values, relations)
        if not _is_alike(values, used, stays, most, mentions):
            continue
        try:
            results = compute(calculation, reading, values)
        except (ZeroDivisionError, OverflowError):
            continue
        old = calculation.results
        is_like = all(map(_same_kind, old, results)) and _in_order(old, results)
        if is_like and results[calculation.answer] != old[calculation.answer]:
            return values, results
    raise CannotRenumber("no_new_numbers")


def _other(mention: Mention, most: int | None, draws: random.Random) -> Fraction:
    """Return a number of the same kind and size."""
    places = len(mention.text.partition(".")[2]) if mention.value.denominator > 1 else 0
    scale = 10**places
    scaled = int(mention.value * scale)
    grain = _grain(scaled)
    low, high = -(-scaled // (2 * grain)), max(2 * scaled // grain, 5 if scaled < 5 else 0)
    if mention.kind == PERCENT and mention.value < HUNDRED:
        high = min(high, 99 * scale // grain)
    if most is not None:
        high = min(high, most * scale // grain)
    low = max(low, 2 if grain == 1 and places == 0 else 1)
    new = draws.randint(low, max(low, high)) * grain
    if places and new % 10 == 0 and scaled % 10:
        new += 5 if grain == 5 else 1  # 1.5 becomes 2.6 and not 2.0
    return Fraction(new, scale)


def _grain(number: int) -> int:
    """Return how round a number is: what it and its like are multiples of."""
    if number < 15:
        return 1
    grain = 1
    while number % (10 * grain) == 0:
        grain *= 10
    if grain == 1:
        return 5 if number % 5 == 0 else 1
    return grain // 2


def _relations(keys: Sequence[Key], used: Sequence[Key]) -> tuple[list[tuple[str, list[Key]]], set[Key]]:
    """Return which numbers are sums or products of two others, or come to 100 % together: they stay so.

    And which numbers stay as they are, since they are near to one that the calculation does not use, or make it up:
    `3 groups such that 2 of them are equal`, `four pizzas ... two of the pizzas ... the other two`.
    """
    found: list[tuple[str, list[Key]]] = []
    for total in keys:
        others = [key for key in keys if key[0] == total[0] and key[1] < total[1]]
        for some in itertools.combinations(others, 3):
            if sum(key[1] for key in some) == total[1]:
                found.append(("sum", [total, *some]))
        for first, second in itertools.combinations_with_replacement(others, 2):
            if first[1] + second[1] == total[1]:
                found.append(("sum", [total, first, second]))
            elif first[1] * second[1] == total[1] and first != second:
                found.append(("product", [total, first, second]))
    percents = [key for key in keys if key[0] == PERCENT]
    for size in (2, 3):
        for parts in itertools.combinations(percents, size):
            if sum(key[1] for key in parts) == HUNDRED:
                found.append(("hundred", list(parts)))
    unused = [key for key in keys if key not in used]
    frozen = {key for _, some in found if any(key in unused for key in some) for key in some}
    frozen |= {key for key in used for other in unused if abs(key[1] - other[1]) == 1}
    return [(name, some) for name, some in found if not frozen & {*some}], frozen


def _keep_relations(values: dict[Key, Fraction], relations: Sequence[tuple[str, list[Key]]]) -> None:
    """Make sums, products and rests of the new numbers what they were of the old."""
    for name, (first, *others) in relations:
        if name == "hundred":
            values[first] = HUNDRED - sum(values[key] for key in others)
        elif name == "sum":
            values[first] = sum((values[key] for key in others), Fraction(0))
        else:
            values[first] = values[others[0]] * values[others[1]]


def _is_alike(
    values: Mapping[Key, Fraction],
    used: Sequence[Key],
    stays: Key | None,
    most: Mapping[Key, int | None],
    mentions: Sequence[Mention],
) -> bool:
    """Whether new numbers are new, within their bounds and in the order of the old ones."""
    for key in used:
        value, limit = values[key], most[key]
        if (value == key[1] and key != stays) or value <= 1 < key[1] or (limit is not None and value > limit):
            return False
        if not key[1] / 4 <= value <= 4 * key[1] or (key[0] == PERCENT and key[1] < HUNDRED <= value):
            return False
    ordered = sorted({(one.kind == PERCENT, one.value, values.get(key_of(one), one.value)) for one in mentions})
    return all(
        first[2] < second[2]
        for first, second in itertools.pairwise(ordered)
        if first[0] == second[0] and first[1] < second[1]
    )


def _same_kind(old: Fraction, new: Fraction) -> bool:
    """Whether a result is as the old one: of its sign, whole, above one, with as many decimals."""
    if (old > 0, old < 0, old > 1, old == 1) != (new > 0, new < 0, new > 1, new == 1):
        return False
    before, after = num_places(old), num_places(new)
    return before is None or (after is not None and after <= before)


def _in_order(old: Sequence[Fraction], new: Sequence[Fraction]) -> bool:
    """Whether what was more is more: someone may have chosen the better of two."""
    pairs = itertools.combinations(zip(old, new, strict=True), 2)
    return all(
        (first[1] < second[1]) if first[0] < second[0] else first[0] == second[0] or first[1] > second[1]
        for first, second in pairs
    )

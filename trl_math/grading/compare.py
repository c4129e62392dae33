r"""Whether two answers are the same, part by part: the whole answer must match, not a piece of it.

The gold answer comes first. What one side leaves open (the unit, the name before `=`) the other may add, but what both
say must agree. Verdicts are True, False, or None where an expression is left that only a slower judge can decide; then
the parts that were decided have not settled the whole.
"""

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import Protocol

from trl_math.grading.arithmetic import exact
from trl_math.grading.expression import TooComplex, parse
from trl_math.grading.read import around, is_name
from trl_math.grading.typed import Answer, Clock, Group, Matrix, Relation, Scalar, Words
from trl_math.grading.units import unit


Verdict = bool | None


class Judge(Protocol):
    """Decides what is no matter of form."""

    def same_value(self, gold: str, answer: str) -> Verdict:
        """Whether two expressions are equal."""

    def same_equation(self, gold: tuple[str, str], answer: tuple[str, str]) -> Verdict:
        """Whether two equations, given by their sides, have the same solutions."""


_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!=", "equiv": "equiv"}
_MOST_PAIRS = 10_000  # of items of two lists


def same(gold: Answer, answer: Answer, judge: Judge) -> Verdict:
    """Whether `answer` says what `gold` says."""
    if gold == answer:
        # Reading is a function of the text, and an answer is what it is.
        return True
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        return _same_relation(gold, answer, judge)
    if isinstance(gold, Scalar) and isinstance(answer, Scalar):
        return _same_scalar(gold, answer, judge)
    if isinstance(gold, Matrix) or isinstance(answer, Matrix):
        return _same_matrix(gold, answer, judge)
    if isinstance(gold, Clock) or isinstance(answer, Clock):
        return _same_clock(gold, answer, judge)
    if isinstance(gold, Group) or isinstance(answer, Group):
        return _same_group(gold, answer, judge)
    return _same_words(gold, answer)


# ---- Verdicts of several parts ----


def every(verdicts: Iterable[Verdict]) -> Verdict:
    """Return False if one is False, else None if one is open."""
    is_open = False
    for verdict in verdicts:
        if verdict is False:
            return False
        is_open |= verdict is None
    return None if is_open else True


def some(verdicts: Iterable[Verdict]) -> Verdict:
    """Return True if one is True, else None if one is open."""
    is_open = False
    for verdict in verdicts:
        if verdict:
            return True
        is_open |= verdict is None
    return None if is_open else False


# ---- Scalars ----


def _same_scalar(gold: Scalar, answer: Scalar, judge: Judge) -> Verdict:
    if gold.base or answer.base:
        return (not gold.base or not answer.base or gold.base == answer.base) and _digits(gold) == _digits(answer)
    gold_unit, answer_unit = unit(gold.unit), unit(answer.unit)
    if gold_unit and answer_unit and gold_unit != answer_unit:
        if gold_unit[:2] != answer_unit[:2]:
            return False
        factor = answer_unit.factor / gold_unit.factor
        return judge.same_value(gold.text, scaled(answer.text, factor))
    if (found := gold_unit or answer_unit) and not (gold_unit and answer_unit) and found.quantity == "count":
        # `1.5 million`, where one and a half or all of it may have been asked for.
        golds, answers = [gold.text], [answer.text]
        side = golds if gold_unit else answers
        side.append(scaled(side[0], found.factor))
        return some(judge.same_value(g, a) for g in golds for a in answers)
    if gold.is_percent == answer.is_percent:
        verdict = judge.same_value(gold.text, answer.text)
        if verdict is False and 1 <= len(gold.unit + answer.unit) <= 2:
            # `5\text{ m}` is also 5m, and `5\text{th}` 5th.
            return judge.same_value(gold.text + gold.unit, answer.text + answer.unit)
        return verdict
    if gold.is_percent:
        return some((judge.same_value(gold.text, answer.text), judge.same_value(_hundredth(gold), answer.text)))
    # `50%` for 50, if that is what was asked for, but not `0.5%` for 0.5.
    amount = _amount(gold.text)
    is_small = amount is not None and abs(amount) < 1
    verdicts = [judge.same_value(gold.text, _hundredth(answer))]
    return some(verdicts if is_small else [judge.same_value(gold.text, answer.text), *verdicts])


def _digits(number: Scalar) -> str:
    return re.sub(r"^(-?)0+(?=[0-9A-Z])", r"\1", number.text.upper().replace("\\text{", "").replace("}", ""))


def _hundredth(number: Scalar) -> str:
    return scaled(number.text, Fraction(1, 100))


def scaled(text: str, factor: Fraction) -> str:
    """Return an expression times a factor."""
    return f"\\frac{{{factor.numerator}}}{{{factor.denominator}}}\\cdot({text})"


def _amount(text: str) -> Fraction | None:
    node = parse(text)
    return None if node is None else exact(node)


# ---- Words and times ----


def _same_words(gold: Answer, answer: Answer) -> bool:
    """Compare words with words, or with a product of variables that spells them."""
    return _spelling(gold) == _spelling(answer) != ""


def _spelling(answer: Answer) -> str:
    if isinstance(answer, Words):
        return answer.text.replace(" ", "")
    if isinstance(answer, Scalar) and not answer.unit:
        return answer.text.replace(" ", "").lower()
    return ""


def _same_clock(gold: Answer, answer: Answer, judge: Judge) -> Verdict:
    if isinstance(gold, Clock) and isinstance(answer, Clock):
        parts = zip((*gold.parts, 0), (*answer.parts, 0), strict=False)
        halves = not gold.half or not answer.half or gold.half == answer.half
        return halves and all(mine == theirs for mine, theirs in parts)
    clock, other = (gold, answer) if isinstance(gold, Clock) else (answer, gold)
    assert isinstance(clock, Clock)
    if isinstance(other, Scalar) and unit(other.unit) and clock.half and clock.parts[1:] in ((0,), (0, 0)):
        # `9 a.m.` is 9:00 a.m.
        quantity = "morning" if clock.half == "a" else "afternoon"
        return unit(other.unit)[0] == quantity and _amount(other.text) == clock.parts[0]  # type: ignore[index]
    if clock.half:
        return False
    ratio = Group("ratio", tuple(Scalar(str(part)) for part in clock.parts))
    return same(ratio, answer, judge) if clock is gold else same(gold, ratio, judge)


# ---- Groups ----


def _same_group(gold: Answer, answer: Answer, judge: Judge) -> Verdict:
    kinds = (_kind(gold), _kind(answer))
    if kinds == ("ratio", "ratio"):
        return _same_ratio(gold.items, answer.items, judge)  # type: ignore[union-attr]
    if "ratio" in kinds:
        # 2:3 is two thirds.
        return some(same(g, a, judge) for g in _quotients(gold) for a in _quotients(answer))
    if "union" in kinds:
        return _same_union(gold, answer, judge)
    if "tuple" in kinds or "sequence" in kinds:
        return _same_tuple(gold, answer, judge)
    # Lists and sets, and scalars as lists of one: each finds its like, so that what is said twice counts once.
    golds, answers = dict.fromkeys(_members(gold)), dict.fromkeys(_members(answer))
    if not golds or not answers:
        return not golds and not answers
    if len(golds) * len(answers) > _MOST_PAIRS:
        raise TooComplex
    return every(
        (
            every(some(same(g, a, judge) for a in answers) for g in golds),
            every(some(same(g, a, judge) for g in golds) for a in answers),
        )
    )


def _kind(answer: Answer) -> str:
    return answer.kind if isinstance(answer, Group) else ""


def _members(answer: Answer) -> tuple[Answer, ...]:
    return answer.items if isinstance(answer, Group) else (answer,)


def _quotients(answer: Answer) -> list[Answer]:
    if isinstance(answer, Group) and answer.kind == "ratio":
        texts = [item.text for item in answer.items if isinstance(item, Scalar)]
        return [Scalar(f"\\frac{{{texts[0]}}}{{{texts[1]}}}")] if len(texts) == len(answer.items) == 2 else []
    return [answer]


def _same_ratio(golds: tuple[Answer, ...], answers: tuple[Answer, ...], judge: Judge) -> Verdict:
    if len(golds) != len(answers):
        return False
    if not all(isinstance(item, Scalar) for item in (*golds, *answers)):
        return every(same(g, a, judge) for g, a in zip(golds, answers, strict=True))
    first_gold, first = golds[0].text, answers[0].text  # type: ignore[union-attr]
    return every(
        judge.same_value(f"({first})\\cdot({g.text})", f"({first_gold})\\cdot({a.text})")  # type: ignore[union-attr]
        for g, a in zip(golds[1:], answers[1:], strict=True)
    )


def _same_tuple(gold: Answer, answer: Answer, judge: Judge) -> Verdict:
    """Compare where at least one side is ordered."""
    golds, answers = _members(gold), _members(answer)
    kinds = {_kind(gold), _kind(answer)}
    if "set" in kinds or len(golds) != len(answers):
        return False
    if kinds == {"list", "tuple"}:
        brackets = _brackets(gold) + _brackets(answer)
        if brackets not in ("()", "[]"):
            return False
        if _kind(gold) == "list":
            return _same_group(gold, Group("list", answers), judge)
    elif kinds == {"tuple"} and len(golds) == 2 and _brackets(gold) != _brackets(answer):
        return False
    return every(same(g, a, judge) for g, a in zip(golds, answers, strict=True))


def _brackets(answer: Answer) -> str:
    return answer.brackets if isinstance(answer, Group) else ""


def _same_union(gold: Answer, answer: Answer, judge: Judge) -> Verdict:
    """Compare sets of real numbers by their pieces."""
    return _same_group(Group("list", _pieces(gold)), Group("list", _pieces(answer)), judge)


def _pieces(answer: Answer) -> tuple[Answer, ...]:
    if isinstance(answer, Group) and answer.kind in ("union", "list"):
        return tuple(piece for item in answer.items for piece in _pieces(item))
    if isinstance(answer, Relation) and (region := region_of(answer)):
        return _pieces(region) if region.kind == "union" else (region,)
    return (answer,)


# ---- Matrices ----


def _same_matrix(gold: Answer, answer: Answer, judge: Judge) -> Verdict:
    gold_rows, answer_rows = _rows(gold), _rows(answer)
    if gold_rows is None or answer_rows is None or len(gold_rows) != len(answer_rows):
        return False
    if isinstance(gold, Matrix) and isinstance(answer, Matrix) and gold.is_determinant != answer.is_determinant:
        return False
    if len(gold_rows[0]) != len(answer_rows[0]):
        return False
    return every(
        same(g, a, judge)
        for gold_row, answer_row in zip(gold_rows, answer_rows, strict=True)
        for g, a in zip(gold_row, answer_row, strict=True)
    )


def _rows(answer: Answer) -> tuple[tuple[Answer, ...], ...] | None:
    """Return the rows of a matrix; a tuple is a column."""
    if isinstance(answer, Matrix):
        return answer.rows
    if isinstance(answer, Group) and answer.kind == "tuple" and answer.brackets in ("()", "[]"):
        return tuple((item,) for item in answer.items)
    return None


# ---- Relations ----


def _same_relation(gold: Answer, answer: Answer, judge: Judge) -> Verdict:
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        if gold.operators == answer.operators == ("=",):
            return _same_equation(gold, answer, judge)
        return _same_chain(gold, answer, judge)
    relation, other = (gold, answer) if isinstance(gold, Relation) else (answer, gold)
    assert isinstance(relation, Relation)
    if set(relation.operators) == {"="}:
        value = assigned(relation)
        if value is None and _is_sum_of_names(relation.texts[0]):
            value = relation.sides[-1]  # `m + n = 7`, where that sum is sought
        if value is None:
            # An equation is no number, but `0.56 = 56\%` is.
            values = [side for side in relation.sides if _is_number(side)]
            if len(values) != len(relation.sides):
                return False
            value = values[-1]
        return same(value, other, judge) if relation is gold else same(other, value, judge)
    region = region_of(relation)
    if region is None or not isinstance(other, Group) or other.kind not in ("tuple", "union", "list"):
        return False
    return _same_union(region, other, judge) if relation is gold else _same_union(other, region, judge)


def assigned(relation: Relation) -> Answer | None:
    """Return 5 of `x = 5`, and of `x = 2 + 3 = 5`; None if there is no name on the left."""
    if set(relation.operators) == {"="} and is_name(relation.texts[0]):
        return relation.sides[-1]
    # `5 = x`
    if relation.operators == ("=",) and is_name(relation.texts[1]) and _is_number(relation.sides[0]):
        return relation.sides[0]
    return None


def _is_sum_of_names(text: str) -> bool:
    return all(is_name(term) for term in re.split(r"[-+]", text))


def _is_number(answer: Answer) -> bool:
    return isinstance(answer, Scalar) and _amount(answer.text) is not None


def _same_equation(gold: Relation, answer: Relation, judge: Judge) -> Verdict:
    names = gold.texts[0], answer.texts[0]
    if is_name(names[0]) and is_name(names[1]):
        if names[0] == names[1]:
            verdict = same(gold.sides[1], answer.sides[1], judge)
            if verdict is not False or not all(isinstance(side, Scalar) for side in (gold.sides[1], answer.sides[1])):
                return verdict
            # With the name on both sides, different right sides may still say the same.
            if not any(
                re.search(rf"(?<![A-Za-z\\]){re.escape(names[0])}", side) for side in (gold.texts[1], answer.texts[1])
            ):
                return False
        elif _is_number(gold.sides[1]) and _is_number(answer.sides[1]):
            return False
    if not all(isinstance(side, Scalar) for side in (*gold.sides, *answer.sides)):
        return every(same(g, a, judge) for g, a in zip(gold.sides, answer.sides, strict=True))
    return judge.same_equation((gold.texts[0], gold.texts[1]), (answer.texts[0], answer.texts[1]))


def _same_chain(gold: Relation, answer: Relation, judge: Judge) -> Verdict:
    """Compare inequalities, and chains of relations, as they stand, turned round, and as sets."""
    if set(gold.operators) == set(answer.operators) == {"="}:
        ends = (gold.sides[-1], answer.sides[-1])
        return every((gold.texts[0] == answer.texts[0], same(*ends, judge)))
    turned = Relation(
        tuple(_FLIPPED[operator] for operator in reversed(answer.operators)), answer.sides[::-1], answer.texts[::-1]
    )
    verdict = some(_same_sides(gold, other, judge) for other in (answer, turned))
    regions = region_of(gold), region_of(answer)
    if verdict or regions[0] is None or regions[1] is None or subject(gold) != subject(answer):
        return verdict
    return _same_union(regions[0], regions[1], judge)


def _same_sides(gold: Relation, answer: Relation, judge: Judge) -> Verdict:
    if gold.operators != answer.operators:
        return False
    return every(same(g, a, judge) for g, a in zip(gold.sides, answer.sides, strict=True))


def subject(relation: Relation) -> str:
    """Return the name that an inequality bounds, or "" if it bounds no single name."""
    found = [text for text in relation.texts if is_name(text)]
    return found[0] if len(found) == 1 else ""


def region_of(relation: Relation) -> Group | None:
    r"""Return the interval that an inequality in one name stands for; `x \ne 3` is a union of two."""
    place = [index for index, text in enumerate(relation.texts) if is_name(text)]
    if len(place) != 1:
        return None
    sides, operators = relation.sides, relation.operators
    if len(sides) == 2:
        other = sides[1 - place[0]]
        operator = operators[0] if place[0] == 0 else _FLIPPED[operators[0]]
        if operator == "!=":
            return around(other)
        low, high = Scalar("-\\infty"), Scalar("\\infty")
        if operator in (">", ">="):
            return Group("tuple", (other, high), "[)" if operator == ">=" else "()")
        return Group("tuple", (low, other), "(]" if operator == "<=" else "()") if operator[0] == "<" else None
    if len(sides) != 3 or place != [1]:
        return None
    if {operator[0] for operator in operators} == {">"}:
        sides, operators = sides[::-1], tuple(_FLIPPED[operator] for operator in operators[::-1])
    if {operator[0] for operator in operators} != {"<"}:
        return None
    brackets = ("[" if operators[0] == "<=" else "(") + ("]" if operators[1] == "<=" else ")")
    return Group("tuple", (sides[0], sides[2]), brackets)

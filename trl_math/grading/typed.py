"""What an answer can be: a number or expression, words, a time of day, a group of answers, a matrix, a relation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scalar:
    """A number or an expression, as normalised LaTeX, with what is written around it."""

    text: str
    unit: str = ""
    is_percent: bool = False
    base: str = ""  # of the digits, where it is given: 101_2


@dataclass(frozen=True)
class Words:
    """A word or a few, in lower case without punctuation."""

    text: str


@dataclass(frozen=True)
class Clock:
    """A time of day. Without "a.m." or "p.m." it may also be a ratio."""

    parts: tuple[int, ...]
    half: str = ""


@dataclass(frozen=True)
class Group:
    r"""Several answers.

    `list`: side by side, in any order (`1, 2`, `1 \pm \sqrt2`). `set`: the same in braces. `tuple`: in brackets,
    ordered; with two items also an interval, where it matters which brackets. `sequence`: numbers with spaces between.
    `union`: of sets. `ratio`: `2:3`.
    """

    kind: str
    items: tuple["Answer", ...]
    brackets: str = ""  # of a tuple


@dataclass(frozen=True)
class Matrix:
    rows: tuple[tuple["Answer", ...], ...]
    is_determinant: bool = False


@dataclass(frozen=True)
class Relation:
    """`x = 5`, `0 < x \\le 3`: one operator fewer than sides."""

    operators: tuple[str, ...]
    sides: tuple["Answer", ...]
    texts: tuple[str, ...]  # of the sides, as they were written


Answer = Scalar | Words | Clock | Group | Matrix | Relation

"""How an answer is computed: arithmetic steps that can be done again with other numbers.

    She makes 9 * 2 = $<<9*2=18>>18 every day.      a solution of GSM8K: every step stands between << and >>
    ( 8.0 - 5.0 )                                   the equation of a problem of SVAMP
    eggs = 16 - 3 - 4                               a program that is nothing but arithmetic
    print(eggs * 2)

Reading is strict: what is not plainly arithmetic, or does not come to what it says it comes to, is a `CannotRead`.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from trl_math.errors import DataError


# ("literal", number of the literal) | ("step", number of the step) | (operator, tree, tree) | ("neg", tree)
Tree = tuple[Any, ...]

_ANNOTATION = re.compile(r"<<([^<>]*)>>")
_OPERATORS: dict[type, str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
}
_TOLD = re.compile(r"=\s*\$?\s*(\d[\d,]*(?:\.\d+)?|\.\d+)")
MAX_EXPONENT, MAX_BITS = 12, 400
# What a program calls its answer.
ANSWER_NAMES = ("answer", "ans", "result")

REASONS = {
    "no_calculation": "the solution has no calculation that could be done again",
    "unreadable_step": "a step of the solution is not plain arithmetic",
    "wrong_or_rounded": "a step does not come to what it says, exactly",
    "answer_not_computed": "the answer is not what the last step comes to",
}


class CannotRead(DataError):
    """A solution that cannot be computed again; `reason` is one of `REASONS`."""

    def __init__(self, reason: str, said: str = "") -> None:
        super().__init__(f"{REASONS[reason]}{f': {said}' if said else ''}.")
        self.reason = reason


class Calculation(NamedTuple):
    """Steps, the numbers that are written in them, and which step comes to the answer."""

    literals: tuple[Fraction, ...]
    step_of_literal: tuple[int, ...]
    steps: tuple[Tree, ...]
    results: tuple[Fraction, ...]
    answer: int
    # What a solution comes to in steps that are not annotated: `160-80 = 80`. Who uses 80 may mean these.
    unannotated: frozenset[Fraction] = frozenset()

    def value(self, step: int, literals: Sequence[Fraction], results: Sequence[Fraction]) -> Fraction:
        """Return what a step comes to with other numbers; raise `ZeroDivisionError` or `OverflowError`."""
        return _value(self.steps[step], literals, results)


def read_calculation(row: Mapping[str, Any]) -> Calculation:
    """Return how the answer of a problem is computed: by its equation, its program, or its annotated solution."""
    answer = _number(row.get("answer"))
    if equation := row.get("equation"):
        return read_equation(str(equation), answer)
    if program := row.get("program"):
        return read_program(str(program), answer)
    return read_annotations(str(row.get("solution") or ""), answer)


def read_annotations(solution: str, answer: Fraction | None) -> Calculation:
    """Return the steps between << and >> of a solution."""
    reader = _Reader()
    for said in _ANNOTATION.findall(solution):
        expression, equals, rest = said.partition("=")
        if equals:
            result = reader.add(_parsed(expression, said), said)
            if _number(rest.rpartition("=")[2]) != result:
                raise CannotRead("wrong_or_rounded", said)
    calculation = reader.finish(answer)
    told = {_number(text) for text in _TOLD.findall(_ANNOTATION.sub("", solution))}
    unannotated = {value for value in told if value is not None and value not in calculation.results}
    return calculation._replace(unannotated=frozenset(unannotated))


def read_equation(equation: str, answer: Fraction | None) -> Calculation:
    """Return the one step of an equation, `x = 8 - 5` or `8 - 5`."""
    expression = re.sub(r"^\s*[A-Za-z]\s*=|=\s*[A-Za-z]\s*$", "", equation)
    reader = _Reader()
    reader.add(_parsed(expression, equation), equation)
    return reader.finish(answer)


def read_program(program: str, answer: Fraction | None) -> Calculation:
    """Return the steps of a program of assignments and a `print`."""
    reader = _Reader()
    try:
        statements = ast.parse(program.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise CannotRead("unreadable_step", program) from None
    for statement in statements:
        said = ast.unparse(statement)
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                reader.add(value, said, name)
            case ast.Expr(value=ast.Call(func=ast.Name(id="print"), args=[ast.Name(id=name)], keywords=[])):
                reader.names["answer"] = reader.step_named(name, said)
            case ast.Expr(value=ast.Call(func=ast.Name(id="print"), args=[value], keywords=[])):
                reader.add(value, said, "answer")
            case ast.Expr(value=ast.Constant(value=str())):
                pass
            case _:
                raise CannotRead("unreadable_step", said)
    return reader.finish(answer)


class _Reader:
    """Collects steps."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.literals: list[Fraction] = []
        self.step_of_literal: list[int] = []
        self.steps: list[Tree] = []
        self.results: list[Fraction] = []

    def add(self, node: ast.expr, said: str, name: str | None = None) -> Fraction:
        """Add a step; return what it comes to."""
        tree = self._tree(node, said)
        try:
            result = _value(tree, self.literals, self.results)
        except (ZeroDivisionError, OverflowError):
            raise CannotRead("unreadable_step", said) from None
        if name is not None:
            self.names[name] = len(self.steps)
        self.steps.append(tree)
        self.results.append(result)
        return result

    def step_named(self, name: str, said: str) -> int:
        if name not in self.names:
            raise CannotRead("unreadable_step", said)
        return self.names[name]

    def finish(self, answer: Fraction | None) -> Calculation:
        """Return the steps, if the last one comes to the answer."""
        if not self.steps:
            raise CannotRead("no_calculation")
        named = next((self.names[name] for name in ANSWER_NAMES if name in self.names), len(self.steps) - 1)
        if answer is None or self.results[named] != answer:
            raise CannotRead("answer_not_computed")
        steps = tuple(self.steps)
        return Calculation(tuple(self.literals), tuple(self.step_of_literal), steps, tuple(self.results), named)

    def _tree(self, node: ast.expr, said: str) -> Tree:
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                self.literals.append(_exact(value, said))
                self.step_of_literal.append(len(self.steps))
                return ("literal", len(self.literals) - 1)
            case ast.Name(id=name):
                return ("step", self.step_named(name, said))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return ("neg", self._tree(operand, said))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self._tree(operand, said)
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
                return (_OPERATORS[type(operator)], self._tree(left, said), self._tree(right, said))
        raise CannotRead("unreadable_step", said)


def _exact(value: int | float, said: str) -> Fraction:
    try:
        return Fraction(repr(value))
    except ValueError:  # 1e999, and thousands of digits
        raise CannotRead("unreadable_step", said) from None


def _parsed(text: str, said: str) -> ast.expr:
    """Return an expression as people write it in solutions: $, commas, percent signs, x between numbers."""
    text = re.sub(r"[$,\s]", "", text)
    text = re.sub(r"(\d+(?:\.\d+)?|\.\d+)%", r"(\1/100)", text)
    text = re.sub(r"(?<=[\d)])[x\u00d7](?=[\d(.])", "*", text)
    text = re.sub(r"(?<=[\d)])(?=\()|(?<=\))(?=\d)", "*", text).replace("^", "**").replace("\u00f7", "/")
    text = re.sub(r"(?<![\d.])0+(?=\d)", "", text)
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise CannotRead("unreadable_step", said) from None


def _value(tree: Tree, literals: Sequence[Fraction], results: Sequence[Fraction]) -> Fraction:
    kind = tree[0]
    if kind == "literal":
        return literals[tree[1]]
    if kind == "step":
        return results[tree[1]]
    first = _value(tree[1], literals, results)
    if kind == "neg":
        return -first
    second = _value(tree[2], literals, results)
    if kind == "**" and not (second.denominator == 1 and abs(second) <= MAX_EXPONENT):
        raise OverflowError
    result = Fraction(_DO[kind](first, second))
    if max(result.numerator.bit_length(), result.denominator.bit_length()) > MAX_BITS:
        raise OverflowError
    return result


_DO = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "**": lambda a, b: a**b,
}


def _number(text: Any) -> Fraction | None:
    """Return the number that a text is, or None."""
    try:
        return Fraction(re.sub(r"[$,\s]|%$|\.0*$", "", str(text)))
    except (ValueError, ZeroDivisionError):
        return None

r"""The judge that asks math-verify: its parser and SymPy's arithmetic, for what the fast judge leaves open.

The only place that imports math_verify. It runs in worker processes, which are killed at their deadline: math-verify's
own timeouts are signals, which work in the main thread only and which a long multiplication never looks at
(Math-Verify#11, #50, #55, #65), so they are off.

What math-verify 0.9.0 gets wrong is not asked of it. Its parser gets expressions with every product and bracket
written out and every variable renamed (`\frac{a}{b}c` would lose the c, `2d` the d, `(2)(3)` would be 5, `A` and `a`
the same). Values are compared here, to 30 digits of the values themselves, where it drops what is small (PR#82, #14).
Lists, sets and intervals are taken apart before (#47). `verify` itself is the last resort, for what has no value.
"""

import logging
from functools import lru_cache
from typing import Any

import math_verify
import sympy

from trl_math.grading.arithmetic import has_decimal, names
from trl_math.grading.compare import Verdict
from trl_math.grading.expression import parse
from trl_math.grading.fast import ABSOLUTE, RELATIVE
from trl_math.grading.latex import latex


logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its timeouts are off

_LATEX = (math_verify.LatexExtractionConfig(),)
_DIGITS = 30
# Above this, equal digits at the front are not enough: 2^{4950} and 2^{4950} + 1.
_LARGE = 10**15
# Values for variables, as fractions: of both signs, and no accident makes two expressions equal there.
_VALUES = ((271, 97), (89, 241), (613, 331), (-151, 499), (37, 53))
_STEPS = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)


class SlowJudge:
    """Decides with SymPy. `unparsed` counts the expressions that math-verify could not read."""

    def __init__(self) -> None:
        self.unparsed = 0

    def same_value(self, gold: str, answer: str) -> Verdict:
        """Whether two expressions are equal; texts that cannot be parsed are compared as texts."""
        first, second = self._parsed(gold, answer)
        if first is None or second is None:
            return _bare(gold) == _bare(answer)
        is_rounded = any(_is_rounded(text) for text in (gold, answer))
        verdict = _same_number(first, second, is_rounded)
        return _verified(first, second) if verdict is None else verdict

    def same_equation(self, gold: tuple[str, str], answer: tuple[str, str]) -> Verdict:
        """Whether the differences of the sides are in a fixed proportion, so that both vanish together."""
        sides = self._parsed(*gold, *answer)
        if any(side is None for side in sides):
            return [_bare(side) for side in gold] == [_bare(side) for side in answer]
        first, second = sympy.Add(sides[0], -sides[1]), sympy.Add(sides[2], -sides[3])
        return _in_proportion(first, second)

    def _parsed(self, *texts: str) -> list[Any]:
        nodes = [parse(text) for text in texts]
        known = [node for node in nodes if node is not None]
        symbols = sorted(frozenset().union(*(names(node) for node in known)))
        # Renaming is for all or none: a text outside our grammar keeps its names.
        mapping = {name: f"x_{{{number}}}" for number, name in enumerate(symbols, start=1)}
        if len(known) < len(nodes):
            mapping = {name: name for name in symbols}
        parsed = [
            _sympy(text if node is None else latex(node, mapping)) for text, node in zip(texts, nodes, strict=True)
        ]
        self.unparsed += parsed.count(None)
        return parsed


@lru_cache(maxsize=2048)
def _sympy(text: str) -> Any:
    """Return math-verify's reading of one expression, or None."""
    found = math_verify.parse(f"${text}$", extraction_config=_LATEX, fallback_mode="no_fallback", parsing_timeout=None)
    return found[0] if found else None


def _bare(text: str) -> str:
    return text.replace(" ", "").replace("{", "").replace("}", "")


def _is_rounded(text: str) -> bool:
    node = parse(text)
    return "." in text if node is None else has_decimal(node)


# ---- Values ----


def _same_number(first: Any, second: Any, is_rounded: bool) -> Verdict:
    """Compare two expressions by their values; None if they have none."""

    if not (isinstance(first, sympy.Expr) and isinstance(second, sympy.Expr)):
        return None
    first, second = _with_imaginary_unit(first), _with_imaginary_unit(second)
    symbols = sorted(first.free_symbols | second.free_symbols, key=str)
    is_complex = first.has(sympy.I) or second.has(sympy.I)
    agreed = 0
    for at in _points(symbols):
        values = [_evaluated(expression, at) for expression in (first, second)]
        if values[0] is None or values[1] is None:
            continue
        if symbols and not is_complex and all(_is_unreal(value) for value in values):
            continue  # outside of what either is about: `\sqrt{x}` at -1
        if not _are_equal(values[0], values[1], is_rounded, bool(symbols)):
            return False
        agreed += 1
    return True if agreed >= (2 if symbols else 1) else None


def _in_proportion(first: Any, second: Any) -> Verdict:
    """Whether two expressions in the same variables are a fixed multiple of each other."""
    first, second = _with_imaginary_unit(first), _with_imaginary_unit(second)
    symbols = sorted(first.free_symbols | second.free_symbols, key=str)
    if not symbols or first.free_symbols != second.free_symbols:
        return False
    quotients = []
    for at in _points(symbols):
        values = [_evaluated(expression, at) for expression in (first, second)]
        if values[0] is not None and values[1] is not None and values[0] != 0 and values[1] != 0:
            quotients.append(_evaluated(values[0] / values[1], {}))
    if len(quotients) < 2 or any(quotient is None for quotient in quotients):
        return None
    return all(_are_equal(quotients[0], other, False, True) for other in quotients[1:])


def _points(symbols: list[Any]) -> list[dict[Any, Any]]:

    if not symbols:
        return [{}]
    return [
        {
            symbol: sympy.Rational(*ratio) + sympy.Rational(index, _STEPS[index % 12])
            for index, symbol in enumerate(symbols)
        }
        for ratio in _VALUES
    ]


def _with_imaginary_unit(expression: Any) -> Any:
    """Read i as the imaginary unit, which math-verify takes for a variable."""

    return expression.subs({symbol: sympy.I for symbol in expression.free_symbols if symbol.name == "i"})


def _evaluated(expression: Any, at: dict[Any, Any], digits: int = _DIGITS) -> Any:
    """Return the value at a point: exactly if it is rational, else to many digits; None if there is none."""

    try:
        number = expression.subs(at).doit()
        if number.is_Rational:
            return number
        if number.has(sympy.zoo, sympy.nan, sympy.oo):
            return None
        found = number.evalf(digits, maxn=max(200, 2 * digits))
        parts = [_significant(part) for part in found.as_real_imag()]
    except MemoryError:
        raise
    except Exception:  # SymPy raises what it likes
        return None
    if any(part is None for part in parts):
        return None
    value = parts[0] + sympy.I * parts[1]
    if digits == _DIGITS and abs(value) > _LARGE:
        return _evaluated(expression, at, digits + int(sympy.log(abs(value), 10).evalf(5)) + 1)
    return value


def _significant(part: Any) -> Any:
    """Return a real number, 0 if none of its digits is certain; None for what is no number."""
    if part.is_Float:
        return part if part._prec > 1 else part * 0
    return part if part.is_Rational else None


def _is_unreal(value: Any) -> bool:
    real, imaginary = value.as_real_imag()
    return bool(abs(imaginary) > abs(real) / 10**20)


def _are_equal(first: Any, second: Any, is_rounded: bool, has_variables: bool) -> bool:

    if first.is_Rational and second.is_Rational and not is_rounded:
        return bool(first == second)
    distance, size = abs(first - second), sympy.Max(abs(first), abs(second))
    if is_rounded:
        relative, absolute = sympy.Rational(str(RELATIVE)), sympy.Rational(str(ABSOLUTE))
        return bool(distance <= relative * size and (has_variables or distance <= absolute))
    return bool(distance <= size / 10**25 and (size < _LARGE or distance < sympy.Rational(1, 10**8)))


def _verified(first: Any, second: Any) -> Verdict:
    """Ask math-verify about what has no value: functions without a name, sums without an end."""
    return bool(math_verify.verify(first, second, timeout_seconds=None))

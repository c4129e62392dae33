r"""The judge that imports nothing: exact fractions, and values that differ beyond doubt.

It says "equal" of rational numbers only, and "different" of whatever takes different values. Where it says something,
the slow judge (`slow.py`) says the same.
"""

import cmath
from fractions import Fraction

from trl_math.grading.arithmetic import Value, exact, has_decimal, has_imaginary_unit, names, value
from trl_math.grading.compare import Verdict
from trl_math.grading.expression import Node, parse


# A decimal may be rounded: 0.333333 is a third, 0.333 is not. To six places, as math-verify does, and to five digits,
# so that 0.0000001 is not 0.0000002.
ABSOLUTE = Fraction(5, 10**7)
RELATIVE = Fraction(1, 10**5)

_TRIALS = 3
_INFINITIES = {"\\infty": 1, "+\\infty": 1, "-\\infty": -1}


def near(first: Fraction, second: Fraction) -> bool:
    """Whether a rounded decimal may stand for a number."""
    distance = abs(first - second)
    return distance <= ABSOLUTE and distance <= RELATIVE * max(abs(first), abs(second))


class FastJudge:
    """Decides what arithmetic can; None for the rest. Raises `arithmetic.TooComplex`."""

    def same_value(self, gold: str, answer: str) -> Verdict:
        """Whether two expressions are equal, as far as plain arithmetic can tell."""
        if gold == answer:
            return True
        signs = _INFINITIES.get(gold.strip()), _INFINITIES.get(answer.strip())
        first, second = parse(gold), parse(answer)
        if any(signs):
            finite = second if signs[0] else first
            return signs[0] == signs[1] if all(signs) else _finite(finite)
        if first is None or second is None:
            return None
        return _compare(first, second)

    def same_equation(self, gold: tuple[str, str], answer: tuple[str, str]) -> Verdict:
        """Tell equations apart whose sides' differences are not in proportion."""
        nodes = [parse(side) for side in (*gold, *answer)]
        if any(node is None for node in nodes):
            return None
        gold_left, gold_right, left, right = nodes
        first, second = ("add", gold_left, ("neg", gold_right)), ("add", left, ("neg", right))
        if names(first) != names(second):
            return None
        quotients = [_quotient(value(first, trial), value(second, trial)) for trial in range(_TRIALS)]
        known = [quotient for quotient in quotients if quotient is not None]
        if len(known) < 2:
            return None
        return False if any(abs(known[0] - other) > 1e-6 * abs(known[0]) for other in known[1:]) else None


def _finite(node: Node | None) -> Verdict:
    """Return False if an expression has a value, which then is not infinity."""
    return False if node is not None and value(node) is not None else None


def _compare(first: Node, second: Node) -> Verdict:
    numbers = exact(first), exact(second)
    is_rounded = has_decimal(first) or has_decimal(second)
    if numbers[0] is not None and numbers[1] is not None:
        return numbers[0] == numbers[1] or (is_rounded and near(numbers[0], numbers[1]))
    has_variables = bool(names(first) | names(second))
    is_real = has_variables and not (has_imaginary_unit(first) or has_imaginary_unit(second))
    for trial in range(_TRIALS if has_variables else 1):
        values = value(first, trial), value(second, trial)
        # `\sqrt{x}` at -1 is outside of what a real expression is about.
        if is_real and any(found is not None and _is_unreal(found) for found in values):
            continue
        if _differ(*values, is_rounded, has_variables):
            return False
    return None


def _is_unreal(found: Value) -> bool:
    return isinstance(found.number, complex) and abs(found.number.imag) > 1e-9 * found.scale


def _differ(first: Value | None, second: Value | None, is_rounded: bool, has_variables: bool) -> bool:
    """Whether two values differ by more than rounding in either place can explain."""
    if first is None or second is None:
        return False
    if first.is_exact and second.is_exact and not is_rounded:
        return first.number != second.number
    try:
        a, b = complex(first.number), complex(second.number)
    except OverflowError:
        return False
    distance, size = abs(a - b), max(abs(a), abs(b))
    if not cmath.isfinite(a - b) or distance <= 1e-9 * max(first.scale, second.scale):
        return False
    if not is_rounded:
        return distance > 1e-6 * size
    if has_variables:
        return distance > 1e-3 * size
    return distance > 1.1 * float(ABSOLUTE) or distance > 1.1 * float(RELATIVE) * size


def _quotient(first: Value | None, second: Value | None) -> complex | None:
    if first is None or second is None:
        return None
    try:
        a, b = complex(first.number), complex(second.number)
    except OverflowError:
        return None
    # Differences of sides cancel: only what is well above rounding is used.
    if abs(a) <= 1e-6 * first.scale or abs(b) <= 1e-6 * second.scale:
        return None
    return a / b

"""What an expression is worth: exactly where it is rational, to about twelve digits elsewhere, without SymPy.

Variables get fixed values, so that two expressions in the same variables can be told apart (never proved equal). The
numbers say when they are not to be trusted: `Value.scale` is the largest magnitude that was met on the way, below
which a cancellation may hide the difference.
"""

import cmath
import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple
from zlib import crc32

from trl_math.grading.expression import Node, TooComplex


# Bits of the largest exact number, and of the largest that any parser gets to see: 5^(5^(5^5)) holds the C library for
# ever, without looking at signals.
EXACT_BITS = 100_000
MOST_BITS = 4_000_000
_MOST_FACTORIAL = 3000


class Undefined(Exception):
    """There is no value (1/0), or none that can be had cheaply."""


class Value(NamedTuple):
    """A number, exact or not, and the largest magnitude that was met on the way to it."""

    number: Fraction | complex
    scale: float

    @property
    def is_exact(self) -> bool:
        return isinstance(self.number, Fraction)


@lru_cache(maxsize=32768)
def value(node: Node, trial: int = 0) -> Value | None:
    """Return the value of an expression with the variables of one trial, or None if it has none.

    Raises `TooComplex` for what nothing should try to work out.
    """
    scale = [0.0]
    try:
        number = _number(node, trial, scale)
        return Value(number, scale[0])
    except (Undefined, ArithmeticError, ValueError):
        return None


def exact(node: Node) -> Fraction | None:
    """Return the value of a rational expression without variables, or None."""
    if names(node):
        return None
    found = value(node)
    return found.number if found is not None and isinstance(found.number, Fraction) else None


@lru_cache(maxsize=16384)
def names(node: Node) -> frozenset[str]:
    """Return the variables of an expression."""
    if node[0] == "var":
        return frozenset((node[1],))
    return frozenset().union(*(names(child) for child in node[1:] if isinstance(child, tuple)))


@lru_cache(maxsize=16384)
def has_decimal(node: Node) -> bool:
    """Whether a number in the expression is written with a decimal point, and so may be rounded."""
    if node[0] == "num":
        return "." in node[1] and "(" not in node[1]
    return any(has_decimal(child) for child in node[1:] if isinstance(child, tuple))


@lru_cache(maxsize=16384)
def has_imaginary_unit(node: Node) -> bool:
    """Whether i occurs in an expression."""
    return node == ("const", "i") or any(has_imaginary_unit(child) for child in node[1:] if isinstance(child, tuple))


def rational(text: str) -> Fraction:
    """Return the number that a token writes: 12, 0.5, 1.5e3, and 0.1(6) with a period."""
    if len(text) > 1000:
        raise TooComplex
    if "(" not in text:
        return Fraction(text)
    whole, _, period = text.rstrip(")").partition("(")
    places = len(whole.partition(".")[2])
    return Fraction(whole) + Fraction(int(period), (10 ** len(period) - 1) * 10**places)


def variable(name: str, trial: int) -> Fraction:
    """Return what a variable stands for in a trial: the same in every expression, another for each name."""
    seed = crc32(f"{name}:{trial}".encode())
    return Fraction(seed % 7919 + 101, 3001 + seed // 7919 % 2003) * (-1 if trial % 2 and seed & 1 else 1)


def _number(node: Node, trial: int, scale: list[float]) -> Fraction | complex:
    kind = node[0]
    if kind == "num":
        result: Fraction | complex = rational(node[1])
    elif kind == "var":
        result = variable(node[1], trial)
    elif kind == "const":
        if node[1] == "infty":
            raise Undefined
        result = {"pi": cmath.pi, "e": cmath.e, "i": 1j}[node[1]] + 0j
    elif kind == "fn":
        result = _FUNCTIONS[node[1]](complex(_number(node[2], trial, scale)))
    else:
        result = _OPERATIONS[kind](*(_number(child, trial, scale) for child in node[1:]))
    if not isinstance(result, Fraction) and not (cmath.isfinite(result)):
        raise Undefined
    scale[0] = max(scale[0], _magnitude(result))
    return result


def _magnitude(number: Fraction | complex) -> float:
    try:
        return abs(complex(number))
    except OverflowError:
        return math.inf


def _quotient(first: Fraction | complex, second: Fraction | complex) -> Fraction | complex:
    if isinstance(first, Fraction) and isinstance(second, Fraction):
        return first / second
    return complex(first) / complex(second)


def _total(*terms: Fraction | complex) -> Fraction | complex:
    if all(isinstance(term, Fraction) for term in terms):
        return sum(terms, Fraction(0))
    return sum(complex(term) for term in terms)


def _product(*factors: Fraction | complex) -> Fraction | complex:
    if all(isinstance(factor, Fraction) for factor in factors):
        return math.prod(factors, start=Fraction(1))
    return math.prod((complex(factor) for factor in factors), start=1 + 0j)


def _power(base: Fraction | complex, exponent: Fraction | complex) -> Fraction | complex:
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        power = exponent.numerator
        if isinstance(base, Fraction):
            size = max(base.numerator.bit_length(), base.denominator.bit_length())
            # 0, 1 and -1 stay small whatever the exponent.
            bits = size * abs(power) if abs(base) not in (0, 1) else 1
            if bits > MOST_BITS:
                raise TooComplex
            if bits > EXACT_BITS or (base == 0 and power <= 0):
                raise Undefined
            return base**power if abs(power) < MOST_BITS else base ** (power % 2)
        if abs(power) > MOST_BITS:
            raise TooComplex
    base, exponent = complex(base), complex(exponent)
    if base == 0:
        raise Undefined
    return base**exponent


def _root(index: Fraction | complex, number: Fraction | complex) -> Fraction | complex:
    if index == 2 and isinstance(number, Fraction) and number >= 0:
        above, below = math.isqrt(number.numerator), math.isqrt(number.denominator)
        if above**2 == number.numerator and below**2 == number.denominator:
            return Fraction(above, below)
    if index == 2:
        return cmath.sqrt(complex(number))
    # An odd root of a negative number is real to some and complex to others.
    if index == 0 or (isinstance(number, Fraction) and number < 0) or complex(number).real < 0:
        raise Undefined
    return complex(number) ** (1 / complex(index))


def _factorial(number: Fraction | complex) -> Fraction:
    if not isinstance(number, Fraction) or number.denominator != 1 or number < 0:
        raise Undefined
    if number > 100_000:
        raise TooComplex
    if number > _MOST_FACTORIAL:
        raise Undefined
    return Fraction(math.factorial(number.numerator))


def _binomial(total: Fraction | complex, chosen: Fraction | complex) -> Fraction:
    if not (isinstance(total, Fraction) and isinstance(chosen, Fraction)):
        raise Undefined
    if total.denominator != 1 or chosen.denominator != 1 or not 0 <= chosen <= total <= _MOST_FACTORIAL:
        raise Undefined
    return Fraction(math.comb(total.numerator, chosen.numerator))


def _logarithm(base: Fraction | complex, number: Fraction | complex) -> complex:
    return cmath.log(complex(number)) / cmath.log(complex(base))


_OPERATIONS: dict[str, Callable[..., Fraction | complex]] = {
    "neg": lambda a: -a,
    "add": _total,
    "mul": _product,
    "div": _quotient,
    "pow": _power,
    "root": _root,
    "fact": _factorial,
    "abs": lambda a: abs(a) if isinstance(a, Fraction) else complex(abs(a)),
    "deg": lambda a: complex(a) * (cmath.pi / 180),
    "binom": _binomial,
    "log": _logarithm,
}
_FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    "sin": cmath.sin,
    "cos": cmath.cos,
    "tan": cmath.tan,
    "cot": lambda a: 1 / cmath.tan(a),
    "sec": lambda a: 1 / cmath.cos(a),
    "csc": lambda a: 1 / cmath.sin(a),
    "arcsin": cmath.asin,
    "arccos": cmath.acos,
    "arctan": cmath.atan,
    "sinh": cmath.sinh,
    "cosh": cmath.cosh,
    "tanh": cmath.tanh,
    "ln": cmath.log,
    "exp": cmath.exp,
}

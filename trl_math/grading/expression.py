r"""One mathematical expression, from LaTeX as people write it to a tree of tuples, without SymPy.

The tree settles what LaTeX leaves open, so that every later step reads an answer in the same way: juxtaposition
multiplies (`\frac{a}{b}c`), an integer before a proper fraction is a mixed number, `1/2x` is half of x, `x^10` has the
exponent ten. What is outside this grammar (`f(x)`, sums, integrals, prose) has no tree; math-verify reads it as it is.

    ("num", text)  ("var", name)  ("const", "pi" | "e" | "i" | "infty")  ("neg", a)  ("add", a, b, ...)
    ("mul", a, b, ...)  ("div", a, b)  ("pow", a, b)  ("root", index, a)  ("fact", a)  ("abs", a)  ("deg", a)
    ("binom", n, k)  ("fn", name, a)  ("log", base, a)
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any


Node = tuple[Any, ...]

MAX_DEPTH = 60
_TOKEN = re.compile(
    r"(?P<num>[0-9]*\.(?=\\overline)|(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?:(?P<exponent>[eE][-+]?[0-9]{1,4}(?![0-9A-Za-z.]))|\\overline\{?(?P<period>[0-9]{1,20})\}?)?"
    r"|\\(?P<command>[A-Za-z]+) ?|(?P<letter>[A-Za-z])|(?P<symbol>\\?[-+/^_!(){}\[\]|])|(?P<space> )|(?P<other>.)",
    re.DOTALL,
)
_CONSTANTS = {"pi": "pi", "infty": "infty"}
_NAMES = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau"
    " upsilon phi chi psi omega Gamma Delta Theta Lambda Sigma Phi Psi Omega ell"
)
_GREEK = frozenset(_NAMES.split())
_INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
_FUNCTION_NAMES = "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln exp"
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
# A letter before a bracket that is more often a function than a factor.
_CALLED = frozenset("fghFGHPQ")
_PAIRS = {"(": ")", "[": "]", "{": "}"}


class NotRead(Exception):
    """The text is outside the grammar."""


class TooComplex(Exception):
    """Working this out would take for ever."""


@lru_cache(maxsize=16384)
def parse(text: str) -> Node | None:
    """Return the tree of a normalised text, None if it is outside the grammar; raises `TooComplex` if it is deep."""
    try:
        parser = _Parser(text)
        node = parser.sum()
    except NotRead:
        return None
    if _depth(node) > MAX_DEPTH:
        raise TooComplex
    return node if parser.kind == "end" else None


class _Parser:
    """Recursive descent over the tokens; `kind` and `value` are those of the next one."""

    def __init__(self, text: str) -> None:
        self.tokens = [_token(match) for match in _TOKEN.finditer(text)]
        self.tokens.append(("end", ""))
        self.position = -1
        self.depth = 0
        self.bars = 0
        self.advance()

    def advance(self) -> str:
        value = self.tokens[self.position][1]
        self.position += 1
        self.kind, self.value = self.tokens[self.position]
        return value

    def take(self, value: str) -> bool:
        if self.kind == "symbol" and self.value == value:
            self.advance()
            return True
        return False

    def expect(self, value: str) -> None:
        if not self.take(value):
            raise NotRead

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooComplex

    def sum(self) -> Node:
        terms = [self.product()]
        while self.kind == "symbol" and self.value in "+-":
            sign = self.advance()
            term = self.product()
            terms.append(term if sign == "+" else ("neg", term))
        return terms[0] if len(terms) == 1 else ("add", *terms)

    def product(self) -> Node:
        factors = [self.unary()]
        while True:
            if self.kind == "command" and self.value == "cdot":
                self.advance()
                factors.append(self.unary())
            elif self.take("/"):
                # `a/b c` is (a/b) c, and `a b/c` is (a b)/c, which is the same.
                factors[-1] = ("div", factors[-1], self.unary())
            elif self.starts_factor():
                factors.append(self.power())
            else:
                return factors[0] if len(factors) == 1 else ("mul", *factors)

    def starts_factor(self) -> bool:
        """Whether the next token multiplies what stands before it. Two numbers side by side mean nothing."""
        if self.kind == "symbol":
            return self.value in "({[" or (self.value == "|" and self.bars == 0)
        return self.kind == "letter" or (self.kind == "command" and self.value not in ("cdot", "pm", "mp"))

    def unary(self) -> Node:
        is_negative = False
        while self.kind == "symbol" and self.value in "+-":
            is_negative ^= self.advance() == "-"
        return ("neg", self.power()) if is_negative else self.power()

    def power(self) -> Node:
        node = self.atom()
        while self.kind == "symbol":
            if self.take("^"):
                node = self.raised(node)
            elif self.take("!"):
                node = ("fact", node)
            else:
                break
        return node

    def raised(self, base: Node) -> Node:
        if self.kind == "command" and self.value == "circ":
            self.advance()
            return ("deg", base)
        self.deeper()
        if self.take("-"):
            exponent: Node = ("neg", self.power())
        else:
            # `2^3^2` is 2^(3^2), but `x^2!` is (x^2)!.
            exponent = self.atom()
            exponent = self.raised(exponent) if self.take("^") else exponent
        self.depth -= 1
        return ("pow", base, exponent)

    def bracketed(self, opening: str) -> Node:
        """Read up to the bracket that closes `opening`, which is behind us."""
        bars, self.bars = self.bars, 0
        node = self.sum()
        self.expect(_PAIRS[opening])
        self.bars = bars
        return node

    def atom(self) -> Node:
        self.deeper()  # everything that nests passes here
        node = self.bare_atom()
        self.depth -= 1
        return node

    def bare_atom(self) -> Node:
        if self.kind == "num":
            return self.number()
        if self.kind == "letter":
            return self.letter()
        if self.kind == "command":
            return self.command()
        if self.kind == "symbol" and self.value in _PAIRS:
            return self.bracketed(self.advance())
        if self.kind == "symbol" and self.value == "|" and self.bars == 0:
            self.advance()
            self.bars += 1
            node = self.sum()
            self.expect("|")
            self.bars -= 1
            return ("abs", node)
        raise NotRead

    def number(self) -> Node:
        text = self.advance()
        if text.isdigit() and self.kind == "command" and self.value == "frac":
            position, tokens = self.position, list(self.tokens)  # a shorthand argument changes its token
            self.advance()
            numerator, denominator = self.argument(), self.argument()
            if _is_integer(numerator) and _is_integer(denominator) and int(numerator[1]) < int(denominator[1]):
                return ("add", ("num", text), ("div", numerator, denominator))
            self.position, self.tokens = position, tokens
            self.kind, self.value = tokens[position]
        return ("num", text)

    def letter(self) -> Node:
        name = self.advance()
        if self.take("_"):
            name += "_" + self.subscript()
        elif name == "e" or name == "i":
            return ("const", name)
        if self.kind == "symbol" and self.value == "(" and name in _CALLED:
            raise NotRead
        return ("var", name)

    def subscript(self) -> str:
        if self.take("{"):
            parts = []
            while self.kind in ("num", "letter", "command") or self.value in "+-":
                parts.append(self.advance())
            self.expect("}")
            return "".join(parts)
        if self.kind in ("num", "letter"):
            return self.advance()
        raise NotRead

    def argument(self) -> Node:
        r"""Read the argument of a command: braces, or one character (`\frac12`)."""
        if self.take("{"):
            return self.bracketed("{")
        if self.kind == "num" and len(self.value) > 1 and self.value.isdigit():
            first = self.value[0]
            self.value = self.value[1:]
            self.tokens[self.position] = ("num", self.value)
            return ("num", first)
        if self.kind not in ("num", "letter", "command"):
            raise NotRead
        node = self.atom()
        if self.kind == "space":
            self.advance()
        return node

    def command(self) -> Node:
        name = self.advance()
        if name in _CONSTANTS:
            return ("const", _CONSTANTS[name])
        if name in _GREEK:
            return ("var", "\\" + name + ("_" + self.subscript() if self.take("_") else ""))
        if name == "frac":
            return ("div", self.argument(), self.argument())
        if name == "binom":
            return ("binom", self.argument(), self.argument())
        if name == "sqrt":
            index: Node = ("num", "2")
            if self.take("["):
                index = self.bracketed("[")
            return _root(index, self.bracketed(self.advance()) if self.value == "(" else self.argument())
        if name == "log":
            base: Node = ("num", "10")
            if self.take("_"):
                base = self.argument()
            return self.applied(lambda argument: ("log", base, argument))
        if name in _FUNCTIONS:
            return self.function(name)
        raise NotRead

    def function(self, name: str) -> Node:
        power = self.argument() if self.take("^") else None
        if power == ("neg", ("num", "1")) and name in _INVERSES:
            name, power = _INVERSES[name], None
        node = self.applied(lambda argument: ("fn", name, argument))
        return node if power is None else ("pow", node, power)

    def applied(self, make: Callable[[Node], Node]) -> Node:
        r"""Read a function's argument: brackets, or all factors up to the next function (`\sin 2x \cos x`)."""
        if self.kind == "symbol" and self.value in _PAIRS:
            return make(self.bracketed(self.advance()))
        factors = [self.unary()]
        while self.starts_factor() and not (
            self.kind == "command" and (self.value in _FUNCTIONS or self.value == "log")
        ):
            factors.append(self.power())
        return make(factors[0] if len(factors) == 1 else ("mul", *factors))


def _token(match: re.Match[str]) -> tuple[str, str]:
    kind = match.lastgroup or "other"
    if match["num"]:
        number = match["num"].replace(",", "")
        if match["period"]:
            # 0.1\overline{6} is (16 - 1) / 90; kept as text, as every number is.
            if "." not in number:
                return ("other", match[0])
            return ("num", f"{number}({match['period']})")
        return ("num", number + (match["exponent"] or ""))
    if kind == "symbol":
        return (
            ("symbol", match[0].lstrip("\\")) if match[0] not in ("\\!", "\\_", "\\{", "\\}") else ("other", match[0])
        )
    return (kind, match[kind])


def _root(index: Node, radicand: Node) -> Node:
    r"""Return a root. Odd ones of negative numbers are real: `\sqrt[3]{-8}` is -2."""
    if radicand[0] == "neg" and _is_integer(index) and int(index[1][-1]) % 2:
        return ("neg", ("root", index, radicand[1]))
    return ("root", index, radicand)


def _depth(node: Node) -> int:
    """Return how deep a tree is, without recursion."""
    depth = 0
    level = [node]
    while level:
        depth += 1
        level = [child for parent in level for child in parent[1:] if isinstance(child, tuple)]
    return depth


def _is_integer(node: Node) -> bool:
    return bool(node[0] == "num" and node[1].isdigit())

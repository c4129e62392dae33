r"""From a normalised answer to what it is: `(1,2]` an interval, `x=1\text{or}x=2` a list of two relations.

A text that cannot be an answer (empty, unbalanced) has no reading. A part that is no known form stays a scalar, whose
text the comparison decides.
"""

import re
from collections.abc import Callable
from functools import lru_cache

from trl_math.grading.expression import TooComplex
from trl_math.grading.typed import Answer, Clock, Group, Matrix, Relation, Scalar, Words


MAX_DEPTH = 30

_TOKEN = re.compile(
    r"\\text\{[^{}]*\}|\\(?:begin|end)\{[A-Za-z]+\*?\}(?:\{[lcr|]+\})?|\\mathbb\{[A-Z]\}|\\[A-Za-z]+ ?|\\."
    r"|[0-9]+(?:\.[0-9]+)?|.",
    re.DOTALL,
)
_OPENING = frozenset(("(", "[", "{", "\\{", "\\langle"))
_CLOSING = frozenset((")", "]", "}", "\\}", "\\rangle"))
_RELATIONS = {"=": "=", "<": "<", ">": ">", "\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\equiv": "equiv"}
_ARROWS = frozenset(("\\Rightarrow", "\\Longrightarrow", "\\iff"))
_SET_OPERATIONS = frozenset(("\\cup", "\\setminus", "\\backslash"))
_COMMAS = frozenset(",;")
_COLONS = frozenset((":", "\\text{to}"))
_JOINING_WORDS = re.compile(r"\\text\{\W*(?:and|or)\W*\}", re.IGNORECASE)
_CLOCK = re.compile(
    r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?(?:\\text\{|\s)?\s*(?:([ap])\.?\s?m\.?)?\}?", re.IGNORECASE
)
_BASE = re.compile(r"\(?(-?(?=[A-Za-z]*[0-9])[0-9A-Za-z.]+)\)?_\{?([0-9]{1,2}|[a-z]{3,8})\}?")
# Open ends written as brackets turned away: `]1,2]`.
_TURNED = re.compile(r"([\[\]])([^\[\](),;]+[,;][^\[\](),;]+)([\[\]])")
# The left side of `x = 5`: a name, perhaps of a function or of a length. Without digits and operators.
# Possessive, as each beginning has one reading: to try others would take exponential time.
_NAME = re.compile(r"(?:\\text\{[^{}]*\}|\\(?!frac|sqrt)[A-Za-z]++|[A-Za-z]++|_\{?+[0-9A-Za-z]++\}?+|[(){},' |]++)++")
_UNIT = re.compile(r"(?P<value>.*?[^-+*/^=({|_])(?P<unit>(?:\\text\{[^{}]*\}(?:\^\{?-?[0-9]\}?)?/?)+)", re.DOTALL)
_ANGLE_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
# Words that may stand before a number without making it a name ("about 5", but not "October 30").
_BEFORE = re.compile(
    r"(?:about|approximately|approx|exactly|only|rs|usd|euros|pounds|inr|the)?\W*|.*[:=]|.*\b(?:is|are)", re.IGNORECASE
)
_COUNTING = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen twenty"
)
_NUMBER_WORDS = {word: str(number) for number, word in enumerate(_COUNTING.split())}
_EMPTY = Group("set", ())
_SAYINGS: dict[str, Answer] = {
    **dict.fromkeys(("no solution", "no solutions", "no real solution", "no real solutions"), _EMPTY),
    **dict.fromkeys(("empty", "empty set"), _EMPTY),
    **dict.fromkeys(("infinity", "positive infinity"), Scalar("\\infty")),
    **dict.fromkeys(("minus infinity", "negative infinity"), Scalar("-\\infty")),
    "dne": Words("does not exist"),
}
_LINE = Group("tuple", (Scalar("-\\infty"), Scalar("\\infty")), "()")
_MATRIX = re.compile(r"\\begin\{([bpvBV]?matrix|array|smallmatrix)\*?\}")

Tokens = list[str]


@lru_cache(maxsize=16384)
def read(text: str, grouped: bool = True) -> Answer | None:
    """Return what a normalised text says, or None if it cannot be read. Raises `TooComplex` if it nests without end.

    `grouped`: whether `1,234` is one number or two. Only the other side of a comparison can say.
    """
    if clock := _CLOCK.fullmatch(text.removeprefix("\\text{")):
        parts = tuple(int(part) for part in clock.groups()[:3] if part)
        return Clock(parts, (clock[4] or "").lower())
    tokens = _TOKEN.findall(text)
    if not _is_balanced(tokens):
        tokens = _TOKEN.findall(_TURNED.sub(_usual_brackets, text))
    return _Reader(grouped).read(tokens) if _is_balanced(tokens) else None


def _usual_brackets(match: re.Match[str]) -> str:
    return ("(" if match[1] == "]" else "[") + match[2] + (")" if match[3] == "[" else "]")


def is_name(text: str) -> bool:
    """Whether a side of an equation is the name of what is sought."""
    return _NAME.fullmatch(text) is not None and text.strip() not in ("e", "i", "\\pi", "\\infty")


def is_ambiguous(text: str) -> bool:
    """Whether a comma in the text may group digits or separate numbers."""
    return re.search(r"[0-9],[0-9]{3}(?![0-9])", text) is not None


def _is_balanced(tokens: Tokens) -> bool:
    depth = braces = 0
    for token in tokens:
        step = _step(token)
        depth += step
        braces += step if token in "{}" else 0
        if depth > MAX_DEPTH:
            raise TooComplex
        if depth < 0 or braces < 0:
            return False
    return depth == 0 == braces and bool(tokens)


def _step(token: str) -> int:
    token = token.rstrip(" ")
    if token in _OPENING or token.startswith("\\begin{"):
        return 1
    return -1 if token in _CLOSING or token.startswith("\\end{") else 0


def _outside(tokens: Tokens) -> set[str]:
    """Return the tokens that stand in no bracket, with the brackets that close last."""
    depth = 0
    found = set()
    for token in tokens:
        depth += _step(token)
        if depth == 0:
            bare = token.rstrip(" ")
            found.add("," if _JOINING_WORDS.fullmatch(bare) else "\\end" if bare.startswith("\\end{") else bare)
    return found


def split(tokens: Tokens, is_separator: Callable[[str], bool]) -> tuple[list[Tokens], Tokens]:
    """Cut tokens at the separators that stand in no bracket; return the parts and the separators."""
    parts: list[Tokens] = [[]]
    separators: Tokens = []
    depth = 0
    for token in tokens:
        depth += _step(token)
        if depth == 0 and is_separator(token.rstrip(" ")):
            parts.append([])
            separators.append(token.rstrip(" "))
        else:
            parts[-1].append(token)
    return parts, separators


class _Reader:
    """Reads nested tokens; each method takes one form, or returns None to let the next try."""

    def __init__(self, grouped: bool) -> None:
        self.grouped = grouped

    def read(self, tokens: Tokens) -> Answer | None:
        tokens = _stripped(tokens)
        if not tokens:
            return None
        outside = _outside(tokens)
        for marks, form in (
            (_ARROWS, self.conclusion),
            (_SET_OPERATIONS, self.union),
            (_COMMAS, self.several),
            (frozenset(("\\in",)), self.membership),
            (frozenset(("\\approx",)), self.approximation),
            (_RELATIONS.keys(), self.relation),
            (_COLONS, self.ratio),
            (frozenset(("",)), self.sequence),
            (_CLOSING, self.enclosed),
            (frozenset(("\\end",)), self.matrix),
        ):
            if not outside.isdisjoint(marks) and (answer := form(tokens)) is not None:
                return answer
        return scalar("".join(tokens).strip())

    def all(self, parts: list[Tokens]) -> tuple[Answer, ...]:
        answers = (self.read(part) for part in parts)
        return tuple(answer for answer in answers if answer is not None)

    def conclusion(self, tokens: Tokens) -> Answer | None:
        parts, arrows = split(tokens, lambda token: token in _ARROWS)
        return self.read(parts[-1]) if arrows else None

    def union(self, tokens: Tokens) -> Answer | None:
        parts, cups = split(tokens, lambda token: token == "\\cup")
        if cups:
            return Group("union", self.all(parts))
        parts, minus = split(tokens, lambda token: token in ("\\setminus", "\\backslash"))
        if len(minus) == 1 and self.read(parts[0]) == _LINE:
            without = self.read(parts[1])
            if isinstance(without, Group) and without.kind == "set" and len(without.items) == 1:
                return around(without.items[0])
        return None

    def several(self, tokens: Tokens) -> Answer | None:
        if self.grouped:
            tokens = _grouped(tokens)
        parts, separators = split(tokens, lambda token: token in ",;" or bool(_JOINING_WORDS.fullmatch(token)))
        if not separators:
            return None
        items = self.all(parts)
        return flat("list", items) if len(items) != 1 else items[0]

    def membership(self, tokens: Tokens) -> Answer | None:
        parts, ins = split(tokens, lambda token: token == "\\in")
        return self.read(parts[-1]) if ins else None

    def approximation(self, tokens: Tokens) -> Answer | None:
        parts, signs = split(tokens, lambda token: token == "\\approx")
        parts = [part for part in parts if part and not is_name("".join(part))]
        return self.read(parts[0]) if signs and parts else None

    def relation(self, tokens: Tokens) -> Answer | None:
        parts, operators = split(tokens, lambda token: token in _RELATIONS)
        if not operators:
            return None
        sides = [self.read(part) for part in parts]
        if any(side is None for side in sides):
            return None
        texts = tuple("".join(part).strip() for part in parts)
        return Relation(tuple(_RELATIONS[operator] for operator in operators), tuple(sides), texts)  # type: ignore[arg-type]

    def ratio(self, tokens: Tokens) -> Answer | None:
        parts, _ = split(tokens, lambda token: token in _COLONS)
        items = self.all(parts)
        if len(items) == 2 and isinstance(items[0], Words):
            return items[1]  # `\text{Answer}: 5`
        return Group("ratio", items) if len(items) == len(parts) else None

    def sequence(self, tokens: Tokens) -> Answer | None:
        parts, spaces = split(tokens, lambda token: token == "")
        if spaces and all(re.fullmatch(r"-?[0-9.]+", "".join(part)) for part in parts):
            return Group("sequence", self.all(parts))
        return None

    def enclosed(self, tokens: Tokens) -> Answer | None:
        """Read what stands between brackets that open at the first token and close at the last."""
        opening, closing = tokens[0].rstrip(" "), tokens[-1].rstrip(" ")
        if opening not in _OPENING or closing not in _CLOSING or not _is_balanced(tokens[1:-1] or ["0"]):
            return None
        inner = tokens[1:-1]
        if opening == "\\{" or (opening == "{" and closing == "}"):
            return self.braces(inner)
        parts, separators = split(inner, lambda token: token in ",;")
        if not separators:
            answer = self.read(inner)
            return answer if closing in ")]" else None
        items = tuple(self.read(part) for part in parts)
        if any(item is None for item in items):
            return None
        brackets = ("(" if opening in ("(", "\\langle") else "[") + (")" if closing in (")", "\\rangle") else "]")
        return Group("tuple", items, brackets)  # type: ignore[arg-type]

    def braces(self, inner: Tokens) -> Answer | None:
        if not inner:
            return Group("set", ())
        # `\{x | x > 3\}`
        parts, bars = split(inner, lambda token: token in ("|", ":"))
        if len(bars) == 1 and re.match(r"[A-Za-z](?![0-9])", "".join(parts[0])):
            return self.read(parts[1])
        parts, _ = split(inner, lambda token: token in ",;")
        return flat("set", self.all(parts))

    def matrix(self, tokens: Tokens) -> Answer | None:
        environment = _MATRIX.match(tokens[0])
        if not environment or not tokens[-1].startswith("\\end{") or not _is_balanced(tokens[1:-1]):
            return None
        lines, _ = split(tokens[1:-1], lambda token: token == "\\\\")
        rows = tuple(self.all(split(line, lambda token: token == "&")[0]) for line in lines if _stripped(line))
        if len({len(row) for row in rows}) != 1:
            return None
        return Matrix(rows, is_determinant=environment[1] in ("vmatrix", "Vmatrix"))


def flat(kind: str, items: tuple[Answer, ...]) -> Group:
    r"""Return a group; lists in it are spread out (`\{1 \pm \sqrt5, -2\}`)."""
    spread = (inner for item in items for inner in _items(item))
    return Group(kind, tuple(spread))


def _items(item: Answer) -> tuple[Answer, ...]:
    return item.items if isinstance(item, Group) and item.kind == "list" else (item,)


def around(point: Answer) -> Group:
    """Return the real line without one point."""
    left, right = _LINE.items
    return Group("union", (Group("tuple", (left, point), "()"), Group("tuple", (point, right), "()")))


def scalar(text: str) -> Answer:
    """Return a number, an expression or words, with the unit taken off."""
    if text in ("\\mathbb{R}", "\\R"):
        return _LINE
    if text == "\\emptyset":
        return _EMPTY
    if (base := _BASE.fullmatch(text.replace("\\text{", "").replace("}_", "_").rstrip("}"))) and (
        number := _based(base[1], base[2])
    ):
        return number
    unit = ""
    if money := re.match(r"(-?)(?:\\text\{US\})?\\\$ ?", text):
        text, unit = money[1] + text[money.end() :], "dollars"
    if before := re.match(r"\\text\{([^{}]*)\}(?=[-0-9.\\(])(?!\\text)", text):
        if not _BEFORE.fullmatch(before[1]):
            return words(text)
        text, unit = text[before.end() :], before[1]
    if (after := _UNIT.fullmatch(text)) and "\\text" not in after["value"]:
        text, unit = after["value"], after["unit"].replace("\\text{", " ").replace("}", " ").strip()
    if "\\text" in text:
        return words(text)
    return _measured(text, unit)


def _based(digits: str, base: str) -> Scalar | None:
    """Return a number with its base; None if a letter is no digit there: `2x_1` is a variable twice."""
    base = _NUMBER_WORDS.get(base, base)
    if not base.isdigit() or any(letter.isalpha() and int(letter, 36) >= int(base) for letter in digits):
        return None
    return Scalar(digits, base=base)


def _measured(text: str, unit: str) -> Answer:
    is_percent = text.endswith("%") or re.match(r"(?:percent|percentage|per cent|pct|%)", unit) is not None
    text = text.removesuffix("%")
    if text.rstrip(" ").endswith("^\\circ") and not _ANGLE_FUNCTION.search(text):
        text, unit = text.rstrip(" ").removesuffix("^\\circ"), unit or "degrees"
    if "\\pm" in text or "\\mp" in text:
        both = (_signed(text, "+", "-"), _signed(text, "-", "+"))
        return Group("list", tuple(Scalar(side, unit, is_percent) for side in both))
    if re.fullmatch(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?", text.removeprefix("-")):
        text = text.replace(",", "")
    return Scalar(text, unit, is_percent)


def _signed(text: str, plus: str, minus: str) -> str:
    text = re.sub(r"\\pm ?", plus, text)
    return re.sub(r"\\mp ?", minus, text).removeprefix("+").replace("(+", "(").replace("{+", "{")


def words(text: str) -> Answer:
    """Return words in lower case without punctuation; `four` is 4, and `B, E, G` are three answers."""
    plain = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    plain = re.sub(r"\\(?:[A-Za-z]+)?|[{}$^]", " ", plain)
    plain = " ".join(plain.split())
    parts = re.split(r" ?[,;] ?(?:(?:and|or)\b)? ?| (?:and|or) ", plain)
    if len(parts) > 1 and all(parts) and all(len(part.split()) <= 3 for part in parts):
        return Group("list", tuple(_phrase(part) for part in parts))
    return _phrase(plain)


def _phrase(text: str) -> Answer:
    plain = " ".join(re.sub(r"[^\w\s/+-]", " ", text.lower().replace("'", "")).split())
    plain = re.sub(r"^(?:the|an?) (?=\w)", "", plain)
    if plain in _SAYINGS:
        return _SAYINGS[plain]
    plain = re.sub(r"(?<=many) solutions$", "", plain)
    first, _, rest = plain.partition(" ")
    if first in _NUMBER_WORDS and not re.match(r"(?:hundred|thousand|million|billion)\b", rest):
        return Scalar(_NUMBER_WORDS[first], rest)  # `four`, `two lines`
    return Words(plain)


def _stripped(tokens: Tokens) -> Tokens:
    start, stop = 0, len(tokens)
    while start < stop and tokens[start] in " ,;":
        start += 1
    while stop > start and tokens[stop - 1] in " ,;.":
        stop -= 1
    return tokens[start:stop]


def _grouped(tokens: Tokens) -> Tokens:
    """Join digits around commas that group them: `1,234` is one number."""
    joined: Tokens = []
    index = 0
    while index < len(tokens):
        token = tokens[index]
        starts = re.fullmatch(r"[0-9]{1,3}", token) and not (joined and joined[-1] == ",")
        while starts and tokens[index + 1 : index + 2] == [","] and index + 2 < len(tokens):
            following = tokens[index + 2]
            if not re.fullmatch(r"[0-9]{3}(?:\.[0-9]+)?", following):
                break
            token += following
            index += 2
        joined.append(token)
        index += 1
    return joined

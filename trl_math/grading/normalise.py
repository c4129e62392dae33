r"""One spelling for an answer: `$\left( \dfrac{1}{2},\, 3 \right).$` and `(\frac{1}{2}, 3)` become the same text.

The result is LaTeX without layout: no spaces but those that keep a command from the letter after it or two numbers
apart, one name for each symbol, words as `\text{word}`. Linear in the length of the text; the reader is `read.py`.
"""

import re
import unicodedata
from functools import lru_cache

from trl_math.grading.expression import TooComplex


# Beyond this no answer is looked at: parsers are slower than linear, and no known gold answer has a tenth of it.
MAX_LENGTH = 2000


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PLAIN = re.compile(r"-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)")

_UNICODE = str.maketrans(
    {
        **dict.fromkeys("\u2212\u2013\u2014\u2010\u2011\ufe63\uff0d", "-"),
        "\u00d7": "\\cdot ",
        "\u22c5": "\\cdot ",
        "\u00b7": "\\cdot ",
        "\u00f7": "/",
        "\u2044": "/",
        "\u2264": "\\le ",
        "\u2265": "\\ge ",
        "\u2260": "\\ne ",
        "\u2248": "\\approx ",
        "\u221e": "\\infty ",
        "\u03c0": "\\pi ",
        "\u03b1": "\\alpha ",
        "\u03b2": "\\beta ",
        "\u03b8": "\\theta ",
        "\u03bb": "\\lambda ",
        "\u03c6": "\\phi ",
        "\u222a": "\\cup ",
        "\u2229": "\\cap ",
        "\u2208": "\\in ",
        "\u2205": "\\emptyset ",
        "\u211d": "\\mathbb{R}",
        "\u00b1": "\\pm ",
        "\u2213": "\\mp ",
        "\u00b0": "^\\circ ",
        "\u27e8": "\\langle ",
        "\u27e9": "\\rangle ",
        "\u20ac": "\\text{euros}",
        "\u00a3": "\\text{pounds}",
        "\u2026": "\\ldots ",
        "\u00a0": " ",
    }
)
# Halves, thirds and the like, which Unicode takes apart with a slash of its own.
for _code in (*range(0xBC, 0xBF), *range(0x2150, 0x215F)):
    _UNICODE[_code] = "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", chr(_code)).split("\u2044"))
_ROOT = re.compile(r"(?P<sign>[\u221a\u221b\u221c])\s*(?:\((?P<inner>[^()]*)\)|(?P<factor>[0-9.]+|[A-Za-z]))")
_ROOTS = {"\u221a": "", "\u221b": "[3]", "\u221c": "[4]"}
# Exponents and indices, which are runs: `10` high up is one exponent.
_RAISED = re.compile("[\u00b2\u00b3\u00b9\u2070\u2071\u2074-\u207b\u207f]+")
_LOWERED = re.compile("[\u2080-\u208b]+")

# Layout: what has no meaning and goes. A doubled backslash is a row's end and must not lose its second half.
_LAYOUT = re.compile(
    r"(?P<row>\\\\)(?:\[-?[0-9.]+\s*[a-z]{2}\])?|\\(?:left|right)\s*\.|\\[hv]?phantom\s*(?:\{[^{}]*\}|.)|\\[hv]space\*?\s*\{[^{}]*\}"
    r"|\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|nolimits|rm|bf|it|mathstrut|strut)"
    r"(?![A-Za-z])|\\(?P<space>[,;:> ]|quad|qquad|thinspace|enspace|newline)|(?P<tie>~)|\\!"
)
_THOUSANDS = re.compile(r"(?<=[0-9])(?:\{,\}|,\s*\\!|\\,)\s*(?=[0-9]{3}(?![0-9]))")
_FONT = re.compile(r"\\(?:math(?:rm|normal)|text(?:bf|it|rm|normal|sf|tt)?|mbox|hbox|operatorname\*?)\s*(?=\{)")
_STYLED = re.compile(
    r"\\(?:math(?:bf|it|sf|tt)|boldsymbol|bm)\s*\{([^{}]*)\}|\\mathrm\s*\{([eidxyz])\}|\\[a-z]+\s*\{(-?[0-9][0-9.,]*)\}"
)
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_WRAPPER = re.compile(r"\\(?:boxed|fbox|underline|ensuremath|displaylines)\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_COMMANDS = {
    "dfrac": "\\frac",
    "tfrac": "\\frac",
    "cfrac": "\\frac",
    "sfrac": "\\frac",
    "nicefrac": "\\frac",
    "dbinom": "\\binom",
    "tbinom": "\\binom",
    "leq": "\\le ",
    "leqslant": "\\le ",
    "geq": "\\ge ",
    "geqslant": "\\ge ",
    "neq": "\\ne ",
    "lt": "<",
    "gt": ">",
    "times": "\\cdot ",
    "ast": "\\cdot ",
    "div": "/",
    "degree": "^\\circ ",
    "degrees": "^\\circ ",
    "varnothing": "\\emptyset ",
    "lbrace": "\\{",
    "rbrace": "\\}",
    "lbrack": "[",
    "rbrack": "]",
    "lparen": "(",
    "rparen": ")",
    "lvert": "|",
    "rvert": "|",
    "vert": "|",
    "mid": "|",
    "dots": "\\ldots ",
    "cdots": "\\ldots ",
    "dotsc": "\\ldots ",
    "simeq": "\\approx ",
    "cup": "\\cup ",
    "bigcup": "\\cup ",
    "lor": "\\text{or}",
    "land": "\\text{and}",
    "vee": "\\text{or}",
    "wedge": "\\text{and}",
    "implies": "\\Rightarrow ",
    "bar": "\\overline",
    "varphi": "\\phi ",
    "textdegree": "^\\circ ",
}
_COMMAND = re.compile(r"\\([A-Za-z]+)")
# `{a \over b}`, `{n \choose k}`
_INFIX = re.compile(r"\{([^{}\\]*)\\(over|choose)(?![A-Za-z])([^{}]*)\}")
_PREFIX = {"over": "frac", "choose": "binom"}
# `5^{\text{th}}`
_ORDINAL = re.compile(r"(?<=[0-9])\s*\^\s*(?:\{\s*(?:\\text\{)?|\\text\{)(st|nd|rd|th)\}{1,2}")
_MODULUS = re.compile(r"\\pmod\s*(?:\{([^{}]*)\}|([0-9]))|\(\s*(?:\\text\{)?\\?b?mod\b\}?\s*([0-9A-Za-z]+)\s*\)")
# `3 x 10^5`
_POWER_OF_TEN = re.compile(r"(?<=[0-9])\s?x\s?(?=10\s?\^)")
_QUOTIENT_OF_UNITS = re.compile(r"\\frac\s*\{\s*\\text\{([^{}]*)\}\s*\}\s*\{\s*\\text\{([^{}]*)\}\s*\}")

# Plain words. Shorter runs of letters are products of variables, but for these.
_RUN = re.compile(r"\\text\{[^{}]*\}|\\(?:begin|end|operatorname\*?|mathbb)\s*\{[^{}]*\}|\\[A-Za-z]+|[A-Za-z]{2,}")
_SHORT_WORDS = _words(
    "and or to no yes odd one two six ten may red men cat dog day ways cup am pm usd rs in ft mi mm cm cms km kms"
    " kmph kph mph kg lb lbs oz gm mg ml hr hrs min mins sec secs"
)
_FUNCTIONS = _words(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp sqrt pi theta alpha beta gamma lambda"
    " infty gcd lcm deg det dim mod"
)
_PLAIN_SYMBOLS = {
    "infinity": "\\infty ",
    "inf": "\\infty ",
    "oo": "\\infty ",
    "asin": "\\arcsin ",
    "acos": "\\arccos ",
}
# `5 m`: metres, at the end of a plain number.
_LETTER_UNIT = re.compile(r"^(-?[0-9][0-9.,/]*)\s+([msghL])$")
_MIXED = re.compile(r"(?<![0-9./^_{])([0-9]+)\s+([0-9]+)\s*/\s*([0-9]+)(?![0-9])")
_SPACE = re.compile(r"(?P<text>\\text\{[^{}]*\})|(?P<command>\\[A-Za-z]+)\s+(?=[A-Za-z])|\s+")
# A comma between numbers is a separator if a space follows it; then commas without one group digits: `(0, 10,000)`.
_SPACED_COMMA = re.compile(r"(?<=[0-9]),\s+(?=[0-9]{3}(?![0-9]))")
_SPACED = re.compile(r",\s")
_GROUPING = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")


@lru_cache(maxsize=16384)
def normalise(text: str) -> str:
    """Return the one spelling of an answer; "" if nothing is left. Raises `TooComplex` if it is too long to be one."""
    text = text.strip()
    if len(text) > MAX_LENGTH:
        raise TooComplex
    if _PLAIN.fullmatch(text):
        return text
    text = _ascii(text)
    text = _without_dollars(text.strip(" \t\r\n*`"))
    text = _THOUSANDS.sub("", text)
    text = _LAYOUT.sub(lambda match: match["row"] or (" " if match["space"] or match["tie"] else ""), text)
    text = _WRAPPER.sub(r"\1", text)
    text = _fonts(text)
    text = _INFIX.sub(lambda match: f"\\{_PREFIX[match[2]]}{{{match[1]}}}{{{match[3]}}}", text)
    text = _COMMAND.sub(lambda match: _COMMANDS.get(match[1], match[0]), text)
    text = _MODULUS.sub(lambda match: f"\\text{{mod {match[1] or match[2] or match[3]}}}", text)
    text = _POWER_OF_TEN.sub(r"\\cdot ", text)
    text = _QUOTIENT_OF_UNITS.sub(r"\\text{\1/\2}", _ORDINAL.sub(r"\\text{\1}", text))
    text = re.sub(r"\^\s*\{\s*\\circ\s*\}|\^\s*\\circ(?![A-Za-z])", r"^\\circ ", text)
    text = text.replace("\\%", "%").replace("**", "^").replace("*", "\\cdot ")
    text = text.replace("<=", "\\le ").replace(">=", "\\ge ").replace("!=", "\\ne ").replace("==", "=")
    if _SPACED.search(text):
        text = _SPACED_COMMA.sub(";", _GROUPING.sub("", text))
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    text = _LETTER_UNIT.sub(r"\1\\text{\2}", text)
    text = _RUN.sub(_word, text)
    text = re.sub(r"(\\text\{[^{}]*)\}\s*/\s*([a-z]{1,3})(?![a-z{(\\])", r"\1/\2}", text)  # `km/h`
    text = re.sub(r"\\text\{([^{}]*)\}(?:\s*\\text\{([^{}]*)\})+", _merged, text)
    return _trimmed(_SPACE.sub(_kept_space, text))


def _ascii(text: str) -> str:
    if text.isascii():
        return text
    text = _ROOT.sub(lambda match: f"\\sqrt{_ROOTS[match['sign']]}{{{match['inner'] or match['factor']}}}", text)
    text = _RAISED.sub(lambda match: f"^{{{match[0]}}}", text)
    text = _LOWERED.sub(lambda match: f"_{{{match[0]}}}", text)
    text = unicodedata.normalize("NFKC", text.translate(_UNICODE)).translate(_UNICODE)
    # Digits of any script; and nothing that is neither text nor space.
    return "".join(
        character
        if character.isascii()
        else str(unicodedata.digit(character))
        if character.isdigit()
        else ""
        if unicodedata.category(character)[0] == "C"
        else character
        for character in text
    )


def _without_dollars(text: str) -> str:
    r"""Remove the marks of formulas. A dollar without a partner is money, as `\$` is."""
    text = text.replace("\\(", " ").replace("\\)", " ") if "\\\\(" not in text else text
    if text.startswith("\\[") and text.endswith("\\]"):
        text = text[2:-2]
    text = text.replace("\\$", "\0")
    if text.count("$") % 2:
        text = text.replace("$", "\0", 1)
    return text.replace("$", " ").replace("\0", "\\$")


def _fonts(text: str) -> str:
    r"""Make every font `\text{..}`, but take it from letters in bold and from numbers: `\mathbf{2340}`."""
    text = _STYLED.sub(_unstyled, text)
    return _TEXT.sub(lambda match: f"\\text{{{' '.join(match[1].split())}}}", _FONT.sub(r"\\text", text))


def _unstyled(match: re.Match[str]) -> str:
    if match[3] and not _FONT.match(match[0]):
        return match[0]
    return match[1] or match[2] or match[3] or ""


def _word(match: re.Match[str]) -> str:
    """Mark a run of letters as a word, if it is one and no product of variables."""
    run = match[0]
    if not run[0].isalpha():
        return run
    lower = run.lower()
    if lower in _PLAIN_SYMBOLS:
        return _PLAIN_SYMBOLS[lower]
    if lower in _FUNCTIONS:
        return f"\\{lower} "
    if lower in _SHORT_WORDS or (re.search(r"[aeiouy]", lower) and (len(run) >= 4 or _is_among_words(match))):
        return f"\\text{{{run}}}"
    return run


def _is_among_words(match: re.Match[str]) -> bool:
    text, start, end = match.string, match.start(), match.end()
    return re.match(r"\s+[A-Za-z]{2}", text[end : end + 8]) is not None or (
        re.search(r"(?<![\\A-Za-z])[A-Za-z]{2,}\s+$", text[max(0, start - 20) : start]) is not None
    )


def _merged(match: re.Match[str]) -> str:
    return "\\text{" + " ".join(" ".join(_TEXT.findall(match[0])).split()) + "}"


def _kept_space(match: re.Match[str]) -> str:
    if match["text"]:
        return match[0]
    if match["command"]:
        return match["command"] + " "
    before = match.string[match.start() - 1 : match.start()]
    after = match.string[match.end() : match.end() + 1]
    return " " if before.isdigit() and after and after in "0123456789." else ""


def _trimmed(text: str) -> str:
    while True:
        shorter = text.strip(" ,;:=")
        if shorter.endswith("\\\\"):
            shorter = shorter[:-2]
        shorter = shorter.removesuffix(".").removesuffix("\\") if not shorter.endswith("\\.") else shorter
        if shorter.startswith("+"):
            shorter = shorter[1:]
        if shorter == text:
            return text
        text = shorter

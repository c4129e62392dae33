r"""What two copies of one text have in common: small words, numbers, and the signs that mathematics needs.

    What is $1{,}000 \times \left( x^{2} - \frac12 \right)$?      what is 1000 * x ^ 2 - frac 1 2
    What is \(1000 \cdot (x² - \tfrac{1}{2})\) ?                  (the same)

A reader can say why two texts are the same: they differ in what is listed here, and in nothing else.

1. Case, and Unicode's compatibility forms (NFKC: full-width digits, ligatures), but that a raised digit is a power.
2. LaTeX that says how something looks: dollars, braces, spaces (`\!`, `\quad`, `~`), `\left`, `\displaystyle`, fonts
   and `\text{}`, environments that only align. Other commands are words: `\alpha` is `alpha`.
3. Signs with several spellings have one: `\times`, `\cdot` are `*`; `\le`, `\leq` are `≤`; `\dfrac` is `frac`.
4. Numbers are words of their own, without commas between thousands (`1,000` and `1{,}000` are `1000`): `2x` is `2 x`.
   So `(100,200)`, without a space, is read as one number.
5. Punctuation, brackets, underscores, and hyphens inside of words go. Operators stay, as words: `x+1` is not `x-1`.
6. In scripts without spaces (Chinese, Japanese, Thai, ...) every character is a word.

Most texts are short, so many are read at a time, joined by a character that no word contains.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence


# A word of its own behind every text.
BOUNDARY = "\0"

_SPELLINGS = {
    "*": "times cdot ast",
    "/": "div",
    "≤": "le leq leqslant",
    "≥": "ge geq geqslant",
    "≠": "ne neq",
    "<": "lt",
    ">": "gt",
    "°": "circ degree",
    "π": "pi",
    "√": "sqrt",
    "∞": "infty",
    "frac": "dfrac tfrac cfrac",
    "binom": "dbinom tbinom",
    "": "left right middle displaystyle textstyle limits quad qquad big bigl bigr bigg biggl biggr text textbf textit "
    "textrm textsf texttt mathrm mathbf mathit mathsf mbox hbox rm bf it emph underline cdots ldots dots dotsc dotsb "
    "hspace vspace hfill smallskip medskip bigskip newline noindent centering item",
}
_COMMANDS = {name: f" {sign} " for sign, names in _SPELLINGS.items() for name in names.split()}
_COMMAND = re.compile(r"\\([a-z]+)|\\[^a-z%\0]")
_DEGREES = re.compile(r"\^\s*\{?\s*\\(?:circ|degree)(?![a-z])")
_SHORT_FRACTION = re.compile(r"\\[dtc]?frac\s*(\d)\s*(?=\d)")
_LAYOUT = re.compile(
    r"\\(?:begin|end)\s*\{(?:align|aligned|alignat|eqnarray|equation|gather|gathered|split|multline|center|math"
    r"|displaymath)\*?\}"
)
# Patterns begin with what is rare, and look back from there: most of a text is then passed over quickly.
_THOUSANDS = re.compile(
    "|".join(
        rf"{comma}(?<=\d{comma})(?<!\d{{4}}{comma})(?<!\b0{comma})(?=\d{{3}}(?!\d))"
        for comma in (r",\\!", r"\{,\}", r"\\,", ",")
    )
)
_HYPHEN = re.compile(r"-(?:(?<=[^\W_]-)(?=[^\W\d_]{2})|(?<=[^\W\d_]{2}-)(?=[^\W_]))")

_RAISED = re.compile("[⁰¹²³⁴-⁹⁻ⁿ]+")
# A fraction in one character would become digits of the number before it: 1½ is not 11/2.
_FRACTION = re.compile("[¼-¾⅐-⅞]")
_SIGNS = str.maketrans(
    {"\u2044": "/", "\u2212": "-", "\u2013": "-", "\xd7": "*", "\xb7": "*", "\u22c5": "*", "\u2217": "*", "\xf7": "/"}
)

# Thai to Tibetan, Myanmar, Khmer; Chinese and Japanese. Korean has spaces.
_SPACELESS = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
# Accents and vowel signs, which belong to a word, but are no letters to `re`.
_MARKS = "\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0903\u093a-\u094f\u0951-\u0957"
_MARKS += "\u0981-\u0983\u09bc-\u09d7\u0a01-\u0a03\u0a3c-\u0a51\u0b82\u0bbe-\u0bd7\u0c00-\u0c04\u0c3e-\u0c56"
_FACTORIAL = r"!(?:(?<=[\d)]!)|(?<=\b[a-z]!))"
_ASCII_WORD = re.compile(rf"[a-z]+|\d+(?:\.\d+)?|[-+*/^=<>|%\0]|\.\d+|{_FACTORIAL}")
_WORD = re.compile(
    rf"[a-z]+(?![^\W\d_{_SPACELESS}]|[{_MARKS}])|\d+(?:\.\d+)?|[-+*/^=<>|%\0°\u2190-\u22ff\u2a00-\u2aff]|[{_SPACELESS}]"
    rf"|(?:[^\W\d_{_SPACELESS}]|[{_MARKS}])+|\.\d+|{_FACTORIAL}"
)
_PLAIN_WORD = re.compile(rf"[a-z0-9]+(?![^\W_{_SPACELESS}])|[{_SPACELESS}]|[^\W_{_SPACELESS}]+|\0")

# Texts to their words, one after the other, each text followed by `BOUNDARY`.
Reader = Callable[[Sequence[str]], list[str]]


def normalised_words(texts: Sequence[str]) -> list[str]:
    """Return the words of texts in their normal form, one after the other, each text followed by `BOUNDARY`."""
    text = joined(texts).casefold()
    if not text.isascii():
        text = _RAISED.sub(lambda match: "^" + match[0], _FRACTION.sub(r" \g<0>", text))
        text = unicodedata.normalize("NFKC", text).casefold().translate(_SIGNS)
    if "\\" in text:
        text = _SHORT_FRACTION.sub(r"\\frac \1 ", _DEGREES.sub("\xb0", _LAYOUT.sub(" ", text)))
    text = _THOUSANDS.sub("", text)
    if "\\" in text:
        text = _COMMAND.sub(_command, text)
    return (_ASCII_WORD if text.isascii() else _WORD).findall(_HYPHEN.sub(" ", text))


def plain_words(texts: Sequence[str]) -> list[str]:
    """Return runs of letters and digits in small letters, as published n-gram filters read texts."""
    return _PLAIN_WORD.findall(joined(texts).casefold())


def normalise(text: str) -> str:
    """Return the normal form of one text, in which all its copies are equal."""
    return " ".join(normalised_words([text])[:-1])


def words_of(reader: Reader, text: str) -> list[str]:
    """Return the words of one text, without the boundary."""
    return reader([text])[:-1]


def numbers(words: Sequence[str]) -> list[str]:
    """Return the words that are numbers, in their order."""
    return [word for word in words if word[-1].isdigit()]


def _command(match: re.Match[str]) -> str:
    return _COMMANDS.get(match[1], f" {match[1]} ") if match[1] else " "


def joined(texts: Sequence[str]) -> str:
    """Return texts as one, each ended by `BOUNDARY`, which none of them has inside."""
    together = BOUNDARY.join([*texts, ""])
    if together.count(BOUNDARY) == len(texts):
        return together
    return BOUNDARY.join([*(text.replace(BOUNDARY, " ") for text in texts), ""])

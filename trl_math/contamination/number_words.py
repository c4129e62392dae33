r"""The numbers that a text names, in one form, however they are written.

    1,000 = 10{,}000 / 10 = one thousand     \frac{1}{2} = 1/2 = 0.5 = half = 50 %     2 dozen = 24     twice = two = 2

Some words leave open which number they mean, so what is read from one place is a set of numbers, and one is meant:
`third` is 3 or 1/3, `75 cents` are 75 or 3/4, `30 %` is 30 or 3/10.

Other words only *imply* a number: a week has 7 days, `both` are 2, `a` is 1. A writer may say such a number or leave
it out, so it can stand for a number on the other side, and is never missing there.

Drawings in Asymptote are not read: their coordinates are no numbers of the problem.
"""

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple


# Written as Python writes a fraction (`3/4`, `12`): texts are compared by the million, and text is hashed once.
Meanings = frozenset[str]


class Numbers(NamedTuple):
    """The numbers of a text: every mention in its order, and those that words imply."""

    mentions: tuple[Meanings, ...]
    implied: Meanings

    @property
    def named(self) -> tuple[Meanings, ...]:
        """Each number once."""
        return tuple(dict.fromkeys(self.mentions))


def _listed(words: str) -> list[str]:
    return words.split()


_UNITS = _listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
)
_TENS = _listed("twenty thirty forty fifty sixty seventy eighty ninety")
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = _listed("third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth")

_CARDINALS = {word: number for number, word in enumerate(_UNITS)} | {
    word: 10 * number for number, word in enumerate(_TENS, start=2)
}
# What one word means on its own; several where the word leaves it open.
_WORDS: dict[str, tuple[Fraction, ...]] = {
    # `A has half of what B has`: B has twice what A has.
    "half": (Fraction(1, 2), Fraction(2)),
    "halve": (Fraction(1, 2),),
    "halved": (Fraction(1, 2),),
    "halves": (Fraction(1, 2),),
    "quarter": (Fraction(1, 4), Fraction(25)),
    "quarters": (Fraction(1, 4), Fraction(25)),
    "dozen": (Fraction(12),),
    "dozens": (Fraction(12),),
    "score": (Fraction(20),),
    "twice": (Fraction(2),),
    "double": (Fraction(2),),
    "doubles": (Fraction(2),),
    "doubled": (Fraction(2),),
    "doubling": (Fraction(2),),
    "twofold": (Fraction(2),),
    "thrice": (Fraction(3),),
    "triple": (Fraction(3),),
    "triples": (Fraction(3),),
    "tripled": (Fraction(3),),
    "tripling": (Fraction(3),),
    "threefold": (Fraction(3),),
    "quadruple": (Fraction(4),),
    "quadrupled": (Fraction(4),),
    "fourfold": (Fraction(4),),
    "quintuple": (Fraction(5),),
} | {
    word: (Fraction(number), Fraction(1, number))
    for number, part in enumerate(_PARTS, start=3)
    for word in (part, f"{part}s")
}
# Not said of every text, and never missing: these words stand for a number that the other text may name.
_IMPLIED = {
    "a": (1,),
    "an": (1,),
    "one": (1,),
    "once": (1,),
    "single": (1,),
    "each": (1,),
    "per": (1,),
    "every": (1,),
    "first": (1,),
    "alone": (1,),
    "another": (1,),
    "second": (2, 60),
    "pair": (2,),
    "pairs": (2,),
    "couple": (2,),
    "both": (2,),
    "other": (2,),
    "twin": (2,),
    "twins": (2,),
    "two": (2,),
    "either": (2,),
    "square": (2,),
    "squared": (2,),
    "cube": (3,),
    "cubed": (3,),
    "trio": (3,),
    "triplets": (3,),
    "decade": (10,),
    "century": (100,),
    "percent": (100,),
    "no": (0,),
    "none": (0,),
    "nothing": (0,),
    "positive": (0,),
    "negative": (0,),
    "nonnegative": (0,),
    "nonzero": (0,),
    "week": (7,),
    "weeks": (7,),
    "weekly": (7,),
    "weekday": (5,),
    "weekdays": (5,),
    "weekend": (2,),
    "weekends": (2,),
    "day": (24,),
    "days": (24,),
    "daily": (1,),
    "year": (12, 52, 365, 1),
    "years": (12, 52, 365),
    "month": (30, 31, 12),
    "months": (30, 31, 12),
    "hour": (60, 1),
    "hours": (60,),
    "minute": (60, 1),
    "minutes": (60,),
    "foot": (12,),
    "feet": (12,),
    "yard": (3,),
    "yards": (3,),
    "pound": (16,),
    "pounds": (16,),
    "gallon": (4,),
    "gallons": (4,),
    "meter": (100,),
    "meters": (100,),
    "dollar": (100,),
    "dollars": (100,),
}
# What is said in one unit may be said in another: half an hour, 30 minutes; 50 %, half; 75 cents, $0.75.
_UNIT_SCALES: dict[str, tuple[Fraction, ...]] = {
    unit: (scale,)
    for units, scale in {
        "% percent percents percentage cent cents \u00a2 pennies": Fraction(1, 100),
        "hour hours minute minutes": Fraction(60),
        "week weeks": Fraction(7),
        "year years foot feet": Fraction(12),
    }.items()
    for unit in units.split()
}
_ALWAYS_IMPLIED = frozenset({"1"})

_DRAWING = re.compile(r"\[asy\].*?(?:\[/asy\]|\Z)", re.DOTALL)
_FRACTION_SIGN = re.compile("[\u00bc-\u00be\u2150-\u215e]")
_SIGNS = str.maketrans(
    {"\u2044": "/", "\u2212": "-", "\u2013": "-", "\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"'}
)
_SIZED = re.compile(r"\\[dtc](?=frac|binom)")
_FRAC = re.compile(r"\\frac\s*(?:\{\s*(\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")
_THOUSANDS_LATEX = re.compile(r"(?<=\d)(?:\{,\}|,?\\[!,;])(?=\d{3})")
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+")

_TOKEN = re.compile(
    r"""
    (?P<mixed> \d+ (?:\s+|\s+and\s+|-) \d+/\d+ (?![\d/.]) )
  | (?P<ratio> \d+\s*/\s*\d+ (?!\d|/) )
  | (?P<time> (?<!\d) \d{1,2}:00 (?!\d) )
  | (?P<digits> (?: \d{1,3}(?:,\d{3})+(?!\d) (?:\.\d+)? | \d+(?:\.\d+)? | (?<!\d)\.\d+ ) )
  | (?P<word> [a-z]+ (?:'[a-z]+)? )
  | (?P<mark> [%\u00a2-] )
    """,
    re.VERBOSE,
)


def without_drawings(text: str) -> str:
    """Return a text without its drawings in Asymptote; a text that is nothing else stays."""
    return (_DRAWING.sub(" ", text).strip() or text) if "[asy]" in text else text


def clean(text: str) -> str:
    """Return a text in small letters without drawings, with fractions as `1/2` and numbers as in `1,000`."""
    text = without_drawings(text)
    if not text.isascii():
        text = _RAISED.sub(lambda match: "^" + match[0], _FRACTION_SIGN.sub(r" \g<0>", text))
        text = unicodedata.normalize("NFKC", text).translate(_SIGNS)
    if "\\" in text or "{," in text:
        text = _SIZED.sub(r"\\", text)
        text = _FRAC.sub(lambda match: f" {match[1] or match[2]}/{match[3] or match[4]} ", text)
        text = _THOUSANDS_LATEX.sub(",", text).replace("\\%", "%").replace("\\$", "$")
    return text.casefold()


def numbers_of(cleaned: str) -> Numbers:
    """Return the numbers of a text that `clean` made."""
    mentions: list[Meanings] = []
    implied: set[str] = set(_ALWAYS_IMPLIED)
    tokens = [(match.lastgroup or "", match[0]) for match in _TOKEN.finditer(cleaned)]
    place = 0
    while place < len(tokens):
        meanings, end = _number_at(tokens, place)
        if meanings:
            mentions.append(meanings)
        else:
            implied.update(map(str, _IMPLIED.get(tokens[place][1], ())))
        place = end
    # The number one is said or left out at will.
    return Numbers(tuple(meant for meant in mentions if not meant <= _ALWAYS_IMPLIED), frozenset(implied))


def _number_at(tokens: list[tuple[str, str]], place: int) -> tuple[Meanings, int]:
    """Return what the number that begins at a token may mean (nothing if none begins), and the token behind it."""
    value, end = _value_at(tokens, place)
    if value is None:
        kind, word = tokens[place]
        values = _WORDS.get(word, ()) if kind == "word" else ()
        return _meanings(
            *values, *(value * scale for value in values for scale in _scales(tokens, place + 1))
        ), place + 1
    value, end = _with_fraction(tokens, value, end)
    following = _word(tokens, end)
    if following in _SCALES or following in ("k", "m"):
        value, end = value * {"k": 1000, "m": 10**6, **_SCALES}[following], end + 1
        following = _word(tokens, end)
    if following in ("dozen", "dozens"):
        return _meanings(value * 12), end + 1
    return _meanings(value, *(value * scale for scale in _scales(tokens, end))), end


def _scales(tokens: list[tuple[str, str]], place: int) -> tuple[Fraction, ...]:
    """Return by what a number may be multiplied in another writing because of the unit that follows: 60 for hours."""
    while _word(tokens, place) in ("a", "an", "of", "the", "-"):
        place += 1
    return _UNIT_SCALES.get(_word(tokens, place), ())


def _meanings(*values: Fraction) -> Meanings:
    return frozenset(map(str, values))


def _value_at(tokens: list[tuple[str, str]], place: int) -> tuple[Fraction | None, int]:
    kind, text = tokens[place]
    if kind == "word":
        return _cardinal_at(tokens, place)
    if kind == "mark":
        return None, place + 1
    if kind == "time":
        return Fraction(text.partition(":")[0]), place + 1
    if kind == "digits":
        return Fraction(text.replace(",", "")), place + 1
    whole, ratio = re.fullmatch(r"(?:(\d+)\D+)??(\d+\s*/\s*\d+)", text).groups()  # type: ignore[union-attr]
    top, bottom = ratio.split("/")
    value = Fraction(int(top), int(bottom)) if int(bottom) else Fraction(int(top))
    return value + int(whole or 0), place + 1


def _cardinal_at(tokens: list[tuple[str, str]], place: int) -> tuple[Fraction | None, int]:
    """Read `twenty-five`, `two hundred and five`, `a hundred`; the number one alone is none, nor is `a`."""
    word = tokens[place][1]
    if word not in _CARDINALS and not (word in ("a", "one") and _word(tokens, place + 1) in _SCALES):
        return (Fraction(_SCALES[word]), place + 1) if word in _SCALES else (None, place + 1)
    total, group, end = 0, 0, place
    while end < len(tokens) and tokens[end][0] in ("word", "mark"):
        word = tokens[end][1]
        if word in _CARDINALS:
            number = _CARDINALS[word]
            # `three four` are two numbers, `twenty four` is one.
            if end > place and group % 100 and not (group % 10 == 0 and group % 100 >= 20 and number < 10):
                break
            group += number
        elif word == "a" and end == place:
            group = 1
        elif word == "hundred":
            group = (group or 1) * 100
        elif word in _SCALES:
            total, group = total + (group or 1) * _SCALES[word], 0
        elif not (word in ("and", "-") and end > place and _continues(tokens, end, group, total, word)):
            break
        end += 1
    return Fraction(total + group), end


def _continues(tokens: list[tuple[str, str]], place: int, group: int, total: int, word: str) -> bool:
    following = _word(tokens, place + 1)
    if word == "-":
        return following in _CARDINALS and group % 10 == 0 and group % 100 >= 20 and _CARDINALS[following] < 10
    return following in _CARDINALS and ((group >= 100 and group % 100 == 0) or (group == 0 and total > 0))


def _with_fraction(tokens: list[tuple[str, str]], value: Fraction, end: int) -> tuple[Fraction, int]:
    """Read what makes `three and a half`, `two-thirds`, `3 halves` of a whole number."""
    after = end + 1 if _word(tokens, end) == "-" else end
    word = _word(tokens, after)
    part = _part(word)
    if part and value.denominator == 1 and (word.endswith("s") or value == 1) and word != "seconds":
        return value * part, after + 1
    if _word(tokens, end) == "and":
        after = end + 2 if _word(tokens, end + 1) in ("a", "one") else end + 1
        part = _part(_word(tokens, after))
        if part and after == end + 2:
            return value + part, after + 1
    return value, end


def _part(word: str) -> Fraction | None:
    singular = "half" if word == "halves" else word.removesuffix("s")
    if singular in ("half", "quarter"):
        return Fraction(1, 2 if singular == "half" else 4)
    return Fraction(1, _PARTS.index(singular) + 3) if singular in _PARTS else None


def _word(tokens: list[tuple[str, str]], place: int) -> str:
    return tokens[place][1] if place < len(tokens) else ""

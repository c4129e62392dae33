"""The numbers that a question names: where they stand, what they are worth, and how another one is written there.

Some are `fixed`, since another number in their place would be no number of the same kind, or would change the words
around it: fractions (in digits or words), ordinals, times of the day, dates and years, and one. Percent signs make a
kind of their own. All others may be replaced.

Beside these, words imply numbers that a calculation may use without the question naming them: a week has 7 days.
"""

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple


NUMBER, PERCENT, CENTS, FIXED = "number", "percent", "cents", "fixed"

_UNITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_UNITS += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORDS = {word: value for value, word in enumerate(_UNITS)} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}
_TENS_WORD, _UNIT_WORD = "|".join(_TENS), "|".join(_UNITS[1:10])
_WORD = rf"(?:(?:{_TENS_WORD})-(?:{_UNIT_WORD})|{'|'.join(sorted(_WORDS, key=len, reverse=True))})"
_MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_PARTS = (
    "half|halves|third|fourth|quarter|fifth|sixth|seventh|eighth|ninth|tenth|thirds|fourths|quarters|fifths|sixths|"
    "sevenths|eighths|ninths|tenths"
)
# Units that are written behind digits without a space.
_ATTACHED = r"(?:km|kg|cm|mm|ml|mph|ft|lbs?|oz|gb|mb|in|m|g|l)"
_MENTION = re.compile(
    rf"""
    (?P<time> (?<!\w)\d{{1,2}} (?: :\d{{2}}(?:\s?[ap]\.?m\b\.?)? | \s?[ap]\.?m\b\.? | \s?o['\u2019]clock ) )
  | (?P<date> \b{_MONTH}\s+\d{{1,2}}\b(?:st|nd|rd|th)? | \b\d{{1,2}}/\d{{1,2}}/\d{{2,4}}\b )
  | (?P<fraction> (?<![\w.,/])(?:\d+\s+(?:and\s+)?)?\d+\s?/\s?\d+(?![\w/]) )
  | (?P<part> (?<![\w.,])(?:{_WORD}|an?|\d+)[\s-](?:{_PARTS})\b )
  | (?P<ordinal> \b\d+(?:st|nd|rd|th)\b )
  | (?P<mixed> [#]\d+ | \b[A-Za-z][A-Za-z-]*\d+\w* | \d+(?:\.\d+)?(?!{_ATTACHED}\b)[A-Za-z]\w* )
  | (?P<year> (?:(?<=in\ )|(?<=since\ )|(?<=year\ )|(?<=until\ )|(?<=by\ )|(?<=of\ ))(?:1[5-9]|20)\d\d\b(?![,.]?\d) )
  | (?P<digits> (?<![\w.])(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)? | (?<![\w.])\.\d+ )
  | (?P<word> (?<![\w-])(?:{_WORD})\b(?!-(?:{_PARTS})\b)(?!['\u2019]) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_PERCENT = re.compile(r"\s?(?:%|percent\b|per cent\b)", re.IGNORECASE)
_CENTS = re.compile(r"\s?(?:\u00a2|cents?\b)", re.IGNORECASE)
# What names a larger number together with the one before it: `3 hundred`, `2 dozen`, `1.5 million`.
# `there are 31 days in March`
_CALENDAR = re.compile(r"\s+(?:days?|weeks?|months?|hours?|minutes?|seconds?) (?:in|of) ", re.IGNORECASE)
# `the two days`, `all three girls`: how many were spoken of before.
_COUNTING = re.compile(r"\b(?:the|all|these|those|other)\s+\Z", re.IGNORECASE)
_ORDINALS = ["second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
_ORDINAL = re.compile(rf"\b(?:({'|'.join(_ORDINALS)})|(\d{{1,2}})(?:st|nd|rd|th))\b", re.IGNORECASE)
_SCALE = re.compile(r"[\s-](?:hundred|thousand|million|billion|dozen|score)\b", re.IGNORECASE)

# Words -> numbers that a calculation may use because of them.
_IMPLIED: Mapping[str, Sequence[str]] = {
    r"half|halves|halved": ("2", "1/2", "3/2"),
    r"thirds|third (?:of|as)": ("3", "1/3", "2/3", "2"),
    r"quarters?|fourths|fourth of": ("4", "1/4", "3/4", "3", "25"),
    r"fifths|fifth of": ("5", "1/5", "2/5", "3/5", "4/5", "2", "3", "4"),
    r"twice|doubles?|doubled|doubling|couples?|pairs?|both|twins?|weekends?|each other": ("2",),
    r"parents|wife|husband|spouse|girlfriend|boyfriend|partner|semesters?": ("2",),
    r"round[ -]trips?|return(?:s|ed|ing)?|one[ -]way|there and back|to and from|back and forth": ("2",),
    r"mornings? and (?:\w+ ){0,4}(?:evening|night|afternoon)s?": ("2",),
    r"arms?|hands?|eyes?|ears?|wings?|socks?|gloves?": ("2",),
    r"legs?": ("2", "4", "6", "8"),
    r"wheels?|tires?": ("2", "3", "4"),
    r"thrice|triples?|tripled|tripling|triplets?|triangles?|meals": ("3",),
    r"quadruples?|quadrupled|quarts?|squares?|rectang\w+|sides?|walls?|corners?|seasons?": ("4", "2"),
    r"cubes?|dice|die|hexag\w+": ("6",),
    r"Monday (?:to|through|until|-) Friday|fingers?|toes?|pentag\w+": ("5",),
    r"octop\w+|octag\w+": ("8",),
    r"Monday|Friday|nickels?|fingers?|toes?|pentag\w+": ("5",),
    r"dozens?": ("12",),
    r"decades?|dimes?": ("10", "1/10"),
    r"nickel|nickels": ("5", "1/20"),
    r"penny|pennies|centur(?:y|ies)": ("100", "1/100"),
    r"cents?|dollars?": ("100", "1/100"),
    r"weekdays?|workdays?|business days?": ("5",),
    r"weeks?|weekly": ("7",),
    r"days?|daily": ("24", "7"),
    r"months?|monthly": ("12", "30", "4"),
    r"years?|yearly|annual(?:ly)?": ("12", "365", "52"),
    r"hours?|hourly|minutes?|seconds?": ("60", "3600"),
    r"feet|foot|inch(?:es)?": ("12",),
    r"yards?": ("3", "36"),
    r"pounds?|ounces?": ("16",),
    r"gallons?": ("4",),
    r"kilo\w+|kg|km|liters?|milli\w+|ml|tons?": ("1000",),
    r"meters?|centimeters?|cm": ("100",),
    r"hundreds?": ("100",),
    r"thousands?": ("1000",),
    r"millions?": ("1000000",),
}
_IMPLIED_BY = [
    (re.compile(rf"\b(?:{words})\b", re.IGNORECASE), frozenset(map(Fraction, values)))
    for words, values in _IMPLIED.items()
]


class Mention(NamedTuple):
    """A number in a question."""

    start: int
    end: int
    text: str
    kind: str
    value: Fraction  # of a fixed one that is no number, 0
    most: int | None = None  # what it cannot be above: there are 7 days in a week

    @property
    def is_fixed(self) -> bool:
        return self.kind == FIXED


def find_mentions(question: str) -> list[Mention]:
    """Return the numbers of a question, in their order."""
    mentions = [_mention(found, question) for found in _MENTION.finditer(question)]
    counted = _counted(question)
    return [one._replace(kind=FIXED) if one.value in counted else one for one in mentions]


def implied_numbers(question: str, mentions: Sequence[Mention]) -> frozenset[Fraction]:
    """Return what a calculation may use that is not replaced: constants, and what fixed numbers and words say."""
    values = {Fraction(0), Fraction(1)}
    for pattern, implied in _IMPLIED_BY:
        if pattern.search(question):
            values |= implied
    for mention in mentions:
        if mention.kind == PERCENT:
            values |= {Fraction(100), Fraction(1, 100)}
        elif mention.is_fixed:
            values |= _said_by_fixed(mention)
    return frozenset(values)


def write_number(value: Fraction, mention: Mention) -> str:
    """Return a number as the mention writes its own: in words, with commas, with as many decimals."""
    text = mention.text
    if not text[0].isdigit() and text[0] != ".":
        word = number_word(int(value))
        return word.capitalize() if text[0].isupper() else word
    places = len(text.partition(".")[2])
    written = f"{float(value):.{places}f}" if places else str(int(value))
    whole, point, rest = written.partition(".")
    if "," in text:
        whole = f"{int(whole):,}"
    return f"{whole if text[0] != '.' else ''}{point}{rest}"


def number_word(number: int) -> str:
    """Return the word for a number from 0 to 99."""
    if number < 20:
        return _UNITS[number]
    tens, units = divmod(number, 10)
    return _TENS[tens - 2] + (f"-{_UNITS[units]}" if units else "")


def word_value(word: str) -> int | None:
    """Return the number from 0 to 99 that a word names, or None."""
    tens, _, units = word.lower().partition("-")
    if not units:
        return _WORDS.get(tens)
    return _WORDS[tens] + _WORDS[units] if tens in _TENS and units in _UNITS[1:10] else None


def replace_mentions(question: str, written: Mapping[int, str]) -> str:
    """Return the question with other texts at the places of mentions, by where these start; `a` becomes `an`."""
    pieces, end = [], 0
    for mention in find_mentions(question):
        if mention.start in written:
            before = question[end : mention.start]
            pieces += [_with_article(before, written[mention.start]), written[mention.start]]
            end = mention.end
    return "".join([*pieces, question[end:]])


def _mention(found: re.Match[str], question: str) -> Mention:
    start, end, text = found.start(), found.end(), found[0]
    group = found.lastgroup
    if group == "fraction":
        return Mention(start, end, text, FIXED, _fraction(text))
    if group not in ("digits", "word"):
        return Mention(start, end, text, FIXED, Fraction(0))
    named = word_value(text) if group == "word" else None
    value = Fraction(named) if named is not None else Fraction(text.replace(",", ""))
    is_counting = value <= 5 and _COUNTING.search(question, 0, start) is not None
    is_calendar = _CALENDAR.match(question, end) is not None
    if is_counting or is_calendar or (value <= 1 and value.denominator == 1) or _SCALE.match(question, end):
        return Mention(start, end, text, FIXED, value)
    kind = PERCENT if _PERCENT.match(question, end) else CENTS if _CENTS.match(question, end) else NUMBER
    if kind == PERCENT and value == 100:
        kind = FIXED
    return Mention(start, end, text, kind, value, _most(question, start, end, value, is_word=group == "word"))


def _counted(question: str) -> set[int]:
    """Return the numbers that ordinals speak of: who has a fourth test, has 4 of them, and 3 before it."""
    places = [
        _ORDINALS.index(word.lower()) + 2 if word else int(digits) for word, digits in _ORDINAL.findall(question)
    ]
    return {number for place in places for number in (place - 1, place)}


def _most(question: str, start: int, end: int, value: Fraction, *, is_word: bool) -> int | None:
    """Return what a number in its place cannot be above, if it is not above that itself."""
    sentence_end = re.compile(r"[.?!](?:\s|$)").search(question, end)
    sentence = question[end : sentence_end.start() if sentence_end else None]
    before = question[max(0, start - 12) : start].lower()
    behind = sentence[:40].lower()
    bounds = [
        (7, bool(re.match(r"[\s-]days?\b", behind)) and "week" in question.lower()),
        (24, bool(re.match(r"[\s-]hours?\b", behind)) and bool(re.search(r"\bdays?\b|\bdaily\b", question.lower()))),
        (12, bool(re.match(r"[\s-]months?\b", behind)) and "year" in question.lower()),
        (60, bool(re.match(r"[\s-](?:minutes?|seconds?)\b", behind))),
        (110, bool(re.match(r"[\s-]years?[\s-]old\b", behind)) or before.endswith(" is ")),
        (99, is_word),
    ]
    found = [most for most, applies in bounds if applies and value <= most]
    return min(found, default=None)


def _said_by_fixed(mention: Mention) -> set[Fraction]:
    """Return the numbers that someone may calculate with who read a number that stays."""
    if mention.value:
        value = mention.value
        parts = {Fraction(value.numerator), Fraction(value.denominator), Fraction(value.denominator - value.numerator)}
        written = {Fraction(part) for part in re.findall(r"\d+", mention.text)}
        return {value, 1 - value, 1 + value, *parts, *written} if value.denominator > 1 else {value}
    words = re.split(r"[\s-]", mention.text.lower())
    named = [word_value(word) for word in words]
    digits = {Fraction(part) for part in re.findall(r"\d+(?:\.\d+)?", mention.text)}
    return digits | {Fraction(value) for value in named if value is not None}


def _fraction(text: str) -> Fraction:
    *whole, part = re.split(r"(?<=\d)\s+(?:and\s+)?(?=\d+\s?/)", text)
    above, below = map(int, part.split("/"))
    return Fraction(int(whole[0]) if whole else 0) + (Fraction(above, below) if below else 0)


def _with_article(before: str, written: str) -> str:
    """Return the text before a number with the article that the number takes."""
    found = re.search(r"\b([Aa])n?([ $]+)$", before)
    if found is None:
        return before
    takes_an = re.match(r"8|11(?!\d)|18(?!\d)|eight|eleven", written.lower()) is not None
    return f"{before[: found.start()]}{found[1]}{'n' if takes_an else ''}{found[2]}"

"""Units of measurement that an answer may carry. A unit that is left out is no mistake; a different one is.

Words that are no unit of measurement ("apples", "students") never matter.
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple


class Unit(NamedTuple):
    """A power of a kind of quantity, and how many of its base units one of this unit is."""

    quantity: str
    power: int
    factor: Fraction


# quantity -> unit -> how many base units; plurals and dots are taken off before.
_TABLE = {
    "length": {
        "mm millimeter millimetre": Fraction(1, 1000),
        "cm centimeter centimetre": Fraction(1, 100),
        "m meter metre": Fraction(1),
        "km kilometer kilometre": Fraction(1000),
        "in inch": Fraction(254, 10000),
        "ft foot feet": Fraction(3048, 10000),
        "yd yard": Fraction(9144, 10000),
        "mi mile": Fraction(1609344, 1000),
    },
    "time": {
        "s sec second": Fraction(1),
        "min minute": Fraction(60),
        "h hr hour": Fraction(3600),
        "day": Fraction(86400),
        "week": Fraction(604800),
    },
    "mass": {
        "mg milligram": Fraction(1, 1000),
        "g gm gram": Fraction(1),
        "kg kilogram": Fraction(1000),
        "oz ounce": Fraction(45359237, 1600000),
        "lb pound": Fraction(45359237, 100000),
    },
    "volume": {"ml milliliter millilitre": Fraction(1, 1000), "l liter litre": Fraction(1)},
    "money": {"cent": Fraction(1, 100), "dollar usd": Fraction(1)},
    "count": {"thousand": Fraction(10**3), "million": Fraction(10**6), "billion": Fraction(10**9)},
    "speed": {
        "mph": Fraction(1609344, 1000 * 3600),
        "kmph kph": Fraction(1000, 3600),
    },
    "angle": {"degree": Fraction(1)},
    "radians": {"radian rad": Fraction(1)},
    "morning": {"am": Fraction(1)},
    "afternoon": {"pm": Fraction(1)},
}
_UNITS = {
    name: (quantity, factor)
    for quantity, units in _TABLE.items()
    for names, factor in units.items()
    for name in names.split()
}
_BASES = {"length": "m", "time": "s", "mass": "g", "volume": "l", "money": "dollar", "speed": "m/s", "angle": "degree"}
_BASES |= {"radians": "radian", "morning": "am", "afternoon": "pm", "count": ""}
_POWERS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}
# A pound is money where nothing else says so; nobody can tell.
_AMBIGUOUS = frozenset(("pound", "unit"))


@lru_cache(maxsize=4096)
def unit(text: str) -> Unit | None:
    r"""Return the unit that words name (`cm`, `square feet`, `cm^2`, `miles per hour`), or None if they name none."""
    words = re.findall(r"[a-z]+|\^\{?[23]\}?|/", text.lower().replace(".", ""))
    if "per" in words or "/" in words:
        return _speed(words)
    power = 1
    found: tuple[str, Fraction] | None = None
    for word in words:
        if word in _POWERS:
            power *= _POWERS[word]
        elif word[0] == "^":
            power *= int(word.strip("^{}"))
        elif found is None and (known := _lookup(word)):
            found = known
        else:
            return None
    return None if found is None else Unit(found[0], power, found[1] ** power)


def base(known: Unit) -> str:
    """Return how the base unit of a unit's quantity is written: of km^2, m^{2}."""
    return _BASES[known.quantity] + (f"^{{{known.power}}}" if known.power > 1 else "")


def _lookup(word: str) -> tuple[str, Fraction] | None:
    if word.removesuffix("s") in _AMBIGUOUS:
        return None
    return _UNITS.get(word) or _UNITS.get(word.removesuffix("s")) or _UNITS.get(word.removesuffix("es"))


def _speed(words: list[str]) -> Unit | None:
    separator = words.index("per") if "per" in words else words.index("/")
    above, below = words[:separator], words[separator + 1 :]
    if len(above) != 1 or len(below) != 1 or not (distance := _lookup(above[0])) or not (time := _lookup(below[0])):
        return None
    if (distance[0], time[0]) != ("length", "time"):
        return None
    return Unit("speed", 1, distance[1] / time[1])

"""Whether a rephrased text is unlike its original, keeps its numbers, and is in the language that was asked for."""

import re
from collections.abc import Sequence
from fractions import Fraction

from trl_math.contamination.question_numbers import find_mentions


# Chinese, Japanese and Korean are written without spaces: each sign counts as a word.
_SIGN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_SIGN}]|[^\W{_SIGN}]+(?:[.,]\d+)*")

SCRIPTS = {
    "zh": "\u4e00-\u9fff",
    "ja": "\u3040-\u30ff\u4e00-\u9fff",
    "ko": "\uac00-\ud7af",
    "ru": "\u0400-\u04ff",
    "uk": "\u0400-\u04ff",
    "ar": "\u0600-\u06ff",
    "fa": "\u0600-\u06ff",
    "he": "\u0590-\u05ff",
    "hi": "\u0900-\u097f",
    "bn": "\u0980-\u09ff",
    "th": "\u0e00-\u0e7f",
    "el": "\u0370-\u03ff",
}
# The commonest words of languages in Latin letters, by which a text in one of them is known.
COMMON = {
    "en": "the of and a to in is are was how many much each has have does did for it he she they his her if what",
    "de": "der die das und ist sind ein eine einen wie viele viel "
    "hat haben er sie es mit von zu im in f\u00fcr jede jeder",
    "fr": "le la les et est sont un une des du de combien il elle a ont dans pour chaque par en que qui si",
    "es": "el la los las y es son un una de cu\u00e1ntos "
    "cu\u00e1ntas cu\u00e1nto tiene \u00e9l ella en por cada para si que al",
    "it": "il lo la i gli le e \u00e8 sono un una di quanti quante quanto ha lui lei in per ogni se che del della",
    "pt": "o a os as e \u00e9 s\u00e3o um uma de quantos quantas quanto tem ele ela em por cada para se que do da",
    "nl": "de het en is zijn een hoeveel heeft hij zij ze in voor per elke als van met op dat",
    "pl": "i jest s\u0105 w na ile ma on ona za ka\u017cdy ka\u017cda je\u015bli z do \u017ce si\u0119 to nie po",
    "tr": "bir ve ka\u00e7 ne kadar her o i\u00e7in ile var bu da de e\u011fer tane toplam",
    "vi": "l\u00e0 v\u00e0 c\u00f3 bao nhi\u00eau m\u1ed7i m\u1ed9t "
    "c\u1ee7a c\u00f4 anh \u1ea5y trong cho n\u1ebfu \u0111\u01b0\u1ee3c",
    "id": "yang dan adalah berapa banyak setiap ia dia memiliki di untuk jika dari dengan per",
    "sv": "och \u00e4r en ett hur m\u00e5nga mycket har han hon i f\u00f6r varje per om av med det som",
}
LANGUAGES = {
    "ar": "Arabic",
    "bn": "Bengali",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fa": "Persian",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "ru": "Russian",
    "sv": "Swedish",
    "th": "Thai",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}
MIN_SCRIPT_SHARE = 0.3  # of the letters: formulas and names stay in Latin ones


def words_of(text: str) -> list[str]:
    """Return the words of a text as they are compared."""
    return _WORD.findall(text.casefold())


def overlap(original: str, rephrased: str, n: int = 10) -> float:
    """Return the share of the original's word n-grams that the other text has; a shorter original is one n-gram."""
    before, after = words_of(original), words_of(rephrased)
    n = max(1, min(n, len(before)))
    grams = _grams(before, n)
    return len(grams & _grams(after, n)) / len(grams) if grams else 0.0


def lost_numbers(original: str, rephrased: str) -> list[str]:
    """Return the numbers of the original that the other text has neither in digits nor in words."""
    kept = [value for value, _ in _numbers(rephrased)]
    kept += [Fraction(value) for word, value in _MULTIPLES if re.search(rf"\b(?:{word})\b", rephrased, re.IGNORECASE)]
    return [said for value, said in _numbers(original) if value not in kept]


def has_same_numbers(original: str, rephrased: str) -> bool:
    """Whether two texts have the same numbers."""
    return sorted(value for value, _ in _numbers(original)) == sorted(value for value, _ in _numbers(rephrased))


def lost_digits(original: str, translated: str) -> list[str]:
    """Return the numbers in digits that a translation has not, however it separates thousands and decimals."""
    kept = {_only_digits(text) for text in _DIGITS.findall(translated)}
    return [text for text in _DIGITS.findall(original) if _only_digits(text) not in kept]


def is_language(text: str, language: str) -> bool:
    """Whether a text is in a language, as far as its letters and commonest words tell."""
    letters = [sign for sign in text if sign.isalpha()]
    if language in SCRIPTS:
        script = re.compile(f"[{SCRIPTS[language]}]")
        return sum(bool(script.match(sign)) for sign in letters) >= MIN_SCRIPT_SHARE * max(1, len(letters))
    words = words_of(text)
    counts = {name: sum(word in set(common.split()) for word in words) for name, common in COMMON.items()}
    return counts[language] > 0 and counts[language] == max(counts.values())


_MULTIPLES = (("twice|double", 2), ("thrice|triple", 3))
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_SCALE = re.compile(rf"[\s-]({'|'.join(_SCALES)})\b", re.IGNORECASE)
_DIGITS = re.compile(r"\d+(?:[.,\u202f\u00a0]\d+)*")


def _only_digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def _numbers(text: str) -> list[tuple[Fraction, str]]:
    """Return the numbers that a text names plainly. One is left out, since it is an article and a pronoun as well."""
    found = []
    for one in find_mentions(text):
        scale = _SCALE.match(text, one.end)
        value = one.value * _SCALES[scale[1].lower()] if scale else one.value
        if value not in (0, 1):
            found.append((value, one.text))
    return found


def _grams(words: Sequence[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + n]) for start in range(len(words) - n + 1)}

"""Multiple choice: which letter a completion chooses, said outright or by the text of an option."""

import re
from collections.abc import Sequence

from trl_math.grading.extract import after_phrase, final_box, numbers
from trl_math.grading.locate import NONE, Found, final_part, find


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# `(C)`, `C.`, `**C**: 5 apples`, `\\text{C}`, `Option C`: a letter and then no word of which it would be part.
_CHOICE = (
    r"(?:option|choice)?[\s:]*+[\s*_$({\[]*+(?:\\(?:text|mathrm|textbf|mathbf)\s*\{\s*)?"
    r"\(?([A-Z])(?![A-Za-z0-9'^]|\s?[-+=*/]\s?[0-9a-z])"
)
_LEADING = re.compile(_CHOICE, re.IGNORECASE)
_SAID = re.compile(
    r"\b(?:answer|ans|option|choice|choose|pick|select|go\swith)\b\**\s{0,3}"
    r"(?:(?:is|are|(?:will|would|must) be)\b|[:=.\-\u2013]{1,3}>?)?[\s*:,]{0,4}(?:(?:option|choice)\b[\s:]{0,3})?"
    r"[\s*$({\[]{0,4}(?:\\(?:text|mathrm|textbf)\{)?\(?([A-Z])(?![A-Za-z0-9'])"
    r"|\(?\b([A-Z])\)?\s{1,2}(?:is|must\sbe)\s{1,2}(?:the\s{1,2})?(?:correct|right)?\s?"
    r"(?:answer|choice|option|correct|right|true)\b"
    r"|\b(?:thus|hence|so|therefore)\b[\s,:]{0,3}\(?([A-Z])\)?[.\s]{0,5}$",
    re.IGNORECASE,
)
_LAST_LINE = re.compile(r"[\s*_(\[$#]*(?:([A-Z])|\(([a-z])\))[\s*_)\].:$]*")
_BRACKETED = re.compile(r"\(([A-Z])\)")


def chosen_letter(text: str, num_choices: int) -> str | None:
    """Return the letter that an answer is or begins with: `C`, `(c)`, `C) 5 apples`; None if there is none."""
    match = _LEADING.match(text.strip())
    if not match:
        return None
    letter, rest = match[1], text.strip()[match.end(1) :]
    # "A triangle" and "a" are words; "A) triangle" and "A" are choices.
    if rest.strip() and re.match(r"\s+\w", rest) and not re.match(r"\s*(?:option|choice)", text, re.IGNORECASE):
        return None
    if letter.islower() and rest.strip() and not re.match(r"\s*[).:\]}]", rest):
        return None
    return _known(letter, num_choices)


def find_choice(completion: str, choices: Sequence[str] | None) -> Found:
    """Return the chosen letter, or else a text that may be that of an option."""
    text = final_part(completion)
    num_choices = len(choices) if choices else 10
    box = final_box(text)
    if box is not None:
        if not box:
            return Found(None, "unfinished")
        return Found(chosen_letter(box, num_choices) or box, "box")
    if len(text) < 100 and (letter := chosen_letter(text, num_choices)):
        return Found(letter, "bare")
    if letter := _said(text, num_choices):
        return Found(letter, "phrase")
    line = text.strip().rpartition("\n")[2]
    if (match := _LAST_LINE.fullmatch(line)) and (letter := _known(match[1] or match[2], num_choices)):
        return Found(letter, "bare" if line == text.strip() else "line")
    if choices and (segment := after_phrase(text)):
        return Found(_beginning(segment, choices) or segment, "phrase")
    bracketed = [letter for match in _BRACKETED.finditer(text) if (letter := _known(match[1], num_choices))]
    if bracketed:
        return Found(bracketed[-1], "letter")
    if choices:
        if mentioned := _mentioned(text, choices):
            return Found(mentioned, "option")
        found = find(text, "math")
        last = numbers(text)
        return found if found.place != "formula" or not last else Found(last[-1][0], "number")
    return NONE


def _beginning(segment: str, choices: Sequence[str]) -> str | None:
    """Return the longest option with which an announced answer begins: `London, not Rome`."""
    sentence = segment.casefold()
    options = [choice for choice in choices if len(choice.strip()) > 1 and choice.strip()[0].isalpha()]
    begun = [option for option in options if re.match(rf"{re.escape(option.strip().casefold())}(?!\w)", sentence)]
    return max(begun, key=len, default=None)


def _mentioned(text: str, choices: Sequence[str]) -> str | None:
    """Return the option with which the text ends, the longest if there are several."""
    sentence = text.strip().rpartition("\n")[2][-200:].casefold().rstrip(" .*$")
    options = [choice.strip() for choice in choices if choice.strip()]
    ending = [option for option in options if re.search(rf"(?<!\w){re.escape(option.casefold())}$", sentence)]
    return max(ending, key=len, default=None)


def _said(text: str, num_choices: int) -> str | None:
    for match in reversed(list(_SAID.finditer(text))[-5:]):
        letter = match[1] or match[2] or match[3]
        rest = text[match.end() :]
        # "The answer is a number": an article, and no choice.
        if match[1] and letter in "aA" and re.match(r"\s+(?!is\b)[a-z]+", rest):
            continue
        if match[1] and letter.islower() and not re.match(r"\s*(?:[).:\]}*,]|$)", rest):
            continue
        if known := _known(letter, num_choices):
            return known
    return None


def _known(letter: str, num_choices: int) -> str | None:
    return letter.upper() if letter.upper() in LETTERS[:num_choices] else None

r"""Which part of a completion is its answer. What is marked counts before what is not; the rest depends on the kind.

all kinds   what follows the thoughts (`</think>`), or stands in the last `<answer>..</answer>`; in that:
            the final box (one that is never closed is no answer); after the last `####`; after an answer phrase
math        else the whole completion if it is short and no prose; else the last formula or number
number      else the last number
text        else the whole completion, or its last line, if it is short
choice      its own file: `choices.py`
yes_no      its own file: `yes_no.py`

Completions in a prompt style with an answer prefix ("-->") are read behind the last one: the sentence that follows is
the answer, of any kind, and nothing else is looked at. Where the prefix is missing, all of the above holds.

What ends a completion in files for OpenAI, ` END`, is part of no answer.
"""

import re
from typing import NamedTuple

from trl_math.grading.arithmetic import names, value
from trl_math.grading.compare import assigned
from trl_math.grading.expression import TooComplex, parse
from trl_math.grading.extract import (
    after_phrase,
    final_box,
    formulas,
    last_formula,
    numbers,
    sentence,
    without_formulas,
)
from trl_math.grading.normalise import MAX_LENGTH, normalise
from trl_math.grading.read import read
from trl_math.grading.typed import Relation, Scalar


class Found(NamedTuple):
    """An answer as it stands in a completion, and what gave it away: see `PLACES`."""

    text: str | None
    place: str


PLACES = {
    "prefix": "behind the answer prefix of the prompt style",
    "box": "in a box",
    "hashes": "after ####",
    "phrase": 'after "the answer is" or the like',
    "bare": "the completion is nothing else",
    "formula": "the last formula, unmarked",
    "number": "the last number, unmarked",
    "line": "the last line, unmarked",
    "letter": "the last letter of a choice, unmarked",
    "word": "a yes or no that stands by itself, unmarked",
    "option": "the text of one of the choices, unmarked",
    "unfinished": "a box that is never closed, or empty: no answer",
    "none": "nowhere: no answer",
}
NONE = Found(None, "none")

# An answer stands at the end. What lies further back is not looked at, so that no text costs much.
_TAIL = 200_000
_LONGEST_SENTENCE = 2000
ANNOUNCEMENT = "The answer is "
END = "END"
_END_MARK = re.compile(rf"(?:^|\s){END}\s*\Z")
_FROM_END = re.compile(rf"(?:^|\s){END}\b.*", re.DOTALL)
THOUGHTS = ("</think>", "</thinking>", "<|end_of_thought|>")

_HEADING = re.compile(
    r"(?:step|part|case|solution|explanation|conclusion|final answer|answer|note)\b|.*:$", re.IGNORECASE
)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_SENTENCE_WORDS = (
    "is are was be the since because which where that so we have has of for when with this these there if then not it"
    " thus hence therefore all think believe guess say got get might may could should probably maybe perhaps about"
)
_PROSE = frozenset(_SENTENCE_WORDS.split())
_MARKDOWN = " \t\r\n*_`>#"


def find(completion: str, kind: str) -> Found:
    """Return the answer of a completion for one of the kinds `math`, `number`, `text`."""
    text = final_part(completion)
    return marked(text, kind) or _unmarked(text, kind) or NONE


def final_part(completion: str) -> str:
    """Return the part of a completion that has its answer: no thoughts, and what is in an answer's tags, if any."""
    text = completion[-_TAIL:]
    for end in THOUGHTS:
        text = text.rpartition(end)[2].strip() or text
    before, closed, _ = text.rpartition("</answer>")
    _, opened, inside = before.rpartition("<answer>")
    return inside if closed and opened and inside.strip() else text


def without_end(completion: str) -> str:
    """Return a completion without the mark ` END` at its end."""
    return _END_MARK.sub("", completion)


def until_end(announced: str) -> str:
    """Return an announced answer up to the first mark ` END`: what follows that is the next question."""
    return _FROM_END.sub("", announced)


def behind_prefix(completion: str, prefix: str) -> str | None:
    """Return the sentence behind the last answer prefix of a completion, "" if nothing is there; None without one.

    A prefix that ends the completion announces nothing: "--> 18. Wait, 20 + 3 = 23 -->" was cut off. But if only an
    answer stands between it and the one before, it repeats that one: "--> 18 -->" says 18.
    """
    behind = final_part(completion).split(prefix)[1:]
    if not behind:
        return None
    said = sentence(behind[-1][:_LONGEST_SENTENCE])
    before = next((rest for rest in reversed(behind) if rest.strip()), "") if not said else ""
    if repeated := sentence(before[:_LONGEST_SENTENCE]):
        said = "" if re.search(r"\w", before.partition(repeated)[2]) else repeated
    return said


def marked(text: str, kind: str) -> Found | None:
    """Return an answer that a box, four hashes or a phrase marks."""
    box = final_box(text)
    if box is not None:
        return Found(box, "box") if box else Found(None, "unfinished")
    if line := _hashes(text, kind):
        return Found(line, "hashes")
    if (segment := after_phrase(text)) and (answer := _core(segment, kind)):
        return Found(answer, "phrase")
    return None


def _hashes(text: str, kind: str) -> str | None:
    """Return what stands after the last `####` that is no heading, which Markdown writes in the same way."""
    for rest in reversed(text.split("####")[1:][-5:]):
        line = rest.strip(" \t\r*").split("\n", 1)[0].strip(_MARKDOWN)
        if line and not _HEADING.match(line) and len(_words(line)) <= 6 and (kind != "number" or numbers(line)):
            return _core(line, kind)
    return None


def _core(segment: str, kind: str) -> str | None:
    """Return the answer in a sentence that announces one."""
    segment = segment.strip(_MARKDOWN)
    if kind == "number":
        return segment if _is_number(segment) else _number_in(segment)
    if kind == "text":
        return re.split(r"[,;(]", segment)[0].strip() if len(segment.split()) > 4 else segment.strip(" .")
    if not _is_prose(segment):
        return segment
    found = formulas(segment)
    return found[0] if found else _number_in(segment) or segment


def _number_in(segment: str) -> str | None:
    found = numbers(segment.rpartition("=")[2]) or numbers(segment)
    return found[0][0] if found else None


def _unmarked(text: str, kind: str) -> Found | None:
    whole = text.strip(_MARKDOWN)
    if kind == "text":
        line = whole.rpartition("\n")[2].strip(_MARKDOWN)
        return Found(line.rstrip("."), "bare" if line == whole else "line") if 0 < len(line.split()) <= 6 else None
    if kind == "number":
        if _is_number(whole):
            return Found(whole, "bare")
    elif whole and "\n" not in whole and len(whole) <= 200 and not _is_prose(whole) and len(_words(whole)) <= 4:
        return Found(whole, "bare")
    found = numbers(text)
    formula = last_formula(text) if kind == "math" else None
    # `$x$` at the end of "... values of $x$" is no answer.
    if formula and re.fullmatch(r"\\?[A-Za-z]+", formula[0]):
        formula = None
    if formula and (not found or formula[1] >= found[-1][1]):
        return Found(formula[0], "formula")
    return Found(found[-1][0], "number") if found else None


def _words(text: str) -> list[str]:
    return _WORD.findall(re.sub(r"\\text\{[^{}]*\}", " ", without_formulas(text)).lower())


def _is_prose(text: str) -> bool:
    words = _words(text)
    return len(words) > 4 or not _PROSE.isdisjoint(words)


def _is_number(text: str) -> bool:
    """Whether a text is one number or an expression for one, perhaps with a unit or a name before it."""
    if len(text) > MAX_LENGTH:
        return False
    try:
        answer = read(normalise(text))
    except TooComplex:
        return False
    if isinstance(answer, Relation):
        answer = assigned(answer)
    if not isinstance(answer, Scalar):
        return False
    try:
        node = parse(answer.text)
        return node is not None and not names(node) and value(node) is not None
    except TooComplex:
        return False

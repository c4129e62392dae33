"""Gold answers as they come in the wild, made one: a text, and the kind of comparison it needs."""

import re
from typing import Any

from trl_math.grading import after_hashes, last_boxed


# A number as people write one: 2,125 or $3.50 or -7 or 40%.
NUMBER = re.compile(r"-?\$?-?(?:\d[\d,]*(?:\.\d*)?|\.\d+)%?")
# Letters alone, three or more: a word and no product of variables.
WORDS = re.compile(r"[A-Za-z]{3,}(?: [A-Za-z]+)*")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def answer_text(value: Any) -> str | None:
    """Return an answer as text, or None if there is none: 27.0 is `27`, a list is its items with commas."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list):
        value = ", ".join(text for item in value if (text := answer_text(item)) is not None)
    text = "" if value is None else str(value).strip()
    return text or None


def split_solution(answer: str | None, solution: str | None) -> tuple[str | None, str | None]:
    """Return the final answer and the solution of a row, whichever column holds them.

    GSM8K's `answer` is a solution that ends in `#### 72`; MATH has no `answer`, and a solution with a box.
    """
    if answer is None:
        text = solution or ""
        return last_boxed(text) or after_hashes(text), solution
    final = after_hashes(answer) or last_boxed(answer)
    return (final, solution or answer) if final else (answer, solution)


def answer_kind(answer: str | None, problem: str, *, choices: bool, boxed: bool) -> str:
    """Return the kind of an answer: `choice`, `math`, `number` or `text`."""
    letter = answer is not None and len(answer) == 1 and answer in LETTERS
    if letter and (choices or f"({answer})" in problem):
        return "choice"
    if boxed or answer is None:
        return "math"
    if NUMBER.fullmatch(answer):
        return "number"
    return "text" if WORDS.fullmatch(answer) else "math"


def choice_texts(choices: list[Any] | dict[str, Any] | None) -> list[str] | None:
    """Return the choices without the letters that some data sets put before them: `A)32400` is `32400`.

    They may also be a mapping of letters to texts, or, as on the hub, one of `label` and `text` to lists.
    """
    if isinstance(choices, dict):
        listed = choices.get("text")
        present = {letter: text for letter, text in choices.items() if text is not None}
        choices = listed if isinstance(listed, list) else [present[letter] for letter in sorted(present)]
    lettered = [
        (str(choice).strip(), rf"(?:\(?{letter}[).:]\s*)+")
        for choice, letter in zip(choices or [], LETTERS, strict=False)
    ]
    if all(re.match(prefix, text) for text, prefix in lettered):
        return [re.sub("^" + prefix, "", text) for text, prefix in lettered] or None
    return [text for text, _ in lettered]

"""The ways to rephrase a problem or a program: what a model is asked for, and what makes its reply one.

reword       the same problem in other words                       by a model
translate    the same problem in another language                  by a model
renumber     the same problem with other numbers, another answer   by code where it can be, else by a model
by_rule      the same problem in other words                       by code (`rephrase_rules`)
rename       the same program with other names and comments        by a model
restructure  another program that does the same                    by a model
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trl_math.contamination.rephrase_checks import (
    LANGUAGES,
    has_same_numbers,
    is_language,
    lost_digits,
    lost_numbers,
    overlap,
)
from trl_math.data.answers import LETTERS
from trl_math.data.prompts import PromptStyle
from trl_math.errors import UsageError
from trl_math.grading.programs import extract_program
from trl_math.records import FINISHED


TEXT, CODE = "text", "code"


class Way(NamedTuple):
    """How something is rephrased."""

    kind: str  # of what
    instruction: str | None  # for a model; None: no model can do it
    keeps_answer: bool = True
    has_rule: bool = False


_ONLY = (
    "If there are options below it, each stays on a line of its own, behind its letter. Do not solve it, and add no "
    "hints or remarks."
)
WAYS: dict[str, Way] = {
    "reword": Way(
        TEXT,
        "Say the problem below in entirely different words: other sentences in another order, other verbs and nouns, "
        "other names for the people. Every number, every unit and the answer must stay exactly as they are. "
        f"{_ONLY} Reply with the reworded problem alone.",
    ),
    "translate": Way(
        TEXT,
        "Translate the problem below into {language}. Every number stays as it is, in digits where it is in digits, "
        f"and formulas are not touched. {_ONLY} Reply with the translation alone.",
    ),
    "renumber": Way(
        TEXT,
        "Put other numbers in the place of those in the problem below, of about the same size, so that it still makes "
        "sense and has an answer of the same kind. All other words stay as they are. "
        f"{_ONLY} Reply with the changed problem alone.",
        keeps_answer=False,
        has_rule=True,
    ),
    "by_rule": Way(TEXT, None, has_rule=True),
    "rename": Way(
        CODE,
        "Write the Python program below with other names for its parameters, variables and helpers, with comments and "
        "docstrings in other words. The function {entry_point} keeps its name, and does the same for every input. "
        "Reply with the whole program alone, in one ```python block.",
    ),
    "restructure": Way(
        CODE,
        "Write another Python program that does the same as the one below, built differently: another algorithm or "
        "another flow of control, other names, other comments. The function {entry_point} keeps its name. Reply with "
        "the whole program alone, in one ```python block.",
    ),
}
FORMS = ("chat", "plain")

# Why a reply is no rephrased problem.
REASONS = {
    "too_similar": "too much of the original's wording is left",
    "numbers_changed": "a number of the original is not in it",
    "same_numbers": "its numbers are those of the original",
    "other_language": "it is not in the language that was asked for",
    "asks_nothing": "the original asks something, and it does not",
    "solved": "it goes on to solve the problem",
    "options_changed": "the options are not there as they should be",
    "no_program": "there is no program with the function in it",
    "fails_tests": "the program does not pass the original's tests",
    "wrong_answer": "the solver's answers to it are not the original's",
    "no_agreement": "the solver's answers to it do not agree",
    "unsolved": "the solver does not answer the original, so that nothing can be said of a rephrased one",
    "original_fails": "the original does not pass its own tests",
    "empty": "there is nothing in it",
    "unfinished": "it ran out of tokens",
    "refused": "the server or its model refused",
    "prompt_too_long": "the original does not fit the model's context",
    "unchanged": "no rule changes anything",
    "not_fresh": "the generator has no further problem of its kind",
}


class Variant(NamedTuple):
    """A way, and the language of a translation."""

    way: str
    language: str | None = None

    @property
    def name(self) -> str:
        return f"{self.way}-{self.language}" if self.language else self.way

    @property
    def kind(self) -> str:
        return WAYS[self.way].kind


class Limits(NamedTuple):
    """What a rephrased text must be like."""

    n: int = 10
    max_overlap: float = 0.0
    keep_numbers: bool = True


class Draft(NamedTuple):
    """What became of a reply: a rephrased text, or the reason why it is none."""

    text: str
    overlap: float = 0.0
    choices: list[str] | None = None
    reason: str | None = None


def variants_of(ways: Sequence[str], languages: Sequence[str]) -> list[Variant]:
    """Return each way, and translation once for each language."""
    return [
        variant
        for way in ways
        for variant in ([Variant(way, one) for one in languages] if way == "translate" else [Variant(way)])
    ]


def prompt_style(variant: Variant, form: str) -> PromptStyle:
    """Return how a model is asked: as a chat, or as a text that a base model goes on with."""
    instruction = WAYS[variant.way].instruction
    if instruction is None:
        raise UsageError(f"{variant.way} is done by rule and asks no model.")
    what = "Program" if variant.kind == CODE else "Problem"
    asked = f"{instruction}\n\n{what}:\n{{problem}}"
    if form == "chat":
        return PromptStyle(asked, "{problem}", is_chat=True)
    return PromptStyle(f"{asked}\n\nReply:", " {problem}", stop=("\n\nProblem:", "\n\nProgram:", "\n\nReply:"))


def prompt_row(row: Mapping[str, Any], variant: Variant) -> dict[str, Any]:
    """Return what the prompt of an original is made of."""
    found: dict[str, Any] = {"problem_id": item_id(row, variant), "problem": original_text(row)}
    if variant.language:
        found["language"] = LANGUAGES[variant.language]
    if variant.kind == CODE:
        found["entry_point"] = row["entry_point"]
    return found


def item_id(row: Mapping[str, Any], variant: Variant) -> str:
    """Return the id of what an original becomes."""
    return f"{row['problem_id']}/{variant.name}"


def original_text(row: Mapping[str, Any]) -> str:
    """Return what is rephrased: a problem with its options, or a program."""
    if "canonical_solution" in row:
        return f"{row['prompt']}{row['canonical_solution']}"
    options = [f"({letter}) {choice}" for letter, choice in zip(LETTERS, row.get("choices") or (), strict=False)]
    return "\n".join([row["problem"], *options])


def read_reply(reply: str, finish_reason: str, row: Mapping[str, Any], variant: Variant, limits: Limits) -> Draft:
    """Return the rephrased text of a reply, or why there is none."""
    if finish_reason not in FINISHED:
        return Draft(reply, reason=finish_reason if finish_reason in REASONS else "unfinished")
    if not reply.strip():
        return Draft(reply, reason="empty")
    if variant.kind == CODE:
        return _read_program(reply, row, limits)
    return _read_problem(reply, row, variant, limits)


def check_text(text: str, row: Mapping[str, Any], variant: Variant, limits: Limits) -> str | None:
    """Return what is wrong with a rephrased problem, as far as its text tells; None if it is right."""
    original = original_text(row)
    if variant.language is None and _ASKS.search(original) and not _ASKS.search(text):
        return "asks_nothing"
    if variant.way == "renumber":
        return "same_numbers" if has_same_numbers(original, text) else None
    if variant.language:
        if not is_language(text, variant.language):
            return "other_language"
        lost = lost_digits(original, text) if limits.keep_numbers else []
    else:
        lost = lost_numbers(original, text) if limits.keep_numbers else []
    if lost:
        return "numbers_changed"
    return "too_similar" if overlap(original, text, limits.n) > limits.max_overlap else None


# What stands before a rephrased problem in replies, and behind it where a model goes on.
_OPENING = re.compile(
    r"\A\W*(?:(?:sure|certainly|of course|okay|ok|here(?:'s| is| are))\b[^\n]*?[:!.]\s*\n+|"
    r"(?:the )?(?:re\w+|translated|translation|new|changed) ?(?:problem|version|question|text)?\W*:\s+)",
    re.IGNORECASE,
)
_SOLVED = re.compile(
    r"\n\W*(?:answer|solution|explanation|step 1|let's solve|to solve)\b|\\boxed|####|the (?:final )?answer is",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"[?\uff1f]|\b(?:what|how|find|tell|determine|calculate|compute|work out|evaluate|simplify|express|solve|prove)\b",
    re.IGNORECASE,
)
_OPTION = re.compile(r"^\s*[(*]*([A-Z])[.):*]+\s+(.+?)\s*$", re.MULTILINE)
_QUOTES = (('"', '"'), ("\u201c", "\u201d"), ("\u00ab", "\u00bb"), ("```", "```"))


def _read_problem(reply: str, row: Mapping[str, Any], variant: Variant, limits: Limits) -> Draft:
    text = _tidy(reply)
    if not text:
        return Draft(reply, reason="empty")
    if _SOLVED.search(text):
        return Draft(text, reason="solved")
    choices = row.get("choices")
    stem, options = _split_options(text) if choices else (text, [])
    share = overlap(original_text(row), text, limits.n)
    if choices and len(options) != len(choices):
        return Draft(text, share, reason="options_changed")
    return Draft(stem, share, options or None, check_text(text, row, variant, limits))


def _read_program(reply: str, row: Mapping[str, Any], limits: Limits) -> Draft:
    code = extract_program(reply)
    if code is None or not re.search(rf"^def {re.escape(row['entry_point'])}\(", code, re.MULTILINE):
        return Draft(reply, reason="no_program")
    share = overlap(original_text(row), code, limits.n)
    return Draft(code, share, reason="too_similar" if share > limits.max_overlap else None)


def _tidy(reply: str) -> str:
    """Return a reply without what models put around what was asked for."""
    text = _OPENING.sub("", reply.strip()).strip()
    text = re.sub(r"\A(?:\*\*)?(?:problem|reply)(?:\*\*)?:(?:\*\*)?\s*", "", text, flags=re.IGNORECASE)
    for left, right in _QUOTES:
        if text.startswith(left) and text.endswith(right) and len(text) > len(left) + len(right):
            text = text[len(left) : -len(right)].strip()
    return text


def _split_options(text: str) -> tuple[str, list[str]]:
    """Return a problem and the texts of the options below it, if their letters are in order."""
    found = list(_OPTION.finditer(text))
    if not found or [option[1] for option in found] != list(LETTERS[: len(found)]):
        return text, []
    return text[: found[0].start()].strip(), [option[2] for option in found]

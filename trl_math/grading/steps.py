"""One row, graded as far as it goes without SymPy: a grade, or the comparisons that are left to a worker process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trl_math.errors import UsageError, pick
from trl_math.grading.choices import LETTERS, chosen_letter, find_choice
from trl_math.grading.fast import FastJudge
from trl_math.grading.locate import ANNOUNCEMENT, END, Found, behind_prefix, find, until_end, without_end
from trl_math.grading.normalise import MAX_LENGTH
from trl_math.grading.read import words
from trl_math.grading.results import Grade, Outcome
from trl_math.grading.typed import Scalar, Words
from trl_math.grading.verdict import TOO_COMPLEX, is_readable, settle
from trl_math.grading.yes_no import find_yes_no, meaning


KINDS = ("math", "number", "choice", "text", "yes_no")

Pair = tuple[str, str]  # a gold answer, and the answer to compare with it
Row = tuple[str | bytes | None, Any] | Mapping[str, Any]

_FAST = FastJudge()


@dataclass(frozen=True)
class Open:
    """A grade that needs comparisons by a worker: what to compare, and what follows from the outcomes."""

    pairs: tuple[Pair, ...]
    finish: Callable[[list[Outcome]], Grade]


def quick(gold: str, answer: str) -> Outcome | None:
    """Compare without SymPy; None if that is not enough."""
    return settle(gold, answer, _FAST)


def fields(row: Row, index: int, kind: str | None) -> tuple[Any, Any, str, Sequence[str] | None, str | None]:
    """Return completion, gold answer, kind, choices and answer prefix of a row."""
    if isinstance(row, Mapping):
        missing = [name for name in ("completion", "answer") if name not in row]
        if missing:
            raise UsageError(
                f"Row {index} has no {' and no '.join(missing)}. Found: {', '.join(map(str, row)) or 'nothing'}. "
                "Expected completion and answer, and optionally answer_kind, choices and answer_prefix."
            )
        own = kind or row.get("answer_kind") or "math"
        kind = pick("kind of answer", own, KINDS)
        return row["completion"], row["answer"], kind, row.get("choices"), row.get("answer_prefix")
    if not isinstance(row, Sequence) or isinstance(row, str | bytes) or len(row) != 2:
        raise UsageError(f"Row {index} is {row!r:.80}: expected (completion, answer), or a dictionary with both.")
    return row[0], row[1], pick("kind of answer", kind or "math", KINDS), None, None


def begin(
    completion: Any, answer: Any, kind: str, choices: Sequence[str] | None, answer_prefix: str | None = None
) -> Grade | Open:
    """Return the grade of a completion, or what has to be compared first."""
    text = _completion_text(completion)
    gold = str(answer) if kind == "yes_no" else _gold_text(answer)  # True and False are answers there
    is_marked = END not in gold  # where it is in the answer itself, it ends nothing
    if is_marked:
        text = without_end(text)
    announced = behind_prefix(text, answer_prefix) if answer_prefix else None
    if announced is None:
        return _begin(text, gold, kind, choices)
    # What the prefix announces is read as what "the answer is" does, whatever the kind.
    announced = until_end(announced) if is_marked else announced
    step = _begin(ANNOUNCEMENT + announced if announced else "", gold, kind, choices)
    if isinstance(step, Grade):
        return _by_prefix(step)
    return Open(step.pairs, lambda outcomes: _by_prefix(step.finish(outcomes)))


def _by_prefix(grade: Grade) -> Grade:
    return grade if grade.extracted is None else replace(grade, place="prefix")


def _begin(text: str, gold: str, kind: str, choices: Sequence[str] | None) -> Grade | Open:
    if kind == "choice":
        return _begin_choice(text, gold, choices)
    if kind == "yes_no":
        return _grade_yes_no(text, gold)
    if not is_readable(gold):
        found = find(text, kind)
        return Grade(None, found.text, "gold_unreadable", found.place)
    found = find(text, kind)
    if found.text is None:
        return _unanswered(found)
    if kind == "text":
        return _grade(found, _same_text(gold, found.text))
    outcome = quick(gold, found.text)
    if outcome is not None:
        return _grade(found, outcome)
    return Open(((gold, found.text),), lambda outcomes: _grade(found, outcomes[0]))


def _completion_text(completion: Any) -> str:
    if completion is None:
        return ""
    if isinstance(completion, bytes):
        return completion.decode("utf-8", errors="replace")
    if not isinstance(completion, str):
        raise UsageError(f"A completion must be text, got {type(completion).__name__}: {completion!r:.80}.")
    return completion


def _gold_text(answer: Any) -> str:
    if answer is None or isinstance(answer, bool):
        return ""
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    if isinstance(answer, list | tuple):
        return ", ".join(_gold_text(item) for item in answer)
    return str(answer)


def _grade(found: Found, outcome: Outcome) -> Grade:
    return Grade(outcome.correct, found.text, outcome.reason, found.place)


def _unanswered(found: Found) -> Grade:
    return Grade(False, None, "unfinished" if found.place == "unfinished" else "no_answer", found.place)


def _grade_yes_no(text: str, answer: str) -> Grade:
    gold, found = meaning(answer), find_yes_no(text)
    if gold is None:
        return Grade(None, found.text, "gold_unreadable", found.place)
    if found.text is None:
        return _unanswered(found)
    return _grade(found, Outcome(True, "exact") if found.text == gold else Outcome(False, "different"))


def _same_text(gold: str, answer: str) -> Outcome:
    """Compare words without regard to case, punctuation and articles."""
    if gold.strip() == answer.strip():
        return Outcome(True, "exact")
    if len(answer) > MAX_LENGTH:
        return TOO_COMPLEX
    mine, theirs = words(gold.replace("$", "")), words(answer.replace("$", ""))
    return Outcome(True, "equal") if mine == theirs and _says_something(mine) else Outcome(False, "different")


def _says_something(answer: Any) -> bool:
    return not isinstance(answer, Words | Scalar) or bool(answer.text)


# ---- Multiple choice ----


def _begin_choice(text: str, gold: str, choices: Sequence[str] | None) -> Grade | Open:
    options = [str(choice) for choice in choices] if choices else None
    found = find_choice(text, options)
    letter = _gold_letter(gold, options)
    if letter is None:
        return Grade(None, found.text, "gold_unreadable", found.place)
    if found.text is None:
        return _unanswered(found)
    if len(found.text) == 1 and found.text in LETTERS:
        is_right = found.text == letter
        return _grade(found, Outcome(is_right, "letter" if is_right else "different"))
    if options is None:
        return _grade(found, Outcome(False, "different"))
    return _begin_option(found, LETTERS.index(letter), options)


def _gold_letter(gold: str, options: list[str] | None) -> str | None:
    letter = chosen_letter(gold, len(options) if options else 26)
    if letter:
        return letter
    texts = [option.strip().casefold() for option in options or []]
    return LETTERS[texts.index(gold.strip().casefold())] if gold.strip().casefold() in texts else None


def _begin_option(found: Found, right: int, options: list[str]) -> Grade | Open:
    """Compare a text with the options: the right one must be the only one that it matches at sight."""
    answer = found.text or ""
    same = [index for index, option in enumerate(options) if option.strip().casefold() == answer.strip().casefold()]
    if same:
        return _option_grade(found, Outcome(right in same, "different"))
    known = [quick(option, answer) for option in options]
    if any(outcome is not None and outcome.correct for index, outcome in enumerate(known) if index != right):
        return _option_grade(found, Outcome(False, "different"))
    outcome = known[right]
    if outcome is not None:
        return _option_grade(found, outcome)
    return Open(((options[right], answer),), lambda outcomes: _option_grade(found, outcomes[0]))


def _option_grade(found: Found, outcome: Outcome) -> Grade:
    return _grade(found, Outcome(True, "option") if outcome.correct else Outcome(False, outcome.reason))

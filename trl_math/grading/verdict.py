"""Whether an answer is the gold answer, as far as a judge can tell: normalise, read, compare."""

from trl_math.grading.compare import Judge, Verdict, same
from trl_math.grading.expression import TooComplex
from trl_math.grading.normalise import normalise
from trl_math.grading.read import is_ambiguous, read
from trl_math.grading.results import Outcome
from trl_math.grading.typed import Answer, Group


UNREADABLE = Outcome(None, "gold_unreadable")
TOO_COMPLEX = Outcome(False, "too_complex")


def is_readable(gold: str) -> bool:
    """Whether a text can be a gold answer."""
    try:
        return read(normalise(gold)) is not None
    except TooComplex:
        return False


def settle(gold: str, answer: str, judge: Judge, equal: str = "equal") -> Outcome | None:
    """Return the outcome of a comparison, `equal` being the reason if the judge finds it so; None if it is open."""
    if not is_readable(gold):
        return UNREADABLE
    try:
        gold, answer = normalise(gold), normalise(answer)
        if gold == answer:
            return Outcome(True, "exact")
        verdict = _compared(gold, answer, judge)
    except TooComplex:
        return TOO_COMPLEX
    if verdict is None:
        return None
    return Outcome(True, equal) if verdict else Outcome(False, "different")


def _compared(gold: str, answer: str, judge: Judge) -> Verdict:
    golds, answers = read(gold), read(answer)
    if golds is None or answers is None:
        return False
    verdict = same(golds, answers, judge)
    if verdict is not False:
        return verdict
    # `70,110` is a list if the other side is one.
    if is_ambiguous(gold) and _is_list(answers) and not _is_list(golds):
        golds = read(gold, grouped=False)
    elif is_ambiguous(answer) and _is_list(golds) and not _is_list(answers):
        answers = read(answer, grouped=False)
    else:
        return False
    return False if golds is None or answers is None else same(golds, answers, judge)


def _is_list(answer: Answer) -> bool:
    return isinstance(answer, Group) and answer.kind in ("list", "set", "tuple")

"""The fast judge, and the slow one for what it leaves open. Imports SymPy: for worker processes."""

from collections.abc import Callable

from sympy.core.cache import clear_cache

from trl_math.grading.compare import Verdict
from trl_math.grading.fast import FastJudge
from trl_math.grading.results import Outcome
from trl_math.grading.slow import SlowJudge
from trl_math.grading.verdict import settle


# SymPy remembers what it did; in a process that lives for long, that is a leak.
_CLEAR_EVERY = 2000


class Cascade:
    """Decides everything; `is_fast=False` leaves the fast judge out, for tests that compare the two."""

    def __init__(self, is_fast: bool = True) -> None:
        self.fast = FastJudge() if is_fast else None
        self.slow = SlowJudge()
        self.num_compared = 0

    def outcome(self, gold: str, answer: str) -> Outcome:
        """Return the outcome of a comparison."""
        self.num_compared += 1
        if self.num_compared % _CLEAR_EVERY == 0:
            clear_cache()
        before = self.slow.unparsed
        try:
            outcome = settle(gold, answer, self, equal="math_verify")
        except RecursionError:
            return Outcome(False, "too_complex")
        if (outcome is None or outcome.correct is False) and self.slow.unparsed > before:
            return Outcome(False, "unparsed")
        return outcome or Outcome(False, "different")

    def same_value(self, gold: str, answer: str) -> Verdict:
        """Whether two expressions are equal."""
        return self._first(lambda judge: judge.same_value(gold, answer))

    def same_equation(self, gold: tuple[str, str], answer: tuple[str, str]) -> Verdict:
        """Whether two equations are."""
        return self._first(lambda judge: judge.same_equation(gold, answer))

    def _first(self, ask: Callable[[FastJudge | SlowJudge], Verdict]) -> Verdict:
        verdict = ask(self.fast) if self.fast else None
        return ask(self.slow) if verdict is None else verdict

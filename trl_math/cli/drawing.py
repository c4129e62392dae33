"""What the commands share that draw samples in rounds: their problems, what is asked, and the drawing itself."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trl_math.cli.difficulty_sources import with_answers
from trl_math.cli.request import say
from trl_math.errors import DataError, UsageError


if TYPE_CHECKING:
    from trl_math.data.made_file import MadeFile
    from trl_math.evaluation.adaptive_sampling import Counts
    from trl_math.evaluation.allocation import Count, Rounds
    from trl_math.generation.arguments import GenerateArguments
    from trl_math.generation.backend import Backend
    from trl_math.generation.session import Plan


def load_judgeable(generate: "GenerateArguments") -> tuple[Any, list[Mapping[str, Any]], list[str]]:
    """Return the problems as loaded, those that samples can be judged of, and what to say of the others."""
    from trl_math.data.load import NOT_PROBLEMS
    from trl_math.generation.arguments import load_problems

    if generate.prompt_style in NOT_PROBLEMS:
        raise UsageError(f"prompt_style {generate.prompt_style} asks no problems with answers: choose another.")
    loaded = load_problems(generate)
    problems, notes = with_answers(list(loaded), str(generate.data))
    if not problems:
        raise DataError(f"There are no problems in {generate.data}.")
    return loaded, problems, notes


def plan_of(loaded: Any, problems: Sequence[Mapping[str, Any]], asked: Any) -> tuple["Plan", str]:
    """Return what is asked of the model, of these problems among those loaded, and a hash of them."""
    from trl_math.data.load import digest
    from trl_math.generation import session
    from trl_math.generation.arguments import find_style

    # Shots are never of the problems that are asked, nor of those without an answer.
    style = find_style(asked.generate, loaded)
    ids = {problem["problem_id"] for problem in problems}
    chosen = loaded.select([place for place, name in enumerate(loaded["problem_id"]) if name in ids])
    return session.prepare(chosen, asked.generate, asked.engine, style=style), digest(chosen)


def draw(
    asked: Any,
    file: "MadeFile",
    plan: "Plan",
    problems: Sequence[Mapping[str, Any]],
    rounds: "Rounds[Count]",
    *,
    counts: "Counts | None" = None,
    around: "Callable[[Backend], Backend]" = lambda backend: backend,
) -> tuple[list["Count"], dict[str, Any]]:
    """Draw and grade beside a file until the rounds are over; return their counts, and what grades depend on.

    `counts`: of right samples, what they count as. `around` puts other backends around the engine's.
    """
    from trl_math.evaluation.adaptive_sampling import sample_until_settled
    from trl_math.generation.session import Engine
    from trl_math.grading import Grader

    grading = asked.grading
    with (
        Engine(asked.engine, plan.checkpoint, around) as engine,
        Grader(grading.grading_workers, grading.grading_deadline) as grader,
    ):
        return sample_until_settled(
            file.samples,
            problems,
            plan,
            engine,
            rounds,
            say,
            grader=grader,
            runs_programs=grading.programs,
            counts=counts,
        )

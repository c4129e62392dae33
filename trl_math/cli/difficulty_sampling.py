"""Pass rates from samples that are drawn for them: what is asked, and what the rounds come to."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trl_math.cli.difficulty import Result, measured_rows
from trl_math.cli.drawing import draw, load_judgeable, plan_of
from trl_math.errors import DataError


if TYPE_CHECKING:
    from trl_math.cli.difficulty_settings import Asked
    from trl_math.data.made_file import MadeFile
    from trl_math.evaluation.allocation import Allocation


def prepare_sampling(
    asked: "Asked", file: "MadeFile", told: Mapping[str, Any]
) -> tuple[dict[str, Any], Callable[[], Result]]:
    """Return what the file will be made of, and what draws and measures; raise before an engine is started."""
    loaded, problems, notes = load_asked(asked)
    asked.engine.check_here()
    plan, digest = plan_of(loaded, problems, asked)
    made_of = {"settings": {**told, **rule_settings(asked)}, "sampling": plan.settings, "problems": digest}
    return made_of, lambda: _measure(asked, file, plan, problems, notes)


def load_asked(asked: "Asked") -> tuple[Any, list[Mapping[str, Any]], list[str]]:
    """Return the problems as loaded, those that samples can be judged of, and what to say of the others."""
    generate = asked.generate
    loaded, problems, notes = load_judgeable(generate)
    asked.rule.check(generate.num_samples, asked.told, len(problems))
    return loaded, problems, notes


def rule_settings(asked: "Asked") -> dict[str, Any]:
    """Return the settings that samples and verdicts follow from."""
    rule = dataclasses.asdict(asked.rule)
    return {**rule, "num_samples": asked.generate.num_samples, "programs": asked.grading.programs}


def make_allocation(asked: "Asked", ids: Sequence[str]) -> "Allocation":
    """Return the rounds that the settings ask for."""
    from trl_math.evaluation.allocation import Allocation, Amounts

    rule, most = asked.rule, asked.generate.num_samples
    amounts = Amounts(
        first=most if rule.rule == "fixed" else rule.first_samples,
        round=rule.round_samples,
        most=most,
        budget=rule.budget,
        resample_to=rule.resample_to,
        resampled=tuple(asked.told.resampled),
    )
    return Allocation(ids, amounts, lambda prior: rule.make(most, asked.told, prior), is_fitted=rule.is_fitted)


def _measure(
    asked: "Asked", file: "MadeFile", plan: Any, problems: Sequence[Mapping[str, Any]], notes: Sequence[str]
) -> Result:
    by_id = {problem["problem_id"]: problem for problem in problems}
    allocation = make_allocation(asked, list(by_id))
    counts, judged_with = draw(asked, file, plan, problems, allocation)
    if not counts:
        raise DataError(
            f"None of the gold answers of {len(problems):,} problems can be read: samples cannot be judged."
        )
    more = [_decided(asked, one) for one in counts]
    rows, facts = measured_rows(
        asked, [by_id[one.problem_id] for one in counts], [(one.num_samples, one.num_correct) for one in counts], more
    )
    from trl_math.generation.arguments import sampler_hash

    facts |= {
        "model": asked.engine.label,
        "data": plan.data,
        "sampler": sampler_hash(plan.settings),
        "graded_with": judged_with,
        "rule": allocation.facts,
    }
    return Result(rows, facts, [*notes, *_notes(asked, allocation, len(counts))])


def _decided(asked: "Asked", one: Any) -> dict[str, Any]:
    """Return what the rule says of a problem; that of rule fixed is nothing."""
    return {} if asked.rule.rule == "fixed" else {"decision": one.decision, "is_settled": one.is_settled}


def _notes(asked: "Asked", allocation: "Allocation", num_problems: int) -> list[str]:
    spent, most = allocation.num_asked, asked.generate.num_samples
    lines = []
    if asked.rule.rule != "fixed":
        full = most * num_problems
        lines.append(
            f"{spent:,} samples; {most} of each of {num_problems:,} problems would be {full:,} ({spent / full:.0%})."
        )
    if asked.rule.is_fitted and not allocation.has_fitted:
        lines.append(f"{num_problems:,} problems are too few to fit a prior to: the rule expected jeffreys of them.")
    if allocation.num_open:
        why = "the budget is spent" if allocation.is_short else f"of {most} samples"
        lines.append(f"{allocation.num_open:,} problems are not settled ({why}); is_settled says which.")
    if allocation.num_resampled:
        lines.append(f"{allocation.num_resampled:,} problems were sampled again, up to {asked.rule.resample_to}.")
    if allocation.unjudged:
        lines.append(
            f"{len(allocation.unjudged):,} problems have gold answers that cannot be read, and were left out "
            f"({allocation.unjudged[0]!r} for one)."
        )
    return lines

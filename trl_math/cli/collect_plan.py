"""`trl-math collect --dry-run`: how many right answers of which problems, what they may cost, and what is there."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trl_math.cli.collect import load_asked, pass_rates_of
from trl_math.data.collected import collected_file
from trl_math.errors import NotCachedError
from trl_math.generate_plan import (
    engine_lines,
    missing_lines,
    model_lines,
    prompt_lines,
    sections,
    settings_lines,
)
from trl_math.generation.arguments import find_style, make_prompts
from trl_math.generation.sample_files import num_rows
from trl_math.share import Part


if TYPE_CHECKING:
    from trl_math.cli.collect_settings import Asked


def report(asked: "Asked") -> str:
    """Return the text of a dry run; raise what would stop the run on any machine. Loads no model."""
    generate, engine = asked.generate, asked.engine
    checkpoint, model = model_lines(engine)
    file = collected_file(str(generate.output))
    there = num_rows(file.samples)
    goes_on = f" ({there:,} samples there: it goes on)" if there else ""
    return sections(
        {
            "settings (others are at their defaults)": settings_lines(asked.given),
            "model": model,
            "problems": _problems(asked, checkpoint),
            "engines": engine_lines(engine, Part()),
            "files": [f"{file.path}, {file.manifest}, {file.samples}{goes_on}"],
            "missing on this machine": missing_lines(engine, runs_programs=asked.grading.programs),
        }
    )


def _problems(asked: "Asked", checkpoint: Any) -> list[str]:
    generate = asked.generate
    try:
        loaded, problems, targets, notes = load_asked(asked)
    except NotCachedError as error:
        return [f"{generate.data}: not in the local cache, so its columns are not checked", f"({error})"]
    lines = [*notes, *_amounts(asked, targets, pass_rates_of(asked, problems))]
    if checkpoint is not None and checkpoint.tokenizer is not None:
        prompts = make_prompts(loaded, find_style(generate, loaded), checkpoint.tokenizer)
        lines += prompt_lines(prompts, generate.max_tokens, checkpoint, asked.engine)
    return lines


def _amounts(asked: "Asked", targets: Mapping[str, int], pass_rates: Mapping[str, float] | None) -> list[str]:
    """Return how many right answers are wanted, and what is known of the samples that this takes."""
    most, wanted = asked.wanted.max_trials, sorted(targets.values())
    lines = [
        f"{len(wanted):,} problems; {sum(wanted):,} right answers wanted, {wanted[0]:,} to {wanted[-1]:,} of each "
        f"(median {wanted[len(wanted) // 2]:,})",
        f"{sum(wanted):,} samples at least, {most * len(wanted):,} at most ({most:,} of each)",
    ]
    if pass_rates is not None:
        costs = [_cost(target, pass_rates[name], most) for name, target in targets.items()]
        hopeless = sum(pass_rates[name] == 0 for name in targets)
        lines.append(
            f"by these pass rates about {round(sum(costs)):,}, of them {most * hopeless:,} for {hopeless:,} problems "
            "that were never solved"
        )
    return lines


def _cost(target: int, pass_rate: float, most: int) -> float:
    """Return how many samples so many right answers take on average, and no more than there may be."""
    return most if pass_rate * most <= target else target / pass_rate

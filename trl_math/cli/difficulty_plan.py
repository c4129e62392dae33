"""`trl-math difficulty --dry-run`: what would be measured, by what rule, and what is there already."""

from typing import TYPE_CHECKING, Any

from trl_math.cli.difficulty import keep, prepare, table
from trl_math.data.difficulty_file import difficulty_file
from trl_math.generate_plan import (
    engine_lines,
    missing_lines,
    model_lines,
    program_lines,
    prompt_lines,
    sections,
    settings_lines,
)


if TYPE_CHECKING:
    from trl_math.cli.difficulty_settings import Asked


def report(asked: "Asked") -> str:
    """Return the text of a dry run; raise what would stop the run on any machine."""
    settings = {"settings (others are at their defaults)": settings_lines(asked.given)}
    if asked.way == "model":
        return sections({**settings, **_sampling(asked)})
    file = difficulty_file(str(asked.generate.output))
    made_of, measure = prepare(asked, file)
    is_done = file.is_finished(made_of)
    result = measure()
    kept, notes = keep(asked, result.rows)
    would = "is made of this already" if is_done else f"would be written, with {len(kept):,} problems"
    found = [*table(result.rows).split("\n"), *result.notes, *notes]
    return sections({**settings, "problems": found, "files": [f"{file.path} {would}"]})


def _sampling(asked: "Asked") -> dict[str, list[str]]:
    """Return the sections of a run that draws samples; loads problems and a tokenizer, and no model."""
    from trl_math.cli.difficulty_sampling import load_asked
    from trl_math.errors import NotCachedError
    from trl_math.generation.arguments import find_style, make_prompts
    from trl_math.generation.sample_files import num_rows
    from trl_math.share import Part

    generate, engine = asked.generate, asked.engine
    checkpoint, model = model_lines(engine)
    interpreter = generate.interpreter_settings()
    file = difficulty_file(str(generate.output))
    there = num_rows(file.samples)
    found = {"model": model}
    try:
        loaded, problems, notes = load_asked(asked)
    except NotCachedError as error:
        found["problems"] = [f"{generate.data}: not in the local cache, so its columns are not checked", f"({error})"]
    else:
        number = generate.num_samples
        lines = [
            f"{len(problems):,} problems, up to {number} samples each: {len(problems) * number:,} at most",
            *notes,
        ]
        if checkpoint is not None and checkpoint.tokenizer is not None:
            prompts = make_prompts(loaded, find_style(generate, loaded), checkpoint.tokenizer)
            lines += prompt_lines(prompts, generate.max_tokens, checkpoint, engine)
        found["problems"] = lines
    found["rule"] = _rule(asked)
    found["engines"] = engine_lines(engine, Part())
    if interpreter is not None:
        found["programs"] = program_lines(interpreter)
    found["files"] = [f"{file.path}, {file.samples}" + (f" ({there:,} samples there: it goes on)" if there else "")]
    runs_programs = interpreter is not None or asked.grading.programs
    found["missing on this machine"] = missing_lines(engine, runs_programs=runs_programs)
    return found


def _rule(asked: "Asked") -> list[str]:
    """Return what the rule promises, and what it costs by the pass rate, exactly."""
    from trl_math.evaluation.sequential_exact import stops

    settings, most = asked.rule, asked.generate.num_samples
    rule = settings.make(most, asked.told)
    rates = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    costs = ", ".join(f"{stops(rule.table, rate).expected_samples:.0f} at {rate:g}" for rate in rates)
    lines = [f"{settings.rule}: {_asks(asked)}"]
    if settings.rule != "fixed":
        prior = " with Jeffreys' prior, before one is fitted" if settings.is_fitted else ""
        lines.append(f"expected samples by pass rate{prior}: {costs}")
    if settings.rule == "threshold":
        low, high = rule.facts["zone"]
        lines.append(f"promised for every pass rate up to {low:.3f} and from {high:.3f}; between them either will do")
    if settings.budget is not None:
        lines.append(f"no more than {settings.budget:,} samples in all")
    return lines


def _asks(asked: "Asked") -> str:
    rule, most = asked.rule, asked.generate.num_samples
    threshold: Any = 0.1 if rule.threshold is None else rule.threshold
    sure = f"{0.98 if rule.rule_confidence is None else rule.rule_confidence:g}"
    return {
        "fixed": f"{most} samples of each problem",
        "threshold": f"is the pass rate below {threshold:g}? Confidence {sure}, at most {most} samples",
        "agreement": f"would {most} samples have a share below {threshold:g}? Confidence {sure}",
        "level": f"which of {asked.told.levels} levels ({asked.told.level_rule})? Confidence {sure}, at most {most}",
        "width": f"an interval no wider than {rule.width} ({asked.told.confidence:g}), at most {most} samples",
    }[rule.rule]

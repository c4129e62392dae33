"""`trl-math rationales --dry-run`: how many samples and tokens, at what cost; or what samples that are there give."""

from typing import TYPE_CHECKING, Any

from trl_math.cli.rationales import prepare, short_lines, yield_of
from trl_math.data.rationale_rows import RationaleRows, rationales_file
from trl_math.errors import NotCachedError
from trl_math.evaluation.rationale_yield import yield_table
from trl_math.generate_plan import (
    engine_lines,
    missing_lines,
    model_lines,
    prompt_lines,
    sections,
    settings_lines,
)
from trl_math.share import Part
from trl_math.wording import counted


if TYPE_CHECKING:
    from trl_math.cli.rationales_settings import Asked


def report(asked: "Asked") -> str:
    """Return the text of a dry run; raise what would stop the run on any machine. Loads no model."""
    settings = {"settings (others are at their defaults)": settings_lines(asked.given)}
    file = rationales_file(str(asked.generate.output))
    if asked.places.samples:
        return sections({**settings, **_of_samples(asked, file)})
    checkpoint, model = model_lines(asked.engine)
    found = {
        "model": model,
        "samples": _samples(asked, checkpoint, file),
        "engines": engine_lines(asked.engine, Part()),
        "files": [f"{file.path}, {file.manifest}, yield.json, yield.svg, yield.png, {file.samples}"],
        "missing on this machine": missing_lines(asked.engine),
    }
    return sections({**settings, **found})


def _samples(asked: "Asked", checkpoint: Any, file: Any) -> list[str]:
    from trl_math.cli import rationales_teacher

    generate = asked.generate
    if checkpoint is None:
        return ["the model is not here, so that prompts are not counted"]
    try:
        task = rationales_teacher.prepare(asked, {})
    except NotCachedError as error:
        return [f"{generate.data}: not in the local cache, so its columns are not checked", f"({error})"]
    plan = task.plan
    assert plan is not None
    number = asked.wanted.num_rationales
    outlook = rationales_teacher.Outlook.of(asked, plan, file)
    lines = [
        *task.notes,
        f"{counted(len(task.problems), 'problem')} x {counted(number, 'sample')} = {number * len(task.problems):,}",
        *outlook.lines(),
    ]
    if checkpoint.tokenizer is not None:
        lines += prompt_lines(plan.prompts, generate.max_tokens, checkpoint, asked.engine)
    if asked.stages.is_two:
        from trl_math.generation.two_stage import ANSWER_REQUEST, ANSWER_TURN

        request = ANSWER_TURN if rationales_teacher.is_chat(asked) else ANSWER_REQUEST
        lines += [
            f"the first stage asks in {generate.prompt_style}; behind its reasoning, the second:",
            f"| {request}",
        ]
    return lines


def _of_samples(asked: "Asked", file: Any) -> dict[str, list[str]]:
    task = prepare(asked)
    assert task.samples is not None
    is_done = file.is_finished(task.made_of)
    wanted = asked.wanted
    rows = RationaleRows(task.problems, task.samples, wanted.rules(), task.styles, wanted.problem_weights)
    table = ["nothing"]
    if rows.num_drawn:
        table = [*yield_table(yield_of(rows)).split("\n"), *short_lines(rows, wanted.num_rationales)]
    would = "is made of this already" if is_done else f"would be written, with {counted(rows.num_rows, 'rationale')}"
    return {"yield": table, "files": [f"{file.path} {would}"]}

"""`trl-math rephrase --dry-run`: what is asked of the model, how much of it at most, at what cost; what rules do."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from trl_math.cli.rephrase import Task, prepare, rephrase_file
from trl_math.errors import NotCachedError
from trl_math.generate_plan import engine_lines, missing_lines, model_lines, sections, settings_lines
from trl_math.generation.backend import Usage
from trl_math.generation.cost import money
from trl_math.share import Part
from trl_math.wording import counted


if TYPE_CHECKING:
    from trl_math.cli.rephrase_settings import Asked


def report(asked: "Asked") -> str:
    """Return the text of a dry run; raise what would stop the run on any machine. Loads no model."""
    file = rephrase_file(str(asked.originals.output))
    parts: dict[str, Any] = {"settings (others are at their defaults)": settings_lines(asked.given)}
    checkpoint = None
    if asked.asks_model:
        checkpoint, parts["model"] = model_lines(asked.engine)
    if asked.asks_model and checkpoint is None:
        parts["rephrased"] = ["the model is not here, so that prompts are not counted"]
    else:
        try:
            task = prepare(asked)
        except NotCachedError as error:
            parts["rephrased"] = [f"{asked.originals.data}: not in the local cache, so not checked", f"({error})"]
        else:
            parts["rephrased"] = _rephrased(asked, task)
            is_done = file.is_finished(task.made_of)
            parts["rephrased"] += [f"{file.path} is made of this already: nothing to do"] if is_done else []
    if asked.asks_model:
        parts["engines"] = engine_lines(asked.engine, Part())
    names = [file.path, file.manifest, "pairs.jsonl", *([file.samples] if asked.asks_model else [])]
    parts["files"] = [", ".join(map(str, names))]
    if asked.asks_model:
        parts["missing on this machine"] = missing_lines(asked.engine)
    return sections(parts)


def _rephrased(asked: "Asked", task: Task) -> list[str]:
    lines = [f"{counted(len(task.rows), 'original')} x {', '.join(one.name for one in asked.variants)}"]
    if task.fresh is not None:
        lines.append(f"renumber: {counted(len(task.fresh), 'further problem')} of the generator")
    elif any(one.way == "renumber" for one in asked.variants) and asked.wanted.renumber_by != "model":
        lines += _renumbered(asked, task)
    if not task.drafts:
        return lines
    return [*lines, *_outlook(asked, task), *_prompt(task)]


def _renumbered(asked: "Asked", task: Task) -> list[str]:
    """Return how many can be renumbered by rule, and why others cannot; it is quickly tried."""
    from trl_math.contamination.renumber import REASONS, CannotRenumber, renumber

    refused: Counter[str] = Counter()
    for row in task.rows:
        try:
            renumber(row, asked.drafting.seed)
        except CannotRenumber as error:
            refused[error.reason] += 1
    lines = [f"renumber: {len(task.rows) - refused.total():,} by rule"]
    return lines + [f"  not {number:,}: {reason} ({REASONS[reason]})" for reason, number in refused.most_common()]


def _outlook(asked: "Asked", task: Task) -> list[str]:
    """Return the most samples, tokens and cost."""
    attempts, rows = asked.wanted.attempts, len(task.rows)
    drafts = sum(len(plan.prompts) for plan in task.drafts.values()) * attempts
    prompt_tokens = sum(len(prompt.ids) for plan in task.drafts.values() for prompt in plan.prompts) * attempts
    most = Usage(prompt_tokens, drafts * asked.drafting.max_tokens)
    lines = [f"at most {counted(drafts, 'draft')} ({attempts} attempts), at least {drafts // attempts:,}"]
    if task.solver is not None:
        number = asked.checking.num_checks
        answers = number * (rows + drafts)
        asked_tokens = sum(len(prompt.ids) for prompt in task.solver.prompts) * number
        # A rephrased problem is about as long as its original.
        asked_tokens *= 1 + drafts // max(1, rows)
        most = Usage(
            most.num_prompt_tokens + asked_tokens, most.num_tokens + answers * asked.checking.solver_max_tokens
        )
        lines.append(f"at most {counted(answers, 'sample')} of the solver, {number * rows:,} of them of originals")
    lines.append(f"at most {most.num_tokens:,} tokens of samples, for about {most.num_prompt_tokens:,} of prompts")
    if price := asked.prices.price:
        limit = asked.prices.max_cost
        said = f"cost: at most {money(price.of(most))}"
        lines.append(f"{said}{'' if limit is None else f'; max_cost {money(limit)}'}")
    return lines


def _prompt(task: Task) -> list[str]:
    """Return the first prompt of each way."""
    lines = []
    for variant, plan in task.drafts.items():
        prompt = plan.prompts[0].prompt
        text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        lines += [f"{variant.name} asks:", *(f"| {line}" for line in text.splitlines())]
    return lines

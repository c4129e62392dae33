"""Rationales that a teacher writes: what it is asked, what that may cost, and the drawing itself."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from trl_math.cli.request import say
from trl_math.errors import UsageError
from trl_math.wording import counted


if TYPE_CHECKING:
    from trl_math.cli.rationales import Task
    from trl_math.cli.rationales_settings import Asked
    from trl_math.data.graded_samples import GradedSamples
    from trl_math.data.made_file import MadeFile
    from trl_math.evaluation.allocation import Verdicts
    from trl_math.generation.backend import Backend
    from trl_math.generation.cost import Spent
    from trl_math.generation.run import Prompt
    from trl_math.generation.session import Plan


class OneRound:
    """The rounds of a teacher: one, in which every problem gets all its samples."""

    standing = ""

    def __init__(self, ids: Sequence[str], num_samples: int) -> None:
        self._wanted = dict.fromkeys(ids, num_samples)

    def next_round(self, verdicts: "Verdicts") -> dict[str, int]:
        """Return how many samples problems must have; nothing when they have them."""
        wanted, self._wanted = self._wanted, {}
        return wanted

    def counts(self, verdicts: "Verdicts") -> list[None]:
        """Rationales are counted where they are chosen."""
        return []


def prepare(asked: "Asked", settings: dict[str, Any]) -> "Task":
    """Return what a teacher is to be asked, or raise what is wrong with it."""
    from trl_math.cli.drawing import load_judgeable, plan_of
    from trl_math.cli.rationales import Task
    from trl_math.data.prompts import PROMPT_STYLES
    from trl_math.data.rationale_rows import Styles

    loaded, problems, notes = load_judgeable(asked.generate)
    plan, digest = plan_of(loaded, problems, asked)
    plan = plan._replace(settings=plan.settings | _stage_settings(asked))
    if asked.stages.is_two:
        _check_two_stage(asked, plan)
    row_style = asked.wanted.row_style
    styles = Styles(PROMPT_STYLES[asked.generate.prompt_style], PROMPT_STYLES[row_style] if row_style else None)
    made_of = {"settings": settings, "sampling": plan.settings, "problems": digest}
    return Task(problems, made_of, notes, styles, plan=plan)


def draw(asked: "Asked", file: "MadeFile", task: "Task") -> tuple["GradedSamples", dict[str, Any], list[str]]:
    """Draw and grade what is missing; return the samples, what they were drawn with, and what to say."""
    from trl_math.cli import drawing
    from trl_math.data.graded_samples import GradedSamples
    from trl_math.evaluation.adaptive_sampling import GRADED
    from trl_math.generation.arguments import sampler_hash

    plan = task.plan
    assert plan is not None
    before = spent_before(asked, file, plan)
    for line in Outlook.of(asked, plan, file).lines() if asked.prices.price else ():
        say(line)
    rounds = OneRound([problem["problem_id"] for problem in task.problems], asked.wanted.num_rationales)
    _, judged_with = drawing.draw(
        asked, file, plan, task.problems, rounds, around=lambda backend: around(backend, asked, plan, before)
    )
    spent = spent_before(asked, file, plan)
    facts: dict[str, Any] = {
        "model": asked.engine.label,
        "data": plan.data,
        "sampler": sampler_hash(plan.settings),
        "graded_with": dict(judged_with),
        "num_prompt_tokens": spent.usage.num_prompt_tokens,
        "num_tokens": spent.usage.num_tokens,
    }
    if num_bounded := _num_bounded(asked, plan, spent):
        facts["num_prompts_bounded"] = num_bounded
    if price := asked.prices.price:
        facts["cost"] = price.of(spent.usage)
    return GradedSamples([file.samples / GRADED]), facts, [_said(spent, num_bounded, facts.get("cost"))]


def _said(spent: "Spent", num_bounded: int, cost: float | None) -> str:
    """Return what samples took, in a line; where nobody tells it of prompts, that it is a bound."""
    from trl_math.generation.cost import money

    at_most = "at most " if num_bounded else ""
    asked_for, drawn = spent.usage
    samples = counted(spent.num_samples, "sample has", "samples have")
    line = f"{samples} {drawn:,} tokens, for {at_most}{asked_for:,} of prompts"
    line += "" if cost is None else f", and cost {at_most}{money(cost)}"
    why = f" (the prompts of {num_bounded:,} by their bytes, since the server does not tell their tokens)"
    return f"{line}{why if num_bounded else ''}."


def around(backend: "Backend", asked: "Asked", plan: "Plan", before: "Spent") -> "Backend":
    """Return the backend with what the settings put around it: two stages, and what counts the cost."""
    from trl_math.generation.cost import MeteredBackend
    from trl_math.generation.two_stage import TwoStageBackend

    if asked.stages.is_two:
        backend = TwoStageBackend(
            backend,
            plan.checkpoint.tokenizer,
            is_chat=is_chat(asked),
            answer_tokens=asked.stages.answer_tokens,
            answer_temperature=asked.stages.answer_temperature,
            group_size=_group_size(asked),
        )
    if price := asked.prices.price:
        backend = MeteredBackend(backend, price, asked.prices.max_cost, before.usage, say)
    return backend


def is_chat(asked: "Asked") -> bool:
    """Whether the engine takes messages alone."""
    return asked.engine.engine == "server" and asked.engine.endpoint == "chat"


def spent_before(asked: "Asked", file: "MadeFile", plan: "Plan") -> "Spent":
    """Return what the samples took that are there, of the problems that are asked."""
    from trl_math.generation.cost import spent_on

    return spent_on(_rows_there(file, plan), {prompt.problem_id: _most_read(asked, prompt) for prompt in plan.prompts})


def _most_read(asked: "Asked", prompt: "Prompt") -> int:
    """Return the most tokens that are read for a sample; of one stage exact, if we have the prompt's tokens."""
    from trl_math.generation.backend import Usage, most_prompt_tokens
    from trl_math.generation.two_stage import both_stages

    first = len(prompt.ids) or most_prompt_tokens(prompt.prompt)
    if not asked.stages.is_two:
        return first
    return both_stages(Usage(first, asked.generate.max_tokens), asked.stages.answer_tokens).num_prompt_tokens


def _num_bounded(asked: "Asked", plan: "Plan", spent: "Spent") -> int:
    """Return of how many samples it is only known what they can have read at most."""
    is_counted = plan.checkpoint.tokenizer is not None and not (asked.stages.is_two and is_chat(asked))
    return 0 if is_counted else spent.num_untold


def _rows_there(file: "MadeFile", plan: "Plan") -> Iterator[Mapping[str, Any]]:
    """Yield the samples that are there of the problems that are asked."""
    from trl_math.generation.sample_files import unique_rows

    names = {prompt.problem_id for prompt in plan.prompts}
    rows = (row for _, _, row in unique_rows(file.samples)) if file.samples.is_dir() else ()
    return (row for row in rows if row["problem_id"] in names)


class Outlook(NamedTuple):
    """What is still to be drawn, and what it may take."""

    asked: "Asked"
    num_left: int
    before: "Spent"
    num_prompt_tokens: int  # of all that is left, two stages apart
    is_counted: bool  # or bounded by bytes

    @classmethod
    def of(cls, asked: "Asked", plan: "Plan", file: "MadeFile") -> "Outlook":
        """Look at what is to be asked and at what is there; samples behind the first D make up for no missing ones."""
        from trl_math.generation.backend import most_prompt_tokens

        number = asked.wanted.num_rationales
        num_all = number * len(plan.prompts)
        is_counted = plan.checkpoint.tokenizer is not None
        lengths = [len(prompt.ids) or most_prompt_tokens(prompt.prompt) for prompt in plan.prompts]
        num_left = num_all - sum(row["sample_index"] < number for row in _rows_there(file, plan))
        tokens = round(sum(lengths) * number * num_left / max(num_all, 1))
        return cls(asked, num_left, spent_before(asked, file, plan), tokens, is_counted)

    def lines(self) -> list[str]:
        """Return samples, tokens and cost of what is left: at most, and about, if samples tell."""
        from trl_math.generation.backend import Usage
        from trl_math.generation.cost import money
        from trl_math.generation.two_stage import both_stages

        stages, number = self.asked.stages, self.num_left
        most = Usage(self.num_prompt_tokens, number * self.asked.generate.max_tokens)
        if stages.is_two:
            most = both_stages(most, stages.answer_tokens, number)
        lines = [
            f"{counted(number, 'sample')} to draw, {self.before.num_samples:,} are there",
            f"at most {most.num_tokens:,} tokens of samples, for {most.num_prompt_tokens:,} of prompts"
            f"{'' if self.is_counted else ', these bounded by their bytes: the server has the tokenizer'}",
        ]
        about = self._about()
        if about is not None:
            lines.append(
                f"about {about.num_tokens:,} and {about.num_prompt_tokens:,}, by the {self.before.num_samples:,} "
                "samples that are there"
            )
        if price := self.asked.prices.price:
            said = f"cost: at most {money(price.of(most))}"
            said += f", about {money(price.of(about))}" if about is not None else ""
            said += f"; spent so far {money(price.of(self.before.usage))}" if self.before.num_samples else ""
            limit = self.asked.prices.max_cost
            lines.append(f"{said}{'' if limit is None else f'; max_cost {money(limit)}'}")
        return lines

    def _about(self) -> Any:
        """Return the tokens that are left if the others are like those that are there; None if there are none."""
        from trl_math.generation.backend import Usage

        there = self.before.num_samples
        if not there:
            return None
        return Usage(*(round(number * self.num_left / there) for number in self.before.usage))


def _stage_settings(asked: "Asked") -> dict[str, Any]:
    """Return what samples of two stages must have in common; those of one are samples as any others."""
    if not asked.stages.is_two:
        return {}
    from trl_math.generation.two_stage import ANSWER_REQUEST, ANSWER_TURN

    return {
        "prompting": "two_stage",
        "answer_request": ANSWER_TURN if is_chat(asked) else ANSWER_REQUEST,
        "answer_tokens": asked.stages.answer_tokens,
        "answer_temperature": float(asked.stages.answer_temperature),
    }


def _check_two_stage(asked: "Asked", plan: "Plan") -> None:
    if any(isinstance(prompt.prompt, str) for prompt in plan.prompts) and is_chat(asked):
        raise UsageError("endpoint chat takes messages: choose a chat prompt style, or endpoint completions.")


def _group_size(asked: "Asked") -> int:
    """Return how many samples are reasoned out before their answers are asked for: what keeps an engine busy."""
    engine = asked.engine
    busy = {
        "transformers": engine.batch_size,
        "server": 4 * engine.concurrency * len(engine.server_urls or ()),
        "vllm": 1024,
    }
    return busy.get(engine.engine, 256)

"""What an evaluation is made of: each benchmark, asked in one way, with a folder for its samples."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import datasets

from trl_math.data.prompts import PROMPT_STYLES, PromptStyle
from trl_math.errors import UsageError
from trl_math.evaluation.arguments import AUTO, MODES, EvaluateArguments
from trl_math.evaluation.benchmarks import find_benchmark, load, load_shots
from trl_math.generation.arguments import find_style
from trl_math.generation.checkpoint import Checkpoint
from trl_math.generation.engines import EngineArguments
from trl_math.generation.session import Plan, prepare


class Unit(NamedTuple):
    """One benchmark, asked in one way."""

    benchmark: str
    mode: str
    problems: datasets.Dataset
    plan: Plan
    style: PromptStyle

    @property
    def folder(self) -> str:
        """The name of the folder of its samples."""
        return self.benchmark if self.mode == "cot" else f"{self.benchmark}+{self.mode}"

    @property
    def key(self) -> dict[str, str]:
        """What tells its rows from those of other units."""
        return {"benchmark": self.benchmark, "mode": self.mode}


def make_units(
    benchmarks: Sequence[str], arguments: EvaluateArguments, engine: EngineArguments, checkpoint: Checkpoint
) -> list[Unit]:
    """Return what is to be asked, or raise what is wrong with it; loads problems and no model."""
    found = [find_benchmark(text) for text in benchmarks]
    check_names([benchmark.name for benchmark, _ in found])
    is_chat = has_chat_template(engine, checkpoint)
    units = []
    for benchmark, path in found:
        everything = load(benchmark, path)
        number = min(arguments.max_problems or len(everything), len(everything))
        problems = everything.select(range(number))
        for mode in MODES[arguments.mode]:
            name = style_of(arguments.style_in(mode), mode, is_chat=is_chat)
            asked = arguments.generate_arguments(name, data=path or benchmark.source or benchmark.name)
            shots = load_shots(benchmark) if arguments.num_shots and arguments.shots_data is None else None
            style = find_style(asked, everything, shots)
            units.append(
                Unit(benchmark.name, mode, problems, prepare(problems, asked, engine, checkpoint, style), style)
            )
    return units


def check_names(names: Sequence[str]) -> None:
    """Raise unless every benchmark has a name of its own that can be the name of a folder beside our files."""
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"Two benchmarks would be called {' and '.join(sorted(twice))}: rename one of the files.")
    for name in names:
        if not re.fullmatch(r"\w[\w.\-]*", name) or name.endswith((".json", ".jsonl")):
            raise UsageError(f"A benchmark cannot be called {name!r}: rename its file, or move it to a folder.")


def has_chat_template(engine: EngineArguments, checkpoint: Checkpoint) -> bool:
    """Whether the model is asked in conversations."""
    if checkpoint.tokenizer is None:
        return True  # the server has the template
    is_served_chat = engine.engine == "server" and engine.endpoint == "chat"
    return is_served_chat or bool(getattr(checkpoint.tokenizer, "chat_template", None))


def style_of(asked: str, mode: str, *, is_chat: bool) -> str:
    """Return the name of the prompt style: the one that was asked for, else that of the mode."""
    if asked == AUTO:
        name = "direct" if mode == "coverage" else mode
        return f"chat_{name}" if is_chat else name
    style: PromptStyle = PROMPT_STYLES[asked]
    asks_for = next((name for name in ("program", "tool") if name in asked), None)
    if asks_for != (mode if mode in ("program", "tool") else None):
        raise UsageError(
            f"Prompt style {asked} does not ask for what mode {mode} reads: leave prompt_style out, or choose another."
        )
    if style.is_chat and not is_chat:
        raise UsageError(f"Prompt style {asked} is a conversation, and this model has no chat template.")
    return asked

"""What `trl-math collect` is asked, in typed form: how many right answers of which problems, drawn in which way."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from trl_math.cli.difficulty_settings import Grading, check_drawing, given_of
from trl_math.data.prompts import PROMPT_STYLES
from trl_math.errors import UsageError, nearest, pick
from trl_math.evaluation.targets import NEED_PASS_RATES, TARGETS
from trl_math.generation.arguments import GenerateArguments
from trl_math.generation.engines import EngineArguments
from trl_math.recipes import GENERATE_ALIASES, Header, canonical, split_values


DUPLICATES = ("drop", "keep")


def _setting(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class TargetSettings:
    """How many right answers each problem is to have, and when to give up."""

    targets: str = _setting(
        "uniform",
        "uniform: num_correct for every problem; prop2diff: in proportion to how often a problem is failed, "
        "num_correct for the hardest and at least one.",
    )
    num_correct: int = _setting(40, "Right answers of a problem; with prop2diff, of the hardest.")
    pass_rates: str | None = _setting(
        None,
        "Of prop2diff: where pass_rate (or err_rate) stands by problem_id, such as a folder of `trl-math difficulty`. "
        "Unset: in data itself.",
    )
    max_trials: int = _setting(
        2048, "The most samples of a problem; those that are short of their target then are counted and listed."
    )
    duplicates: str = _setting(
        "drop", "Right answers with the same text: drop (they count once) or keep (each counts)."
    )
    row_style: str | None = _setting(
        None,
        "Prompt style of the rows, where the model that trains on them is asked in another way than this one. Unset: "
        "prompts as they were sampled.",
    )
    round_samples: int = _setting(4, "Samples of an open problem in a round at least.")

    def __post_init__(self) -> None:
        pick("targets", self.targets, TARGETS)
        pick("duplicates", self.duplicates, DUPLICATES)
        for name in ("num_correct", "max_trials", "round_samples"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.max_trials < self.num_correct:
            raise UsageError(
                f"max_trials {self.max_trials:,} is below num_correct {self.num_correct:,}, which no problem could "
                "reach: raise it, or lower num_correct."
            )
        if self.pass_rates is not None and self.targets not in NEED_PASS_RATES:
            raise UsageError(f"pass_rates is for targets {', '.join(NEED_PASS_RATES)}; these are {self.targets}.")


@dataclasses.dataclass
class Drawing(GenerateArguments):
    """Which problems are asked, and how samples are drawn: by default as DART's were."""

    num_samples: int = dataclasses.field(default=1, init=False, metadata={"help": "See max_trials."})
    temperature: float = dataclasses.field(default=1.6, metadata={"help": "Of the samples; above 0."})
    top_p: float = dataclasses.field(default=0.95, metadata={"help": "Nucleus sampling; 1 is off."})


class Asked(NamedTuple):
    """The settings of one command."""

    header: Header
    wanted: TargetSettings
    grading: Grading
    generate: Drawing
    engine: EngineArguments
    given: dict[str, Any]


KINDS = {
    "header": Header,
    "wanted": TargetSettings,
    "grading": Grading,
    "generate": Drawing,
    "engine": EngineArguments,
}


def build(values: Mapping[str, Any]) -> Asked:
    """Return typed settings; raise for what has no place, and for what does not go together."""
    values = canonical(values, GENERATE_ALIASES)
    if "num_samples" in values:
        raise UsageError(
            "collect draws until a problem has num_correct right answers or max_trials samples: leave num_samples out."
        )
    parts = split_values(values, KINDS)
    asked = Asked._make([*(kind(**parts[name]) for name, kind in KINDS.items()), given_of(parts, KINDS)])
    generate = asked.generate
    if not asked.engine.model:
        raise UsageError("Which model? Set model (a hub name, a folder, or embedded:smollm2-135m-instruct).")
    check_drawing(generate, asked.engine, "collect")
    if generate.interpreter:
        raise UsageError(
            "collect writes texts to train on, and what an interpreter printed would be among them: leave interpreter "
            "out. (programs: true runs samples that are programs.)"
        )
    _check_row_style(asked)
    if generate.sampling().is_greedy and asked.wanted.max_trials > 1:
        raise UsageError("At temperature 0 all samples of a problem would be the same: give one above 0.")
    return asked


def _check_row_style(asked: Asked) -> None:
    """Raise unless the rows' style shows what samples are: a solution, or a program."""
    style, shown = asked.wanted.row_style, "program" if asked.grading.programs else "solution"
    fitting = [name for name, one in PROMPT_STYLES.items() if shown in one.columns]
    if style is not None and style not in fitting:
        raise UsageError(
            f"row_style must be a prompt style whose completion is a {shown}, one of {', '.join(fitting)}, got "
            f"{style!r}.{nearest(style, fitting)}"
        )

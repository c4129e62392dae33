"""What `trl-math rationales` is asked, in typed form: how many of which rationales, from samples or from a teacher."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trl_math.cli.difficulty_settings import Grading, check_drawing, given_of
from trl_math.data.prompts import PROMPT_STYLES
from trl_math.data.rationales import DUPLICATES, WEIGHTS, Rules
from trl_math.errors import UsageError, nearest, pick
from trl_math.generation.arguments import GenerateArguments
from trl_math.generation.cost import Price
from trl_math.generation.engines import EngineArguments
from trl_math.recipes import GENERATE_ALIASES, Header, canonical, split_values


PROMPTING = ("one_stage", "two_stage")
# What the first of two stages asks, unless a style is named.
TWO_STAGE_STYLE = "zero_shot_cot"
# Groups of settings that only a run with a teacher uses; and of those, what says which problems and where to.
SAMPLING_KINDS = ("stages", "prices", "grading", "generate", "engine")
OF_ALL = {"data", "data_config", "split", "output", "seed"}


def _setting(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass
class Places:
    """Where samples come from, if a teacher does not draw them for it."""

    samples: str | None = _setting(
        None, "A folder or file of graded samples, instead of model; on the command line it may stand in front."
    )


@dataclasses.dataclass(frozen=True)
class RationaleSettings:
    """Which rationales there are to be of each problem."""

    num_rationales: int = _setting(
        8, "D, samples of a problem: the first D by their numbers, so that those of D = 4 are among those of D = 8."
    )
    row_style: str | None = _setting(
        None,
        "Prompt style of the rows. Where it has a place for the answer, the gold one stands there, behind the "
        "reasoning without its own. Unset: prompts and texts as they were sampled.",
    )
    keep_wrong: bool = _setting(False, "Also keep rationales whose answer is wrong.")
    keep_unfinished: bool = _setting(False, "Also keep rationales that ran out of tokens.")
    duplicates: str = _setting(
        "near",
        f"Of rationales of a problem that say the same, {' or '.join(DUPLICATES[:2])}, keep the first; or keep.",
    )
    near_threshold: float = _setting(0.8, "Of near: share of common word trigrams (Jaccard) from which on it is one.")
    max_per_problem: int | None = _setting(None, "Rationales of a problem at most, the first ones.")
    problem_weights: str = _setting(
        "uniform", "uniform: rows weigh the same; inverse_count: problems do, by a column weight with mean 1."
    )
    min_rationale_tokens: int | None = _setting(None, "Leave out samples of fewer tokens.")
    max_rationale_tokens: int | None = _setting(None, "Leave out samples of more tokens.")

    def __post_init__(self) -> None:
        pick("problem_weights", self.problem_weights, WEIGHTS)
        for name in ("min_rationale_tokens", "max_rationale_tokens"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.near_threshold != RationaleSettings.near_threshold and self.duplicates != "near":
            raise UsageError(f"near_threshold is for duplicates near; these are {self.duplicates}: leave it out.")
        self.rules()  # refuses what makes no sense

    def rules(self) -> Rules:
        """Return what decides which samples serve."""
        return Rules(
            self.num_rationales,
            self.keep_wrong,
            self.keep_unfinished,
            self.duplicates,
            self.near_threshold,
            self.min_rationale_tokens,
            self.max_rationale_tokens,
            self.max_per_problem,
        )


@dataclasses.dataclass(frozen=True)
class Stages:
    """How a teacher is asked."""

    prompting: str = _setting(
        "one_stage",
        'one_stage: as prompt_style asks; two_stage: after that, "Therefore, the answer is", and prompt_style is '
        f"{TWO_STAGE_STYLE} unless it is given (chat_cot with endpoint chat).",
    )
    answer_tokens: int = _setting(32, "Of two_stage: tokens of the answer at most; max_tokens is for the reasoning.")
    answer_temperature: float = _setting(0.0, "Of two_stage: temperature of the answer; 0 is greedy.")

    def __post_init__(self) -> None:
        pick("prompting", self.prompting, PROMPTING)
        if self.answer_tokens < 1:
            raise UsageError(f"answer_tokens must be at least 1, got {self.answer_tokens}.")
        if self.answer_temperature < 0:
            raise UsageError(f"answer_temperature must be 0 (greedy) or above, got {self.answer_temperature:g}.")
        if not self.is_two:
            for name in ("answer_tokens", "answer_temperature"):
                if getattr(self, name) != getattr(Stages, name):
                    raise UsageError(f"{name} is of prompting two_stage: set that too, or leave it out.")

    @property
    def is_two(self) -> bool:
        return self.prompting == "two_stage"


@dataclasses.dataclass(frozen=True)
class Prices:
    """What samples cost."""

    price_input: float | None = _setting(None, "Price of a million prompt tokens, to tell what the run costs.")
    price_output: float | None = _setting(None, "Price of a million tokens of samples.")
    max_cost: float | None = _setting(
        None, "End before samples cost more than this; with a larger one, the same command goes on."
    )

    def __post_init__(self) -> None:
        for name in ("price_input", "price_output", "max_cost"):
            if getattr(self, name) is not None and getattr(self, name) < 0:
                raise UsageError(f"{name} must be 0 or above, got {getattr(self, name):g}.")
        if (self.price_input is None) != (self.price_output is None):
            raise UsageError("price_input and price_output go together: one of them is missing.")
        if self.max_cost is not None and self.price_input is None:
            raise UsageError("max_cost needs price_input and price_output: what does a million tokens cost?")

    @property
    def price(self) -> Price | None:
        if self.price_input is None or self.price_output is None:
            return None
        return Price(self.price_input, self.price_output)


@dataclasses.dataclass
class Drawing(GenerateArguments):
    """Which problems are asked, and how samples are drawn: by default as the paper's were."""

    num_samples: int = dataclasses.field(default=1, init=False, metadata={"help": "See num_rationales."})
    temperature: float = dataclasses.field(default=0.7, metadata={"help": "0 is greedy, for one rationale each."})
    max_tokens: int = dataclasses.field(default=512, metadata={"help": "Tokens of a sample, or its reasoning."})


class Asked(NamedTuple):
    """The settings of one command."""

    header: Header
    places: Places
    wanted: RationaleSettings
    stages: Stages
    prices: Prices
    grading: Grading
    generate: Drawing
    engine: EngineArguments
    given: dict[str, Any]


KINDS = {
    "header": Header,
    "places": Places,
    "wanted": RationaleSettings,
    "stages": Stages,
    "prices": Prices,
    "grading": Grading,
    "generate": Drawing,
    "engine": EngineArguments,
}


def build(values: Mapping[str, Any], words: Sequence[str] = ()) -> Asked:
    """Return typed settings; raise for what has no place, and for what does not go together."""
    values = canonical(values, GENERATE_ALIASES)
    if words:
        if values.get("samples") or len(words) > 1:
            raise UsageError("Rationales are made of one folder of samples, and several are given: give one.")
        values["samples"] = words[0]
    if "num_samples" in values:
        raise UsageError("How many samples a problem gets is num_rationales here: leave num_samples out.")
    parts = split_values(values, KINDS)
    ways = [way for way, kind in (("samples", "places"), ("model", "engine")) if parts[kind].get(way)]
    if len(ways) != 1:
        raise UsageError(
            f"Rationales come from one of two places, and {' and '.join(ways) or 'none'} is given: --samples (graded "
            "ones), or --model (a teacher that draws samples of data)."
        )
    given = given_of(parts, KINDS)
    if ways == ["samples"]:
        _refuse_sampling(parts, given)
    elif parts["stages"].get("prompting") == "two_stage":
        if parts["engine"].get("endpoint") != "chat":
            parts["generate"].setdefault("prompt_style", TWO_STAGE_STYLE)
        # Said, and part of what a stage is made of, whether or not it is the default of one stage.
        given["prompt_style"] = parts["generate"].get("prompt_style", Drawing.prompt_style)
    asked = Asked._make([*(kind(**parts[name]) for name, kind in KINDS.items()), given])
    _check_row_style(asked.wanted.row_style)
    if ways == ["samples"]:
        if not asked.generate.data:
            raise UsageError("Which problems were these samples made of? Set data.")
    else:
        _check_drawing(asked)
    return asked


def _refuse_sampling(parts: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]) -> None:
    """Raise for settings of a teacher where nothing is sampled."""
    unused = [name for kind in SAMPLING_KINDS for name in parts[kind] if name in given and name not in OF_ALL]
    if unused:
        raise UsageError(f"{' and '.join(unused)} is for a teacher, and samples are there already: leave it out.")


def _check_drawing(asked: Asked) -> None:
    check_drawing(asked.generate, asked.engine, "rationales")
    if asked.generate.interpreter or asked.grading.programs:
        raise UsageError(
            "rationales are texts to train on: leave interpreter and programs out (`trl-math collect --programs` "
            "collects programs)."
        )
    if asked.generate.sampling().is_greedy and asked.wanted.num_rationales > 1:
        raise UsageError(
            f"At temperature 0 all {asked.wanted.num_rationales} samples of a problem would be the same: give one "
            "above 0, or num_rationales 1."
        )
    if asked.stages.is_two and asked.generate.logprobs:
        raise UsageError("A sample of two stages is of two draws and has no log-probabilities: leave logprobs out.")


def _check_row_style(style: str | None) -> None:
    """Raise unless the rows' style shows a solution."""
    fitting = [name for name, one in PROMPT_STYLES.items() if "solution" in one.columns]
    if style is not None and style not in fitting:
        raise UsageError(
            f"row_style must be a prompt style whose completion has a solution, one of {', '.join(fitting)}, got "
            f"{style!r}.{nearest(style, fitting)}"
        )

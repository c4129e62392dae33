"""What `trl-math rephrase` is asked, in typed form."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from trl_math.cli.difficulty_settings import given_of
from trl_math.cli.rationales_settings import Prices
from trl_math.contamination.rephrase_checks import LANGUAGES
from trl_math.contamination.rephrase_ways import CODE, FORMS, WAYS, Limits, Variant, variants_of
from trl_math.data.prompts import PROMPT_STYLES
from trl_math.errors import UsageError, pick
from trl_math.generation.arguments import GenerateArguments
from trl_math.generation.engines import EngineArguments
from trl_math.recipes import GENERATE_ALIASES, Header, canonical, split_values


CHECKS = ("answer", "none")
RENUMBER_BY = ("auto", "rule", "model")


def _setting(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass
class Originals:
    """What is rephrased, and where to."""

    data: str | None = _setting(
        None, "Problems: a benchmark (gsm8k, math500=FILE), a hub name, a file, a generator; or programs with tests."
    )
    data_config: str | None = _setting(None, "Configuration name on the hub.")
    split: str = _setting("train", "Split to rephrase; of a benchmark always its own.")
    max_problems: int | None = _setting(None, "Only the first so many.")
    output: str | None = _setting(None, "Folder of the rephrased set.")

    def __post_init__(self) -> None:
        if self.max_problems is not None and self.max_problems < 1:
            raise UsageError(f"max_problems must be at least 1, got {self.max_problems}.")


@dataclasses.dataclass(frozen=True)
class RephraseSettings:
    """How it is rephrased."""

    ways: list[str] | None = dataclasses.field(
        default=None, metadata={"help": f"How, one or several: {', '.join(WAYS)}."}
    )
    languages: list[str] | None = dataclasses.field(
        default=None, metadata={"help": f"Of translate: {', '.join(LANGUAGES)}."}
    )
    attempts: int = _setting(4, "Drafts of an original in each way at most; the first that passes is taken.")
    overlap_n: int = _setting(10, "Words of the n-grams that are compared.")
    max_overlap: float = _setting(0.0, "Largest share of the original's n-grams that may be left; renumber has none.")
    keep_numbers: bool = _setting(True, "Reject drafts that lack a number of the original (not of renumber).")
    renumber_by: str = _setting("auto", "rule: by code or not at all; model; auto: by code, else by a model.")
    prompt_form: str = _setting("chat", "How the model is asked: chat, or plain for one that was not instructed.")

    def __post_init__(self) -> None:
        if not self.ways:
            raise UsageError(f"In which ways? Set ways, one or several of {', '.join(WAYS)}.")
        for way in self.ways:
            pick("way to rephrase", way, WAYS)
        for setting in ("ways", "languages"):
            values = getattr(self, setting) or []
            if twice := next((value for value in values if values.count(value) > 1), None):
                raise UsageError(f"{setting} has {twice!r} twice: name each once.")
        for language in self.languages or []:
            pick("language", language, LANGUAGES)
        if ("translate" in self.ways) != bool(self.languages):
            raise UsageError("translate and languages go together: --ways translate --languages de fr zh.")
        if len({WAYS[way].kind for way in self.ways}) > 1:
            raise UsageError("Ways for problems and ways for programs (rename, restructure) are two runs.")
        if self.attempts < 1:
            raise UsageError(f"attempts must be at least 1, got {self.attempts}.")
        if self.overlap_n < 1:
            raise UsageError(f"overlap_n must be at least 1, got {self.overlap_n}.")
        if not 0 <= self.max_overlap <= 1:
            raise UsageError(f"max_overlap must be from 0 to 1, got {self.max_overlap:g}.")
        pick("renumber_by", self.renumber_by, RENUMBER_BY)
        pick("prompt_form", self.prompt_form, FORMS)

    @property
    def variants(self) -> list[Variant]:
        return variants_of(self.ways or (), self.languages or ())

    @property
    def is_code(self) -> bool:
        return any(WAYS[way].kind == CODE for way in self.ways or ())

    def limits(self) -> Limits:
        return Limits(self.overlap_n, float(self.max_overlap), self.keep_numbers)

    def needs_model(self, variant: Variant) -> bool:
        """Whether a way cannot be gone without a model."""
        return not WAYS[variant.way].has_rule or (variant.way == "renumber" and self.renumber_by == "model")


@dataclasses.dataclass(frozen=True)
class Checking:
    """How it is known that a rephrased problem is still right. Programs run the original's tests."""

    check: str = _setting("answer", "answer: a solver must give the original's answer; none: rows say so.")
    solver: str | None = _setting(None, "Model that solves, if it is not model.")
    solver_style: str = _setting("chat_cot", "Prompt style in which it is asked.")
    num_checks: int = _setting(4, "Its samples of each problem.")
    min_agreement: float = _setting(0.5, "Share of them that must have the answer, or agree on a new one.")
    solver_temperature: float = _setting(0.7, "Their temperature.")
    solver_max_tokens: int = _setting(1024, "Tokens of one at most.")
    program_seconds: float = _setting(10.0, "Seconds that a program and its tests may run.")
    grading_workers: int | None = _setting(None, "Processes that compare answers. Unset: one for each core.")

    def __post_init__(self) -> None:
        pick("check", self.check, CHECKS)
        pick("prompt style", self.solver_style, PROMPT_STYLES)
        if self.num_checks < 1:
            raise UsageError(f"num_checks must be at least 1, got {self.num_checks}.")
        if self.program_seconds <= 0:
            raise UsageError(f"program_seconds must be above 0, got {self.program_seconds:g}.")
        if not 0 < self.min_agreement <= 1:
            raise UsageError(f"min_agreement must be above 0 and at most 1, got {self.min_agreement:g}.")
        if self.solver_temperature == 0 and self.num_checks > 1:
            raise UsageError(
                "At solver_temperature 0 all samples would be the same: give num_checks 1, or one above 0."
            )


@dataclasses.dataclass(frozen=True)
class Drafting:
    """How drafts are sampled."""

    temperature: float = _setting(0.8, "0 is greedy, for one attempt.")
    top_p: float = _setting(0.95, "Nucleus sampling; 1 is off.")
    max_tokens: int = _setting(1024, "Tokens of a draft at most.")
    seed: int = _setting(0, "Random state of drafts, answers and rules.")


class Asked(NamedTuple):
    """The settings of one command."""

    header: Header
    originals: Originals
    wanted: RephraseSettings
    checking: Checking
    drafting: Drafting
    prices: Prices
    engine: EngineArguments
    given: dict[str, Any]

    @property
    def variants(self) -> list[Variant]:
        return self.wanted.variants

    @property
    def asks_model(self) -> bool:
        return self.engine.model is not None

    @property
    def checks_answers(self) -> bool:
        return self.checking.check == "answer" and not self.wanted.is_code

    def draft_arguments(self) -> GenerateArguments:
        """Return how drafts are drawn, as the generation room has it."""
        drafting = self.drafting
        return GenerateArguments(
            data=self.originals.data,
            temperature=drafting.temperature,
            top_p=drafting.top_p,
            max_tokens=drafting.max_tokens,
            seed=drafting.seed,
            stop=[],
        )

    def solver_arguments(self) -> GenerateArguments:
        """Return how a solver's answers are drawn."""
        checking = self.checking
        return GenerateArguments(
            data=self.originals.data,
            prompt_style=checking.solver_style,
            temperature=checking.solver_temperature,
            max_tokens=checking.solver_max_tokens,
            seed=self.drafting.seed,
        )

    def solver_engine(self) -> EngineArguments:
        """Return which model solves, on the same engine."""
        if self.checking.solver is None:
            return self.engine
        other = {"model": self.checking.solver, "revision": None, "adapter": None, "tokenizer": None}
        return dataclasses.replace(self.engine, **other)


KINDS = {
    "header": Header,
    "originals": Originals,
    "wanted": RephraseSettings,
    "checking": Checking,
    "drafting": Drafting,
    "prices": Prices,
    "engine": EngineArguments,
}


def build(values: Mapping[str, Any]) -> Asked:
    """Return typed settings; raise for what has no place, and for what does not go together."""
    parts = split_values(canonical(values, GENERATE_ALIASES), KINDS)
    asked = Asked._make([*(kind(**parts[name]) for name, kind in KINDS.items()), given_of(parts, KINDS)])
    if not asked.originals.data:
        raise UsageError("Which problems? Set data (a benchmark, a hub name, a JSONL or Parquet file, a generator).")
    _check_model(asked, parts)
    if asked.drafting.temperature == 0 and asked.wanted.attempts > 1 and asked.asks_model:
        raise UsageError("At temperature 0 all attempts would be the same: give attempts 1, or one above 0.")
    if asked.wanted.is_code and "check" in asked.given:
        raise UsageError("Programs are checked by the original's tests: leave check out.")
    if asked.engine.data_parallel_size > 1:
        raise UsageError("rephrase draws its rounds with one engine: use tensor_parallel_size, or server_urls.")
    return asked


def _check_model(asked: Asked, parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise if a way needs a model and there is none, or if there is one that nothing uses."""
    wanted = asked.wanted
    needs = [variant.name for variant in wanted.variants if wanted.needs_model(variant)]
    if needs and not asked.asks_model:
        raise UsageError(f"{' and '.join(needs)} needs a model: set model, or choose by_rule or renumber.")
    may_use = needs or any(one.way == "renumber" and wanted.renumber_by == "auto" for one in wanted.variants)
    if asked.asks_model and not may_use:
        raise UsageError("These ways are gone by rule and ask no model: leave model out.")
    if not asked.asks_model:
        unused = [name for kind in ("checking", "prices", "engine") for name in parts[kind] if name in asked.given]
        if unused:
            raise UsageError(
                f"{' and '.join(unused)} is about a model, and none is asked: leave it out, or set model."
            )

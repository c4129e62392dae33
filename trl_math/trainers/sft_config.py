"""Configuration of `MathSFTTrainer`: TRL's `SFTConfig` plus the objective."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from trl import SFTConfig

from trl_math.errors import UsageError, pick
from trl_math.losses import COVERAGE_ESTIMATORS
from trl_math.losses.parameters import as_mapping, check_parameters
from trl_math.trainers.generation_eval_config import GenerationEvalConfig
from trl_math.trainers.objective import OBJECTIVES
from trl_math.trainers.screening_config import ScreeningConfig
from trl_math.trainers.segments import STEP_IDS


# Packing strategies that cut a sequence in two, which leaves no part with the probability of the whole answer.
CUTTING_STRATEGIES = ("bfd_split", "wrapped")
COVERAGE_CHOICES = (
    "coverage_level",
    "coverage_reduction",
    "coverage_allocation",
    "coverage_from",
    "coverage_estimator",
)


@dataclass
class MathSFTConfig(GenerationEvalConfig, ScreeningConfig, SFTConfig):
    """`SFTConfig` with an objective that may limit confidence. With the defaults it trains exactly as TRL does."""

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [
        *SFTConfig._VALID_DICT_FIELDS,
        "objective_params",
        "screening_engine_params",
    ]

    # Parameters that control the objective
    objective: str = field(
        default="cross_entropy",
        metadata={
            "help": "Loss to minimise. `coverage` limits confidence to what `num_attempts` samples need. "
            f"One of: {', '.join(OBJECTIVES)}.",
        },
    )
    objective_params: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Parameters of the objective other than coverage's own, such as `{gamma: 2.0}` for `focal`."
        },
    )
    num_attempts: float | None = field(
        default=None,
        metadata={
            "help": "N: how many times the model will be sampled at test time; any real number above 0, 1 is "
            "cross-entropy. Needed by `coverage`; with other objectives it only adds coverage to the logs."
        },
    )
    coverage_level: str = field(
        default="sequence",
        metadata={
            "help": "Whose probability the coverage is of: the whole answer (`sequence`), each of a row's `steps` "
            "(`step`, N is then the effective number of attempts at one step), or each `token`.",
            "choices": ["sequence", "step", "token"],
        },
    )
    coverage_reduction: str = field(
        default="sum",
        metadata={
            "help": "`sum`: the exact gradient of the coverage loss, per trained token. `mean`: length-normalised "
            "cross-entropy times F(N, p), per sequence, as the published code does.",
            "choices": ["sum", "mean"],
        },
    )
    coverage_allocation: str = field(
        default="each",
        metadata={
            "help": "How attempts go to the steps or tokens of a row: `each` gets `num_attempts`, or `uniform`: each "
            "gets `num_attempts` divided by how many there are.",
            "choices": ["each", "uniform"],
        },
    )
    coverage_from: str = field(
        default="logprob",
        metadata={
            "help": "What p in F(N, p) is. `logprob`: the model's own probability of the row's answer, for direct "
            "answers. `pass_rate`: the share of its problem's samples that are right, for chains of thought, which "
            "weighs the row's cross-entropy.",
            "choices": ["logprob", "pass_rate"],
        },
    )
    coverage_estimator: str | None = field(
        default=None,
        metadata={
            "help": "F of a pass rate: `plug_in` at the share itself, `posterior_mean` over what the share leaves "
            "open, or `u_statistic`; the latter two read num_correct and num_samples. Unset: plug_in, but of what "
            "live screening finds with screening_rule: agreement posterior_mean, the only one that goes with it.",
            "choices": list(COVERAGE_ESTIMATORS),
        },
    )
    max_pass_rate: float | None = field(
        default=None,
        metadata={
            "help": "Rows whose pass rate is this or more are not trained on, with coverage_from: pass_rate (the "
            "published code: 0.1)."
        },
    )
    unscreened_steps: int = field(
        default=0,
        metadata={
            "help": "For so many optimiser steps every row is trained on as if its pass rate were 0 (the published "
            "code: 20)."
        },
    )
    min_coverage_weight: float = field(
        default=0.0,
        metadata={
            "help": "Examples whose F(N, p) is at or below this are screened out by a forward pass and replaced, so "
            "that every optimiser step has its full number of live examples. 0 trains on everything. With "
            "num_train_epochs the steps become fewer than the learning rate schedule was laid out for."
        },
    )

    # Parameters that control the rows
    max_truncated_fraction: float = field(
        default=0.01,
        metadata={
            "help": "Largest share of rows that may lose their end to `max_length` (they teach the model never to "
            "stop); above it training is refused."
        },
    )
    drop_truncated: bool = field(
        default=False,
        metadata={"help": "Leave out rows longer than `max_length` instead of training on their beginnings."},
    )

    def __post_init__(self) -> None:
        self.objective_params = as_mapping("objective_params", self.objective_params)
        # Before TRL's own checks, which look at this machine: a typing mistake is one on every machine.
        self._check_objective()
        self._check_pass_rates()
        self.check_screening()
        self._check_refill()
        self.check_generation_eval()
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.max_truncated_fraction <= 1:
            raise UsageError(f"max_truncated_fraction is a share between 0 and 1, got {self.max_truncated_fraction}.")
        super().__post_init__()

    @property
    def refills(self) -> bool:
        """Whether batches are composed while training: some examples are screened out and replaced."""
        return self.min_coverage_weight > 0 or self.unscreened_steps > 0 or self.is_screened_live

    @property
    def gate(self) -> float:
        """The pass rate from which on rows are not trained on; infinite if there is none."""
        return math.inf if self.max_pass_rate is None else self.max_pass_rate

    @property
    def column_estimator(self) -> str:
        """How F of a pass rate in the data is estimated: as published unless given."""
        return self.coverage_estimator or "plug_in"

    @property
    def own_loss(self) -> str:
        """The setting that asks for a loss other than TRL's, or an empty text."""
        return "" if self.objective == "cross_entropy" else f"objective: {self.objective}"

    @property
    def carried_columns(self) -> tuple[str, ...]:
        """Per-token columns that travel from the data set to the loss."""
        return (STEP_IDS,) if self.coverage_level == "step" else ()

    @property
    def needs_whole_sequences(self) -> bool:
        """Whether the loss looks at the probability of more than one token."""
        return self.objective == "gate" or (self.num_attempts is not None and self.coverage_level != "token")

    def _check_objective(self) -> None:
        pick("objective", self.objective, OBJECTIVES)
        for name in COVERAGE_CHOICES:
            if getattr(self, name) != self.__dataclass_fields__[name].default:
                pick(name, getattr(self, name), self.__dataclass_fields__[name].metadata["choices"])
        check_parameters(
            f"objective: {self.objective}", "objective_params", OBJECTIVES[self.objective], self.objective_params or {}
        )
        if self.num_attempts is not None and not (self.num_attempts > 0 and math.isfinite(self.num_attempts)):
            raise UsageError(f"num_attempts must be a finite number above 0, got {self.num_attempts}.")
        if self.objective == "coverage":
            if self.num_attempts is None:
                raise UsageError("objective: coverage needs num_attempts: how many times the model will be sampled.")
            if self.coverage_allocation == "uniform" and self.coverage_level == "sequence":
                raise UsageError(
                    "coverage_allocation: uniform divides attempts among steps or tokens: set coverage_level."
                )
        else:
            for name in (*COVERAGE_CHOICES, "max_pass_rate", "unscreened_steps"):
                if getattr(self, name) != self.__dataclass_fields__[name].default:
                    raise UsageError(f"{name} belongs to objective: coverage, but objective is {self.objective!r}.")
        if self.objective != "cross_entropy" or self.num_attempts is not None:
            self.check_own_loss(f"objective: {self.objective}")
        if self.eval_packing and not (self.packing or self.padding_free):
            raise UsageError(
                "eval_packing without packing lets the packed sequences see each other: set packing: true or "
                "padding_free: true with it, or eval_packing: false."
            )
        if self.carried_columns and self.truncation_mode != "keep_start":
            raise UsageError(
                "coverage_level: step numbers steps from the start, so it needs truncation_mode: keep_start."
            )
        if (
            (self.packing or self.eval_packing)
            and self.needs_whole_sequences
            and self.packing_strategy in CUTTING_STRATEGIES
        ):
            raise UsageError(
                f"packing_strategy: {self.packing_strategy} cuts sequences, so that parts of answers would be taken "
                "for answers; use packing_strategy: bfd."
            )

    def check_own_loss(self, asking: str) -> None:
        """Raise for options that replace the loss; `asking` is what needs ours."""
        clashes = {
            f"loss_type: {self.loss_type}": self.loss_type != "nll",
            "use_liger_kernel": self.use_liger_kernel,
            "label_smoothing_factor": self.label_smoothing_factor > 0,
        }
        for option, is_set in clashes.items():
            if is_set:
                raise UsageError(
                    f"{option} replaces the loss that {asking} would compute, and its outputs; leave it at its "
                    "default."
                )

    def _check_pass_rates(self) -> None:
        if self.coverage_from == "logprob":
            for name in ("coverage_estimator", "max_pass_rate", "unscreened_steps"):
                if getattr(self, name) != self.__dataclass_fields__[name].default:
                    raise UsageError(f"{name} belongs to coverage_from: pass_rate, but it is {self.coverage_from!r}.")
            return
        assert self.num_attempts is not None
        if self.max_pass_rate is not None and not 0 < self.max_pass_rate <= 1:
            raise UsageError(f"max_pass_rate is a pass rate above 0 and at most 1, got {self.max_pass_rate}.")
        if self.unscreened_steps < 0:
            raise UsageError(f"unscreened_steps must be a number of steps from 0, got {self.unscreened_steps}.")
        if self.num_attempts == 1 and self.max_pass_rate is None:
            raise UsageError(
                "coverage_from: pass_rate with num_attempts: 1 weighs all rows alike: raise it, or set max_pass_rate."
            )
        if self.coverage_estimator == "u_statistic" and self.num_attempts != round(self.num_attempts):
            raise UsageError(
                f"coverage_estimator: u_statistic needs a whole num_attempts, got {self.num_attempts}: use "
                "posterior_mean."
            )
        if self.coverage_level != "sequence":
            raise UsageError(
                f"coverage_from: pass_rate is about whole answers: leave out coverage_level: {self.coverage_level}."
            )
        if self.min_coverage_weight > 0:
            raise UsageError(
                "min_coverage_weight screens by the model's own probability: with coverage_from: pass_rate use "
                "max_pass_rate."
            )

    def _check_refill(self) -> None:
        if not 0 <= self.min_coverage_weight < 1:
            raise UsageError(f"min_coverage_weight must be in [0, 1), got {self.min_coverage_weight}.")
        if not self.refills:
            return
        screening = "unscreened_steps" if self.unscreened_steps else "min_coverage_weight"
        screening = "screening: live" if self.is_screened_live else screening
        if self.min_coverage_weight and (
            self.objective != "coverage" or self.num_attempts is None or self.num_attempts <= 1
        ):
            raise UsageError(
                "min_coverage_weight screens by F(N, p): it needs objective: coverage and num_attempts > 1."
            )
        refused = {
            "packing": (self.packing, "batches are composed while training: use padding_free: true, max_length: null"),
            "dataloader_num_workers": (self.dataloader_num_workers > 0, "rows are collated between optimiser steps"),
            "auto_find_batch_size": (self.auto_find_batch_size, "the batch size is part of the refill queue"),
            "train_sampling_strategy": (self.train_sampling_strategy != "random", "the queue decides the order"),
        }
        for option, (is_set, reason) in refused.items():
            if is_set:
                raise UsageError(f"{screening} does not work with {option}: {reason}.")

"""Configuration of `MathDPOTrainer`: TRL's `DPOConfig` plus what difficulty, anchors and stored references need."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from trl import DPOConfig

from trl_math.errors import UsageError, pick
from trl_math.losses import DIFFICULTY_SCHEDULES
from trl_math.losses.parameters import as_mapping, check_parameters
from trl_math.trainers.dpo_objective import ANCHORS, LOSS_TYPES, TOKEN_ANCHOR, TRL_ONLY
from trl_math.trainers.generation_eval_config import GenerationEvalConfig
from trl_math.trainers.live_pairs_config import LivePairsConfig


SCHEDULES = ", ".join(DIFFICULTY_SCHEDULES)
SCHEDULED = ("pair_weight", "beta_schedule", "margin_schedule")


@dataclass
class MathDPOConfig(GenerationEvalConfig, LivePairsConfig, DPOConfig):
    """`DPOConfig` with difficulty schedules, anchors, stored references and live pairs. By default it is TRL's."""

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [
        *DPOConfig._VALID_DICT_FIELDS,
        *(f"{name}_params" for name in SCHEDULED),
        "live_pair_params",
        "live_engine_params",
    ]

    # Parameters that control how much each pair counts, by its problem's pass rate
    pair_weight: str = field(
        default="uniform",
        metadata={
            "help": "Weight of a pair's loss as a schedule of its problem's pass rate, with mean 1 over the training "
            f"pairs; multiplied with their column `weight`. One of: {SCHEDULES}."
        },
    )
    pair_weight_params: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Parameters of that schedule, such as `{num_attempts: 16}` for `coverage`."}
    )
    beta_schedule: str = field(
        default="uniform",
        metadata={
            "help": "Beta of a pair as a schedule of its problem's pass rate, with mean `beta`. As pair_weight."
        },
    )
    beta_schedule_params: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Parameters of that schedule."}
    )
    margin: float = field(
        default=0.0,
        metadata={
            "help": "By how much the reward (beta times the log-ratio) of the chosen answer should exceed that of the "
            "rejected one; 0 is plain DPO."
        },
    )
    margin_schedule: str = field(
        default="uniform",
        metadata={
            "help": "Margin of a pair as a schedule of its problem's pass rate, with mean `margin`. As pair_weight."
        },
    )
    margin_schedule_params: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Parameters of that schedule."}
    )

    # Parameters that control the loss of a pair
    anchor: str = field(
        default="none",
        metadata={
            "help": "Pull on the chosen answer: `nll` is its cross-entropy per token (Iterative RPO; TRL's loss_type "
            "`sft` averages over all tokens of a batch instead), `coverage` the coverage loss of its own probability, "
            "which ends once anchor_attempts samples find it, `coverage_pass_rate` cross-entropy times F(N, p) of the "
            "problem's pass rate.",
            "choices": ANCHORS,
        },
    )
    anchor_weight: float = field(default=1.0, metadata={"help": "Weight of the anchor."})
    anchor_attempts: float | None = field(
        default=None, metadata={"help": "N of the coverage anchors: how many times the model will be sampled."}
    )
    displacement_penalty: float = field(
        default=0.0,
        metadata={
            "help": "DPO-Positive's lambda: how much a chosen answer that falls below the reference takes from the "
            "pair's log-ratio difference; 0 is off."
        },
    )
    length_normalised: bool = field(
        default=False,
        metadata={
            "help": "Log-ratios per trained token instead of summed, as loss_type sigmoid_norm does. Raise beta."
        },
    )

    # Parameters that control the reference
    reference_file: str | None = field(
        default=None,
        metadata={
            "help": "Where the reference's log-probabilities are kept, with precompute_ref_log_probs, so that later "
            "runs on the same pairs need no pass of the reference. `auto`: beside the pairs, named after the model."
        },
    )
    check_reference: bool = field(
        default=True,
        metadata={"help": "Stop if the reference is not the start model: the margins of the first batch must be 0."},
    )

    # Parameters that control the rows
    max_truncated_fraction: float = field(
        default=0.01,
        metadata={
            "help": "Largest share of pairs that may lose an end to `max_length`; above it training is refused."
        },
    )
    drop_truncated: bool = field(
        default=False, metadata={"help": "Leave out pairs longer than `max_length` instead of cutting them."}
    )
    mixed_samplers: bool = field(
        default=False,
        metadata={
            "help": "Train on pairs of several samplers (models, templates or ways of sampling, by their column "
            "`sampler`) together."
        },
    )

    # Parameters that control the alarm
    max_chosen_drop: float = field(
        default=0.1,
        metadata={
            "help": "Warn when chosen answers have lost more than this against the reference, in nats per token."
        },
    )
    stop_at_chosen_drop: bool = field(default=False, metadata={"help": "End training there instead of warning."})

    def __post_init__(self) -> None:
        self.loss_type = [self.loss_type] if isinstance(self.loss_type, str) else self.loss_type
        for name in SCHEDULED:
            key = f"{name}_params"
            setattr(self, key, as_mapping(key, getattr(self, key)))
        # Before TRL's own checks, which look at this machine: a typing mistake is one on every machine.
        for name in self.loss_type:
            pick("loss_type", name, (*LOSS_TYPES, TOKEN_ANCHOR, *TRL_ONLY))
        self._check_schedules()
        self._check_anchor()
        if not self.is_trl_loss:
            self.check_own_loss(self.own_loss)
        self._check_numbers()
        self._check_reference()
        self.check_generation_eval()
        self.check_live_pairs()
        if self.live_data is not None and self.live_pair_settings.weighting != "none":
            self.check_own_loss(f"live_pair_params: {{weighting: {self.live_pair_settings.weighting}}}")
        super().__post_init__()

    @property
    def is_trl_loss(self) -> bool:
        """Whether the loss is TRL's own, so that it is used as it is (unless rows bring weights)."""
        return self.own_loss == ""

    @property
    def needs_pass_rates(self) -> bool:
        """Whether rows without pass rates cannot be trained on."""
        return self.anchor == "coverage_pass_rate" or any(getattr(self, name) != "uniform" for name in SCHEDULED)

    @property
    def own_loss(self) -> str:
        """The first setting that asks for a loss other than TRL's, or an empty text."""
        settings = {
            **{f"{name}: {getattr(self, name)}": getattr(self, name) != "uniform" for name in SCHEDULED},
            f"margin: {self.margin}": self.margin != 0,
            f"anchor: {self.anchor}": self.anchor != "none",
            f"displacement_penalty: {self.displacement_penalty}": self.displacement_penalty != 0,
            "length_normalised": self.length_normalised,
            # TRL ignores it there; here it is conservative DPO.
            "label_smoothing with loss_type sigmoid": self.label_smoothing != 0
            and bool({"sigmoid", "sigmoid_norm"} & set(self.loss_type)),
        }
        return next((setting for setting, is_set in settings.items() if is_set), "")

    def check_own_loss(self, asking: str) -> None:
        """Raise for options of TRL's loss that ours does not compute; `asking` is what needs ours."""
        for name in self.loss_type:
            if name in TRL_ONLY:
                raise UsageError(
                    f"{asking} does not go with loss_type: {name}, which looks at the two answers apart or at a whole "
                    f"batch. It goes with {', '.join((*LOSS_TYPES, TOKEN_ANCHOR))}."
                )
        refused = {
            f"ld_alpha: {self.ld_alpha}": (self.ld_alpha is not None, "it weights tokens beyond the shorter answer"),
            f"f_divergence_type: {self.f_divergence_type}": (
                self.f_divergence_type != "reverse_kl",
                "its scores are no log-ratios",
            ),
            "use_weighting": (self.use_weighting, "its weights would multiply those of the pairs"),
            "use_liger_kernel": (self.use_liger_kernel, "it changes what the model returns"),
        }
        for option, (is_set, reason) in refused.items():
            if is_set:
                raise UsageError(f"{asking} does not go with {option}: {reason}. Leave it at its default.")
        if "exo_pair" in self.loss_type and not 0 < self.label_smoothing < 1:
            raise UsageError(f"loss_type: exo_pair needs a label_smoothing above 0, got {self.label_smoothing}.")
        if not 0 <= self.label_smoothing < 0.5:
            raise UsageError(f"label_smoothing must be from 0 to below 0.5, got {self.label_smoothing}.")

    def _check_schedules(self) -> None:
        for name in SCHEDULED:
            schedule = pick(name, getattr(self, name), DIFFICULTY_SCHEDULES)
            function, given = DIFFICULTY_SCHEDULES[schedule], getattr(self, f"{name}_params") or {}
            check_parameters(f"{name}: {schedule}", f"{name}_params", function, given)
        if self.beta_schedule == "band":
            raise UsageError("beta_schedule: band would give a beta of 0 outside the band: use pair_weight: band.")
        if self.margin_schedule == "band" and self.live_data is not None:
            raise UsageError("margin_schedule: band may leave a refresh of live_data without a margin: use another.")
        if self.margin_schedule != "uniform" and self.margin == 0:
            raise UsageError(f"margin_schedule: {self.margin_schedule} spreads the margin, which is 0: set margin.")

    def _check_anchor(self) -> None:
        pick("anchor", self.anchor, ANCHORS)
        is_coverage = self.anchor.startswith("coverage")
        if is_coverage and self.anchor_attempts is None:
            raise UsageError(f"anchor: {self.anchor} needs anchor_attempts: how many times the model will be sampled.")
        if not is_coverage and self.anchor_attempts is not None:
            raise UsageError(f"anchor_attempts is for the coverage anchors, and anchor is {self.anchor}.")
        if self.anchor == "none" and self.anchor_weight != 1:
            raise UsageError("anchor_weight is given, and no anchor: set anchor too.")
        for name in ("anchor_attempts", "anchor_weight"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UsageError(f"{name} must be a finite number above 0, got {value}.")
        if self.anchor == "nll" and TOKEN_ANCHOR in self.loss_type:
            raise UsageError("anchor: nll and loss_type: sft are the same pull in two units: choose one.")

    def _check_numbers(self) -> None:
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.max_truncated_fraction <= 1:
            raise UsageError(f"max_truncated_fraction is a share between 0 and 1, got {self.max_truncated_fraction}.")
        if not (self.beta > 0 and math.isfinite(self.beta)):
            raise UsageError(f"beta must be a finite number above 0, got {self.beta}.")
        for name in ("margin", "displacement_penalty"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be a finite number from 0, got {getattr(self, name)}.")
        if not self.max_chosen_drop > 0:
            raise UsageError(f"max_chosen_drop must be above 0 (inf is off), got {self.max_chosen_drop}.")
        if self.length_normalised and all(name == TOKEN_ANCHOR or LOSS_TYPES[name][1] for name in self.loss_type):
            raise UsageError(f"length_normalised: loss_type {', '.join(self.loss_type)} is per token already.")
        if self.padding_free:
            raise UsageError("padding_free does nothing in TRL's DPOTrainer since its refactor: leave it out.")

    def _check_reference(self) -> None:
        if self.sync_ref_model and self.precompute_ref_log_probs:
            raise UsageError(
                "sync_ref_model moves the reference, and precompute_ref_log_probs keeps it where it was: choose one."
            )
        if self.reference_file is None:
            return
        if not self.precompute_ref_log_probs:
            raise UsageError("reference_file keeps precomputed log-probabilities: set precompute_ref_log_probs: true.")
        if self.ld_alpha is not None:
            raise UsageError("reference_file keeps whole answers' log-probabilities, and ld_alpha weights their ends.")

"""How pass rates are told, and when a problem has samples enough: every setting with its help, checked when given."""

import dataclasses
import inspect
from typing import Any

from trl_math.data.difficulty import HANDLINGS, LEVEL_RULES
from trl_math.errors import UsageError, pick
from trl_math.evaluation.posterior import ESTIMATORS, FITTED, PRIORS, Prior, check_confidence, find_prior
from trl_math.evaluation.sequential import RULES, Rule


# Rules that are sure of something, and those that expect something of a problem before it is sampled.
SURE, EXPECTANT = ("threshold", "agreement", "level"), ("agreement", "level")


def _setting(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class DifficultySettings:
    """What is told of each problem, and which problems are kept."""

    estimator: str = _setting(
        "plug_in", "Of pass_rate: plug_in (the share of right samples) or posterior_mean, which is never 0 or 1."
    )
    prior: str = _setting(
        "jeffreys",
        f"Of intervals and of posterior_mean: {', '.join(PRIORS)}, {FITTED} (to this set), or A,B of a Beta.",
    )
    confidence: float = _setting(0.95, "Of the intervals.")
    levels: int | None = _setting(None, "Also tell a difficulty_level, of so many levels.")
    level_rule: str = _setting(
        "released", "released: floor((1-p) L - 1e-6) + 1, from 1 to L; report: floor((1-p) L), from 0 to L."
    )
    never: str = _setting("keep", f"Problems without a right sample: {', '.join(HANDLINGS)}.")
    never_cap: int | None = _setting(None, "With never cap: how many of them are kept, drawn with the seed.")
    always: str = _setting("keep", f"Problems without a wrong sample: {', '.join(HANDLINGS)}.")
    always_cap: int | None = _setting(None, "With always cap: how many of them are kept, drawn with the seed.")

    def __post_init__(self) -> None:
        pick("estimator", self.estimator, ESTIMATORS)
        _check_prior("prior", self.prior)
        check_confidence(self.confidence)
        pick("level_rule", self.level_rule, LEVEL_RULES)
        if self.levels is not None and self.levels < 2:
            raise UsageError(f"levels must be at least 2, got {self.levels}.")
        for status in ("never", "always"):
            handling, cap = getattr(self, status), getattr(self, f"{status}_cap")
            pick(status, handling, HANDLINGS)
            if (handling == "cap") != (cap is not None):
                raise UsageError(f"{status} cap and {status}_cap go together: how many problems are kept?")
            if cap is not None and cap < 1:
                raise UsageError(f"{status}_cap must be at least 1, got {cap}; {status} drop keeps none.")

    @property
    def resampled(self) -> list[str]:
        """Which problems get more samples."""
        return [status for status in ("never", "always") if getattr(self, status) == "resample"]


@dataclasses.dataclass(frozen=True)
class RuleSettings:
    """When a problem has been sampled enough. `num_samples` is the most that it gets, with rule fixed what it gets."""

    rule: str = _setting(
        "agreement",
        "fixed: num_samples of each; threshold: which side of threshold; agreement: what num_samples would say of "
        "threshold; level: which of levels; width: an interval of this width.",
    )
    threshold: float | None = _setting(None, "Of rules threshold and agreement [0.1].")
    rule_confidence: float | None = _setting(
        None, "With which threshold, agreement and level settle a problem [0.98]."
    )
    zone: list[float] | None = dataclasses.field(
        default=None,
        metadata={
            "help": "Of rule threshold: pass rates between which either verdict will do [what num_samples tell apart]."
        },
    )
    width: float | None = _setting(None, "Of rule width: that of the interval, by prior and confidence.")
    rule_prior: str | None = _setting(
        None,
        f"What agreement and level expect of a problem: {FITTED} (to the first samples; jeffreys with fewer than 32 "
        f"problems), {', '.join(PRIORS)}, or A,B of a Beta [{FITTED}].",
    )
    first_samples: int = _setting(4, "Samples of every problem before any is settled.")
    round_samples: int = _setting(4, "Samples of an open problem in a round, unless the rule needs more to settle it.")
    budget: int | None = _setting(
        None, "Samples in all; if it is short, problems that need the fewest more are settled first."
    )
    resample_to: int | None = _setting(None, "How many samples problems get that never or always resample.")

    def __post_init__(self) -> None:
        pick("rule", self.rule, RULES)
        takes = _takes(self.rule)
        for name in ("threshold", "zone", "width"):
            if getattr(self, name) is not None and name not in takes:
                fitting = [rule for rule in RULES if name in _takes(rule)]
                raise UsageError(f"{name} is for rule {' or '.join(fitting)}; this one is {self.rule}.")
        for name, rules in (("rule_confidence", SURE), ("rule_prior", EXPECTANT)):
            if getattr(self, name) is not None and self.rule not in rules:
                raise UsageError(f"{name} is for rule {' or '.join(rules)}; this one is {self.rule}.")
        if self.rule == "width" and self.width is None:
            raise UsageError("Rule width needs width: how wide may the interval of a pass rate be?")
        if self.zone is not None and len(self.zone) != 2:
            raise UsageError(f"zone is two pass rates, got {self.zone}.")
        if self.rule_prior is not None:
            _check_prior("rule_prior", self.rule_prior)
        for name in ("first_samples", "round_samples"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}.")

    @property
    def is_fitted(self) -> bool:
        """Whether the rule waits for the first samples."""
        return self.rule in EXPECTANT and self.rule_prior in (None, FITTED)

    def make(self, max_samples: int, told: DifficultySettings, fitted: Prior | None = None) -> Rule:
        """Return the rule for so many samples at most; `fitted` is what the first samples say."""
        if self.rule == "fixed":
            return RULES["fixed"](max_samples)
        if self.rule == "width" and told.prior == FITTED:
            raise UsageError("Rule width needs a prior that is known before samples are: prior fitted is not.")
        known = told.prior if self.rule == "width" else self.rule_prior
        prior = find_prior("jeffreys" if known in (None, FITTED) else known) if fitted is None else fitted
        zone = None if self.zone is None else (self.zone[0], self.zone[1])
        values = {
            "threshold": 0.1 if self.threshold is None else self.threshold,
            "confidence": self._confidence(told),
            "zone": zone,
            "width": self.width,
            "levels": told.levels,
            "level_rule": told.level_rule,
            "max_samples": max_samples,
            "num_fixed": max_samples,
            "prior": prior,
        }
        if self.rule == "level" and told.levels is None:
            raise UsageError("Rule level needs levels: how many are there?")
        takes = _takes(self.rule)
        return RULES[self.rule](**{name: value for name, value in values.items() if name in takes})

    def _confidence(self, told: DifficultySettings) -> float:
        if self.rule == "width":
            return told.confidence
        return 0.98 if self.rule_confidence is None else self.rule_confidence

    def check(self, max_samples: int, told: DifficultySettings, num_problems: int | None = None) -> None:
        """Raise for what does not go together; makes the rule, if only with a prior that will be another."""
        if max_samples < self.first_samples and self.rule != "fixed":
            raise UsageError(
                f"first_samples {self.first_samples} is above num_samples {max_samples}: lower one or raise the other."
            )
        if bool(told.resampled) != (self.resample_to is not None):
            raise UsageError("never or always resample, and resample_to, go together: how many samples do they get?")
        if self.resample_to is not None and self.resample_to <= max_samples:
            raise UsageError(f"resample_to {self.resample_to} must be above num_samples, {max_samples}.")
        first = max_samples if self.rule == "fixed" else self.first_samples
        if self.budget is not None and self.budget < (num_problems or 1) * first:
            raise UsageError(
                f"budget {self.budget:,} does not cover the first {first} samples of {num_problems or 1:,} problems: "
                f"it must be at least {(num_problems or 1) * first:,}."
            )
        self.make(max_samples, told)


def _takes(rule: str) -> set[str]:
    return set(inspect.signature(RULES[rule]).parameters)


def _check_prior(name: str, text: str) -> None:
    if text != FITTED:
        try:
            find_prior(text)
        except UsageError as error:
            raise UsageError(f"{name}: {error} Or {FITTED}.") from None

"""How pairs are made of graded samples: every setting with its help, checked when it is given."""

import dataclasses
from typing import Any

from trl_math.data.pair_rules import NEED_NUMBER, PAIR_RULES, TAKE_NUMBER
from trl_math.errors import UsageError, pick


WEIGHTINGS = ("none", "equal_problems")
DUPLICATES = ("exact", "near", "keep")
UNFINISHED = ("drop", "rejected")
NEAR_THRESHOLD = 0.8


def _setting(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class PairSettings:
    """Which pairs are made. A problem is one prompt: asked with several prompts, it is several problems."""

    rule: str = _setting("balanced", f"Which right sample meets which wrong one: {', '.join(PAIR_RULES)}.")
    pairs_per_problem: int | None = _setting(
        None, "How many pairs the rule makes of a problem. random and fixed need it; others make one (see the docs)."
    )
    max_pairs_per_problem: int | None = _setting(None, "At most so many pairs of a problem, whatever the rule.")
    with_replacement: bool = _setting(
        False, "Rule fixed may use a sample again where a problem has too few; else such problems are left out."
    )
    min_pass_rate: float = _setting(0.0, "Only problems with at least this share of right samples.")
    max_pass_rate: float = _setting(1.0, "Only problems with at most this share of right samples.")
    weighting: str = _setting("none", "equal_problems: the pairs of each problem weigh as much as those of another.")
    duplicates: str = _setting(
        "exact", "Which samples of a problem count once: exact (equal texts), near (similar texts too), keep (none)."
    )
    near_threshold: float | None = _setting(
        None, f"Share of common five-word shingles from which texts are near duplicates [{NEAR_THRESHOLD}]."
    )
    unfinished: str = _setting(
        "drop", "Samples that ran out of tokens or programs: drop, or rejected: they serve as rejected if wrong."
    )
    prefix_to_prompt: str | None = _setting(
        None, "A text that every sample begins with, such as an opening code fence, which moves into the prompt."
    )
    max_prompt_tokens: int | None = _setting(None, "Leave out problems whose prompt has more tokens.")
    max_tokens: int | None = _setting(None, "Leave out samples with more tokens.")
    max_length: int | None = _setting(None, "Leave out samples that have more tokens together with their prompt.")
    eval_fraction: float = _setting(0.0, "Hold out the pairs of this share of the problems that have pairs.")
    eval_problems: int = _setting(0, "Hold out the pairs of so many problems.")
    mismatch_prompts: bool = _setting(
        False,
        "For a negative control only: a pair's prompt is drawn from all prompts of its problem, whichever it answers.",
    )
    seed: int = _setting(0, "Random state of the rule and of the split.")

    def __post_init__(self) -> None:
        pick("rule", self.rule, PAIR_RULES)
        for name, known in (("weighting", WEIGHTINGS), ("duplicates", DUPLICATES), ("unfinished", UNFINISHED)):
            pick(name, getattr(self, name), known)
        self._check_numbers()
        self._check_rule()
        if self.near_threshold is not None and self.duplicates != "near":
            raise UsageError("near_threshold is for duplicates near: set that too, or leave it out.")
        if self.prefix_to_prompt == "":
            raise UsageError("prefix_to_prompt is empty: give the text that moves into the prompt, or leave it out.")
        if self.eval_fraction and self.eval_problems:
            raise UsageError("eval_fraction and eval_problems both say how much is held out: give one of them.")

    def _check_numbers(self) -> None:
        limits = ("pairs_per_problem", "max_pairs_per_problem", "max_prompt_tokens", "max_tokens", "max_length")
        for name in limits:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}.")
        if not 0 <= self.min_pass_rate <= self.max_pass_rate <= 1:
            raise UsageError(
                "min_pass_rate and max_pass_rate must be from 0 to 1, the first not above the second, got "
                f"{self.min_pass_rate} and {self.max_pass_rate}."
            )
        if self.near_threshold is not None and not 0 < self.near_threshold <= 1:
            raise UsageError(f"near_threshold must be above 0 and at most 1, got {self.near_threshold}.")
        if not 0 <= self.eval_fraction < 1:
            raise UsageError(f"eval_fraction must be from 0 to below 1, got {self.eval_fraction}.")
        if self.eval_problems < 0:
            raise UsageError(f"eval_problems must be 0 or above, got {self.eval_problems}.")

    def _check_rule(self) -> None:
        if self.rule in NEED_NUMBER and self.pairs_per_problem is None:
            raise UsageError(f"Rule {self.rule} needs pairs_per_problem: how many pairs of each problem?")
        if self.rule not in TAKE_NUMBER and self.pairs_per_problem is not None:
            raise UsageError(
                f"Rule {self.rule} makes as many pairs as samples allow, and takes no pairs_per_problem: "
                "max_pairs_per_problem limits them."
            )
        wanted, most = self.pairs_per_problem, self.max_pairs_per_problem
        if wanted is not None and most is not None and most < wanted:
            raise UsageError(
                f"pairs_per_problem {wanted} is above max_pairs_per_problem {most}: give the smaller one."
            )
        if self.with_replacement and self.rule != "fixed":
            raise UsageError(f"with_replacement is for rule fixed; rule {self.rule} uses no sample twice for want.")

"""The columns of every file that passes between rooms. No other module defines a column name.

One row is one JSON object a line, or the same columns in Parquet or a `datasets.Dataset`.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """What one kind of file holds: columns it must have, and columns it may have."""

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        return self.required + self.optional


# Said where a row is named by its number.
FROM_0 = "Rows are counted from 0."


def listing(names: Iterable[str]) -> str:
    """Return the names as a message shows them."""
    return ", ".join(names) or "nothing"


PROBLEMS = Table(
    "problems",
    ("problem_id", "problem", "answer", "answer_kind", "source"),
    ("solution", "program", "choices", "level", "subject"),
)
COMPLETIONS = Table(
    "completions",
    (
        "problem_id",
        "sample_index",
        "prompt",
        "completion",
        "completion_ids",
        "num_tokens",
        "logprob",
        "finish_reason",
        "sampler",
    ),
    ("token_logprobs", "tool_spans", "reasoning_finish_reason", "num_prompt_tokens"),
)
GRADED = Table(
    "graded completions",
    (*COMPLETIONS.required, "correct", "extracted", "reason"),
    (*COMPLETIONS.optional, "in_format"),
)
DIFFICULTY = Table(
    "problems with pass rates",
    (
        *PROBLEMS.required,
        "num_samples",
        "num_correct",
        "pass_rate",
        "pass_rate_low",
        "pass_rate_high",
        "difficulty",
        "status",
    ),
    (*PROBLEMS.optional, "difficulty_level", "decision", "is_settled"),
)
LIVE_RATES = Table(
    "pass rates found while training",
    ("problem_id", "num_samples", "num_correct", "pass_rate", "step"),
    ("decision",),
)
# Whether a row's completion is a sample that ran out of tokens: no end token is trained behind it.
UNFINISHED = "is_unfinished"
SFT = Table("SFT data", ("prompt", "completion", "problem_id"), ("pass_rate", "weight", "steps", UNFINISHED))
COLLECTED = Table(
    "collected rows",
    (
        *PROBLEMS.required,
        "prompt",
        "completion",
        "sample_index",
        "sampler",
        "num_tokens",
        "num_samples",
        "num_correct",
        "pass_rate",
    ),
    PROBLEMS.optional,
)
RATIONALES = Table(
    "rationales",
    (*PROBLEMS.required, "prompt", "completion", "sample_index", "sampler", "num_tokens"),
    (*PROBLEMS.optional, "correct", "weight", UNFINISHED),
)
# A problem in other words, another language or with other numbers, or a program (`text`) that was written anew.
REPHRASED = Table(
    "rephrased problems and programs",
    ("problem_id", "original_id", "way", "rephrased_by", "attempt", "overlap", "check"),
    (
        *(name for name in PROBLEMS.columns if name != "problem_id"),
        "text",
        "entry_point",
        "test",
        "language",
        "agreement",
        "changed_numbers",
        "results",
    ),
)
# By these columns collected rows are known, also where others were taken out of them.
COLLECTED_MARK = ("completion", "sample_index")
# Problems on one side of a split; `template` is what was kept together.
SPLIT = Table("problems of a split", PROBLEMS.required, (*PROBLEMS.optional, "template"))
PAIRS = Table(
    "preference pairs",
    ("prompt", "chosen", "rejected", "problem_id", "pass_rate", "num_samples", "rule"),
    (
        "prompt_ids",
        "chosen_ids",
        "rejected_ids",
        "chosen_mask",
        "rejected_mask",
        "weight",
        "answer",
        "chosen_answer",
        "rejected_answer",
        "chosen_index",
        "rejected_index",
        "chosen_finish_reason",
        "rejected_finish_reason",
        "chosen_logprob",
        "rejected_logprob",
        "sampler",
        "ref_chosen_logps",
        "ref_rejected_logps",
    ),
)
PROOF_STEPS = Table("proof steps", ("state", "tactic"), ("problem_id",))

# How an answer is to be compared; the grading room has one way for each.
ANSWER_KINDS = ("math", "number", "choice", "text", "yes_no")

# What TRL's SFTTrainer trains on: one of these sets of columns. `labels` may accompany `input_ids`.
SFT_FORMATS = (("input_ids",), ("messages",), ("conversations",), ("prompt", "completion"), ("text",))


def sft_formats() -> str:
    """Return the formats as a message shows them."""
    return "; ".join(" + ".join(columns) for columns in SFT_FORMATS)


def sft_format(found: Iterable[str]) -> tuple[str, ...] | None:
    """Return the columns of the first TRL format that `found` contains, or None."""
    names = set(found)
    return next((columns for columns in SFT_FORMATS if names.issuperset(columns)), None)

"""From originals to a rephrased set: drafts, those of them that are unlike and still right, and why others are not.

An original gets up to `attempts` drafts in each way; the first one that passes all checks becomes a row. What is drawn
lies in folders of samples, so that the same command goes on where it stopped, with the same result.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from trl_math.contamination.renumber import REASONS as RENUMBER_REASONS
from trl_math.contamination.renumber import renumber
from trl_math.contamination.renumber_sources import CannotRenumber
from trl_math.contamination.rephrase_checks import overlap
from trl_math.contamination.rephrase_judges import Candidate, Judge, Verdict
from trl_math.contamination.rephrase_rules import rephrase_by_rule, with_names
from trl_math.contamination.rephrase_samples import Samples
from trl_math.contamination.rephrase_ways import (
    CODE,
    Draft,
    Limits,
    Variant,
    check_text,
    item_id,
    original_text,
    read_reply,
)
from trl_math.contamination.rephrase_ways import REASONS as DRAFT_REASONS
from trl_math.data.columns import PROBLEMS, REPHRASED
from trl_math.generation.run import Prompt


Row = Mapping[str, Any]
REASONS = DRAFT_REASONS | RENUMBER_REASONS
NUM_SHOWN = 5
RULE = "rule"


class Rejected(NamedTuple):
    """A draft that does not serve."""

    item_id: str
    attempt: int
    reason: str
    text: str
    said: str = ""


@dataclass
class Made:
    """What became of some originals in one way."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)  # by the id of the original
    rejected: Counter[str] = field(default_factory=Counter)
    shown: list[Rejected] = field(default_factory=list)
    without: dict[str, str] = field(default_factory=dict)  # originals that became nothing, and why at last

    def reject(self, row: Row, one: Rejected) -> None:
        """Count a draft that does not serve, and keep some of each reason to be shown."""
        self.rejected[one.reason] += 1
        self.without[row["problem_id"]] = one.reason
        if sum(other.reason == one.reason for other in self.shown) < NUM_SHOWN:
            self.shown.append(one)

    def accept(self, row: Row, rephrased: dict[str, Any]) -> None:
        self.without.pop(row["problem_id"], None)
        self.rows[row["problem_id"]] = rephrased


def by_model(
    rows: Sequence[Row],
    variant: Variant,
    drafts: Samples,
    prompts: Callable[[Sequence[Row], Variant], list[Prompt]],
    judge: Judge,
    *,
    limits: Limits,
    attempts: int,
    model: str,
) -> Made:
    """Rephrase with a model: drafts in rounds, until one of each original passes or there were enough."""
    made = Made()
    waiting = []
    # Whether the original is solved says nothing where the answer is to be another one.
    reasons: list[str | None] = (
        ["has_options" if row.get("choices") else None for row in rows]
        if variant.way == "renumber"
        else judge.usable(rows)
    )
    for row, reason in zip(rows, reasons, strict=True):
        if reason is None:
            waiting.append(row)
        else:
            made.reject(row, Rejected(item_id(row, variant), 0, reason, original_text(row)))
    for attempt in range(attempts):
        if not waiting:
            break
        replies = drafts.ask(prompts(waiting, variant), attempt, 1, f"Drafts of {variant.name}, attempt {attempt + 1}")
        candidates = []
        for row, (reply,) in zip(waiting, replies, strict=True):
            draft = read_reply(reply["completion"], reply["finish_reason"], row, variant, limits)
            if draft.reason is None:
                candidates.append(Candidate(item_id(row, variant), attempt, row, draft))
            else:
                made.reject(row, Rejected(item_id(row, variant), attempt, draft.reason, draft.text))
        for candidate, verdict in zip(candidates, judge.judge(candidates, variant), strict=True):
            _settle(made, candidate, verdict, variant, judge.check, model)
        waiting = [row for row in waiting if row["problem_id"] not in made.rows]
    return made


def by_rule(rows: Sequence[Row], variant: Variant, *, limits: Limits, attempts: int, seed: int) -> Made:
    """Rephrase by rule, with other draws until a text is unlike enough."""
    made = Made()
    for row in rows:
        for attempt in range(attempts):
            found = rephrase_by_rule(row["problem"], f"{seed}/{attempt}")
            reason = (
                check_text(found.problem, {**row, "choices": None}, variant, limits) if found.rules else "unchanged"
            )
            if reason is None:
                solution = row.get("solution")
                changes = {"problem": found.problem}
                changes |= {"solution": with_names(solution, found.names)} if solution else {}
                share = overlap(row["problem"], found.problem, limits.n)
                made.accept(row, _row(row, variant, RULE, attempt, share, "computed", changes))
                break
            made.reject(row, Rejected(item_id(row, variant), attempt, reason, found.problem))
    return made


def renumbered_by_rule(rows: Sequence[Row], variant: Variant, *, limits: Limits, seed: int) -> Made:
    """Give problems other numbers by code, where the answer can be computed."""
    made = Made()
    for row in rows:
        try:
            found = renumber(row, seed)
        except CannotRenumber as error:
            made.reject(row, Rejected(item_id(row, variant), 0, error.reason, row["problem"], str(error)))
            continue
        changes: dict[str, Any] = {"problem": found.problem, "answer": found.answer, "results": found.results}
        changes["changed_numbers"] = [list(pair) for pair in found.changed]
        share = overlap(row["problem"], found.problem, limits.n)
        made.accept(row, _row(row, variant, RULE, 0, share, "computed", changes))
    return made


def freshly_generated(rows: Sequence[Row], fresh: Sequence[Row], variant: Variant, *, limits: Limits) -> Made:
    """Give each original another problem of its generator."""
    made = Made()
    for place, row in enumerate(rows):
        if place >= len(fresh):
            made.reject(row, Rejected(item_id(row, variant), 0, "not_fresh", row["problem"]))
            continue
        new = fresh[place]
        changes = {name: new[name] for name in ("problem", "answer", "solution", "choices") if name in new}
        share = overlap(row["problem"], new["problem"], limits.n)
        made.accept(row, _row(row, variant, RULE, 0, share, "computed", changes))
    return made


def labelled_pair(row: Row, original: Row, variant: Variant) -> dict[str, Any]:
    """Return an original and what it became as a labelled pair of `trl-math detectors`."""
    kinds = {"renumber": "renumbered", "by_rule": "rephrased_by_rule", "translate": "translation"}
    return {
        "pair_id": f"{row['problem_id']}",
        "test": original_text(original),
        "train": row["text"] if variant.kind == CODE else original_text(row),
        "is_contaminated": variant.way != "renumber",
        "kind": kinds.get(variant.way, "paraphrase"),
        "source": original.get("source"),
    }


def _settle(made: Made, candidate: Candidate, verdict: Verdict, variant: Variant, check: str, model: str) -> None:
    row, draft = candidate.original, candidate.draft
    if verdict.reason is not None:
        made.reject(row, Rejected(candidate.item_id, candidate.attempt, verdict.reason, draft.text, verdict.said))
        return
    changes = _changes(draft, row, variant)
    if variant.way == "renumber":
        changes["answer"] = verdict.answer
    made.accept(row, _row(row, variant, model, candidate.attempt, draft.overlap, check, changes, verdict.agreement))


def _changes(draft: Draft, row: Row, variant: Variant) -> dict[str, Any]:
    if variant.kind == CODE:
        return {"text": draft.text}
    changes: dict[str, Any] = {"problem": draft.text, "solution": None}
    return changes | ({"choices": draft.choices} if draft.choices else {})


def _row(
    row: Row,
    variant: Variant,
    rephrased_by: str,
    attempt: int,
    share: float,
    check: str,
    changes: Mapping[str, Any],
    agreement: float | None = None,
) -> dict[str, Any]:
    """Return a row of a rephrased set: the original's columns with what changed, and where it comes from."""
    if variant.kind == CODE:
        kept = {name: row[name] for name in ("entry_point", "test", "source") if name in row}
    else:
        kept = {name: row[name] for name in PROBLEMS.columns if row.get(name) is not None and name != "program"}
        if variant.way == "renumber":
            kept.pop("solution", None)  # it says the old numbers
    kept |= {name: value for name, value in changes.items() if value is not None}
    kept = {name: value for name, value in kept.items() if changes.get(name, value) is not None}
    told = {
        "problem_id": item_id(row, variant),
        "original_id": row["problem_id"],
        "way": variant.way,
        "language": variant.language,
        "rephrased_by": rephrased_by,
        "attempt": attempt,
        "overlap": round(share, 6),
        "check": check,
        "agreement": agreement,
    }
    found = {**kept, **told}
    return {name: found[name] for name in REPHRASED.columns if name in found}

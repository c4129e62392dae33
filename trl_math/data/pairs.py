"""From graded samples to preference pairs: a right sample and a wrong one that answer the same prompt.

    build = build_pairs([ProblemSamples("p1", "12*3=", [...], "36", graded_rows), ...], PairSettings(rule="balanced"))
    build.rows, build.eval_rows, build.dropped, build.statistics

A problem is one prompt with its samples. Its samples become right and wrong responses (`pair_candidates`), a rule sets
these against each other (`pair_rules`), and each pair becomes a row in TRL's columns and ours (`pair_row`), with the
tokens as they were sampled. Samples of different prompts never meet, so that a response is always trained behind the
prompt that it answers; a problem that was asked with several prompts counts as several, except that a split keeps them
together and `equal_problems` weighs them as one.

Nothing here depends on the order of problems or samples, and the random numbers of a problem are its own: leaving one
out changes no other. Pairs are made in two passes (`plan_pairs`, then `pair_rows`), and no more than one problem need
be in memory; `build_pairs` is both, for what is in memory anyway.
"""

import dataclasses
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from trl_math.data.pair_candidates import Candidates, candidates, judged
from trl_math.data.pair_prefix import Decode, Opening, openings, shared_opening
from trl_math.data.pair_row import pair_row
from trl_math.data.pair_rules import PAIR_RULES, Draw, Pair
from trl_math.data.pair_settings import PairSettings as PairSettings
from trl_math.data.pair_statistics import PairFacts, PairStatistics, ProblemFacts, statistics
from trl_math.data.prompts import Prompt
from trl_math.errors import DataError, UsageError


@dataclasses.dataclass(frozen=True)
class ProblemSamples:
    """A prompt and what was sampled for it: rows in the columns of `GRADED`.

    `prompt_ids` are the prompt's tokens as the sampler was asked with them. Without them pairs are texts.
    """

    problem_id: str
    prompt: Prompt
    prompt_ids: Sequence[int] | None
    answer: str | None
    samples: Sequence[Mapping[str, Any]]


class PairBuild(NamedTuple):
    """The pairs of problems in memory."""

    rows: list[dict[str, Any]]
    eval_rows: list[dict[str, Any]]
    dropped: Counter[str]  # what was left out, by reason
    statistics: PairStatistics


@dataclasses.dataclass(frozen=True)
class PairPlan:
    """What must be known of all problems before the first row can be written."""

    settings: PairSettings
    decode: Decode | None
    held_out: frozenset[str]  # ids of problems
    num_pairs: Mapping[str, int]  # of each problem that has some
    has_masks: bool  # some response contains the output of a program
    dropped: Counter[str]
    statistics: PairStatistics


class _Asked(NamedTuple):
    """A problem's samples, and the prompts that its pairs may be trained behind: its own, but for the control."""

    problem_id: str
    prompts: list[tuple[Prompt, Sequence[int] | None]]  # those within the limit
    has_ids: bool
    answer: str | None
    samples: Sequence[Mapping[str, Any]]
    chance: random.Random


class _Made(NamedTuple):
    """The pairs of one problem, each with what is to move into the prompt."""

    pairs: list[tuple[Pair, Opening]]
    verdicts: list[bool]
    dropped: Counter[str]

    @property
    def pass_rate(self) -> float | None:
        return sum(self.verdicts) / len(self.verdicts) if self.verdicts else None


def build_pairs(
    problems: Iterable[ProblemSamples], settings: PairSettings, *, decode: Decode | None = None
) -> PairBuild:
    """Return the pairs of problems, those held out apart, with what was left out and how the pairs are made up.

    Args:
        problems: Problems with their graded samples, in any order.
        settings: Which pairs are made of them.
        decode: Returns the text of token ids, as the sampler's tokenizer writes it. Only a setting that moves tokens
            into the prompt needs it (rule first_divergence, prefix_to_prompt).
    """
    ordered = in_order(problems)
    plan = plan_pairs(ordered, settings, decode=decode)
    rows: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for is_held_out, row in pair_rows(ordered, plan):
        rows[is_held_out].append(row)
    return PairBuild(rows[False], rows[True], plan.dropped, plan.statistics)


def in_order(problems: Iterable[ProblemSamples]) -> list[ProblemSamples]:
    """Return problems in the order of their ids, those with the same id and prompt as one."""

    def place(problem: ProblemSamples) -> tuple[Any, ...]:
        return order_key(problem.problem_id, prompt_key(problem.prompt))

    return [_merged(list(group)) for _, group in groupby(sorted(problems, key=place), key=place)]


def plan_pairs(
    problems: Iterable[ProblemSamples], settings: PairSettings, *, decode: Decode | None = None
) -> PairPlan:
    """Look at all problems (in the order of `in_order`) and return what their rows depend on."""
    facts: list[ProblemFacts] = []
    dropped: Counter[str] = Counter()
    num_pairs: Counter[str] = Counter()
    kinds = _Kinds()
    for asked in _asked(problems, settings):
        kinds.note(asked, settings, decode)
        made = _make(asked, settings, decode)
        dropped.update(made.dropped)
        facts.append(_facts(asked, made))
        if made.pairs:
            num_pairs[asked.problem_id] += len(made.pairs)
        kinds.note_pairs(made)
    if settings.mismatch_prompts and not kinds.has_choice:
        raise UsageError("mismatch_prompts needs problems that were asked with several prompts; each has one here.")
    found = statistics(
        facts,
        dropped,
        length_unit=kinds.length_unit,
        equal_problems=settings.weighting == "equal_problems",
    )
    return PairPlan(settings, decode, _held_out(num_pairs, settings), num_pairs, kinds.has_masks, dropped, found)


def pair_rows(problems: Iterable[ProblemSamples], plan: PairPlan) -> Iterator[tuple[bool, dict[str, Any]]]:
    """Yield (whether it is held out, row) for the pairs of the same problems, in the same order."""
    weights = _weights(plan)
    for asked in _asked(problems, plan.settings):
        made = _make(asked, plan.settings, plan.decode)
        facts = {
            "problem_id": asked.problem_id,
            "pass_rate": made.pass_rate,
            "num_samples": len(made.verdicts),
            "rule": plan.settings.rule,
            "answer": asked.answer,
            **({"weight": weights[asked.problem_id]} if made.pairs and weights else {}),
        }
        for pair, opening in made.pairs:
            prompt = asked.chance.choice(asked.prompts) if len(asked.prompts) > 1 else asked.prompts[0]
            yield asked.problem_id in plan.held_out, pair_row(prompt, pair, opening, facts, has_masks=plan.has_masks)


def order_key(problem_id: str, prompt: str) -> tuple[Any, ...]:
    """Return what sorts problems: `gsm8k/2` before `gsm8k/10`, those with the same id together, then by prompt."""
    parts = re.split(r"(\d+)", problem_id)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], problem_id, prompt


def prompt_key(prompt: Prompt) -> str:
    """Return a prompt as a text that tells it from others."""
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True)


class _Kinds:
    """What all problems must have in common, and what one of them decides for all."""

    def __init__(self) -> None:
        self.has_ids: bool | None = None
        self.is_chat: bool | None = None
        self.has_masks = False
        self.has_choice = False
        self.length_unit = "tokens"

    def note(self, asked: _Asked, settings: PairSettings, decode: Decode | None) -> None:
        """Take a problem in, or raise if it cannot be paired beside the others or under these settings."""
        if self.has_ids is None:
            self.has_ids = asked.has_ids
        if {self.has_ids} != {asked.has_ids, *(ids is not None for _, ids in asked.prompts)}:
            raise DataError("Some problems have prompt_ids and others have none: pairs are tokens, or all are texts.")
        _check_tokens(asked, settings, decode)
        for prompt, _ in asked.prompts:
            if self.is_chat is None:
                self.is_chat = not isinstance(prompt, str)
            if self.is_chat == isinstance(prompt, str):
                raise DataError(
                    "Some samples answer conversations and others plain texts, and a file of pairs has one kind of "
                    "prompt: make two of them (dataset_name of dpo takes several)."
                )
        self.has_choice = self.has_choice or len(asked.prompts) > 1

    def note_pairs(self, made: _Made) -> None:
        for pair, _ in made.pairs:
            self.has_masks = self.has_masks or any(response.tool_spans for response in pair)
            if any(response.num_tokens is None for response in pair):
                self.length_unit = "characters"


def _check_tokens(asked: _Asked, settings: PairSettings, decode: Decode | None) -> None:
    """Raise for settings that need tokens, where only texts are known, or that need to read them."""
    moves = [name for name in ("prefix_to_prompt",) if getattr(settings, name) is not None]
    moves += ["rule first_divergence"] if settings.rule == "first_divergence" else []
    limits = [name for name in ("max_prompt_tokens", "max_length") if getattr(settings, name) is not None]
    if not asked.has_ids and limits:
        raise UsageError(f"{limits[0]} needs the tokens of prompts, and these samples have none: leave it out.")
    if not asked.has_ids and moves and any(not isinstance(prompt, str) for prompt, _ in asked.prompts):
        raise UsageError(
            f"{moves[0]} cannot cut the text of a conversation: its template would close the turn. Use samples with "
            "token ids, or a plain prompt style."
        )
    if asked.has_ids and moves and decode is None:
        raise UsageError(f"{moves[0]} moves tokens into the prompt, and needs `decode` to know what they say.")


def _asked(problems: Iterable[ProblemSamples], settings: PairSettings) -> Iterator[_Asked]:
    """Yield each problem with the prompts for its pairs: its own; for the negative control those of its namesakes."""
    if not settings.mismatch_prompts:
        for problem in problems:
            yield _together([problem], settings, prompt_key(problem.prompt))
        return
    for _, group in groupby(problems, key=lambda problem: problem.problem_id):
        yield _together(list(group), settings, "mismatched")


def _together(problems: Sequence[ProblemSamples], settings: PairSettings, key: str) -> _Asked:
    first, limit = problems[0], settings.max_prompt_tokens
    fitting = [problem for problem in problems if limit is None or len(problem.prompt_ids or ()) <= limit]
    return _Asked(
        first.problem_id,
        [(problem.prompt, problem.prompt_ids) for problem in fitting],
        first.prompt_ids is not None,
        next((problem.answer for problem in problems if problem.answer is not None), None),
        [row for problem in problems for row in problem.samples],
        random.Random(f"{settings.seed}\n{first.problem_id}\n{key}"),
    )


def _make(asked: _Asked, settings: PairSettings, decode: Decode | None) -> _Made:
    """Return the pairs of one problem."""
    verdicts = judged(asked.samples)
    if reason := _objection(verdicts, asked.prompts, settings):
        return _Made([], verdicts, Counter({f"problems: {reason}": 1}))
    longest = max(len(ids or ()) for _, ids in asked.prompts)
    found, reasons = candidates(asked.samples, settings, num_prompt_tokens=longest, with_ids=asked.has_ids)
    opening = Opening()
    if settings.prefix_to_prompt is not None:
        opening, kept, others = openings([*found.right, *found.wrong], settings.prefix_to_prompt, decode)
        those = {id(response) for response in kept}
        found = Candidates(*([response for response in side if id(response) in those] for side in found))
        reasons.update(others)
    dropped = Counter({f"samples: {reason}": count for reason, count in reasons.items()})
    pairs = _paired(found, settings, asked.chance, dropped)
    shares = settings.rule == "first_divergence"
    return _Made([(pair, shared_opening(pair, decode) if shares else opening) for pair in pairs], verdicts, dropped)


def _objection(verdicts: Sequence[bool], prompts: Sequence[Any], settings: PairSettings) -> str | None:
    """Return why a problem has no pairs, whatever its samples say."""
    if not prompts:
        return "prompt longer than max_prompt_tokens"
    if not verdicts:
        return "no sample has a verdict"
    if len(set(verdicts)) == 1:
        return "all samples right" if verdicts[0] else "no sample right"
    rate = sum(verdicts) / len(verdicts)
    is_inside = settings.min_pass_rate <= rate <= settings.max_pass_rate
    return None if is_inside else "pass rate outside of the band"


def _paired(found: Candidates, settings: PairSettings, chance: random.Random, dropped: Counter[str]) -> list[Pair]:
    if not found.right or not found.wrong:
        dropped["problems: one side was left out" if found.right or found.wrong else "problems: all was left out"] += 1
        return []
    draw = Draw(settings.pairs_per_problem, settings.with_replacement, chance)
    pairs = PAIR_RULES[settings.rule](*found, draw)
    if not pairs:
        dropped["problems: too few samples for pairs_per_problem"] += 1
    kept = pairs[: settings.max_pairs_per_problem]
    if len(kept) < len(pairs):
        dropped["pairs: more than max_pairs_per_problem"] += len(pairs) - len(kept)
    return kept


def _facts(asked: _Asked, made: _Made) -> ProblemFacts:
    answers = {row.get("extracted") for row in asked.samples if row["correct"] is not None} - {None}
    pairs = tuple(
        PairFacts(
            pair.chosen.length - pair.rejected.length,
            None
            if pair.chosen.logprob is None or pair.rejected.logprob is None
            else pair.chosen.logprob - pair.rejected.logprob,
        )
        for pair, _ in made.pairs
    )
    return ProblemFacts(asked.problem_id, made.pass_rate, len(made.verdicts), len(answers), pairs)


def _held_out(num_pairs: Mapping[str, int], settings: PairSettings) -> frozenset[str]:
    """Return the problems to hold out: the first in an order that depends on their ids and the seed alone."""
    number = settings.eval_problems or round(settings.eval_fraction * len(num_pairs))
    number = max(number, 1) if settings.eval_fraction else number
    if not number or not num_pairs:
        return frozenset()
    if number >= len(num_pairs):
        raise UsageError(
            f"{number} problems were to be held out, and {len(num_pairs)} have pairs: nothing would be left to train "
            "on. Lower eval_problems or eval_fraction, or sample more problems."
        )
    ranked = sorted(num_pairs, key=lambda name: hashlib.sha256(f"{settings.seed}\n{name}".encode()).digest())
    return frozenset(ranked[:number])


def _weights(plan: PairPlan) -> dict[str, float]:
    """Return the weight of a pair of each problem: mean 1 over the pairs to train on, and over those held out."""
    weights: dict[str, float] = {}
    if plan.settings.weighting == "equal_problems":
        trained = {name: num for name, num in plan.num_pairs.items() if name not in plan.held_out}
        held_out = {name: num for name, num in plan.num_pairs.items() if name in plan.held_out}
        for part in (trained, held_out):
            total = sum(part.values())
            weights |= {name: total / (len(part) * num) for name, num in part.items()}
    return weights


def _merged(problems: Sequence[ProblemSamples]) -> ProblemSamples:
    """Return what was given of one problem in several parts."""
    first = problems[0]
    if len(problems) == 1:
        return first
    if any(list(problem.prompt_ids or ()) != list(first.prompt_ids or ()) for problem in problems):
        raise DataError(f"The same prompt of {first.problem_id!r} has different tokens: samples of two tokenizers.")
    answer = next((problem.answer for problem in problems if problem.answer is not None), None)
    samples = [row for problem in problems for row in problem.samples]
    return dataclasses.replace(first, answer=answer, samples=samples)

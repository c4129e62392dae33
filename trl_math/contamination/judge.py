"""A language model as judge: are two texts the same problem in other words? Any engine of `generation` can be one.

Each pair is asked about in both orders, and the answer is one of two (`Sampling.choices`), so that its
log-probability is how sure the model is. Answers are samples in a store: a run that was killed goes on, and another
run over other data asks only about pairs that are new, since a question's name is made of its texts and its wording.
What cannot be asked, or is answered otherwise, is unknown (`outcomes`).

    judge/<sampler>/completions.jsonl     questions and answers of one model and one wording
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trl_math.contamination.judge_prompts import KINDS, Wording, find_wording, make_questions
from trl_math.contamination.matches import Detector, Match, in_order
from trl_math.contamination.outcomes import (
    OUTCOMES,
    REASONS,
    UNKNOWN,
    YES,
    Answer,
    Rules,
    Verdict,
    check_rules,
    decide,
    read_answer,
)
from trl_math.errors import BudgetError, ServerError, UsageError, pick
from trl_math.generation.arguments import sampler_hash, short_hash, tokenizer_hash
from trl_math.generation.backend import Backend, Usage, most_prompt_tokens
from trl_math.generation.checkpoint import Checkpoint
from trl_math.generation.cost import MeteredBackend, Price, Spent, money, spent_on
from trl_math.generation.engines import EngineArguments, find_checkpoint
from trl_math.generation.run import Prompt
from trl_math.generation.sample_files import unique_rows
from trl_math.generation.session import Engine, Plan, Say, fill_folder
from trl_math.records import Sampling


# Room for an answer with its end, also if a server writes it in small pieces.
MAX_TOKENS = 8
NONE_THERE = Answer(None, reason="not_answered")

Pair = tuple[str, str]


class Budget(NamedTuple):
    """What tokens cost, and how much all may cost."""

    price: Price | None = None
    max_cost: float | None = None


FREE = Budget()
USUAL = Rules()


class Judge:
    """Asks one model about pairs, and keeps its answers in a folder.

    Args:
        engine: Which model, and by what means.
        folder: Where answers are kept; those of other models and wordings may be there too.
        kind: What the texts are, so what makes them the same: code, number_substitution, math or knowledge.
        rules: When answers make an outcome.
        budget: What tokens cost. When it is spent, what was not asked is unknown.
        logprobs: Ask how sure the model is. Without (some servers do not tell) an answer is certain.
        say: Hears what is done.
        around: Puts another backend around the engine's.
    """

    def __init__(
        self,
        engine: EngineArguments,
        folder: str | Path,
        kind: str = "math",
        *,
        rules: Rules = USUAL,
        budget: Budget = FREE,
        logprobs: bool = True,
        say: Say = print,
        around: Callable[[Backend], Backend] = lambda backend: backend,
    ) -> None:
        pick("kind of text", kind, KINDS)
        check_rules(rules)
        if not engine.model:
            raise UsageError("Which model judges? Set model, such as embedded:smollm2-135m-instruct.")
        engine.check_here()
        self.engine = engine
        self.rules = rules
        self.budget = budget
        self.checkpoint: Checkpoint = find_checkpoint(engine)
        self.wording: Wording = _wording(kind, engine, self.checkpoint)
        self.sampling = Sampling(
            temperature=0.0, max_tokens=MAX_TOKENS, logprobs=logprobs, choices=self.wording.choices
        )
        self.settings = _settings(engine, self.checkpoint, self.wording, self.sampling)
        self.folder = Path(folder) / sampler_hash(self.settings)
        self._say = say
        self._around = around

    def verdicts(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """Return the outcome of each pair, asking what has not been asked before."""
        if not pairs:
            return []
        plan = self.plan(pairs)
        self._ask(plan)
        names = {question.problem_id for question in plan.prompts}
        answers = {row["problem_id"]: self._read(row) for row in self._rows() if row["problem_id"] in names}
        verdicts = [decide(self._both(pair, answers), self.rules) for pair in pairs]
        for line in describe(verdicts):
            self._say(line)
        return verdicts

    def plan(self, pairs: Sequence[Pair]) -> Plan:
        """Return what is asked about pairs."""
        questions = make_questions(self.wording, pairs, self.checkpoint.tokenizer)
        return Plan(self.checkpoint, questions, self.settings, self.sampling, None)

    def outlook(self, pairs: Sequence[Pair]) -> list[str]:
        """Return how much is left to ask, and what it may cost, without asking anything."""
        plan = self.plan(pairs)
        there = {row["problem_id"] for row in self._rows()}
        left = [question for question in plan.prompts if question.problem_id not in there]
        most = Usage(sum(map(_num_tokens, left)), len(left) * MAX_TOKENS)
        lines = [
            f"{len(pairs):,} pairs are {len(plan.prompts):,} questions (both orders), of which {len(left):,} are to "
            f"be asked: at most {most.num_prompt_tokens:,} tokens read and {most.num_tokens:,} written."
        ]
        if price := self.budget.price:
            limit = "" if self.budget.max_cost is None else f"; max_cost {money(self.budget.max_cost)}"
            lines.append(f"cost: at most {money(price.of(most))}{limit}")
        return lines

    def spent(self, plan: Plan) -> Spent:
        """Return what the answers took that are there."""
        lengths = {question.problem_id: _num_tokens(question) for question in plan.prompts}
        return spent_on((row for row in self._rows() if row["problem_id"] in lengths), lengths)

    def facts(self) -> dict[str, Any]:
        """Return what should be written beside verdicts."""
        return {
            "model": self.engine.label,
            "sampler": sampler_hash(self.settings),
            "kind": self.wording.kind,
            "threshold": self.rules.threshold,
            "margin": self.rules.margin,
        }

    def _ask(self, plan: Plan) -> None:
        """Ask what is not there; what an engine or a budget ends is said, and stays unknown."""
        try:
            with Engine(self.engine, plan.checkpoint, lambda backend: self._metered(backend, plan)) as engine:
                fill_folder(self.folder, plan, 1, engine, self._say, name="judge")
        except (ServerError, BudgetError) as error:
            self._say(f"judge: {error}")
            self._say("judge: what was not answered is unknown; the same command asks for it again.")

    def _metered(self, backend: Backend, plan: Plan) -> Backend:
        backend = self._around(backend)
        price, max_cost = self.budget
        if price is None:
            return backend
        return MeteredBackend(backend, price, max_cost, self.spent(plan).usage, self._say)

    def _rows(self) -> Iterator[Mapping[str, Any]]:
        return (row for _, _, row in unique_rows(self.folder)) if self.folder.is_dir() else iter(())

    def _read(self, row: Mapping[str, Any]) -> Answer:
        return read_answer(row["completion"], row.get("finish_reason"), row.get("logprob"), self.wording.choices)

    def _both(self, pair: Pair, answers: Mapping[str, Answer]) -> tuple[Answer, Answer]:
        first, second = pair
        keys = (self.wording.key(first, second), self.wording.key(second, first))
        return answers.get(keys[0], NONE_THERE), answers.get(keys[1], NONE_THERE)


class JudgeDetector:
    """The pairs that another detector proposes, as far as a judge says yes, or does not know.

    A pair that is unknown is returned too, at the threshold itself and with `outcome` unknown in its evidence
    (`outcomes.is_unknown`): who does not look takes it for a match, and never for clean. Without another detector it
    scores pairs that it is given.
    """

    name = "judge"

    def __init__(self, judge: Judge, candidates: Detector | None = None) -> None:
        self.judge = judge
        self.candidates = candidates
        self.threshold = judge.rules.threshold

    def find(self, test: Sequence[str], train: Sequence[str]) -> list[Match]:
        """Return the candidates that are not judged to be different problems."""
        if self.candidates is None:
            raise UsageError("A judge that is to find pairs needs another detector that proposes them.")
        proposed = self.candidates.find(test, train)
        verdicts = self.judge.verdicts([(test[match.test], train[match.train]) for match in proposed])
        matches = []
        for match, verdict in zip(proposed, verdicts, strict=True):
            evidence = {
                **verdict.evidence(),
                "candidate": {"detector": self.candidates.name, "score": match.score, **match.evidence},
            }
            if verdict.outcome == YES:
                assert verdict.score is not None
                matches.append(match._replace(score=verdict.score, evidence=evidence))
            elif verdict.outcome == UNKNOWN:
                matches.append(match._replace(score=self.threshold, evidence=evidence))
        return in_order(matches)

    def score_pairs(self, test: Sequence[str], train: Sequence[str]) -> list[float]:
        """Return the score of each pair, without candidates; NaN where it is unknown."""
        verdicts = self.judge.verdicts(list(zip(test, train, strict=True)))
        unknown = float("nan")
        return [unknown if one.outcome == UNKNOWN or one.score is None else one.score for one in verdicts]


def describe(verdicts: Sequence[Verdict]) -> list[str]:
    """Return the outcomes in a line, and why some are unknown in another."""
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    lines = [f"judge: {', '.join(f'{outcomes[name]:,} {name}' for name in OUTCOMES)} of {len(verdicts):,} pairs."]
    reasons = Counter(verdict.reason for verdict in verdicts if verdict.outcome == UNKNOWN)
    if reasons:
        said = ", ".join(f"{reasons[name]:,} {text}" for name, text in REASONS.items() if reasons[name])
        lines.append(f"judge: unknown, and never counted as clean: {said}.")
    return lines


def _wording(kind: str, engine: EngineArguments, checkpoint: Checkpoint) -> Wording:
    """Return how this model is asked; messages where an engine takes nothing else."""
    if engine.engine == "server" and engine.endpoint == "chat":
        return Wording(kind, is_chat=True)
    return find_wording(kind, checkpoint.tokenizer)


def _settings(engine: EngineArguments, checkpoint: Checkpoint, wording: Wording, sampling: Sampling) -> dict[str, Any]:
    """Return what answers must have in common to stand beside each other."""
    drawn = sampling.settings()
    del drawn["num_samples"]
    template = getattr(checkpoint.tokenizer, "chat_template", None)
    return {
        "model": checkpoint.identity,
        "dtype": engine.dtype,
        "max_model_len": engine.max_model_len,
        "tokenizer": tokenizer_hash(checkpoint.tokenizer),
        "end_ids": list(checkpoint.end_ids),
        "judge": wording.kind,
        "template_hash": wording.digest,
        "chat_template": short_hash(str(template)) if wording.is_chat and template is not None else None,
        **drawn,
    }


def _num_tokens(question: Prompt) -> int:
    """Return the tokens of a question; at most, where only the server can count them."""
    return len(question.ids) or most_prompt_tokens(question.prompt)

"""Decisions per second: live screening that stops early against 64 samples of every problem.

    python benchmarks/screening.py            # some twenty minutes on two CPU cores; needs vLLM
    python benchmarks/screening.py --quick    # that it still runs; its figures mean nothing

Both ask the same problems of the same model through the same engine of vLLM beside the same `MathSFTTrainer`, grade
the answers, and say which problems have a pass rate of at least the threshold, as training with `screening: live`
does: taking over the trainer's weights, rounds of samples and grading all count. They take turns in one process, each
turn with new seeds; medians over turns.

How much is saved depends on the pass rates, which are printed: sums and products of two-digit numbers are mostly never
solved by the embedded model, as MATH is by a base model. Where most problems are near the threshold, as with `--task
embedded:times_tables`, less is.

Decisions are compared too. Samples are drawn anew in every turn, so that two runs with 64 samples do not agree on
problems near the threshold either: how often they do stands beside it.

The engine is shared: evaluation by generation asks the same one, which is started once for a trainer, whoever asks
first (`eval_engines.make_engine`), with room for the longest of both, and takes over weights before each use.
Evaluation must not ask for another layout or dtype than screening does.
"""

import argparse
import copy
import itertools
import json
import os
import random
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

from datasets import disable_progress_bars

from trl_math import MathSFTConfig, MathSFTTrainer
from trl_math.data.load import DataArguments, load_rows
from trl_math.data.prompts import PROMPT_STYLES
from trl_math.models import resolve_model
from trl_math.trainers.generation_eval import GenerationEvalCallback
from trl_math.trainers.pass_rate_sampler import Asked, Found, PassRateSampler


# Shown how it goes, the model knows most products of one digit, and none of three.
SHOTS = "2 * 2 = 4\n3 * 5 = 15\n"
HARD_OF_THREE = 2  # of three problems, so many are hard: about two in three are never solved, as of MATH


@dataclass(frozen=True)
class Size:
    """Of one turn."""

    problems: int
    samples: int  # of each problem, at most
    tokens: int
    turns: int


FULL = Size(problems=64, samples=64, tokens=16, turns=3)
QUICK = Size(problems=8, samples=8, tokens=8, turns=1)


class Turn(NamedTuple):
    """What a turn came to."""

    found: Mapping[str, Found]
    seconds: float

    @property
    def decisions_per_second(self) -> float:
        return len(self.found) / self.seconds

    @property
    def num_samples(self) -> int:
        return sum(one.num_samples for one in self.found.values())


def write_products(path: Path, number: int) -> Path:
    """Write products of one digit and of three, in an order that mixes them."""
    draw = random.Random(0)
    easy = draw.sample([(a, b) for a in range(2, 10) for b in range(2, 10)], number)
    hard = [(draw.randint(100, 999), draw.randint(100, 999)) for _ in range(number)]
    factors = [(hard if place % 3 < HARD_OF_THREE else easy)[place] for place in range(number)]
    rows = [{"problem": f"{SHOTS}{a} * {b} =", "answer": str(a * b)} for a, b in factors]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def make_trainer(data: str, style: str, threshold: float, size: Size, folder: str) -> MathSFTTrainer:
    """Return a trainer whose problems are screened and evaluated by one engine."""
    arguments = DataArguments(dataset_name=data, prompt_style=style, max_train_rows=size.problems)
    rows, _ = load_rows(arguments, seed=0, evaluates=False, keeps_answers=True)
    config = MathSFTConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        report_to="none",
        objective="coverage",
        coverage_from="pass_rate",
        num_attempts=1,
        max_pass_rate=threshold,
        screening="live",
        screening_samples=size.samples,
        screening_confidence=0.98,
        screening_max_tokens=size.tokens,
        screening_stop=list(PROMPT_STYLES[style].stop),
        screening_engine="vllm",
        screening_engine_params={"dtype": "float32", "enforce_eager": True},
        eval_strategy="steps",
        eval_steps=1,
        eval_generation_data=data,
        eval_generation_prompt_style=style,
        eval_generation_problems=8,
        eval_generation_samples=1,
        eval_generation_max_tokens=size.tokens,
        eval_generation_engine="vllm",
        model_init_kwargs={"dtype": "float32"},
    )
    model = resolve_model("embedded:smollm2-135m-instruct")
    return MathSFTTrainer(model=model, args=config, train_dataset=rows, eval_dataset=rows.select(range(1)))


def samplers(trainer: MathSFTTrainer) -> tuple[dict[str, PassRateSampler], list[Asked]]:
    """Return the two ways of screening, beside the same engine, and the problems."""
    screening = trainer._screening
    sequential = screening._sampler
    fixed = copy.copy(sequential)
    fixed._config = copy.copy(trainer.args)
    fixed._config.screening_rule = "fixed"
    return {"sequential": sequential, "fixed": fixed}, list(screening._problems.values())


def evaluate(trainer: MathSFTTrainer) -> float:
    """Ask evaluation problems, and return how long it took; raise unless the engine was the one of screening."""
    started = time.monotonic()
    trainer.evaluate()
    callback = next(one for one in trainer.callback_handler.callbacks if isinstance(one, GenerationEvalCallback))
    if callback._engine is not trainer._screening.engine:
        raise RuntimeError("evaluation and screening have an engine each")
    return time.monotonic() - started


def same_decisions(one: Mapping[str, Found], other: Mapping[str, Found]) -> float:
    """Return the share of problems on which two turns agree."""
    return statistics.mean(one[key].is_solved == other[key].is_solved for key in one)


def shape(found: Mapping[str, Found]) -> str:
    """Return how many problems have which pass rate."""
    rates = [one.num_correct / one.num_samples for one in found.values()]
    return (
        f"never {sum(rate == 0 for rate in rates)}, below 0.1 {sum(0 < rate < 0.1 for rate in rates)}, "
        f"below 0.5 {sum(0.1 <= rate < 0.5 for rate in rates)}, from 0.5 {sum(rate >= 0.5 for rate in rates)}"
    )


def report(turns: Mapping[str, list[Turn]], size: Size) -> None:
    """Print what was found."""
    sequential, fixed = turns["sequential"], turns["fixed"]
    share = statistics.median(turn.num_samples for turn in sequential) / (size.samples * size.problems)
    pairs = list(zip(sequential, fixed, strict=True))
    agreed = statistics.mean(same_decisions(one.found, other.found) for one, other in pairs)
    print(f"samples: {share:.1%} of the fixed number; the decision of the fixed run of the same turn: {agreed:.1%}")
    if len(fixed) > 1:
        others = [same_decisions(one.found, other.found) for one, other in itertools.combinations(fixed, 2)]
        print(f"the decision of another fixed run, between fixed runs: {statistics.mean(others):.1%}")
    rates = {name: statistics.median(turn.decisions_per_second for turn in of) for name, of in turns.items()}
    print(
        f"decisions per second: {rates['sequential']:.2f} against {rates['fixed']:.2f}: "
        f"{rates['sequential'] / rates['fixed']:.2f}x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds; the figures mean nothing")
    parser.add_argument("--data", help="other problems to ask")
    parser.add_argument("--prompt_style", default="plain", help="how they are asked")
    parser.add_argument("--problems", type=int, help="how many of them")
    parser.add_argument("--turns", type=int, help="of each way")
    parser.add_argument("--threshold", type=float, default=0.1)
    parser.add_argument("--folder", default="runs/benchmarks/screening", help="where the trainer may write")
    asked = parser.parse_args()
    size = QUICK if asked.quick else FULL
    size = Size(asked.problems or size.problems, size.samples, size.tokens, asked.turns or size.turns)
    disable_progress_bars()
    Path(asked.folder).mkdir(parents=True, exist_ok=True)
    data = asked.data or str(write_products(Path(asked.folder) / "products.jsonl", size.problems))
    trainer = make_trainer(data, asked.prompt_style, asked.threshold, size, asked.folder)
    ways, problems = samplers(trainer)
    ways["sequential"].start()
    ways["fixed"].ask(problems[:2], seed=0)  # what compiles or loads at first use
    turns: dict[str, list[Turn]] = {name: [] for name in ways}
    for number in range(size.turns):
        for name, sampler in ways.items():
            started = time.monotonic()
            found = sampler.ask(problems, seed=number + 1 + size.turns * (name == "fixed"))
            turn = Turn(found, time.monotonic() - started)
            turns[name].append(turn)
            print(
                f"turn {number}, {name}: {turn.num_samples} samples of {len(problems)} problems in "
                f"{turn.seconds:.1f} s; by pass rate: {shape(found)}",
                flush=True,
            )
    print(f"evaluation by the same engine: {evaluate(trainer):.1f} s")
    report(turns, size)
    trainer.end()


if __name__ == "__main__":
    main()

"""Pairs per minute: live pairs of `MathDPOTrainer` against TRL's experimental `OnlineDPOTrainer`.

    python benchmarks/on_policy.py            # some ten minutes on two CPU cores; needs vLLM
    python benchmarks/on_policy.py --quick    # that it still runs; its figures mean nothing

Both train the embedded 135M model on the same times tables, asked with the same prompts, and sample as many
completions of at most as many tokens with the same temperature; float32 on a CPU. The full loop counts: sampling,
grading, pairing, references, training. What happens once is left out: time starts when the first optimiser step has
been taken after a first round of sampling, in which engines and compilers have started.

Two counts. A pair *with a preference* has a right and a wrong answer. `OnlineDPOTrainer` draws two answers and trains
on them also when both are right or both are wrong, calling the first one chosen; such a pair says nothing, or worse.
The figure is of pairs with a preference; the count of all pairs stands beside it. The two take turns.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from trl_math import MathDPOConfig, MathDPOTrainer
from trl_math.data.load import read_for_style
from trl_math.data.prompts import PROMPT_STYLES
from trl_math.grading import grade
from trl_math.models import resolve_model


TASK, STYLE = "embedded:times_tables", "cot"


@dataclass(frozen=True)
class Size:
    """Of one turn."""

    problems: int
    samples: int  # of each problem, in all
    tokens: int
    batch: int  # pairs of an optimiser step
    turns: int


FULL = Size(problems=24, samples=8, tokens=24, batch=8, turns=3)
QUICK = Size(problems=8, samples=4, tokens=8, batch=2, turns=1)


class Rate(NamedTuple):
    """What a turn came to."""

    with_preference: float  # pairs a minute
    all: float
    completions: int
    seconds: float


@dataclass
class Clock(TrainerCallback):
    """Notes when optimiser steps end."""

    ends: list[float] = field(default_factory=list)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.ends.append(time.monotonic())


def common(size: Size, folder: str) -> dict[str, Any]:
    """Return what both trainers are told."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": size.batch,
        "learning_rate": 1e-6,
        "beta": 0.1,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def ours(model: str, problems: Dataset, size: Size, folder: str) -> Rate:
    """Train on live pairs through one refresh, after another that starts the engine."""
    clock = Clock()
    asked = f"{folder}-problems.jsonl"
    problems.select_columns(["problem_id", "problem", "answer"]).to_json(asked)
    config = MathDPOConfig(
        **common(size, folder),
        live_data=asked,
        live_prompt_style=STYLE,
        live_problems=size.problems,
        live_num_samples=size.samples,
        live_max_tokens=size.tokens,
        live_pair_rule="balanced",
        live_pair_params={"unfinished": "rejected", "duplicates": "keep"},
        live_engine="vllm",
        live_engine_params={"dtype": "float32", "max_model_len": 128, "enforce_eager": True},
        live_save_pairs=False,
        max_length=128,
        max_steps=10_000,
        model_init_kwargs={"dtype": "float32"},
    )
    trainer = MathDPOTrainer(model=model, args=config, callbacks=[clock, _StopAtRefresh(2)])
    trainer.train()
    refreshes = [log["step"] for log in trainer.state.log_history if "live/refresh_seconds" in log]
    first = refreshes[1] - 1  # the last step of the first refresh's pairs
    steps = len(clock.ends) - first
    seconds = clock.ends[-1] - clock.ends[first - 1]
    trainer.end()
    pairs = steps * size.batch
    return Rate(60 * pairs / seconds, 60 * pairs / seconds, size.problems * size.samples, seconds)


class _StopAtRefresh(TrainerCallback):
    """Ends training when the pairs of so many refreshes have been trained on."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.refreshes = 0

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "live/refresh_steps" in logs:
            self.refreshes += 1
            if self.refreshes == self.number:
                # The step that is logged is the first of its span.
                self.last = state.global_step + int(logs["live/refresh_steps"]) - 1
        if self.refreshes == self.number and state.global_step >= self.last:
            control.should_training_stop = True


def theirs(model: str, problems: Dataset, size: Size, folder: str) -> Rate:
    """Train TRL's trainer on as many completions, two of each prompt at a time."""
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    answers = {PROMPT_STYLES[STYLE].prompt(row): row["answer"] for row in problems}
    verdicts: list[list[float]] = []

    def reward(prompts: list[str], completions: list[str], **kwargs: Any) -> list[float]:
        graded = [
            float(bool(grade(text, answers[prompt], "number").correct))
            for prompt, text in zip(prompts, completions, strict=True)
        ]
        verdicts.append(graded)
        return graded

    steps = size.problems * size.samples // (2 * size.batch)
    clock = Clock()
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.padding_side = "left"
    trainer = OnlineDPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        reward_funcs=reward,
        args=OnlineDPOConfig(
            **common(size, folder),
            max_new_tokens=size.tokens,
            max_length=128,
            temperature=1.0,
            max_steps=steps + 1,
        ),
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in answers]),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    trainer.train()
    seconds = clock.ends[-1] - clock.ends[0]
    half = size.batch
    preferences = sum(
        first != second for step in verdicts[1:] for first, second in zip(step[:half], step[half:], strict=True)
    )
    return Rate(60 * preferences / seconds, 60 * steps * size.batch / seconds, steps * 2 * size.batch, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds; the figures mean nothing")
    parser.add_argument("--folder", default="runs/benchmarks/on_policy", help="where the trainers may write")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    disable_progress_bars()
    Path(arguments.folder).mkdir(parents=True, exist_ok=True)
    model = resolve_model("embedded:smollm2-135m-instruct")
    problems = read_for_style(TASK, "train", None, STYLE).select(range(size.problems))
    arms: dict[str, Callable[..., Rate]] = {"live pairs": ours, "OnlineDPOTrainer": theirs}
    rates: dict[str, list[Rate]] = {name: [] for name in arms}
    for turn in range(size.turns):
        for name, arm in arms.items():
            rate = arm(model, problems, size, f"{arguments.folder}/{turn}-{name.split()[0]}")
            rates[name].append(rate)
            print(
                f"turn {turn}, {name}: {rate.completions} completions in {rate.seconds:.0f} s, "
                f"{rate.with_preference:.1f} pairs with a preference a minute, {rate.all:.1f} pairs in all",
                flush=True,
            )
    for what in ("all", "with_preference"):
        medians = {name: statistics.median(getattr(rate, what) for rate in rates[name]) for name in arms}
        ratio = medians["live pairs"] / medians["OnlineDPOTrainer"]
        label = "pairs with a preference" if what == "with_preference" else "all pairs"
        print(f"{label} a minute: {medians['live pairs']:.1f} against {medians['OnlineDPOTrainer']:.1f}: {ratio:.2f}x")


if __name__ == "__main__":
    main()

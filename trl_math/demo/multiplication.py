"""The coverage effect on two-digit multiplication: a model small enough to train from scratch in minutes on one core.

The task is `47*53=2491`, one token a character, only the answer trained on. A held-out answer's probability `p` is
exact by teacher forcing (one spelling is right), and so is the coverage of k attempts, `1 - (1-p)^k`: nothing is
sampled. Under cross-entropy pass@1 keeps rising while pass@64 collapses; the coverage loss keeps it.

    python -m trl_math.demo.multiplication --num-attempts 64 --seed 0 --output run.json

Held-out problems are apart from the training problems in either order of the factors: 53*47 is not trained on if
47*53 is held out. The seed decides the split, the initial weights and the order; losses with the same seed share all.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    PrinterCallback,
    TrainerCallback,
    set_seed,
)

from trl_math.demo.task import Problem, Settings, split_problems
from trl_math.reporting.coverage_runs import CoverageRun
from trl_math.trainers import MathSFTConfig, MathSFTTrainer


PAD, EOS = "<pad>", "<eos>"
VOCABULARY = [*"0123456789*=", PAD, EOS]
IGNORED = -100  # a label that is not trained on
MAX_ANSWER_TOKENS = 5  # 99*99=9801 and the end token
DECIMALS = 5  # of stored log-probabilities
REPORT_EVERY = 3  # evaluations
EVALUATION_BATCH = 100  # activations that stay in the cache: larger is slower


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token for each character."""
    tokenizer = Tokenizer(models.WordLevel({token: index for index, token in enumerate(VOCABULARY)}, unk_token=PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS)


def make_model(settings: Settings, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return a Llama with fresh weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=2 * settings.hidden_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=4,
        max_position_embeddings=16,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def rows(problems: Sequence[Problem], tokenizer: PreTrainedTokenizerFast) -> dict[str, list[list[int]]]:
    """Return `input_ids` and `labels`: the answer and the end token are trained on, the question is not."""
    prompts = tokenizer([problem.prompt for problem in problems]).input_ids
    answers = _answer_ids(problems, tokenizer)
    return {
        "input_ids": [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)],
        "labels": [[IGNORED] * len(prompt) + answer for prompt, answer in zip(prompts, answers, strict=True)],
    }


def _answer_ids(problems: Sequence[Problem], tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    answers = tokenizer([problem.answer for problem in problems]).input_ids
    return [[*answer, tokenizer.eos_token_id] for answer in answers]


@torch.no_grad()
def answer_logps(model: LlamaForCausalLM, rows: dict[str, list[list[int]]]) -> torch.Tensor:
    """Return the log-probability of each row's answer in one draw, by teacher forcing, (P,)."""
    ids = _padded(rows["input_ids"], model.config.pad_token_id)  # (P, T)
    targets = _padded(rows["labels"], IGNORED)[:, 1:]
    # Padding is on the right, so causal attention keeps it from the answer without a mask.
    logps = torch.cat([_next_logps(model, chunk)[:, :-1] for chunk in ids.split(EVALUATION_BATCH)])
    chosen = logps.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return torch.where(targets == IGNORED, 0.0, chosen).sum(dim=1)


@torch.no_grad()
def greedy_answers(
    model: LlamaForCausalLM, problems: Sequence[Problem], tokenizer: PreTrainedTokenizerFast
) -> tuple[torch.Tensor, list[bool]]:
    """Return the log-probability of each greedy answer, (P,), and whether it is the right one."""
    prompts = torch.tensor(tokenizer([problem.prompt for problem in problems]).input_ids)  # (P, T): all equally long
    totals, answers = [], []
    for ids in prompts.split(EVALUATION_BATCH):
        total = torch.zeros(len(ids), dtype=torch.float64)
        is_open = torch.ones(len(ids), dtype=torch.bool)
        for _ in range(MAX_ANSWER_TOKENS):
            best = _next_logps(model, ids)[:, -1].max(dim=-1)
            total += torch.where(is_open, best.values, 0.0)
            ids = torch.cat([ids, torch.where(is_open, best.indices, tokenizer.pad_token_id).unsqueeze(1)], dim=1)
            is_open &= best.indices != tokenizer.eos_token_id
        totals.append(total)
        answers += ids[:, prompts.shape[1] :].tolist()
    targets = _answer_ids(problems, tokenizer)
    right = [answer[: len(target)] == target for answer, target in zip(answers, targets, strict=True)]
    return torch.cat(totals), right


def _next_logps(model: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Return the log-probabilities of every next token, (B, T, V)."""
    return model(input_ids=ids, use_cache=False).logits.double().log_softmax(dim=-1)


def _padded(rows: list[list[int]], value: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


class HeldOutCallback(TrainerCallback):
    """Measures the held-out answers' log-probabilities every few epochs, and at the last one."""

    def __init__(self, rows: dict[str, list[list[int]]], settings: Settings, report: Callable[[int, Any], None]):
        self.epochs: list[int] = []
        self.logps: list[list[float]] = []
        self._rows, self._settings, self._report = rows, settings, report

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        epoch = round(state.epoch)
        if epoch % self._settings.evaluate_every and epoch != self._settings.epochs:
            return
        model.eval()
        logps = answer_logps(model, self._rows)
        model.train()
        self.epochs.append(epoch)
        self.logps.append(_rounded(logps))
        if len(self.epochs) % REPORT_EVERY == 0 or epoch == self._settings.epochs:
            self._report(epoch, logps)


def _rounded(logps: torch.Tensor) -> list[float]:
    return [round(value, DECIMALS) for value in logps.clamp(max=0).tolist()]


def training_config(num_attempts: int, seed: int, settings: Settings, folder: str) -> MathSFTConfig:
    """Return the trainer's settings: the loss, constant AdamW, and nothing that a two-minute run does not need."""
    coverage = {"objective": "coverage", "num_attempts": num_attempts}
    return MathSFTConfig(
        output_dir=folder,
        seed=seed,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        max_length=None,
        **({"objective": "cross_entropy"} if num_attempts == 1 else coverage),
    )


def run(
    num_attempts: int,
    seed: int,
    settings: Settings | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> CoverageRun:
    """Train one model and return what it makes of the held-out problems.

    Args:
        num_attempts: N of the coverage loss; 1 is cross-entropy.
        seed: Decides the split, the initial weights and the order of the data.
        settings: Everything else that matters.
        report: Takes lines of progress.
    """
    settings = settings or Settings()
    started, processor_started = time.monotonic(), time.process_time()
    train, held_out = split_problems(seed, settings.num_train, settings.num_held_out)
    tokenizer = make_tokenizer()
    set_seed(seed)
    model = make_model(settings, tokenizer)

    def progress(epoch: int, logps: torch.Tensor) -> None:
        misses = torch.log1p(-logps.exp().clamp(max=1))
        values = "  ".join(f"pass@{k} {-100 * torch.expm1(k * misses).mean():5.1f}" for k in (1, 64))
        report(f"epoch {epoch:3d}/{settings.epochs}  {values}  {time.monotonic() - started:4.0f} s")

    callback = HeldOutCallback(rows(held_out, tokenizer), settings, progress)
    with tempfile.TemporaryDirectory() as folder:
        trainer = MathSFTTrainer(
            model=model,
            args=training_config(num_attempts, seed, settings, folder),
            train_dataset=Dataset.from_dict(rows(train, tokenizer)),
            processing_class=tokenizer,
            callbacks=[callback],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    model.eval()
    greedy_logps, greedy_correct = greedy_answers(model, held_out, tokenizer)
    return CoverageRun(
        num_attempts=num_attempts,
        seed=seed,
        epochs=callback.epochs,
        logps=callback.logps,
        greedy_logps=_rounded(greedy_logps),
        greedy_correct=greedy_correct,
        settings=asdict(settings),
        facts={
            "seconds": round(time.monotonic() - started, 1),
            "processor_seconds": round(time.process_time() - processor_started, 1),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "trl": trl.__version__,
        },
    )


def main() -> None:
    """Run one training as a process of its own, on one thread: progress to stdout, the result to a file."""
    parser = argparse.ArgumentParser(description="Train on two-digit multiplication and measure held-out coverage.")
    parser.add_argument("--num-attempts", type=int, required=True, help="N of the coverage loss; 1 is cross-entropy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings", type=json.loads, default={}, help="fields of Settings to change, as JSON")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = run(
        arguments.num_attempts,
        arguments.seed,
        Settings(**arguments.settings),
        report=lambda line: print(line, flush=True),  # noqa: T201 - a worker's stdout is its progress
    )
    result.save(arguments.output)


if __name__ == "__main__":
    main()

"""What a training step on pairs costs: `MathDPOTrainer` against TRL's own `DPOTrainer`, in time and in peak memory.

    python benchmarks/dpo_step.py            # a GPU if there is one, else some ten minutes on one CPU core
    python benchmarks/dpo_step.py --quick    # smoke run, seconds; its figures mean nothing

As `sft_step.py`, which says how time and memory are measured: both trainers are built alike and take the same batch
over and over, in turns, in one process; the figure is the median of the ratios of neighbours. Settings: neutral, and
all of ours at once (schedules of weight, beta and margin, displacement penalty, anchor), each with a reference model
in memory, with the reference precomputed, and with LoRA.
"""

import argparse
import gc
import statistics
import tempfile
from typing import Any

import torch
from datasets import Dataset
from sft_step import (
    CPU,
    CUDA,
    QUICK,
    Result,
    Size,
    device_name,
    first_batch,
    median_interval,
    optimiser_step,
    paired_seconds,
    peak_bytes,
    steady_process,
)
from trl import DPOConfig, DPOTrainer

from trl_math.models.tiny import tiny_model, tiny_tokenizer
from trl_math.trainers import MathDPOConfig, MathDPOTrainer


OURS: dict[str, Any] = {
    "pair_weight": "bell",
    "beta_schedule": "linear",
    "margin": 0.1,
    "margin_schedule": "power",
    "displacement_penalty": 1.0,
    "anchor": "coverage",
    "anchor_attempts": 16,
}
OBJECTIVES: dict[str, dict[str, Any]] = {"neutral": {}, "all of ours": OURS}
REFERENCES = ("in memory", "precomputed", "adapter")
# TRL's columns and ours in the same batch; ours are left out where the batches are compared.
SHARED = ("input_ids", "attention_mask", "completion_mask", "ref_chosen_logps", "ref_rejected_logps")


def rows(size: Size) -> Dataset:
    """Random tokens of ragged length, a quarter of the longest a prompt, in TRL's columns of a tokenised pair."""
    generator = torch.Generator().manual_seed(0)

    def draw(longest: int) -> list[int]:
        length = int(torch.randint(longest // 2, longest + 1, (1,), generator=generator))
        return torch.randint(3, size.vocabulary, (length,), generator=generator).tolist()

    examples = []
    for index in range(size.rows // 2):  # as many sequences as sft_step has
        prompt, chosen, rejected = draw(size.longest // 4), draw(3 * size.longest // 4), draw(3 * size.longest // 4)
        rate = (1 + index % 6) / 8
        examples.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected, "pass_rate": rate})
    return Dataset.from_list(examples)


class PlainTrainer(DPOTrainer):
    """TRL's trainer, for rows that are token ids: it would make them of texts, in the same columns."""

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset


def model_of(size: Size, device: str, seed: int = 0) -> Any:
    with torch.device(device):
        return tiny_model(
            tiny_tokenizer(),
            seed=seed,
            dtype=torch.bfloat16 if device == "cuda" else torch.float32,
            vocab_size=size.vocabulary,
            hidden_size=size.hidden,
            intermediate_size=4 * size.hidden,
            num_hidden_layers=size.layers,
            num_attention_heads=max(2, size.hidden // 64),
            num_key_value_heads=max(1, size.hidden // 256),
            tie_word_embeddings=True,
            max_position_embeddings=size.rows * size.longest,
        )


def wide_tokenizer(size: Size) -> Any:
    """Return a tokenizer of the model's vocabulary, whose tokens are drawn and never read."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"<{number}>" for number in range(size.vocabulary - len(tokenizer))])
    return tokenizer


def make_trainer(folder: str, size: Size, reference: str, objective: dict[str, Any] | None, device: str) -> Any:
    """Return a trainer that is ready for a step: ours with `objective`, or TRL's own for None."""
    from peft import LoraConfig

    trainer_class, config_class = (PlainTrainer, DPOConfig) if objective is None else (MathDPOTrainer, MathDPOConfig)
    config = config_class(
        output_dir=folder,
        use_cpu=device == "cpu",
        bf16=device == "cuda",
        report_to="none",
        disable_tqdm=True,
        per_device_train_batch_size=size.rows // 2,
        max_length=size.longest,
        train_sampling_strategy="sequential",
        precompute_ref_log_probs=reference == "precomputed",
        **(objective or {}),
    )
    trainer = trainer_class(
        model=model_of(size, device),
        ref_model=model_of(size, device) if reference == "in memory" else None,
        args=config,
        train_dataset=rows(size),
        processing_class=wide_tokenizer(size),
        peft_config=LoraConfig(r=8, target_modules="all-linear") if reference == "adapter" else None,
    )
    trainer.create_optimizer_and_scheduler(num_training_steps=10**6)
    trainer.model_wrapped, trainer.optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def compare(folder: str, size: Size, reference: str, name: str, device: str) -> Result:
    """Measure one setting and print its line."""
    gc.collect()  # the trainers of the setting before
    ours = make_trainer(folder, size, reference, OBJECTIVES[name], device)
    theirs = make_trainer(folder, size, reference, None, device)
    mine, other = first_batch(ours), first_batch(theirs)
    for key in SHARED:
        assert (key in mine) == (key in other) and (key not in mine or torch.equal(mine[key], other[key])), key
    theirs_only = {key: other[key] for key in SHARED if key in other}

    def our_step() -> None:
        optimiser_step(ours, mine, ours.training_step)
        ours._sums.clear()  # as `log` does

    def their_step() -> None:
        optimiser_step(theirs, theirs_only, theirs.training_step)

    for _ in range(3):  # the first makes the optimiser's state
        our_step()
        their_step()
    our_peak, their_peak = peak_bytes(our_step, device), peak_bytes(their_step, device)
    times = paired_seconds(our_step, their_step, size.pairs, device)
    our_median, their_median = (statistics.median(column) for column in zip(*times, strict=True))
    ratio, low, high = median_interval([first / second for first, second in times])
    setting = f"{name}, {reference}"
    print(
        f"{setting:<25} ours {1e3 * our_median:7.2f} ms {our_peak / 2**20:8.1f} MiB   "
        f"TRL {1e3 * their_median:7.2f} ms {their_peak / 2**20:8.1f} MiB   "
        f"time {ratio:.4f}x ({low:.4f}..{high:.4f})  memory {our_peak / their_peak:.4f}x",
        flush=True,
    )
    return Result(setting, ratio, low, high, our_peak / their_peak, None)


def main(arguments: list[str] | None = None) -> None:
    """Measure every setting and print the worst."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes and few steps, on the CPU: a smoke run")
    parser.add_argument("--pairs", type=int, help="timed steps of each trainer in each setting")
    args = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() and not args.quick else "cpu"
    size = QUICK if args.quick else CUDA if device == "cuda" else CPU
    if args.pairs is not None:
        size = Size(**{**vars(size), "pairs": args.pairs})
    print(f"{size}, torch {torch.__version__}, {device_name(device)}")
    with tempfile.TemporaryDirectory() as folder:
        results = [compare(folder, size, reference, name, device) for reference in REFERENCES for name in OBJECTIVES]
    slowest = max(results, key=lambda result: result.time)
    largest = max(results, key=lambda result: result.memory)
    print(
        f"dpo step: time {slowest.time:.3f}x ({slowest.low:.3f}..{slowest.high:.3f}), peak memory "
        f"{largest.memory:.3f}x of TRL (worst of {len(results)} settings: time {slowest.setting}, memory "
        f"{largest.setting}; {size.pairs} pairs of steps each); {device_name(device)}"
    )


if __name__ == "__main__":
    steady_process()
    main()

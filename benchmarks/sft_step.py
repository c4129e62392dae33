"""What a training step costs: `MathSFTTrainer` against TRL's own `SFTTrainer`, in time and in peak memory.

    python benchmarks/sft_step.py            # a GPU if there is one, else some six minutes on one CPU core
    python benchmarks/sft_step.py --quick    # smoke run, seconds; its figures mean nothing

Both trainers are built alike (same random Llama, same rows, TRL's default settings) and take the same batch over and
over in one process: what `Trainer` does for an optimiser step of one micro-batch, which is to count the batch's items,
`training_step` (forward, loss, metrics, backward), clip, `optimizer.step` and `zero_grad`.

Time: the two take turns, and turns at being first, so that a machine busy with other things slows both. The figure is
the median of the ratios of neighbours, with a bootstrap interval. On the CPU, where everything runs in one thread, the
clock is the process's CPU time: what other processes take meanwhile does not count.

Memory: the high-water mark of torch's allocator during one step, above what was there before it. That leaves out
weights and optimiser state, which are equal, so the ratio is stricter than one of totals. On CUDA the allocator says
it; on the CPU the profiler lists every allocation and release of one (untimed) step, and the mark is the largest
running sum. A process's resident size would be blurred by what the C library keeps for itself.

On CUDA the coverage loss is also compared with its naive version, which makes the full logits. (TRL's fused head has a
plain torch fallback for the CPU, which saves no memory over small vocabularies.)
"""

import argparse
import ctypes
import gc
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from torch.profiler import ProfilerActivity, profile
from trl import SFTConfig, SFTTrainer

from trl_math import MathSFTConfig, MathSFTTrainer, coverage_nll
from trl_math.losses import reduce_sum, segment_ids, segment_sum
from trl_math.models.tiny import tiny_model, tiny_tokenizer
from trl_math.trainers.segments import sequence_starts


@dataclass(frozen=True)
class Size:
    """Of the model, the batch and the measurement."""

    vocabulary: int
    hidden: int
    layers: int
    rows: int  # in a padded batch
    longest: int  # tokens in a padded row; a packed row holds `rows * longest`
    pairs: int  # timed steps of each trainer


CPU = Size(vocabulary=8192, hidden=128, layers=4, rows=8, longest=128, pairs=50)
CUDA = Size(vocabulary=128256, hidden=2048, layers=8, rows=8, longest=512, pairs=100)
QUICK = Size(vocabulary=300, hidden=32, layers=1, rows=4, longest=32, pairs=2)

COVERAGE = {"objective": "coverage", "num_attempts": 64}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "neutral": {},
    "sum": COVERAGE,
    "mean": COVERAGE | {"coverage_reduction": "mean"},
    "token": COVERAGE | {"coverage_level": "token"},
}
Step = Callable[[], None]


def rows(size: Size, num_rows: int) -> Dataset:
    """Random tokens of ragged length, the first quarter of each row a prompt."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(size.longest // 2, size.longest + 1, (num_rows,), generator=generator)
    lengths[0] = size.longest
    examples = []
    for length in lengths.tolist():
        ids = torch.randint(3, size.vocabulary, (length,), generator=generator).tolist()
        examples.append({"input_ids": ids, "labels": [-100] * (length // 4) + ids[length // 4 :]})
    return Dataset.from_list(examples)


def make_trainer(folder: str, size: Size, layout: str, objective: dict[str, Any] | None, device: str) -> SFTTrainer:
    """Return a trainer that is ready for a step: ours with `objective`, or TRL's own for None."""
    trainer_class, config_class = (SFTTrainer, SFTConfig) if objective is None else (MathSFTTrainer, MathSFTConfig)
    is_packed = layout == "packed"
    config = config_class(
        output_dir=folder,
        use_cpu=device == "cpu",
        bf16=device == "cuda",
        report_to="none",
        disable_tqdm=True,
        per_device_train_batch_size=1 if is_packed else size.rows,
        packing=is_packed,
        max_length=size.rows * size.longest if is_packed else size.longest,
        train_sampling_strategy="sequential",
        **(objective or {}),
    )
    tokenizer = tiny_tokenizer()
    with torch.device(device):
        model = tiny_model(
            tokenizer,
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
    # Enough rows to fill a packed one.
    data = rows(size, 2 * size.rows if is_packed else size.rows)
    trainer = trainer_class(model=model, args=config, train_dataset=data, processing_class=tokenizer)
    trainer.create_optimizer_and_scheduler(num_training_steps=10**6)
    trainer.model_wrapped, trainer.optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def first_batch(trainer: SFTTrainer) -> dict[str, Any]:
    return next(iter(trainer.get_train_dataloader()))


def optimiser_step(trainer: SFTTrainer, batch: dict[str, Any], forward_backward: Callable[..., Any]) -> None:
    """Take one optimiser step of one micro-batch, in `Trainer`'s order."""
    samples, num_items = trainer.get_batch_samples(iter([dict(batch)]), 1, trainer.args.device)
    forward_backward(trainer.model_wrapped, samples[0], num_items)
    trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), trainer.args.max_grad_norm)
    trainer.optimizer.step()
    trainer.model_wrapped.zero_grad()
    trainer._metrics["train"].clear()  # as `log` does


def naive_coverage_step(trainer: SFTTrainer) -> Callable[..., None]:
    """Return forward and backward of the coverage loss on full logits, as one would first write it."""

    def forward_backward(model: Any, inputs: dict[str, Any], num_items: Any) -> None:
        model.train()
        labels = inputs.pop("labels")[:, 1:]
        ids = segment_ids(sequence_starts(inputs)[:, 1:])
        logps = model(**inputs, use_cache=False).logits[:, :-1].float().log_softmax(-1)
        mask = labels != -100
        token_logps = logps.gather(-1, labels.clamp(min=0)[..., None])[..., 0].masked_fill(~mask, 0)
        losses = coverage_nll(segment_sum(token_logps, ids), COVERAGE["num_attempts"])
        is_real = segment_sum(mask, ids) > 0
        trainer.accelerator.backward(reduce_sum(torch.where(is_real, losses, 0), num_items))

    return forward_backward


# ---- Measuring ----


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(step: Step, device: str) -> float:
    clock = time.perf_counter if device == "cuda" else time.process_time
    synchronize(device)
    started = clock()
    step()
    synchronize(device)
    return clock() - started


def peak_bytes(step: Step, device: str) -> int:
    """Return the most that one step held at once, above what was allocated before it."""
    gc.collect()
    if device == "cuda":
        synchronize(device)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        synchronize(device)
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def paired_seconds(first: Step, second: Step, pairs: int, device: str) -> list[tuple[float, float]]:
    """Time two steps in turns, the one that goes first changing from pair to pair."""
    times = []
    for pair in range(pairs):
        if pair % 2 == 0:
            times.append((seconds(first, device), seconds(second, device)))
        else:
            times.append((seconds(second, device), seconds(first, device))[::-1])
    return times


def median_interval(values: list[float], num_resamples: int = 5000) -> tuple[float, float, float]:
    """Return the median with its 95% bootstrap interval."""
    samples = torch.tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    drawn = samples[torch.randint(len(values), (num_resamples, len(values)), generator=generator)]
    medians = drawn.quantile(0.5, dim=1)
    low, high = medians.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return samples.quantile(0.5).item(), low, high


@dataclass(frozen=True)
class Result:
    """Of one setting: ours over TRL's."""

    setting: str
    time: float
    low: float
    high: float
    memory: float
    of_naive: float | None  # peak memory over that of full logits, where it was measured


def compare(folder: str, size: Size, layout: str, name: str, device: str) -> Result:
    """Measure one setting and print its line."""
    gc.collect()  # the trainers of the setting before
    ours = make_trainer(folder, size, layout, OBJECTIVES[name], device)
    theirs = make_trainer(folder, size, layout, None, device)
    batch = first_batch(ours)
    for key, value in first_batch(theirs).items():
        assert torch.equal(torch.as_tensor(batch[key]), torch.as_tensor(value)), f"the batches differ in {key}"
    our_step: Step = lambda: optimiser_step(ours, batch, ours.training_step)  # noqa: E731
    their_step: Step = lambda: optimiser_step(theirs, batch, theirs.training_step)  # noqa: E731
    for _ in range(3):  # the first makes the optimiser's state
        our_step()
        their_step()
    our_peak, their_peak = peak_bytes(our_step, device), peak_bytes(their_step, device)
    times = paired_seconds(our_step, their_step, size.pairs, device)
    our_median, their_median = (statistics.median(column) for column in zip(*times, strict=True))
    time_ratio, low, high = median_interval([mine / other for mine, other in times])
    memory_ratio = our_peak / their_peak
    of_naive = None
    if name == "sum" and device == "cuda":
        of_naive = our_peak / peak_bytes(lambda: optimiser_step(ours, batch, naive_coverage_step(ours)), device)
    setting = f"{name} {layout}"
    print(
        f"{setting:<15} ours {1e3 * our_median:7.2f} ms {our_peak / 2**20:8.1f} MiB   "
        f"TRL {1e3 * their_median:7.2f} ms {their_peak / 2**20:8.1f} MiB   "
        f"time {time_ratio:.4f}x ({low:.4f}..{high:.4f})  memory {memory_ratio:.4f}x"
        + (f", {of_naive:.3f}x of full logits" if of_naive else ""),
        flush=True,
    )
    return Result(setting, time_ratio, low, high, memory_ratio, of_naive)


def device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} thread(s)"


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
        results = [
            compare(folder, size, layout, name, device) for layout in ("padded", "packed") for name in OBJECTIVES
        ]
    slowest = max(results, key=lambda result: result.time)
    largest = max(results, key=lambda result: result.memory)
    of_naive = max((result.of_naive for result in results if result.of_naive), default=None)
    print(
        f"sft step: time {slowest.time:.3f}x ({slowest.low:.3f}..{slowest.high:.3f}), peak memory "
        f"{largest.memory:.3f}x of TRL (worst of {len(results)} settings: time {slowest.setting}, memory "
        f"{largest.setting}; {size.pairs} pairs each)"
        + (f", {of_naive:.3f}x of full logits" if of_naive else "")
        + f"; {device_name(device)}"
    )


def steady_process() -> None:
    """Set this process up to take the same time for the same step, also on a busy machine."""
    disable_progress_bars()
    torch.set_num_threads(1)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        # glibc gives large blocks back and faults them in anew in every step: a fifth of a step, and as unsteady as
        # the kernel is busy. M_MMAP_MAX = 0 and M_TRIM_THRESHOLD = -1: keep what was freed.
        libc.mallopt(-4, 0)
        libc.mallopt(-1, -1)


if __name__ == "__main__":
    steady_process()
    main()

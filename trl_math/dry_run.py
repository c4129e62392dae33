"""`--dry-run`: what can be known without a model, printed: settings, data, batch, steps, GPUs, memory, files.

Offline: data sets and model configurations are read from disk and from the hub's cache only, and what is not there is
said to be unchecked.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache

from trl_math.data.matched_control import budget_of
from trl_math.data.pair_check import check_pair_columns
from trl_math.data.token_rows import origin_of
from trl_math.errors import NotCachedError, TrlMathError
from trl_math.generate_plan import settings_lines
from trl_math.launch import LaunchPlan
from trl_math.models import cached_folder, check_model_name
from trl_math.optional import check_installed
from trl_math.plan import describe, num_update_steps, plan_memory
from trl_math.preflight import (
    check_attention,
    check_control,
    check_devices,
    check_generation,
    check_kind,
    check_launch,
    check_selection,
    effective_batch,
    needed_packages,
)
from trl_math.recipes import NO_GPU, TrainArguments
from trl_math.run_folder import MANIFEST
from trl_math.trainers.live_pairs_config import load_live_problems
from trl_math.trainers.pair_rows import pass_rates
from trl_math.trainers.sft_weights import usable_rows
from trl_math.trainers.trained_rows import check_formats


# Returns the rows to train on (None if they are made later) and to evaluate on.
Load = Callable[[TrainArguments], tuple[Any, Any]]


def report(arguments: TrainArguments, plan: LaunchPlan | None, load: Load) -> str:
    """Return the text of a dry run; raise what would stop the run on any machine."""
    if plan is not None:
        check_launch(arguments, plan)
    if arguments.model.model_name_or_path is not None:
        check_model_name(arguments.model.model_name_or_path)
    check_kind(arguments)
    check_attention(arguments)
    check_control(arguments)
    check_generation(arguments, plan)
    check_selection(arguments)
    rows, data_lines = _data(arguments, load)
    missing = _missing_here(arguments, plan, uses_cpu=bool(arguments.given.get("use_cpu")))
    sections = {
        "settings (others are at their defaults)": settings_lines(arguments.given),
        "data": data_lines,
        "batch and steps": _steps(arguments, plan, rows),
        "launch": _launch(plan),
        "memory on each GPU (estimate)": _memory(arguments, plan),
        "files": _files(arguments),
        "missing on this machine": missing or ["nothing"],
    }
    return "\n\n".join(f"{title}\n" + "\n".join(f"  {line}" for line in lines) for title, lines in sections.items())


def _data(arguments: TrainArguments, load: Load) -> tuple[int | None, list[str]]:
    """Load the rows and check their columns, or say why they could not be."""
    live_data = getattr(arguments.training, "live_data", None)
    try:
        train, evaluation = load(arguments)
        problems = None if live_data is None else load_live_problems(arguments.training)
    except NotCachedError as error:
        name = arguments.data.dataset_name or live_data
        return None, [f"{name}: not in the local cache, so its columns are not checked", f"({error})"]
    lines = []
    for name, rows in (("train", train), ("eval", evaluation)):
        if rows is not None:
            _check_columns(arguments, rows, name)
            lines.append(f"{name}: {len(rows)} rows with {', '.join(rows.column_names)}")
            if (origin := origin_of(rows)) is not None:
                lines.append(f"{name}: {origin}")
            if (budget := budget_of(rows)) is not None:
                lines.append(f"{name}: a matched control of {budget}")
            kept = _usable(arguments, rows, name)
            if len(kept) < len(rows):
                lines.append(f"{name}: {len(kept)} of them are trained on, by their weights and pass rates")
            train = kept if name == "train" else train
    if problems is not None:
        lines.append(f"pairs are made while the model trains, of {len(problems)} problems of {live_data}")
        return None, lines
    if getattr(arguments.training, "is_screened_live", False):
        lines.append(_screening(arguments.training))
    first = train[0]
    keys = ("prompt", "completion", "chosen", "rejected", "messages", "text")
    shown = {key: first[key] for key in keys if key in first}
    lines += [f"first {key}: {json.dumps(value, ensure_ascii=False)[:200]}" for key, value in shown.items()]
    return len(train), lines


def _check_columns(arguments: TrainArguments, rows: Any, name: str) -> None:
    training = arguments.training
    if arguments.header.command == "dpo":
        check_pair_columns(rows, name)
        if training.needs_pass_rates:
            pass_rates(rows, training.own_loss)
    else:
        check_formats(rows, training, name)


def _usable(arguments: TrainArguments, rows: Any, name: str) -> Any:
    """Return the rows that their weights and pass rates leave; raise what the trainer would raise of these."""
    if arguments.header.command == "dpo":
        return rows
    return usable_rows(rows, arguments.training, name, is_training=name == "train")


def _screening(training: Any) -> str:
    """Say how pass rates are estimated."""
    until = "until it is settled, " if training.screening_rule == "agreement" else ""
    every = "in every walk" if training.screening_every is None else f"every {training.screening_every} steps"
    return (
        f"pass rates are estimated while the model trains (engine {training.screening_engine}), {every}: each problem "
        f"gets samples {until}{training.screening_samples}{' at most' if until else ''}"
    )


def _steps(arguments: TrainArguments, plan: LaunchPlan | None, rows: int | None) -> list[str]:
    training = arguments.training
    processes = plan.num_processes if plan is not None else 1
    per_device, accumulation = training.per_device_train_batch_size, training.gradient_accumulation_steps
    lines = [
        f"effective batch: {per_device} rows x {accumulation} micro-batches x {processes} processes = "
        f"{effective_batch(arguments, plan)} rows"
    ]
    if rows is None and training.max_steps < 0:
        return [*lines, "optimiser steps: unknown, the data could not be read"]
    steps = num_update_steps(
        rows or 0, per_device, accumulation, processes, training.num_train_epochs, training.max_steps
    )
    bounds = {"refills": "at most ", "packing": "before packing "}  # of these, DPO has none
    if training.max_steps < 1:
        bounds["drop_truncated"] = "at most "
    bound = next((text for name, text in bounds.items() if getattr(training, name, False)), "")
    return [*lines, f"optimiser steps: {bound}{steps}"]


def _launch(plan: LaunchPlan | None) -> list[str]:
    if plan is None:
        return ["one process, started by this command"]
    stage = f", ZeRO stage {plan.zero_stage}" if plan.zero_stage else ""
    device = "CPU processes" if plan.uses_cpu else "GPUs"
    return [f"{plan.file}: {plan.kind}{stage}, {plan.num_processes} {device} on {plan.num_machines} machine(s)"]


def _memory(arguments: TrainArguments, plan: LaunchPlan | None) -> list[str]:
    config = model_config(arguments.model.model_name_or_path)
    if config is None:
        return [
            f"{arguments.model.model_name_or_path}: its config.json is not on this machine, so there is no estimate"
        ]
    try:
        return describe(plan_memory(arguments.given, config, plan))
    except (KeyError, TypeError, ValueError) as error:
        return [f"no estimate for this kind of model ({error})"]


def model_config(name: str | None) -> dict[str, Any] | None:
    """Return a model's `config.json` from a folder or the hub's cache, or None. Nothing is downloaded."""
    if not name:
        return None
    path: Any = Path(cached_folder(name) or name) / "config.json"
    if not path.is_file():
        path = try_to_load_from_cache(name, "config.json") if name.count("/") == 1 else None
    return json.loads(Path(path).read_text()) if isinstance(path, str | Path) else None


def _files(arguments: TrainArguments) -> list[str]:
    folder = Path(arguments.training.output_dir)
    state = "to be continued" if (folder / MANIFEST).exists() else "new"
    if folder.is_dir() and state == "new" and any(folder.iterdir()):
        state = "NOT EMPTY, and no run of trl-math: it will be refused"
    lines = [f"{folder} ({state}): run.json, README.md, the model and its tokenizer"]
    if arguments.training.save_strategy != "no":
        lines.append(f"{folder}/checkpoint-*: every {_interval(arguments.training)}")
    if arguments.training.eval_generation_data is not None and arguments.training.eval_generation_save_samples:
        lines.append(f"{folder}/eval_samples: the graded samples of each evaluation")
    if getattr(arguments.training, "reference_file", None) is not None:
        lines.append(f"{_reference_place(arguments)}: what the reference says of the pairs")
    if getattr(arguments.training, "is_screened_live", False):
        lines.append(f"{folder}/pass_rates.jsonl: what screening found, a line for each problem")
    if getattr(arguments.training, "live_data", None) is not None and arguments.training.live_save_pairs:
        lines.append(f"{folder}/live_pairs: the pairs of each refresh")
    return lines


def _reference_place(arguments: TrainArguments) -> str:
    file, name = arguments.training.reference_file, arguments.data.dataset_name
    return f"a file beside {name}, or TRL's cache if that is on the hub" if file == "auto" else file


def _interval(training: Any) -> str:
    return "epoch" if training.save_strategy == "epoch" else f"{training.save_steps:g} steps"


def _missing_here(arguments: TrainArguments, plan: LaunchPlan | None, *, uses_cpu: bool) -> list[str]:
    """Return what keeps the recipe from running on this machine; it may be meant for another."""
    checks = [partial(check_installed, *needed) for needed in needed_packages(arguments, plan)]
    lines = []
    for check in [*checks, partial(check_devices, plan, uses_cpu=uses_cpu)]:
        try:
            check()
        except TrlMathError as error:
            lines.append(str(error))
    if plan is None and not uses_cpu and arguments.training.bf16 and not torch.cuda.is_available():
        lines.append(NO_GPU)
    return lines

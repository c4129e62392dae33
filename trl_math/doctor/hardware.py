"""Checks of what a recipe needs of this machine: GPUs, memory, disk, the model; and of the recipe itself."""

# ruff: noqa: PLC0415 - a check imports what it looks at, so that a broken package becomes a finding

import math
import shutil
from pathlib import Path
from typing import Any

from trl_math.doctor.finding import Finding, Findings, Recipe, missing
from trl_math.doctor.software import import_error, version_of
from trl_math.errors import UsageError
from trl_math.launch import LaunchPlan
from trl_math.optional import is_installed
from trl_math.plan import GIB, MemoryEstimate, effective_batch, plan_memory


# Not in the estimate: CUDA context, communication libraries, fragmentation.
OVERHEAD = 2 * GIB
# A checkpoint of DeepSpeed: 16-bit weights twice, float32 master weights and two states of Adam.
CHECKPOINT_BYTES = 2 + 2 + 12
# DeepSpeed's setting for stage 3, as accelerate names it.
WHOLE_MODELS = "zero3_save_16bit_model"


def _gpus() -> list[Any]:
    """Properties of the visible GPUs: name, total_memory, major, minor."""
    import torch

    return [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]


def _uses_cpu(recipe: Recipe, launch: LaunchPlan | None) -> bool:
    return bool(recipe.get("use_cpu") or (launch is not None and launch.uses_cpu))


def check_gpus(recipe: Recipe, launch: LaunchPlan | None) -> Findings:
    gpus, status = _gpus(), "fail" if recipe else "info"
    if _uses_cpu(recipe, launch):
        yield Finding("gpus", "ok", f"{len(gpus)}, and the recipe uses none")
    elif not gpus and shutil.which("nvidia-smi"):
        import torch

        detail = f"there is an NVIDIA driver, but torch {torch.__version__} (CUDA {torch.version.cuda}) sees no GPU"
        yield Finding("gpus", "fail", detail, "install torch for this driver's CUDA; check CUDA_VISIBLE_DEVICES")
    elif not gpus:
        yield Finding("gpus", status, "none", "use a machine with GPUs, or try the recipe on this one with --smoke")
    else:
        kinds = {f"{gpu.name} ({gpu.total_memory / GIB:.0f} GiB, capability {gpu.major}.{gpu.minor})" for gpu in gpus}
        yield Finding("gpus", "ok", f"{len(gpus)} x {' and '.join(sorted(kinds))}")
        yield from _enough_gpus(recipe, launch, len(gpus))
        if recipe.get("bf16", not recipe.get("fp16")) and min(gpu.major for gpu in gpus) < 8:
            detail = "bfloat16 needs compute capability 8.0 (Ampere)"
            yield Finding("bf16", "fail" if recipe else "info", detail, "--bf16 false --fp16 true --dtype float32")


def _enough_gpus(recipe: Recipe, launch: LaunchPlan | None, count: int) -> Findings:
    if recipe and launch is None and count > 1:
        fix = "--accelerate_config ddp (or zero2, zero3, fsdp2), or export CUDA_VISIBLE_DEVICES=0"
        yield Finding("processes", "fail", f"{count} GPUs are visible to one process", fix)
    if launch is None or launch.num_local_processes <= count:
        return
    accumulation = recipe.get("gradient_accumulation_steps", 1)
    wanted, available = launch.num_processes, count * launch.num_machines
    fix = f"--num_processes {available}"
    if accumulation * wanted % available == 0:
        fix += f" --gradient_accumulation_steps {accumulation * wanted // available} (the same effective batch)"
    detail = (
        f"{launch.file.name} starts {launch.num_local_processes} processes on a machine, this one has {count} GPUs"
    )
    yield Finding("processes", "fail", detail, fix)


def check_attention(recipe: Recipe, launch: LaunchPlan | None) -> Findings:
    wanted = recipe.get("attn_implementation") or "sdpa"
    is_needed = wanted in ("flash_attention_2", "flash_attention_3")
    if not is_installed("flash_attn"):
        detail = f"not installed; attention is {wanted}"
        yield missing("flash_attn", is_needed, detail, "--attn_implementation sdpa" if is_needed else "")
    elif error := import_error("flash_attn"):
        fix = "pip install --force-reinstall --no-build-isolation --no-cache-dir flash-attn"
        yield Finding("flash_attn", "fail" if is_needed else "warn", error, fix)
    elif (oldest := min((gpu.major for gpu in _gpus()), default=8)) < 8:
        detail = f"needs GPUs of compute capability 8.0 (Ampere), here {oldest}.x"
        yield Finding("flash_attn", "fail" if is_needed else "info", detail, "--attn_implementation sdpa")
    else:
        yield Finding("flash_attn", "ok", version_of("flash-attn") or "installed")


def check_recipe(recipe: Recipe, launch: LaunchPlan | None) -> Findings:
    """What the run itself would refuse: unknown keys, settings that clash, a launch file that contradicts them."""
    if recipe.get("command", "sft") not in ("sft", "dpo") or not recipe:
        return
    from trl_math.preflight import check_attention as check_packing
    from trl_math.preflight import check_launch
    from trl_math.recipes import build_dpo, build_sft

    build = build_dpo if recipe.get("command") == "dpo" else build_sft
    try:
        arguments = build({**recipe, "use_cpu": _uses_cpu(recipe, launch) or not _gpus()})
        check_packing(arguments)
        if launch is not None:
            check_launch(arguments, launch)
    except UsageError as error:
        yield Finding("recipe", "fail", str(error), "change the recipe as the message says")
        return
    if launch is not None and launch.zero_stage == 3 and not launch.settings["deepspeed_config"].get(WHOLE_MODELS):
        detail = f"{launch.file.name} saves shards, which vLLM and from_pretrained cannot load"
        yield Finding("checkpoints", "warn", detail, f"set {WHOLE_MODELS}: true under deepspeed_config")
    training, processes = arguments.training, launch.num_processes if launch else 1
    batch = effective_batch(training.per_device_train_batch_size, training.gradient_accumulation_steps, processes)
    yield Finding("recipe", "ok", f"effective batch {batch} on {processes} process{'es' * (processes > 1)}")


def _model_config(recipe: Recipe) -> dict[str, Any] | None:
    from trl_math.dry_run import model_config

    return model_config(_model_name(recipe))


def _model_name(recipe: Recipe) -> str | None:
    return recipe.get("model_name_or_path", recipe.get("model"))


def check_hub(recipe: Recipe, launch: LaunchPlan | None) -> Findings:
    from huggingface_hub import constants, get_token

    model = _model_name(recipe)
    if constants.HF_HUB_OFFLINE and model and _model_config(recipe) is None:
        fix = f"unset HF_HUB_OFFLINE, or, where there is a network: hf download {model}"
        yield Finding("hub", "fail", f"HF_HUB_OFFLINE is set and {model} is not in the cache", fix)
    elif get_token():
        yield Finding("hub", "ok", "a token is set" + (", offline" if constants.HF_HUB_OFFLINE else ""))
    else:
        yield Finding("hub", "info", "no token: gated models (Llama, Gemma) cannot be downloaded", "hf auth login")


def _estimate(recipe: Recipe, launch: LaunchPlan | None) -> tuple[MemoryEstimate | None, str]:
    """Return the memory that a recipe for `sft` needs, or None and why it is not known."""
    config = _model_config(recipe)
    if config is None:
        return None, f"the config of {recipe.get('model_name_or_path')} is not on this machine"
    try:
        return plan_memory(recipe, config, launch), ""
    except UsageError as error:
        return None, str(error)


def check_memory(recipe: Recipe, launch: LaunchPlan | None) -> Findings:
    if recipe.get("command", "sft") != "sft" or not recipe.get("model_name_or_path") or _uses_cpu(recipe, launch):
        return
    estimate, reason = _estimate(recipe, launch)
    if estimate is None:
        fix = f"hf download {recipe['model_name_or_path']} config.json"
        yield Finding("memory", "info", f"not estimated: {reason}", fix)
        return
    need, have = estimate.total + OVERHEAD, min((gpu.total_memory for gpu in _gpus()), default=0)
    detail = f"about {need / GIB:.0f} GiB on each GPU if every row has max_length tokens"
    if not have:
        yield Finding("memory", "info", detail, "use GPUs that have this")
        return
    status = "fail" if need > have else "warn" if need > 0.9 * have else "ok"
    fix = (
        "halve per_device_train_batch_size and double gradient_accumulation_steps; accelerate_config: zero3; use_peft"
    )
    yield Finding("memory", status, f"{detail}, of {have / GIB:.0f} GiB", "" if status == "ok" else fix)


def check_disk(recipe: Recipe, launch: LaunchPlan | None) -> Findings:
    folder = Path(recipe.get("output_dir", "runs")).expanduser().absolute()
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
    estimate = _estimate(recipe, launch)[0] if recipe.get("save_strategy", "steps") != "no" else None
    need = 10 * GIB
    if estimate is not None:
        count = math.ceil(recipe.get("num_train_epochs", 3)) if recipe.get("save_strategy") == "epoch" else 2
        count = min(count, recipe.get("save_total_limit") or count)
        need = estimate.trainable * (4 + count * (4 if recipe.get("save_only_model") else CHECKPOINT_BYTES))
    detail = f"{free / GIB:.0f} GiB free for {folder}, {need / GIB:.0f} GiB may be needed"
    if free >= need:
        yield Finding("disk", "ok", detail)
    else:
        fix = "another --output_dir, --save_total_limit 1, or --save_only_model true (a run cannot go on from those)"
        yield Finding("disk", "fail" if estimate else "warn", detail, fix)

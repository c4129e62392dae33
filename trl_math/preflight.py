"""What can be known before a model is loaded: packages, attention, devices, launch settings.

Each check raises one line. The dry run and the run itself call the same checks.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from trl_math import plan as arithmetic
from trl_math.data.prompts import PROMPT_STYLES, decoder_style
from trl_math.errors import UsageError
from trl_math.launch import LaunchPlan, is_launched
from trl_math.models import check_model_name, is_encoder_decoder
from trl_math.optional import check_installed
from trl_math.recipes import TrainArguments


# Attention implementations that read sequence boundaries from position ids (checked by the packing tests for the first
# two on a CPU), so that packed or padding-free sequences do not see each other.
SEPARATING_ATTENTION = (
    "sdpa",
    "eager",
    "flash_attention_2",
    "flash_attention_3",
    "flash_attention_4",
    "flex_attention",
)


def check_before_model(arguments: TrainArguments, plan: LaunchPlan | None) -> None:
    """Run every check that needs neither model nor data."""
    if arguments.model.model_name_or_path is None:
        raise UsageError(
            "Which model? Set model_name_or_path (a hub name, a path, or embedded:smollm2-135m-instruct)."
        )
    check_model_name(arguments.model.model_name_or_path)
    if not arguments.data.dataset_name and not _is_live(arguments):
        raise UsageError("Which data? Set dataset_name (a hub name, a JSONL or Parquet file, or reasoning_gym:...).")
    check_kind(arguments)
    for package, needed_for in needed_packages(arguments, plan):
        check_installed(package, needed_for)
    check_attention(arguments)
    check_control(arguments)
    check_generation(arguments, plan)
    check_selection(arguments)
    check_devices(plan, uses_cpu=arguments.training.use_cpu)
    if plan is not None:
        check_launch(arguments, plan)


def needed_packages(arguments: TrainArguments, plan: LaunchPlan | None) -> Iterator[tuple[str, str]]:
    """Yield the optional packages that a recipe asks for, and which setting does."""
    attention = arguments.model.attn_implementation or ""
    if attention in ("flash_attention_2", "flash_attention_3"):
        yield "flash_attn", f"attn_implementation: {attention}"
    if arguments.model.load_in_4bit or arguments.model.load_in_8bit:
        yield "bitsandbytes", "quantised loading (load_in_4bit, load_in_8bit)"
    if arguments.training.deepspeed or (plan is not None and plan.kind == "DEEPSPEED"):
        yield "deepspeed", "DeepSpeed"
    for setting, engine in _asked_while_training(arguments):
        if engine == "vllm" or (engine == "auto" and _holds_pieces(arguments, plan)):
            yield "vllm", f"{setting}engine: vllm (the only one for ZeRO-3 and FSDP)"
    reporters = arguments.training.report_to
    for package in sorted({"wandb", "trackio"} & set([reporters] if isinstance(reporters, str) else reporters or [])):
        yield package, f"report_to: {package}"


def check_attention(arguments: TrainArguments) -> None:
    """Raise if sequences that share a row could attend to each other."""
    training, attention = arguments.training, arguments.model.attn_implementation
    shares_rows = any(getattr(training, name, False) for name in ("packing", "padding_free", "eval_packing"))
    # Kernels from the hub are named by repository, and are flash attention in all but name.
    is_hub_kernel = attention is not None and "/" in attention
    if shares_rows and attention is not None and attention not in SEPARATING_ATTENTION and not is_hub_kernel:
        raise UsageError(
            f"packing and padding_free put several sequences in a row, and attn_implementation: {attention} does not "
            f"keep them apart: use one of {', '.join(SEPARATING_ATTENTION)}."
        )


def check_kind(arguments: TrainArguments) -> None:
    """Raise for a kind of model that the command does not train."""
    name, revision = arguments.model.model_name_or_path, arguments.model.model_revision
    if arguments.header.command == "dpo" and is_encoder_decoder(name, revision):
        raise UsageError(
            f"{name} is an encoder-decoder model, which TRL's DPO does not train: use `trl-math sft`, or a decoder."
        )
    style = arguments.data.prompt_style
    if style in PROMPT_STYLES and PROMPT_STYLES[style].is_seq2seq and not is_encoder_decoder(name, revision):
        raise UsageError(decoder_style(style, str(name)))


def check_control(arguments: TrainArguments) -> None:
    """Raise if it cannot be known before training how many rows a schedule, whose control this is, trains on."""
    if not arguments.data.matched_control:
        return
    training = arguments.training
    if getattr(training, "refills", False) and training.max_steps < 1:
        raise UsageError(
            "matched_control has as many rows as its schedule, and with min_coverage_weight, unscreened_steps or "
            "screening: live it is decided while training which rows are trained on: set max_steps, the same for both."
        )
    template = training.chat_template_path
    if getattr(training, "drop_truncated", False) and template is not None and not os.path.isfile(template):
        raise UsageError(
            "matched_control with drop_truncated takes a chat template from a file, since rows are measured before a "
            f"model is loaded: chat_template_path is {template}."
        )


def check_generation(arguments: TrainArguments, plan: LaunchPlan | None) -> None:
    """Raise if problems cannot be asked in training as the settings say; decide how they are asked."""
    from trl_math.trainers.generation_eval_config import inherit_prompt_style  # noqa: PLC0415 - heavy
    from trl_math.trainers.live_pairs_config import inherit_live_style  # noqa: PLC0415 - heavy
    from trl_math.trainers.screening_config import inherit_stop  # noqa: PLC0415 - heavy

    training = arguments.training
    metric = training.metric_for_best_model
    if training.eval_generation_data is None and metric is not None and "@" in metric:
        raise UsageError(f"metric_for_best_model: {metric} needs problems to ask: set eval_generation_data.")
    if training.eval_generation_data is not None:
        inherit_prompt_style(training, arguments.data.prompt_style)
    if _is_live(arguments):
        inherit_live_style(training, arguments.data.prompt_style)
    if getattr(training, "is_screened_live", False):
        inherit_stop(training, arguments.data.prompt_style)
    for setting, engine in _asked_while_training(arguments):
        if engine == "transformers" and _holds_pieces(arguments, plan):
            raise UsageError(
                f"{setting}engine: transformers cannot sample from a model that ZeRO-3 or FSDP "
                "holds in pieces: use vllm, or train with ddp or zero2."
            )


def check_selection(arguments: TrainArguments) -> None:
    """Raise if the best checkpoint would be chosen on a test split, whose figures would then be too good.

    What `trl-math pairs` calls the split `test` are problems that it held out of the training data: DPO may choose by
    its loss on these.
    """
    from trl_math.trainers.generation_eval_config import is_of_generation  # noqa: PLC0415 - heavy

    training, data = arguments.training, arguments.data
    if not training.load_best_model_at_end and str(training.save_strategy) not in ("best", "SaveStrategy.BEST"):
        return
    if is_of_generation(training.metric_for_best_model):
        source, split, setting = training.eval_generation_data, training.eval_generation_split, "eval_generation_split"
    elif arguments.header.command == "dpo":
        return
    else:
        source, split = data.eval_dataset_name or data.dataset_name, data.eval_split
        setting = "dataset_test_split"
    for name in source if isinstance(source, list) else [source]:
        if name is not None and is_test_split(name, split):
            raise UsageError(
                f"The best checkpoint would be chosen on the test split of {name}, and figures on it would be too "
                f"good: set {setting}: validation (`trl-math split` makes one), or load_best_model_at_end: false."
            )


def is_test_split(source: str, split: str) -> bool:
    """Whether a split of a source, or the file that it is, is a test split by its name, or has one in it."""
    from trl_math.data.sources import TASK  # noqa: PLC0415 - heavy

    path = Path(source).expanduser()
    names = [path.stem] if path.is_file() else split.split("+")
    if source.startswith(TASK) and split == "all":  # a task's sides together
        return True
    return any(re.match(r"test(?![a-z])", name.strip().lower()) for name in names)


def _asked_while_training(arguments: TrainArguments) -> Iterator[tuple[str, str]]:
    """Yield how the settings of each that asks problems begin, and the engine that asks them."""
    if arguments.training.eval_generation_data is not None:
        yield "eval_generation_", arguments.training.eval_generation_engine
    if _is_live(arguments):
        yield "live_", arguments.training.live_engine
    if getattr(arguments.training, "is_screened_live", False):
        yield "screening_", arguments.training.screening_engine


def _is_live(arguments: TrainArguments) -> bool:
    """Whether pairs are made while the model trains."""
    return getattr(arguments.training, "live_data", None) is not None


def _holds_pieces(arguments: TrainArguments, plan: LaunchPlan | None) -> bool:
    """Whether a launch leaves no process with the whole model."""
    return bool(arguments.training.fsdp) or (plan is not None and (plan.kind == "FSDP" or plan.zero_stage == 3))


def check_devices(plan: LaunchPlan | None, *, uses_cpu: bool) -> None:
    """Raise if more processes are asked for than there are GPUs, or more GPUs are visible than one process can use."""
    import torch  # noqa: PLC0415 - heavy

    if uses_cpu or (plan is not None and plan.uses_cpu) or is_launched():
        return
    num_gpus = torch.accelerator.device_count()  # GPUs of any make
    if plan is None and num_gpus > 1:
        raise UsageError(
            f"{num_gpus} GPUs are visible to one process: set accelerate_config: ddp (or zero2, zero3, fsdp2) to use "
            "them, or CUDA_VISIBLE_DEVICES=0 to use one."
        )
    if plan is not None and plan.num_local_processes > num_gpus:
        raise UsageError(
            f"{plan.file.name} starts {plan.num_local_processes} processes on each machine and this one has "
            f"{num_gpus} GPUs: pass --num_processes {max(num_gpus, 1)}, or try the recipe with --smoke."
        )


def check_launch(arguments: TrainArguments, plan: LaunchPlan) -> None:
    """Raise if the launch file and the recipe disagree about the batch, or the objective cannot be cut up that way."""
    deepspeed = plan.settings.get("deepspeed_config") or {}
    steps = deepspeed.get("gradient_accumulation_steps", "auto")
    if isinstance(steps, int) and steps != arguments.training.gradient_accumulation_steps:
        raise UsageError(
            f"gradient_accumulation_steps is {steps} in {plan.file.name} and "
            f"{arguments.training.gradient_accumulation_steps} in the recipe: write auto in the launch file."
        )
    parallelism = plan.settings.get("parallelism_config") or {}
    for size in ("cp_size", "sp_size"):
        cut = int(parallelism.get(f"parallelism_config_{size}", parallelism.get(size, 1)))
        if cut > 1 and arguments.training.own_loss:
            raise UsageError(
                f"{arguments.training.own_loss} needs whole sequences on one device; {plan.file.name} cuts them "
                f"({size}: {cut})."
            )


def effective_batch(arguments: TrainArguments, plan: LaunchPlan | None) -> int:
    """Return how many rows one optimiser step sees, over all processes: those that run, or will be launched."""
    is_to_be_launched = plan is not None and not is_launched()
    processes = plan.num_processes if is_to_be_launched else int(os.environ.get("WORLD_SIZE", "1"))
    training = arguments.training
    return arithmetic.effective_batch(
        training.per_device_train_batch_size, training.gradient_accumulation_steps, processes
    )

"""What a trainer is asked for that cannot work, said before a model is loaded."""

import os
from typing import Any

from datasets import Dataset
from trl import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from trl_math.errors import DataError, UsageError
from trl_math.trainers.objective import is_cross_entropy
from trl_math.trainers.sft_config import MathSFTConfig


def as_math_config(args: Any, model: Any) -> MathSFTConfig:
    """Return `args` as a `MathSFTConfig`, filling in defaults as TRL does."""
    if isinstance(args, MathSFTConfig):
        return args
    if args is None:
        name = model if isinstance(model, str) else model.config._name_or_path
        return MathSFTConfig(f"{name.split('/')[-1]}-SFT")
    if isinstance(args, SFTConfig):
        given = args.to_dict()
        given |= {key: getattr(args, key) for key in given if key.endswith("_token")}  # to_dict hides them
        return MathSFTConfig(**given)
    raise UsageError(f"args must be a MathSFTConfig, got {type(args).__name__}.")


def refuse_clashes(config: MathSFTConfig, data_collator: Any, train_dataset: Any, kwargs: dict[str, Any]) -> None:
    """Raise for what cannot work and is known before the model is loaded."""
    if config.refills and not isinstance(train_dataset, Dataset):
        raise DataError("min_coverage_weight needs a data set that can be indexed, not a stream.")
    is_raw = (config.dataset_kwargs or {}).get("skip_prepare_dataset", False)
    if config.carried_columns and (is_raw or not isinstance(train_dataset, Dataset)):
        raise DataError("coverage_level: step numbers the steps of a data set in memory: no stream, no raw rows.")
    if is_cross_entropy(config) and config.num_attempts is None:
        return
    if kwargs.get("compute_loss_func") is not None:
        raise UsageError(f"compute_loss_func and objective: {config.objective} are two losses; choose one.")
    if data_collator is not None and type(data_collator) is not DataCollatorForLanguageModeling:
        raise UsageError("A custom data_collator does not say where sequences begin, which the objective needs.")
    if config.needs_whole_sequences and getattr(kwargs.get("peft_config"), "is_prompt_learning", False):
        raise UsageError("Prompt learning puts tokens into sequences, so the objective cannot tell where they begin.")
    for size in ("sp_size", "cp_size"):  # as accelerate hands them to the processes it starts
        if int(os.environ.get(f"PARALLELISM_CONFIG_{size.upper()}", "1")) > 1:
            raise UsageError(
                f"objective: {config.objective} needs whole sequences on one device, and {size} (sequence or "
                "context parallelism) cuts them. Set it to 1."
            )

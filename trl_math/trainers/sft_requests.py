"""What a trainer is asked for that cannot work, said before a model is loaded."""

from typing import Any

from datasets import Dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from trl_math.errors import DataError, UsageError
from trl_math.trainers.common import refuse_cut_sequences
from trl_math.trainers.objective import is_cross_entropy
from trl_math.trainers.sft_config import MathSFTConfig


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
    refuse_cut_sequences(f"objective: {config.objective}")

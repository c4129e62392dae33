"""What a DPO trainer is asked for that cannot work, said before a model is loaded."""

from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from trl_math.errors import DataError, UsageError
from trl_math.trainers.common import has_images, refuse_cut_sequences
from trl_math.trainers.dpo_config import MathDPOConfig
from trl_math.trainers.pair_collator import LOSS_WEIGHT, MASKS, PairCollator


def refuse_clashes(config: MathDPOConfig, data_collator: Any, train_dataset: Any, processing_class: Any) -> None:
    """Raise for what cannot work and is known before the model is loaded; the training rows are prepared already."""
    columns = set(train_dataset.column_names) if isinstance(train_dataset, Dataset) else set()
    is_ours = not config.is_trl_loss or LOSS_WEIGHT in columns
    if train_dataset is None:
        raise UsageError("There is nothing to train on: give a train_dataset.")
    if config.reference_file == "auto":
        raise UsageError("reference_file: auto is for the command line, which knows where the pairs are: give a path.")
    if not isinstance(train_dataset, Dataset):
        if is_ours:
            raise DataError("Schedules, weights and anchors need pairs in memory or on disk, not a stream.")
        if config.precompute_ref_log_probs:
            raise DataError("precompute_ref_log_probs needs pairs in memory or on disk, not a stream.")
    if is_ours and (has_images(train_dataset) or not isinstance(processing_class, PreTrainedTokenizerBase)):
        raise UsageError("Our losses are of text: leave schedules, margins, anchors and penalties out for images.")
    is_custom = data_collator is not None and not isinstance(data_collator, PairCollator)
    if is_custom and (is_ours or columns & set(MASKS)):
        raise UsageError("A custom data_collator does not carry weights and loss masks: extend PairCollator.")
    if is_ours:
        refuse_cut_sequences("This loss")

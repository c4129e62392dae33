"""TRL's preference collator, which also carries a pair's numbers and loss masks from the rows to the loss."""

from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.dpo_trainer import DataCollatorForPreference


# Numbers of a pair that reach the loss, as (B,) tensors; a row brings all of those that its data set has.
LOSS_WEIGHT, PAIR_BETA, PAIR_MARGIN, PASS_RATE = "loss_weight", "pair_beta", "pair_margin", "pass_rate"
CARRIED = (LOSS_WEIGHT, PAIR_BETA, PAIR_MARGIN, PASS_RATE)
# 0 for each token of an answer that is not trained, such as the output of a tool.
MASKS = ("chosen_mask", "rejected_mask")


@dataclass
class PairCollator(DataCollatorForPreference):
    """`DataCollatorForPreference` plus the columns of `CARRIED`; masked tokens count as no part of the completion."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super().torch_call(examples)
        if MASKS[0] in examples[0]:
            trained = [self._trained(example, mask) for mask in MASKS for example in examples]  # chosen first
            for row, tokens in zip(batch["completion_mask"], trained, strict=True):
                row[: len(tokens)] *= torch.tensor(tokens, dtype=row.dtype)
        for column in CARRIED:
            if column in examples[0]:
                batch[column] = torch.tensor([float(example[column]) for example in examples], dtype=torch.float32)
        return batch

    def _trained(self, example: dict[str, Any], mask: str) -> list[int]:
        """Return the mask of a whole row, cut as TRL cuts the row."""
        whole = [1] * len(example["prompt_ids"]) + list(example[mask])
        if self.max_length is None:
            return whole
        return whole[: self.max_length] if self.truncation_mode == "keep_start" else whole[-self.max_length :]

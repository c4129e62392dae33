"""TRL's collator, which also carries per-token columns of ours from the data set to the loss.

Where the rows have none of them, the batch is TRL's own.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling


@dataclass
class CarryingCollator(DataCollatorForLanguageModeling):
    """`DataCollatorForLanguageModeling` plus the token columns named in `carried`, laid out like the labels, padded
    with 0."""

    carried: tuple[str, ...] = ()

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super().torch_call(examples)
        length = batch["input_ids"].shape[1]
        for column in self.carried:
            if column not in examples[0]:
                continue
            # A row that was truncated after the column was made keeps the beginning of both.
            rows = [torch.tensor(example[column])[: len(example["input_ids"])] for example in examples]
            if self.padding_free:
                rows = [torch.cat(rows)]
            values = pad_sequence(rows, batch_first=True)
            batch[column] = torch.nn.functional.pad(values, (0, length - values.shape[1]))
        return batch

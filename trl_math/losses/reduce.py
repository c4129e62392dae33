"""From element-wise losses to one number: segment sums, and the one place where a denominator is applied.

Shapes: B rows, T target positions, S = B * T the largest possible number of segments. A fixed S (most entries are
empty) keeps the shapes static and spares a GPU synchronisation for counting.
"""

import torch


def segment_ids(starts: torch.Tensor) -> torch.Tensor:
    """Number the segments of a batch: `starts` (B, T) is true where one begins; returns (B, T) ids from 0.

    Every row begins a segment, so ids never run across rows; a packed row begins one at each of its sequences.
    """
    starts = starts.clone()
    starts[:, 0] = True
    return (starts.flatten().cumsum(0) - 1).view_as(starts)


def segment_sum(values: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Sum `values` (B, T) over each segment; returns (S,) float64, zero for ids that do not occur.

    float64 because a sequence's log-probability decides an exponential, and because a GPU's unordered additions are
    then too small to show in float32 (which is all that Apple's GPUs have).
    """
    wide = torch.float32 if values.device.type == "mps" else torch.float64
    sums = values.new_zeros(values.numel(), dtype=wide)
    return sums.index_add(0, ids.flatten(), values.flatten().to(wide))


def reduce_sum(losses: torch.Tensor, denominator: torch.Tensor | int) -> torch.Tensor:
    """Return `losses.sum() / denominator`, the latter at least 1: a batch without trainable tokens gives zero.

    The denominator counts over the whole optimiser step (all micro-batches and processes), so that the loss does not
    depend on how the step is cut up. The same operations in the same order as TRL's, so that neutral settings agree
    bit for bit.
    """
    return losses.sum() / torch.as_tensor(denominator).clamp(min=1)

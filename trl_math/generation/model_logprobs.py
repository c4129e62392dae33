"""Log-probabilities of finished samples: one forward pass over prompt and completion, as training makes it.

Generation could tell them too, but only by keeping the logits of every step, and after whatever the sampling settings
did to them. What is wanted is the model's own probability of each token, at temperature 1 and without truncation.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from trl_math.generation.encoder_decoder import chunk_logprobs, has_encoder


# Logits that exist at a time: 2^27 are 256 MiB in bfloat16. A row that is longer by itself is a chunk of its own.
MAX_LOGITS = 2**27
# Positions of a row whose log-softmax in float32 exists at a time.
NUM_POSITIONS = 256

Sequences = Sequence[tuple[Sequence[int], Sequence[int]]]


@torch.no_grad()
def completion_logprobs(model: Any, sequences: Sequences, pad_id: int) -> list[tuple[float, ...]]:
    """Return the log-probability of each completion token for (prompt, completion) pairs of token ids."""
    vocabulary = model.config.get_text_config().vocab_size
    if has_encoder(model):  # logits of completions only
        chunks = _chunks(sequences, vocabulary, lambda chunk: max(len(completion) for _, completion in chunk))
        return [logprobs for chunk in chunks for logprobs in chunk_logprobs(model, chunk, pad_id)]
    keeps = "logits_to_keep" in inspect.signature(_base(model).forward).parameters
    return [
        logprobs
        for chunk in _chunks(sequences, vocabulary, lambda chunk: _num_kept(chunk, keeps=keeps)[1])
        for logprobs in _chunk_logprobs(model, chunk, pad_id, keeps=keeps)
    ]


@torch.no_grad()
def next_logprobs(
    model: Any, prompts: Sequence[Sequence[int]], token_ids: Sequence[int], pad_id: int
) -> list[tuple[float, ...]]:
    """Return the log-probability of each of some tokens behind each prompt of a decoder, which reads it once."""
    vocabulary = model.config.get_text_config().vocab_size
    keeps = "logits_to_keep" in inspect.signature(_base(model).forward).parameters
    sequences = [(prompt, ()) for prompt in prompts]
    found = []
    for chunk in _chunks(sequences, vocabulary, lambda chunk: _num_kept(chunk, keeps=keeps)[1]):
        logits, _, first = _logits(model, chunk, pad_id, keeps=keeps)
        last = torch.stack([logits[row, len(prompt) - 1 - first] for row, (prompt, _) in enumerate(chunk)])
        chosen = last.float().log_softmax(dim=-1)[:, list(token_ids)]
        found += [tuple(row) for row in chosen.tolist()]
    return found


def _base(model: Any) -> Any:
    """Return the model inside a PEFT model, whose own signature says nothing."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _num_kept(sequences: Sequences, *, keeps: bool) -> tuple[int, int]:
    """Return the width of a batch, and for how many of its last positions logits are needed."""
    width = max(len(prompt) + len(completion) for prompt, completion in sequences)
    return width, width - min(len(prompt) for prompt, _ in sequences) + 1 if keeps else width


def _chunks(sequences: Sequences, vocabulary: int, num_positions: Callable[[Sequences], int]) -> Iterator[Sequences]:
    """Yield sequences by as many as have logits, at `num_positions` of each, that may exist together."""
    chunk: list[tuple[Sequence[int], Sequence[int]]] = []
    for sequence in sequences:
        larger = [*chunk, sequence]
        if chunk and len(larger) * num_positions(larger) * vocabulary > MAX_LOGITS:
            yield chunk
            larger = [sequence]
        chunk = larger
    if chunk:
        yield chunk


def _chunk_logprobs(model: Any, sequences: Sequences, pad_id: int, *, keeps: bool) -> Iterator[tuple[float, ...]]:
    logits, ids, first = _logits(model, sequences, pad_id, keeps=keeps)
    for row, (prompt, completion) in enumerate(sequences):
        start = len(prompt) - 1 - first
        before = logits[row, start : start + len(completion)]
        tokens = ids[row, len(prompt) : len(prompt) + len(completion)].to(before.device)
        blocks = zip(before.split(NUM_POSITIONS), tokens.split(NUM_POSITIONS), strict=True)
        parts = [-F.cross_entropy(block.float(), targets, reduction="none") for block, targets in blocks]
        yield tuple(torch.cat(parts).tolist())


def _logits(model: Any, sequences: Sequences, pad_id: int, *, keeps: bool) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return the logits of a batch, its tokens, and the position of the first that has logits."""
    width, num_kept = _num_kept(sequences, keeps=keeps)
    # Padded on the right: what comes later changes nothing before it, and positions count from 0 as in training.
    rows = [[*prompt, *completion] for prompt, completion in sequences]
    ids = torch.tensor([row + [pad_id] * (width - len(row)) for row in rows], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=model.device)
    options = {"logits_to_keep": num_kept} if keeps else {}
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **options).logits
    return logits, ids, width - num_kept

"""A pair as a row: TRL's `prompt, chosen, rejected`, the tokens as they were sampled, and where they come from."""

from collections.abc import Mapping, Sequence
from typing import Any

from trl_math.data.pair_prefix import Opening, without
from trl_math.data.pair_rules import Pair, Response
from trl_math.data.prompts import Prompt


def pair_row(
    prompt: tuple[Prompt, Sequence[int] | None],  # and its tokens, where they are known
    pair: Pair,
    opening: Opening,
    facts: Mapping[str, Any],
    *,
    has_masks: bool,
) -> dict[str, Any]:
    """Return a pair in the columns of `PAIRS`."""
    text, ids = prompt
    sides = {"chosen": without(pair.chosen, opening), "rejected": without(pair.rejected, opening)}
    row: dict[str, Any] = {"prompt": _extended(text, opening.text)}
    row |= {name: _said(side.text, text) for name, side in sides.items()}
    row |= facts
    if ids is not None:
        row["prompt_ids"] = [*ids, *opening.ids]
        row |= {f"{name}_ids": list(side.ids or ()) for name, side in sides.items()}
        if has_masks:
            row |= {f"{name}_mask": _mask(side) for name, side in sides.items()}
    for name, side in sides.items():
        row |= {
            f"{name}_answer": side.answer,
            f"{name}_index": side.index,
            f"{name}_finish_reason": side.finish_reason,
            f"{name}_logprob": side.logprob,
        }
    samplers = dict.fromkeys(side.sampler for side in sides.values() if side.sampler is not None)
    return {**row, "sampler": "|".join(samplers) or None}


def _extended(prompt: Prompt, text: str) -> Prompt:
    """Return a prompt with a text behind it; in a conversation the assistant has begun to say it."""
    if not text:
        return prompt
    if isinstance(prompt, str):
        return prompt + text
    last = prompt[-1]
    if last["role"] == "assistant":
        return [*prompt[:-1], {**last, "content": last["content"] + text}]
    return [*prompt, {"role": "assistant", "content": text}]


def _said(text: str, prompt: Prompt) -> Prompt:
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]


def _mask(response: Response) -> list[int]:
    """Return 1 for each token that the model wrote, 0 for the output of programs."""
    mask = [1] * len(response.ids or ())
    for start, end in response.tool_spans:
        mask[start:end] = [0] * (end - start)
    return mask

"""Where a sample ends, and its text up to there: one answer for every backend.

The text of a sample is what stands before its end token, without other special tokens and with its spaces as they
are: some tokenizers would otherwise tidy `x , y` into `x, y`, which is another program.
"""

from collections.abc import Collection, Sequence
from typing import Any

from transformers import GenerationConfig


def end_token_ids(tokenizer: Any, generation_config: Any = None) -> list[int]:
    """Return the tokens that end a sample: the tokenizer's, which training appends, then the model's own.

    Both are needed. A chat model ends its turn with a token that is often only in its generation config, and a
    trained model ends with the tokenizer's whatever the generation config of its base says.
    """
    found = [tokenizer.eos_token_id]
    configured = getattr(generation_config, "eos_token_id", None)
    found += configured if isinstance(configured, list | tuple) else [configured]
    return list(dict.fromkeys(int(token) for token in found if token is not None))


def read_generation_config(model: str, revision: str | None = None) -> GenerationConfig | None:
    """Return the generation config that lies beside a model; many base models have none."""
    try:
        return GenerationConfig.from_pretrained(model, revision=revision)
    except (OSError, ValueError):
        return None


def decode(tokenizer: Any, ids: Sequence[int], end_ids: Collection[int] = ()) -> str:
    """Return the text of a sample's tokens, without the end token if the last one is."""
    kept = ids[:-1] if len(ids) and ids[-1] in end_ids else ids
    # An end token need not be a special one, so it is taken off here and not left to `skip_special_tokens`.
    return tokenizer.decode(list(kept), skip_special_tokens=True, clean_up_tokenization_spaces=False)

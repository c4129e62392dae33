"""A tokenizer and a random Llama, made in code in milliseconds: for tests, smoke runs and nothing else.

The tokenizer is byte-level without merges, so one token is one byte, every text round-trips, and no token boundary can
fall in a wrong place. The model has everything a real checkpoint has (chat template, distinct pad and eos tokens,
generation config) except knowledge.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase
from transformers import PreTrainedTokenizerFast as FastTokenizer


PAD, START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"

# ChatML. What the assistant says, its end included, is marked for TRL's `assistant_only_loss`; a prompt with
# `add_generation_prompt` is a prefix of the full conversation, as training on completions needs.
CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}{{- message['content'] + '<|im_end|>\n' }}{%- endgeneration %}
{%- else %}
{{- message['content'] + '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""


def tiny_tokenizer() -> FastTokenizer:
    """Return the byte-level tokenizer: 3 special tokens, then the 256 bytes."""
    specials = [PAD, START, END]
    # `alphabet` comes in no particular order; sorted, the ids are the same in every process.
    vocabulary = specials + sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: id for id, token in enumerate(vocabulary)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return FastTokenizer(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )


def tiny_model(
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **config_overrides: Any,
) -> LlamaForCausalLM:
    """Return a random 2-layer Llama for `tokenizer` (default: `tiny_tokenizer()`), the same one for the same seed.

    `config_overrides` are fields of `LlamaConfig`. The global random state is left as it was.
    """
    tokenizer = tokenizer or tiny_tokenizer()
    special_ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,  # heads of 32: the smallest that vLLM's CPU attention takes
        "num_key_value_heads": 1,
        "max_position_embeddings": 2048,
        **special_ids,
    }
    config = LlamaConfig(**(settings | config_overrides))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(**special_ids)
    return model.to(dtype)


def save_tiny(folder: str | Path, *, seed: int = 0) -> Path:
    """Write the tiny model and its tokenizer as an ordinary checkpoint, and return the folder."""
    tokenizer = tiny_tokenizer()
    tiny_model(tokenizer, seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)

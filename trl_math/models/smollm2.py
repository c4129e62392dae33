"""SmolLM2-135M-Instruct from GGUF to an ordinary checkpoint.

Numbered differences from what the GGUF file holds:
1. Weights in bfloat16, the dtype of the original release: half the size of float32. Rounding adds 0.2 % to weights
   whose 4-bit quantisation is off by several.
2. Digits are split one by one before the byte-level split, as the original tokenizer does (the file says so by its
   pre-tokenizer name, `smollm`, which the conversion of tokenizers ignores): it matters after double spaces.
3. The pad token is `<|endoftext|>`, not `<|im_end|>`, which is the end of a turn: a masked pad must not hide an end.
"""

from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as FastTokenizer


PAD = "<|endoftext|>"


def convert(gguf: Path, folder: Path) -> None:
    """Write the model of the `gguf` file into `folder`: weights, configs, tokenizer and chat template."""
    tokenizer = _tokenizer(gguf)
    quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = quantised.config
    # A fresh model without it: transformers would save, and demand, the GGUF quantisation.
    del config.quantization_config
    config.pad_token_id = tokenizer.pad_token_id
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.load_state_dict(quantised.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer(gguf: Path) -> FastTokenizer:
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.pad_token = PAD
    tokenizer.model_max_length = 8192
    return tokenizer

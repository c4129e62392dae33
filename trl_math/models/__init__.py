"""Models that need no hub. Importing this imports no torch: `tiny_model` and its kin are looked up on first use."""

import importlib
from typing import TYPE_CHECKING, Any

from trl_math.models.embedded import cached_folder as cached_folder
from trl_math.models.embedded import check_model_name as check_model_name
from trl_math.models.embedded import embedded_checkpoint as embedded_checkpoint
from trl_math.models.embedded import resolve_model as resolve_model
from trl_math.models.embedders import resolve_embedder as resolve_embedder
from trl_math.models.kinds import is_encoder_decoder as is_encoder_decoder


if TYPE_CHECKING:
    from trl_math.models.tiny import save_tiny as save_tiny
    from trl_math.models.tiny import tiny_model as tiny_model
    from trl_math.models.tiny import tiny_tokenizer as tiny_tokenizer
    from trl_math.models.tiny_seq2seq import save_tiny_t5 as save_tiny_t5
    from trl_math.models.tiny_seq2seq import tiny_t5 as tiny_t5
    from trl_math.models.tiny_seq2seq import tiny_t5_tokenizer as tiny_t5_tokenizer


# Public name -> module that defines it, of those that need torch.
_HEAVY = {
    "save_tiny": "tiny",
    "save_tiny_t5": "tiny_seq2seq",
    "tiny_model": "tiny",
    "tiny_t5": "tiny_seq2seq",
    "tiny_t5_tokenizer": "tiny_seq2seq",
    "tiny_tokenizer": "tiny",
}

__all__ = [
    "cached_folder",
    "check_model_name",
    "embedded_checkpoint",
    "is_encoder_decoder",
    "resolve_embedder",
    "resolve_model",
    "save_tiny",
    "save_tiny_t5",
    "tiny_model",
    "tiny_t5",
    "tiny_t5_tokenizer",
    "tiny_tokenizer",
]


def __getattr__(name: str) -> Any:
    if name not in _HEAVY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"trl_math.models.{_HEAVY[name]}"), name)

"""Rows of a token file before training: are these the model's tokens, and which of them are trained?"""

import logging
from pathlib import Path
from typing import Any

import datasets
import trl
from datasets import Dataset

from trl_math.data.token_format import MAX_UINT16_VOCABULARY, TokenizerName, tokenizer_name
from trl_math.data.token_rows import Origin, cache_folder, origin_of, with_all_labels
from trl_math.errors import DataError, UsageError
from trl_math.generation.hashes import short_hash


logger = logging.getLogger(__name__)


def checked_token_rows(rows: Dataset, tokenizer: Any, config: Any, name: str) -> Dataset:
    """Return rows of a token file with the labels that the settings ask for; other rows pass.

    With `completion_only_loss: false` there is a loss on every token, else on those that the file does not exclude.
    """
    origin = origin_of(rows)
    if origin is None:
        return rows
    check_tokenizer(origin, tokenizer)
    if config.assistant_only_loss:
        raise UsageError(
            f"assistant_only_loss is decided where rows are tokenised, and the {name} data set {origin.path} has its "
            "masks: leave it out, and give --loss solution to `trl-math tokenize`."
        )
    excludes = origin.num_trained < origin.num_tokens
    if config.completion_only_loss and not excludes:
        raise UsageError(
            f"completion_only_loss: true, and {origin.path} excludes no token from the loss: make it with --loss "
            "solution, or leave completion_only_loss out."
        )
    return with_all_labels(rows) if excludes and config.completion_only_loss is False else rows


def check_tokenizer(origin: Origin, tokenizer: Any) -> None:
    """Raise unless the ids of a token file are those of the model's tokenizer, as far as that can be known."""
    model = tokenizer_name(tokenizer)
    if origin.tokenizer is not None:
        made_by = TokenizerName(**origin.tokenizer)
        if made_by.sha256 != model.sha256:
            raise DataError(
                f"The tokens of {origin.path} were made by {made_by.name} ({made_by.vocabulary:,} ids, "
                f"{made_by.sha256}), and the model's tokenizer {model.name} has other ones ({model.vocabulary:,} ids, "
                f"{model.sha256}): make the file again with --model {model.name}."
            )
        return
    if origin.dtype == "uint16" and model.vocabulary > MAX_UINT16_VOCABULARY:
        raise DataError(
            f"{origin.path} has no manifest and ids of 16 bits, and the model has {model.vocabulary:,} ids: larger "
            "ones would have been wrapped around and cannot be recovered. Make it again with `trl-math tokenize`."
        )
    if origin.largest_id >= model.vocabulary:
        raise DataError(
            f"{origin.path} has the id {origin.largest_id:,}, and the model's tokenizer {model.name} only "
            f"{model.vocabulary:,}: these are another model's tokens."
        )
    logger.warning(
        "No manifest says which tokenizer made %s: its largest id is %s, and the model has %s ids. More cannot be "
        "checked.",
        origin.path,
        f"{origin.largest_id:,}",
        f"{model.vocabulary:,}",
    )


def packed_in(rows: Dataset, config: Any) -> dict[str, str]:
    """Return where packed rows of a token file are kept, so that they need not be in memory; nothing for others."""
    if origin_of(rows) is None:
        return {}
    folder: Path = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    versions = (datasets.__version__, trl.__version__)
    name = short_hash(repr((rows._fingerprint, config.max_length, config.packing_strategy, versions)))
    return {"cache_file_name": str(folder / f"packed-{name}.arrow")}

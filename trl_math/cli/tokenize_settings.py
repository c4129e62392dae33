"""What `trl-math tokenize` can be asked for."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from trl_math.errors import UsageError, pick
from trl_math.recipes import Header, split_values


# As in sft.
MAX_LENGTH = 1024

LOSSES = ("all", "solution")


@dataclasses.dataclass(frozen=True)
class TokenizeSettings:
    """What is tokenised, how, and where it goes."""

    data: list[str] | str | None = dataclasses.field(
        default=None, metadata={"help": "Sources of rows, or token files: one, or several to be joined."}
    )
    data_config: str | None = dataclasses.field(default=None, metadata={"help": "Configuration name on the hub."})
    split: str = dataclasses.field(default="train", metadata={"help": "Split of the sources."})
    model: str | None = dataclasses.field(
        default=None, metadata={"help": "Whose tokenizer: a hub name, a path, or embedded:smollm2-135m-instruct."}
    )
    revision: str = dataclasses.field(default="main", metadata={"help": "Its revision on the hub."})
    output: str | None = dataclasses.field(default=None, metadata={"help": "X.tok, or X."})
    prompt_style: str | None = dataclasses.field(
        default=None,
        metadata={
            "help": "How problems become rows, as in sft. original: the tokens of `prompt` and `canonical_solution` "
            "(or `text`) and the EOS token, as llm-decontaminator has them."
        },
    )
    loss: str | None = dataclasses.field(
        default=None,
        metadata={
            "help": "What the mask leaves in the loss: all or solution [as sft: the completion, if there is one]."
        },
    )
    layout: str = dataclasses.field(
        default="ragged", metadata={"help": "ragged: rows one after the other. padded: each filled up to max_length."}
    )
    max_length: int | None = dataclasses.field(
        default=None,
        metadata={"help": "Tokens of a row at most; 0 for any number [1024, as in sft; of token files, as they are]."},
    )
    dtype: str | None = dataclasses.field(
        default=None, metadata={"help": "uint16 (up to 65,535 ids) or uint32 [as the vocabulary needs it]."}
    )
    original: bool = dataclasses.field(
        default=False,
        metadata={"help": "Write ids and padding as llm-decontaminator does: uint16, padded with the unknown token."},
    )
    max_truncated_fraction: float | None = dataclasses.field(
        default=None, metadata={"help": "Share of rows that may be longer than max_length [as in sft]."}
    )
    drop_truncated: bool = dataclasses.field(
        default=False, metadata={"help": "Leave longer rows out, instead of cutting them."}
    )
    eos_token: str | None = dataclasses.field(
        default=None, metadata={"help": "The token that ends a row, if it is not the tokenizer's EOS token."}
    )
    chat_template_path: str | None = dataclasses.field(default=None, metadata={"help": "File of a chat template."})
    dataset_text_field: str = dataclasses.field(default="text", metadata={"help": "Column of rows that are texts."})

    def __post_init__(self) -> None:
        from trl_math.data.token_format import DTYPES, LAYOUTS

        pick("layout", self.layout, LAYOUTS)
        if self.loss is not None:
            pick("loss", self.loss, LOSSES)
        if self.dtype is not None:
            pick("dtype", self.dtype, DTYPES)
        if self.max_length is not None and self.max_length < 0:
            raise UsageError(f"max_length must be at least 1, or 0 for any number of tokens, got {self.max_length}.")
        if self.original and (self.layout != "padded" or self.dtype == "uint32"):
            raise UsageError("original files are padded and have uint16 ids: set layout: padded, and leave dtype out.")

    @property
    def limit(self) -> int | None:
        """How many tokens a row of text may have."""
        return (MAX_LENGTH if self.max_length is None else self.max_length) or None

    @property
    def sources(self) -> list[str]:
        """The names of what is read."""
        names = [self.data] if isinstance(self.data, str) else list(self.data or ())
        if not names:
            raise UsageError("Which data? Set data (a hub name, a JSONL or Parquet file, or token files).")
        return names


def arguments(values: Mapping[str, Any]) -> TokenizeSettings:
    """Return the settings in typed form; raise for what has no place."""
    parts = split_values(values, {"header": Header, "settings": TokenizeSettings})
    return TokenizeSettings(**parts["settings"])

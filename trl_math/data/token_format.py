"""What token files are: their names, types, masks and manifest. Who writes and reads them is in `token_files`.

    X.tok        ids: (N, L) if padded, (T,) if ragged; uint16 for vocabularies of up to 65,535 ids, else uint32
    X.msk        int8 of the same shape. Bit 0: a real token, and no padding. Bit 1: excluded from the loss
    X.idx        int64 (N + 1,): where rows begin and end in the ragged form; 0, 1, ..., N in the padded one
    X.tok.json   the manifest: tokenizer, sizes, what the rows are made of, hashes of the files

All but the manifest are NPY files. The padded form is that of LM-Sys' llm-decontaminator, whose own files have uint16
ids and no manifest. Differences:

1. Ids that uint16 does not hold are written as uint32, where the original wraps them around (128,000 becomes 62,464).
2. What is padding is said by the mask alone; the original uses a sentinel on the way, which is the id 65,535, too.
3. The ragged form has no padding, and true offsets. The original declares such a form and does not implement it.
4. The manifest says whose ids these are, so that a model with another tokenizer is not trained on them.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trl_math.errors import DataError, UsageError, pick


FORMAT = 1
TOKENS, MASK, OFFSETS, MANIFEST = ".tok", ".msk", ".idx", ".tok.json"
ARRAYS = (OFFSETS, MASK, TOKENS)  # in the order in which they are put into place: the ids, which name the rest, last
LAYOUTS = ("ragged", "padded")

REAL, EXCLUDED = 1, 2
PADDING = EXCLUDED  # as the original writes it: neither real nor trained
MASK_MEANING = {
    "1": "bit 0: a real token (without it: padding)",
    "2": "bit 1: excluded from the loss",
}

# What every manifest says; `num_tokens` are real ones, `num_trained` those of them that are not excluded.
NEEDED = (
    "layout",
    "dtype",
    "num_rows",
    "num_tokens",
    "num_trained",
    "largest_id",
    "lengths",
    "max_length",
    "pad_id",
    "tokenizer",
    "sha256",
)

# The ids 0 to 65,534: 65,535 stays free, since readers of the original take it for padding.
MAX_UINT16_VOCABULARY = 65_535
DTYPES = ("uint16", "uint32")


class TokenizerName(NamedTuple):
    """Which tokenizer made the ids: for people its name, for checks its hash."""

    name: str
    sha256: str
    vocabulary: int  # number of ids, added ones included


def tokenizer_name(tokenizer: Any) -> TokenizerName:
    """Return whose ids a tokenizer makes. The hash is of which id is which token, and of nothing else."""
    vocabulary = tokenizer.get_vocab()
    listed = json.dumps(sorted(vocabulary.items(), key=lambda item: (item[1], item[0])), ensure_ascii=True)
    size = max(len(vocabulary), 1 + max(vocabulary.values(), default=-1))
    return TokenizerName(str(tokenizer.name_or_path), hashlib.sha256(listed.encode()).hexdigest()[:16], size)


def choose_dtype(asked: str | None, vocabulary: int) -> np.dtype:
    """Return the type of ids for a vocabulary of this size; refuse one that is asked for and does not hold them."""
    fits = vocabulary <= MAX_UINT16_VOCABULARY
    if asked is None:
        return np.dtype("uint16" if fits else "uint32")
    if pick("dtype", asked, DTYPES) == "uint16" and not fits:
        raise UsageError(
            f"dtype: uint16 holds a vocabulary of up to {MAX_UINT16_VOCABULARY:,} ids, and this one has "
            f"{vocabulary:,}, whose ids would wrap around: leave dtype out, or set uint32."
        )
    return np.dtype(asked)


def prefix_of(path: str | Path) -> Path:
    """Return what the names of a token file's parts begin with, given that or its `.tok` file."""
    path = Path(path).expanduser()
    name = path.name.removesuffix(TOKENS)
    if not name:
        raise UsageError(f"{str(path)!r} is no name for a token file: give one such as data/train.tok.")
    return path.with_name(name)


def part_of(prefix: Path, suffix: str) -> Path:
    """Return one of the files of a token file."""
    return prefix.with_name(prefix.name + suffix)


def read_manifest(prefix: Path) -> dict[str, Any] | None:
    """Return what the manifest says, None if there is none, as beside files of the original; raise if it is broken."""
    path = part_of(prefix, MANIFEST)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise DataError(f"{path} cannot be read: make the token file again.") from None
    if not isinstance(manifest, dict) or manifest.get("command") != "tokenize":
        raise DataError(f"{path} is no manifest of `trl-math tokenize`: make the token file again.")
    if manifest.get("format") != FORMAT:
        raise DataError(
            f"{path} has format {manifest.get('format')!r}, and this version of trl-math reads {FORMAT}: make the "
            "token file again."
        )
    if missing := [name for name in NEEDED if name not in manifest]:
        raise DataError(f"{path} does not say {missing[0]}: make the token file again.")
    return manifest


def tokenizer_in(manifest: Mapping[str, Any] | None) -> TokenizerName | None:
    """Return whose ids these are, if the manifest says so."""
    found = (manifest or {}).get("tokenizer")
    return TokenizerName(*(found[field] for field in TokenizerName._fields)) if found else None

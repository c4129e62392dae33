"""Which model is it, exactly: the commit on the hub, or a fingerprint of the weights in a folder.

Samples of two models must never mix because both lay in `runs/dpo`. A name is not enough for that, and reading all
weights is more than a start should cost: a fingerprint reads the configuration and, of every tensor, its beginning,
middle and end, so that training any one of them shows.
"""

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from trl_math.errors import UsageError


WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf")
# What trainers write beside a model under such names.
NOT_WEIGHTS = ("training_args", "optimizer", "scheduler")
PIECE_BYTES = 2**12
# Of files without an index of tensors, so many pieces are read.
NUM_PIECES = 1024


def model_identity(name: str, config: Any = None, revision: str | None = None) -> str:
    """Return the identity of a model or adapter: of a folder its fingerprint, else `name@commit`.

    `config` is the model's transformers config, which knows the commit that it was loaded from.
    """
    folder = Path(name)
    if folder.is_dir():
        return f"sha256:{fingerprint(folder)}"
    return f"{name}@{getattr(config, '_commit_hash', None) or revision or 'main'}"


def weight_files(folder: Path) -> list[Path]:
    """Return the files of weights in a checkpoint folder."""
    files = (path for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES)
    return sorted(path for path in files if path.stem not in NOT_WEIGHTS)


def fingerprint(folder: Path) -> str:
    """Return a short hash of a checkpoint's configuration and weights, wherever the folder lies."""
    sha = hashlib.sha256()
    for name in ("config.json", "adapter_config.json"):
        if (folder / name).is_file():
            sha.update((folder / name).read_bytes())
    for path in weight_files(folder):
        sha.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            for start, end in _tensors(file, path):
                for place in (start, (start + end - PIECE_BYTES) // 2, end - PIECE_BYTES):
                    file.seek(max(place, start))
                    sha.update(file.read(min(PIECE_BYTES, end - start)))
    return sha.hexdigest()[:16]


def _tensors(file: BinaryIO, path: Path) -> list[tuple[int, int]]:
    """Return where tensors begin and end: as the index of a safetensors file says, else evenly cut."""
    size = path.stat().st_size
    if path.suffix != ".safetensors":
        cuts = [size * piece // NUM_PIECES for piece in range(NUM_PIECES + 1)]
        return [(start, end) for start, end in pairwise(cuts) if end > start]
    length = int.from_bytes(file.read(8), "little")
    try:
        index = json.loads(file.read(length)) if length < size else None
        if not isinstance(index, dict):
            raise ValueError("no index")
    except ValueError:
        raise UsageError(f"{path} is no safetensors file, or not a whole one.") from None
    spans = [entry["data_offsets"] for name, entry in sorted(index.items()) if name != "__metadata__"]
    return [(8 + length + start, 8 + length + end) for start, end in spans if end > start]

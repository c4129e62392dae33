"""Where rows come from: the hub, a local file or folder, a generator, or this package. The name alone decides.

    openai/gsm8k                          the Hugging Face hub; `config` and slices such as `train[:100]` work there
    problems.jsonl                        JSON lines, or one JSON list; also .json and .parquet
    multiarith.json                       a data set of Fine-tune-CoT, or the problems of its completions
    train.tok                             rows that were tokenised before; see `token_format.py`
    data/gsm8k                            a folder of such files: those named after the split, else all of them
    reasoning_gym:products?max_digits=2   a generator; see `generators.py`
    embedded:times_tables                 problems that are part of this package; see `embedded_problems.py`
    task:coin_flip?size=2000              one of the tasks of Fine-tune-CoT; see `tasks.py`

Rows come as they are; `problems.to_problems` gives them our columns.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import datasets

from trl_math.data import embedded_problems
from trl_math.data.files import SUFFIXES, load_path
from trl_math.data.generators import PREFIX, load_generator
from trl_math.data.token_format import TOKENS
from trl_math.errors import NotCachedError, UsageError, nearest
from trl_math.files import nearest_path


TASK = "task:"
PREFIXES = (PREFIX, embedded_problems.PREFIX, TASK)

# File names that say nothing about what is in the file.
SPLIT_NAMES = ("train", "test", "validation", "valid", "dev", "data")


def load_source(
    name: str, split: str = "train", config: str | None = None, files: Sequence[str] = ()
) -> datasets.Dataset:
    """Return the rows of one split of a source; see the module for what `name` may be.

    A single file is all there is: `split` must be "train" (the default) or the file's own name. `files`: only these
    files of a repository on the hub, as the split "train".
    """
    path = Path(name).expanduser()
    is_own = name.startswith(PREFIXES)
    is_local = not is_own and (path.exists() or path.suffix in (*SUFFIXES, TOKENS) or name.startswith((".", "/", "~")))
    for setting, value in (("config", config), ("files", files or None)):
        if value is not None and (is_local or ":" in name):
            raise UsageError(f"{setting}={value!r} is for data sets on the hub; {name!r} is none.")
    if name.startswith(PREFIX):
        return load_generator(name, split)
    if name.startswith(embedded_problems.PREFIX):
        return embedded_problems.load_embedded(name, split)
    if name.startswith(TASK):
        from trl_math.data.tasks import load_task  # noqa: PLC0415 - it reads sources itself

        return load_task(name, split)
    if is_local:
        return load_path(path, split)
    if ":" in name:
        raise UsageError(f"Unknown kind of source in {name!r}.{nearest(name.split(':')[0] + ':', PREFIXES)}")
    return _load_hub(name, split, config, files)


def source_stem(name: str) -> str:
    """Return the short name of a source, with which its problem ids begin.

    `openai/gsm8k` and `data/gsm8k/test.jsonl` are `gsm8k` and `gsm8k/test`; a generator is its name.
    """
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix).partition("?")[0]
    path = Path(name)
    stem = path.stem if path.suffix in SUFFIXES else path.name
    return f"{path.parent.name}/{stem}" if stem in SPLIT_NAMES and path.parent.name else stem


def _load_hub(name: str, split: str, config: str | None, files: Sequence[str]) -> datasets.Dataset:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise UsageError(
            f"{name!r} is no file here and cannot be the name of a data set on the hub.{nearest_path(name)}"
        )
    try:
        return datasets.load_dataset(name, config, split=split, data_files=list(files) or None)
    # RuntimeError: the data set is a Python script, which `datasets` no longer runs.
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        # The first line says what is wrong (no network, no such data set, split or config); the rest is its context.
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise NotCachedError(
            f"No file or folder {name!r} is here. Cannot load {name!r} (config {config}, split {split}) from the "
            f"Hugging Face hub either: {reason}. Check the name and the network (is HF_HUB_OFFLINE set?), or give a "
            "local .jsonl, .json or .parquet file or a folder of them."
            f"{nearest_path(name)}"
        ) from error

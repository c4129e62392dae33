"""From the data keys of a recipe to the rows that are trained on and evaluated on."""

import dataclasses
import hashlib
import json
import logging
from pathlib import Path

import datasets

from trl_math.data.problems import to_problems, without_problems
from trl_math.data.prompts import PROMPT_STYLES, to_sft, without_gaps
from trl_math.data.sources import load_source
from trl_math.errors import DataError, UsageError, pick


logger = logging.getLogger(__name__)

# Styles whose rows are not problems: TRL's own formats, and proof steps.
NOT_PROBLEMS = (None, "tactic")

# A few rows without what the style needs (MATH has two empty boxes) are left out and counted; more than this share
# means that the style does not fit the data, which is an error.
MAX_GAPS = 0.01


@dataclasses.dataclass
class DataArguments:
    """What to train on. The first four names are those of TRL's `ScriptArguments`."""

    dataset_name: str | list[str] | None = dataclasses.field(
        default=None,
        metadata={
            "help": "A hub name, a JSONL or Parquet file or folder, `reasoning_gym:<generator>?size=1000&seed=0`, or "
            "a list of these."
        },
    )
    dataset_config: str | None = dataclasses.field(default=None, metadata={"help": "Configuration name on the hub."})
    dataset_train_split: str = dataclasses.field(default="train", metadata={"help": "Split to train on."})
    dataset_test_split: str = dataclasses.field(default="test", metadata={"help": "Split to evaluate on."})
    eval_dataset_name: str | None = dataclasses.field(
        default=None, metadata={"help": "A source to evaluate on, if it is not a split of `dataset_name`."}
    )
    exclude_dataset: str | None = dataclasses.field(
        default=None, metadata={"help": "A source whose problems are removed from the training set."}
    )
    exclude_split: str = dataclasses.field(default="test", metadata={"help": "Split of `exclude_dataset`."})
    prompt_style: str | None = dataclasses.field(
        default=None,
        metadata={"help": "How problems become rows (direct, cot, ...); unset for rows that TRL reads as they are."},
    )
    max_train_rows: int | None = dataclasses.field(
        default=None, metadata={"help": "Train on this many rows only, drawn with the run's seed."}
    )
    max_eval_rows: int | None = dataclasses.field(default=None, metadata={"help": "Evaluate on this many rows only."})

    def __post_init__(self) -> None:
        if self.prompt_style is not None:
            pick("prompt style", self.prompt_style, PROMPT_STYLES)
        for name in ("max_train_rows", "max_eval_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}.")


def load_rows(
    arguments: DataArguments, seed: int, *, evaluates: bool, are_pairs: bool = False
) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """Return the training rows, and the evaluation rows if the recipe evaluates; preference pairs come as they are."""
    if not arguments.dataset_name:
        raise UsageError("Which data? Set dataset_name (a hub name, a JSONL or Parquet file, or reasoning_gym:...).")
    names = [arguments.dataset_name] if isinstance(arguments.dataset_name, str) else arguments.dataset_name
    rows = _read(names, arguments.dataset_train_split, arguments, arguments.dataset_config)
    if arguments.exclude_dataset is not None:
        if arguments.prompt_style in NOT_PROBLEMS:
            raise UsageError("exclude_dataset compares problems, so it needs a prompt_style that reads problems.")
        excluded = _read([arguments.exclude_dataset], arguments.exclude_split, arguments)
        rows, num_removed = without_problems(rows, excluded)
        logger.warning("%d rows are in %s and were left out.", num_removed, arguments.exclude_dataset)
    train = _to_rows(rows, arguments.prompt_style, arguments.max_train_rows, seed, "train", are_pairs)
    if not evaluates:
        if arguments.eval_dataset_name or arguments.max_eval_rows:
            raise UsageError("eval_dataset_name and max_eval_rows need an eval_strategy: steps or epoch.")
        return train, None
    if arguments.eval_dataset_name:
        held_out = _read([arguments.eval_dataset_name], arguments.dataset_test_split, arguments)
    else:
        held_out = _read(names, arguments.dataset_test_split, arguments, arguments.dataset_config)
    return train, _to_rows(held_out, arguments.prompt_style, arguments.max_eval_rows, seed, "eval", are_pairs)


def read_for_style(name: str, split: str, config: str | None, style: str | None) -> datasets.Dataset:
    """Return one split of a source, as problems if the prompt style reads problems."""
    # One file is one split, whatever split would be read of a data set.
    rows = load_source(name, "train" if Path(name).is_file() else split, config)
    return rows if style in NOT_PROBLEMS else to_problems(rows, name)


def digest(rows: datasets.Dataset) -> str:
    """Return a short hash of the rows' content and order, to know them again when a run goes on."""
    sha = hashlib.sha256()
    for row in rows:
        sha.update(json.dumps(row, sort_keys=True, default=str).encode())
    return f"{len(rows)} rows, {sha.hexdigest()[:16]}"


def _read(names: list[str], split: str, arguments: DataArguments, config: str | None = None) -> datasets.Dataset:
    parts = [read_for_style(name, split, config, arguments.prompt_style) for name in names]
    return datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]


def _to_rows(
    rows: datasets.Dataset, style: str | None, limit: int | None, seed: int, name: str, are_pairs: bool
) -> datasets.Dataset:
    if len(rows) == 0:
        raise DataError(f"The {name} data set is empty.")
    if style is not None:
        kept, num_gaps = without_gaps(rows, style)
        if 0 < num_gaps <= MAX_GAPS * len(rows):
            logger.warning("%d rows lack what prompt_style %s needs and were left out.", num_gaps, style)
            rows = kept
    if limit is not None and limit < len(rows):
        rows = rows.shuffle(seed=seed).select(range(limit))
    return rows if are_pairs else to_sft(rows, style)

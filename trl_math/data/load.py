"""From the data keys of a recipe to the rows that are trained on and evaluated on."""

import dataclasses
import logging

import datasets

from trl_math.data.problems import to_problems, without_problems
from trl_math.data.prompts import to_sft, without_gaps
from trl_math.data.sources import load_source
from trl_math.errors import DataError, UsageError


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
        for name in ("max_train_rows", "max_eval_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}.")


def load_rows(
    arguments: DataArguments, seed: int, *, evaluates: bool
) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """Return the training rows, and the evaluation rows if the recipe evaluates."""
    if not arguments.dataset_name:
        raise UsageError("Which data? Set dataset_name (a hub name, a JSONL or Parquet file, or reasoning_gym:...).")
    names = [arguments.dataset_name] if isinstance(arguments.dataset_name, str) else arguments.dataset_name
    rows = _read(names, arguments.dataset_train_split, arguments)
    if arguments.exclude_dataset is not None:
        if arguments.prompt_style in NOT_PROBLEMS:
            raise UsageError("exclude_dataset compares problems, so it needs a prompt_style that reads problems.")
        excluded = _read([arguments.exclude_dataset], arguments.exclude_split, arguments)
        rows, num_removed = without_problems(rows, excluded)
        logger.warning("%d rows are in %s and were left out.", num_removed, arguments.exclude_dataset)
    train = _to_rows(rows, arguments.prompt_style, arguments.max_train_rows, seed, "train")
    if not evaluates:
        return train, None
    names = [arguments.eval_dataset_name] if arguments.eval_dataset_name else names
    held_out = _read(names, arguments.dataset_test_split, arguments)
    return train, _to_rows(held_out, arguments.prompt_style, arguments.max_eval_rows, seed, "eval")


def _read(names: list[str], split: str, arguments: DataArguments) -> datasets.Dataset:
    parts = []
    for name in names:
        rows = load_source(name, split, arguments.dataset_config)
        parts.append(rows if arguments.prompt_style in NOT_PROBLEMS else to_problems(rows, name))
    return datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]


def _to_rows(rows: datasets.Dataset, style: str | None, limit: int | None, seed: int, name: str) -> datasets.Dataset:
    if len(rows) == 0:
        raise DataError(f"The {name} data set is empty.")
    if style is not None:
        kept, num_gaps = without_gaps(rows, style)
        if 0 < num_gaps <= MAX_GAPS * len(rows):
            logger.warning("%d rows lack what prompt_style %s needs and were left out.", num_gaps, style)
            rows = kept
    if limit is not None and limit < len(rows):
        rows = rows.shuffle(seed=seed).select(range(limit))
    return to_sft(rows, style)

"""From the data keys of a recipe to the rows that are trained on and evaluated on."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from trl_math.data.columns import COLLECTED_MARK
from trl_math.data.difficulty_schedule import (
    ERR_RATE,
    LEVEL_COLUMN,
    PASS_RATE,
    RATE_COLUMNS,
    DifficultySchedule,
    Scale,
    copy_rows,
    read_pass_rates,
    weight_rows,
)
from trl_math.data.matched_control import MATCHED_BY, control_rows
from trl_math.data.problems import to_problems, without_problems
from trl_math.data.prompts import PROMPT_STYLES, to_sft, without_gaps
from trl_math.data.sources import load_source
from trl_math.data.token_rows import content_digest, origin_of
from trl_math.errors import DataError, UsageError, pick


logger = logging.getLogger(__name__)

# Styles whose rows are not problems: TRL's own formats, and proof steps.
NOT_PROBLEMS = (None, "tactic")

# What rows bring of their problem's difficulty, beside the columns that problems and training rows keep anyway.
COUNTS = ("num_samples", "num_correct")
DIFFICULTY_COLUMNS = (*RATE_COLUMNS, LEVEL_COLUMN, *COUNTS)

# What says whether a sample of a row's problem is right.
GOLD_COLUMNS = ("answer", "answer_kind", "choices")

WhichTrain = Callable[[datasets.Dataset], np.ndarray]

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
    dataset_test_split: str | None = dataclasses.field(
        default=None,
        metadata={
            "help": "Split to evaluate on; unset: test. With eval_generation_data, sft evaluates by asking alone "
            "unless rows are named too."
        },
    )
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
    difficulty_schedule: str | None = dataclasses.field(
        default=None,
        metadata={
            "help": "By its problem's pass rate a row weighs more or less, or stands several times: linear, power, "
            "bell, focal, coverage, band, levels, easiest_half or uniform (sft only; docs/objectives.md)."
        },
    )
    difficulty_schedule_params: dict[str, Any] | str | None = dataclasses.field(
        default=None, metadata={"help": "Parameters of the schedule, such as `{base: 1, factor: 2}` for `levels`."}
    )
    difficulty_as: str = dataclasses.field(
        default="weights",
        metadata={"help": "weights: in the loss, with mean 1. copies: so many of each row (training rows only)."},
    )
    difficulty_rounding: str = dataclasses.field(
        default="systematic",
        metadata={
            "help": "Copies of a row whose value is no whole number: systematic (the number below or above, drawn "
            "with the run's seed, in sum the sum of the values) or floor (as published)."
        },
    )
    difficulty_mean_copies: float | None = dataclasses.field(
        default=None,
        metadata={"help": "Scale the schedule so that a row has this many copies on average; 1 keeps the budget."},
    )
    difficulty_column: str = dataclasses.field(
        default=PASS_RATE,
        metadata={"help": f"Where pass rates p are: {', '.join(RATE_COLUMNS)}; the last two hold 1 - p."},
    )
    difficulty_per_source: bool = dataclasses.field(
        default=False, metadata={"help": "Mean 1 (or the same mean number of copies) within each `source`."}
    )
    difficulty_exempt_sources: list[str] | None = dataclasses.field(
        default=None, metadata={"help": "Sources whose rows keep weight 1, or one copy, whatever their pass rates."}
    )

    matched_control: bool = dataclasses.field(
        default=False,
        metadata={
            "help": "Train the control of difficulty_schedule: as many rows as it leaves, drawn uniformly with the "
            "run's seed, without its weights (docs/rounds.md)."
        },
    )
    matched_control_by: str = dataclasses.field(
        default="rows",
        metadata={"help": "What the control has as much of: rows (the same optimiser steps) or characters."},
    )

    def __post_init__(self) -> None:
        if self.prompt_style is not None:
            pick("prompt style", self.prompt_style, PROMPT_STYLES)
        for name in ("max_train_rows", "max_eval_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}.")
        pick("difficulty_column", self.difficulty_column, RATE_COLUMNS)
        pick("matched_control_by", self.matched_control_by, MATCHED_BY)
        if self.matched_control and self.difficulty_schedule is None:
            raise UsageError("matched_control is the control of a difficulty schedule: set difficulty_schedule too.")
        if self.matched_control_by != "rows" and not self.matched_control:
            raise UsageError("matched_control_by is about a control: set matched_control: true.")
        self.schedule()

    @property
    def eval_split(self) -> str:
        """The split that evaluation rows are of."""
        return self.dataset_test_split or "test"

    @property
    def names_eval_rows(self) -> bool:
        """Whether the settings say which rows to evaluate on."""
        given = (self.eval_dataset_name, self.dataset_test_split, self.max_eval_rows)
        return any(value is not None for value in given)

    def _schedule_params(self) -> dict[str, Any]:
        from trl_math.losses.parameters import as_mapping  # noqa: PLC0415 - torch

        return as_mapping("difficulty_schedule_params", self.difficulty_schedule_params) or {}

    def schedule(self) -> DifficultySchedule | None:
        """Return the difficulty schedule that the settings ask for; raise for settings that cannot work."""
        if self.difficulty_schedule is None:
            for field in dataclasses.fields(self):
                about_schedule = field.name.startswith("difficulty_") and field.name != "difficulty_column"
                if about_schedule and getattr(self, field.name) != field.default:
                    raise UsageError(f"{field.name} is given, and no schedule: set difficulty_schedule too.")
            return None
        return DifficultySchedule(
            self.difficulty_schedule,
            self._schedule_params(),
            form=self.difficulty_as,
            rounding=self.difficulty_rounding,
            mean_copies=self.difficulty_mean_copies,
            column=self.difficulty_column,
            per_source=self.difficulty_per_source,
            exempt_sources=tuple(self.difficulty_exempt_sources or ()),
        )


def load_rows(
    arguments: DataArguments,
    seed: int,
    *,
    evaluates: bool,
    are_pairs: bool = False,
    keeps_answers: bool = False,
    which_train: WhichTrain | None = None,
) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """Return the training rows, and the evaluation rows if the recipe evaluates; preference pairs come as they are.

    Args:
        arguments: The settings.
        seed: What is drawn follows from it.
        evaluates: Whether the recipe evaluates.
        are_pairs: Rows are preference pairs.
        keeps_answers: Training rows keep their problem's gold answer, where problems became rows.
        which_train: Tells which of some rows the trainer does not leave out; a matched control is drawn from these.
    """
    if not arguments.dataset_name:
        raise UsageError("Which data? Set dataset_name (a hub name, a JSONL or Parquet file, or reasoning_gym:...).")
    names = [arguments.dataset_name] if isinstance(arguments.dataset_name, str) else arguments.dataset_name
    rows = _read(names, arguments.dataset_train_split, arguments, arguments.dataset_config)
    if arguments.exclude_dataset is not None:
        if arguments.prompt_style in NOT_PROBLEMS:
            raise UsageError("exclude_dataset compares problems, so it needs a prompt_style that reads problems.")
        excluded = read_for_style(arguments.exclude_dataset, arguments.exclude_split, None, arguments.prompt_style)
        rows, num_removed = without_problems(rows, excluded)
        logger.warning("%d rows are in %s and were left out.", num_removed, arguments.exclude_dataset)
    if are_pairs and (arguments.difficulty_schedule is not None or arguments.difficulty_column != PASS_RATE):
        raise UsageError(
            "difficulty_schedule is about SFT rows: pairs have pair_weight, beta_schedule, margin_schedule."
        )
    rows = _chosen(rows, arguments, arguments.max_train_rows, seed, "train")
    carried = (*COUNTS, ERR_RATE, *(GOLD_COLUMNS if keeps_answers else ()))
    train, scale = (rows, None) if are_pairs else _scheduled(rows, arguments, seed, carried, which_train)
    if not evaluates:
        if arguments.eval_dataset_name or arguments.max_eval_rows:
            raise UsageError("eval_dataset_name and max_eval_rows need an eval_strategy: steps or epoch.")
        return train, None
    if arguments.eval_dataset_name:
        held_out = _read([arguments.eval_dataset_name], arguments.eval_split, arguments)
    else:
        _check_has_split(names, arguments.eval_split)
        held_out = _read(names, arguments.eval_split, arguments, arguments.dataset_config)
    held_out = _chosen(held_out, arguments, arguments.max_eval_rows, seed, "eval")
    if scale is not None:
        held_out = _weighted_alike(held_out, arguments, scale)
    return train, held_out if are_pairs else _to_sft(held_out, arguments.prompt_style, COUNTS)


def _check_has_split(names: list[str], split: str) -> None:
    """Raise if one of these is a single file: what is evaluated would be what was trained on."""
    for name in names:
        if Path(name).is_file() and split not in ("train", Path(name).stem):
            raise UsageError(
                f"{name} is one file, without a split {split!r} to evaluate on: set eval_dataset_name (rows, for "
                "their loss), eval_generation_data (problems to ask), or eval_strategy: no. (dataset_test_split: "
                "train evaluates on the rows that are trained on.)"
            )


def read_for_style(name: str, split: str, config: str | None, style: str | None) -> datasets.Dataset:
    """Return one split of a source, as problems if the prompt style reads problems."""
    return in_style(load_split(name, split, config), name, style)


def digest(rows: datasets.Dataset) -> str:
    """Return a short hash of the rows' content and order, to know them again when a run goes on."""
    if (of_file := content_digest(rows)) is not None:
        return f"{len(rows)} rows, {of_file}"
    sha = hashlib.sha256()
    for row in rows:
        sha.update(json.dumps(row, sort_keys=True, default=str).encode())
    return f"{len(rows)} rows, {sha.hexdigest()[:16]}"


def _read(names: list[str], split: str, arguments: DataArguments, config: str | None = None) -> datasets.Dataset:
    style, parts = arguments.prompt_style, []
    for name in names:
        rows = load_split(name, split, config)
        if style is not None and {*COLLECTED_MARK} <= {*rows.column_names}:
            raise refused_style(name, style)
        if origin_of(rows) is not None:
            _check_tokens(name, style, names)
        parts.append(in_style(rows, name, style))
    return datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]


def _check_tokens(name: str, style: str | None, names: list[str]) -> None:
    """Raise for what cannot be asked of rows that are tokens already."""
    if style is not None:
        raise UsageError(
            f"{name} has tokens, in a style of their own: leave prompt_style out, and give it to `trl-math tokenize`."
        )
    if len(names) > 1:
        raise UsageError(
            f"{name} has tokens, which are not read together with other rows: make one file of all with "
            f"`trl-math tokenize --data {' '.join(names)}`."
        )


def refused_style(where: str, style: str) -> DataError:
    """Return the error for collected answers that a style would replace by the solutions of their problems."""
    return DataError(
        f"The rows of {where} have the answers that were collected, in the style they were collected for, and "
        f"prompt_style: {style} would put the data's own solutions in their place: leave prompt_style out, and set "
        f"row_style in `trl-math collect` for rows in another style."
    )


def load_split(name: str, split: str, config: str | None) -> datasets.Dataset:
    """Return the rows of one split of a source as they are."""
    # One file is one split, whatever split would be read of a data set.
    return load_source(name, "train" if Path(name).is_file() else split, config)


def in_style(rows: datasets.Dataset, name: str, style: str | None) -> datasets.Dataset:
    """Return rows of a source as problems, if the prompt style reads problems."""
    return rows if style in NOT_PROBLEMS else _with_columns(to_problems(rows, name), rows, DIFFICULTY_COLUMNS)


def _chosen(
    rows: datasets.Dataset, arguments: DataArguments, limit: int | None, seed: int, name: str
) -> datasets.Dataset:
    """Return the rows without those that lack what the style needs, and not more of them than asked for."""
    style = arguments.prompt_style
    if len(rows) == 0:
        raise DataError(f"The {name} data set is empty.")
    if style is not None:
        kept, num_gaps = without_gaps(rows, style)
        if 0 < num_gaps <= MAX_GAPS * len(rows):
            logger.warning("%d rows lack what prompt_style %s needs and were left out.", num_gaps, style)
            rows = kept
    if limit is not None and limit < len(rows):
        rows = rows.shuffle(seed=seed).select(range(limit))
    if arguments.difficulty_column != PASS_RATE and PASS_RATE not in rows.column_names:
        if name == "eval" and arguments.difficulty_column not in rows.column_names:
            return rows
        rates = read_pass_rates(rows, arguments.difficulty_column, f"difficulty_column: {arguments.difficulty_column}")
        rows = rows.add_column(PASS_RATE, rates.tolist())
    return rows


def _scheduled(
    rows: datasets.Dataset,
    arguments: DataArguments,
    seed: int,
    carried: tuple[str, ...],
    which_train: WhichTrain | None,
) -> tuple[datasets.Dataset, Scale | None]:
    """Return the SFT rows to train on, weighted or copied by difficulty, and the scale of their weights."""
    schedule, style = arguments.schedule(), arguments.prompt_style
    if schedule is None:
        return _to_sft(rows, style, carried), None
    if arguments.matched_control:
        texts = _to_sft(rows, style, carried)
        is_trained = which_train(texts) if which_train is not None else None
        return control_rows(rows, texts, schedule, seed, arguments.matched_control_by, is_trained), None
    if schedule.form == "copies":
        return _to_sft(copy_rows(rows, schedule, seed), style, carried), None
    weighted, scale = weight_rows(rows, schedule)
    return _to_sft(weighted, style, carried), scale


def _weighted_alike(rows: datasets.Dataset, arguments: DataArguments, scale: Scale) -> datasets.Dataset:
    """Return evaluation rows with the weights that training rows of their pass rates have, if they have pass rates."""
    if arguments.difficulty_column not in rows.column_names:
        logger.warning("The eval data set has no column %s: its rows weigh the same.", arguments.difficulty_column)
        return rows
    schedule = arguments.schedule()
    assert schedule is not None
    return weight_rows(rows, schedule, scale)[0]


def _to_sft(rows: datasets.Dataset, style: str | None, carried: tuple[str, ...]) -> datasets.Dataset:
    return _with_columns(to_sft(rows, style), rows, carried)


def _with_columns(made: datasets.Dataset, rows: datasets.Dataset, names: tuple[str, ...]) -> datasets.Dataset:
    """Return the rows made of `rows`, one of each, with those of these columns that were lost on the way."""
    for name in names:
        if name in rows.column_names and name not in made.column_names:
            made = made.add_column(name, list(rows[name]))
    return made

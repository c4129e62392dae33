"""What a row brings to the loss besides its tokens: its weight, and F(N, p) of its problem's pass rate.

Weights are relative. The loss is a mean over trained tokens (over answers or steps with `coverage_reduction: mean`),
and weights are divided by their own mean over the same units of the training rows. The loss of all rows together is
then that of a data set in which each row stands as often as its weight says, whatever unit weights were given in.
Denominators stay TRL's, so nothing depends on how a step is cut up; and a batch of heavy rows moves the model more
than one of light rows, which a mean within each batch would undo. Evaluation rows are divided by the same number.

Both numbers become columns with one value for each token, which packing, padding and padding-free batches treat as
they treat the labels.
"""

import logging
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value

from trl_math.data.difficulty_schedule import PASS_RATE, nothing_left, own_weights, read_pass_rates
from trl_math.errors import DataError
from trl_math.losses import schedule_values
from trl_math.losses.coverage_estimates import estimate
from trl_math.trainers.screening_rows import check_gold_answers
from trl_math.trainers.segments import COVERAGE_WEIGHTS, STEP_IDS, TOKEN_WEIGHTS


logger = logging.getLogger(__name__)

COUNTS = ("num_correct", "num_samples")
# Where no row has a larger F(N, p), gradients are a thousandth of cross-entropy's: nothing is trained.
SMALLEST_WEIGHT = 1e-3


def usable_rows(dataset: Dataset, config: Any, name: str, *, is_training: bool) -> Dataset:
    """Return the rows that their weights and pass rates leave; raise if these are wrong, or leave none.

    Left out are rows of weight 0, and of the training rows those whose problems are solved often enough.
    """
    weights = own_weights(dataset, name)
    if weights is not None and (weights == 0).any():
        logger.warning("%d rows of the %s data set have weight 0 and are left out.", (weights == 0).sum(), name)
        dataset = dataset.select(np.flatnonzero(weights))
    if config.coverage_from != "pass_rate":
        return dataset
    if is_training and config.is_screened_live:
        if _has_rates(dataset):
            logger.warning("The pass rates of the %s data set are not read: screening: live estimates its own.", name)
        check_gold_answers(dataset)
        return dataset
    if not is_training and not _has_rates(dataset):
        logger.warning("The %s data set has no pass rates: its rows count in full.", name)
        return dataset
    rates = pass_rates_of(dataset, config)
    factors = np.array(coverage_factors(dataset, config, rates))
    if not is_training:
        return dataset
    is_open = rates < config.gate
    if not is_open.any() or factors[is_open].max() < SMALLEST_WEIGHT:
        asked = f"max_pass_rate: {config.max_pass_rate:g}, " if config.max_pass_rate is not None else ""
        raise nothing_left(f"{asked}num_attempts: {config.num_attempts:g} leave no row with a weight", rates)
    if config.unscreened_steps or is_open.all():  # with the former, rows are left out while training
        return dataset
    logger.warning(
        "%d of %d rows have a pass rate of max_pass_rate (%g) or more and are left out.",
        (~is_open).sum(),
        len(rates),
        config.max_pass_rate,
    )
    return dataset.select(np.flatnonzero(is_open))


def with_token_columns(
    rows: Dataset, config: Any, name: str, scale: float | None, *, reads_rates: bool = True
) -> tuple[Dataset, float | None]:
    """Return tokenised rows with the per-token columns that they need, and what weights were divided by.

    Where all weights come out as 1 there is no column: rows count as without weights. `reads_rates`: F(N, p) is of the
    rows' own pass rates, and not estimated on the way.
    """
    columns: dict[str, np.ndarray] = {}
    weights = own_weights(rows, name)
    if weights is not None:
        scale = weight_scale(rows, weights, config) if scale is None else scale
        weights = weights / scale
        if (weights != 1).any():
            columns[TOKEN_WEIGHTS] = weights
    weighs_by_rates = reads_rates and config.coverage_from == "pass_rate" and config.num_attempts != 1
    if weighs_by_rates and _has_rates(rows):
        columns[COVERAGE_WEIGHTS] = np.array(coverage_factors(rows, config, pass_rates_of(rows, config)))
    if not columns:
        return rows, scale

    def spread(row: dict[str, Any], index: int) -> dict[str, list[float]]:
        return {column: [float(values[index])] * len(row["input_ids"]) for column, values in columns.items()}

    features = Features({**rows.features, **{column: List(Value("float32")) for column in columns}})
    return rows.map(spread, with_indices=True, features=features, num_proc=config.dataset_num_proc), scale


def weight_scale(rows: Dataset, weights: np.ndarray, config: Any) -> float:
    """Return the mean of the weights over what the loss is a mean of; where all are the same, that number itself."""
    if (weights == weights[0]).all():
        return float(weights[0])
    columns = [column for column in ("labels", STEP_IDS) if column in rows.column_names]
    units = np.array([_num_units(row, config) for row in rows.select_columns(columns)], dtype=np.float64)
    if not (weights * units).sum() > 0:
        raise DataError(
            f"max_length {config.max_length} leaves no token to train on in any row with a weight above 0: raise it."
        )
    return float((weights * units).sum() / units.sum())


def coverage_factors(rows: Dataset, config: Any, rates: np.ndarray) -> list[float]:
    """Return F(N, p) of each row's problem, by the configured estimator."""
    if config.column_estimator == "plug_in":
        return schedule_values("coverage", rates.tolist(), {"num_attempts": config.num_attempts})
    asking = f"coverage_estimator: {config.column_estimator}"
    correct, samples = _counts(rows, asking)
    too_few = np.flatnonzero(samples < config.num_attempts)
    if config.column_estimator == "u_statistic" and len(too_few):
        raise DataError(
            f"{asking} needs num_attempts ({config.num_attempts:g}) samples of every problem, and {len(too_few)} of "
            f"{len(rows)} rows have fewer: the first is row {too_few[0]} with {samples[too_few[0]]:g}. Use "
            "posterior_mean."
        )
    return estimate(config.column_estimator, correct, samples, config.num_attempts).tolist()


def pass_rates_of(rows: Dataset, config: Any) -> np.ndarray:
    """Return the rows' pass rates: their column, else the share of their right samples."""
    asking = "coverage_from: pass_rate"
    if PASS_RATE not in rows.column_names and set(COUNTS) <= set(rows.column_names):
        correct, samples = _counts(rows, asking)
        return correct / samples
    return read_pass_rates(rows, PASS_RATE, asking)


def _has_rates(rows: Dataset) -> bool:
    """Whether rows bring pass rates: training rows must, evaluation rows may."""
    return PASS_RATE in rows.column_names or set(COUNTS) <= set(rows.column_names)


def _counts(rows: Dataset, asking: str) -> tuple[np.ndarray, np.ndarray]:
    missing = [column for column in COUNTS if column not in rows.column_names]
    if missing:
        raise DataError(
            f"{asking} needs the columns num_correct and num_samples; there is no {' and no '.join(missing)}."
        )
    pairs = list(zip(*(rows[column] for column in COUNTS), strict=True))
    wrong = [index for index, (right, total) in enumerate(pairs) if not _are_counts(right, total)]
    if wrong:
        raise DataError(
            f"{asking} needs num_correct from 0 to num_samples in every row, and {len(wrong)} of {len(pairs)} have "
            f"others: the first is row {wrong[0]} with {pairs[wrong[0]][0]!r} of {pairs[wrong[0]][1]!r}."
        )
    counts = np.array(pairs, dtype=np.float64)
    return counts[:, 0], counts[:, 1]


def _are_counts(right: Any, total: Any) -> bool:
    are_whole = all(isinstance(count, int | float) and count == round(count) for count in (right, total))
    return are_whole and 0 <= right <= total and total >= 1


def _num_units(row: dict[str, Any], config: Any) -> int:
    """Return how many of what the loss is a mean of a row has: trained tokens, or answers or steps with some."""
    kept = _kept(config)
    is_trained = np.asarray(row["labels"][kept])[1:] != -100  # the first token of a row is never predicted
    if config.objective != "coverage" or config.coverage_reduction == "sum" or config.coverage_level == "token":
        return int(is_trained.sum())
    if config.coverage_level == "sequence":
        return int(is_trained.any())
    return len(np.unique(np.asarray(row[STEP_IDS][kept])[1:][is_trained]))


def _kept(config: Any) -> slice:
    """Return what TRL's truncation leaves of a row."""
    if config.max_length is None or (config.packing and config.packing_strategy != "bfd"):
        return slice(None)
    is_end = not config.packing and config.truncation_mode == "keep_end"
    return slice(-config.max_length, None) if is_end else slice(None, config.max_length)

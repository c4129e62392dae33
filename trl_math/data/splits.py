"""Which problems train and which test: pure functions of row numbers, groups and seeds.

    random_split(600, 0.3, seed=0)                    the published rule, by `numpy.random.RandomState`
    group_split(groups, 0.3, seed=0)                  each group on one side
    random_folds(600, 5, seed=0), group_folds(...)    the number of the fold in which each row tests

Random splits depend on the order of rows, as the published ones do. What is drawn by groups does not: groups are taken
in the order of their names, so that a permutation of the rows permutes the result and changes nothing else.
"""

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from trl_math.errors import DataError, UsageError
from trl_math.wording import counted


Groups = Sequence[str]


class Split(NamedTuple):
    """The numbers of the rows on each side, in ascending order."""

    train: list[int]
    validation: list[int]
    test: list[int]


def random_split(num_rows: int, test_share: float, *, seed: int, validation_share: float = 0.0) -> Split:
    """Return a split of rows one by one: of a permutation the first train, the last test, as published.

    Those for validation, if any, are the last of the ones that would train, so that the test side stays as it is.
    """
    check_shares(test_share, validation_share)
    order = np.random.RandomState(seed).permutation(num_rows).tolist()
    num_rest = round(num_rows * (1 - test_share))
    num_train = num_rest - round(num_rows * validation_share)
    split = Split(sorted(order[:num_train]), sorted(order[num_train:num_rest]), sorted(order[num_rest:]))
    return checked(split, counted(num_rows, "problem"), validation_share)


def group_split(
    groups: Groups, test_share: float, *, seed: int, validation_share: float = 0.0, only_train: Collection[str] = ()
) -> Split:
    """Return a split of whole groups, whose sides are as near to their shares as groups drawn at random come.

    Args:
        groups: The name of each row's group.
        test_share: Of the rows.
        seed: Of the draw.
        validation_share: Of the rows, too.
        only_train: Groups that neither test nor validate.
    """
    check_shares(test_share, validation_share)
    _check_several(groups)
    sizes = Counter(groups)
    free = {name: size for name, size in sizes.items() if name not in only_train}
    random = np.random.RandomState(seed)
    test = _drawn(free, len(groups) * test_share, random, leaves=len(free) == len(sizes))
    rest = {name: size for name, size in free.items() if name not in test}
    leaves = len(rest) + len(test) == len(sizes)
    validation = _drawn(rest, len(groups) * validation_share, random, leaves=leaves) if validation_share else set()
    return checked(_sides(groups, test, validation), _amount(groups), validation_share)


def random_folds(num_rows: int, num_folds: int, *, seed: int) -> list[int]:
    """Return the fold, from 0, in which each row tests; folds differ by one row at most."""
    check_folds(num_folds)
    if num_rows < num_folds:
        raise DataError(
            f"{counted(num_rows, 'problem')} cannot be divided into {num_folds:,} folds: ask for fewer folds."
        )
    order = np.random.RandomState(seed).permutation(num_rows)
    folds = np.empty(num_rows, dtype=int)
    for number, rows in enumerate(np.array_split(order, num_folds)):
        folds[rows] = number
    return folds.tolist()


def group_folds(groups: Groups, num_folds: int, *, seed: int) -> list[int]:
    """Return the fold, from 0, in which each row tests, with whole groups in one fold and folds of about one size.

    The largest groups are placed first, each into the fold that is smallest by then; equal ones in a drawn order.
    """
    check_folds(num_folds)
    sizes = Counter(groups)
    if len(sizes) < num_folds:
        raise DataError(f"{_amount(groups)} cannot be divided into {num_folds:,} folds: ask for fewer folds.")
    filled = [0] * num_folds
    fold_of: dict[str, int] = {}
    for name in sorted(_shuffled(sizes, np.random.RandomState(seed)), key=lambda name: -sizes[name]):
        fold_of[name] = filled.index(min(filled))
        filled[fold_of[name]] += sizes[name]
    return [fold_of[name] for name in groups]


def fold_split(
    folds: Sequence[int], fold: int, *, seed: int, validation_share: float = 0.0, groups: Groups | None = None
) -> Split:
    """Return the split in which one fold tests; `groups`: those for validation are whole ones."""
    test = [row for row, number in enumerate(folds) if number == fold]
    rest = [row for row, number in enumerate(folds) if number != fold]
    number = len(folds) * validation_share
    random = np.random.RandomState(seed)
    if groups is None:
        order = random.permutation(len(rest)).tolist()
        chosen = {rest[place] for place in order[len(rest) - round(number) :]}
    else:
        sizes = Counter(groups[row] for row in rest)
        drawn = _drawn(sizes, number, random) if validation_share else set()
        chosen = {row for row in rest if groups[row] in drawn}
    split = Split([row for row in rest if row not in chosen], sorted(chosen), test)
    return checked(split, f"{counted(len(folds), 'problem')} in {max(folds) + 1:,} folds", validation_share)


def check_shares(test_share: float, validation_share: float) -> None:
    """Raise for shares with which a side is empty whatever the rows are."""
    if not 0 < test_share < 1:
        raise UsageError(f"test_share must be above 0 and below 1, got {test_share}: both sides need problems.")
    if not 0 <= validation_share < 1 - test_share:
        raise UsageError(
            f"validation_share must be 0 or above and leave some to train on beside test_share {test_share}, got "
            f"{validation_share}."
        )


def check_folds(num_folds: int) -> None:
    if num_folds < 2:
        raise UsageError(f"folds must be at least 2, got {num_folds}.")


def checked(split: Split, amount: str, validation_share: float = 0.0) -> Split:
    """Return the split, or raise if a side of it is empty; `amount` says of how much it is."""
    wanted = {"train": split.train, "test": split.test} | (
        {"validation": split.validation} if validation_share else {}
    )
    empty = [name for name, rows in wanted.items() if not rows]
    if empty:
        sizes = ", ".join(f"{name} {len(rows):,}" for name, rows in wanted.items())
        raise DataError(
            f"{amount} leave {' and '.join(empty)} empty ({sizes}): choose other shares, or give more problems."
        )
    return split


def _check_several(groups: Groups) -> None:
    if len(names := Counter(groups)) == 1:
        [(name, number)] = names.items()
        raise DataError(
            f"All of {counted(number, 'problem')} is one template ({name:.80}{'...' if len(name) > 80 else ''}), so a "
            "side would be empty: split them at random (by: random)."
        )


def _drawn(sizes: Mapping[str, int], wanted: float, random: np.random.RandomState, *, leaves: bool = True) -> set[str]:
    """Return groups whose rows come as near to a number as groups drawn in turn do; at least one, if there are any.

    `leaves`: not all of them.
    """
    chosen: set[str] = set()
    number = 0
    for name in _shuffled(sizes, random):
        if abs(number + sizes[name] - wanted) < abs(number - wanted):
            chosen.add(name)
            number += sizes[name]
    if not chosen and sizes:
        chosen = {min(sizes, key=lambda name: (sizes[name], name))}
    if leaves and len(chosen) == len(sizes):
        chosen.discard(max(sizes, key=lambda name: (sizes[name], name)))
    return chosen


def _shuffled(names: Collection[str], random: np.random.RandomState) -> list[str]:
    ordered = sorted(names)
    return [ordered[place] for place in random.permutation(len(ordered))]


def _sides(groups: Sequence[Hashable], test: Collection[Hashable], validation: Collection[Hashable]) -> Split:
    sides: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for row, name in enumerate(groups):
        sides["test" if name in test else "validation" if name in validation else "train"].append(row)
    return Split(**sides)


def _amount(groups: Groups) -> str:
    return f"{counted(len(groups), 'problem')} of {counted(len(set(groups)), 'template')}"

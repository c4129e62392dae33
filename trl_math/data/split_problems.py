"""Problems divided as the settings of a split say, with what is known of the result."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from trl_math.data.columns import SPLIT
from trl_math.data.problems import normalised
from trl_math.data.split_settings import TEMPLATES, SplitSettings
from trl_math.data.splits import (
    Split,
    checked,
    fold_split,
    group_folds,
    group_split,
    random_folds,
    random_split,
)
from trl_math.errors import DataError
from trl_math.wording import counted


Row = Mapping[str, Any]
SIDES = ("train", "validation", "test")
NUM_LARGEST = 5


class Sides(NamedTuple):
    """The problems on each side; a side that was not asked for is empty."""

    train: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    test: list[dict[str, Any]]
    facts: dict[str, Any]
    notes: list[str]


def split_problems(rows: Sequence[Row], settings: SplitSettings, exemplars: Iterable[str] = ()) -> Sides:
    """Return the sides of a split that is drawn, at random or by templates.

    `exemplars`: the texts of problems that prompts show. What tests or validates is none of them, and with templates
    none of theirs; they train.
    """
    shown = {normalised(text) for text in exemplars}
    if settings.by == "random":
        split, num_shown = _without_shown(_random(len(rows), settings), rows, shown, settings.validation_share)
        facts: dict[str, Any] = {}
        kept = [_row(row) for row in rows]
    else:
        of = TEMPLATES[settings.template]
        templates = _templates(rows, of)
        names = {
            template for row, template in zip(rows, templates, strict=True) if normalised(row["problem"]) in shown
        }
        num_shown = sum(template in names for template in templates)
        split = _by_templates(templates, settings, names)
        facts = _template_facts(rows, templates, split)
        kept = [_row(row) | {"template": template} for row, template in zip(rows, templates, strict=True)]
    return _sides(kept, split, settings, facts, num_shown)


def official_sides(
    sides: Mapping[str, Sequence[Row]], settings: SplitSettings, exemplars: Iterable[str] = ()
) -> Sides:
    """Return the sides of a split that the set itself has; `sides`: train, test, and validation if it is one of them.

    The test side stays as it is but for problems that prompts show, which are left out. With `validation_share`, that
    share of what trains validates instead.
    """
    shown = {normalised(text) for text in exemplars}
    rows = [row for name in SIDES for row in sides.get(name, ())]
    bounds = np.cumsum([0, *(len(sides.get(name, ())) for name in SIDES)]).tolist()
    train, validation, test = (list(range(low, high)) for low, high in pairwise(bounds))
    if settings.validation_share:
        order = np.random.RandomState(settings.seed).permutation(len(train)).tolist()
        number = round(len(train) * settings.validation_share)
        validation = sorted(order[len(train) - number :])
        train = sorted(order[: len(train) - number])
    kept = [[row for row in side if normalised(rows[row]["problem"]) not in shown] for side in (validation, test)]
    num_shown = len(validation) + len(test) - sum(map(len, kept))
    amount = f"{counted(len(rows), 'problem')} of an official split"
    split = checked(Split(train, *kept), amount, settings.validation_share)
    return _sides([_row(row) for row in rows], split, settings, {}, num_shown)


def _random(num_rows: int, settings: SplitSettings) -> Split:
    seed, share = settings.seed, settings.validation_share
    if settings.folds is None:
        return random_split(num_rows, settings.share_of_test, seed=seed, validation_share=share)
    assert settings.fold is not None
    folds = random_folds(num_rows, settings.folds, seed=seed)
    return fold_split(folds, settings.fold, seed=seed, validation_share=share)


def _by_templates(templates: Sequence[str], settings: SplitSettings, only_train: set[str]) -> Split:
    seed, share = settings.seed, settings.validation_share
    if settings.folds is None:
        return group_split(templates, settings.share_of_test, seed=seed, validation_share=share, only_train=only_train)
    assert settings.fold is not None
    folds = group_folds(templates, settings.folds, seed=seed)
    split = fold_split(folds, settings.fold, seed=seed, validation_share=share, groups=templates)
    shown = [row for row, template in enumerate(templates) if template in only_train]
    return _moved(split, shown, len(templates), share)


def _without_shown(split: Split, rows: Sequence[Row], shown: set[str], validation_share: float) -> tuple[Split, int]:
    """Return the split with problems that prompts show among those that train, and how many of them there are."""
    found = [place for place, row in enumerate(rows) if shown and normalised(row["problem"]) in shown]
    return _moved(split, found, len(rows), validation_share), len(found)


def _moved(split: Split, places: Sequence[int], num_rows: int, validation_share: float) -> Split:
    if not places:
        return split
    moved = set(places)
    validation, test = ([row for row in side if row not in moved] for side in split[1:])
    train = sorted({*split.train, *moved})
    what = f"{counted(num_rows, 'problem')}, {len(moved):,} of which prompts show or are of their templates,"
    return checked(Split(train, validation, test), what, validation_share)


def _templates(rows: Sequence[Row], of: Callable[[str], str]) -> list[str]:
    """Return the template of each row; copies of one problem, however they are spelled, have that of the first."""
    first: dict[str, str] = {}
    templates = [of(row["problem"]) for row in rows]
    joined: dict[str, str] = {}
    for row, template in zip(rows, templates, strict=True):
        name = first.setdefault(normalised(row["problem"]), template)
        low, high = sorted((_root(joined, name), _root(joined, template)))
        if low != high:
            joined[high] = low
    return [_root(joined, template) for template in templates]


def _root(joined: Mapping[str, str], name: str) -> str:
    while name in joined:
        name = joined[name]
    return name


def _template_facts(rows: Sequence[Row], templates: Sequence[str], split: Split) -> dict[str, Any]:
    sizes = Counter(templates)
    example = {template: row["problem"] for row, template in zip(reversed(rows), reversed(templates), strict=True)}
    largest = sorted(sizes, key=lambda template: (-sizes[template], template))[:NUM_LARGEST]
    return {
        "num_templates": len(sizes),
        "num_templates_of": {name: len({templates[row] for row in side}) for name, side in split._asdict().items()},
        "largest": [{"template": name, "num_problems": sizes[name], "problem": example[name]} for name in largest],
    }


def _sides(
    rows: Sequence[dict[str, Any]], split: Split, settings: SplitSettings, facts: Mapping[str, Any], num_shown: int
) -> Sides:
    train, notes = split.train, []
    if settings.max_train is not None and settings.max_train > len(train):
        notes.append(f"max_train is {settings.max_train:,}, and there are {len(train):,} to train on: all of them do.")
    elif settings.max_train is not None:
        order = np.random.RandomState(settings.seed).permutation(len(train))
        train = sorted(train[place] for place in order[: settings.max_train])
    sides = {"train": train, "validation": split.validation, "test": split.test}
    texts = {name: {normalised(rows[row]["problem"]) for row in side} for name, side in sides.items()}
    num_straddling = sum(normalised(rows[row]["problem"]) in texts["train"] for row in split.test)
    if num_shown:
        shown = counted(
            num_shown,
            "problem that prompts show, or that is of their templates, neither tests nor validates",
            "problems that prompts show, or that are of their templates, neither test nor validate",
        )
        notes.append(f"{shown}.")
    if num_straddling:
        of_tests = counted(len(split.test), "test problem stands", "test problems stand")
        notes.append(
            f"{num_straddling:,} of {of_tests} in what trains, too, perhaps spaced otherwise: a split by template "
            "keeps copies together."
        )
    notes += _doubts(rows)
    counts = {f"num_{name}": len(side) for name, side in sides.items()}
    made = {**counts, "num_copies_in_train": num_straddling, "num_shown": num_shown, **facts}
    train_rows, validation_rows, test_rows = ([rows[row] for row in side] for side in sides.values())
    return Sides(train_rows, validation_rows, test_rows, made, notes)


def _doubts(rows: Sequence[Row]) -> list[str]:
    """Return what is wrong with the problems themselves, with the first one of each kind."""
    answers: defaultdict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row.get("answer") is not None:
            answers[(normalised(row["problem"]), *(row.get("choices") or ()))].append(row)
    doubts = {
        "without a text": [row for row in rows if not row["problem"]],
        "without an answer, so that nothing said to them is ever right": [
            row for row in rows if row.get("answer") is None
        ],
        "copies with different answers": [
            row for same in answers.values() if len({normalised(one["answer"]) for one in same}) > 1 for row in same
        ],
    }
    return [
        f"Problems that are {why}: {len(some):,} ({some[0]['problem_id']!r} for one)."
        for why, some in doubts.items()
        if some
    ]


def _row(row: Row) -> dict[str, Any]:
    """Return a problem as it is written: what is not known of it is left out."""
    return {name: value for name, value in row.items() if value is not None or name in SPLIT.required}


def check_problems(rows: Sequence[Row], where: str) -> None:
    """Raise unless there are at least two problems."""
    if len(rows) < 2:
        raise DataError(f"{where} has {len(rows)} problem: a split needs at least two.")

"""Splits: the published rule at random, whole groups on one side, folds that divide, and what is refused."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_math.data.made_problems import make_problems
from trl_math.data.split_problems import official_sides, split_problems
from trl_math.data.split_settings import SplitSettings
from trl_math.data.splits import fold_split, group_folds, group_split, random_folds, random_split
from trl_math.data.tasks import TASKS
from trl_math.data.templates import situation_of, template_of
from trl_math.errors import DataError, UsageError


MULTIARITH = Path(__file__).parents[2] / "shared" / "data" / "mawps" / "multiarith.jsonl"
GSM8K = Path(__file__).parents[2] / "shared" / "data" / "gsm8k" / "train.jsonl"

group_names = st.lists(st.sampled_from("abcdefghijkl"), min_size=2, max_size=80)
shares = st.floats(0.05, 0.9)
seeds = st.integers(0, 2**32 - 1)


def numbered(*names):
    """Problems of these texts, each with an id."""
    return [
        {"problem_id": f"p/{i}", "problem": name, "answer": "1", "answer_kind": "number", "source": "s"}
        for i, name in enumerate(names)
    ]


def texts(side):
    return [row["problem"] for row in side]


# ---- random ----


@pytest.mark.parametrize("task", [task for task in TASKS.values() if not task.is_official], ids=lambda task: task.name)
def test_sizes_of_published_splits(task):
    split = random_split(task.num_train + task.num_test, 0.3, seed=0)
    assert (len(split.train), len(split.validation), len(split.test)) == (task.num_train, 0, task.num_test)


def test_the_published_split_of_addsub():
    """The first test rows of the file that its authors give out."""
    assert random_split(395, 0.3, seed=0).test[:12] == [0, 9, 23, 25, 28, 31, 32, 36, 38, 39, 41, 42]


@given(st.integers(10, 300), seeds, st.floats(0, 0.3))
@settings(max_examples=60, deadline=None)
def test_random_sides_divide_the_rows_and_validation_leaves_the_test_side(number, seed, share):
    split = random_split(number, 0.4, seed=seed, validation_share=0)
    assert sorted([*split.train, *split.test]) == list(range(number))
    if round(number * share):
        other = random_split(number, 0.4, seed=seed, validation_share=share)
        assert other.test == split.test and sorted([*other.train, *other.validation]) == split.train
        assert len(other.validation) == round(number * share)


# ---- groups ----


@given(group_names, shares, seeds)
@settings(max_examples=200, deadline=None)
def test_no_group_straddles(groups, share, seed):
    if len(set(groups)) == 1:
        with pytest.raises(DataError, match="one template"):
            group_split(groups, share, seed=seed)
        return
    split = group_split(groups, share, seed=seed)
    assert sorted([*split.train, *split.test]) == list(range(len(groups)))
    assert split.train and split.test and not split.validation
    assert not {groups[row] for row in split.train} & {groups[row] for row in split.test}
    largest = max(Counter(groups).values())
    assert abs(len(split.test) - share * len(groups)) <= largest


@given(group_names, seeds, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_rows_makes_no_difference(groups, seed, random):
    if len(set(groups)) < 3:
        return
    order = list(range(len(groups)))
    random.shuffle(order)
    split = group_split(groups, 0.3, seed=seed)
    moved = group_split([groups[row] for row in order], 0.3, seed=seed)
    assert sorted(order[row] for row in moved.test) == split.test
    folds = group_folds(groups, 3, seed=seed)
    assert [folds[row] for row in order] == group_folds([groups[row] for row in order], 3, seed=seed)


@given(group_names, seeds, st.integers(2, 6))
@settings(max_examples=100, deadline=None)
def test_group_folds_divide_the_rows(groups, seed, number):
    if len(set(groups)) < number:
        with pytest.raises(DataError, match="ask for fewer folds"):
            group_folds(groups, number, seed=seed)
        return
    folds = group_folds(groups, number, seed=seed)
    assert set(folds) == set(range(number))
    assert all(len({fold for fold, name in zip(folds, groups, strict=True) if name == one}) == 1 for one in groups)
    sizes = Counter(folds)
    assert max(sizes.values()) - min(sizes.values()) <= max(Counter(groups).values())
    tested = [row for fold in range(number) for row in fold_split(folds, fold, seed=0).test]
    assert sorted(tested) == list(range(len(groups)))


@given(st.integers(2, 200), seeds, st.integers(2, 12))
@settings(max_examples=60, deadline=None)
def test_random_folds_divide_the_rows(number, seed, num_folds):
    if number < num_folds:
        with pytest.raises(DataError, match=f"{number} problems cannot be divided into {num_folds} folds"):
            random_folds(number, num_folds, seed=seed)
        return
    sizes = Counter(random_folds(number, num_folds, seed=seed))
    assert len(sizes) == num_folds and max(sizes.values()) - min(sizes.values()) <= 1


def test_validation_of_groups_is_of_other_groups():
    groups = [str(row // 5) for row in range(100)]
    split = group_split(groups, 0.3, seed=0, validation_share=0.1)
    sides = [{groups[row] for row in side} for side in split]
    assert [len(side) for side in split] == [60, 10, 30]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    fold = fold_split(group_folds(groups, 5, seed=0), 2, seed=0, validation_share=0.1, groups=groups)
    sides = [{groups[row] for row in side} for side in fold]
    assert [len(side) for side in fold] == [70, 10, 20]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]


def test_one_large_group_trains_or_tests_whole():
    groups = ["big"] * 95 + list("abcde")
    split = group_split(groups, 0.3, seed=0)
    assert len(split.test) in (1, 2, 3, 4, 5)
    assert len(group_split(["a", "a", "b"], 0.01, seed=0).test) == 1


# ---- problems ----


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 99)), min_size=3, max_size=60), seeds)
@settings(max_examples=60, deadline=None)
def test_no_template_crosses(drawn, seed):
    """Problems made from templates: one for each of eight words, with names and numbers drawn."""
    names = ("Ann", "Bo", "Cy")
    rows = numbered(*(f"{names[n % 3]} has {n} {'x' * 3}{word}. How many are left of {n + 1}?" for word, n in drawn))
    if len({word for word, _ in drawn}) < 2:
        return
    sides = split_problems(rows, SplitSettings(by="template", seed=seed))
    words = [{text.split()[3] for text in texts(side)} for side in (sides.train, sides.test)]
    assert not words[0] & words[1] and all(words)
    assert sides.facts["num_templates"] == len({word for word, _ in drawn})


@pytest.mark.parametrize(("template", "key"), [("question", template_of), ("situation", situation_of)])
@pytest.mark.parametrize("seed", range(5))
def test_no_template_of_dates_crosses(template, key, seed):
    made = make_problems("dates", size=360)
    rows = [
        {**row, "subject": made[i]["subject"]} for i, row in enumerate(numbered(*(row["question"] for row in made)))
    ]
    sides = split_problems(rows, SplitSettings(by="template", template=template, seed=seed))
    assert not {*map(key, texts(sides.train))} & {*map(key, texts(sides.test))}
    if template == "situation":  # then what is said is on one side, whatever is asked
        assert not {row["subject"] for row in sides.train} & {row["subject"] for row in sides.test}
    assert abs(len(sides.test) - 108) <= 40


def test_copies_have_one_template():
    """One problem, spaced otherwise, whose masks differ: `May 5` is a date where `May  5` may be none."""
    rows = numbered("Ann has 3,5 cats.", "Ann has 3,5 cats", "Bo walks.", "Cy runs.")
    sides = split_problems(rows, SplitSettings(by="template", test_share=0.5))
    assert sides.facts["num_templates"] == 3 and sides.facts["num_copies_in_train"] == 0


def test_copies_in_a_random_split_are_told():
    rows = numbered(*["Ann has 3 cats."] * 20)
    sides = split_problems(rows, SplitSettings())
    assert sides.facts["num_copies_in_train"] == 6 and "6 of 6 test problems stand in what trains" in sides.notes[0]


def test_problems_that_cannot_serve_are_told():
    """An empty text, no answer, and two copies that contradict each other; copies with other choices do not."""
    rows = numbered(
        "", "Ann has 3 cats.", "Bo has 4.", "Bo has  4.", "Cy has 5.", "Cy has 5.", "Di has 6.", "Di has 6."
    )
    rows[1]["answer"] = None
    rows[3]["answer"] = rows[5]["answer"] = "2"
    rows[4]["choices"], rows[5]["choices"] = ["1", "2"], ["2", "1"]
    assert split_problems(rows, SplitSettings(by="template")).notes == [
        "Problems that are without a text: 1 ('p/0' for one).",
        "Problems that are without an answer, so that nothing said to them is ever right: 1 ('p/1' for one).",
        "Problems that are copies with different answers: 2 ('p/2' for one).",
    ]


@pytest.mark.parametrize("way", [{"by": "random"}, {"by": "template"}, {"by": "template", "folds": 3, "fold": 1}])
def test_what_prompts_show_does_not_test(way):
    rows = numbered(*(f"Ann has {n} {word}." for word in ("cats", "dogs", "cows", "pigs", "hens") for n in range(6)))
    plain = split_problems(rows, SplitSettings(**way))
    shown = texts(plain.test)[0]
    sides = split_problems(rows, SplitSettings(**way), [f" {shown.upper()} "])
    assert shown in texts(sides.train) and shown not in texts(sides.test)
    assert len(sides.train) + len(sides.test) == len(rows)
    if way["by"] == "template":
        assert not {*map(template_of, texts(sides.test))} & {template_of(shown)}
    assert "prompts show" in sides.notes[0]


def test_official_sides_stay_as_they_are():
    train, test = numbered(*"abcdefghij"), numbered(*"klm")
    sides = official_sides({"train": train, "test": test}, SplitSettings(by="official"))
    assert (texts(sides.train), sides.validation, texts(sides.test)) == (list("abcdefghij"), [], list("klm"))
    sides = official_sides({"train": train, "test": test}, SplitSettings(by="official", validation_share=0.2), ["l"])
    assert texts(sides.test) == ["k", "m"] and len(sides.validation) == 2
    assert sorted(texts(sides.train) + texts(sides.validation)) == list("abcdefghij")
    sides = official_sides({"train": train, "validation": test, "test": test}, SplitSettings(by="official"))
    assert texts(sides.validation) == list("klm")


def test_max_train_is_the_published_draw():
    rows = numbered(*(f"w{'x' * n}" for n in range(40)))
    sides = official_sides({"train": rows, "test": rows[:3]}, SplitSettings(by="official", max_train=10))
    wanted = sorted(np.random.RandomState(0).permutation(40)[:10].tolist())
    assert [len(text) - 1 for text in texts(sides.train)] == wanted and not sides.facts["num_shown"]
    sides = official_sides({"train": rows, "test": numbered("a")}, SplitSettings(by="official", max_train=41))
    assert len(sides.train) == 40 and sides.notes == ["max_train is 41, and there are 40 to train on: all of them do."]


# ---- real sets ----


@pytest.mark.skipif(not MULTIARITH.is_file(), reason="needs ../shared/data")
def test_multiarith():
    """It was made from templates: the split is as large as the published one, and no template crosses it."""
    rows = numbered(*(json.loads(line)["input"] for line in MULTIARITH.read_text().splitlines()))
    assert len(rows) == 600
    for seed in range(10):
        sides = split_problems(rows, SplitSettings(by="template", seed=seed))
        assert abs(len(sides.train) - 413) <= 41.3 and abs(len(sides.test) - 187) <= 18.7
        assert not {*map(template_of, texts(sides.train))} & {*map(template_of, texts(sides.test))}
        assert sides.facts["num_templates"] == 120
    assert max(Counter(template_of(row["problem"]) for row in rows).values()) == 8


@pytest.mark.skipif(not GSM8K.is_file(), reason="needs ../shared/data")
def test_gsm8k_is_not_lumped():
    questions = [json.loads(line)["question"] for line in GSM8K.read_text().splitlines()[:3000]]
    sizes = Counter(map(template_of, questions))
    assert max(sizes.values()) <= 2 and len(sizes) > 2980


# ---- refused ----


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"by": "templates"}, "Did you mean 'template'"),
        ({"test_share": 0.0}, "test_share must be above 0 and below 1, got 0.0"),
        ({"test_share": 1.0}, "both sides need problems"),
        ({"test_share": float("nan")}, "test_share must be above 0"),
        ({"validation_share": 0.7}, "leave some to train on beside test_share 0.3"),
        ({"validation_share": -0.1}, "validation_share must be 0 or above"),
        ({"folds": 5}, "folds and fold go together"),
        ({"fold": 0}, "folds and fold go together"),
        ({"folds": 1, "fold": 0}, "folds must be at least 2"),
        ({"folds": 3, "fold": 3}, "fold must be from 0 to 2"),
        ({"folds": 3, "fold": 0, "test_share": 0.5}, "leave test_share out"),
        ({"folds": 2, "fold": 0, "validation_share": 0.5}, "beside one of 2 folds"),
        (
            {"by": "official", "test_share": 0.3},
            "test_share is for splits by random or template, and this one is by official",
        ),
        ({"by": "official", "folds": 3, "fold": 0}, "folds is for splits by"),
        ({"template": "situation"}, "template is for splits by template"),
        ({"template": "story", "by": "template"}, "Unknown template"),
        ({"test_split": "dev"}, "test_split is for splits by official"),
        ({"max_train": 0}, "max_train must be at least 1"),
        ({"seed": -1}, "seed must be from 0"),
        ({"by": "official", "validation_split": "dev", "validation_share": 0.1}, "give one of them"),
    ],
)
def test_settings_that_cannot_be(changes, said):
    with pytest.raises(UsageError, match=said):
        SplitSettings(**changes)


def test_sides_that_would_be_empty():
    with pytest.raises(DataError, match="2 problems leave test empty"):
        random_split(2, 0.1, seed=0)
    with pytest.raises(DataError, match="10 problems leave validation empty"):
        random_split(10, 0.3, seed=0, validation_share=0.01)
    with pytest.raises(DataError, match="4 problems of 2 templates leave validation empty"):
        group_split(list("aabb"), 0.5, seed=0, validation_share=0.1)
    with pytest.raises(DataError, match=r"All of 3 problems is one template \(<name> has <number> cat \.\)"):
        split_problems(numbered("Ann has 1 cat.", "Bo has 2 cats.", "Cy has 3 cats."), SplitSettings(by="template"))
    with pytest.raises(DataError, match="leave test empty"):
        rows = numbered("Ann has 1 cat.", "Bo runs.")
        split_problems(rows, SplitSettings(test_share=0.5), texts(rows))
    rows = numbered(*(f"Ann has {n} {'c' * n}." for n in range(1, 11)))
    folds = SplitSettings(by="template", folds=5, fold=0, validation_share=0.1)
    for way in (SplitSettings(validation_share=0.1), folds):
        [validating] = texts(split_problems(rows, way).validation)
        with pytest.raises(DataError, match="leave validation empty"):
            split_problems(rows, way, [validating])
    with pytest.raises(DataError, match="of an official split leave test empty"):
        official_sides({"train": numbered("a"), "test": numbered("b")}, SplitSettings(by="official"), ["b"])

"""The control of a difficulty schedule: as many rows, drawn without regard to difficulty, and what differs is said."""

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from trl_math.cli.main import main
from trl_math.data.load import DataArguments, load_rows
from trl_math.data.matched_control import Budget, budget_of, num_characters, uniform_copies
from trl_math.errors import DataError, UsageError


RATES = [0.0, 0.1, 0.25, 0.5, 0.5, 0.75, 0.9, 1.0, 1.0, 1.0]
LEVELS = {"difficulty_schedule": "levels", "difficulty_schedule_params": {"base": 1, "factor": 0.5}}
COPIES = {**LEVELS, "difficulty_as": "copies"}


def write_rows(rates=RATES, **columns):
    """Harder rows are longer."""
    rows = [
        {"prompt": f"{index}+1=", "completion": "x" * (20 - int(10 * rate)), "pass_rate": rate}
        | {name: values[index] for name, values in columns.items()}
        for index, rate in enumerate(rates)
    ]
    with open("rows.jsonl", "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return rows


def loaded(seed=0, **settings):
    return load_rows(DataArguments(dataset_name="rows.jsonl", **settings), seed, evaluates=False)[0]


def counts(rows):
    """How often each row stands, by its number."""
    numbers = [int(prompt.partition("+")[0]) for prompt in rows["prompt"]]
    return np.bincount(numbers, minlength=len(RATES))


@pytest.mark.parametrize("settings", [COPIES, {**COPIES, "difficulty_rounding": "floor"}], ids=["exact", "floor"])
def test_a_control_of_copies_has_as_many_rows_spread_evenly(settings):
    write_rows()
    with_schedule, control = loaded(**settings), loaded(**settings, matched_control=True)
    assert len(control) == len(with_schedule)
    found = counts(control)
    assert found.max() - found.min() <= 1, "no row stands more often than another, but for rounding"
    assert counts(with_schedule).max() - counts(with_schedule).min() > 1
    assert "weight" not in control.column_names


def test_which_rows_stand_once_more_follows_from_the_seed_and_from_nothing_else():
    write_rows()
    draws = [counts(loaded(seed, **COPIES, matched_control=True)) for seed in range(60)]
    assert (draws[3] == counts(loaded(3, **COPIES, matched_control=True))).all()
    mean = np.mean(draws, axis=0)
    assert np.abs(mean - len(loaded(**COPIES)) / len(RATES)).max() < 0.25, "every row has the same chance"


def test_a_control_of_weights_has_all_weights_one_and_the_rows_that_are_left():
    write_rows()
    kept = loaded(**LEVELS, matched_control=True)
    assert kept["prompt"] == [f"{index}+1=" for index in range(10)], "no row has weight 0: plain training"
    band = {"difficulty_schedule": "band", "difficulty_schedule_params": {"min_pass_rate": 0.2, "max_pass_rate": 0.6}}
    with_schedule, control = loaded(**band), loaded(**band, matched_control=True)
    assert len(control) == len(with_schedule) == 3
    assert "weight" in with_schedule.column_names and "weight" not in control.column_names


@pytest.mark.parametrize("settings", [LEVELS, COPIES], ids=["weights", "copies"])
def test_weights_of_the_data_stay_and_rows_of_weight_0_are_on_neither_side(settings):
    own = [1.0, 0.0, 3.0, *[2.0] * 5, 0.0, 0.5]
    write_rows(weight=own)
    with_schedule, control = loaded(**settings), loaded(**settings, matched_control=True)
    trained = [weight for weight in with_schedule["weight"] if weight > 0]
    assert len(control) == len(trained), "the trainer leaves out rows of weight 0"
    found = counts(control)
    assert found[1] == found[8] == 0 and (np.delete(found, [1, 8]) > 0).all()
    places = [int(prompt.partition("+")[0]) for prompt in control["prompt"]]
    assert control["weight"] == [own[place] for place in places]


def test_a_schedule_that_leaves_only_rows_of_weight_0_has_no_control():
    write_rows(weight=[0.0, *[1.0] * 9])
    band = {"difficulty_schedule": "band", "difficulty_schedule_params": {"max_pass_rate": 0.05}}
    with pytest.raises(DataError, match=r"none is trained on|leaves no weight above 0"):
        loaded(**band, matched_control=True)
    with pytest.raises(DataError, match="none is trained on"):
        loaded(**band, difficulty_as="copies", matched_control=True)


def test_what_the_schedule_leaves_alone_the_control_leaves_alone():
    sources = ["a"] * 4 + ["b"] * 3 + ["exempt"] * 3
    write_rows(source=sources)
    settings = {**COPIES, "difficulty_exempt_sources": ["exempt"]}
    found = counts(loaded(**settings, matched_control=True))
    assert found[7:].tolist() == [1, 1, 1]
    assert found[:7].sum() == counts(loaded(**settings))[:7].sum()
    per_source = {**settings, "difficulty_mean_copies": 2.5, "difficulty_per_source": True}
    with_schedule, control = counts(loaded(**per_source)), counts(loaded(**per_source, matched_control=True))
    assert abs(control[:4].sum() - 10) <= 1 and abs(control[4:7].sum() - 7.5) <= 1
    assert [control[:4].sum(), control[4:7].sum()] == [with_schedule[:4].sum(), with_schedule[4:7].sum()]


def test_both_amounts_of_text_are_counted_and_said(caplog):
    rows = write_rows()
    with_schedule, control = loaded(**COPIES), loaded(**COPIES, matched_control=True)
    lengths = np.array([len(row["prompt"]) + len(row["completion"]) for row in rows])
    budget = budget_of(control)
    assert budget == Budget(
        len(with_schedule), lengths @ counts(with_schedule), len(control), lengths @ counts(control)
    )
    assert budget.gap < 0, "hard rows are long, and the schedule has more of them"
    assert f"{budget.characters:,} characters ({budget.gap:+.1%} text in the control)" in caplog.text
    assert budget_of(control.map(lambda row: {"input_ids": [1]})) == budget, "it survives tokenisation"
    assert budget_of(with_schedule) is None


def test_by_characters_the_text_is_equal_and_the_rows_are_not():
    write_rows()
    budget = budget_of(loaded(**COPIES, matched_control=True, matched_control_by="characters"))
    assert abs(budget.gap) < 0.05 and budget.control_rows > budget.rows


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 400), st.integers(0, 2)), min_size=1, max_size=200),
    st.integers(0, 99),
)
def test_every_group_has_exactly_as_many_rows_as_the_schedule_gives_it(rows, seed):
    copies, lengths, groups = (np.array(column) for column in zip(*rows, strict=True))
    masks = [groups == group for group in (0, 1)]
    control = uniform_copies(copies, lengths, masks, seed)
    for mask in masks:
        assert control[mask].sum() == copies[mask].sum()
        if mask.any():
            assert control[mask].max() - control[mask].min() <= 1
    assert (control[groups == 2] == copies[groups == 2]).all()


def test_text_is_counted_in_all_formats():
    turns = [{"role": "user", "content": "abc"}, {"role": "assistant", "content": "de"}]
    assert num_characters({"prompt": "abc", "completion": "de", "problem_id": "long name"}) == 5
    assert num_characters({"messages": turns}) == num_characters({"text": "abcde"}) == 5
    assert num_characters({"prompt": turns[:1], "completion": turns[1:]}) == 5
    assert budget_of(Dataset.from_dict({"text": ["a"]})) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"matched_control": True}, "matched_control is the control of a difficulty schedule: set difficulty_sched"),
        ({**COPIES, "matched_control_by": "rows ", "matched_control": True}, "Unknown matched_control_by 'rows '."),
        ({**COPIES, "matched_control_by": "characters"}, "set matched_control: true"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(UsageError) as caught:
        DataArguments(dataset_name="rows.jsonl", **settings)
    assert message in str(caught.value)


LONG = {"max_length": 40, "drop_truncated": True}
GATE = {"objective": "coverage", "num_attempts": 4, "coverage_from": "pass_rate", "max_pass_rate": 0.7}


def words_of(output, **settings):
    common = {"model_name_or_path": "embedded:tiny", "dataset_name": "rows.jsonl", "output_dir": output}
    machine = {"use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "num_train_epochs": 1}
    values = {**common, **machine, "per_device_train_batch_size": 4, **settings}
    return [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()]


@pytest.mark.parametrize("leaves_out", [LONG, GATE, {**LONG, **GATE}], ids=["length", "gate", "both"])
@pytest.mark.parametrize("form", ["copies", "weights"])
def test_the_steps_are_equal_where_the_trainer_leaves_rows_out(form, leaves_out, capsys):
    """Hard rows are long, so that of all rows another share would be left than of those of the schedule."""
    rates = [0.0 if index % 2 else 0.8 if index % 3 else 0.6 for index in range(64)]
    params = {"base": 1, "factor": 1} if form == "copies" else {"base": -1, "factor": 1}  # of 0.8 none, as weights
    texts = ["9" * (60 if index % 4 == 1 else 5) for index in range(64)]
    write_rows(rates, completion=texts)
    schedule = {"difficulty_schedule": "levels", "difficulty_schedule_params": params, "difficulty_as": form}
    runs = {}
    for name, is_control in {"schedule": False, "control": True}.items():
        assert main(["sft", *words_of(name, **schedule, **leaves_out, matched_control=is_control)]) == 0
        runs[name] = json.loads(Path(name, "run.json").read_text())
    said = capsys.readouterr().out
    assert runs["control"]["steps"] == runs["schedule"]["steps"] > 1, said
    budget = Budget(**runs["control"]["settings"]["matched_budget"])
    assert budget.rows == budget.control_rows and -(-budget.rows // 4) == runs["control"]["steps"]
    dry = ["sft", *words_of("control", **schedule, **leaves_out, matched_control=True), "--dry-run"]
    assert main(dry) == 0
    assert f"train: a matched control of {budget.control_rows:,} rows" in capsys.readouterr().out


def test_a_dry_run_without_the_tokenizer_says_what_it_does_not_know(caplog, capsys):
    write_rows()
    words = words_of("out", **COPIES, **LONG, matched_control=True, model_name_or_path="nobody/no-model")
    assert main(["sft", *words, "--dry-run"]) == 0
    assert "tokenizer of nobody/no-model is not on this machine" in caplog.text + capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"objective": "coverage", "num_attempts": 4, "min_coverage_weight": 0.1},
            "it is decided while training which rows are trained on: set max_steps",
        ),
        ({**GATE, "unscreened_steps": 2}, "set max_steps, the same for both"),
        ({**LONG, "chat_template_path": "some/model"}, "takes a chat template from a file"),
    ],
)
@pytest.mark.parametrize("last", [[], ["--dry-run"]], ids=["run", "dry"])
def test_what_cannot_be_matched_is_refused(settings, message, last, capsys):
    write_rows()
    assert main(["sft", *words_of("out", **COPIES, **settings, matched_control=True), *last]) == 2
    assert message in capsys.readouterr().err
    if "chat_template_path" not in settings:
        dry = words_of("out", **COPIES, **settings, matched_control=True, max_steps=2)
        assert main(["sft", *dry, "--dry-run"]) == 0


def test_a_run_writes_down_what_it_is_the_control_of(capsys):
    write_rows()
    words = [
        "sft",
        "--model_name_or_path=embedded:tiny",
        "--dataset_name=rows.jsonl",
        "--output_dir=control",
        "--use_cpu",
        "--bf16=false",
        "--report_to=none",
        "--per_device_train_batch_size=4",
        "--save_strategy=no",
        "--num_train_epochs=1",
        *(f"--{name}={json.dumps(value) if isinstance(value, dict) else value}" for name, value in COPIES.items()),
    ]
    assert main([*words, "--matched_control", "--dry-run"]) == 0
    assert "train: a matched control of 23 rows" in capsys.readouterr().out
    assert main([*words, "--matched_control"]) == 0
    with open("control/run.json") as file:
        run = json.load(file)
    budget = Budget(**run["settings"]["matched_budget"])
    assert budget.rows == budget.control_rows == 23 and run["steps"] == 6
    with open("control/README.md") as file:
        assert f"matched control of a difficulty schedule: {budget}" in file.read()
    assert main([*words[:3], "--output_dir=schedule", *words[4:]]) == 0
    with open("schedule/run.json") as file:
        assert json.load(file)["steps"] == run["steps"]

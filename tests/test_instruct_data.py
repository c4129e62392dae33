"""Rows of MathInstruct: what is read of an output, that programs are trained on, and whose source stays."""

import json
import logging
from pathlib import Path

import pytest
from datasets import Dataset

from trl_math.cli.main import main
from trl_math.data import to_problems
from trl_math.data.answers import output_answer
from trl_math.data.load import DataArguments, load_rows
from trl_math.errors import DataError
from trl_math.files import json_line
from trl_math.grading.programs import program_answer


CHOICES = "Which one is even?\nAnswer Choices: (A) 3 (B) 4 (C) 5"
PROGRAM = "# Python code\nn = 40 + 2\nprint(n)"
HALF = "We get $x = \\boxed{\\frac{1}{2}}$. The answer is $\\frac{1}{2}$."
# (instruction, output, source, err_rate, level, answer)
ROWS = [
    ("What is 6 times 7?", "6 * 7 = 42. The answer is 42.", "data/CoT/gsm_train.json", 0.231, 2, "42"),
    ("What is 8 times 9?", "8 * 9 = 72\n#### 72\nThe answer is: 72", "data/CoT/gsm_rft.json", 0.0, 1, "72"),
    ("Find $x$.", HALF, "data/CoT/MATH_train.json", 0.5, 3, "\\frac{1}{2}"),
    ("Find $y$.", "So it is that. The answer is $y+1$.", "data/CoT/MATH_train.json", 1.0, 5, "y+1"),
    (CHOICES, "Only 4 is. The answer is (B).", "data/CoT/aqua_rat.json", 0.7, 4, "B"),
    (CHOICES, "Only 4 is. The answer is B", "data/CoT/aqua_rat.json", 0.2, 1, "B"),
    ("Go on.", "One cannot say more.", "data/CoT/college_math.json", 1.0, 5, None),
    ("Write a program: 40 and 2?", PROGRAM, "data/PoT/gsm_gpt4.json", 0.8, 4, None),
    ("Print $\\boxed{1}$.", "x = 'The answer is 7'\nprint(x)", "data/PoT/MATH_train.json", 0.81, 5, None),
]
NAMES = ("instruction", "output", "source", "err_rate", "difficulty_level")


def core_rows(**changes):
    return [dict(zip(NAMES, row[:5], strict=True)) | changes for row in ROWS]


@pytest.fixture
def core():
    Path("core.jsonl").write_bytes(b"".join(map(json_line, core_rows())))
    return "core.jsonl"


def test_answers_sources_and_rates(caplog):
    with caplog.at_level(logging.WARNING):
        problems = to_problems(Dataset.from_list(core_rows()), "tongyx361/MathInstruct-Core-DifficultyAware")
    assert problems["answer"][:] == [row[5] for row in ROWS]
    assert problems["problem"][:] == [row[0] for row in ROWS] and problems["solution"][:] == [row[1] for row in ROWS]
    assert problems["source"][:] == [row[2] for row in ROWS], "the rows' own"
    assert problems["answer_kind"][4:6] == ["choice", "choice"]
    assert problems["difficulty_level"][:] == [row[4] for row in ROWS]
    assert problems["problem_id"][0] == "MathInstruct-Core-DifficultyAware/0"
    assert "the outputs of 3 of 9 rows announce no answer" in caplog.text
    assert "data/CoT/college_math.json: 1, data/PoT/MATH_train.json: 1, data/PoT/gsm_gpt4.json: 1" in caplog.text
    again = to_problems(problems, "another name")
    assert again["source"][:] == problems["source"][:] and again["answer"][:] == problems["answer"][:]


def test_what_is_no_such_data():
    rows = core_rows()
    bare = to_problems(Dataset.from_list([{key: row[key] for key in NAMES[:2]} for row in rows]), "set")
    assert set(bare["source"]) == {"set"}
    null = to_problems(Dataset.from_list([{**rows[0], "source": None}, rows[1]]), "set")
    assert null["source"][:] == ["set", rows[1]["source"]]
    with pytest.raises(DataError, match="or an instruction and an output"):
        to_problems(Dataset.from_list([{"instruction": "a", "response_text": "b"}]), "set")
    # A set with a column for the answer keeps its ways.
    kept = to_problems(Dataset.from_list([{"question": "q", "output": "The answer is 3.", "answer": "4"}]), "set")
    assert kept["answer"][:] == ["4"] and "solution" not in kept.column_names


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("The answer is \\boxed{3", None),
        ("", None),
        ("The answer is $2$ and the other is not. The answer is 5", "5"),
        ("The answer is (C) 5", "C"),
        ("The answer is (D).", "(D)"),
        ("The answer is 3,600.", "3,600"),
    ],
)
def test_single_outputs(output, answer):
    assert output_answer(output, CHOICES) == answer


def test_every_row_is_trained_on_as_it_is(core):
    """Programs too, and by their err_rate; the published prompt ends behind the colon."""
    arguments = DataArguments(
        dataset_name=core,
        prompt_style="alpaca",
        difficulty_schedule="levels",
        difficulty_schedule_params={"base": 1, "factor": 1},
        difficulty_as="copies",
        difficulty_rounding="floor",
        difficulty_column="err_rate",
        difficulty_exempt_sources=["data/CoT/gsm_rft.json"],
    )
    rows, _ = load_rows(arguments, 0, evaluates=False)
    texts = [row["prompt"] + row["completion"] for row in rows]
    for instruction, output, source, _, level, _ in ROWS:
        text = (
            "Below is an instruction that describes a task. Write a response that appropriately completes the "
            f"request.\n\n### Instruction:\n{instruction}\n\n### Response: {output}"
        )
        assert texts.count(text) == (1 if "gsm_rft" in source else 1 + level)
    assert len(texts) == sum(1 if "gsm_rft" in row[2] else 1 + row[4] for row in ROWS)
    completion = next(row["completion"] for row in rows if "40 + 2" in row["completion"])
    assert program_answer(completion).answer == "42", "the space before it is not the program's"


def test_levels_that_disagree_with_err_rates_are_counted():
    Path("core.jsonl").write_bytes(b"".join(map(json_line, core_rows(difficulty_level=3))))
    arguments = DataArguments(
        dataset_name="core.jsonl",
        prompt_style="alpaca",
        difficulty_schedule="linear",
        difficulty_column="err_rate",
    )
    with pytest.raises(DataError, match="8 of 9 rows have a difficulty_level that is not that of their pass rate"):
        load_rows(arguments, 0, evaluates=False)


def test_samples_are_drawn_of_problems_with_answers_only(core, capsys):
    words = ["--data", core, "--prompt-style", "alpaca", "--output", "out", "--grading-workers", "1"]
    model = ["--model", "embedded:tiny", "--backend", "scripted"]
    assert main(["difficulty", *model, *words, "--rule", "fixed", "--num-samples", "2"]) == 0
    said = capsys.readouterr().out
    assert "3 problems have a solution in which no answer can be read, and were left out (" in said
    assert "data/PoT/gsm_gpt4.json: 1" in said
    rows = [json.loads(line) for line in Path("out/difficulty.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == [row[2] for row in ROWS[:6]]
    Path("programs.jsonl").write_bytes(b"".join(map(json_line, core_rows(output=PROGRAM))))
    assert main(["difficulty", *model, *words[2:-4], "--data", "programs.jsonl", "--output", "none"]) == 2
    assert "None of the 9 problems of programs.jsonl has a gold answer that can be read" in capsys.readouterr().err
    rows, _ = load_rows(DataArguments(dataset_name="programs.jsonl", prompt_style="alpaca"), 0, evaluates=False)
    assert len(rows) == 9, "and all are trained on"

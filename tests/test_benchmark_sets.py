"""Every set of the dictionary, in the columns that the hub has for it and as the files of its own repository."""

import json
import logging
import re
from pathlib import Path

import datasets
import pytest
from benchmark_hub_rows import FOUR, MMLU, ROWS

from trl_math.data import PROMPT_STYLES, embedded_problems
from trl_math.data.benchmark_table import BENCHMARKS
from trl_math.data.columns import PROBLEMS
from trl_math.data.sources import load_source
from trl_math.errors import DataError, NotCachedError, UsageError
from trl_math.evaluation.benchmarks import find_benchmark, load, load_shots
from trl_math.grading import grade
from trl_math.optional import is_installed


DOCS = Path(__file__).parents[1] / "docs" / "benchmarks.md"
needs_generators = pytest.mark.skipif(not is_installed("reasoning_gym"), reason="needs the extra 'demo'")

FROM_HUB = [name for name in ROWS if BENCHMARKS[name].source]


class Hub:
    """Stands where `datasets.load_dataset` reaches for the network: what is asked of it, and rows by configuration."""

    def __init__(self, monkeypatch):
        self.asked, self.rows = [], {}
        monkeypatch.setattr(datasets, "load_dataset", self)

    def __call__(self, name, config, *, split, data_files):
        self.asked.append((name, config, split, data_files))
        return datasets.Dataset.from_list(self.rows[config], split=datasets.NamedSplit(split))


@pytest.fixture
def hub(monkeypatch):
    return Hub(monkeypatch)


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read(path, name, *rows):
    return load(BENCHMARKS[name], write(path, *rows))


# Names


def test_a_name_is_the_hub_and_a_name_with_a_path_is_the_file():
    assert find_benchmark(" gsm8k ") == (BENCHMARKS["gsm8k"], None)
    assert find_benchmark("gsm8k=data/test.jsonl") == (BENCHMARKS["gsm8k"], "data/test.jsonl")
    assert find_benchmark("openai/gsm8k") == (BENCHMARKS["gsm8k"], None)


def test_every_other_source_is_a_benchmark_named_by_its_stem(tmp_path):
    for text, name, is_file in [
        ("my/problems.jsonl", "problems", True),
        ("my/test.parquet", "my-test", True),
        ("./gsm8k", "other-gsm8k", True),
        ("someone/competition", "competition", False),
        ("reasoning_gym:products?size=3&seed=1", "products", False),
    ]:
        benchmark, path = find_benchmark(text)
        assert (benchmark.name, benchmark.kind, path) == (name, "row", text if is_file else None)
        assert benchmark.source == (None if is_file else text)
    # A folder of the working directory needs no dot, but the name of a benchmark is the benchmark.
    (tmp_path / "mine").mkdir()
    (tmp_path / "math").mkdir()
    assert find_benchmark("mine")[1] == "mine"
    assert find_benchmark("math") == (BENCHMARKS["math"], None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gms8k", r"Unknown benchmark 'gms8k'\. Did you mean 'gsm8k'\? Known: gsm8k, .*; or give a \.jsonl"),
        ("MATH-500", "Did you mean 'math500'"),
        ("aime2024=a.jsonl", r"Unknown benchmark 'aime2024'\. Did you mean 'aime24'.* by their file alone: a\.jsonl"),
        ("", "Unknown benchmark ''"),
        ("gsm8k=", "'gsm8k=' names no file: write gsm8k=path/to/file.jsonl"),
        ("cais/mmlu", "several benchmarks: name one of mmlu_mathematics, mmlu_physics"),
    ],
)
def test_a_typo_is_one_line_with_the_nearest_name(text, message):
    with pytest.raises(UsageError, match=message) as error:
        find_benchmark(text)
    assert "\n" not in str(error.value)


def test_problems_of_your_own_are_named_by_their_file(tmp_path, monkeypatch):
    """A name in front of a folder with sides, as `trl-math split` makes one, is told which file it is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r" / "sides").mkdir(parents=True)
    (tmp_path / "r" / "sides" / "test.jsonl").touch()
    with pytest.raises(UsageError, match=r"Unknown benchmark 'tt'.* by their file alone: r/sides/test\.jsonl$"):
        find_benchmark("tt=r/sides/")


# The hub


def test_there_is_a_row_for_every_set():
    assert ROWS.keys() == {name for name, benchmark in BENCHMARKS.items() if benchmark.make is None}
    assert all(benchmark.name == name and benchmark.num_problems for name, benchmark in BENCHMARKS.items())


@pytest.mark.parametrize("name", FROM_HUB)
def test_a_set_is_read_from_the_hubs_columns(hub, name):
    row, expected = ROWS[name]
    benchmark = BENCHMARKS[name]
    hub.rows = {config: [row] for config in benchmark.configs}
    problems = load(benchmark)
    assert set(PROBLEMS.required) <= set(problems.column_names) <= set(PROBLEMS.columns)
    assert len(problems) == len(benchmark.configs) == len(set(problems["problem_id"]))
    assert problems[0].items() >= expected.items()
    assert problems[0]["source"] == benchmark.source
    files = list(benchmark.files) or None
    assert hub.asked == [(benchmark.source, config, benchmark.split, files) for config in benchmark.configs]


@pytest.mark.parametrize("name", ROWS)
def test_the_same_row_in_a_file_is_the_same_problem_with_the_same_id(hub, tmp_path, name):
    row, expected = ROWS[name]
    (problem,) = read(tmp_path / "rows.jsonl", name, row)
    assert problem.items() >= expected.items()
    assert re.fullmatch(rf"{name}/[0-9a-f]{{12}}", problem["problem_id"])
    if name in FROM_HUB:
        hub.rows = {config: [row] for config in BENCHMARKS[name].configs}
        assert load(BENCHMARKS[name])[0]["problem_id"] == problem["problem_id"]
    # What was loaded can be written and loaded again, here and as an ad-hoc benchmark.
    path = write(tmp_path / "problems.jsonl", problem)
    assert dict(load(BENCHMARKS[name], path)[0]) == problem | {"source": problem["source"]}
    assert dict(load(*find_benchmark(path))[0]) == problem


def test_the_subjects_of_a_set_come_one_after_the_other(hub):
    hub.rows = {
        config: [
            {"problem": f"{config} {i}", "level": "?", "type": config, "solution": r"\boxed{1}"} for i in range(2)
        ]
        for config in BENCHMARKS["math"].configs
    }
    problems = load(BENCHMARKS["math"])
    assert len(problems) == 14
    assert problems["problem"][:3] == ["algebra 0", "algebra 1", "counting_and_probability 0"]


@pytest.mark.parametrize("text", ["gsm8k", "math", "addsub", "someone/competition"])
def test_a_hub_that_cannot_be_reached_is_one_line_with_the_way_out(text):
    benchmark, path = find_benchmark(text)
    with pytest.raises(NotCachedError, match="Cannot load") as error:
        load(benchmark, path)
    assert "\n" not in str(error.value)
    assert (f"{text}=path/to/file.jsonl" in str(error.value)) == (text in BENCHMARKS)


@pytest.mark.parametrize("name", ["numglue", "simuleq", "deepmind"])
def test_a_set_that_is_on_no_hub_asks_for_its_file(name):
    with pytest.raises(UsageError, match=f"{name} has to be given as a file: {name}=path/to/file.jsonl"):
        load(BENCHMARKS[name])


# Rows


def test_asdiv_leaves_out_problems_with_several_answers(tmp_path):
    row = ROWS["asdiv"][0]
    answers = ["9 (apples)", "3 (red); 4 (green)", "2.5", "Mary (girl)", "5:3"]
    rows = read(tmp_path / "rows.jsonl", "asdiv", *[row | {"body": answer, "answer": answer} for answer in answers])
    assert rows["answer"][:] == ["9", "2.5", "Mary", "5:3"]
    assert rows["answer_kind"][:] == ["math", "math", "text", "math"]


def test_olympiadbench_leaves_out_proofs_and_pictures(tmp_path):
    row = ROWS["olympiadbench"][0]
    proof, picture = row | {"question_type": "Theorem proof"}, row | {"modality": "Multimodal"}
    assert len(read(tmp_path / "rows.jsonl", "olympiadbench", proof, row, picture)) == 1
    with pytest.raises(DataError, match=r"No row of .* is a problem of olympiadbench"):
        read(tmp_path / "rows.jsonl", "olympiadbench", proof)
    one = row | {"final_answer": ["$\\{1,2\\}$"], "context": None, "solution": "S."}
    problem = read(tmp_path / "rows.jsonl", "olympiadbench", one)[0]
    assert (problem["problem"], problem["answer"], problem["solution"]) == ("Find all $x$.", "\\{1,2\\}", "S.")


def test_numglue_is_graded_as_each_row_asks(tmp_path):
    rows = [
        {"question": "What weight?", "answer": 1536},
        {"question": "Which? Answer Choices: (A) less (B) more.", "answer": "A"},
        {"question": "On which day?", "answer": "Friday"},
        # No list of options: it stays as it is.
        {"question": "See? Answer Choices: (A) one (C) two", "answer": "4.17"},
    ]
    problems = read(tmp_path / "rows.jsonl", "numglue", *rows)
    assert problems["answer_kind"][:] == ["number", "choice", "text", "number"]
    assert problems["choices"][:] == [None, ["less", "more."], None, None]
    assert problems["problem"][3] == rows[3]["question"]
    grades = [
        grade(f"So the answer is {text}.", row["answer"], row["answer_kind"], choices=row["choices"])
        for text, row in zip(["1536", "(A)", "Friday", "4.17"], problems, strict=True)
    ]
    assert all(each.correct for each in grades)


def test_agieval_is_read_as_its_repository_has_it(tmp_path):
    row = {"passage": None, "question": "What is $x$?", "options": ["(A)2", "(B)4"], "label": "B", "other": {}}
    problem = read(tmp_path / "sat.jsonl", "sat_math", row)[0]
    assert (problem["problem"], problem["answer"], problem["choices"]) == ("What is $x$?", "B", ["2", "4"])


@pytest.mark.parametrize("name", ["aqua", "sat_math", "mmlu_physics"])
def test_choices_are_asked_with_letters_and_graded_by_letter_or_text(tmp_path, name):
    row = read(tmp_path / "rows.jsonl", name, ROWS[name][0])[0]
    right = "ABCD".index(row["answer"])
    prompt = PROMPT_STYLES["cot"].prompt(row)
    assert all(f"\n({letter}) {text}" in prompt for letter, text in zip("ABCD", row["choices"], strict=False))
    for text, is_right in [
        (f"The answer is ({row['answer']}).", True),
        (rf"\boxed{{{row['choices'][right]}}}", True),
        (rf"\boxed{{{row['choices'][right - 1]}}}", False),
        ("The answer is (E).", False),
    ]:
        assert grade(text, row["answer"], row["answer_kind"], choices=row["choices"]).correct is is_right


def test_a_file_of_the_wrong_format_says_what_was_found_and_expected(tmp_path):
    with pytest.raises(DataError, match=r"Found: sum, total\. Expected a problem .*question.* and an answer"):
        read(tmp_path / "rows.jsonl", "gsm8k", {"sum": 1, "total": 2})
    with pytest.raises(DataError, match=r"aqua is multiple choice\. Found: question, answer\. Expected .*options"):
        read(tmp_path / "rows.jsonl", "aqua", {"question": "q", "answer": "A"})
    with pytest.raises(UsageError, match=r"No file or folder 'tset\.jsonl'"):
        load(BENCHMARKS["gsm8k"], "tset.jsonl")
    write(tmp_path / "train_only" / "train.jsonl", ROWS["gsm8k"][0])
    with pytest.raises(DataError, match="No split 'test' in the folder"):
        load(BENCHMARKS["gsm8k"], str(tmp_path / "train_only"))


def test_another_number_of_problems_and_answers_without_use_are_warnings(tmp_path, caplog):
    rows = [ROWS["aqua"][0] | {"question": f"q{i}", "correct": correct} for i, correct in enumerate(["A", "E", None])]
    with caplog.at_level(logging.WARNING):
        read(tmp_path / "rows.jsonl", "aqua", *rows)
    assert "aqua has 254 problems as published, and 3 in" in caplog.messages[0]
    assert "2 of 3 problems of aqua have no answer that can be read" in caplog.messages[1]


def test_ids_follow_the_question_and_not_its_row_or_spacing(tmp_path):
    rows = [{"question": f"What is {i}?", "answer": str(i)} for i in range(3)]
    ids = read(tmp_path / "a.jsonl", "simuleq", *rows)["problem_id"][:]
    spaced = [row | {"question": row["question"].replace(" ", "\n ")} for row in reversed(rows)]
    assert read(tmp_path / "b.jsonl", "simuleq", *spaced)["problem_id"][:] == ids[::-1]
    # A problem that occurs twice stays twice; questions that differ in their options only are two.
    twice = read(tmp_path / "c.jsonl", "simuleq", rows[0], rows[1], rows[0])["problem_id"][:]
    assert twice == [ids[0], ids[1], f"{ids[0]}-2"]
    options = read(tmp_path / "d.jsonl", "mmlu_physics", MMLU, MMLU | {"choices": FOUR[::-1]})["problem_id"][:]
    assert len({each.rpartition("-2")[0] or each for each in options}) == 2


# What is taken


def test_max_problems_takes_the_first_or_draws_with_a_seed():
    benchmark = BENCHMARKS["arithmetic"]
    whole = load(benchmark)["problem_id"][:]
    assert load(benchmark, max_problems=20)["problem_id"][:] == whole[:20]
    assert load(benchmark, max_problems=10_000)["problem_id"][:] == whole
    drawn = load(benchmark, max_problems=20, seed=1)["problem_id"][:]
    assert drawn != whole[:20] and drawn == [each for each in whole if each in set(drawn)]
    assert set(drawn) < set(load(benchmark, max_problems=30, seed=1)["problem_id"])
    assert load(benchmark, max_problems=20, seed=2)["problem_id"][:] != drawn
    with pytest.raises(UsageError, match="max_problems must be at least 1, got 0"):
        load(benchmark, max_problems=0)
    with pytest.raises(UsageError, match="seed=0 draws problems for max_problems, which is not set"):
        load(benchmark, seed=0)


# Embedded sets


@pytest.mark.parametrize("name", ["arithmetic", "word_problems"])
def test_an_embedded_set_is_the_same_everywhere_and_right(name):
    test, train = load(BENCHMARKS[name]), load_shots(BENCHMARKS[name])
    assert len(test) == len(train) == embedded_problems.NUM_PROBLEMS
    assert len({*test["problem"], *train["problem"]}) == 2 * embedded_problems.NUM_PROBLEMS
    assert set(test["answer_kind"]) == {"number"} and load(BENCHMARKS[name])[:] == test[:]
    for row in [*test, *train]:
        steps, _, answer = row["solution"].rpartition("\n#### ")
        assert answer == row["answer"] and steps
        # Every step is right, and the last one is the answer.
        equations = re.findall(r"([\d*+/ -]+) = (-?\d+)", steps)
        for expression, value in equations:
            assert grade(expression, value, "number").correct, row
        assert equations[-1][1] == answer
        assert grade(row["solution"], row["answer"], row["answer_kind"]).correct


def test_times_tables_are_whole_divided_and_right():
    test, train = load(BENCHMARKS["times_tables"]), load_shots(BENCHMARKS["times_tables"])
    assert len(test) == BENCHMARKS["times_tables"].num_problems and len(test) + len(train) == 11 * 11
    # 3 * 4 and 4 * 3 are of one split: who has learnt the one knows the other.
    factors = [{tuple(sorted(re.findall(r"\d+", problem))) for problem in rows["problem"]} for rows in (test, train)]
    assert not factors[0] & factors[1] and len(factors[0]) + len(factors[1]) == 66
    for row in [*test, *train]:
        a, b = map(int, re.findall(r"\d+", row["problem"]))
        assert row["answer"] == str(a * b) and row["solution"] == f"{a} * {b} = {a * b}"
    assert load_source("embedded:times_tables", "train")["question"][:] == train["problem"][:]
    with pytest.raises(UsageError, match=r"Unknown embedded set .times_table.\. Did you mean .times_tables."):
        load_source("embedded:times_table")
    with pytest.raises(UsageError, match=r"kind of source in .embeded:arithmetic.\. Did you mean .embedded:."):
        load_source("embeded:arithmetic")


def test_embedded_sets_do_not_change():
    """Numbers of one version must be comparable with those of the next."""
    first = {
        name: load(BENCHMARKS[name], max_problems=1)[0] for name in ("arithmetic", "times_tables", "word_problems")
    }
    assert first["times_tables"]["problem"] == "What is 6 * 10?"
    assert first["arithmetic"]["problem"] == "What is 67 - 12?"
    assert first["word_problems"]["problem"] == (
        "Kofi has 12 shells. Ben has 5 times as many shells as Kofi. How many shells do they have together?"
    )
    assert {row["subject"] for row in embedded_problems.word_problems("test")} == set(embedded_problems.WORD_PROBLEMS)
    with pytest.raises(UsageError, match=r"Unknown split of an embedded set 'tests'\. Did you mean 'test'"):
        embedded_problems.arithmetic("tests")


@needs_generators
def test_a_generator_is_a_benchmark_of_its_test_split():
    problems = load(*find_benchmark("reasoning_gym:gsm_symbolic?size=5"))
    assert len(problems) == 5 and set(problems["answer_kind"]) == {"number"}
    assert problems["problem_id"][0].startswith("gsm_symbolic/")


# Shots


def test_shots_come_from_training_problems_only(hub, tmp_path):
    assert load_shots(BENCHMARKS["word_problems"])["problem_id"][0].startswith("word_problems/")
    hub.rows = {config: [ROWS["math"][0]] for config in BENCHMARKS["math"].configs}
    load_shots(BENCHMARKS["math500"])
    assert {asked[:3] for asked in hub.asked} == {
        ("EleutherAI/hendrycks_math", config, "train") for config in BENCHMARKS["math"].configs
    }
    with pytest.raises(UsageError, match="aime24 has no training problems"):
        load_shots(BENCHMARKS["aime24"])
    # Of a folder with both splits, each reads its own.
    row = ROWS["gsm8k"][0]
    write(tmp_path / "set" / "train.jsonl", row | {"question": "train"})
    folder = str(Path(write(tmp_path / "set" / "test.jsonl", row | {"question": "test"})).parent)
    for name in ("gsm8k", "svamp", "aime24"):
        assert load(BENCHMARKS[name], folder)["problem"][:] == ["test"]
        assert load_shots(BENCHMARKS[name], folder)["problem"][:] == ["train"]


# The documentation


def test_the_documented_table_is_the_dictionary():
    rows = {}
    for line in DOCS.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            rows[cells[0].strip("`")] = cells
    assert list(rows) == list(BENCHMARKS)
    for name, benchmark in BENCHMARKS.items():
        _, _, number, kind, source, *_ = rows[name]
        assert (number, kind) == (f"{benchmark.num_problems:,}", benchmark.kind)
        place = benchmark.source or ("embedded" if benchmark.make else "a file only")
        assert place in source and benchmark.split in source if benchmark.source else place in source

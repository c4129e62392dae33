"""Sources and problems: every shape of data set that is met in the wild, and errors that say what to do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict, concatenate_datasets

from trl_math.data import load_source, source_stem, to_problems, without_problems
from trl_math.data.columns import PROBLEMS
from trl_math.errors import DataError, UsageError
from trl_math.optional import is_installed


SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_shared_data = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the benchmark files in ../shared/data")
needs_generators = pytest.mark.skipif(not is_installed("reasoning_gym"), reason="needs the extra 'demo'")


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def problems(*rows, source="set"):
    return to_problems(Dataset.from_list(list(rows)), source)


# Files


def test_json_comes_as_it_is_in_every_layout(tmp_path):
    rows = [
        {"question": "a\u2028b", "answer": 1536, "date": "2024-01-01"},
        {"question": "c", "answer": "B", "more": [1]},
    ]
    expected = [
        {"question": "a\u2028b", "answer": "1536", "date": "2024-01-01", "more": None},
        {"question": "c", "answer": "B", "date": None, "more": [1]},
    ]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    (tmp_path / "spread.jsonl").write_text("\ufeff" + json.dumps(rows, indent=2))
    (tmp_path / "lines.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n")
    for name in ("list.json", "spread.jsonl", "lines.jsonl"):
        assert list(load_source(str(tmp_path / name))) == expected
    Dataset.from_list(expected).to_parquet(tmp_path / "rows.parquet")
    loaded = load_source(str(tmp_path / "rows.parquet"))
    assert list(loaded) == expected and loaded.split is None


def test_a_folder_gives_the_split_that_was_asked_for(tmp_path):
    write(tmp_path / "set" / "train.jsonl", {"q": 1})
    write(tmp_path / "set" / "test.jsonl", {"q": 2})
    assert load_source(str(tmp_path / "set"), "test")["q"][:] == [2]
    with pytest.raises(DataError, match=r"No split 'tset'.*mean 'test'.*Found: test, train"):
        load_source(str(tmp_path / "set"), "tset")
    write(tmp_path / "parts" / "a.jsonl", {"q": 1})
    write(tmp_path / "parts" / "b.jsonl", {"q": 2.5})
    assert load_source(str(tmp_path / "parts"))["q"][:] == [1, 2.5]
    saved = DatasetDict(train=Dataset.from_list([{"q": 1}]), test=Dataset.from_list([{"q": 2}]))
    saved.save_to_disk(tmp_path / "saved")
    assert load_source(str(tmp_path / "saved"), "test")["q"][:] == [2]


def test_broken_json_names_file_and_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2\n{"a": 3}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl, line 3: not valid JSON"):
        load_source(str(path))
    path.write_text('[{"a": 1},\n{"a": 2},\n]')
    with pytest.raises(DataError, match=r"rows\.jsonl, line [23]: not valid JSON"):
        load_source(str(path))
    path.write_text('{"a": 1}\n5\n')
    with pytest.raises(DataError, match="row 1 is int"):
        load_source(str(path))
    path.write_text("")
    with pytest.raises(DataError, match="has no rows"):
        load_source(str(path))


def test_what_cannot_be_found_is_one_line_with_the_nearest(tmp_path):
    path = write(tmp_path / "problems.jsonl", {"a": 1})
    for name, split, message in [
        (str(tmp_path / "problem.jsonl"), "train", "No file or folder .*mean 'problems.jsonl'"),
        ("./nowhere", "train", "No file or folder 'nowhere'"),
        (path, "test", "is one file, without a split 'test'"),
        ("reasoning-gym:products", "train", "mean 'reasoning_gym:'"),
        ("two words", "train", "cannot be the name of a data set on the hub"),
        (
            "nobody/nothing",
            "train",
            r"No file or folder 'nobody/nothing' is here. .*the Hugging Face hub either: .*Check",
        ),
    ]:
        with pytest.raises(UsageError, match=message) as error:
            load_source(name, split)
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="config='main' is for data sets on the hub"):
        load_source(path, config="main")


# Generators


@needs_generators
def test_a_generator_is_its_spec():
    spec = "reasoning_gym:products?size=30&max_digits=2&seed=3"
    rows = load_source(spec)
    assert len(rows) == 30 and list(rows) == list(load_source(spec))
    assert len(set(rows["question"])) == len(set(rows["problem_id"])) == 30
    assert json.loads(rows[0]["metadata"])["source_dataset"] == "products"
    # The size cuts and does not change what comes.
    assert list(load_source(spec.replace("30", "10"))) == list(rows)[:10]
    assert set(load_source(spec.replace("seed=3", "seed=4"))["question"]) != set(rows["question"])


@needs_generators
def test_splits_of_a_generator_share_no_question_at_any_size_or_seed():
    train = set(load_source("reasoning_gym:products?size=60&max_digits=1")["question"])
    test = set(load_source("reasoning_gym:products?size=20&max_digits=1&seed=9", "test")["question"])
    validation = set(load_source("reasoning_gym:products?size=5&max_digits=1&seed=7", "validation")["question"])
    assert not (train & test or train & validation or test & validation)
    with pytest.raises(DataError, match=r"only \d\d different questions in its test split, 90 were asked for"):
        load_source("reasoning_gym:products?size=90&max_digits=1", "test")


@needs_generators
def test_difficulty_is_a_level_of_the_curriculum_that_options_override():
    hard = load_source("reasoning_gym:chain_sum?size=40&difficulty=3&max_terms=2")
    digits = [json.loads(row["metadata"])["num_digits"] for row in hard]
    terms = {json.loads(row["metadata"])["num_terms"] for row in hard}
    assert max(digits) == 4 and terms == {2}
    assert len(load_source("reasoning_gym:gsm_symbolic?size=3&difficulty=1.0")) == 3  # an option of its own
    operators = load_source('reasoning_gym:basic_arithmetic?size=20&operators=["*"]&allow_parentheses=false')
    assert all("*" in question and "(" not in question for question in operators["question"])


@needs_generators
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("prodcts", "no generator 'prodcts'. Did you mean 'products'"),
        ("products?max_digit=2", "'max_digit'. Did you mean 'max_digits'"),
        ("products?max_digits=two", "max_digits=two .* is not 'int'"),
        ("products?allow_negation=1", "allow_negation=1 .* is not 'bool'"),
        ("products?max_digits=0", "cannot work: max_digits must be >= min_digits"),
        ("products?difficulty=99", "difficulty levels 0 to 10, not 99"),
        ("products?size", "Cannot read 'size'"),
        ("basic_arithmetic?format_style=fancy", "'fancy'.*simple, natural"),
    ],
)
def test_typing_errors_in_a_spec(spec, message):
    with pytest.raises(UsageError, match=message):
        load_source(f"reasoning_gym:{spec}")


@needs_generators
def test_generated_problems_know_how_they_are_compared():
    for generator, kind in [("products", "number"), ("polynomial_equations", "math"), ("word_sorting", "text")]:
        name = f"reasoning_gym:{generator}?size=12"
        rows = to_problems(load_source(name), name)
        assert rows.column_names == list(PROBLEMS.required)
        assert set(rows["answer_kind"]) == {kind}
        assert rows[0]["problem_id"].startswith(f"{generator}/")


# Problems


def test_columns_of_many_names_become_ours():
    gsm8k = problems({"question": "q", "answer": "so\n#### 1,072"}, source="openai/gsm8k")[0]
    assert gsm8k == {
        "problem_id": "gsm8k/0",
        "problem": "q",
        "answer": "1,072",
        "answer_kind": "number",
        "source": "openai/gsm8k",
        "solution": "so\n#### 1,072",
    }
    math = problems({"unique_id": "t/1", "problem": "p", "solution": r"\boxed{2}", "level": "Level 5", "type": "A"})[0]
    assert (math["problem_id"], math["answer"], math["answer_kind"]) == ("t/1", "2", "math")
    assert (math["level"], math["subject"]) == ("5", "A")
    svamp = problems({"ID": "chal-1", "Body": "A pack costs 7", "Question": "How much?", "Answer": 51.0})[0]
    assert (svamp["problem_id"], svamp["problem"], svamp["answer"]) == ("chal-1", "A pack costs 7. How much?", "51")
    aqua = problems({"question": "q", "options": ["A)5", "B)A)7"], "rationale": "r", "correct": "B"})[0]
    assert (aqua["answer"], aqua["answer_kind"], aqua["choices"]) == ("B", "choice", ["5", "A)7"])
    mmlu = problems({"question": "q", "choices": ["x", "y"], "answer": 1})[0]
    assert (mmlu["answer"], mmlu["choices"]) == ("B", ["x", "y"])
    aime = problems({"id": 3, "problem": "p", "expected_answer": "070"})[0]
    assert (aime["problem_id"], aime["answer"]) == ("set/3", "070")


def test_kinds_follow_the_answers():
    answers = ["12", "$3.50", "-7%", "Friday", "B"]
    rows = problems(*[{"question": "Pick (A) or (B)", "answer": answer} for answer in answers])
    assert rows["answer_kind"][:] == ["number", "number", "number", "text", "choice"]
    # Where there is mathematics, a number is read as mathematics too.
    rows = problems({"question": "q", "answer": "12"}, {"question": "q", "answer": "[2, 3]"})
    assert rows["answer_kind"][:] == ["math", "math"]


def test_problems_are_problems_already_and_keep_what_is_ours():
    row = {"problem": "p", "answer": "1", "solution": "s", "pass_rate": 0.5, "steps": ["s"], "other": 1}
    first = problems(row, source="a/first")
    assert first.column_names == [*PROBLEMS.required, "solution", "pass_rate", "steps"]
    assert to_problems(first, "second")[0] == first[0]


def test_a_row_without_an_answer_stays_and_a_set_without_answers_does_not():
    rows = problems({"problem": "p", "solution": r"\boxed{}"}, {"problem": "q", "solution": r"\boxed{1}"})
    assert rows["answer"][:] == [None, "1"]
    with pytest.raises(DataError, match="No row of 'set' has a final answer"):
        problems({"problem": "p", "solution": "none"})


def test_errors_name_what_was_found_and_what_was_expected():
    with pytest.raises(DataError, match=r"Found: sum, total\. Expected a problem \(problem, question"):
        problems({"sum": 1, "total": 2})
    with pytest.raises(DataError, match="training data already"):
        problems({"prompt": "a", "completion": "b"})
    with pytest.raises(DataError, match="'x' occurs twice"):
        problems({"id": "x", "problem": "p", "answer": "1"}, {"id": "x", "problem": "q", "answer": "2"})
    with pytest.raises(DataError, match="has no rows"):
        to_problems(Dataset.from_list([]), "set")


def test_the_stem_says_what_and_not_where():
    assert source_stem("openai/gsm8k") == "gsm8k"
    assert source_stem("/somewhere/gsm8k/test.jsonl") == "gsm8k/test"
    assert source_stem("mawps/addsub.jsonl") == "addsub"
    assert source_stem("reasoning_gym:products?size=3") == "products"


def test_problems_are_removed_by_their_normalised_text():
    rows = problems({"problem": "What  is\nOne?", "answer": "1"}, {"problem": "Two?", "answer": "2"})
    kept, num_removed = without_problems(rows, problems({"problem": " what is one? ", "answer": "1"}))
    assert (kept["problem"][:], num_removed) == (["Two?"], 1)
    assert without_problems(rows, ["TWO?"])[1] == 1


@needs_shared_data
@pytest.mark.parametrize(
    ("name", "num_rows", "kind", "first_id", "first_answer"),
    [
        ("aime/aime24.jsonl", 30, "math", "aime24-0", "73"),
        ("aime/aime25.jsonl", 30, "math", "aime25-0", "70"),
        ("amc23/test.jsonl", 40, "number", "amc23/test/0", "27"),
        ("aqua/test.jsonl", 254, "choice", "aqua/test/0", "A"),
        ("deepmind/test.jsonl", 1000, "math", "deepmind/test/0", "2"),
        ("gsm8k/test.jsonl", 1319, "number", "gsm8k/test/0", "18"),
        ("math/test500.jsonl", 500, "math", "test/precalculus/807.json", r"\left( 3, \frac{\pi}{2} \right)"),
        ("mawps/multiarith.jsonl", 600, "number", "multiarith/0", "39"),
        ("mawps", 1503, "number", "mawps/0", "43"),
        ("numglue/test.jsonl", 1042, "number", "numglue/test/0", "1536"),
        ("simuleq/test.jsonl", 514, "number", "simuleq/test/0", "15"),
        ("svamp/SVAMP.json", 1000, "number", "chal-1", "51"),
    ],
)
def test_real_problem_sets(name, num_rows, kind, first_id, first_answer):
    rows = to_problems(load_source(str(SHARED / name)), str(SHARED / name))
    assert len(rows) == num_rows and rows.column_names[:5] == list(PROBLEMS.required)
    assert (rows[0]["problem_id"], rows[0]["answer"], rows[0]["answer_kind"]) == (first_id, first_answer, kind)
    assert None not in rows["answer"][:]


@needs_shared_data
def test_the_coverage_papers_split_of_math_has_12000_training_problems():
    train, test, math500 = (
        to_problems(load_source(str(SHARED / "math" / name)), name)
        for name in ("train.jsonl", "test.jsonl", "test500.jsonl")
    )
    rows, num_removed = without_problems(concatenate_datasets([train, test]), math500)
    assert (len(rows), num_removed) == (12_000, 500)
    assert rows["answer"][:].count(None) == 2  # two training solutions have an empty box


def test_the_room_imports_no_torch():
    code = "import sys, trl_math.data; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

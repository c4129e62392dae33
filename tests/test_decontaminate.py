"""`trl-math decontaminate`: what it finds, what it leaves, what it writes, and what it refuses."""

import json
from pathlib import Path

import datasets
import pytest
from sklearn.metrics import cohen_kappa_score

from trl_math.cli.decontaminate import run
from trl_math.contamination.leak_counts import agreement, kappa, states
from trl_math.contamination.matches import Match
from trl_math.data.sources import load_source
from trl_math.errors import DataError, MissingPackageError, RunFolderError, UsageError
from trl_math.files import json_line


STRINGS = ("--detectors", "exact", "normalised", "ngram_8", "minhash")
TESTS = [
    "A baker sells 48 loaves on Monday and half as many on Tuesday. How many loaves did the baker sell altogether?",
    "Each of the 7 gardeners waters 12 rose bushes every morning. How many bushes are watered in one week?",
    "The train to Oslo leaves at 9 and covers 420 kilometres in 5 hours. What is its average speed in kilometres?",
]
CLEAN = [
    "A library owns 312 novels and lends 45 of them to a school across the street. How many novels remain there?",
    "Nine frogs sit on a log and four of them jump into the cold pond. How many frogs are left sitting on it?",
    "A rope of 64 metres is cut into 8 equal pieces by a sailor. How long is every single piece of that rope?",
]


def decontaminate(*words):
    return run([str(word) for word in words])


def lines_of(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def summary_of(folder):
    return json.loads(Path(folder, "summary.json").read_text())


def write(path, rows):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(b"".join(map(json_line, rows)))
    return str(path)


@pytest.fixture
def both():
    """Test items, and rows of which the second is a copy, the fourth a copy but for spelling, the rest clean."""
    tests = write("tests.jsonl", [{"id": f"t{n}", "problem": text, "answer": "1"} for n, text in enumerate(TESTS)])
    texts = [CLEAN[0], TESTS[0], CLEAN[1], f"  {TESTS[1].upper()} ", CLEAN[2]]
    rows = [
        {"problem_id": f"p{n}", "problem": text, "solution": f"#### {n}", "tags": ["a", {"deep": n}], "weight": n / 4}
        for n, text in enumerate(texts)
    ]
    return "--data", write("train.jsonl", rows), "--against", tests


# ---- what is written ----


def test_rows_with_test_items_go_and_all_others_stay_as_they_came(both, capsys):
    assert decontaminate(*both, *STRINGS, "--output", "out") == 0
    said = capsys.readouterr().out
    assert "taken out: 2 of 5 rows; 3 are kept" in said and "2 of 3 items (66.7%" in said
    kept = load_source("out")
    assert kept.to_list() == load_source("train.jsonl").select([0, 2, 4]).to_list()
    assert lines_of("out/clean.jsonl") == [lines_of("train.jsonl")[n] for n in (0, 2, 4)]
    removed = {row["train_id"]: row for row in lines_of("out/train_rows.jsonl")}
    assert {name: row["train_row"] for name, row in removed.items()} == {"p1": 1, "p3": 3}
    [why] = removed["p1"]["why"]
    assert why["test_id"] == "t0" and why["detectors"]["exact"] == 1 and why["benchmark"] == "tests.jsonl"
    assert "exact" not in removed["p3"]["why"][0]["detectors"]
    items = {row["test_id"]: row for row in lines_of("out/test_items.jsonl")}
    assert {name: row["state"] for name, row in items.items()} == {
        "t0": "contaminated",
        "t1": "contaminated",
        "t2": "clean",
    }
    assert (items["t1"]["train_ids"], items["t2"]["train_ids"]) == (["p3"], [])
    matches = lines_of("out/matches.jsonl")
    assert {row["detector"] for row in matches} == {"exact", "normalised", "ngram_8", "minhash"}
    assert all(row["evidence"] and row["test_text"] in TESTS for row in matches)
    assert not [path for path in Path().iterdir() if path.suffix == ".part" or path.name.startswith(".out.cache")]


def test_counts_intervals_and_agreement(both):
    decontaminate(*both, *STRINGS, "--compare", "ngram_8_plain", "--output", "out")
    found = summary_of("out")
    rate = found["benchmarks"]["tests.jsonl"]["contaminated"]
    assert (rate["num_yes"], rate["num_unknown"], rate["num"]) == (2, 0, 3)
    assert rate["low"]["value"] == pytest.approx(2 / 3) and rate["low"]["low"] == pytest.approx(0.2077, abs=1e-3)
    assert (
        found["detectors"]["exact"]["num_test_items"] == 1 and found["detectors"]["normalised"]["num_test_items"] == 2
    )
    assert found["train_rows"] | {"removed": 0} == {
        "num": 5,
        "num_removed": 2,
        "num_unknown": 0,
        "num_kept": 3,
        "removed": 0,
    }
    pair = next(one for one in found["agreement"] if (one["first"], one["second"]) == ("exact", "normalised"))
    assert [pair[name] for name in ("both", "only_first", "only_second", "neither")] == [1, 0, 1, 1]
    assert pair["kappa"] == pytest.approx(cohen_kappa_score([1, 0, 0], [1, 1, 0]))
    assert found["detectors"]["ngram_8_plain"]["counts"] is False


def test_what_is_only_compared_removes_nothing(both):
    decontaminate(*both, "--detectors", "exact", "--compare", "normalised", "--output", "out")
    found = summary_of("out")
    assert found["train_rows"]["num_removed"] == 1 and found["detectors"]["normalised"]["num_train_rows"] == 2
    assert {row["detector"] for row in lines_of("out/matches.jsonl")} == {"exact"}


def test_the_same_request_finds_its_folder_and_another_one_is_refused(both, capsys):
    words = (*both, *STRINGS, "--output", "out")
    decontaminate(*words)
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    assert decontaminate(*words) == 0 and "nothing to do" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == before
    with pytest.raises(RunFolderError, match="of other detectors"):
        decontaminate(*both, "--detectors", "exact", "--output", "out")
    with pytest.raises(RunFolderError, match="of other settings"):
        decontaminate(*words, "--part", "all")
    write("train.jsonl", lines_of("train.jsonl")[:4])
    with pytest.raises(RunFolderError, match="of other data"):
        decontaminate(*words)


def test_the_same_sides_give_the_same_bytes(both):
    for output in ("one", "two"):
        decontaminate(*both, *STRINGS, "--output", output)
    names = ("clean.jsonl", "matches.jsonl", "test_items.jsonl", "train_rows.jsonl")
    assert all(Path("one", name).read_bytes() == Path("two", name).read_bytes() for name in names)


def test_parquet_stays_parquet_with_its_types(both):
    features = datasets.Features(
        {
            "problem": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["a", "b"]),
            "n": datasets.Value("int8"),
        }
    )
    rows = {"problem": [CLEAN[0], TESTS[2], CLEAN[1]], "label": [0, 1, 1], "n": [1, 2, 3]}
    table = datasets.Dataset.from_dict(rows, features=features)
    table.to_parquet("rows.parquet")
    assert decontaminate("--data", "rows.parquet", *both[2:], *STRINGS, "--output", "out") == 0
    assert not Path("out/clean.jsonl").exists()
    kept = load_source("out")
    assert kept.features == features and kept.to_list() == table.select([0, 2]).to_list()
    assert decontaminate("--data", "out", *both[2:], *STRINGS, "--output", "again") == 0
    assert load_source("again").features == features


def test_typed_columns_do_not_become_lines_of_json(both):
    datasets.Dataset.from_dict({"problem": CLEAN, "picture": [b"\x00\x01"] * 3}).to_parquet("pictures.parquet")
    with pytest.raises(DataError, match=r"The rows of pictures.parquet cannot be written as JSON .*: give it alone"):
        decontaminate("--data", "train.jsonl", "pictures.parquet", *both[2:], *STRINGS, "--output", "out")
    assert not Path("out").exists() and not [path for path in Path().iterdir() if path.suffix == ".part"]
    assert decontaminate("--data", "pictures.parquet", *both[2:], *STRINGS, "--output", "out") == 0
    assert load_source("out")[0]["picture"] == b"\x00\x01"


def test_several_sources_and_several_benchmarks(both):
    other = write("other.jsonl", [{"text": CLEAN[2]}, {"text": f"Here is a problem. {TESTS[2]} Think about it."}])
    second = write("second.jsonl", [{"problem": CLEAN[2]}])
    words = ("--data", "train.jsonl", other, "--against", "tests.jsonl", second, *STRINGS, "--output", "out")
    assert decontaminate(*words) == 0
    found = summary_of("out")
    assert {name: one["contaminated"]["num_yes"] for name, one in found["benchmarks"].items()} == {
        "tests.jsonl": 3,
        "second.jsonl": 1,
    }
    removed = {(row["source"], row["train_id"]) for row in lines_of("out/train_rows.jsonl")}
    assert removed == {(name, f"p{n}") for name, n in (("train.jsonl", 1), ("train.jsonl", 3), ("train.jsonl", 4))} | {
        (other, "row-0"),
        (other, "row-1"),
    }
    assert [row["problem_id"] for row in lines_of("out/clean.jsonl")] == ["p0", "p2"]


def test_benchmarks_by_their_names_on_both_sides():
    words = ("--data", "times_tables", "--against", "times_tables", "arithmetic", "--detectors", "normalised")
    assert decontaminate(*words, "--output", "out") == 0
    found = summary_of("out")
    assert found["benchmarks"]["times_tables"]["contaminated"]["low"]["value"] == 1
    assert found["benchmarks"]["arithmetic"]["contaminated"]["num_yes"] < 40
    assert found["train_rows"]["num_kept"] == 0


def test_samples_and_pairs_of_one_problem_are_rows_of_their_own(both):
    rows = [{"problem_id": "p", "sample_index": n, "prompt": TESTS[0], "completion": f"{n}"} for n in range(3)]
    pairs = [
        {"problem_id": "q", "chosen_index": 0, "rejected_index": n, "prompt": CLEAN[0], "chosen": "1", "rejected": "2"}
        for n in (1, 2)
    ]
    write("rows.jsonl", [*rows, *pairs])
    decontaminate("--data", "rows.jsonl", *both[2:], *STRINGS, "--output", "out")
    assert [row["train_id"] for row in lines_of("out/train_rows.jsonl")] == ["p#0", "p#1", "p#2"]
    assert len(lines_of("out/clean.jsonl")) == 2


def test_a_leak_that_stands_there_often_is_no_boilerplate(both):
    write("often.jsonl", [{"problem": text} for text in [TESTS[0]] * 400 + CLEAN * 10])
    decontaminate("--data", "often.jsonl", *both[2:], *STRINGS, "--output", "out")
    found = summary_of("out")["detectors"]
    assert all(found[name]["num_train_rows"] == 400 for name in ("exact", "normalised", "ngram_8", "minhash"))


# ---- the gate ----


def test_stop_fails_and_the_folder_tells_why(both, capsys):
    words = (*both, *STRINGS, "--output", "out", "--on-contaminated", "stop")
    for _ in range(2):  # also where there is nothing to do
        assert decontaminate(*words) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("trl-math: 2 of 5 training rows have test items in them, and none may")
    assert len(lines_of("out/clean.jsonl")) == 3
    assert decontaminate(*words, "--max-contaminated", 2) == 0
    assert decontaminate(*words, "--max-contaminated", 0.4) == 0
    assert decontaminate(*words, "--max-contaminated", 0.39) == 1
    assert decontaminate(*words, "--max-contaminated", 1) == 1
    with pytest.raises(UsageError, match="max_contaminated is for on_contaminated: stop"):
        decontaminate(*both, "--output", "out", "--max-contaminated", 2)


# ---- bad input ----


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--against", "tests.jsonl"), "What is trained on"),
        (("--data", "train.jsonl"), "What tests"),
        (("--data", "train.jsonl", "--against", "gsm9k"), "Unknown benchmark 'gsm9k'.*Did you mean 'gsm8k'"),
        (("--data", "train.jsonl", "--against", "test.jsonl"), "No file or folder 'test.jsonl'.*'tests.jsonl'"),
        (("--data", "train.jsonl", "--against", "tests.jsonl", "tests.jsonl"), "twice"),
        (("--data", "train.jsonl", "--against", "tests.jsonl", "--detectors", "ngram8"), "Did you mean 'ngram_8'"),
        (("--data", "train.jsonl", "--against", "tests.jsonl", "--part", "both"), "Unknown part"),
        (("--data", "train.jsonl", "--against", "tests.jsonl", "--judge-kind", "code"), "judge_kind is for the judge"),
        (("--data", "train.jsonl", "--against", "tests.jsonl", "--detectors", "judge"), "Which model judges"),
        (
            ("--data", "train.jsonl", "--against", "tests.jsonl", "--thresholds", "{exact: 0.5}"),
            "exact has no threshold",
        ),
        (("--data", "train.jsonl", "--against", "tests.jsonl", "--thresholds", "{minhash: 2}"), "at most 1"),
        (("--data", "train.jsonl", "--against", "tests.jsonl", "--thresholds", "{ngram_13: 0.5}"), "none of the det"),
        (("--data", "train.jsonl", "--against", "tests.jsonl", "--detector", "exact"), "Did you mean 'detectors'"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(both, words, message):
    with pytest.raises(UsageError, match=message) as error:
        decontaminate(*words, "--output", "out")
    assert "\n" not in str(error.value) and not Path("out").exists()


def test_ids_are_made_where_rows_have_none_or_those_of_others(both, capsys):
    rows = [{"problem": text} for text in (CLEAN[0], "  ", TESTS[0])]
    write("bare.jsonl", rows)
    assert decontaminate("--data", "bare.jsonl", *both[2:], *STRINGS, "--output", "out") == 0
    said = capsys.readouterr().out
    assert "3 rows have no ids" in said and "1 row without a text cannot be compared" in said
    assert [row["train_id"] for row in lines_of("out/train_rows.jsonl")] == ["row-2"]
    assert lines_of("out/clean.jsonl") == rows[:2]
    write("twice.jsonl", [{"id": "a", "problem": text} for text in (CLEAN[0], TESTS[0], TESTS[0])])
    assert decontaminate("--data", "twice.jsonl", *both[2:], *STRINGS, "--output", "other") == 0
    assert "2 rows have the id of a row before" in capsys.readouterr().out
    assert [row["train_id"] for row in lines_of("other/train_rows.jsonl")] == ["a, row-1", "a, row-2"]
    assert len(lines_of("other/clean.jsonl")) == 1


def test_nothing_to_compare_is_refused(both):
    datasets.Dataset.from_dict(
        {"problem": []}, features=datasets.Features({"problem": datasets.Value("string")})
    ).to_parquet("none.parquet")
    with pytest.raises(DataError, match=r"none.parquet has no rows"):
        decontaminate("--data", "none.parquet", *both[2:], "--output", "out")
    write("blank.jsonl", [{"problem": " "}, {"problem": ""}])
    with pytest.raises(DataError, match=r"All 2 rows of 'blank.jsonl' have an empty text"):
        decontaminate("--data", "train.jsonl", "--against", "blank.jsonl", "--output", "out")
    write("numbers.jsonl", [{"number": 1}])
    with pytest.raises(DataError, match=r"No text in 'numbers.jsonl'. Found: number"):
        decontaminate("--data", "numbers.jsonl", *both[2:], "--output", "out")


def test_a_text_of_a_megabyte_and_other_languages(both):
    others = [
        "一个面包师星期一卖了48个面包，星期二卖了一半。他一共卖了多少个面包？",
        "كم عدد الكتب في المكتبة إذا كان فيها 312 رواية؟",
    ]
    long = " ".join(f"word{n} number {n % 97}" for n in range(60_000))
    write("long.jsonl", [{"text": f"{long} {TESTS[0]} {long}"}, {"text": long}, *({"text": text} for text in others)])
    write("more.jsonl", [{"problem": text} for text in [TESTS[0], *others]])
    decontaminate("--data", "long.jsonl", "--against", "more.jsonl", *STRINGS, "--output", "out")
    assert {row["train_id"] for row in lines_of("out/train_rows.jsonl")} == {"row-0", "row-2", "row-3"}
    assert Path("out/matches.jsonl").stat().st_size < 100_000
    [match] = [row for row in lines_of("out/matches.jsonl") if row["train_id"] == "row-0"]
    assert TESTS[0] in match["train_text"] and "more characters]" in match["train_text"]


def test_without_an_embedder_the_others_look(both, capsys, monkeypatch):
    monkeypatch.setattr("trl_math.optional.is_installed", lambda name: name != "sentence_transformers")
    assert decontaminate(*both, "--output", "out") == 0
    assert "paraphrase is left out" in (said := capsys.readouterr().out) and "trl-math[contamination]" in said
    found = summary_of("out")
    assert "paraphrase" in found["left_out"] and found["train_rows"]["num_removed"] == 2
    assert "paraphrase" in Path("out/report.html").read_text()
    with pytest.raises(MissingPackageError, match="contamination"):
        decontaminate(*both, "--detectors", "paraphrase", "--output", "other")


def test_a_dry_run_writes_nothing(both, capsys):
    assert decontaminate(*both, *STRINGS, "--output", "out", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "out would be written" in said and "5 texts" in said and not Path("out").exists()


# ---- numbers ----


def test_kappa_is_that_of_scikit_learn_and_unknown_is_no_opinion():
    first = [Match(n, 0, 1.0, {}) for n in (0, 1, 2)]
    second = [Match(n, 0, 1.0, {"outcome": "unknown"} if n == 5 else {}) for n in (1, 2, 3, 5)]
    found = agreement(states(first, "test", 8), states(second, "test", 8))
    known = [n for n in range(8) if n != 5]
    expected = cohen_kappa_score([n in (0, 1, 2) for n in known], [n in (1, 2, 3) for n in known])
    assert found["kappa"] == pytest.approx(expected) and found["num_unknown"] == 1
    assert (found["both"], found["only_first"], found["only_second"], found["neither"]) == (2, 1, 1, 3)
    assert kappa(0, 0, 0, 9) is None and kappa(9, 0, 0, 0) is None and kappa(0, 0, 0, 0) is None
    assert kappa(3, 0, 0, 3) == 1 and kappa(0, 3, 3, 0) == -1

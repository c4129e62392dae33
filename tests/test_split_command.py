"""`trl-math split`: files of the sides, the same bytes for the same request, and as a stage of an experiment."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import quiet_environment

from trl_math.cli.main import main
from trl_math.cli.split import run as run_split
from trl_math.data.columns import PROBLEMS
from trl_math.data.sources import load_source
from trl_math.data.templates import situation_of
from trl_math.errors import RunFolderError, UsageError
from trl_math.files import json_line
from trl_math.pipeline.plan import make_plan
from trl_math.pipeline.recipe import read_experiment


def split(*words):
    return run_split([str(word) for word in words])


def lines_of(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def texts(folder, side):
    return [row["problem"] for row in lines_of(Path(folder, f"{side}.jsonl"))]


def manifest_of(folder):
    return json.loads(Path(folder, "split.json").read_text())


def write(path, *rows):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(b"".join(map(json_line, rows)))
    return path


def problems(number, word="cats"):
    return [{"problem": f"Ann has {n} {word}.", "answer": n, "pass_rate": n / number} for n in range(number)]


# ---- what is written ----


def test_templates_of_dates(capsys):
    words = ("--data", "task:dates?size=180", "--by", "template", "--template", "situation", "--output", "out")
    assert split(*words) == 0
    said = capsys.readouterr().out
    sides = {side: lines_of(f"out/{side}.jsonl") for side in ("train", "test")}
    keys = {side: {situation_of(row["problem"]) for row in rows} for side, rows in sides.items()}
    assert not keys["train"] & keys["test"] and not Path("out/validation.jsonl").exists()
    assert all(row["template"] == situation_of(row["problem"]) for rows in sides.values() for row in rows)
    manifest = manifest_of("out")
    assert (manifest["num_train"], manifest["num_test"]) == (len(sides["train"]), len(sides["test"]))
    assert manifest["num_templates"] == len(keys["train"] | keys["test"]) and manifest["num_copies_in_train"] == 0
    assert manifest["settings"]["template"] == "situation" and manifest["data"] == "task:dates?size=180"
    assert f"train {len(sides['train'])} (" in said and "none on two sides" in said
    rows = load_source("out", "test")
    assert len(rows) == len(sides["test"]) and set(PROBLEMS.required) <= set(rows.column_names)
    before = Path("out/train.jsonl").read_bytes()
    assert split(*words) == 0 and "holds these sides already" in capsys.readouterr().out
    assert split(*words[:-1], "again") == 0 and Path("again/train.jsonl").read_bytes() == before
    assert [path.name for path in Path().iterdir() if path.suffix == ".part"] == []


def test_another_request_is_refused():
    words = ("--data", "task:coin_flip", "--output", "out")
    assert split(*words) == 0
    with pytest.raises(RunFolderError, match=r"out is of other settings \(seed 0 there, 1 here\)"):
        split(*words, "--seed", 1)
    with pytest.raises(RunFolderError, match="out is of other problems"):
        split("--data", "task:coin_flip?size=400", "--output", "out")
    Path("out/test.jsonl").write_text("{}\n")
    with pytest.raises(RunFolderError, match="is not as it was written"):
        split(*words)
    write("other/rows.jsonl", *problems(3))
    with pytest.raises(RunFolderError, match=r"its split.json is missing"):
        split(*words[:-1], "other")


def test_rows_of_a_file_keep_their_columns():
    write("data/rows.jsonl", *problems(10))
    assert split("--data", "data/rows.jsonl", "--output", "out", "--validation-share", 0.2) == 0
    rows = [row for side in ("train", "validation", "test") for row in lines_of(f"out/{side}.jsonl")]
    assert [len(texts("out", side)) for side in ("train", "validation", "test")] == [5, 2, 3]
    assert {row["problem_id"] for row in rows} == {f"rows/{n}" for n in range(10)}
    assert all(row["pass_rate"] == int(row["answer"]) / 10 for row in rows)
    assert load_source("out", "validation").num_rows == 2


def test_folds_divide_the_problems():
    write("rows.jsonl", *(row for word in "abcdefg" for row in problems(3, word * 3)))
    tested = []
    for fold in range(3):
        assert (
            split("--data", "rows.jsonl", "--by", "template", "--folds", 3, "--fold", fold, "--output", f"f{fold}")
            == 0
        )
        tested += texts(f"f{fold}", "test")
        assert not set(texts(f"f{fold}", "test")) & set(texts(f"f{fold}", "train"))
    assert sorted(tested) == sorted(row["problem"] for row in lines_of("rows.jsonl"))


def test_official_sides_are_untouched():
    for side, number in (("train", 10), ("test", 4), ("dev", 3)):
        write(f"data/{side}.jsonl", *problems(number, side))
    assert split("--data", "data", "--by", "official", "--output", "out") == 0
    assert texts("out", "test") == [row["problem"] for row in problems(4, "test")] and len(texts("out", "train")) == 10
    words = ("--data", "data", "--by", "official", "--validation-split", "dev", "--max-train", 6)
    write("shown.jsonl", problems(4, "test")[2])
    assert split(*words, "--exemplars", "shown.jsonl", "--output", "shown") == 0
    assert texts("shown", "test") == [row["problem"] for n, row in enumerate(problems(4, "test")) if n != 2]
    assert len(texts("shown", "train")) == 6 and len(texts("shown", "validation")) == 3
    assert manifest_of("shown")["num_shown"] == 1


def test_several_splits_are_divided_together():
    write("data/train.jsonl", *problems(6, "cats"))
    write("data/test.jsonl", *({**row, "id": f"t{n}"} for n, row in enumerate(problems(4, "dogs"))))
    assert split("--data", "data", "--split", "train+test", "--output", "out") == 0
    assert len(texts("out", "train")) == 7 and len(texts("out", "test")) == 3


def test_a_dry_run_writes_nothing(capsys):
    assert split("--data", "task:coin_flip", "--by", "template", "--output", "out", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "16 templates" in said and "out would be written" in said and not Path("out").exists()


def test_help_names_every_setting(capsys):
    assert main(["split", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"--{name}" in said for name in ("data", "by", "template", "folds", "exemplars", "max_train", "output"))


# ---- refused ----


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Which problems[?] Set data"),
        (("--data", "task:last_letter_concatenation", "--by", "template"), "All of 500 problems is one template"),
        (("--data", "task:coin_flip", "--test-share", 1), "test_share must be above 0 and below 1, got 1.0"),
        (("--data", "task:coin_flip", "--test-share", 0.0001), "500 problems leave test empty"),
        (("--data", "task:coin_flip?size=3", "--folds", 5, "--fold", 0), "3 problems cannot be divided into 5 folds"),
        (("--data", "task:coin_flip", "--by", "template", "--folds", 17, "--fold", 0), "of 16 templates cannot be"),
        (("--data", "task:coin_flip", "--by", "official"), "coin_flip has no official split"),
        (("--data", "one.jsonl", "--by", "official"), "is one file, without an official split"),
        (("--data", "one.jsonl"), "one.jsonl has 1 problem"),
        (("--data", "one.jsonl", "--by", "official", "--split", "test"), "set train_split and test_split, not split"),
        (("--data", "sides", "--by", "official", "--test-split", "train"), "The split 'train' is on two sides"),
        (("--data", "made.jsonl"), "has rows to train on, and not problems"),
        (("--data", "task:coin_flip", "--tset_share", 0.2), "Did you mean 'test_share'"),
    ],
)
def test_what_cannot_be_split(words, said, capsys):
    write("one.jsonl", *problems(2)[:1])
    write("sides/train.jsonl", *problems(3))
    write("made.jsonl", *({**row, "completion": "x", "sample_index": 0} for row in problems(3)))
    assert main(["split", *map(str, words), "--output", "out"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(said, error)
    assert not Path("out").exists()


def test_smoke_has_no_meaning():
    with pytest.raises(UsageError, match="split has no smoke form"):
        split("--data", "task:coin_flip", "--smoke")


# ---- as a stage ----


GENERATE = {"backend": "scripted", "num_samples": 2, "max_tokens": 16}
RECIPE = {
    "command": "run",
    "model": "embedded:tiny",
    "data": "task:dates?size=90",
    "output": "run",
    "before": [
        {"split": {"by": "template", "template": "situation"}},
        {"generate": GENERATE},
        "grade",
        {"evaluate": {"backend": "scripted", "num_samples": 1, "benchmarks": ["{split}/test.jsonl"], "max_tokens": 4}},
    ],
}


def plan(**changes):
    return {stage.name: stage for stage in make_plan(read_experiment({**RECIPE, **changes})).stages}


def test_stages_read_what_trains():
    stages = plan()
    folder = str(stages["split"].output)
    assert stages["split"].settings["data"] == "task:dates?size=90" and "split" not in stages["split"].settings
    for name in ("generate", "grade"):
        assert (stages[name].settings["data"], stages[name].settings["split"]) == (folder, "train")
        assert stages[name].sources["data"] == ["before/split"]
    assert stages["evaluate"].settings["benchmarks"] == [f"{folder}/test.jsonl"]
    other = plan(seed=1)
    assert other["split"].key != stages["split"].key and other["grade"].key != stages["grade"].key
    before = plan(before=[{"generate": GENERATE}, *RECIPE["before"]][:2])
    assert before["generate"].settings["data"] == "task:dates?size=90", "a stage before the split reads all"


@pytest.mark.slow
def test_an_experiment_with_a_split():
    Path("recipe.yaml").write_text(json.dumps(RECIPE))
    command = [sys.executable, "-m", "trl_math.cli.main", "run", "--config", "recipe.yaml"]
    subprocess.run(command, check=True, env=quiet_environment())
    stages = plan()
    asked = {row["problem_id"] for row in lines_of(stages["grade"].output)}
    assert asked == {row["problem_id"] for row in lines_of(stages["split"].output / "train.jsonl")}
    tested = {row["problem_id"] for row in lines_of(stages["split"].output / "test.jsonl")}
    samples = lines_of(stages["evaluate"].output / "samples.jsonl")
    assert {row["problem_id"] for row in samples} == tested and not tested & asked


def test_a_split_that_cannot_be_stops_the_plan(capsys):
    Path("recipe.yaml").write_text(json.dumps({**RECIPE, "data": "task:last_letter_concatenation"}))
    assert main(["run", "--config", "recipe.yaml", "--dry-run"]) == 0
    assert "before/split: All of 500 problems is one template" in capsys.readouterr().out


def test_made_folders_that_cannot_be_written():
    Path("file").write_text("")
    with pytest.raises(RunFolderError, match=r"file is there, and its split\.json is missing"):
        split("--data", "task:coin_flip", "--output", "file")

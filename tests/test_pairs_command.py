"""`trl-math pairs` on folders that generate and grade wrote: what it writes, refuses, repeats and survives."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from trl_math.cli.main import main
from trl_math.cli.pairs import run as run_pairs
from trl_math.data.columns import PAIRS
from trl_math.errors import DataError, RunFolderError, TrlMathError, UsageError
from trl_math.files import json_line
from trl_math.generation.checkpoint import open_tokenizer
from trl_math.generation.end_tokens import decode
from trl_math.generation.tokenise import all_prompt_token_ids


NUM_PROBLEMS, NUM_SAMPLES = 12, 10


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """Graded folders: of two prompt styles and two temperatures, with a digit for an answer, right one time in ten."""
    home = tmp_path_factory.mktemp("sampled")
    problems = [
        {"problem_id": f"p/{i}", "problem": f"Which digit is {i}?", "answer": str(i % 10), "answer_kind": "number"}
        for i in range(NUM_PROBLEMS)
    ]
    (home / "problems.jsonl").write_bytes(b"".join(json_line({**row, "source": "test"}) for row in problems))
    kinds = {
        "cot": [],
        "warm": ["--temperature", "1.2", "--seed", "1"],
        "direct": ["--prompt-style", "direct"],
        "chat": ["--prompt-style", "chat_cot"],
    }
    for name, flags in kinds.items():
        style = [] if "--prompt-style" in flags else ["--prompt-style", "cot"]
        words = [
            "--model",
            "embedded:tiny",
            "--data",
            f"{home}/problems.jsonl",
            "--backend",
            "scripted",
            *style,
            *flags,
        ]
        assert main(["generate", *words, "--num-samples", str(NUM_SAMPLES), "--output", f"{home}/{name}"]) == 0
        assert main(["grade", f"{home}/{name}", "--data", f"{home}/problems.jsonl"]) == 0
    return home


def pairs(*words):
    return run_pairs([str(word) for word in words])


def rows_of(folder, name="pairs.jsonl"):
    return [json.loads(line) for line in (Path(folder) / name).read_text().splitlines()]


def manifest_of(folder):
    return json.loads((Path(folder) / "pairs.json").read_text())


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_from_samples_to_a_folder(sampled, capsys):
    """The tokens are the sampler's, the texts are theirs, and the manifest says where all of it comes from."""
    assert pairs(sampled / "cot", "--output", "out", "--rule", "all", "--eval-problems", 2) == 0
    graded = [json.loads(line) for line in (sampled / "cot" / "graded.jsonl").read_text().splitlines()]
    by_key = {(row["problem_id"], row["sample_index"]): row for row in graded}
    tokenizer = open_tokenizer("embedded:tiny")
    rows, held_out = rows_of("out"), rows_of("out", "eval.jsonl")
    assert rows and held_out
    assert not {row["problem_id"] for row in rows} & {row["problem_id"] for row in held_out}
    for row in [*rows, *held_out]:
        assert set(row) <= set(PAIRS.columns) and row["rule"] == "all"
        for side, verdict in (("chosen", True), ("rejected", False)):
            sample = by_key[row["problem_id"], row[f"{side}_index"]]
            assert sample["correct"] is verdict and sample["prompt"] == row["prompt"]
            assert row[f"{side}_ids"] == sample["completion_ids"] and row[side] == sample["completion"]
        assert [row["prompt_ids"]] == all_prompt_token_ids(tokenizer, [row["prompt"]])
    run, manifest = json.loads((sampled / "cot" / "run.json").read_text()), manifest_of("out")
    assert (manifest["sampler"], manifest["model"]) == (run["sampler"], "embedded:tiny")
    assert manifest["model_identity"] == run["settings"]["model"]
    assert manifest["tokenizer"] == run["settings"]["tokenizer"]
    assert manifest["chat_template"] == run["settings"]["chat_template"]
    assert (manifest["num_pairs"], manifest["num_eval_pairs"]) == (len(rows), len(held_out))
    assert manifest["num_eval_problems"] == 2
    assert {"pairs.svg", "pairs.png"} <= {path.name for path in Path("out").iterdir()}
    said = capsys.readouterr().out
    assert f"out holds {len(rows):,} pairs" in said and "AUC of length alone" in said


def test_same_samples_give_the_same_bytes(sampled, capsys):
    """In another order of folders and of lines, too; and a finished folder is left as it is."""
    assert pairs(sampled / "cot", sampled / "warm", "--output", "one") == 0
    assert "temperature 1.0 and 1.2" in capsys.readouterr().out
    lines = (sampled / "warm" / "graded.jsonl").read_text().splitlines(keepends=True)
    random.Random(0).shuffle(lines)
    Path("shuffled").mkdir()
    Path("shuffled/graded.jsonl").write_text("".join(lines))
    Path("shuffled/run.json").write_bytes((sampled / "warm" / "run.json").read_bytes())
    assert pairs("shuffled", sampled / "cot", "--output", "other") == 0
    assert bytes_of("one") == bytes_of("other")
    before = {path: path.stat().st_mtime_ns for path in Path("one").iterdir()}
    assert pairs(sampled / "cot", sampled / "warm", "--output", "one") == 0
    assert "already: nothing to do" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in Path("one").iterdir()}


def test_finished_folders_are_not_overwritten(sampled):
    assert pairs(sampled / "cot", "--output", "out") == 0
    before = bytes_of("out")
    for words, said in (
        ([sampled / "cot", "--seed", 1], "holds other pairs (seed 0 there, 1 here)"),
        ([sampled / "warm"], "holds pairs of other samples"),
    ):
        with pytest.raises(RunFolderError) as error:
            pairs(*words, "--output", "out")
        assert said in str(error.value)
    assert bytes_of("out") == before
    with Path("out/pairs.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(RunFolderError, match="is not as it was written"):
        pairs(sampled / "cot", "--output", "out")


def test_other_folders_are_not_touched(sampled):
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    Path("empty").mkdir()
    for folder, said in (("mine", "holds no pairs.json"), ("mine/notes.txt", "is a file")):
        with pytest.raises(RunFolderError, match=said):
            pairs(sampled / "cot", "--output", folder)
    assert pairs(sampled / "cot", "--output", "empty") == 0


def test_killed_at_any_moment(sampled):
    """A folder is whole or not there; the same command ends with the same bytes."""
    assert pairs(sampled / "cot", "--output", "undisturbed") == 0
    chance, start = random.Random(0), time.monotonic()
    child = _start(sampled / "cot", "timed")
    assert os.waitpid(child, 0)[1] == 0
    whole = time.monotonic() - start
    num_partial = 0
    for number in range(3):
        child = _start(sampled / "cot", f"killed-{number}")
        # The first comes early, however slow the machine was when the whole was timed.
        time.sleep(chance.uniform(0, whole) if number else whole / 50)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        folder = Path(f"killed-{number}")
        num_partial += not folder.exists()
        if folder.exists():
            assert bytes_of(folder) == bytes_of("undisturbed")
        assert pairs(sampled / "cot", "--output", folder) == 0
        assert bytes_of(folder) == bytes_of("undisturbed")
        assert not Path(f".killed-{number}.part").exists()
    assert num_partial > 0


def _start(samples, output):
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os._exit(pairs(samples, "--output", output))


def test_two_at_a_time_exclude_each_other(sampled):
    from trl_math.data.pair_folder import hold_pair_folder

    with hold_pair_folder(Path("out")), pytest.raises(RunFolderError, match="Another process is making pairs in out"):
        pairs(sampled / "cot", "--output", "out")


def test_conversations_and_prefix(sampled):
    """What every sample begins with moves behind the opened turn of the assistant."""
    assert pairs(sampled / "chat", "--output", "out", "--prefix-to-prompt", "I guess", "--rule", "max_min") == 0
    assert pairs(sampled / "chat", "--output", "plain", "--rule", "max_min") == 0
    tokenizer = open_tokenizer("embedded:tiny")
    for row, whole in zip(rows_of("out"), rows_of("plain"), strict=True):
        assert row["prompt"] == [*whole["prompt"], {"role": "assistant", "content": "I guess"}]
        assert [*row["prompt_ids"], *row["chosen_ids"]] == [*whole["prompt_ids"], *whole["chosen_ids"]]
        assert "I guess" + row["chosen"][0]["content"] == whole["chosen"][0]["content"]
        assert decode(tokenizer, row["chosen_ids"]) == row["chosen"][0]["content"]
    with pytest.raises(DataError) as error:
        pairs(sampled / "chat", "--output", "none", "--prefix-to-prompt", "```python\n")
    assert "'```python\\n', and a sample begins 'I guess" in str(error.value)
    assert not Path("none").exists()


def test_templates_and_models_do_not_mix(sampled):
    both = [sampled / "cot", sampled / "direct"]
    with pytest.raises(DataError) as error:
        pairs(*both, "--output", "out")
    assert "pairs from different templates" in str(error.value)
    assert "prompt_style 'cot' there, 'direct' here" in str(error.value)
    assert pairs(*both, "--output", "both", "--mixed-templates", "--rule", "all") == 0
    one, other = ({row["prompt"] for row in rows_of(folder)} for folder in _each_alone(both))
    assert {row["prompt"] for row in rows_of("both")} == one | other
    _with_settings(sampled / "warm", "elsewhere", model="sha256:0")
    with pytest.raises(DataError, match="hold samples of different models or set-ups"):
        pairs(sampled / "cot", "elsewhere", "--output", "out", "--mixed-templates")


def _each_alone(folders):
    for number, folder in enumerate(folders):
        pairs(folder, "--output", f"alone-{number}", "--rule", "all")
        yield f"alone-{number}"


def _with_settings(folder, copy, **settings):
    """Copy a folder of samples, with other settings in its manifest."""
    Path(copy).mkdir()
    Path(copy, "graded.jsonl").write_bytes((folder / "graded.jsonl").read_bytes())
    manifest = json.loads((folder / "run.json").read_text())
    manifest["settings"] |= settings
    Path(copy, "run.json").write_text(json.dumps(manifest))


def test_negative_control(sampled, capsys):
    """Prompts of the same problems under another template, said aloud and written down."""
    assert pairs(sampled / "cot", sampled / "direct", "--output", "out", "--mismatch-prompts", "--rule", "all") == 0
    assert "WARNING: mismatch_prompts" in capsys.readouterr().out
    assert manifest_of("out")["settings"]["mismatch_prompts"] is True
    asked = {
        (row["problem_id"], row["sampler"]): row["prompt"]
        for name in ("cot", "direct")
        for row in map(json.loads, (sampled / name / "graded.jsonl").read_text().splitlines())
    }
    rows = rows_of("out")
    matches = [row["prompt"] == asked[row["problem_id"], row["sampler"].partition("|")[0]] for row in rows]
    assert 0 < sum(matches) < len(matches)
    tokenizer = open_tokenizer("embedded:tiny")
    assert all([row["prompt_ids"]] == all_prompt_token_ids(tokenizer, [row["prompt"]]) for row in rows)
    with pytest.raises(UsageError, match="asked with several prompts"):
        pairs(sampled / "cot", "--output", "alone", "--mismatch-prompts")


def test_another_tokenizer_is_refused(sampled):
    _with_settings(sampled / "cot", "other", tokenizer="0" * 12)
    with pytest.raises(UsageError, match="is not the one that other was sampled with"):
        pairs("other", "--output", "out")
    _with_settings(sampled / "chat", "template", chat_template="0" * 12)
    with pytest.raises(UsageError, match="chat template"):
        pairs("template", "--output", "out")
    _with_settings(sampled / "cot", "gone")
    manifest = json.loads(Path("gone/run.json").read_text())
    manifest["sessions"][-1]["model"] = "./nowhere/model"
    Path("gone/run.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="give tokenizer"):
        pairs("gone", "--output", "out")
    assert pairs("gone", "--output", "out", "--tokenizer", "embedded:tiny") == 0


def write_graded(path, rows):
    Path(path).write_bytes(b"".join(map(json_line, rows)))


def graded_rows(name="p", verdicts=(True, False), **changes):
    return [
        {
            "problem_id": name,
            "sample_index": index,
            "prompt": "Q:",
            "completion": f" answer {index}",
            "correct": verdict,
            **changes,
        }
        for index, verdict in enumerate(verdicts)
    ]


def test_a_plain_file_makes_pairs_of_texts(capsys):
    """Samples of a server that tells no tokens, or of another program."""
    write_graded("samples.jsonl", [*graded_rows("a"), *graded_rows("b", (True, False, False, True))])
    assert pairs("samples.jsonl", "--output", "out", "--unfinished", "rejected") == 0
    said = capsys.readouterr().out
    assert "Pairs are texts" in said and "do not say how they ended" in said and "they will look finished" in said
    assert len(rows_of("out")) == 3 and "prompt_ids" not in rows_of("out")[0]
    assert manifest_of("out")["model"] is None
    with pytest.raises(UsageError, match="leave tokenizer out"):
        pairs("samples.jsonl", "--output", "other", "--tokenizer", "embedded:tiny")


def test_a_last_line_without_a_line_break_counts_and_half_a_line_does_not(capsys):
    whole = b"".join(map(json_line, graded_rows("a")))
    Path("whole.jsonl").write_bytes(b"\n" + whole.rstrip(b"\n"))
    assert pairs("whole.jsonl", "--output", "out") == 0 and len(rows_of("out")) == 1
    Path("torn.jsonl").write_bytes(whole + json_line(graded_rows("b")[0])[:20])
    capsys.readouterr()
    assert pairs("torn.jsonl", "--output", "other") == 0 and len(rows_of("other")) == 1
    assert "The last line of torn.jsonl is half a row, and was left out." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "flags", "said"),
    [
        ([*graded_rows("a", (True, True)), *graded_rows("b", (False,))], [], "Pass rates: 1 at 0, 1 at 1."),
        (graded_rows("a", (None, None)), [], "the gold answers of their problems are missing or cannot be read"),
        (graded_rows("a"), ["--min-pass-rate", "0.9"], "1 problems: pass rate outside of the band"),
        (graded_rows("a", completion="the same"), [], "2 samples: right and wrong at once"),
        (graded_rows("a", finish_reason="length"), [], "2 samples: unfinished"),
        (graded_rows("a"), ["--rule", "fixed", "--pairs-per-problem", "2"], "too few samples for pairs_per_problem"),
        (graded_rows("a", num_tokens=9), ["--max-tokens", "8"], "2 samples: longer than max_tokens"),
    ],
)
def test_no_pair_can_be_built(rows, flags, said):
    """One line says why, and nothing is written."""
    write_graded("samples.jsonl", rows)
    with pytest.raises(DataError) as error:
        pairs("samples.jsonl", "--output", "out", *flags)
    assert str(error.value).startswith("No pair can be built") and said in str(error.value)
    assert "\n" not in str(error.value) and not Path("out").exists() and not list(Path().glob(".out.part"))


def test_bad_sources(sampled):
    Path("ungraded").mkdir()
    Path("ungraded/completions.jsonl").write_text("")
    Path("empty").mkdir()
    write_graded("plain.jsonl", [{key: row[key] for key in row if key != "correct"} for row in graded_rows()])
    write_graded("short.jsonl", [{"problem_id": "a", "correct": True}])
    Path("broken.jsonl").write_text("{\n")
    write_graded("twice.jsonl", [*graded_rows(), *graded_rows()])
    write_graded("many.jsonl", [*graded_rows(sampler="x"), *graded_rows("b", sampler="y")])
    Path("none.jsonl").write_text("")
    for words, said in (
        ([], "Which samples?"),
        (["nowhere"], "There is no nowhere"),
        (["ungraded"], "are not graded: run `trl-math grade ungraded --data PROBLEMS`"),
        (["empty"], "There are no graded samples in empty"),
        (["plain.jsonl"], "plain.jsonl:1: this sample is not graded. Run `trl-math grade`"),
        (["short.jsonl"], "there is no sample_index, prompt, completion"),
        (["broken.jsonl"], "broken.jsonl:1: not a line of JSON"),
        (["twice.jsonl"], "Sample 0 of 'p' is there twice"),
        (["many.jsonl"], "these samples are of 2 samplers"),
        (["none.jsonl"], "There are no graded samples in none.jsonl"),
        ([sampled / "cot", f"{sampled}/cot/."], "These are the same samples"),
        ([sampled / "cot", "--smoke"], "pairs has no smoke form"),
        ([sampled / "cot", "--rul", "all"], "Unknown key 'rul'. Did you mean 'rule'?"),
    ):
        with pytest.raises(TrlMathError) as error:
            pairs(*words, *([] if "--output" in words else ["--output", "out"]))
        assert said.lower() in str(error.value).lower() and "\n" not in str(error.value)
    assert not Path("out").exists()


def test_prompts_longer_than_the_limit(sampled):
    with pytest.raises(DataError, match=f"{NUM_PROBLEMS} problems: prompt longer than max_prompt_tokens"):
        pairs(sampled / "cot", "--output", "out", "--max-prompt-tokens", 3)


def test_samples_that_were_not_graded_are_named(sampled, capsys):
    _with_settings(sampled / "cot", "part")
    lines = Path("part/graded.jsonl").read_text().splitlines(keepends=True)
    Path("part/completions.jsonl").write_bytes((sampled / "cot" / "completions.jsonl").read_bytes())
    Path("part/graded.jsonl").write_text("".join(lines[:-20]))
    assert pairs("part", "--output", "out") == 0
    assert "20 of the 120 samples in part are not graded" in capsys.readouterr().out


def test_recipe_and_dry_run(sampled, capsys):
    """A recipe says the same as flags; a dry run shows the pairs and writes nothing."""
    Path("recipe.yaml").write_text(
        f"command: pairs\nsamples: [{sampled}/cot]\noutput: out\nrule: random\npairs_per_problem: 2\n"
    )
    assert pairs("--config", "recipe.yaml", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "120 graded samples of 12 problems" in said and "out would be written" in said
    assert not Path("out").exists()
    assert pairs("--config", "recipe.yaml") == 0
    assert pairs(sampled / "cot", "--output", "flags", "--rule", "random", "--pairs-per-problem", 2) == 0
    assert bytes_of("out") == bytes_of("flags")
    assert pairs("--help") == 0
    assert "--max_pairs_per_problem" in capsys.readouterr().out


def test_pairs_of_an_evaluation(capsys):
    """Its samples lie in one file, what they were drawn with in folders below, and its problems beside them."""
    Path("problems.jsonl").write_bytes(
        b"".join(json_line({"problem_id": f"{i}", "problem": f"{i}?", "answer": str(i)}) for i in range(10))
    )
    words = ["--model", "embedded:tiny", "--backend", "scripted", "--num-samples", "16", "--temperature", "1"]
    assert main(["evaluate", *words, "--benchmarks", "problems.jsonl", "--output", "evaluated"]) == 0
    assert pairs("evaluated", "--output", "out") == 0
    rows = rows_of("out")
    assert rows and all(row["answer"] == str(row["problem_id"]).rpartition("/")[2] for row in rows)
    assert all(row["prompt_ids"] for row in rows)

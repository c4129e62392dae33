"""`trl-math rationales`: rows of D samples that are prefixes of one another, whatever is killed when, at what cost."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import quiet_environment
from scripted_server import ScriptedServer, answer, error, quick  # noqa: F401

from trl_math.cli.main import main
from trl_math.cli.rationales import run as run_rationales
from trl_math.data.columns import RATIONALES
from trl_math.data.prompts import PROMPT_STYLES
from trl_math.errors import BudgetError, DataError, RunFolderError, ServerError, TrlMathError, UsageError
from trl_math.files import json_line
from trl_math.generation.backend import most_prompt_tokens
from trl_math.optional import is_installed


NUM_PROBLEMS = 12
MODEL = ("--model", "embedded:tiny", "--backend", "scripted", "--grading-workers", 1)
# The scripted model guesses a digit, always in the same words.
SMALL = ("--num-rationales", 8, "--duplicates", "keep")
PRICES = ("--price-input", 1, "--price-output", 2)
CPU = ("--use_cpu", "true", "--bf16", "false", "--report_to", "none", "--save_strategy", "no")


def write(path, rows):
    Path(path).write_bytes(b"".join(map(json_line, rows)))
    return path


def problem(index, **changes):
    # Solved one time in ten; what is no digit, never.
    gold = str(index % 10) if index % 4 else "17"
    kind = {"answer": gold, "answer_kind": "number", "source": f"set {index % 2}"}
    return {"problem_id": f"p/{index}", "problem": f"Which digit is {index}?", **kind, **changes}


@pytest.fixture(autouse=True)
def data():
    return write("problems.jsonl", map(problem, range(NUM_PROBLEMS)))


def rationales(*words):
    return run_rationales([str(word) for word in words])


def taught(*words, output="out", style="cot", data="problems.jsonl"):
    return rationales(*MODEL, "--prompt-style", style, "--data", data, "--output", output, *words)


def lines_of(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def rows_of(folder="out"):
    return lines_of(Path(folder, "rows.jsonl"))


def manifest_of(folder="out"):
    return json.loads(Path(folder, "rationales.json").read_text())


# ---- what is written ----


def test_right_samples_become_rows(capsys):
    assert taught(*SMALL) == 0
    graded = {(row["problem_id"], row["sample_index"]): row for row in lines_of("out/samples/graded.jsonl")}
    assert len(graded) == 8 * NUM_PROBLEMS
    rows = rows_of()
    assert {(row["problem_id"], row["sample_index"]) for row in rows} == {
        key for key, row in graded.items() if row["correct"]
    }
    assert rows, "with one in ten right, some of ninety-six are"
    for row in rows:
        assert set(RATIONALES.required) <= set(row) <= set(RATIONALES.columns)
        index = int(row["problem_id"].split("/")[1])
        assert row["prompt"] == f"Question: Which digit is {index}?\nAnswer:"
        assert row["completion"] == f"I guess \\boxed{{{index % 10}}}."
    manifest = manifest_of()
    assert manifest["num_rows"] == len(rows) == manifest["num_right"]
    assert manifest["dropped"] == {"wrong": 8 * NUM_PROBLEMS - len(rows)}
    assert manifest["sampling"]["temperature"] == 0.7 and manifest["num_samples"] == 8 * NUM_PROBLEMS
    assert manifest["num_tokens"] == sum(row["num_tokens"] for row in graded.values())
    found = json.loads(Path("out/yield.json").read_text())
    assert [point["num_samples"] for point in found["points"]] == [1, 2, 4, 8]
    assert found["points"][-1]["num_rows"] == len(rows) and sum(found["kept_of_problems"]) == len(rows)
    assert found["points"][-1]["kept"]["n"] == NUM_PROBLEMS
    assert Path("out/yield.svg").read_text().startswith("<?xml") and Path("out/yield.png").stat().st_size > 10_000
    said = capsys.readouterr().out
    assert f"holds {len(rows)} rationales: trl-math sft --dataset_name out/rows.jsonl" in said
    assert f"left out: {8 * NUM_PROBLEMS - len(rows)} wrong" in said
    assert "problems with one" in said


@pytest.mark.parametrize("more", [(), ("--max-per-problem", 2), ("--keep-wrong", "--duplicates", "exact")])
def test_the_rows_of_fewer_samples_are_among_those_of_more(more):
    """Byte by byte, whether samples were drawn for them, or were there already, in whatever order they lie."""
    write("problems.jsonl", map(problem, range(60)))
    words = ["--duplicates", "keep", *more] if "--duplicates" not in more else list(more)
    assert taught("--num-rationales", 16, *words, output="sixteen") == 0
    sets = {}
    for number in (4, 8, 16):
        assert taught("--num-rationales", number, *words, output=f"own-{number}") == 0
        graded = Path("sixteen/samples/graded.jsonl").read_bytes().splitlines(keepends=True)
        Path("mixed.jsonl").write_bytes(b"".join(graded[number:][::-1] + graded[:number]))
        there = ("mixed.jsonl", "--data", "problems.jsonl", "--output", f"of-{number}", "--num-rationales", number)
        assert rationales(*there, *words) == 0
        own = Path(f"own-{number}/rows.jsonl").read_bytes()
        assert own == Path(f"of-{number}/rows.jsonl").read_bytes()
        sets[number] = set(own.splitlines())
    assert sets[4] <= sets[8] <= sets[16] and len(sets[16]) > len(sets[4])


def test_two_stages_and_the_gold_answer_behind_the_reasoning():
    words = ("--prompting", "two_stage", "--num-rationales", 16, "--duplicates", "keep", "--row-style", "tool")
    assert taught(*words) == 0
    samples = lines_of("out/samples/completions.jsonl")
    pattern = r"I guess \\boxed\{\d\}\.\nTherefore, the answer is I guess \\boxed\{\d\}\."
    assert all(re.fullmatch(pattern, row["completion"]) for row in samples)
    assert {(row["reasoning_finish_reason"], row["finish_reason"]) for row in samples} == {("stop", "stop")}
    assert all(row["completion_ids"] is None and row["num_prompt_tokens"] > 0 for row in samples)
    rows = rows_of()
    assert rows
    for row in rows:
        assert row["prompt"] == PROMPT_STYLES["tool"].prompt(row)
        assert re.match(r" I guess \d\.\n\nThe final", row["completion"])
        assert row["completion"].endswith(f"\n\nThe final answer is $\\boxed{{{row['answer']}}}$.")
    sampling = manifest_of()["sampling"]
    assert (sampling["prompting"], sampling["answer_request"]) == ("two_stage", "Therefore, the answer is")
    with pytest.raises(RunFolderError, match=r"other sampling \(answer_tokens 32 there, 16 here\)"):
        taught(*words, "--answer-tokens", 16)


def test_wrong_ones_for_the_ablation():
    """They come with their verdict, and with the gold answer where the style has a place for it."""
    assert taught(*SMALL, "--keep-wrong") == 0
    rows = rows_of()
    assert len(rows) == 8 * NUM_PROBLEMS and {row["correct"] for row in rows} == {True, False}
    assert taught(*SMALL, "--keep-wrong", "--row-style", "chat_cot", output="styled") == 0
    for row in rows_of("styled"):
        assert row["completion"][0]["content"].endswith(f"\\boxed{{{row['answer']}}}$.")


def marked_unfinished(folder="out"):
    """Write the samples of a folder as if every second one had run out of tokens within its answer."""
    rows = lines_of(f"{folder}/samples/graded.jsonl")
    for row in rows[::2]:
        row |= {"finish_reason": "length", "completion": row["completion"][:-2]}
    return str(write("mixed.jsonl", rows))


def test_unfinished_ones_are_marked_and_teach_no_end():
    """A student of either kind does not learn to stop where a sample was cut."""
    from datasets import load_dataset

    from trl_math.models import tiny_t5_tokenizer, tiny_tokenizer
    from trl_math.trainers import MathSeq2SeqConfig, MathSFTConfig
    from trl_math.trainers.trained_rows import ready_rows

    assert taught(*SMALL) == 0
    there = (marked_unfinished(), "--data", "problems.jsonl", *SMALL, "--keep-wrong", "--keep-unfinished")
    assert rationales(*there, "--output", "rows") == 0
    rows = load_dataset("json", data_files="rows/rows.jsonl", split="train")
    assert 0 < sum(rows["is_unfinished"]) < len(rows)
    cpu = {"use_cpu": True, "bf16": False, "report_to": "none"}
    chats = rows.map(
        lambda row: {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }
    )
    students = [
        (tiny_tokenizer(), MathSFTConfig("x", **cpu), rows),
        (tiny_tokenizer(), MathSFTConfig("x", **cpu), chats),
        (tiny_t5_tokenizer(), MathSeq2SeqConfig("x", **cpu), rows),
    ]
    for tokenizer, config, data in students:
        end = tokenizer.eos_token_id
        for row, text in zip(ready_rows(data, tokenizer, config, "train"), rows["completion"], strict=True):
            trained = [token for token in row["labels"] if token != -100]
            assert (end in trained) != row["is_unfinished"]
            if row["is_unfinished"]:
                assert tokenizer.decode(trained) == text
            assert len(row["input_ids"]) == len(row["labels"])
        with pytest.raises(DataError, match="are unfinished: none would teach the model to stop"):
            ready_rows(data.filter(lambda row: row["is_unfinished"]), tokenizer, config, "train")
    sft = ["--dataset_name", "rows", *CPU, "--max_steps", "1", "--per_device_train_batch_size", "2"]
    for name in ("tiny", "t5-tiny"):
        assert main(["sft", "--model_name_or_path", f"embedded:{name}", "--output_dir", f"sft-{name}", *sft]) == 0


def test_behind_an_unfinished_one_the_gold_answer_is_an_end():
    assert taught(*SMALL) == 0
    there = (marked_unfinished(), "--data", "problems.jsonl", *SMALL, "--keep-wrong", "--keep-unfinished")
    assert rationales(*there, "--row-style", "tool", "--output", "rows") == 0
    assert all("is_unfinished" not in row and row["answer"] in row["completion"] for row in rows_of("rows"))


def test_weights_are_one_on_average_and_sft_reads_them():
    words = ("--num-rationales", 24, "--duplicates", "keep", "--problem-weights", "inverse_count")
    assert taught(*words) == 0
    rows = rows_of()
    sums = {}
    for row in rows:
        sums[row["problem_id"]] = sums.get(row["problem_id"], 0) + row["weight"]
    assert sum(sums.values()) == pytest.approx(len(rows)) and max(sums.values()) == pytest.approx(min(sums.values()))
    assert len({row["weight"] for row in rows}) > 1, "some problems have more rows than others"
    sft = ["--model_name_or_path", "embedded:tiny", "--dataset_name", "out", "--output_dir", "sft", *CPU]
    assert main(["sft", *sft, "--max_steps", "1", "--per_device_train_batch_size", "2"]) == 0
    assert main(["sft", *sft, "--prompt_style", "cot"]) == 2, "the data's solutions would stand in their place"


def test_near_duplicates_are_left_out(capsys):
    assert taught("--num-rationales", 24) == 0
    rows, manifest = rows_of(), manifest_of()
    assert len(rows) == len({row["problem_id"] for row in rows}) == manifest["num_with_rationale"]
    assert manifest["dropped"]["duplicate"] == manifest["num_right"] - len(rows) > 0
    assert "too like another of the problem" in capsys.readouterr().out


def test_the_same_command_changes_nothing_and_another_is_refused(capsys):
    assert taught(*SMALL) == 0
    before = Path("out/rows.jsonl").read_bytes()
    assert taught(*SMALL) == 0
    assert "made of this already: nothing to do" in capsys.readouterr().out
    # What it may cost changes no row.
    assert taught(*SMALL, *PRICES, "--max-cost", 9) == 0
    with pytest.raises(RunFolderError, match=r"other settings \(num_rationales 8 there, 4 here\).*samples stay"):
        taught("--num-rationales", 4, *SMALL[2:])
    Path("out/rows.jsonl").unlink()
    assert taught(*SMALL) == 0 and Path("out/rows.jsonl").read_bytes() == before


def test_samples_of_others():
    """A folder of `generate` and `grade` does; what is wrong with one is said."""
    words = ["generate", "--model", "embedded:tiny", "--backend", "scripted", "--prompt-style", "cot"]
    assert main([*words, "--data", "problems.jsonl", "--num-samples", "8", "--output", "drawn"]) == 0
    there = ("drawn", "--data", "problems.jsonl", *SMALL)
    with pytest.raises(DataError, match="The samples in drawn are not graded: run `trl-math grade drawn"):
        rationales(*there, "--output", "rows")
    assert main(["grade", "drawn", "--data", "problems.jsonl", "--workers", "1"]) == 0
    assert rationales(*there, "--output", "rows") == 0
    assert manifest_of("rows")["model"] == "embedded:tiny" and manifest_of("rows")["sampling"]["temperature"] == 1.0
    write("few.jsonl", [problem(1), problem(2), problem(99)])
    assert rationales("drawn", "--data", "few.jsonl", *SMALL, "--output", "few", "--keep-wrong") == 0
    assert {row["problem_id"] for row in rows_of("few")} == {"p/1", "p/2"}
    write("others.jsonl", [problem(100)])
    with pytest.raises(DataError, match=r"No sample answers one of these problems \(a sample is of 'p/0'"):
        rationales("drawn", "--data", "others.jsonl", *SMALL, "--output", "others")


def test_lengths_that_nobody_counted_are_no_reason_to_choose():
    """As of published completions, which come without numbers of tokens."""
    record = {"sample_index": 0, "completion_index": 0, "question": "Which digit is 3?", "answer": "3"}
    record |= {"prompt": "Q: Which digit is 3?\nA: Let's think step by step.", "finish_reason": "stop"}
    record |= {"completion": " It is 3. Therefore, the answer is 3."}
    told = {"metadata": {"dataset_key": "p", "prediction_template": "zs_cot"}, "data": {"0": [record]}}
    Path("published.json").write_text(json.dumps(told))
    assert main(["convert", "published.json", "--to", "samples", "--output", "there"]) == 0
    assert main(["grade", "there", "--data", "there/problems.jsonl", "--workers", "1"]) == 0
    words = ("there", "--data", "there/problems.jsonl", "--num-rationales", 1)
    for bound in ("--min-rationale-tokens", "--max-rationale-tokens"):
        with pytest.raises(DataError, match="Sample 0 of 'p/0' does not say how many tokens it has"):
            rationales(*words, bound, 4, "--output", "out")
    assert rationales(*words, "--output", "out") == 0 and len(rows_of()) == 1


def test_fewer_samples_than_asked_are_said(capsys):
    assert taught(*SMALL) == 0
    words = ("out/samples", "--data", "problems.jsonl", "--output", "more", "--num-rationales", 32)
    assert rationales(*words, "--duplicates", "keep") == 0
    said = capsys.readouterr().out
    assert "No problem has more than 8 samples, and 32 were asked for: the yield ends there." in said
    assert manifest_of("more")["num_short_of_samples"] == NUM_PROBLEMS
    points = [json.loads(Path(folder, "yield.json").read_text())["points"] for folder in ("out", "more")]
    assert [point["num_samples"] for point in points[1]] == [1, 2, 4, 8] and points[0] == points[1]
    assert rationales(*words[:4], "seven", *words[5:], "--dry-run") == 0
    said = capsys.readouterr().out
    assert "the yield ends there" in said and not re.search(r"^ *\|? *32 ", said, re.MULTILINE)
    # Of some problems all are there, of others fewer.
    graded = lines_of("out/samples/graded.jsonl")
    write("some.jsonl", [row for row in graded if row["sample_index"] < 3 or row["problem_id"] == "p/1"])
    some = ("some.jsonl", "--data", "problems.jsonl", "--output", "some", *SMALL)
    assert rationales(*some) == 0
    assert "11 problems have fewer than 8 samples (3 at least): their yield is lower" in capsys.readouterr().out
    points = json.loads(Path("some/yield.json").read_text())["points"]
    assert [point["num_samples"] for point in points] == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("words", "style"),
    [
        (["--backend", "scripted"], "zero_shot_cot"),
        (["--backend", "scripted", "--prompt-style", "chat_cot"], "chat_cot"),
        (["--backend", "server", "--server-urls", "http://localhost:1/v1", "--endpoint", "chat"], "chat_cot"),
    ],
)
def test_two_stages_ask_as_the_original_does_unless_a_style_is_named(words, style, capsys):
    """A server that takes messages alone is asked in a chat."""
    data = ("--model", "embedded:tiny", "--data", "problems.jsonl", "--dry-run")
    assert rationales(*data, *words, "--prompting", "two_stage") == 0
    said = capsys.readouterr().out
    assert f"the first stage asks in {style}; behind its reasoning, the second:" in said
    assert re.search(rf"prompt_style:? +{style}", said), "among the settings"
    assert rationales(*data, "--backend", "scripted") == 0
    assert "prompt_style" not in capsys.readouterr().out, "the default, which is another one for one stage"


@pytest.mark.parametrize("stages", ["one_stage", "two_stage"])
def test_an_interrupted_run_keeps_every_finished_batch(stages, monkeypatch):
    """With transformers a batch is `batch_size` samples; of two stages, their reasoning and their answers."""
    from trl_math.generation.transformers_backend import TransformersBackend

    draw, calls = TransformersBackend._draw, []

    def interrupted(backend, rows, sampling):
        calls.append(len(rows))
        if len(calls) > (1 if stages == "one_stage" else 2):
            raise KeyboardInterrupt
        return draw(backend, rows, sampling)

    monkeypatch.setattr(TransformersBackend, "_draw", interrupted)
    words = ("--model", "embedded:tiny", "--backend", "transformers", "--batch-size", 3, "--max-tokens", 4)
    with pytest.raises(KeyboardInterrupt):
        rationales(*words, "--data", "problems.jsonl", "--output", "out", "--prompting", stages)
    assert set(calls) == {3} and len(lines_of("out/samples/completions.jsonl")) == 3


# ---- what goes wrong ----


def test_a_teacher_that_is_never_right_is_shown(capsys):
    write("problems.jsonl", [problem(4 * index) for index in range(7)])
    with pytest.raises(DataError, match="The teacher is never right: none of 56 samples of 7 problems reaches"):
        taught(*SMALL)
    said = capsys.readouterr().out
    assert (
        len(re.findall(r"p/\d+, sample \d: the answer is '17', read was '\d' \(different, ended by stop\)", said)) == 5
    )
    assert said.count("    | I guess \\boxed{") == 5
    assert len(lines_of("out/samples/graded.jsonl")) == 56 and not Path("out/rows.jsonl").exists()


def test_right_ones_that_do_not_serve_are_told_apart(capsys):
    with pytest.raises(DataError, match=r"None of 96 samples of 12 problems serves \(.* wrong, .* too_short\)"):
        taught(*SMALL, "--min-rationale-tokens", 400)
    assert "never right" not in capsys.readouterr().out


def test_answers_of_the_wrong_kind_are_counted(capsys):
    """A choice that is answered by a number that is no choice, and a gold answer that nobody can read."""
    own = [problem(index, answer="B", answer_kind="choice", choices=["x", "y"]) for index in range(3)]
    write("problems.jsonl", [*own, *[problem(index) for index in range(5, 12)], problem(13, answer=r"\boxed{}")])
    assert taught(*SMALL) == 0
    manifest = manifest_of()
    assert manifest["num_unjudged"] == 1 and not any(row["answer_kind"] == "choice" for row in rows_of())
    assert "1 problem has a gold answer that cannot be read, and was left out ('p/13' for one)" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--prompting", "three_stage"], "Unknown prompting 'three_stage'. Did you mean 't"),
        (["--answer-tokens", "8"], "answer_tokens is of prompting two_stage"),
        (["--num-rationales", "0"], "num_rationales must be at least 1, got 0"),
        (["--num-samples", "4"], "is num_rationales here: leave num_samples out"),
        (["--temperature", "0"], "At temperature 0 all 8 samples of a problem would be the same"),
        (["--duplicates", "drop"], "Unknown duplicates 'drop'. Known: near, exact, keep"),
        (["--duplicates", "exact", "--near-threshold", "0.5"], "near_threshold is for duplicates near"),
        (["--near-threshold", "1.5"], "near_threshold must be above 0 and at most 1"),
        (["--problem-weights", "inverse"], "Unknown problem_weights 'inverse'. Did you mean 'inverse_count'"),
        (["--row-style", "direct"], "row_style must be a prompt style whose completion has a solution"),
        (["--min-rationale-tokens", "9", "--max-rationale-tokens", "8"], "no sample serves"),
        (["--price-input", "1"], "price_input and price_output go together"),
        (["--max-cost", "1"], "max_cost needs price_input and price_output"),
        (["--price-input", "-1", "--price-output", "1"], "price_input must be 0 or above"),
        (["--interpreter"], "leave interpreter and programs out"),
        (["--programs"], "leave interpreter and programs out"),
        (["--prompting", "two_stage", "--logprobs"], "leave logprobs out"),
        (["--samples", "somewhere"], "and samples and model is given"),
        (["--num-rationals", "2"], "Unknown key 'num_rationals'. Did you mean 'num_rationales'"),
    ],
)
def test_bad_input(words, says):
    with pytest.raises(TrlMathError, match=says):
        taught(*words)
    assert not Path("out").exists() or not any(Path("out").iterdir())


def test_samples_need_no_teacher_and_a_teacher_no_samples():
    with pytest.raises(UsageError, match="and none is given"):
        rationales("--data", "problems.jsonl")
    with pytest.raises(UsageError, match="temperature is for a teacher"):
        rationales("there", "--data", "problems.jsonl", "--temperature", 1)
    with pytest.raises(UsageError, match="Set data"):
        rationales("there")
    with pytest.raises(UsageError, match="several are given"):
        rationales("there", "and-there", "--data", "problems.jsonl")


# ---- killed ----


@pytest.mark.parametrize("stages", ["one_stage", "two_stage"])
@pytest.mark.parametrize("moment", ["sample 9", "torn", "grading", "yield", "file"])
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(moment, stages):
    """A real kill: in the middle of samples, of a line, of grading, of the yield, and before the file is moved."""
    words = (*SMALL, "--prompting", stages, *PRICES)
    assert taught(*words, output="whole") == 0
    child = os.fork()
    if not child:
        _die_at(moment)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        taught(*words, output="killed")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, "it was killed, and did not finish"
    assert not Path("killed/rows.jsonl").exists()
    assert taught(*words, output="killed") == 0
    for name in ("rows.jsonl", "rationales.json", "yield.json", "yield.svg"):
        assert Path("killed", name).read_bytes() == Path("whole", name).read_bytes(), name
    samples = [(row["problem_id"], row["sample_index"]) for row in lines_of("killed/samples/completions.jsonl")]
    assert len(set(samples)) == len(samples) == 8 * NUM_PROBLEMS


def _die_at(moment):
    """Make this process kill itself."""
    from trl_math.cli import rationales as command
    from trl_math.data import made_file
    from trl_math.evaluation.adaptive_sampling import RoundStore, Verdicts

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    append, count = RoundStore.append, 0

    def counted(store, row):
        nonlocal count
        count += 1
        append(store, row)
        if moment == "torn" and count == 30:
            os.write(store._file, b'{"problem_id": "p/3", "sample_in')
            die()
        if moment == f"sample {count}":
            die()

    RoundStore.append = counted
    if moment == "grading":
        Verdicts.add = die
    if moment == "yield":
        command._write_yield = die
    if moment == "file":
        made_file.write_json = die


# ---- what it costs ----


def test_a_budget_ends_a_run_that_goes_on_with_a_larger_one(capsys):
    words = (*SMALL, *PRICES, "--max-tokens", 64)
    assert taught(*words, output="whole") == 0
    cost = manifest_of("whole")["cost"]
    rows = lines_of("whole/samples/completions.jsonl")
    prompts = sum(len(tiny_ids(row["prompt"])) for row in rows)
    assert cost == pytest.approx((prompts + 2 * sum(row["num_tokens"] for row in rows)) / 1e6)
    capsys.readouterr()
    with pytest.raises(BudgetError, match="raise max_cost and the same command goes on"):
        taught(*words, "--max-cost", cost / 2)
    there = lines_of("out/samples/completions.jsonl")
    assert 0 < len(there) < 96 and len(lines_of("out/samples/graded.jsonl")) == len(there)
    assert "cost: at most" in capsys.readouterr().out
    # What is there serves as it is, and the run goes on.
    assert rationales("out/samples", "--data", "problems.jsonl", *SMALL, "--output", "early", "--keep-wrong") == 0
    assert (
        main(
            [
                "rationales",
                *map(str, (*MODEL, "--prompt-style", "cot", "--data", "problems.jsonl")),
                *map(str, words),
                "--output",
                "out",
                "--dry-run",
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert f"{96 - len(there)} samples to draw, {len(there)} are there" in said
    assert re.search(r"cost: at most [\d.]+, about [\d.]+; spent so far 0.00\d+", said)
    assert taught(*words, "--max-cost", 10 * cost) == 0
    assert Path("out/rows.jsonl").read_bytes() == Path("whole/rows.jsonl").read_bytes()
    assert manifest_of()["cost"] == cost


def tiny_ids(text):
    from trl_math.models.tiny import tiny_tokenizer

    return tiny_tokenizer()(text)["input_ids"]


def test_a_dry_run_says_samples_tokens_and_cost(capsys):
    assert taught(*SMALL, *PRICES, "--prompting", "two_stage", "--max-tokens", 10, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "12 problems x 8 samples = 96" in said and "96 samples to draw, 0 are there" in said
    prompts = 8 * sum(len(tiny_ids(f"Question: Which digit is {index}?\nAnswer:")) for index in range(NUM_PROBLEMS))
    asked, drawn = 2 * prompts + 96 * (10 + 64), 96 * (10 + 32)
    assert f"at most {drawn:,} tokens of samples, for {asked:,} of prompts" in said
    assert f"cost: at most {(asked + 2 * drawn) / 1e6:.3g}" in said
    assert "| Therefore, the answer is" in said and not Path("out").exists()


def test_samples_behind_the_first_ones_make_up_for_no_missing_ones(capsys):
    assert taught(*SMALL, "--keep-wrong", "--max-problems", NUM_PROBLEMS // 2) == 0
    capsys.readouterr()
    assert taught(*SMALL[2:], *PRICES, "--num-rationales", 2, "--dry-run") == 0
    assert f"{NUM_PROBLEMS} samples to draw, {4 * NUM_PROBLEMS} are there" in capsys.readouterr().out


# ---- an API that fails ----


def api(server, *words, output="api"):
    return rationales(
        *("--model", "m", "--backend", "server", "--server-urls", server.url, "--endpoint", "chat"),
        *("--data", "problems.jsonl", "--output", output, "--grading-workers", 1, "--patience", 0.5),
        *("--num-rationales", 4, "--duplicates", "keep", *PRICES, *words),
    )


def digit_of(body):
    return int(re.search(r"Which digit is (\d+)", body["messages"][0]["content"])[1])


def test_rate_limits_and_refusals_are_counted_and_the_run_goes_on(capsys):
    def script(number, body):
        if number in (3, 7):
            return error(429, "slow down")
        if digit_of(body) == 5:
            return error(400, "filtered", code="content_filter")
        if digit_of(body) == 6:
            said = answer(body)
            said["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": "I'd rather not."}
            return said
        return answer(body, f"It is \\boxed{{{digit_of(body) % 10}}}.")

    with ScriptedServer(script) as server:
        assert api(server) == 0
    manifest = manifest_of("api")
    assert {row["problem_id"] for row in rows_of("api")} == {f"p/{index}" for index in (1, 2, 3, 7, 9, 10, 11)}
    assert manifest["num_rows"] == 28 and manifest["num_refused"] == 8
    # Three prompt tokens and three others each, as the server tells; of what a filter refuses, the most there can be.
    [refused] = {str(body["messages"]) for body in server.bodies if digit_of(body) == 5}
    asked = 3 * 44 + 4 * most_prompt_tokens(ast.literal_eval(refused))
    assert (manifest["num_prompt_tokens"], manifest["num_tokens"]) == (asked, 3 * 44)
    assert manifest["cost"] == pytest.approx((asked + 2 * 3 * 44) / 1e6) and manifest["num_prompts_bounded"] == 4
    said = capsys.readouterr().out
    assert "Tried again after 2 rate limits (429)." in said and "8 samples were refused" in said
    [session] = json.loads(Path("api/samples/run.json").read_text())["sessions"]
    assert session["troubles"] == {"rate_limited": 2}
    assert f"at most {asked:,} of prompts" in said and "(the prompts of 4 by their bytes" in said
    assert "bounded by their bytes" in said


@pytest.mark.parametrize("stages", ["one_stage", "two_stage"])
def test_prompts_that_nobody_counts_cost_the_most_they_can(stages, capsys):
    """No tokenizer here, and a server that tells the tokens of samples alone: max_cost holds all the same."""

    def script(number, body):
        said = answer(body, f"It is \\boxed{{{digit_of(body) % 10}}}.")
        del said["usage"]["prompt_tokens"]
        return said

    words = ("--prompting", stages, "--max-tokens", 10)
    with ScriptedServer(script) as server:
        assert api(server, *words) == 0
        manifest, rows = manifest_of("api"), lines_of("api/samples/completions.jsonl")
        first = [most_prompt_tokens(row["prompt"]) for row in rows]
        asked = sum(first) if stages == "one_stage" else sum(2 * number + 10 + 64 for number in first)
        assert (manifest["num_prompt_tokens"], manifest["num_prompts_bounded"]) == (asked, len(rows))
        read = sum(len(turn["content"]) for body in server.bodies for turn in body["messages"])
        assert asked >= read > 0, "no more tokens than characters"
        assert f"for at most {asked:,} of prompts, and cost at most" in capsys.readouterr().out
        with pytest.raises(BudgetError):
            api(server, *words, "--max-cost", manifest["cost"] / 3, output="less")
    there = lines_of("less/samples/completions.jsonl")
    assert 0 < len(there) <= len(rows) / 3


def test_a_server_that_dies_leaves_what_was_paid_for_and_the_same_command_goes_on():
    broken = True

    def script(number, body):
        if broken and number >= 20:
            return error(503, "down")
        return answer(body, f"It is \\boxed{{{digit_of(body) % 10}}}.")

    with ScriptedServer(script) as server:
        with pytest.raises(ServerError, match="the same command goes on with the rest"):
            api(server, "--concurrency", 4)
        there = lines_of("api/samples/completions.jsonl")
        assert 10 <= len(there) <= 20 and not Path("api/rows.jsonl").exists()
        broken = False
        number = len(server.bodies)
        assert api(server, "--concurrency", 4) == 0
        assert len(server.bodies) - number == 48 - len(there), "nothing is paid twice"
        assert api(server, output="whole") == 0
    assert Path("api/rows.jsonl").read_bytes() == Path("whole/rows.jsonl").read_bytes()


# ---- stages of an experiment ----


STAGED = {"command": "run", "description": "rationales, and train", "model": "embedded:tiny", "output": "staged"}
STAGE = {"model": "embedded:tiny", "backend": "scripted", "prompt_style": "cot", "num_rationales": 16}
SFT = {"sft": {"use_cpu": True, "bf16": False, "max_steps": 1, "report_to": "none", "per_device_train_batch_size": 2}}


def staged(section, *stages, **changes):
    from trl_math.pipeline.plan import make_plan
    from trl_math.pipeline.recipe import read_experiment

    return make_plan(read_experiment({**STAGED, "data": "problems.jsonl", section: list(stages), **changes})).stages


def test_a_stage_that_sft_trains_on():
    rows, trained = staged("before", {"rationales": STAGE}, SFT)
    assert rows.output.name == "rows.jsonl" and trained.settings["dataset_name"] == str(rows.output)
    (other,) = staged("before", {"rationales": {**STAGE, "num_rationales": 3}})
    (costly,) = staged("before", {"rationales": {**STAGE, "price_input": 1, "price_output": 1, "max_cost": 3}})
    assert other.key != rows.key == costly.key
    with pytest.raises(UsageError, match="before/rationales: num_rationales must be at least 1"):
        staged("before", {"rationales": {**STAGE, "num_rationales": 0}})
    with pytest.raises(UsageError, match=r"before/sft: The rows of before/rationales "):
        staged("before", {"rationales": STAGE}, {"sft": {**SFT["sft"], "prompt_style": "cot"}})


def test_a_stage_of_samples_of_the_stages_before_it():
    drawn = {"generate": {"backend": "scripted", "prompt_style": "cot", "num_samples": 8}}
    sets = [{"rationales": {"name": f"d{number}", "num_rationales": number}} for number in (1, 8)]
    _, graded, one, eight = staged("before", drawn, {"grade": {}}, *sets)
    assert one.settings["samples"] == eight.settings["samples"] == str(graded.output)
    teacher = {"rationales": {**STAGE, "name": "all"}}
    sixteen, four = staged("before", teacher, {"rationales": {"samples": "{all}", "num_rationales": 4}})
    assert four.settings["samples"] == str(sixteen.output) and four.sources["samples"] == ["before/all"]


def test_what_rationales_made_stands_for_its_samples():
    assert taught("--num-rationales", 16, "--duplicates", "keep", output="all") == 0
    for number, name in enumerate(("all", "all/rows.jsonl", "all/samples", "all/samples/graded.jsonl")):
        words = (name, "--data", "problems.jsonl", *SMALL, "--output", f"of-{number}")
        assert rationales(*words) == 0
        assert Path(f"of-{number}/rows.jsonl").read_bytes() == Path("of-0/rows.jsonl").read_bytes()
    with pytest.raises(DataError, match="of-0 was made of samples that lie elsewhere: give those"):
        rationales("of-0", "--data", "problems.jsonl", *SMALL, "--output", "again")


def test_stages_have_a_small_form():
    from trl_math.cli.rationales_settings import build
    from trl_math.pipeline.smoke import small_rationales

    asked = {"model": "meta-llama/Llama-3.1-70B-Instruct", "num_rationales": 64, "prompting": "two_stage"}
    asked |= {"min_rationale_tokens": 64, "row_style": "tool", "backend": "vllm", "max_cost": 3, "price_input": 1}
    small = small_rationales(asked, "products.jsonl")
    assert (small["num_rationales"], small["prompting"], small["row_style"]) == (4, "two_stage", "tool")
    assert build({**small, "output": "out"}).engine.model == "embedded:smollm2-135m-instruct"
    there = {"samples": "{grade}", "num_rationales": 8, "data": "D"}
    assert small_rationales(there, "x.jsonl")["samples"] == "{grade}"


@pytest.mark.slow
def test_a_staged_run():
    import yaml

    recipe = {**STAGED, "data": "problems.jsonl", "before": [{"rationales": STAGE}, SFT]}
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "trl_math.cli.main", "run", "--config", "recipe.yaml"]
    done = subprocess.run(command, env=quiet_environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    [folder] = Path("staged/before").glob("sft-????????")
    assert json.loads((folder / "run.json").read_text())["is_finished"]


@pytest.mark.slow
def test_smoke_is_real(capsys):
    """The embedded model, which is right about some products, and finishes with rows."""
    recipe = "command: rationales\nmodel: M\ndata: D\nnum_rationales: 64\nprice_input: 1\nprice_output: 1\n"
    Path("recipe.yaml").write_text(recipe)
    assert main(["rationales", "--config", "recipe.yaml", "--smoke"]) == 0
    [rows] = Path("runs/smoke").rglob("rows.jsonl")
    assert len(lines_of(rows)) >= 4
    assert "rationales: trl-math sft --dataset_name" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("stages", ["one_stage", "two_stage"])
def test_the_embedded_model_teaches_for_real_and_is_killed(stages):
    """SmolLM2-135M on products, killed after its first samples: the rows are those of a run that was not."""
    rows = [
        {"problem": f"2 * 2 = 4\n3 * 5 = 15\n{a} * {b} =", "answer": str(a * b)} for a in (2, 3, 5) for b in (2, 4)
    ]
    write("products.jsonl", rows)
    words = ["rationales", "--model", "embedded:smollm2-135m-instruct", "--backend", "transformers", "--prompt-style"]
    words += ["plain", "--data", "products.jsonl", "--num-rationales", "4", "--max-tokens", "8", "--batch-size", "2"]
    words += ["--prompting", stages, "--duplicates", "keep", "--grading-workers", "1", "--temperature", "0.7"]
    # Asked for the answer behind a product, it repeats one that it was shown.
    words += ["--keep-wrong"] if stages == "two_stage" else []
    assert main([*words, "--output", "whole"]) == 0
    file = Path("killed/samples/completions.jsonl")
    process = subprocess.Popen(
        [sys.executable, "-m", "trl_math.cli.main", *words, "--output", "killed"],
        env=quiet_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    from test_cli import wait_for

    wait_for(lambda: file.exists() and file.read_bytes().count(b"\n") >= 2, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 2 <= len(lines_of(file)) < 24
    assert main([*words, "--output", "killed"]) == 0
    assert Path("killed/rows.jsonl").read_bytes() == Path("whole/rows.jsonl").read_bytes()
    assert len(rows_of("whole")) >= (2 if stages == "one_stage" else 24), "it is right about some products"


@pytest.mark.slow
@pytest.mark.skipif(not is_installed("vllm"), reason="vllm is not installed: no wheel fits this machine")
def test_two_stages_with_vllm_for_real():
    """SmolLM2-135M on the CPU, in a process of its own (vLLM binds its process to cores); its samples serve again."""
    words = ["rationales", "--backend", "vllm", "--prompting", "two_stage", "--data", "embedded:times_tables"]
    words += ["--model", "embedded:smollm2-135m-instruct", "--max-problems", "4", "--num-rationales", "2"]
    words += ["--max-tokens", "48", "--max-model-len", "256", "--dtype", "float32", "--enforce-eager"]
    words += ["--keep-wrong", "--keep-unfinished", "--duplicates", "keep", "--grading-workers", "1"]
    environment = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "trl_math.cli.main", *words, "--output", "out"],
        env={**quiet_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    samples = lines_of("out/samples/completions.jsonl")
    assert len(samples) == len(rows_of()) == 8
    for row in samples:
        assert row["prompt"].endswith("\nA: Let's think step by step."), "the original's way, since no style is named"
        assert row["completion"].count("\nTherefore, the answer is") == 1
        assert 2 <= row["num_tokens"] <= 48 + 32 and row["num_prompt_tokens"] > 2 * 10
        assert {row["reasoning_finish_reason"], row["finish_reason"]} <= {"stop", "length"}
    assert len({row["completion"] for row in samples}) > 4, "reasoning is drawn, at temperature 0.7"
    there = ("out", "--data", "embedded:times_tables", "--keep-wrong", "--keep-unfinished", "--duplicates", "keep")
    assert rationales(*there, "--num-rationales", 1, "--output", "one") == 0
    first = {line for line in Path("out/rows.jsonl").read_bytes().splitlines() if b'"sample_index": 0' in line}
    assert set(Path("one/rows.jsonl").read_bytes().splitlines()) == first and len(first) == 4

"""The coverage experiment: its task, its exact probabilities, its files, and how a table of runs resumes."""

import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict

import pytest
import torch

from trl_math.demo.characters import EOS, IGNORED, answer_logps, make_model, make_tokenizer, rows
from trl_math.demo.multiplication import CHARACTERS, greedy_answers, run
from trl_math.demo.task import Problem, Settings, split_problems
from trl_math.demo.workers import run_path, run_table
from trl_math.errors import RunFolderError
from trl_math.reporting import CoverageRun, coverage_effect, draw, table


TINY = Settings(
    epochs=2, evaluate_every=1, num_train=128, num_held_out=16, num_layers=1, hidden_size=16, learning_rate=1e-2
)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(CHARACTERS)


@pytest.fixture(scope="module")
def model(tokenizer):
    """A model whose untrained distribution is far from uniform."""
    torch.manual_seed(0)
    model = make_model(TINY, tokenizer).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def made_up_run(num_attempts: int, seed: int, logps: list[list[float]], settings: Settings = TINY) -> CoverageRun:
    return CoverageRun(
        num_attempts=num_attempts,
        seed=seed,
        epochs=list(range(1, len(logps) + 1)),
        logps=logps,
        greedy_logps=[-0.1 * (index + 1) for index in range(len(logps[0]))],
        greedy_correct=[index % 3 == 0 for index in range(len(logps[0]))],
        settings=asdict(settings),
        facts={"seconds": 1.0},
    )


def made_up_table(num_seeds: int) -> list[CoverageRun]:
    generator = random.Random(0)
    return [
        made_up_run(attempts, seed, [[-8 * generator.random() for _ in range(16)] for _ in range(6)])
        for attempts in (1, 16, 64)
        for seed in range(num_seeds)
    ]


# ---- The task ----


@pytest.mark.parametrize("seed", range(3))
def test_splits_share_no_pair(seed):
    """No held-out problem is trained on, in either order of its factors, and none appears twice."""
    train, held_out = split_problems(seed, 3000, 1000)
    assert (len(set(train)), len(set(held_out))) == (3000, 1000)
    pairs = {frozenset(problem) for problem in train}
    assert not any(frozenset(problem) in pairs for problem in held_out)
    assert {len(problem.prompt) for problem in train + held_out} == {6}
    assert split_problems(seed, 3000, 1000) == (train, held_out)
    assert split_problems(seed + 1, 3000, 1000) != (train, held_out)


def test_tokenizer_round_trip(tokenizer):
    """One token a character, in both directions, with end and padding outside the characters."""
    text = "47*53=2491"
    ids = tokenizer(text).input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == list(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([*ids, tokenizer.eos_token_id]) == text + EOS
    assert len(tokenizer) == len(CHARACTERS) + 2 and tokenizer.eos_token_id != tokenizer.pad_token_id


def test_only_answer_and_end_are_trained_on(tokenizer):
    made = rows([Problem(47, 53), Problem(10, 10)], tokenizer)
    long, short = ([*tokenizer(answer).input_ids, tokenizer.eos_token_id] for answer in ("2491", "100"))
    assert made["labels"] == [[IGNORED] * 6 + long, [IGNORED] * 6 + short]
    assert made["input_ids"][1] == tokenizer("10*10=").input_ids + short


# ---- Exact probabilities ----


def test_answer_probability_is_a_product_of_softmaxes(model, tokenizer):
    """Teacher forcing in padded batches equals feeding one prefix at a time."""
    problems = [Problem(47, 53), Problem(10, 10), Problem(99, 99)]
    batch = answer_logps(model, rows(problems, tokenizer))
    for problem, logp in zip(problems, batch.tolist(), strict=True):
        prefix, expected = tokenizer(problem.prompt).input_ids, 1.0
        for token in [*tokenizer(problem.answer).input_ids, tokenizer.eos_token_id]:
            with torch.no_grad():
                expected *= model(torch.tensor([prefix])).logits[0, -1].softmax(-1)[token].item()
            prefix.append(token)
        assert math.exp(logp) == pytest.approx(expected, rel=1e-4)


def test_probabilities_of_all_answers_sum_to_one(model, tokenizer):
    """Every way to go on for three tokens, ended or not, has probability one together; those that end have less."""
    prompt, end = tokenizer("47*53=").input_ids, tokenizer.eos_token_id
    others = [index for index in range(len(tokenizer)) if index != end]
    ended = [[*head, end] for length in range(3) for head in itertools.product(others, repeat=length)]
    unended = [list(tokens) for tokens in itertools.product(others, repeat=3)]
    answers = ended + unended
    made = {
        "input_ids": [prompt + answer for answer in answers],
        "labels": [[IGNORED] * len(prompt) + answer for answer in answers],
    }
    p = answer_logps(model, made).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    assert p[: len(ended)].sum() < 1


def test_greedy_answer_and_its_confidence(model, tokenizer):
    """The greedy answer is `generate`'s, and its confidence is its own teacher-forced probability."""
    problems = [Problem(47, 53), Problem(10, 10), Problem(12, 98)]
    logps, right = greedy_answers(model, problems, tokenizer)
    prompts = tokenizer([problem.prompt for problem in problems], return_tensors="pt").input_ids
    generated = model.generate(prompts, attention_mask=torch.ones_like(prompts), do_sample=False, max_new_tokens=5)
    for problem, row, logp, is_right in zip(problems, generated.tolist(), logps.tolist(), right, strict=True):
        answer = row[6:]
        if tokenizer.eos_token_id in answer:
            answer = answer[: answer.index(tokenizer.eos_token_id) + 1]
        forced = answer_logps(model, {"input_ids": [row[:6] + answer], "labels": [[IGNORED] * 6 + answer]})
        assert logp == pytest.approx(forced.item(), abs=1e-4)
        assert is_right == (tokenizer.decode(answer) == problem.answer + EOS)


def test_greedy_answer_is_right_when_it_is(tokenizer, monkeypatch):
    """A stand-in that knows its tables is right about every problem, with certainty."""
    problems = [Problem(47, 53), Problem(10, 10)]

    def oracle(model, ids):
        logps = torch.full((*ids.shape, len(tokenizer)), -math.inf, dtype=torch.float64)
        for row, problem in enumerate(problems):
            answer = [*tokenizer(problem.answer).input_ids, tokenizer.eos_token_id, tokenizer.pad_token_id]
            logps[row, -1, answer[ids.shape[1] - 6]] = 0.0
        return logps

    monkeypatch.setattr("trl_math.demo.multiplication.next_logps", oracle)
    logps, right = greedy_answers(None, problems, tokenizer)
    assert right == [True, True] and logps.tolist() == [0.0, 0.0]


# ---- Runs, their files and their table ----


def test_run_trains_through_the_trainer(tmp_path):
    """A run evaluates when told, learns something, repeats itself exactly, and its loss is the one asked for."""
    coverage = run(64, 0, TINY)
    assert coverage.epochs == [1, 2] and {len(row) for row in coverage.logps} == {16}
    assert sum(coverage.logps[1]) > sum(coverage.logps[0])
    assert len(coverage.greedy_logps) == len(coverage.greedy_correct) == 16
    coverage.save(tmp_path / "run.json")
    assert CoverageRun.load(tmp_path / "run.json") == coverage
    assert run(64, 0, TINY).logps == coverage.logps
    assert run(1, 0, TINY).logps != coverage.logps


def test_coverage_from_probabilities():
    """pass@k is exact at the ends and in between."""
    few = made_up_run(1, 0, [[math.log(0.5), 0.0, -800.0], [math.log(1e-12)] * 3])
    assert few.pass_at(2).tolist() == pytest.approx([100 * (0.75 + 1 + 0) / 3, 2e-10], rel=1e-6)
    assert few.pass_at(1).tolist() == pytest.approx([50, 1e-10], rel=1e-6)


def test_effect_is_paired_by_seed():
    """The gain compares equal seeds, and the fall is of the mean curve; a seed with one of the two does not count."""
    p = {0.0: math.log1p(-(1 - 1e-9)), 100.0: 0.0}  # coverage at 64 in percent -> log p that gives it, about
    runs = [
        made_up_run(1, 0, [[p[100.0]] * 4, [p[0.0]] * 2 + [p[100.0]] * 2]),
        made_up_run(1, 1, [[p[0.0]] * 4, [p[0.0]] * 4]),
        made_up_run(64, 0, [[p[0.0]] * 4, [p[100.0]] * 4]),
        made_up_run(1, 2, [[p[0.0]] * 4, [p[100.0]] * 4]),
    ]
    effect = coverage_effect(runs)
    assert effect.gains == pytest.approx([50], abs=1e-4) and effect.num_seeds == 1
    assert effect.fall == pytest.approx(50, abs=1e-4) and effect.epoch == 2


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_figure_and_table_are_written(num_seeds, tmp_path):
    pytest.importorskip("matplotlib")
    runs = made_up_table(num_seeds)
    files = draw(runs, tmp_path / "new" / "figure")
    assert [file.suffix for file in files] == [".png", ".svg"]
    assert all(file.stat().st_size > 20_000 for file in files)
    text = table(runs)
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:5]] == ["cross-entropy", "N = 16", "N = 64"]
    assert ("±" in text) == (num_seeds > 1) and f"{num_seeds} seed" in text and "16 held-out problems" in text


# ---- Many runs ----


def test_a_table_resumes(tmp_path, monkeypatch):
    """A worker process trains a missing run; a finished one is read, and half-written files are no run."""
    made = made_up_run(64, 0, [[-1.0] * 16] * 2)
    made.save(run_path(tmp_path, 64, 0))
    run_path(tmp_path, 1, 0).with_suffix(".json.part").write_text('{"num_attempts": 1')
    lines = []
    runs = run_table([1, 64], [0], tmp_path, TINY, workers=2, report=lines.append)
    assert [run.num_attempts for run in runs] == [1, 64] and runs[1] == made
    assert "1 finished, 1 to train" in lines[0] and "epoch   2/2" in lines[-1]

    def refuse(*args, **kwargs):
        raise AssertionError("a finished run was started again")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert run_table([1, 64], [0], tmp_path, TINY, report=lines.append) == runs


def test_runs_of_other_settings_are_refused(tmp_path):
    path = run_path(tmp_path, 1, 0)
    made_up_run(1, 0, [[-1.0] * 16]).save(path)
    with pytest.raises(RunFolderError, match=r"epochs 2 there, 60 here"):
        run_table([1], [0], tmp_path, Settings(**(asdict(TINY) | {"epochs": 60})))
    path.write_text(json.dumps({"seed": 0}))
    with pytest.raises(RunFolderError, match="not a finished run"):
        run_table([1], [0], tmp_path, TINY)


def test_a_failing_worker_says_why(tmp_path, monkeypatch):
    """The end of what a failed worker wrote is part of the error, and nothing is left behind."""
    monkeypatch.setattr(sys, "executable", _program(tmp_path, "echo out of memory >&2; exit 3"))
    with pytest.raises(RuntimeError, match=r"(?s)N = 64, seed 0 ended with status 3.*out of memory"):
        run_table([64], [0], tmp_path / "runs", TINY, report=lambda line: None)
    assert not (tmp_path / "runs").exists()


def test_an_interrupted_table_ends_its_workers(tmp_path, monkeypatch):
    """Ctrl-C ends the processes at once, starts no other, and says how to go on."""
    monkeypatch.setattr(sys, "executable", _program(tmp_path, f"echo $$ >> {tmp_path}/started; exec sleep 100"))
    lines, started = [], time.monotonic()
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        run_table([1, 64], [0, 1], tmp_path / "runs", TINY, workers=2, report=lines.append)
    assert time.monotonic() - started < 20
    assert len((tmp_path / "started").read_text().split()) == 2
    assert "0 of 4 runs are finished" in lines[-1]


def _program(folder, script: str) -> str:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)

"""Settings of `trl-math generate` are used or refused, in one line; what changes samples is part of a folder."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trl_math.cli.main import main
from trl_math.data.answers import choice_texts
from trl_math.models.tiny import save_tiny


PROBLEMS = [{"id": f"p/{i}", "problem": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(3)]


@pytest.fixture
def data():
    with open("problems.jsonl", "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in PROBLEMS)
    return "problems.jsonl"


def generate(data, *words, model="embedded:tiny", backend="scripted"):
    return main(["generate", "--model", str(model), "--data", data, "--backend", backend, "--output", "out", *words])


def fails(capsys, status, *parts):
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 2 and error.startswith("trl-math: ")
    assert all(part in error for part in parts), error


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--dtype", "bf17"], "bfloat16"),
        (["--max-model-len", "100000"], "2,048"),
        (["--revision", "main", "--model", "folder"], "folder"),
        (["--shots-split", "test"], "num_shots"),
        (["--num-shots", "1", "--shots-split", "test"], "shots_data"),
        (["--split", "tst"], "one file"),
        (["--batch-size", "4"], "transformers"),
        (["--timeout", "4"], "server"),
    ],
)
def test_refused(data, capsys, words, part):
    save_tiny("folder")
    model = "folder" if "folder" in words else "embedded:tiny"
    words = [word for word in words if word not in ("--model", "folder")]
    fails(capsys, generate(data, *words, model=model), part)


@pytest.mark.parametrize("name", ["./nope", "/nope/nope", "~/nope-nope"])
def test_a_path_that_is_none(data, capsys, name):
    fails(capsys, generate(data, model=name), "There is no folder")


def test_an_engine_that_cannot_start_says_so_in_a_line(data, capsys):
    save_tiny("folder")
    with open("folder/model.safetensors", "wb") as file:
        file.write(b"no weights at all")
    fails(capsys, generate(data, model="folder", backend="transformers"), "no safetensors file")
    save_file({"lm_head.weight": torch.zeros(3, 5)}, "folder/model.safetensors", {"format": "pt"})
    fails(capsys, generate(data, model="folder", backend="transformers"), "could not start")


@pytest.mark.parametrize("change", ["tokenizer", "end token", "context"])
def test_what_changes_samples_changes_the_folder(data, capsys, change):
    save_tiny("folder")
    assert generate(data, model="folder") == 0
    words = ["--num-samples", "2"]
    if change == "tokenizer":
        shutil.copytree("folder", "other")
        file = Path("other/tokenizer_config.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token": "<|im_start|>"}))
        words += ["--tokenizer", "other"]
    elif change == "end token":
        with open("folder/generation_config.json", "w") as out:
            out.write(json.dumps({"eos_token_id": [2, 7]}))
    else:
        words += ["--max-model-len", "100"]
    fails(capsys, generate(data, *words, model="folder"), "other settings")


def test_choices_in_every_shape():
    assert choice_texts({"A": "1", "B": "2", "C": None}) == ["1", "2"]
    assert choice_texts({"label": ["A", "B"], "text": ["x", "y"]}) == ["x", "y"]
    assert choice_texts(["A) 1", "B) 2"]) == ["1", "2"]

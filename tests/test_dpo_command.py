"""`trl-math dpo` as a user meets it: folders of pairs, the same command again, a plan, mistakes, and SIGKILL."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dpo_helpers import pairs, sampled_pairs
from helpers import quiet_environment
from test_cli import wait_for

from trl_math.cli.main import main
from trl_math.cli.train import _settings
from trl_math.data.load import DataArguments, load_rows
from trl_math.models import save_tiny
from trl_math.plan import plan_memory
from trl_math.recipes import build_dpo


ON_CPU = {
    "command": "dpo",
    "model_name_or_path": "embedded:tiny",
    "dtype": "float32",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
    "disable_tqdm": True,
    "pair_weight": "bell",
}


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def folder(tmp_path):
    """What `trl-math pairs` leaves behind, as far as training reads it."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    lines(folder / "pairs.jsonl", sampled_pairs(12).to_list())
    lines(folder / "eval.jsonl", sampled_pairs(15).to_list()[12:])
    (folder / "pairs.json").write_text('{"settings": {}}')
    return folder


def recipe(folder, **changes):
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump({**ON_CPU, "output_dir": str(folder / "out"), **changes}))
    return str(file)


def test_a_folder_of_pairs_is_trained_on(tmp_path, folder, capsys):
    """Its references are kept in it; the same command has nothing to do, and another run needs no pass."""
    file = recipe(tmp_path, dataset_name=str(folder), eval_strategy="steps", eval_steps=1)
    assert main(["dpo", "--config", file]) == 0
    out = tmp_path / "out"
    state = json.loads((out / "trainer_state.json").read_text())["log_history"]
    assert any("eval_loss" in log for log in state) and any("pairs/weight" in log for log in state)
    assert "pair_weight: `bell`" in (out / "README.md").read_text()
    (kept,) = folder.glob("references-*.logps")
    assert len(kept.read_text().splitlines()) == 1 + 12 + 3
    before = kept.stat()
    assert main(["dpo", "--config", file]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["dpo", "--config", file, "--output_dir", str(tmp_path / "other")]) == 0
    assert kept.stat().st_mtime_ns == before.st_mtime_ns
    results = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "other")]
    assert results[0] == results[1]
    assert len(load_rows(DataArguments(str(folder)), 0, evaluates=False, are_pairs=True)[0]) == 12


def test_a_plan(tmp_path, folder, capsys):
    """A dry run shows the pairs, the steps and the files, and writes nothing."""
    assert main(["dpo", "--config", recipe(tmp_path, dataset_name=str(folder)), "--dry-run"]) == 0
    text = capsys.readouterr().out
    for part in ("train: 12 rows", "first chosen", "= 4 rows", "optimiser steps: 2", f"a file beside {folder}"):
        assert part in text, part
    assert not (tmp_path / "out").exists() and not list(folder.glob("references*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pair_wait": "bell"}, "Unknown key 'pair_wait'. Did you mean 'pair_weight'?"),
        ({"dataset_name": None}, "Which data?"),
        ({"prompt_style": "cot"}, "pairs are trained on as they are"),
        ({"eval_strategy": "epoch", "dataset_name": "file"}, "file"),
        (
            {"reference_file": "missing/x.logps", "precompute_ref_log_probs": False},
            "set precompute_ref_log_probs: true",
        ),
        ({"live_data": "embedded:times_tables", "max_steps": 2}, "leave out dataset_name"),
        (
            {"live_data": "embedded:times_tables", "max_steps": 2, "dataset_name": None, "max_train_rows": 9},
            "leave out max_train_rows",
        ),
        (
            {
                "live_data": "embedded:times_tables",
                "max_steps": 2,
                "dataset_name": None,
                "difficulty_schedule": "bell",
            },
            "leave out difficulty_schedule",
        ),
        (
            {
                "live_data": "embedded:times_tables",
                "live_prompt_style": "plain",
                "live_max_tokens": 8,
                "max_steps": 2,
                "dataset_name": None,
                "precompute_ref_log_probs": False,
                "loss_type": "apo_zero",
                "pair_weight": "uniform",
                "pair_weight_params": None,
                "live_pair_params": {"weighting": "equal_problems"},
            },
            "weighting: equal_problems} does not go with loss_type: apo_zero",
        ),
        ({"pair_weight": "power", "pair_weight_params": {"gamma": 0}}, "gamma must be above 0"),
        (
            {
                "live_data": "embedded:times_tables",
                "max_steps": 2,
                "dataset_name": None,
                "margin": 0.1,
                "margin_schedule": "band",
            },
            "margin_schedule: band may leave a refresh of live_data without a margin",
        ),
    ],
)
def test_mistakes_are_one_line(tmp_path, folder, capsys, changes, message):
    values = {"dataset_name": str(folder), **changes}
    assert main(["dpo", "--config", recipe(tmp_path, **values)]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("trl-math: ") and message in last
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_nothing_out(tmp_path, folder, capsys):
    (folder / "eval.jsonl").unlink()
    assert main(["dpo", "--config", recipe(tmp_path, dataset_name=str(folder), eval_strategy="epoch")]) == 2
    assert "hold no problems out to evaluate on" in capsys.readouterr().err


def test_a_file_of_another_model(tmp_path, folder, capsys):
    """References that were moved from another model's run are refused."""
    given = folder / "references.logps"
    header = {"format": "trl_math references", "model": "sha256:0"}
    lines(given, [header])
    assert main(["dpo", "--config", recipe(tmp_path, dataset_name=str(folder), reference_file=str(given))]) == 2
    assert "is of another model (sha256:0 there" in capsys.readouterr().err


def test_a_run_is_known_by_its_evaluation_pairs_too(tmp_path, folder, capsys):
    """Other pairs to evaluate on are another run; what was logged so far would not be comparable."""
    file = recipe(tmp_path, dataset_name=str(folder), eval_strategy="steps", eval_steps=1)
    assert main(["dpo", "--config", file]) == 0
    held_out = folder / "eval.jsonl"
    held_out.write_text("".join(held_out.read_text().splitlines(keepends=True)[:-1]))
    assert main(["dpo", "--config", file]) == 2
    assert "belongs to another configuration (eval_data" in capsys.readouterr().err


def test_a_run_is_known_by_the_weights_that_it_starts_from(tmp_path, folder, capsys):
    """A folder may hold another model by now: that run is not this one."""
    save_tiny(tmp_path / "model")
    file = recipe(tmp_path, dataset_name=str(folder), model_name_or_path=str(tmp_path / "model"), max_steps=1)
    assert main(["dpo", "--config", file]) == 0
    assert main(["dpo", "--config", file]) == 0 and "nothing to do" in capsys.readouterr().out
    trained = tmp_path / "out" / "model.safetensors"
    (tmp_path / "model" / "model.safetensors").write_bytes(trained.read_bytes())
    assert main(["dpo", "--config", file]) == 2
    assert "belongs to another configuration (start_model" in capsys.readouterr().err


def test_a_run_is_known_by_its_live_problems(tmp_path):
    """The name of a file is not enough: its problems may change."""
    problems = tmp_path / "problems.jsonl"
    values = {"live_data": str(problems), "live_prompt_style": "plain", "max_steps": 1, "live_max_tokens": 8}
    arguments = build_dpo({**values, "output_dir": "out", "use_cpu": True, "bf16": False})
    found = []
    for answer in ("4", "5"):
        lines(problems, [{"problem": "What is 2 + 2?", "answer": answer}])
        found.append(_settings(arguments, None, None, None)["live_problems_drawn"])
    assert found[0] != found[1]


def test_an_adapter_remembers_the_revision_of_its_model(tmp_path, folder):
    file = recipe(tmp_path, dataset_name=str(folder), use_peft=True, lora_r=2, model_revision="v2", max_steps=1)
    assert main(["dpo", "--config", file]) == 0
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["revision"] == "v2"


def test_when_the_reference_is_precomputed():
    """On by default; off where the reference moves or the pairs do not exist yet; kept unless it cannot be."""
    values = {"output_dir": "out", "use_cpu": True, "bf16": False}
    assert build_dpo(values).training.precompute_ref_log_probs
    assert build_dpo(values).training.reference_file == "auto"
    assert not build_dpo(values | {"precompute_ref_log_probs": False}).training.precompute_ref_log_probs
    assert not build_dpo(values | {"sync_ref_model": True}).training.precompute_ref_log_probs
    live = {"live_data": "embedded:times_tables", "live_prompt_style": "plain", "max_steps": 1}
    assert not build_dpo(values | live).training.precompute_ref_log_probs
    assert build_dpo(values | {"ld_alpha": 0.5}).training.reference_file is None
    assert build_dpo(values | {"reference_file": None}).training.reference_file is None
    assert build_dpo(values).given == {"command": "dpo", **values}


def test_memory_of_pairs():
    """Both answers of a pair take room, and so does a reference that must stay in memory."""
    model = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
    model |= {"vocab_size": 1000, "model_type": "llama"}
    values = {"per_device_train_batch_size": 4, "max_length": 512, "gradient_checkpointing": False}
    sft, pairs_kept = (plan_memory({**values, "command": name}, model, None) for name in ("sft", "dpo"))
    casts = 2 * 2 * (4 * 64 * 64 + 3 * 64 * 256)  # 16-bit copies of the matrices, whatever the batch
    assert pairs_kept.activations - casts == 2 * (sft.activations - casts)
    assert pairs_kept.weights == sft.weights
    for later in ({"precompute_ref_log_probs": False}, {"sync_ref_model": True}, {"live_data": "embedded:x"}):
        held = plan_memory({**values, "command": "dpo", **later}, model, None)
        assert held.weights == 2 * sft.weights
        adapter = plan_memory({**values, "command": "dpo", **later, "use_peft": True}, model, None)
        assert adapter.weights < held.weights


def test_the_doctor_reads_recipes_of_pairs(tmp_path, folder, capsys):
    file = recipe(tmp_path, dataset_name=str(folder))
    main(["doctor", "--config", file])
    assert "effective batch 4 on 1 process" in capsys.readouterr().out
    main(["doctor", "--config", file, "--loss_type", "apo_zero"])
    assert "pair_weight: bell does not go with loss_type: apo_zero" in capsys.readouterr().err


@pytest.mark.slow
def test_the_benchmark_prints_its_figure_last(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import dpo_step

    dpo_step.main(["--quick"])
    *lines, last = capsys.readouterr().out.strip().splitlines()
    assert sum("ours" in line and "TRL" in line for line in lines) == 6
    assert last.startswith("dpo step: time ") and "peak memory" in last


@pytest.mark.slow
def test_smoke():
    """A recipe's losses run on the embedded model and a handful of sums."""
    assert main(["dpo", "--smoke", "--anchor", "nll", "--beta_schedule", "linear", "--output_dir", "out"]) == 0
    log = json.loads(Path("out/trainer_state.json").read_text())["log_history"][0]
    assert log["drift/chosen_per_token"] == 0 and log["pairs/anchor"] > 0


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_command(tmp_path):
    """SIGKILL in the middle, with schedules and stored references: the bits of a run that was left alone."""
    data = lines(tmp_path / "pairs.jsonl", pairs(64).to_list())
    changes = {"dataset_name": str(data), "save_strategy": "steps", "save_steps": 5, "max_steps": 200}
    changes |= {"beta_schedule": "linear", "anchor": "nll", "learning_rate": 1e-3}
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    killed = recipe(tmp_path / "a", **changes)
    process = subprocess.Popen(
        [sys.executable, "-m", "trl_math.cli.main", "dpo", "--config", killed],
        env=quiet_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: (tmp_path / "a" / "out" / "checkpoint-20" / "trainer_state.json").exists(), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for words in ((killed,), (recipe(tmp_path / "b", **changes),)):
        done = subprocess.run(
            [sys.executable, "-m", "trl_math.cli.main", "dpo", "--config", *words],
            env=quiet_environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    results = [(tmp_path / name / "out" / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert results[0] == results[1]

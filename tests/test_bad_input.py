"""Every mistake a user can make is one line that says what was found and what to do, before a model is loaded."""

import json

import pytest
import torch
from datasets import Dataset
from helpers import make_trainer, products, proofs, settings
from transformers import AutoModelForCausalLM

from trl_math import MathSFTConfig, MathSFTTrainer
from trl_math.errors import DataError, MissingPackageError, NonFiniteLossError, TrlMathError, UsageError
from trl_math.models.tiny import save_tiny, tiny_model, tiny_tokenizer


COVERAGE = {"objective": "coverage", "num_attempts": 16}


def config(**changes):
    return MathSFTConfig(**settings("out", **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "covarage"}, "Unknown objective 'covarage'. Did you mean 'coverage'?"),
        ({"objective": "coverage"}, "needs num_attempts"),
        ({**COVERAGE, "num_attempts": 0}, "above 0, got 0"),
        ({**COVERAGE, "num_attempts": -3}, "above 0, got -3"),
        ({**COVERAGE, "num_attempts": float("nan")}, "above 0, got nan"),
        ({**COVERAGE, "num_attempts": float("inf")}, "above 0, got inf"),
        ({**COVERAGE, "coverage_level": "sentence"}, "Unknown coverage_level 'sentence'."),
        ({**COVERAGE, "coverage_reduction": "max"}, "Unknown coverage_reduction 'max'."),
        ({**COVERAGE, "coverage_allocation": "uniform"}, "set coverage_level"),
        ({"coverage_level": "step"}, "coverage_level belongs to objective: coverage"),
        ({"objective": "focal", "objective_params": {"gama": 1}}, "no parameter 'gama'. Did you mean 'gamma'?"),
        ({"objective": "focal", "objective_params": '{"gamma": -1}'}, "gamma must be above 0"),
        ({"objective": "focal", "objective_params": {"gamma": "big"}}, "gamma must be a number"),
        ({"objective": "cap"}, "needs objective_params: {max_probability: ...}"),
        ({"objective": "cap", "objective_params": {"max_probability": 1.5}}, "a probability between 0 and 1"),
        ({"objective_params": {"gamma": 1}}, "cross_entropy has no parameter 'gamma'"),
        ({**COVERAGE, "min_coverage_weight": 1.0}, "must be in [0, 1)"),
        ({"min_coverage_weight": 0.1}, "needs objective: coverage"),
        ({**COVERAGE, "num_attempts": 1, "min_coverage_weight": 0.1}, "num_attempts > 1"),
        ({**COVERAGE, "min_coverage_weight": 0.1, "packing": True}, "does not work with packing"),
        ({**COVERAGE, "min_coverage_weight": 0.1, "dataloader_num_workers": 2}, "dataloader_num_workers"),
        ({**COVERAGE, "min_coverage_weight": 0.1, "train_sampling_strategy": "group_by_length"}, "the queue decides"),
        ({**COVERAGE, "loss_type": "dft"}, "loss_type: dft replaces the loss"),
        ({**COVERAGE, "use_liger_kernel": True}, "use_liger_kernel replaces the loss"),
        ({**COVERAGE, "label_smoothing_factor": 0.1}, "label_smoothing_factor replaces the loss"),
        ({**COVERAGE, "packing": True, "packing_strategy": "wrapped"}, "use packing_strategy: bfd"),
        ({**COVERAGE, "packing": True, "packing_strategy": "bfd_split"}, "use packing_strategy: bfd"),
        ({"max_truncated_fraction": 2}, "a share between 0 and 1"),
    ],
)
def test_settings_that_cannot_work(changes, message):
    """Objectives and what clashes with them are refused by the configuration itself."""
    with pytest.raises(UsageError) as error:
        config(**changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def never_loads(monkeypatch):
    """Make loading a model a failure of the test."""

    def load(*args, **kwargs):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load)
    monkeypatch.setattr("trl.trainer.sft_trainer.create_model_from_path", load)


def prompt_rows(completions):
    return Dataset.from_list([{"prompt": "1+1=", "completion": text} for text in completions])


def tokenized(labels):
    return Dataset.from_list([{"input_ids": list(range(3, 3 + len(row))), "labels": row} for row in labels])


@pytest.mark.parametrize(
    ("dataset", "changes", "message"),
    [
        (lambda: products(1).select([]), {}, "data set is empty"),
        (lambda: Dataset.from_dict({"question": ["a"], "reply": ["b"]}), {}, "Found: question, reply."),
        (products, {**COVERAGE, "coverage_level": "step"}, "needs a column 'steps'"),
        (lambda: prompt_rows(["2" * 100] * 20), {"max_length": 30}, "20 of 20 rows (100.0%)"),
        (lambda: prompt_rows(["2"] * 97 + ["2" * 99] * 3), {"max_length": 30}, "3 of 100 rows (3.0%)"),
        (lambda: tokenized([[-100, 4, 5], [-100, -100, -100]]), {}, "1 of 2 rows"),
        (lambda: tokenized([[4, -100, -100]]), {}, "no token to train on"),
        (
            lambda: proofs(4).map(lambda row: {"steps": [*row["steps"], "more"]}),
            {**COVERAGE, "coverage_level": "step"},
            "Row 0: the steps, joined, are not the completion",
        ),
    ],
)
def test_rows_that_cannot_work(tmp_path, monkeypatch, dataset, changes, message):
    """Data sets that are empty, masked, truncated or lack columns are refused while no model is loaded."""
    save_tiny(tmp_path / "model")
    never_loads(monkeypatch)
    with pytest.raises(DataError) as error:
        make_trainer(tmp_path / "out", dataset(), model=str(tmp_path / "model"), **changes)
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_few_truncated_rows_are_counted_or_dropped(tmp_path, caplog):
    """Below the stated share truncation is counted and said; on request the rows are left out."""
    rows = prompt_rows(["2"] * 99 + ["2" * 99])
    trainer = make_trainer(tmp_path, rows, max_length=30)
    assert "1 of 100 rows (1.0%)" in caplog.text
    assert len(trainer.train_dataset) == 100
    trainer = make_trainer(tmp_path, rows, max_length=30, drop_truncated=True, max_truncated_fraction=0.0)
    assert len(trainer.train_dataset) == 99
    with pytest.raises(DataError, match="nothing is left"):
        make_trainer(tmp_path, prompt_rows(["2" * 99]), max_length=30, drop_truncated=True)


def test_tokenizer_without_eos(tmp_path, monkeypatch):
    """Without an EOS token a model could never learn to stop."""
    save_tiny(tmp_path / "model")
    never_loads(monkeypatch)
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UsageError, match="no EOS token"):
        make_trainer(tmp_path / "out", model=str(tmp_path / "model"), processing_class=tokenizer)
    with pytest.raises(UsageError, match="eos_token '<nope>' is not in the tokenizer's vocabulary"):
        make_trainer(tmp_path / "out", model=str(tmp_path / "model"), eos_token="<nope>")


def test_padding_in_the_labels(tmp_path):
    """Where pad = EOS, labels that train on padding are refused; padding by the collator is fine."""
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    end = tokenizer.eos_token_id
    padded = Dataset.from_list([{"input_ids": [5, 6, end, end], "labels": [-100, 6, end, end]}] * 3)
    with pytest.raises(DataError, match="3 of 3 rows of the train data set train on padding"):
        make_trainer(tmp_path, padded, processing_class=tokenizer)
    make_trainer(tmp_path, products(), processing_class=tokenizer).train()


def test_template_that_never_trains_eos(tmp_path):
    """A chat template that ends turns with another token than EOS is named."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}<|pad|>{% endfor %}"
    rows = Dataset.from_list([{"messages": [{"role": "user", "content": "1+1"}]}])
    with pytest.raises(DataError, match="No row of the train data set trains the EOS token"):
        make_trainer(tmp_path, rows, processing_class=tokenizer)


def test_nan_loss_stops_training(tmp_path):
    """A loss that is not a number ends the run at once, where Trainer would hide it and train on."""
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight[5, 0] = float("nan")
    trainer = make_trainer(tmp_path, model=model, **COVERAGE)
    with pytest.raises(NonFiniteLossError, match=r"The loss is \[nan\] at step 0"):
        trainer.train()


def test_two_losses(tmp_path):
    """A custom loss and an objective exclude each other; so do a stream and refill."""
    with pytest.raises(UsageError, match="two losses"):
        MathSFTTrainer(
            model=tiny_model(),
            args=config(**COVERAGE),
            train_dataset=products(),
            processing_class=tiny_tokenizer(),
            compute_loss_func=lambda *args, **kwargs: None,
        )
    with pytest.raises(DataError, match="not a stream"):
        make_trainer(tmp_path, products().to_iterable_dataset(), **COVERAGE, min_coverage_weight=0.1)


def test_sequence_parallelism(tmp_path, monkeypatch):
    """Objectives that need whole sequences are refused under sequence and context parallelism."""
    monkeypatch.setenv("PARALLELISM_CONFIG_SP_SIZE", "2")
    with pytest.raises(UsageError, match="sp_size"):
        make_trainer(tmp_path, **COVERAGE)


def test_packing_with_an_attention_that_mixes(monkeypatch):
    """Packing asks for an attention that keeps sequences apart."""
    from trl_math.preflight import check_attention
    from trl_math.recipes import build_sft

    values = {**settings("out"), "packing": True, "attn_implementation": "home_made"}
    with pytest.raises(UsageError, match="does not keep them apart"):
        check_attention(build_sft(values))
    check_attention(build_sft({**values, "attn_implementation": "sdpa"}))


@pytest.mark.parametrize(
    ("changes", "package", "extra"),
    [
        ({"attn_implementation": "flash_attention_2"}, "flash_attn", "flash-attn"),
        ({"accelerate_config": "zero3"}, "deepspeed", "deepspeed"),
        ({"load_in_4bit": True}, "bitsandbytes", "qlora"),
        ({"report_to": "wandb"}, "wandb", "wandb"),
        ({"report_to": ["trackio"]}, "trackio", "trackio"),
    ],
)
def test_missing_packages_name_the_extra(monkeypatch, changes, package, extra):
    """What is asked for and not installed is named with the extra that brings it."""
    from trl_math import optional, preflight
    from trl_math.launch import launch_plan
    from trl_math.recipes import build_sft

    monkeypatch.setattr(optional, "is_installed", lambda name: name != package)
    values = {**settings("out"), **changes, "model_name_or_path": "embedded:tiny", "dataset_name": "x.jsonl"}
    arguments = build_sft(values)
    with pytest.raises(MissingPackageError) as error:
        preflight.check_before_model(arguments, launch_plan(values.get("accelerate_config")))
    assert f"trl-math[{extra}]" in str(error.value)


def test_more_processes_than_devices(monkeypatch):
    """A launch for eight GPUs on a machine with one says how to start it there; so does a machine with many."""
    from trl_math.launch import launch_plan
    from trl_math.preflight import check_devices

    for name in ("ACCELERATE_MIXED_PRECISION", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="pass --num_processes 1"):
        check_devices(launch_plan("zero2"), uses_cpu=False)
    check_devices(launch_plan("zero2", num_processes=1), uses_cpu=False)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    with pytest.raises(UsageError, match="4 GPUs are visible to one process"):
        check_devices(None, uses_cpu=False)


def test_launch_file_and_recipe_disagree(tmp_path):
    """A launch file that fixes the accumulation steps must fix the recipe's."""
    import yaml

    from trl_math.launch import launch_plan
    from trl_math.preflight import check_launch
    from trl_math.recipes import build_sft

    file = tmp_path / "launch.yaml"
    deepspeed = {"zero_stage": 2, "gradient_accumulation_steps": 4}
    file.write_text(yaml.safe_dump({"distributed_type": "DEEPSPEED", "deepspeed_config": deepspeed}))
    with pytest.raises(UsageError, match="gradient_accumulation_steps is 4"):
        check_launch(build_sft(settings("out")), launch_plan(str(file)))


def test_run_folders(tmp_path):
    """A folder of another configuration, or of something else, is left alone."""
    from trl_math.run_folder import open_run_folder, write_manifest

    folder = tmp_path / "run"
    values = {"learning_rate": 1e-5, "logging_steps": 5}
    assert not open_run_folder(folder, values)
    write_manifest(folder, values, is_finished=False)
    assert not open_run_folder(folder, {**values, "logging_steps": 9})
    with pytest.raises(TrlMathError, match=r"learning_rate 1e-05 there, 0.1 here"):
        open_run_folder(folder, {**values, "learning_rate": 0.1})
    write_manifest(folder, values, is_finished=True)
    assert open_run_folder(folder, values)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("precious")
    with pytest.raises(TrlMathError, match="not a run of trl-math"):
        open_run_folder(other, values)
    (other / "run.json").write_text('{"settings": ')
    with pytest.raises(TrlMathError, match="cannot be read as ours"):
        open_run_folder(other, values)
    assert json.loads((folder / "run.json").read_text())["is_finished"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval_packing": True}, "lets the packed sequences see each other"),
        ({**COVERAGE, "coverage_level": "step", "truncation_mode": "keep_end"}, "truncation_mode: keep_start"),
        ({"num_attempts": 4, "label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        ({"per_device_train_batch_size": 0}, "must be at least 1"),
        ({"objective": "focal", "objective_params": "gamma=2"}, "objective_params must be a mapping"),
    ],
)
def test_settings_that_a_review_found(changes, message):
    """Each of these once trained on, with wrong numbers or a traceback."""
    with pytest.raises(UsageError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"prompt": ["a", "b"], "completion": ["1", None]}, "1 rows of the train data set have no completion"),
        ({"prompt": ["a"], "completion": [5]}, "Column completion of the train data set holds 5"),
    ],
)
def test_rows_that_hold_no_text(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        make_trainer(tmp_path, Dataset.from_dict(rows))


def test_prompt_learning_and_streams_have_no_segments(tmp_path):
    from peft import PromptTuningConfig

    with pytest.raises(UsageError, match="Prompt learning"):
        make_trainer(tmp_path, peft_config=PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4), **COVERAGE)
    with pytest.raises(DataError, match="no stream"):
        make_trainer(tmp_path, proofs().to_iterable_dataset(), **COVERAGE, coverage_level="step")


def test_launches_that_cannot_be_what_they_say(tmp_path):
    """A number of processes is used or refused."""
    from trl_math.launch import launch_plan

    with pytest.raises(UsageError, match="it needs accelerate_config"):
        launch_plan(None, 2)
    with pytest.raises(UsageError, match="is for one process"):
        launch_plan("cpu", 2)
    with pytest.raises(UsageError, match="at least 1"):
        launch_plan("ddp", 0)


def test_secrets_are_not_written(tmp_path):
    """Access tokens and environment variables stay out of run.json, and do not make another configuration."""
    from trl_math.run_folder import open_run_folder, write_manifest

    secret = {"hub_token": "hf_SECRET", "env": {"WANDB_API_KEY": "SECRET"}, "eos_token": "<end>"}
    write_manifest(tmp_path / "run", secret, is_finished=False)
    text = (tmp_path / "run" / "run.json").read_text()
    assert "SECRET" not in text and "<end>" in text
    assert not open_run_folder(tmp_path / "run", {**secret, "hub_token": "hf_OTHER"})


def test_one_process_a_folder(tmp_path):
    from trl_math.run_folder import hold_run_folder

    first, same = hold_run_folder(tmp_path / "run"), hold_run_folder(tmp_path / "run" / ".." / "run")
    with first, pytest.raises(TrlMathError, match="Another process is training"), same:
        pass
    (tmp_path / "file").touch()
    with pytest.raises(TrlMathError, match=r"Cannot write to .*file"), hold_run_folder(tmp_path / "file" / "run"):
        pass


def test_plain_trl_configurations_are_taken(tmp_path):
    """An `SFTConfig` becomes ours, tokens that TRL hides included."""
    from trl import SFTConfig

    trainer = MathSFTTrainer(
        model=tiny_model(),
        args=SFTConfig(**settings(tmp_path)),
        train_dataset=products(),
        processing_class=tiny_tokenizer(),
    )
    assert isinstance(trainer.args, MathSFTConfig)
    assert trainer.args.objective == "cross_entropy"


def test_text_from_the_command_line():
    """Flags are read as their field's type, and a word stays a word."""
    from trl_math.recipes import convert

    assert convert("learning_rate", "1e-5", float) == 1e-5
    assert convert("eval_strategy", "no", str) == "no"
    assert convert("eval_strategy", False, str) == "no"
    assert convert("output_dir", "010", str | None) == "010"
    assert convert("report_to", "none", None | str | list[str]) == "none"
    assert convert("max_length", "null", int | None) is None
    assert convert("packing", "false", bool) is False
    assert convert("max_steps", "-1", int) == -1
    assert convert("objective_params", "{gamma: 2}", dict | str | None) == {"gamma": 2}
    assert convert("lora_target_modules", "all-linear", list[str] | None) == ["all-linear"]
    for value, hint in (("two", int), (2.5, int), (True, float), ("maybe", bool)):
        with pytest.raises(UsageError):
            convert("key", value, hint)


def test_evaluation_settings_need_an_evaluation(tmp_path):
    from trl_math.data.load import DataArguments, load_rows

    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "1+1=", "completion": "2"}\n')
    arguments = DataArguments(dataset_name=str(rows), eval_dataset_name=str(rows))
    with pytest.raises(UsageError, match="need an eval_strategy"):
        load_rows(arguments, 0, evaluates=False)
    train, held_out = load_rows(arguments, 0, evaluates=True)
    assert len(train) == len(held_out) == 1
    # One file has no test split; its rows would be evaluated after they were trained on.
    alone = DataArguments(dataset_name=str(rows))
    for are_pairs in (False, True):
        with pytest.raises(UsageError, match=r"is one file, without a split 'test' to evaluate on"):
            load_rows(alone, 0, evaluates=True, are_pairs=are_pairs)
    meant = DataArguments(dataset_name=str(rows), dataset_test_split="train")
    assert len(load_rows(meant, 0, evaluates=True)[1]) == 1

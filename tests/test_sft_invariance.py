"""The loss and its gradient do not depend on how an optimiser step is cut up or laid out. float32, 1e-5."""

import shutil
from pathlib import Path

import pytest
import yaml
from helpers import history, make_trainer, products, proofs, run_processes, trained


OBJECTIVES = {
    "cross-entropy": {},
    "sequence": {"objective": "coverage", "num_attempts": 64},
    "sequence, published reduction": {"objective": "coverage", "num_attempts": 64, "coverage_reduction": "mean"},
    "token": {"objective": "coverage", "num_attempts": 1.5, "coverage_level": "token"},
    "focal": {"objective": "focal"},
    "tempered": {"objective": "tempered"},
    "gate": {"objective": "gate", "objective_params": {"max_probability": 1e-9}},
}
STEPS = {
    "step": {"objective": "coverage", "num_attempts": 16, "coverage_level": "step"},
    "step, uniform, mean": {
        "objective": "coverage",
        "num_attempts": 16,
        "coverage_level": "step",
        "coverage_allocation": "uniform",
        "coverage_reduction": "mean",
    },
}
ALL = {name: (products, config) for name, config in OBJECTIVES.items()} | {
    name: (proofs, config) for name, config in STEPS.items()
}
DISTRIBUTED = Path(__file__).parent / "distributed" / "train_once.py"


def close(first, second, tolerance=1e-5):
    return all(a == pytest.approx(b, rel=tolerance) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("rows", "objective"), ALL.values(), ids=ALL.keys())
def test_accumulation(tmp_path, rows, objective):
    """Batch 1 with 8 accumulation steps is batch 8."""
    whole = trained(tmp_path / "a", rows(16), per_device_train_batch_size=8, **objective)
    parts = trained(
        tmp_path / "b", rows(16), per_device_train_batch_size=1, gradient_accumulation_steps=8, **objective
    )
    assert close(history(whole), history(parts))


@pytest.mark.parametrize(("rows", "objective"), ALL.values(), ids=ALL.keys())
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packing(tmp_path, rows, objective, attention):
    """A packed row is the padded batch of its sequences: same loss, same gradient."""
    from trl_math.models.tiny import tiny_model

    def model():
        return tiny_model(attn_implementation=attention)

    one_step = {"max_steps": 1, "learning_rate": 0.0, **objective}
    padded = trained(tmp_path / "a", rows(12), model=model(), per_device_train_batch_size=12, **one_step)
    packed = trained(
        tmp_path / "b",
        rows(12),
        model=model(),
        packing=True,
        max_length=2048,
        per_device_train_batch_size=1,
        **one_step,
    )
    free = trained(
        tmp_path / "c",
        rows(12),
        model=model(),
        padding_free=True,
        max_length=None,
        per_device_train_batch_size=12,
        **one_step,
    )
    assert packed.train_dataset.num_rows == 1
    assert close(history(padded), history(packed))
    assert close(history(padded), history(free))


def test_evaluation_does_not_depend_on_the_batch(tmp_path):
    """What is logged of coverage is a mean over sequences, whatever batches they came in."""
    losses = []
    for size in (1, 2, 4, 9):
        trainer = make_trainer(
            tmp_path / str(size), eval_dataset=products(9), per_device_eval_batch_size=size, **OBJECTIVES["sequence"]
        )
        losses.append(trainer.evaluate()["eval_coverage/loss"])
    assert losses == [pytest.approx(losses[0], rel=1e-5)] * 4


def test_a_packed_evaluation_set_is_packed_once(tmp_path):
    """Evaluating the trainer's own packed set again is the same evaluation."""
    trainer = make_trainer(
        tmp_path,
        eval_dataset=products(9),
        packing=True,
        max_length=2048,
        per_device_train_batch_size=1,
        **OBJECTIVES["sequence"],
    )
    first = trainer.evaluate()["eval_coverage/loss"]
    assert trainer.evaluate(trainer.eval_dataset)["eval_coverage/loss"] == first


def launch_settings(folder, **changes):
    """A two-process ZeRO launch on a CPU."""
    settings = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "DEEPSPEED",
        "use_cpu": True,
        "num_machines": 1,
        "num_processes": 2,
        "mixed_precision": "no",
        "deepspeed_config": {
            "zero_stage": 3,
            "zero3_init_flag": True,
            "zero3_save_16bit_model": True,
            "gradient_accumulation_steps": "auto",
            "gradient_clipping": "auto",
        },
    }
    settings["deepspeed_config"].update(changes)
    file = folder / "launch.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def torchrun(port):
    return ["torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"]


def accelerate(config, port):
    if shutil.which("c++") is None:
        pytest.skip("DeepSpeed compiles its communication for the CPU: no C++ compiler here")
    return ["accelerate.commands.launch", "--config_file", str(config), "--main_process_port", str(port)]


@pytest.mark.parametrize(
    ("name", "port"),
    [pytest.param("sequence, published reduction", 29711, marks=pytest.mark.slow), ("step, uniform, mean", 29713)],
)
def test_two_processes(tmp_path, name, port):
    """Two processes with half the batch each are one process with all of it."""
    rows, objective = ALL[name]
    alone = trained(tmp_path / "a", rows(), per_device_train_batch_size=4, **objective)
    request = {"settings": {"per_device_train_batch_size": 2, **objective}, "dataset": rows.__name__}
    together = run_processes(DISTRIBUTED, torchrun(port), tmp_path / "b", port, **request)
    assert together["num_processes"] == 2
    alone_rows = history(alone)
    assert close(alone_rows, [tuple(row) for row in together["history"]])


@pytest.mark.parametrize(("stage", "port"), [(3, 29715), pytest.param(2, 29717, marks=pytest.mark.slow)])
def test_zero(tmp_path, stage, port):
    """ZeRO-3 and ZeRO-2 on two processes are plain training."""
    objective = ALL["sequence"][1]
    alone = trained(tmp_path / "a", per_device_train_batch_size=4, **objective)
    changes = {"zero_stage": stage} | ({"zero3_init_flag": False} if stage == 2 else {})
    launcher = accelerate(launch_settings(tmp_path, **changes), port)
    request = {"settings": {"per_device_train_batch_size": 2, **objective}}
    together = run_processes(DISTRIBUTED, launcher, tmp_path / "b", port, **request)
    assert together["num_processes"] == 2
    assert "DEEPSPEED" in together["distributed"]
    assert close(history(alone), [tuple(row) for row in together["history"]])


def test_steps_are_found_in_any_tokenizer(tmp_path):
    """Step numbers follow the text: unicode, white space at the edges, chat templates."""
    from trl_math.models.tiny import tiny_tokenizer
    from trl_math.trainers.rows import step_ids

    tokenizer = tiny_tokenizer()
    steps = [" α ≤ β∎", "∎\n  so ", "∎ "]
    prompt, completion = "Prove: ", "".join(steps)
    ids = tokenizer(prompt + completion + tokenizer.eos_token)["input_ids"]
    start = len(tokenizer(prompt)["input_ids"])
    numbers = step_ids(ids, [-100] * start + ids[start:], steps, tokenizer, 0)
    expected = [0] * start
    for number, step in enumerate(steps, 1):
        expected += [number] * len(step.encode())
    assert numbers == [*expected, 3]  # the end token belongs to the last step

    messages = [{"role": "assistant", "content": completion}]
    ids = tokenizer.apply_chat_template(messages, tokenize=True)["input_ids"]
    start = len(tokenizer("<|im_start|>assistant\n")["input_ids"])
    numbers = step_ids(ids, [-100] * start + ids[start:], steps, tokenizer, 0)
    assert numbers == [*([0] * start), *expected[len(prompt) :], 3, 3]


def test_steps_of_a_tokenizer_that_drops_the_leading_space(tmp_path):
    """SentencePiece-like decoding loses a leading space; the steps are found all the same."""
    from trl_math.trainers.rows import step_ids

    class Words:
        pieces = (" so", " it", " is", " done")

        def decode(self, ids):
            return "".join(self.pieces[i] for i in ids).lstrip()

    assert step_ids([0, 1, 2, 3], [-100, 1, 2, 3], [" it is", " done"], Words(), 0) == [0, 1, 1, 2]

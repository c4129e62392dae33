"""Coverage on top of adapters and quantised models, and examples that run as written."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import history, make_trainer, quiet_environment, trained, weights

from trl_math.models.tiny import save_tiny


COVERAGE = {"objective": "coverage", "num_attempts": 16}
EXAMPLES = Path(__file__).parents[1] / "examples"


def lora(**changes):
    from peft import LoraConfig

    return LoraConfig(r=4, target_modules="all-linear", **changes)


def test_lora_trains_adapters_only(tmp_path):
    """Every adapter weight moves and nothing else is trained; checkpointing changes nothing."""
    plain = trained(tmp_path / "a", peft_config=lora(), **COVERAGE)
    names = weights(plain)
    assert names and all("lora" in name for name in names)
    assert all(value.abs().sum() > 0 for name, value in names.items() if "lora_B" in name)
    checkpointed = trained(tmp_path / "b", peft_config=lora(), gradient_checkpointing=True, **COVERAGE)
    assert history(checkpointed) == [pytest.approx(row, rel=1e-5) for row in history(plain)]


def test_qlora(tmp_path):
    """A model in 4 bits with LoRA trains under the coverage objective."""
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    from trl_math import MathSFTConfig, MathSFTTrainer

    reference = make_trainer(tmp_path / "settings")
    save_tiny(tmp_path / "model")
    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    args = MathSFTConfig(
        output_dir=str(tmp_path / "out"),
        use_cpu=True,
        bf16=True,
        max_steps=3,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        **COVERAGE,
    )
    trainer = MathSFTTrainer(
        model=str(tmp_path / "model"),
        args=args,
        train_dataset=reference.train_dataset.select_columns(["input_ids", "labels"]),
        quantization_config=quantised,
        peft_config=lora(),
    )
    before = weights(trainer)
    trainer.train()
    after = weights(trainer)
    assert len(history(trainer)) == 3
    assert all(not torch.equal(before[name], after[name]) for name in after if "lora_B" in name)


def test_every_parameter_moves(tmp_path):
    """Full fine-tuning in bf16 with the coverage objective changes every weight."""
    trainer = make_trainer(tmp_path, bf16=True, learning_rate=0.1, **COVERAGE)
    before = weights(trainer)
    trainer.train()
    assert all(not torch.equal(before[name], value) for name, value in weights(trainer).items())


@pytest.mark.slow
def test_the_twenty_lines_of_the_readme():
    """The script of twenty lines is the README's, and it runs."""
    source = (EXAMPLES / "train_in_twenty_lines.py").read_text()
    readme = (EXAMPLES.parent / "README.md").read_text()
    body = source.split('"""', 2)[2].strip()
    assert body in readme
    run = [sys.executable, str(EXAMPLES / "train_in_twenty_lines.py")]
    done = subprocess.run(run, env=quiet_environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "coverage/weight" in done.stdout


@pytest.mark.slow
def test_accelerate_launch_of_the_example():
    """`accelerate launch examples/sft_math.py` works without arguments."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    run = [*launch, str(EXAMPLES / "sft_math.py"), "--max_steps", "2"]
    done = subprocess.run(run, env=quiet_environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Saved to runs/examples/sft_math" in done.stdout

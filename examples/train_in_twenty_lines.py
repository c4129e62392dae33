"""The trainer in a script of your own: `python examples/train_in_twenty_lines.py` (a CPU will do, half a minute)."""

from datasets import Dataset

from trl_math import MathSFTConfig, MathSFTTrainer
from trl_math.models import resolve_model


rows = [{"prompt": f"{a} * {b} =", "completion": f" {a * b}"} for a in range(2, 10) for b in range(2, 10)]
config = MathSFTConfig(
    output_dir="runs/twenty_lines",
    objective="coverage",  # the one field: everything else is TRL's
    num_attempts=16,
    max_steps=10,
    logging_steps=2,
    report_to="none",
    use_cpu=True,
)
model = resolve_model("embedded:smollm2-135m-instruct")  # or any hub name
trainer = MathSFTTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows))
trainer.train()

"""Ask the model while it trains, and keep the checkpoint that answers best.

    python examples/eval_while_training.py
    accelerate launch --config_file recipes/accelerate/zero3.yaml examples/eval_while_training.py

Without arguments it trains the embedded model on products, on a CPU if there is no GPU.
Under ZeRO-3 it needs the package vllm. The same from a recipe: `eval_generation_data` and its kin, of `trl-math sft`.
"""

import torch
from transformers import EarlyStoppingCallback

from trl_math import GenerationEvalCallback, MathSFTConfig, MathSFTTrainer
from trl_math.data import load_source, to_problems, to_sft
from trl_math.models import resolve_model
from trl_math.records import Sampling


PRODUCTS = "reasoning_gym:products?size={size}&min_digits=1&max_digits=1"
STYLE = "plain"


def products(size: int, split: str):
    """Return products to learn, or to be asked: one split has none of the other."""
    name = PRODUCTS.format(size=size)
    return to_problems(load_source(name, split), name)


def main() -> None:
    held_out = products(8, "test")
    config = MathSFTConfig(
        output_dir="runs/examples/eval_while_training",
        objective="coverage",
        num_attempts=4,
        max_steps=12,
        learning_rate=1e-4,
        per_device_train_batch_size=4,
        model_init_kwargs={"dtype": "float32"},
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="steps",
        eval_steps=4,
        save_strategy="steps",
        save_steps=4,
        save_total_limit=1,
        metric_for_best_model="pass@4",  # or pass@1, maj@4, loss, ...
        load_best_model_at_end=True,
        report_to="none",
    )
    trainer = MathSFTTrainer(
        model=resolve_model("embedded:smollm2-135m-instruct"),
        args=config,
        train_dataset=to_sft(products(40, "train"), STYLE),
        eval_dataset=to_sft(held_out, STYLE),
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
    )
    sampling = Sampling(num_samples=4, max_tokens=8)
    trainer.add_callback(GenerationEvalCallback(trainer, held_out, prompt_style=STYLE, sampling=sampling))
    trainer.train()
    best = trainer.state
    trainer.accelerator.print(f"Best: pass@4 of {best.best_metric:.2f}, in {best.best_model_checkpoint}.")
    trainer.accelerator.print(
        f"What it answered, and every number with its interval: {config.output_dir}/eval_samples"
    )
    trainer.end()


if __name__ == "__main__":
    main()

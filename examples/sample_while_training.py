"""Sample from the model while it trains, with an engine of vLLM that follows its weights.

    python examples/sample_while_training.py
    accelerate launch --config_file recipes/accelerate/zero3.yaml examples/sample_while_training.py

Without arguments it trains the embedded model on products, on a CPU if there is no GPU, and every few steps asks it
some that it has not seen. Needs the package vllm.
"""

import torch
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback

from trl_math import MathSFTConfig, MathSFTTrainer
from trl_math.generation import EngineLayout, LiveEngines
from trl_math.models import resolve_model
from trl_math.records import Sampling


HELD_OUT = [(3, 7), (6, 8), (9, 4), (5, 5)]


class SampleCallback(TrainerCallback):
    """Every `every` steps, lets engines take over the weights and prints what they say."""

    def __init__(self, model: str, tokenizer, every: int) -> None:
        self.every = every
        self.tokenizer = tokenizer
        # One engine in each process; EngineLayout(num_engines=2) on eight GPUs is two engines of four.
        self.engines = LiveEngines(model, tokenizer, layout=EngineLayout(), max_model_len=256, dtype="float32")
        self.prompts = [tokenizer(f"{a} * {b} =")["input_ids"] for a, b in HELD_OUT]

    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        if state.global_step % self.every:
            return
        parity = self.engines.follow(model)  # raises if the engine does not say what the model says
        samples = self.engines.generate(self.prompts, Sampling(num_samples=8, max_tokens=8, stop=("\n",)))
        hits = [
            sum(sample.text.strip().startswith(str(a * b)) for sample in row)
            for (a, b), row in zip(HELD_OUT, samples, strict=True)
        ]
        if state.is_world_process_zero:
            print(f"step {state.global_step}: right in {hits} of 8 samples; {parity.mean_difference:.1e} nats apart")

    def on_train_end(self, args, state, control, **kwargs) -> None:
        self.engines.close()


def main() -> None:
    model = resolve_model("embedded:smollm2-135m-instruct")
    pairs = [(a, b) for a in range(2, 10) for b in range(2, 10) if (a, b) not in HELD_OUT]
    rows = [{"prompt": f"{a} * {b} =", "completion": f" {a * b}"} for a, b in pairs]
    config = MathSFTConfig(
        output_dir="runs/examples/sample_while_training",
        objective="coverage",
        num_attempts=8,
        max_steps=6,
        learning_rate=2e-5,
        per_device_train_batch_size=4,
        model_init_kwargs={"dtype": "float32"},
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        report_to="none",
    )
    callback = SampleCallback(model, AutoTokenizer.from_pretrained(model), every=2)
    trainer = MathSFTTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows), callbacks=[callback])
    trainer.train()
    trainer.end()


if __name__ == "__main__":
    main()

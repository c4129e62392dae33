"""Preference training on the model's own right and wrong answers, sampled anew from its weights every few steps.

    accelerate launch examples/dpo_math.py
    accelerate launch --config_file recipes/accelerate/zero3.yaml examples/dpo_math.py

Without arguments it trains the embedded 135M model on times tables, on a CPU if there is no GPU. On GPUs where vLLM is
installed, engines beside the trainer draw the samples; else the model does itself.
"""

import torch

from trl_math import MathDPOConfig, MathDPOTrainer
from trl_math.models import resolve_model


TIMES_TABLES = "embedded:times_tables"  # any problems with answers: a hub name, a file, reasoning_gym:...


def main() -> None:
    config = MathDPOConfig(
        output_dir="runs/examples/dpo_math",
        # Pairs: at every sixth step problems are asked 8 times each, and right answers set against wrong ones.
        live_data=TIMES_TABLES,
        live_prompt_style="cot",
        live_every=6,
        live_problems=16,
        live_num_samples=8,
        live_max_tokens=24,
        live_pair_params={"max_pairs_per_problem": 3, "unfinished": "rejected"},
        # Loss: DPO, and a pull that keeps right answers likely.
        beta=0.1,
        anchor="nll",
        anchor_weight=0.2,
        learning_rate=1e-5,
        max_length=64,
        max_steps=12,
        per_device_train_batch_size=8,
        model_init_kwargs={"dtype": "float32"},
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=False,
        # Held-out problems, asked before training and at its end.
        eval_generation_data=TIMES_TABLES,
        eval_generation_prompt_style="cot",
        eval_generation_problems=40,
        eval_generation_samples=8,
        eval_generation_max_tokens=24,
        eval_on_start=True,
        eval_strategy="steps",
        eval_steps=12,
        logging_steps=2,
        save_strategy="no",
        report_to="none",
    )
    trainer = MathDPOTrainer(model=resolve_model("embedded:smollm2-135m-instruct"), args=config)
    trainer.train()
    before, *_, after = [log for log in trainer.state.log_history if "eval_pass@1" in log]
    trainer.accelerator.print(
        f"On held-out problems: pass@1 of {before['eval_pass@1']:.2f} before, {after['eval_pass@1']:.2f} after; "
        f"pass@8 of {before['eval_pass@8']:.2f} and {after['eval_pass@8']:.2f}."
    )
    trainer.accelerator.print(f"Every pair that was trained on: {config.output_dir}/live_pairs")
    trainer.end()


if __name__ == "__main__":
    main()

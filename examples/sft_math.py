"""Fine-tune with a coverage objective under accelerate, on as many GPUs as the launch says.

    accelerate launch examples/sft_math.py
    accelerate launch --config_file recipes/accelerate/zero2.yaml examples/sft_math.py \\
        --model_name_or_path Qwen/Qwen2.5-Math-1.5B --dataset_name openai/gsm8k --dataset_config main \\
        --prompt_style chat_cot --objective coverage --num_attempts 64

Without arguments it trains the embedded model on embedded problems, on a CPU if there is no GPU. The arguments are
those of `trl-math sft`, which does the same with checks, resuming and recipes; this is the short form to copy from.
"""

import sys

import torch

from trl_math.data.load import load_rows
from trl_math.models import resolve_model
from trl_math.recipes import build_sft, parse_flags
from trl_math.trainers import MathSFTTrainer


DEFAULTS = {
    "model_name_or_path": "embedded:smollm2-135m-instruct",
    "dataset_name": "reasoning_gym:products?size=50&min_digits=1&max_digits=1",
    "prompt_style": "plain",
    "objective": "coverage",
    "num_attempts": 16,
    "max_steps": 10,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
    "report_to": "none",
    "save_strategy": "no",
    "output_dir": "runs/examples/sft_math",
    "use_cpu": not torch.cuda.is_available(),
}


def main() -> None:
    from trl import get_peft_config, get_quantization_config

    arguments = build_sft({**DEFAULTS, **parse_flags(sys.argv[1:])})
    model, training = arguments.model, arguments.training
    train_rows, eval_rows = load_rows(arguments.data, training.seed, evaluates=arguments.evaluates)
    training.model_init_kwargs = {"attn_implementation": model.attn_implementation, "dtype": model.dtype}
    trainer = MathSFTTrainer(
        model=resolve_model(model.model_name_or_path),
        args=training,
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        peft_config=get_peft_config(model),
        quantization_config=get_quantization_config(model),
    )
    trainer.train()
    trainer.save_model(training.output_dir)
    trainer.accelerator.print(f"Saved to {training.output_dir}.")
    trainer.end()


if __name__ == "__main__":
    main()

"""Configuration of `MathSeq2SeqTrainer`: the fields of `MathSFTConfig`, without those that are about decoders.

The same recipe trains either kind of model; a field that an encoder-decoder has no use for is refused if it is set.
One field is its own: what its tokenizer may be unable to write.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from trl_math.errors import UsageError
from trl_math.trainers.sft_config import MathSFTConfig


# Field -> why it makes no sense, for those that must stay at their defaults.
REFUSED = {
    "packing": "prompts are on one side and completions on the other, so rows cannot share one",
    "eval_packing": "prompts are on one side and completions on the other, so rows cannot share one",
    "padding_free": "prompts are on one side and completions on the other, so rows cannot share one",
    "min_coverage_weight": "batches are not composed while training: filter the rows, or use coverage_from: pass_rate",
    "unscreened_steps": "batches are not composed while training: leave it out",
    "assistant_only_loss": "only completions are trained anyway: leave it out",
    "chat_template_path": "prompts and completions are texts: use a plain prompt_style",
    "eos_token": "prompts and completions end as the checkpoint's tokenizer ends texts: leave it out",
    "pad_token": "the decoder may begin with the checkpoint's own pad token: leave it out",
    "truncation_mode": "each side keeps its beginning: leave it out",
    "loss_type": "set objective instead (dft is one)",
    "use_liger_kernel": "the loss reads the logits, which it leaves out",
    "label_smoothing_factor": "its mean over a micro-batch would depend on accumulation: leave it out",
    "activation_offloading": "TRL has it for decoders: use gradient_checkpointing",
    "router_aux_loss_coef": "it is of mixture-of-experts decoders",
    "eval_generation_gpu_memory_utilization": "vLLM has no encoder-decoder models: the model itself is asked",
    "eval_generation_tensor_parallel_size": "vLLM has no encoder-decoder models: the model itself is asked",
}


@dataclass
class MathSeq2SeqConfig(MathSFTConfig):
    """Training of an encoder-decoder model (T5, Flan-T5, BART) on prompts and completions.

    `max_length` is that of each side: of the prompt in the encoder, and of the completion, its end token included, in
    the decoder.
    """

    max_unwritable_fraction: float = field(
        default=0.01,
        metadata={
            "help": "Encoder-decoders only: largest share of rows whose completion has characters that the tokenizer "
            "lacks, as T5's lacks braces; above it training is refused."
        },
    )

    # What transformers' `Seq2SeqTrainer` reads: problems are asked by `eval_generation_data`, not by its own means.
    predict_with_generate: ClassVar[bool] = False
    generation_max_length: ClassVar[int | None] = None
    generation_num_beams: ClassVar[int | None] = None
    generation_config: ClassVar[Any] = None

    def __post_init__(self) -> None:
        for name, reason in REFUSED.items():
            value = getattr(self, name)
            if value != self.__dataclass_fields__[name].default and value is not False:
                raise UsageError(f"{name} is not for encoder-decoder models: {reason}.")
        if not 0 <= self.max_unwritable_fraction <= 1:
            raise UsageError(
                f"max_unwritable_fraction is a share between 0 and 1, got {self.max_unwritable_fraction}."
            )
        if self.completion_only_loss is False:
            raise UsageError(
                "completion_only_loss: false is not for encoder-decoder models, whose decoder writes no prompt."
            )
        if self.screening == "live":
            raise UsageError(
                "screening: live is not for encoder-decoder models: estimate pass rates with `trl-math difficulty`."
            )
        if self.eval_generation_data is not None:
            if self.eval_generation_engine == "vllm":
                raise UsageError(
                    "eval_generation_engine: vllm is not for encoder-decoder models, which vLLM does not have: use "
                    "transformers."
                )
            self.eval_generation_engine = "transformers"
        super().__post_init__()

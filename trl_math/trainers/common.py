"""What our trainers do alike: resume, checkpoints and cards, rows before the model, losses that are no number."""

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoProcessor, PreTrainedTokenizerBase, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import IntervalStrategy

from trl_math.data.matched_control import budget_of
from trl_math.errors import NonFiniteLossError, RunFolderError, UsageError
from trl_math.files import write_json
from trl_math.trainers.checkpoints import checkpoint_folder, last_complete_checkpoint
from trl_math.trainers.generation_eval_config import chooses_by_rows
from trl_math.trainers.model_card import card_section, data_name, num_rows, with_section


# Of a checkpoint: the tokens that were trained on. Its log, where TRL has them, may end some steps before.
TOKENS_NAME = "tokens.json"


class MathTrainerMixin:
    """Goes before TRL's trainer among the bases. A subclass says what its card tells in `_card_lines`."""

    dataset_name: str | None = None  # for the model card; the command line sets it to what the recipe says
    alarm: str | None = None  # what is wrong with the trained model, to be said again at the end

    @property
    def _mode(self) -> str:
        return "train" if self.model.training else "eval"

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """As `Trainer.train`, but `resume_from_checkpoint=True` skips a checkpoint that was cut off while written."""
        if resume_from_checkpoint is True:
            last = last_complete_checkpoint(self.args.output_dir)
            if last is None:
                raise RunFolderError(f"There is no complete checkpoint to resume in {self.args.output_dir}.")
            resume_from_checkpoint = str(last)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def evaluate(self, eval_dataset: Any = None, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """As `Trainer.evaluate`; where there are problems to ask and no rows to evaluate on, only ask."""
        has_rows = eval_dataset is not None or self.eval_dataset is not None
        if has_rows or self.args.eval_generation_data is None:
            return super().evaluate(eval_dataset, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        self.model.eval()
        metrics = {f"{metric_key_prefix}_runtime": 0.0}  # by which callbacks know an evaluation
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _gathered(self, loss: torch.Tensor, more: torch.Tensor | None = None) -> torch.Tensor:
        """Return `more` (k,) of every process, (processes, k); stop all of them at a loss that is not finite.

        Trainer would hide such a loss. Both travel together, since every gathering makes all processes wait.
        """
        values = loss.detach().reshape(1)
        if more is not None:
            values = torch.cat([values.to(more), more])
        gathered = self.accelerator.gather(values).view(-1, values.numel())
        if not math.isfinite(gathered[:, 0].sum().item()):
            raise NonFiniteLossError(
                f"The loss is {gathered[:, 0].tolist()} at step {self.state.global_step}; it was not used. Look at "
                "the last batch's rows, lower learning_rate, or train in bf16 instead of fp16."
            )
        return gathered[:, 1:]

    def _init_training_state(
        self,
        max_steps: Any,
        num_update_steps_per_epoch: Any,
        num_train_epochs: Any,
        resume_from_checkpoint: Any,
        trial: Any,
    ) -> tuple[int, int]:
        """As `Trainer._init_training_state`, and TRL's count of tokens goes on, too, which would begin at 0 again."""
        trained = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        if resume_from_checkpoint is not None:
            self._total_train_tokens = num_tokens_in(Path(resume_from_checkpoint))
        return trained

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.args.should_save:
            # Before the trainer's state, whose presence says that the checkpoint is whole.
            write_json(checkpoint_folder(self, trial) / TOKENS_NAME, {"num_tokens": self._total_train_tokens})
        super()._save_checkpoint(model, trial)
        folder = checkpoint_folder(self, trial)
        card = Path(self.args.output_dir) / "README.md"
        if self.is_world_process_zero() and folder.is_dir() and card.exists():
            shutil.copyfile(card, folder / "README.md")

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """As TRL's, with the objective and the data."""
        super().create_model_card(*args, **kwargs)
        if self.is_world_process_zero():
            path = Path(self.args.output_dir) / "README.md"
            name = self.dataset_name or data_name(self.train_dataset)
            budget = budget_of(self.train_dataset)
            lines = [*self._card_lines(), *([f"matched control of a difficulty schedule: {budget}"] if budget else [])]
            section = card_section(lines, self.args, name, num_rows(self.train_dataset))
            path.write_text(with_section(path.read_text(), section))

    def _card_lines(self) -> list[str]:
        raise NotImplementedError


def num_tokens_in(checkpoint: Path) -> int:
    """Return how many tokens were trained on up to a checkpoint; of TRL's own, up to its last log."""
    if (checkpoint / TOKENS_NAME).exists():
        return int(json.loads((checkpoint / TOKENS_NAME).read_text())["num_tokens"])
    if not (checkpoint / TRAINER_STATE_NAME).exists():
        return 0
    logs = json.loads((checkpoint / TRAINER_STATE_NAME).read_text())["log_history"]
    return next((int(log["num_tokens"]) for log in reversed(logs) if "num_tokens" in log), 0)


def as_math_config(args: Any, model: Any, ours: type, theirs: type, method: str) -> Any:
    """Return `args` as a configuration of ours, filling in defaults as TRL does."""
    if isinstance(args, ours):
        return args
    if args is None:
        name = model if isinstance(model, str) else model.config._name_or_path
        return ours(f"{name.split('/')[-1]}-{method}")
    if isinstance(args, theirs):
        given = args.to_dict()
        given |= {key: getattr(args, key) for key in given if key.endswith("_token")}  # to_dict hides them
        return ours(**given)
    raise UsageError(f"args must be a {ours.__name__}, got {type(args).__name__}.")


@contextmanager
def without_eval_rows(config: Any, eval_dataset: Any) -> Iterator[None]:
    """Let a trainer be made that evaluates by asking problems only; `Trainer` refuses to evaluate without rows."""
    strategy = config.eval_strategy
    if eval_dataset is None and config.eval_generation_data is not None and not chooses_by_rows(config):
        config.eval_strategy = IntervalStrategy.NO
    try:
        yield
    finally:
        config.eval_strategy = strategy


def processing_class_of(model: Any, processing_class: Any, args: TrainingArguments) -> Any:
    """Return the tokenizer (or processor), loaded as TRL does where there is none and the model is given by name."""
    if processing_class is not None or not isinstance(model, str):
        return processing_class
    return AutoProcessor.from_pretrained(
        model,
        revision=(args.model_init_kwargs or {}).get("revision"),
        trust_remote_code=args.trust_remote_code,
    )


def has_images(dataset: Any) -> bool:
    """Whether rows hold images, which are prepared in the collator."""
    return bool({"image", "images"} & set(getattr(dataset, "column_names", None) or ()))


def can_prepare(dataset: Any, tokenizer: Any) -> bool:
    """Whether rows can be tokenised and checked before the model is loaded: text, in memory or memory-mapped."""
    is_text = isinstance(tokenizer, PreTrainedTokenizerBase) and not has_images(dataset)
    return isinstance(dataset, Dataset) and is_text


def refuse_cut_sequences(asking: str) -> None:
    """Raise if accelerate was told to cut sequences over devices; `asking` needs them whole."""
    for size in ("sp_size", "cp_size"):  # as accelerate hands them to the processes it starts
        if int(os.environ.get(f"PARALLELISM_CONFIG_{size.upper()}", "1")) > 1:
            raise UsageError(
                f"{asking} needs whole sequences on one device, and {size} (sequence or context parallelism) cuts "
                "them. Set it to 1."
            )

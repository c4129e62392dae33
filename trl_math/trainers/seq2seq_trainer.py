"""`MathSeq2SeqTrainer`: transformers' `Seq2SeqTrainer` with the objectives, rows and logs of `MathSFTTrainer`.

Numbered differences from `Seq2SeqTrainer`:
1. The denominator of the loss is the number of trained tokens of the whole optimiser step. T5 and BART divide by those
   of a micro-batch whatever they are told, so that there the loss would depend on how a step is cut up (and, since
   `Trainer` takes it for one that does not, be as many times too large as there are micro-batches).
2. Metrics are those of TRL's SFT: entropy, accuracy and the number of tokens (of both sides).

Without accumulation and with one process, loss, gradients and weights are transformers' own bits.
"""

import copy
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerBase, Seq2SeqTrainer
from transformers.integrations.deepspeed import (
    is_deepspeed_zero3_enabled,
    set_hf_deepspeed_config,
    unset_hf_deepspeed_config,
)
from trl import SFTConfig
from trl.trainer.base_trainer import _BaseTrainer
from trl.trainer.utils import create_model_from_path

from trl_math.errors import DataError, UsageError
from trl_math.generation.encoder_decoder import decoder_start_id, has_encoder
from trl_math.losses import reduce_sum
from trl_math.trainers.common import (
    MathTrainerMixin,
    as_math_config,
    processing_class_of,
    refuse_cut_sequences,
    without_eval_rows,
)
from trl_math.trainers.generation_eval import GenerationEvalCallback
from trl_math.trainers.generation_eval_config import load_eval_problems
from trl_math.trainers.model_card import sft_card_lines
from trl_math.trainers.objective import build_objective, is_cross_entropy
from trl_math.trainers.objective_loss import ObjectiveLoss
from trl_math.trainers.segments import Carried
from trl_math.trainers.seq2seq_batch import Seq2SeqCollator, Targets, read_targets, target_side, tempered_logps
from trl_math.trainers.seq2seq_config import MathSeq2SeqConfig
from trl_math.trainers.seq2seq_rows import ENCODER_IDS, longest_sides, ready_rows
from trl_math.trainers.sft_weights import with_token_columns


class _LoggedTrainer(_BaseTrainer, Seq2SeqTrainer):
    """Logs as TRL's SFT trainer does: means of what was collected since the last log."""

    _metrics: dict[str, dict[str, list[float]]]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        mode = "train" if self.model.training else "eval"
        prefix = "" if mode == "train" else "eval_"
        logs.update({f"{prefix}{key}": sum(values) / len(values) for key, values in self._metrics[mode].items()})
        self._metrics[mode].clear()
        super().log(logs, start_time)


class MathSeq2SeqTrainer(ObjectiveLoss, MathTrainerMixin, _LoggedTrainer):
    """Trains an encoder-decoder model (T5, Flan-T5, BART) on the completions of prompts.

    Args:
        model: A name, a folder or a model.
        args: A [`MathSeq2SeqConfig`].
        train_dataset: Rows with `prompt` and `completion`, which are texts, and what a `MathSFTConfig` reads of rows.
        eval_dataset: Rows like these, or a dict of such data sets.
        processing_class: The tokenizer; by default the model's.
        quantization_config: For a model that is given by name.
        peft_config: For LoRA.
        kwargs: What else `Seq2SeqTrainer` takes (callbacks, optimizers).
    """

    _tag_names = ["trl", "sft", "trl-math"]  # noqa: RUF012 - TRL's own way of declaring them
    _name = "SFT"
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: str | PreTrainedModel,
        args: MathSeq2SeqConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        quantization_config: Any = None,
        peft_config: Any = None,
        **kwargs: Any,
    ) -> None:
        args = as_math_config(args, model, MathSeq2SeqConfig, SFTConfig, "SFT")
        _refuse(args, train_dataset, kwargs)
        self._objective = build_objective(args)
        self._is_plain_loss = is_cross_entropy(args)
        self._metrics: dict[str, dict[str, list[float]]] = {"train": defaultdict(list), "eval": defaultdict(list)}
        self._total_train_tokens = 0
        self._weight_scale: float | None = None  # what the training rows' weights were divided by
        self._set_up_objective(args)
        tokenizer = processing_class_of(model, processing_class, args)
        if tokenizer is None:
            tokenizer = processing_class_of(model.config._name_or_path, None, args)
        self._row_maker = lambda dataset, name: self._made_rows(dataset, tokenizer, args, name)
        train_rows = self._row_maker(train_dataset, "train")
        eval_rows = self._eval_rows(eval_dataset)
        eval_problems = load_eval_problems(args)
        model = _loaded(model, args, quantization_config)
        for rows in (train_rows, *(eval_rows.values() if isinstance(eval_rows, dict) else [eval_rows])):
            _check_positions(rows, model)
        multiple = args.pad_to_multiple_of
        collator = Seq2SeqCollator(
            tokenizer.pad_token_id, decoder_start_id(model), self._carried, None if multiple is None else int(multiple)
        )
        with without_eval_rows(args, eval_rows):
            super().__init__(
                model=_with_adapter(model, peft_config, args),
                args=args,
                data_collator=collator,
                train_dataset=train_rows,
                eval_dataset=eval_rows,
                processing_class=tokenizer,
                **kwargs,
            )
        # So that `Trainer` counts the tokens of a step for every model; the loss is made of logits here.
        self.model_accepts_loss_kwargs = True
        if hasattr(self.model, "add_model_tags"):
            self.model.add_model_tags(self._tag_names)
        if eval_problems is not None:
            self.add_callback(GenerationEvalCallback.from_config(self, eval_problems))

    # ---- Rows ----

    def _made_rows(self, dataset: Dataset, tokenizer: Any, config: MathSeq2SeqConfig, name: str) -> Dataset:
        """Tokenise and check rows; the training rows come first and set the scale of weights."""
        is_training = name == "train"
        rows = ready_rows(dataset, tokenizer, config, name, is_training=is_training)
        whole = copy.copy(config)
        whole.max_length = None  # both sides are cut already
        rows, scale = with_token_columns(rows, whole, name, self._weight_scale)
        if is_training:
            self._weight_scale = scale
        return rows

    def _eval_rows(self, dataset: Any) -> Any:
        if isinstance(dataset, dict):
            return {name: self._eval_rows(rows) for name, rows in dataset.items()}
        is_raw = isinstance(dataset, Dataset) and ENCODER_IDS not in dataset.column_names
        return self._row_maker(dataset, "eval") if is_raw else dataset

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As `Trainer.evaluate`, of the trainer's rows or of others as they are."""
        return super().evaluate(self._eval_rows(eval_dataset), *args, **kwargs)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = [ENCODER_IDS, "labels"]
        super()._set_signature_columns_if_needed()

    # ---- Loss ----

    def _target_side(self, batch: dict[str, Any]) -> dict[str, Any]:
        return target_side(batch)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        inputs = dict(inputs)
        carried = Carried.taken_from(inputs)
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        reads = getattr(self._objective, "reads", ())
        targets = read_targets(outputs.logits, labels, keeps_entropy="entropy" in reads)
        segments = self._segments(targets, {"labels": labels}, carried.step_ids) if self._needs_segments else None
        factors = self._factors(segments, carried)
        if self._is_plain_loss and carried.token_weights is None:
            num_tokens = targets.label_mask.sum() if num_items_in_batch is None else num_items_in_batch
            loss = self._scaled(reduce_sum(targets.nll, num_tokens), num_items_in_batch)
        else:
            fields = {"logps": targets.log_probs, "entropy": targets.entropy}
            if "tempered_logps" in reads:
                fields["tempered_logps"] = tempered_logps(outputs.logits, labels, self._objective.temperature)
            loss = self._objective_loss(targets, fields, segments, factors, carried.token_weights, num_items_in_batch)
        self._note(targets, inputs["attention_mask"])
        self._log_and_check(loss, segments, factors)
        return (loss, outputs) if return_outputs else loss

    # ---- What is logged ----

    def _note(self, targets: Targets, encoder_mask: torch.Tensor) -> None:
        """Collect the metrics of TRL's SFT: means over the trained tokens of all processes."""
        num_trained = targets.label_mask.sum()
        sums = torch.stack(
            [num_trained, targets.entropy.detach().sum(), targets.is_top1.sum(), encoder_mask.sum() + num_trained]
        )
        trained, entropy, correct, read = self.accelerator.gather(sums.double().view(1, -1)).sum(dim=0).tolist()
        metrics = self._metrics[self._mode]
        metrics["entropy"].append(entropy / max(trained, 1))
        metrics["mean_token_accuracy"].append(correct / max(trained, 1))
        if self._mode == "train":
            self._total_train_tokens += int(read)
        metrics["num_tokens"] = [self._total_train_tokens]

    def refill_logs(self) -> dict[str, float]:
        """Nothing: batches are not composed while training."""
        return {}

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.create_model_card(model_name=(self.args.hub_model_id or self.args.output_dir).rstrip("/").split("/")[-1])
        super()._save_checkpoint(model, trial)

    def _card_lines(self) -> list[str]:
        return sft_card_lines(self.args)


def _refuse(config: MathSeq2SeqConfig, train_dataset: Any, kwargs: dict[str, Any]) -> None:
    """Raise for what cannot work and is known before the model is loaded."""
    if not isinstance(train_dataset, Dataset):
        raise DataError("An encoder-decoder model is trained on a data set in memory or on disk, not on a stream.")
    for name, reason in (
        ("compute_loss_func", "the loss is args.objective"),
        ("data_collator", "batches have two sides and our columns"),
        ("formatting_func", "rows have a prompt and a completion"),
    ):
        if kwargs.get(name) is not None:
            raise UsageError(f"{name} is not for MathSeq2SeqTrainer: {reason}.")
    if config.own_loss:
        refuse_cut_sequences(config.own_loss)


def _loaded(model: str | PreTrainedModel, config: MathSeq2SeqConfig, quantization_config: Any) -> PreTrainedModel:
    """Return the model, loaded as TRL's trainers load theirs."""
    if isinstance(model, str):
        options = {"trust_remote_code": config.trust_remote_code, **(config.model_init_kwargs or {})}
        if quantization_config is not None:
            options["quantization_config"] = quantization_config
        if config.distributed_state.distributed_type in ("MULTI_GPU", "DEEPSPEED"):
            options["device_map"] = None
        try:
            with _whole_weights(config):
                model = create_model_from_path(model, AutoModelForSeq2SeqLM, **options)
        except (ValueError, ImportError) as error:
            raise UsageError(f"The model cannot be loaded: {' '.join(str(error).split())}") from error
    if not has_encoder(model):
        raise UsageError(f"{type(model).__name__} is no encoder-decoder model: train it with MathSFTTrainer.")
    return model


@contextmanager
def _whole_weights(config: MathSeq2SeqConfig) -> Iterator[None]:
    """Let every process load a model whole, which ZeRO-3 cuts up afterwards.

    The head of Flan-T5 is its own, whatever its configuration says (T5's is the embeddings), and transformers 5.23
    knows by comparing the two. Under ZeRO-3 it compares nothing with nothing, and the head would be lost.
    """
    if not is_deepspeed_zero3_enabled():
        yield
        return
    hidden = config.hf_deepspeed_config if config.deepspeed else config.deepspeed_plugin.dschf
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        set_hf_deepspeed_config(hidden)


def _check_positions(rows: Dataset | None, model: PreTrainedModel) -> None:
    """Raise if a side of the rows is longer than a model's table of positions; T5 has none."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if rows is None or limit is None:
        return
    longest = max(int(lengths.max()) for lengths in longest_sides(rows))
    if longest > limit:
        raise DataError(
            f"A row has {longest} tokens on one side, and the model has {limit} positions: set max_length."
        )


def _with_adapter(model: PreTrainedModel, peft_config: Any, config: MathSeq2SeqConfig) -> Any:
    if peft_config is None:
        return model
    from peft import TaskType, get_peft_model  # noqa: PLC0415 - optional

    peft_config = copy.copy(peft_config)
    if peft_config.is_prompt_learning:
        raise UsageError("Prompt learning is not for MathSeq2SeqTrainer: use LoRA.")
    peft_config.task_type = TaskType.SEQ_2_SEQ_LM  # TRL's default is that of decoders
    model = get_peft_model(model, peft_config)
    if config.gradient_checkpointing:
        model.enable_input_require_grads()
    return model

"""`MathSFTTrainer`: TRL's `SFTTrainer` with an objective that can limit confidence."""

import copy
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from trl_math.data.token_rows import is_within, origin_of
from trl_math.errors import UsageError
from trl_math.trainers.collator import CarryingCollator
from trl_math.trainers.common import (
    MathTrainerMixin,
    as_math_config,
    can_prepare,
    processing_class_of,
    without_eval_rows,
)
from trl_math.trainers.forward import TemperedHead, recorded_outputs
from trl_math.trainers.generation_eval import GenerationEvalCallback
from trl_math.trainers.generation_eval_config import load_eval_problems
from trl_math.trainers.model_card import sft_card_lines
from trl_math.trainers.objective import build_objective, is_cross_entropy
from trl_math.trainers.objective_loss import ObjectiveLoss
from trl_math.trainers.refill_trainer import RefillTrainer
from trl_math.trainers.rows import pack_rows, ready_rows
from trl_math.trainers.segments import TOKEN_WEIGHTS, Carried
from trl_math.trainers.sft_config import MathSFTConfig
from trl_math.trainers.sft_requests import refuse_clashes, refuse_encoder_decoder, refuse_weights
from trl_math.trainers.sft_weights import with_token_columns


class MathSFTTrainer(ObjectiveLoss, MathTrainerMixin, RefillTrainer):
    """TRL's `SFTTrainer`, except that the loss is `args.objective`; everything else is inherited.

    With the default objective (cross-entropy) loss and gradients are TRL's bit for bit, unless rows bring a `weight`.
    Rows are tokenised and checked before the model is loaded. With `min_coverage_weight`, `unscreened_steps` or
    `screening: live` the training batches are composed on the way (`refill_trainer`).

    Takes the arguments of `SFTTrainer`; `args` is a [`MathSFTConfig`].
    """

    _tag_names = ["trl", "sft", "trl-math"]  # noqa: RUF012 - TRL's own way of declaring them

    def __init__(
        self,
        model: str | PreTrainedModel,
        args: MathSFTConfig | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        formatting_func: Callable[[dict], str] | None = None,
        **kwargs: Any,
    ) -> None:
        args = as_math_config(args, model, MathSFTConfig, SFTConfig, "SFT")
        refuse_encoder_decoder(model, args)
        self._is_trl_loss = is_cross_entropy(args)
        self._tempered_head: TemperedHead | None = None
        self._ready_rows: list[Any] = []
        self._has_training_rows = False  # they are prepared first
        self._weight_scale: float | None = None  # what the training rows' weights were divided by
        self._refuse_weights = partial(refuse_weights, args, data_collator, kwargs)
        self._set_up_objective(args)
        refuse_clashes(args, data_collator, train_dataset, kwargs)
        processing_class = processing_class_of(model, processing_class, args)
        train_dataset = self._rows_before_model(train_dataset, processing_class, args, formatting_func, "train")
        eval_dataset = self._rows_before_model(eval_dataset, processing_class, args, formatting_func, "eval")
        eval_problems = load_eval_problems(args)
        with without_eval_rows(args, eval_dataset):
            super().__init__(
                model=model,
                args=args,
                data_collator=data_collator,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processing_class,
                formatting_func=formatting_func,
                **kwargs,
            )
        if type(self.data_collator) is DataCollatorForLanguageModeling:
            self.data_collator = CarryingCollator(**vars(self.data_collator), carried=self._carried)
        if not self._is_trl_loss:
            self._tempered_head = self._make_tempered_head()
        if eval_problems is not None:
            self.add_callback(GenerationEvalCallback.from_config(self, eval_problems))
        self.set_up_refill()

    # ---- Rows ----

    def _rows_before_model(
        self, dataset: Any, tokenizer: Any, config: MathSFTConfig, formatting_func: Any, name: str
    ) -> Any:
        """Tokenise and check a data set (or a dict of them) while no model is loaded yet, where that is possible."""
        if isinstance(dataset, dict):
            return {
                key: self._rows_before_model(rows, tokenizer, config, formatting_func, key)
                for key, rows in dataset.items()
            }
        is_raw = (config.dataset_kwargs or {}).get("skip_prepare_dataset", False)
        needs_model = config.chat_template_path is not None and not os.path.isfile(config.chat_template_path)
        if is_raw or needs_model or not can_prepare(dataset, tokenizer):
            return dataset
        return self._checked_rows(dataset, tokenizer, config, formatting_func, name)

    def _checked_rows(
        self, dataset: Dataset, tokenizer: Any, config: MathSFTConfig, formatting_func: Any, name: str
    ) -> Dataset:
        is_training, self._has_training_rows = name == "train" and not self._has_training_rows, True
        rows = ready_rows(dataset, tokenizer, config, formatting_func, name, is_training=is_training)
        reads_rates = not (is_training and config.is_screened_live)
        rows, scale = with_token_columns(rows, config, name, self._weight_scale, reads_rates=reads_rates)
        if TOKEN_WEIGHTS in rows.column_names:
            self._refuse_weights()
        if is_training:
            self._weight_scale = scale
        self._ready_rows.append(rows)
        return rows

    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: Any, packing: bool, formatting_func: Any, dataset_name: str
    ) -> Any:
        if not isinstance(dataset, Dataset):  # a stream is TRL's to prepare; its rows cannot be counted
            return super()._prepare_dataset(dataset, processing_class, args, packing, formatting_func, dataset_name)
        if "seq_lengths" in dataset.column_names:  # packed already; TRL would lose where its sequences begin
            return dataset
        if not any(dataset is rows for rows in self._ready_rows):
            dataset = self._checked_rows(dataset, processing_class, args, formatting_func, dataset_name)
        self._ready_rows = [rows for rows in self._ready_rows if rows is not dataset]
        carried = tuple(column for column in self._carried if column in dataset.column_names)
        is_of_file = origin_of(dataset) is not None
        if packing and (carried or is_of_file):
            return pack_rows(dataset, carried, args)
        if is_of_file and args.max_length is not None and is_within(dataset, args.max_length):
            args = copy.copy(args)
            args.max_length = None  # TRL would copy all rows into memory to cut none of them
        return super()._prepare_dataset(dataset, processing_class, args, packing, None, dataset_name)

    # ---- Loss ----

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        inputs = dict(inputs)
        carried = Carried.taken_from(inputs)
        backbone = self._causal_lm().base_model if self._tempered_head is not None else None
        with recorded_outputs(model) as outputs, recorded_outputs(backbone) as backbone_outputs:
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss, logits_outputs = result if return_outputs else (result, None)
        fused = outputs[0]
        segments = self._segments(fused, inputs, carried.step_ids) if self._needs_segments else None
        factors = self._factors(segments, carried)
        if not self._is_trl_loss or carried.token_weights is not None:
            fields = {"logps": fused.log_probs, "entropy": fused.entropy}
            if self._tempered_head is not None:
                with self.accelerator.autocast():
                    hidden_states = backbone_outputs[0].last_hidden_state
                    fields["tempered_logps"] = self._tempered_head.log_probs(hidden_states, inputs["labels"])
            loss = self._objective_loss(fused, fields, segments, factors, carried.token_weights, num_items_in_batch)
            if self.aux_loss_enabled:
                loss = loss + self._aux_loss(fused, num_items_in_batch)
        self._log_and_check(loss, segments, factors)
        return (loss, logits_outputs) if return_outputs else loss

    def _aux_loss(self, fused: Any, num_items: Any) -> torch.Tensor:
        """Return the routers' loss of a MoE model, as TRL adds it."""
        steps = self.current_gradient_accumulation_steps if num_items is not None else 1
        return self.router_aux_loss_coef * fused.aux_loss / steps

    def _causal_lm(self) -> Any:
        model = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def _make_tempered_head(self) -> TemperedHead | None:
        objective = build_objective(self.args)
        temperature = getattr(objective, "temperature", None)
        if temperature is None:
            return None
        if self.aux_loss_enabled:
            raise UsageError(
                f"objective: {self.args.objective} reads the LM head twice, which MoE models do not allow."
            )
        return TemperedHead(self._causal_lm(), temperature)

    def _card_lines(self) -> list[str]:
        return sft_card_lines(self.args)

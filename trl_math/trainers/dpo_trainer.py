"""`MathDPOTrainer`: TRL's `DPOTrainer` with difficulty, anchors, masked tool output and stored references.

Pairs come from a data set, or, with `live_data`, from the model as it trains (`live_trainer`).
"""

import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import is_peft_model
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import DPOConfig
from trl.trainer.utils import hash_module

from trl_math.data.pair_check import TOKENS
from trl_math.errors import UsageError
from trl_math.generation.identity import model_identity
from trl_math.trainers.common import (
    MathTrainerMixin,
    as_math_config,
    can_prepare,
    has_images,
    processing_class_of,
    without_eval_rows,
)
from trl_math.trainers.dpo_config import MathDPOConfig
from trl_math.trainers.dpo_monitor import CHOSEN_DRIFT, Sums, pair_means, pair_sums, reference_gap
from trl_math.trainers.dpo_objective import PairBatch, batch_loss, make_batch
from trl_math.trainers.dpo_references import (
    REFERENCES,
    Reference,
    check_hashable,
    reference_pass,
    with_references,
)
from trl_math.trainers.dpo_requests import refuse_clashes
from trl_math.trainers.dpo_rows import ready_pairs
from trl_math.trainers.forward import recorded_outputs
from trl_math.trainers.generation_eval import GenerationEvalCallback
from trl_math.trainers.generation_eval_config import load_eval_problems
from trl_math.trainers.live_pairs_config import load_live_problems
from trl_math.trainers.live_trainer import LivePairsTrainer, placeholder
from trl_math.trainers.model_card import dpo_card_lines
from trl_math.trainers.pair_collator import CARRIED, LOSS_WEIGHT, MASKS, PairCollator
from trl_math.trainers.pair_rows import PairScale


logger = logging.getLogger(__name__)

# Policy and reference are the same weights at the first step. What may lie between them, in nats per token: rounding
# (that of TF32, too), also of sums in another order where batches are padded to other lengths.
MAX_GAP, MAX_GAP_16_BIT = 0.01, 0.05


class MathDPOTrainer(MathTrainerMixin, LivePairsTrainer):
    """TRL's `DPOTrainer`, except for what [`MathDPOConfig`] adds; with its defaults all numbers are TRL's bit for bit.

    Rows are tokenised (or taken as token ids) and checked before the model is loaded. TRL makes its forward passes,
    reference and metrics; where the loss is ours, it is computed from the same graph.

    Takes the arguments of `DPOTrainer`; `args` is a [`MathDPOConfig`]. With `live_data` there is no `train_dataset`.
    """

    _tag_names = ["trl", "dpo", "trl-math"]  # noqa: RUF012 - TRL's own way of declaring them

    def __init__(
        self,
        model: str | PreTrainedModel,
        ref_model: PreTrainedModel | None = None,
        args: MathDPOConfig | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        **kwargs: Any,
    ) -> None:
        args = as_math_config(args, model, MathDPOConfig, DPOConfig, "DPO")
        self._ready_rows: list[Any] = []
        self._scale: PairScale | None = None
        self._sums: dict[str, list[Sums]] = defaultdict(list)
        self._step_means: tuple[Any, Any] | None = None
        # Another reference may be anywhere, and dropout makes two passes of the same weights differ.
        self._checks_reference = args.check_reference and ref_model is None and args.disable_dropout
        processing_class = processing_class_of(model, processing_class, args)
        live_problems = load_live_problems(args, train_dataset)
        train_dataset = self._rows_before_model(train_dataset, processing_class, args, "train")
        eval_dataset = self._rows_before_model(eval_dataset, processing_class, args, "eval")
        if live_problems is not None:
            train_dataset = placeholder(args, eval_dataset)
            self._ready_rows.append(train_dataset)
        refuse_clashes(args, data_collator, train_dataset, processing_class)
        eval_problems = load_eval_problems(args)
        self._start_identity = _identity_in_memory(model, ref_model, args)
        data_collator = data_collator or _make_collator(train_dataset, processing_class, args)
        with without_eval_rows(args, eval_dataset):
            super().__init__(
                model=model,
                ref_model=ref_model,
                args=args,
                data_collator=data_collator,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processing_class,
                **kwargs,
            )
        if live_problems is not None:
            self.set_up_live_pairs(live_problems)
        if eval_problems is not None:
            self.add_callback(GenerationEvalCallback.from_config(self, eval_problems))

    # ---- Rows ----

    def _rows_before_model(self, dataset: Any, tokenizer: Any, config: MathDPOConfig, name: str) -> Any:
        """Tokenise and check a data set (or a dict of them) while no model is loaded yet, where that is possible."""
        if isinstance(dataset, dict):
            return {key: self._rows_before_model(rows, tokenizer, config, key) for key, rows in dataset.items()}
        return self._checked_rows(dataset, tokenizer, config, name) if can_prepare(dataset, tokenizer) else dataset

    def _checked_rows(self, dataset: Dataset, tokenizer: Any, config: MathDPOConfig, name: str) -> Dataset:
        # The training rows come first, and what their schedules are divided by holds for all.
        rows, self._scale = ready_pairs(dataset, tokenizer, config, name, self._scale)
        self._ready_rows.append(rows)
        return rows

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        if any(dataset is rows for rows in self._ready_rows):
            self._ready_rows = [rows for rows in self._ready_rows if rows is not dataset]
            return dataset
        if can_prepare(dataset, processing_class):
            rows = self._checked_rows(dataset, processing_class, args, dataset_name)
            self._ready_rows.remove(rows)
            return rows
        if set(TOKENS) <= set(next(iter(dataset))):  # a stream of tokens as they were sampled
            return dataset
        return super()._prepare_dataset(dataset, processing_class, args, dataset_name)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        ours = (*MASKS, *CARRIED)
        self._signature_columns += [column for column in ours if column not in self._signature_columns]

    # ---- Reference ----

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """As TRL, but from what the rows bring and what `reference_file` has, and into that file."""
        if not isinstance(dataset, Dataset) or (self.args.reference_file is None and dataset.cache_files):
            return super()._precompute_ref_logps(dataset, name, batch_size)
        if set(REFERENCES) <= set(dataset.column_names):
            return dataset
        return with_references(
            dataset, self, self._reference(), lambda rows: reference_pass(rows, self, name, batch_size)
        )

    def _reference(self) -> Reference:
        """Return which model the reference is, and at which precision it speaks, as far as a file must know it."""
        if self.args.reference_file is None:
            return Reference("", "")
        name, revision = self.model.config._name_or_path, (self.args.model_init_kwargs or {}).get("revision")
        bits = next((f"{n} bits, " for n in (4, 8) if getattr(self.model, f"is_loaded_in_{n}bit", False)), "")
        dtype, computed = str(self.model.dtype).removeprefix("torch."), self.accelerator.mixed_precision
        return Reference(
            model=self._start_identity or model_identity(name, self.model.config, revision),
            precision=f"{bits}{dtype}" + (f", {computed} autocast" if computed != "no" else ""),
        )

    @contextmanager
    def _stored_references(self, inputs: dict[str, Any]) -> Iterator[None]:
        """Let TRL use the log-probabilities that a batch brings, and make its own pass where it brings none."""
        configured = self.precompute_ref_logps
        self.precompute_ref_logps = set(REFERENCES) <= inputs.keys()
        if not self.precompute_ref_logps and self.ref_model is None and not is_peft_model(self.model):
            raise UsageError(
                "A batch brings no reference log-probabilities, and there is no reference model, since "
                "precompute_ref_log_probs is set: unset it, or add ref_chosen_logps and ref_rejected_logps."
            )
        try:
            yield
        finally:
            self.precompute_ref_logps = configured

    # ---- Loss ----

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """Also count the optimiser step's pairs and chosen tokens, the denominators of our loss."""
        samples, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._step_means = None
        if samples and self._is_ours(samples[0]):
            counts = sum(_counts(batch).to(device) for batch in samples)
            gathered = self.accelerator.gather(counts).view(-1, 2)
            self._step_means = gathered.sum(dim=0) / (len(samples) * len(gathered))
        return samples, num_items

    def _is_ours(self, columns: Any) -> bool:
        """Whether the loss is ours: the settings ask for it, or the rows bring weights."""
        return not self.args.is_trl_loss or LOSS_WEIGHT in columns

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        inputs = dict(inputs)
        columns = {name: inputs.pop(name) for name in CARRIED if name in inputs}
        reference = self.ref_model or self.model  # with an adapter they are one module, called a second time
        with (
            self._stored_references(inputs),
            recorded_outputs(model) as outputs,
            recorded_outputs(reference) as ref_outputs,
        ):
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss, logits_outputs = result if return_outputs else (result, None)
        pairs = self._pairs(outputs[0], ref_outputs, inputs, columns)
        anchors = None
        if self._is_ours(columns):
            num_pairs, num_tokens = self._step_means if self._has_step_means else _counts(inputs)
            loss, anchors = batch_loss(self.args, pairs, num_pairs, num_tokens)
            if self.aux_loss_enabled:
                loss = loss + self.router_aux_loss_coef * outputs[0].aux_loss
        self._check_first_batch(pairs)
        names, sums = pair_sums(pairs, self.args, anchors)
        self._sums[self._mode].append(Sums(names, self._gathered(loss, sums)))
        return (loss, logits_outputs) if return_outputs else loss

    @property
    def _has_step_means(self) -> bool:
        return self._mode == "train" and self._step_means is not None

    def _pairs(
        self, policy: Any, ref_outputs: list[Any], inputs: dict[str, Any], columns: dict[str, torch.Tensor]
    ) -> PairBatch:
        mask = inputs["completion_mask"]
        num_targets = mask.shape[1] - 1  # prompt learning puts tokens of its own before them
        if set(REFERENCES) <= inputs.keys():
            references = tuple(inputs[name] for name in REFERENCES)
        else:
            # The policy's own pass is among these where one module is both; logits, if asked for, come without.
            reference = [each for each in ref_outputs if getattr(each, "log_probs", None) is not None][-1]
            references = reference.log_probs[:, -num_targets:].float().sum(dim=1).chunk(2)
        return make_batch(policy.log_probs[:, -num_targets:], references, mask, columns, self.args)

    @torch.no_grad()
    def _check_first_batch(self, pairs: PairBatch) -> None:
        """Raise if the first training batch has margins: the reference is then not the model that was started from."""
        if not self._checks_reference or self._mode == "eval":
            return
        self._checks_reference = False
        if self.state.global_step > 0 or self.args.ld_alpha is not None:
            return
        is_16_bit = self.accelerator.mixed_precision != "no" or self.model.dtype in (torch.bfloat16, torch.float16)
        limit = MAX_GAP_16_BIT if is_16_bit else MAX_GAP
        gap = self.accelerator.gather(reference_gap(pairs)).mean().item()
        if gap > limit:
            raise UsageError(
                f"Before the first step the policy is {gap:.3g} nats per token away from the reference (rounding "
                f"explains {limit:g}), so the reference is not the start model: its log-probabilities are another "
                "model's, or an adapter changed the weights when it was made. Remove the reference file or columns, "
                "or set check_reference: false if it is meant."
            )

    # ---- Logs and card ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means over all pairs (and tokens) since the last log; warn where chosen answers lost too much."""
        mode = self._mode
        means = pair_means(self._sums.pop(mode, []))
        drop = -means.get(CHOSEN_DRIFT, 0.0)
        if CHOSEN_DRIFT in means:
            means["drift/alarm"] = float(drop > self.args.max_chosen_drop)
        self._metrics[mode].update({name: [value] for name, value in means.items()})
        super().log(logs, start_time)
        if drop > self.args.max_chosen_drop:
            self._raise_alarm(drop, mode)

    def _raise_alarm(self, drop: float, mode: str) -> None:
        """Say once that the model unlearns right answers, and end training if that is asked for."""
        stops = self.args.stop_at_chosen_drop
        if self.alarm is None:
            self.alarm = (
                f"Step {self.state.global_step}: the chosen answers of the {mode} pairs have lost {drop:.3f} nats per "
                f"token against the reference, more than max_chosen_drop {self.args.max_chosen_drop:g}. "
                f"{'Training ends here.' if stops else 'The model is unlearning right answers.'} An anchor, a "
                "displacement_penalty, a lower learning_rate or fewer steps keep them."
            )
            if self.is_world_process_zero():
                logger.warning("%s", self.alarm)
        if stops:
            self.control.should_training_stop = True

    def _card_lines(self) -> list[str]:
        return dpo_card_lines(self.args)


def _make_collator(train_dataset: Any, tokenizer: Any, args: MathDPOConfig) -> PairCollator | None:
    """Return TRL's default collator in our form, before TRL makes its own; None where its vision collator is due."""
    if not isinstance(tokenizer, PreTrainedTokenizerBase) or has_images(train_dataset):
        return None
    pad_token = args.pad_token or tokenizer.pad_token or tokenizer.eos_token
    if pad_token not in tokenizer.get_vocab():
        raise UsageError(f"pad_token {pad_token!r} is not in the tokenizer's vocabulary.")
    tokenizer.pad_token = pad_token
    return PairCollator(
        pad_token_id=tokenizer.pad_token_id,
        max_length=args.max_length,
        truncation_mode=args.truncation_mode,
        pad_to_multiple_of=args.pad_to_multiple_of,
    )


def _identity_in_memory(model: Any, ref_model: Any, args: MathDPOConfig) -> str | None:
    """Return what a reference that has no name is known by: its weights, before an adapter is put around them."""
    if args.reference_file is None or (ref_model is None and isinstance(model, str)):
        return None
    reference = ref_model or model
    check_hashable(reference)
    return f"weights:{hash_module(reference)[:16]}"


def _counts(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the pairs of a collated batch and the trained tokens of their chosen answers, (2,)."""
    mask = batch["completion_mask"]
    num_pairs = len(mask) // 2
    tokens = mask[:num_pairs, 1:].sum().float()
    return torch.stack([torch.full_like(tokens, num_pairs), tokens])

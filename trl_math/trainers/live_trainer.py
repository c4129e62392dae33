"""TRL's `DPOTrainer`, whose pairs may come from the model as it trains: all the seams that live pairs need.

Rows come from a `LivePairLoader` in place of a DataLoader, checkpoints hold its state, and the forward pass of
training is compared with what the sampler said (`live_drift`). Without live pairs nothing differs from TRL.
"""

import json
import logging
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import TrainerCallback
from trl import DPOTrainer

from trl_math.data.columns import PAIRS
from trl_math.errors import RunFolderError, StoreError, UsageError
from trl_math.files import json_line, write_whole
from trl_math.generation.together import everyone_or_nobody
from trl_math.trainers.checkpoints import checkpoint_folder
from trl_math.trainers.forward import recorded_outputs
from trl_math.trainers.live_drift import SAMPLER, Drift, as_drift, drift_sums, parity_error, sampler_said, tolerance
from trl_math.trainers.live_pairs import SAMPLED_AT, LivePairLoader, LiveState, Pair, Refresh
from trl_math.trainers.live_sampler import LiveSampler
from trl_math.trainers.refill import StepShape


logger = logging.getLogger(__name__)

STATE_NAME = "live_pairs.json"
FOLDER = "live_pairs"

# What `DPOTrainer` is given where it asks for rows and there are none.
PLACEHOLDER = {"prompt_ids": [[0]], "chosen_ids": [[1]], "rejected_ids": [[2]]}


class LivePairsTrainer(DPOTrainer):
    """Trains on pairs that the model makes while it trains, once `set_up_live_pairs` was given problems."""

    _sampler: LiveSampler | None = None
    _live: LivePairLoader | None = None

    def set_up_live_pairs(self, problems: datasets.Dataset) -> None:
        """Make what asks these problems, in place of the training data; called behind `__init__`."""
        self.train_dataset = problems
        self._sampler = LiveSampler(self, problems)
        self._live_logs: dict[str, list[float]] = defaultdict(list)
        self._drift_sums: list[torch.Tensor] = []
        self.add_callback(_LivePairsCallback(self))

    def get_train_dataloader(self) -> Any:
        if self._sampler is None:
            return super().get_train_dataloader()
        self._live = LivePairLoader(
            source=self._sampler,
            num_problems=self._sampler.num_problems,
            shape=StepShape(
                micro_batch=self.args.per_device_train_batch_size,
                num_accumulation=self.args.gradient_accumulation_steps,
                num_processes=self.accelerator.num_processes,
                rank=self.accelerator.process_index,
            ),
            collate=self._collate_pairs,
            step=lambda: self.state.global_step,
            every=self.args.live_every,
            chunk=self.args.live_problems,
            max_staleness=self.args.live_max_staleness,
            seed=self.args.live_seed,
            data=self._sampler.data,
            on_refresh=self._note_refresh,
        )
        return self._live

    def _collate_pairs(self, pairs: list[Pair]) -> dict[str, Any]:
        batch = self.data_collator(pairs)
        return {**batch, SAMPLER: sampler_said(pairs, batch["completion_mask"])}

    # ---- What a step and a refresh found ----

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        said = inputs.pop(SAMPLER, None)
        if said is None:
            return super().training_step(model, inputs, num_items_in_batch)
        mask = inputs["completion_mask"]
        with recorded_outputs(model) as outputs:
            loss = super().training_step(model, inputs, num_items_in_batch)
        # With an adapter the reference is a pass of the same module, without a gradient.
        log_probs = next(output.log_probs for output in outputs if output.log_probs.requires_grad)
        said = {name: values.to(log_probs.device) for name, values in said.items()}
        self._drift_sums.append(drift_sums(log_probs, mask.to(log_probs.device), said))
        return loss

    def note_step(self) -> None:
        """Take note of the pairs of this step, and stop all processes if training does not see what was sampled."""
        assert self._live is not None
        ages = self._live.ages
        self._live_logs["staleness"].append(sum(ages) / len(ages))
        self._live_logs["staleness_max"].append(max(ages))
        found = as_drift(self.accelerator.gather(torch.stack(self._drift_sums)).view(-1, 5))
        self._drift_sums = []
        self._live_logs["drift"].append(found.drift)
        if math.isnan(found.parity):
            return
        self._live_logs["parity"].append(found.parity)
        self._live_logs["parity_max"].append(found.parity_max)
        self._check_parity(found)

    def _check_parity(self, found: Drift) -> None:
        autocast = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.accelerator.mixed_precision, torch.float32)
        allowed = tolerance(self.model.dtype, autocast, self._sampler.dtype)
        if found.parity <= allowed:
            return
        error = parity_error(found, allowed, self.state.global_step)
        if self.args.live_parity == "fail":
            raise error
        logger.warning("%s", error)

    def _note_refresh(self, refresh: Refresh) -> None:
        sampled = refresh.sampled
        found = {
            "num_dropped": refresh.num_dropped,
            "refresh_steps": refresh.num_steps,
            "refresh_seconds": refresh.seconds,
        }
        if sampled.num_samples:  # none where left-over pairs sufficed
            rates = list(sampled.pass_rates.values())
            found |= {
                "pass_rate": sum(rates) / max(len(rates), 1),
                "pairs_per_problem": len(sampled.pairs) / refresh.num_problems,
                "truncated": sampled.num_truncated / sampled.num_samples,
            }
        for name, value in found.items():
            self._live_logs[name].append(value)
        if self.args.live_save_pairs and sampled.pairs:
            with everyone_or_nobody("writing the pairs"):
                if self.is_world_process_zero():
                    _write_pairs(Path(self.args.output_dir) / FOLDER / f"step-{refresh.step}.jsonl", sampled.pairs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what steps and refreshes since the last log found: means, and the largest where the name says so."""
        if self._live is not None and self.model.training:
            for name, values in self._live_logs.items():
                value = max(values) if name.endswith("_max") else sum(values) / len(values)
                self._metrics["train"][f"live/{name}"] = [value]
            self._live_logs.clear()
        super().log(logs, start_time)

    # ---- Checkpoints ----

    def _init_training_state(
        self,
        max_steps: Any,
        num_update_steps_per_epoch: Any,
        num_train_epochs: Any,
        resume_from_checkpoint: Any,
        trial: Any,
    ) -> tuple[int, int]:
        trained = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        if self._live is None or resume_from_checkpoint is None:
            return trained
        path = Path(resume_from_checkpoint) / STATE_NAME
        if not path.exists():
            raise RunFolderError(f"{resume_from_checkpoint} was not written with live_data; it has no {path.name}.")
        self._live.restore(LiveState(**json.loads(path.read_text())), str(resume_from_checkpoint))
        return 0, 0  # nothing to skip: the loader goes on by itself

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self._live is not None and self.args.should_save:
            # Before the trainer's state, whose presence says that the checkpoint is whole.
            write_whole(checkpoint_folder(self, trial) / STATE_NAME, json.dumps(vars(self._live.state)))
        super()._save_checkpoint(model, trial)


class _LivePairsCallback(TrainerCallback):
    """Tells the trainer when its steps are whole, and keeps its epoch number honest."""

    def __init__(self, trainer: LivePairsTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer._sampler.start()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer.note_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.epoch = self._trainer._live.progress

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.epoch = self._trainer._live.progress
        control.should_training_stop = True  # the stream has ended, or max_steps is reached

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer._sampler.rest()


def placeholder(config: Any, eval_dataset: Any) -> datasets.Dataset:
    """Return what TRL is given to train on where pairs come later; raise if it is to evaluate on nothing."""
    evaluates = config.eval_strategy != "no" or config.eval_on_start
    if evaluates and eval_dataset is None and config.eval_generation_data is None:
        raise UsageError(
            "live_data makes pairs to train on, none to evaluate on: set eval_generation_data (problems to ask), "
            "give an eval_dataset of pairs (eval_dataset_name), or set eval_strategy: no."
        )
    return datasets.Dataset.from_dict(PLACEHOLDER)


def _write_pairs(path: Path, pairs: list[Pair]) -> None:
    """Write pairs as `trl-math pairs` does, with the step that they were sampled at."""
    columns = (*PAIRS.columns, SAMPLED_AT)
    lines = [json_line({name: pair[name] for name in columns if name in pair}).decode() for pair in pairs]
    try:
        write_whole(path, "".join(lines))
    except OSError as error:
        raise StoreError(f"Cannot write the live pairs to {path}: {error.strerror or error}.") from error

"""Settings of live pairs: flat fields that a trainer's configuration inherits, and their problems.

What cannot work is refused by `check_live_pairs` and `load_live_problems`, before a model is loaded.
"""

from dataclasses import dataclass, field, fields
from typing import Any

import datasets
from transformers import IntervalStrategy
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from trl_math.data.files import check_is_split
from trl_math.data.load import read_for_style
from trl_math.data.pairs import PairSettings
from trl_math.errors import UsageError, pick
from trl_math.losses.parameters import as_mapping
from trl_math.optional import check_installed
from trl_math.records import Sampling
from trl_math.trainers.generation_eval_config import ANSWER_STYLES, ENGINES, readable_problems


# Settings of pairs that have a field of their own here, or no place in a stream: nothing is held out of it, and its
# prompts are its own.
NOT_PARAMS = ("rule", "seed", "max_length", "eval_fraction", "eval_problems", "mismatch_prompts")

# Settings that only one of the engines has a use for.
USED_BY = {
    "live_batch_size": "transformers",
    "live_gpu_memory_utilization": "vllm",
    "live_tensor_parallel_size": "vllm",
    "live_num_engines": "vllm",
    "live_engine_params": "vllm",
}


@dataclass
class LivePairsConfig:
    """Fields of live pairs; a configuration inherits them and calls `check_live_pairs`."""

    live_data: str | None = field(
        default=None,
        metadata={
            "help": "Problems with answers, from which pairs are made while the model trains, by the model as it is "
            "then: a hub name, a JSONL or Parquet file or folder, reasoning_gym:<generator>?size=1000, or "
            "embedded:<name>. In place of dataset_name; needs max_steps."
        },
    )
    live_data_config: str | None = field(default=None, metadata={"help": "Configuration name of these on the hub."})
    live_split: str = field(default="train", metadata={"help": "Split of these."})
    live_prompt_style: str | None = field(
        default=None, metadata={"help": f"How problems are asked: {', '.join(ANSWER_STYLES)}. Unset: prompt_style."}
    )
    live_every: int | None = field(
        default=None,
        metadata={
            "help": "Optimiser steps between two refreshes, which make new pairs from the current weights. Unset: a "
            "refresh asks all problems once, and the next comes when its pairs are trained on."
        },
    )
    live_problems: int = field(
        default=64,
        metadata={"help": "Problems that are asked at a time, until the pairs suffice for live_every steps."},
    )
    live_num_samples: int = field(default=8, metadata={"help": "Samples of each problem."})
    live_temperature: float = field(default=1.0, metadata={"help": "Temperature of the samples."})
    live_top_p: float = field(default=1.0, metadata={"help": "Nucleus sampling; 1 is off."})
    live_max_tokens: int = field(default=512, metadata={"help": "Tokens of a sample at most; below max_length."})
    live_pair_rule: str = field(
        default="balanced", metadata={"help": "How pairs are made of a problem's samples; see `trl-math pairs`."}
    )
    live_pair_params: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Other settings of `trl-math pairs`, such as {max_pairs_per_problem: 4, unfinished: rejected}."
        },
    )
    live_max_staleness: int = field(
        default=0,
        metadata={
            "help": "Pairs that a refresh made beyond what was needed are carried over to the next if they are no "
            "older than this many steps by then; 0 drops them."
        },
    )
    live_engine: str = field(
        default="auto",
        metadata={
            "help": "vllm: engines beside the trainer that take over its weights; transformers: the model itself, "
            "which ZeRO-3 and FSDP do not allow; auto: vllm on GPUs where it is installed, and with ZeRO-3 or FSDP.",
            "choices": ENGINES,
        },
    )
    live_batch_size: int = field(
        default=32, metadata={"help": "Samples at once on a device, with engine transformers."}
    )
    live_gpu_memory_utilization: float = field(
        default=0.3, metadata={"help": "Share of a GPU's memory that engine vllm takes while it samples."}
    )
    live_tensor_parallel_size: int | None = field(
        default=None, metadata={"help": "GPUs that carry one engine, with engine vllm; unset: see live_num_engines."}
    )
    live_num_engines: int | None = field(
        default=None, metadata={"help": "Engines over all GPUs, with engine vllm. Unset, with the above: one on each."}
    )
    live_engine_params: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Other options of vLLM's engine, such as {dtype: float32, max_num_seqs: 64}."}
    )
    live_parity: str = field(
        default="fail",
        metadata={
            "help": "What happens if, in the first step after a refresh, the log-probabilities of engine and trainer "
            "differ by more than rounding does: fail or warn.",
            "choices": ("fail", "warn"),
        },
    )
    live_save_pairs: bool = field(
        default=True, metadata={"help": "Write the pairs of every refresh to output_dir/live_pairs."}
    )

    @property
    def is_live(self) -> bool:
        """Whether pairs are made while the model trains."""
        return self.live_data is not None

    @property
    def live_sampling(self) -> Sampling:
        """How samples are drawn, with the log-probabilities that they are compared by."""
        try:
            return Sampling(
                num_samples=self.live_num_samples,
                temperature=self.live_temperature,
                top_p=self.live_top_p,
                max_tokens=self.live_max_tokens,
                logprobs=True,
            )
        except UsageError as error:
            raise UsageError(f"The live settings cannot work: {error}") from None

    @property
    def live_pair_settings(self) -> PairSettings:
        """How pairs are made of samples."""
        params = dict(self.live_pair_params or {})
        known = [each.name for each in fields(PairSettings) if each.name not in NOT_PARAMS]
        for name in params:
            pick("key of live_pair_params", name, known)
        limit = getattr(self, "max_length", None)
        return PairSettings(rule=self.live_pair_rule, seed=self.live_seed, max_length=limit, **params)

    @property
    def live_seed(self) -> int:
        """What the order of problems and all samples follow from."""
        config: Any = self
        return config.seed if config.data_seed is None else config.data_seed

    def check_live_pairs(self) -> None:
        """Raise for settings that cannot work; needs the fields of `DPOConfig` too."""
        self.live_pair_params = as_mapping("live_pair_params", self.live_pair_params)
        self.live_engine_params = as_mapping("live_engine_params", self.live_engine_params)
        if self.live_data is None:
            for each in fields(LivePairsConfig):
                if getattr(self, each.name) != each.default:
                    raise UsageError(f"{each.name} is given, and no problems to make pairs of: set live_data too.")
            return
        for name in ("live_engine", "live_parity"):
            pick(name, getattr(self, name), self.__dataclass_fields__[name].metadata["choices"])
        if self.live_prompt_style is not None:
            pick("live_prompt_style", self.live_prompt_style, ANSWER_STYLES)
        self._check_live_numbers()
        self._check_live_engine()
        self._check_live_trainer()

    def _check_live_numbers(self) -> None:
        for name in ("every", "problems", "batch_size", "tensor_parallel_size", "num_engines"):
            value = getattr(self, f"live_{name}")
            if value is not None and value < 1:
                raise UsageError(f"live_{name} must be at least 1, got {value}.")
        if self.live_max_staleness < 0:
            raise UsageError(
                f"live_max_staleness must be 0 (drop what is left over) or more, got {self.live_max_staleness}."
            )
        if not 0 < self.live_gpu_memory_utilization <= 1:
            raise UsageError(
                f"live_gpu_memory_utilization must be above 0 and at most 1, got {self.live_gpu_memory_utilization}."
            )
        if self.live_sampling.num_samples < 2:
            raise UsageError("live_num_samples must be at least 2: a pair is two samples of one problem.")
        limit = getattr(self, "max_length", None)
        if limit is not None and self.live_max_tokens >= limit:
            raise UsageError(
                f"live_max_tokens: {self.live_max_tokens} and a prompt do not fit in max_length: {limit}; raise "
                "max_length or lower live_max_tokens."
            )
        _ = self.live_pair_settings  # refuses what makes no sense

    def _check_live_engine(self) -> None:
        """Raise for settings that the engine would have to ignore."""
        defaults = {each.name: each.default for each in fields(LivePairsConfig)}
        for name, engine in USED_BY.items():
            if getattr(self, name) != defaults[name] and self.live_engine not in (engine, "auto"):
                raise UsageError(f"{name} is for engine {engine}, and live_engine is {self.live_engine}.")

    def _check_live_trainer(self) -> None:
        """Raise for settings of the trainer that a stream of new pairs does not go with."""
        config: Any = self
        if config.max_steps <= 0:
            raise UsageError("live_data is a stream of pairs without an end: set max_steps.")
        refused = {
            "precompute_ref_log_probs": (
                config.precompute_ref_log_probs,
                "the pairs do not exist yet; their reference pass is made as they are trained on",
            ),
            "dataloader_num_workers": (config.dataloader_num_workers > 0, "pairs are made between optimiser steps"),
            "auto_find_batch_size": (config.auto_find_batch_size, "the batch size is part of the buffer"),
            "train_sampling_strategy": (config.train_sampling_strategy != "random", "the buffer decides the order"),
            "ignore_data_skip": (config.ignore_data_skip, "the buffer is restored exactly"),
        }
        for option, (is_set, reason) in refused.items():
            if is_set:
                raise UsageError(f"live_data does not work with {option}: {reason}.")
        for name in ("eval_strategy", "save_strategy", "logging_strategy"):
            if getattr(config, name) in ("epoch", IntervalStrategy.EPOCH):
                raise UsageError(f"live_data is a stream without epochs: {name}: epoch never comes; use steps.")


def inherit_live_style(config: LivePairsConfig, training_style: str | None) -> None:
    """Let problems be asked in the recipe's prompt style, unless the settings say otherwise."""
    if config.is_live and config.live_prompt_style is None:
        config.live_prompt_style = training_style


def load_live_problems(config: LivePairsConfig, train_dataset: Any = None) -> datasets.Dataset | None:
    """Return the problems that pairs are made of; None if the settings name none."""
    name, split = config.live_data, config.live_split
    if name is None:
        return None
    if train_dataset is not None:
        raise UsageError("live_data makes the pairs that are trained on: leave out the data set (dataset_name).")
    if config.live_prompt_style is None:
        raise UsageError(
            f"How shall the problems of {name} be asked? Set live_prompt_style to one of: {', '.join(ANSWER_STYLES)}."
        )
    if config.live_engine == "vllm" or (config.live_engine == "auto" and is_deepspeed_zero3_enabled()):
        check_installed("vllm", f"live_engine: {config.live_engine}")
    check_is_split(name, split, "live_split")
    problems = read_for_style(name, split, config.live_data_config, config.live_prompt_style)
    return readable_problems(problems, "problems of live_data")

"""Settings of evaluation by generation: flat fields that a trainer's configuration inherits, and their problems.

What cannot work is refused by `check_generation_eval` and `load_eval_problems`, before a model is loaded.
"""

import logging
import random
from dataclasses import dataclass, field, fields
from typing import Any

import datasets

from trl_math.data.files import check_is_split
from trl_math.data.load import read_for_style
from trl_math.data.problems import to_problems
from trl_math.data.prompt_styles import TEACHING_STYLES
from trl_math.errors import DataError, UsageError, pick
from trl_math.grading import grade
from trl_math.records import Sampling


logger = logging.getLogger(__name__)

ENGINES = ("auto", "vllm", "transformers")

# Prompt styles whose completions can be graded as they stand: no programs to run, no steps of a proof.
ANSWER_STYLES = ("direct", "cot", "chat_direct", "chat_cot", "plain", *TEACHING_STYLES)

# Metrics of which less is better; transformers takes more for better unless a name ends in `loss`.
LESS_IS_BETTER = ("truncated", "unanswered")

# Which problems are asked does not depend on the run's seed: runs are compared on the same ones.
SUBSET_SEED = 0


@dataclass
class GenerationEvalConfig:
    """Fields of `GenerationEvalCallback`; a configuration inherits them and calls `check_generation_eval`."""

    eval_generation_data: str | None = field(
        default=None,
        metadata={
            "help": "Problems that the model is asked at every evaluation, for pass@1, pass@k and maj@k: a hub name, "
            "a JSONL or Parquet file or folder, or reasoning_gym:<generator>?size=100."
        },
    )
    eval_generation_data_config: str | None = field(
        default=None, metadata={"help": "Configuration name of these on the hub."}
    )
    eval_generation_split: str = field(default="test", metadata={"help": "Split of these."})
    eval_generation_problems: int = field(
        default=100, metadata={"help": "How many of them: a random draw, the same in every run."}
    )
    eval_generation_samples: int = field(
        default=4, metadata={"help": "Samples of each problem; pass@k is logged for 1, 2, 4, ... up to this many."}
    )
    eval_generation_temperature: float = field(
        default=1.0, metadata={"help": "Temperature of the samples; 0 is greedy, with eval_generation_samples: 1."}
    )
    eval_generation_top_p: float = field(default=1.0, metadata={"help": "Nucleus sampling; 1 is off."})
    eval_generation_max_tokens: int = field(default=512, metadata={"help": "Tokens of a sample at most."})
    eval_generation_prompt_style: str | None = field(
        default=None,
        metadata={"help": f"How problems are asked: {', '.join(ANSWER_STYLES)}. Unset: as in training."},
    )
    eval_generation_engine: str = field(
        default="auto",
        metadata={
            "help": "vllm: engines beside the trainer that take over its weights; transformers: the model itself, "
            "which ZeRO-3 and FSDP do not allow; auto: vllm on GPUs where it is installed, and with ZeRO-3 or FSDP.",
            "choices": ENGINES,
        },
    )
    eval_generation_batch_size: int = field(
        default=32, metadata={"help": "Samples at once on a device, with engine transformers."}
    )
    eval_generation_gpu_memory_utilization: float = field(
        default=0.3, metadata={"help": "Share of a GPU's memory that engine vllm takes while it samples."}
    )
    eval_generation_tensor_parallel_size: int = field(
        default=1, metadata={"help": "GPUs that carry one engine, with engine vllm."}
    )
    eval_generation_save_samples: bool = field(
        default=True, metadata={"help": "Write the graded samples of every evaluation to output_dir/eval_samples."}
    )

    @property
    def eval_generation_sampling(self) -> Sampling:
        """How samples are drawn."""
        try:
            return Sampling(
                num_samples=self.eval_generation_samples,
                temperature=self.eval_generation_temperature,
                top_p=self.eval_generation_top_p,
                max_tokens=self.eval_generation_max_tokens,
            )
        except UsageError as error:
            raise UsageError(f"The eval_generation settings cannot work: {error}") from None

    def check_generation_eval(self) -> None:
        """Raise for settings that cannot work; needs the fields of `TrainingArguments` too."""
        if self.eval_generation_data is None:
            for each in fields(GenerationEvalConfig):
                if getattr(self, each.name) != each.default:
                    raise UsageError(f"{each.name} is given, and no problems to ask: set eval_generation_data too.")
            return
        strategy: Any = getattr(self, "eval_strategy", "no")
        if strategy == "no" and not getattr(self, "eval_on_start", False):
            raise UsageError(
                "eval_generation_data needs evaluations to be part of: set eval_strategy: steps or epoch."
            )
        pick("eval_generation_engine", self.eval_generation_engine, ENGINES)
        if self.eval_generation_prompt_style is not None:
            pick("eval_generation_prompt_style", self.eval_generation_prompt_style, ANSWER_STYLES)
        for name in ("problems", "batch_size", "tensor_parallel_size"):
            value = getattr(self, f"eval_generation_{name}")
            if value < 1:
                raise UsageError(f"eval_generation_{name} must be at least 1, got {value}.")
        if not 0 < self.eval_generation_gpu_memory_utilization <= 1:
            raise UsageError(
                "eval_generation_gpu_memory_utilization must be above 0 and at most 1, got "
                f"{self.eval_generation_gpu_memory_utilization}."
            )
        self._check_engine_settings()
        self._check_metric(self.eval_generation_sampling.num_samples)

    def _check_engine_settings(self) -> None:
        """Raise for settings that the engine would have to ignore."""
        used_by = {"batch_size": "transformers", "gpu_memory_utilization": "vllm", "tensor_parallel_size": "vllm"}
        defaults = {each.name: each.default for each in fields(GenerationEvalConfig)}
        for name, engine in used_by.items():
            key = f"eval_generation_{name}"
            if getattr(self, key) != defaults[key] and self.eval_generation_engine not in (engine, "auto"):
                raise UsageError(
                    f"{key} is for engine {engine}, and eval_generation_engine is {self.eval_generation_engine}."
                )

    def _check_metric(self, num_samples: int) -> None:
        metric = getattr(self, "metric_for_best_model", None)
        check_metric(metric, num_samples)
        if metric is not None and metric.removeprefix("eval_") in LESS_IS_BETTER and self.greater_is_better is None:
            self.greater_is_better: bool | None = False


def pass_ks(num_samples: int) -> list[int]:
    """Return the k of pass@k that this many samples are summed up by: powers of two, and all of them."""
    return sorted({1 << power for power in range(num_samples.bit_length())} | {num_samples})


def metric_names(num_samples: int) -> list[str]:
    """Return what an evaluation logs, without `eval_`."""
    majority = [f"maj@{num_samples}"] if num_samples > 1 else []
    return [*(f"pass@{k}" for k in pass_ks(num_samples)), *majority, *LESS_IS_BETTER]


def is_of_generation(metric: str | None) -> bool:
    """Whether a metric is of generated answers, and not of evaluation rows."""
    return metric is not None and ("@" in metric or metric.removeprefix("eval_") in LESS_IS_BETTER)


def chooses_by_rows(config: Any) -> bool:
    """Whether a checkpoint, or the learning rate, is chosen by a metric of evaluation rows, such as their loss."""
    return config.metric_for_best_model is not None and not is_of_generation(config.metric_for_best_model)


def check_metric(metric: str | None, num_samples: int) -> None:
    """Raise if the best model is to be chosen by a pass@k or maj@k that so many samples do not give."""
    if metric is not None and "@" in metric:
        pick("metric_for_best_model", metric.removeprefix("eval_"), metric_names(num_samples))


def inherit_prompt_style(config: GenerationEvalConfig, training_style: str | None) -> None:
    """Let problems be asked as they are trained on, unless the settings say otherwise."""
    if config.eval_generation_data is not None and config.eval_generation_prompt_style is None:
        config.eval_generation_prompt_style = training_style
    _check_style(config)


def _check_style(config: GenerationEvalConfig) -> None:
    if config.eval_generation_data is None:
        return
    style = config.eval_generation_prompt_style
    if style is None:
        raise UsageError(
            f"How shall the problems of {config.eval_generation_data} be asked? Set prompt_style or "
            f"eval_generation_prompt_style to one of: {', '.join(ANSWER_STYLES)}."
        )
    pick("eval_generation_prompt_style", style, ANSWER_STYLES)


def load_eval_problems(config: GenerationEvalConfig) -> datasets.Dataset | None:
    """Return the problems that the settings name, drawn and ready to be asked; None if they name none."""
    name, split = config.eval_generation_data, config.eval_generation_split
    if name is None:
        return None
    _check_style(config)
    check_is_split(name, split, "eval_generation_split", others=("test",))
    problems = read_for_style(name, split, config.eval_generation_data_config, config.eval_generation_prompt_style)
    return draw_problems(problems, config.eval_generation_problems)


def draw_problems(problems: datasets.Dataset, number: int) -> datasets.Dataset:
    """Return up to `number` of the problems whose gold answer can be read, in their order: the same ones always."""
    problems = readable_problems(to_problems(problems, "eval_problems"), "evaluation problems")
    if number >= len(problems):
        return problems
    return problems.select(sorted(random.Random(SUBSET_SEED).sample(range(len(problems)), number)))


def readable_problems(problems: datasets.Dataset, kind: str) -> datasets.Dataset:
    """Return the problems whose gold answer can be read: nothing else can be graded."""
    readable = [index for index, row in enumerate(problems) if _is_readable(row)]
    if not readable:
        raise DataError(f"None of the {len(problems)} {kind} has an answer that can be read.")
    if len(readable) < len(problems):
        logger.warning(
            "%d of %d %s have no answer that can be read and are left out.",
            len(problems) - len(readable),
            len(problems),
            kind,
        )
    return problems.select(readable)


def _is_readable(row: dict[str, Any]) -> bool:
    return grade("", row["answer"], row["answer_kind"], choices=row.get("choices")).correct is not None

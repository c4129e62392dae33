"""The part of a model card that TRL cannot know: the objective, its N, and the data."""

from typing import Any

from datasets import Dataset

from trl_math.trainers.sft_config import MathSFTConfig


def data_name(dataset: Any) -> str:
    """Return where a data set came from, as far as it knows."""
    info = getattr(dataset, "info", None)
    return getattr(info, "dataset_name", None) or getattr(info, "builder_name", None) or "a data set made in memory"


def describe_run(config: MathSFTConfig, dataset_name: str, num_rows: int | None) -> str:
    """Return the model card's section on what was trained and how, in Markdown."""
    lines = [f"objective: `{config.objective}`"]
    if config.objective_params:
        lines.append(f"objective_params: `{config.objective_params}`")
    if config.num_attempts is not None:
        lines.append(f"num_attempts (N): `{config.num_attempts:g}`")
    if config.objective == "coverage":
        for name in ("coverage_level", "coverage_reduction", "coverage_allocation", "min_coverage_weight"):
            lines.append(f"{name}: `{getattr(config, name)}`")
    lines.append(f"data: `{dataset_name}`" + (f", {num_rows} tokenised rows" if num_rows is not None else ""))
    lines.append(f"learning rate: `{config.learning_rate:g}`, seed: `{config.seed}`")
    body = "\n".join(f"- {line}" for line in lines)
    return f"\n### Objective\n\nTrained with `trl-math`.\n\n{body}\n"


def with_section(card: str, section: str) -> str:
    """Put `section` before the card's framework versions, and mend TRL's link to a base model it has no name for."""
    card = card.replace("[None](https://huggingface.co/None)", "a local checkpoint")
    head, mark, tail = card.partition("### Framework versions")
    return f"{head.rstrip()}\n{section}\n{mark}{tail}"


def num_rows(dataset: Any) -> int | None:
    """Return the number of rows, None for a stream."""
    return len(dataset) if isinstance(dataset, Dataset) else None

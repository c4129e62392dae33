"""`trl-math dpo`: train on preference pairs, or print the plan (`--dry-run`). How it goes is in `train`."""

import dataclasses
from pathlib import Path
from typing import Any

from trl_math.cli import train
from trl_math.errors import UsageError
from trl_math.recipes import TrainArguments, build_dpo, look_at_dpo
from trl_math.smoke import dpo_smoke_values


HELP = """\
usage: trl-math dpo --config RECIPE.yaml [--setting value ...] [--dry-run] [--smoke] [--debug]

Train a model on preference pairs: a folder of `trl-math pairs`, a file or a data set of the hub; or, with live_data,
on pairs that the model makes while it trains. RECIPE is a file, or the name of one under recipes/ (see `trl-math
recipes`). The same command on the same output_dir goes on from the last checkpoint.

precompute_ref_log_probs is on, and what the reference says is kept beside local pairs (reference_file).

settings of trl-math (with their defaults):
{ours}

Every field of TRL's DPOConfig and ModelConfig is a setting too (learning_rate, beta, loss_type, use_peft, lora_r,
...): https://huggingface.co/docs/trl/dpo_trainer
"""


def run(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    return train.run(DPO, argv)


def load(arguments: TrainArguments) -> tuple[Any, Any]:
    """Return the training pairs, None if they are made while training, and evaluation pairs if any are asked for."""
    from trl_math.data.load import load_rows, load_source

    data, training = arguments.data, arguments.training
    is_asked = training.eval_generation_data is not None or training.live_data is not None
    if data.prompt_style is not None and not is_asked:
        raise UsageError(
            f"prompt_style: {data.prompt_style} says how problems are asked, and pairs are trained on as they are: "
            "leave it out."
        )
    if training.live_data is None:
        as_they_are = dataclasses.replace(data, prompt_style=None)
        return load_rows(as_they_are, training.seed, evaluates=arguments.evaluates, are_pairs=True)
    _refuse_unread(data)
    if not arguments.evaluates:
        return None, None
    if data.eval_dataset_name is None and training.eval_generation_data is not None:
        return None, None  # it is evaluated by asking it
    if data.eval_dataset_name is None:
        raise UsageError("Evaluations need pairs, and live_data makes those to train on: set eval_dataset_name.")
    name = data.eval_dataset_name
    return None, load_source(name, "train" if Path(name).is_file() else data.eval_split)


def _refuse_unread(data: Any) -> None:
    """Raise for settings of training rows: with live_data there are none."""
    unread = ["dataset_name", "dataset_config", "dataset_train_split", "exclude_dataset", "exclude_split"]
    unread += ["max_train_rows", "max_eval_rows"]
    for field in dataclasses.fields(data):
        is_unread = field.name in unread or field.name.startswith("difficulty_")
        if is_unread and getattr(data, field.name) != field.default:
            raise UsageError(
                f"live_data makes the pairs that are trained on: leave out {field.name} (its problems are chosen by "
                "live_data, live_data_config and live_split)."
            )


def check_rows(arguments: TrainArguments, tokenizer: Any, train_rows: Any, eval_rows: Any) -> None:
    """Raise for pairs that the trainer would refuse."""
    from trl_math.trainers.dpo_rows import ready_pairs

    scale = None
    for name, rows in (("train", train_rows), ("eval", eval_rows)):
        if rows is not None:
            _, scale = ready_pairs(rows, tokenizer, arguments.training, name, scale)


def place_references(arguments: TrainArguments, model: str) -> None:
    """Turn `reference_file: auto` into a file beside the pairs, or leave those of the hub to TRL's own cache.

    A file of another model is refused here, before this one is loaded.
    """
    from transformers import AutoConfig

    from trl_math.generation.identity import model_identity
    from trl_math.trainers.dpo_references import check_references, reference_name

    training = arguments.training
    if training.reference_file is None:
        return
    revision, trusts = arguments.model.model_revision, training.trust_remote_code
    config = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=trusts)
    identity = model_identity(model, config, revision)
    if training.reference_file == "auto":
        folder = reference_folder(arguments.data.dataset_name)
        training.reference_file = None if folder is None else str(folder / reference_name(identity))
    if training.reference_file is not None:
        check_references(Path(training.reference_file), identity)


def reference_folder(dataset_name: Any) -> Path | None:
    """Return the folder of the pairs, or of the first of several; None if none of them is local."""
    names = dataset_name if isinstance(dataset_name, list) else [dataset_name]
    path = next((Path(name).expanduser() for name in names if Path(name).expanduser().exists()), None)
    return path if path is None or path.is_dir() else path.parent


def _trainer(arguments: TrainArguments) -> type:
    from trl_math.trainers import MathDPOTrainer

    return MathDPOTrainer


def _configs() -> tuple[type, type]:
    from trl import DPOConfig

    from trl_math.trainers import MathDPOConfig

    return DPOConfig, MathDPOConfig


DPO = train.TrainCommand(
    name="dpo",
    build=build_dpo,
    look=look_at_dpo,
    smoke=dpo_smoke_values,
    load=load,
    check_rows=check_rows,
    prepare=place_references,
    trainer=_trainer,
    configs=_configs,
    help=HELP,
)

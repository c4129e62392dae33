"""`trl-math sft`: fine-tune on solutions or answers, or print the plan (`--dry-run`). How it goes is in `train`."""

import logging
from functools import partial
from typing import Any

from trl_math.cli import train
from trl_math.recipes import TrainArguments, build_sft, look_at_sft
from trl_math.smoke import smoke_values


logger = logging.getLogger(__name__)

HELP = """\
usage: trl-math sft --config RECIPE.yaml [--setting value ...] [--dry-run] [--smoke] [--debug]

Fine-tune a model, a decoder or an encoder-decoder such as T5, on answers or solutions. RECIPE is a file, or the name
of one under recipes/ (`trl-math recipes`).
The same command on the same output_dir goes on from the last checkpoint.

settings of trl-math (with their defaults):
{ours}

Every field of TRL's SFTConfig and ModelConfig is a setting too (learning_rate, num_train_epochs, packing, use_peft,
lora_r, ...): https://huggingface.co/docs/trl/sft_trainer
"""


def run(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    return train.run(SFT, argv)


def load(arguments: TrainArguments) -> tuple[Any, Any]:
    """Return the training rows, and the evaluation rows if the recipe evaluates."""
    tokenizer = None
    if _is_drawn_by_length(arguments):
        tokenizer = train.load_tokenizer(arguments, train.find_model(arguments))
    return _load(arguments, tokenizer)


def preview(arguments: TrainArguments) -> tuple[Any, Any]:
    """Return the rows as far as they are known without a model; whose tokenizer may be here."""
    tokenizer, name = None, arguments.model.model_name_or_path
    if _is_drawn_by_length(arguments) and name is not None:
        from trl_math.models import cached_folder

        try:
            tokenizer = train.load_tokenizer(arguments, str(cached_folder(name) or name))
        except (OSError, ValueError):
            logger.warning(
                "The tokenizer of %s is not on this machine: the matched control is drawn here as if no row were over "
                "max_length, and will be drawn from the rows that are not.",
                name,
            )
    rows = _load(arguments, tokenizer)
    _check_tokens(name, *rows)
    return rows


def _check_tokens(name: str | None, *sets: Any) -> None:
    """Raise for rows of a token file that are not the model's tokens, if its tokenizer is on this machine."""
    from trl_math.data.token_rows import origin_of

    origins = [origin for rows in sets if (origin := origin_of(rows)) is not None]
    if not origins or name is None:
        return
    from transformers import AutoTokenizer

    from trl_math.models import cached_folder
    from trl_math.trainers.token_file_rows import check_tokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(cached_folder(name) or name))
    except (OSError, ValueError):
        logger.warning("The tokenizer of %s is not on this machine: whose tokens these are is not checked.", name)
        return
    for origin in origins:
        check_tokenizer(origin, tokenizer)


def _load(arguments: TrainArguments, tokenizer: Any) -> tuple[Any, Any]:
    from trl_math.data.load import load_rows
    from trl_math.trainers.trained_rows import which_train

    training = arguments.training
    return load_rows(
        arguments.data,
        training.seed,
        evaluates=arguments.evaluates,
        keeps_answers=training.is_screened_live,
        which_train=partial(which_train, tokenizer=tokenizer, config=training),
    )


def _is_drawn_by_length(arguments: TrainArguments) -> bool:
    """Whether the rows depend on how long each is in tokens: those of a control that is to have no row left out."""
    return arguments.data.matched_control and arguments.training.drop_truncated


def check_rows(arguments: TrainArguments, tokenizer: Any, train_rows: Any, eval_rows: Any) -> None:
    """Raise for rows that the trainer would refuse."""
    from trl_math.trainers.trained_rows import ready_rows

    if arguments.training.chat_template_path is not None:  # it may need the model; the trainer checks its rows
        return
    for name, rows in (("train", train_rows), ("eval", eval_rows)):
        if rows is not None:
            ready_rows(rows, tokenizer, arguments.training, name)


def _trainer(arguments: TrainArguments) -> type:
    from trl_math.trainers import MathSeq2SeqConfig, MathSeq2SeqTrainer, MathSFTTrainer

    return MathSeq2SeqTrainer if isinstance(arguments.training, MathSeq2SeqConfig) else MathSFTTrainer


def _configs() -> tuple[type, type]:
    from trl import SFTConfig

    from trl_math.trainers import MathSeq2SeqConfig

    return SFTConfig, MathSeq2SeqConfig  # which has all of the decoders' fields


SFT = train.TrainCommand(
    name="sft",
    build=build_sft,
    look=look_at_sft,
    smoke=smoke_values,
    load=load,
    preview=preview,
    check_rows=check_rows,
    trainer=_trainer,
    configs=_configs,
    help=HELP,
)

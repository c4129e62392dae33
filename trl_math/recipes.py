"""Recipes: flat YAML files whose keys belong to TRL's and our dataclasses, checked strictly, overridden by flags.

    values = read_recipe("recipes/x.yaml") | parse_flags(["--learning_rate", "1e-5"])
    arguments = build_sft(values)     # typed: data, training and model arguments

A key that no dataclass has is an error that names the nearest one; so is a value of the wrong type. Reading costs no
heavy import; building imports TRL.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from trl_math.errors import TrlMathError, UsageError, nearest
from trl_math.files import nearest_path


# In a source tree the recipes lie beside the package, in an installed one inside it.
ROOTS = (Path(__file__).parent.parent / "recipes", Path(__file__).parent / "recipe_files")


NO_GPU = (
    "There is no GPU here that trains in bf16 (TRL's default). On a CPU set use_cpu: true, and bf16: false for "
    "float32; or try the recipe with --smoke, or look at it with --dry-run."
)


@dataclasses.dataclass
class Header:
    """Keys for the command line itself."""

    command: str = dataclasses.field(default="sft", metadata={"help": "The command that the recipe is for."})
    description: str | None = dataclasses.field(default=None, metadata={"help": "One line for `trl-math recipes`."})
    env: dict[str, Any] | None = dataclasses.field(
        default=None, metadata={"help": "Environment variables to set for the run, unless they are set already."}
    )


@dataclasses.dataclass
class LaunchHeader(Header):
    """Keys for a command that accelerate launches."""

    accelerate_config: str | None = dataclasses.field(
        default=None,
        metadata={"help": "How to launch: a name under recipes/accelerate, or the path of an accelerate config file."},
    )
    num_processes: int | None = dataclasses.field(
        default=None, metadata={"help": "How many processes to launch, instead of the number in the launch file."}
    )


class TrainArguments(NamedTuple):
    """A recipe of `trl-math sft` or `dpo` in typed form."""

    header: LaunchHeader
    data: Any  # DataArguments
    training: Any  # MathSFTConfig or MathDPOConfig
    model: Any  # trl.ModelConfig
    given: dict[str, Any]  # what was set to other than its default, converted

    @property
    def evaluates(self) -> bool:
        """Whether the run needs evaluation rows; with problems to ask only if named, or if their loss decides."""
        from trl_math.trainers.generation_eval_config import chooses_by_rows  # noqa: PLC0415 - heavy

        training = self.training
        if training.eval_strategy == "no" and not training.eval_on_start:
            return False
        may_only_ask = self.header.command == "sft" and training.eval_generation_data is not None
        return not may_only_ask or self.data.names_eval_rows or chooses_by_rows(training)


class _StrictLoader(yaml.SafeLoader):
    """YAML without silent surprises: a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise UsageError(f"{node.start_mark.name}: given twice: {', '.join(twice)}.")
        return super().construct_mapping(node, deep)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Read a recipe file, or a recipe of this repository by its name under `recipes/` (with or without `.yaml`)."""
    file = find_recipe(path)
    try:
        with open(file, encoding="utf-8") as stream:
            values = yaml.load(stream, Loader=_StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{file} must be a mapping of keys to values.")
    return values


def find_recipe(path: str | Path) -> Path:
    """Return the file of a recipe given by path or by name."""
    candidates = [Path(path), *(root / name for root in ROOTS for name in (f"{path}", f"{path}.yaml"))]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    is_file = Path(path).suffix in (".yaml", ".yml")
    close = (nearest_path(path) if is_file else "") or nearest(str(path), map(recipe_name, all_recipes()))
    raise UsageError(f"There is no recipe {str(path)!r}.{close}")


def all_recipes() -> list[Path]:
    """Return the recipe files of this repository, launch settings left out."""
    root = next((root for root in ROOTS if root.is_dir()), None)
    return [path for path in sorted(root.rglob("*.yaml")) if path.parent.name != "accelerate"] if root else []


def recipe_name(path: Path) -> str:
    """Return the name by which a recipe of this repository can be given, such as `dco/llama3-8b-math-direct-n64`."""
    root = next((root for root in ROOTS if path.is_relative_to(root)), path.parent)
    return str(path.relative_to(root).with_suffix(""))


def parse_flags(flags: Iterable[str]) -> dict[str, Any]:
    """Turn `--key value`, `--key=value`, `--key a b` (a list) and bare `--key` (true) into values, still as text."""
    values: dict[str, Any] = {}
    key = None
    for word in flags:
        if _is_short_flag(word):  # a value like this one can be given as --key=value
            raise UsageError(f"Unexpected word {word!r}: settings are given as --key value.")
        if word.startswith("--"):
            key, has_value, text = word[2:].partition("=")
            key = key.replace("-", "_")
            if key in values:
                raise UsageError(f"--{key} is given twice.")
            values[key] = text if has_value else []
        elif key is None:
            raise UsageError(f"Unexpected word {word!r}: settings are given as --key value.")
        elif not isinstance(values[key], list):
            raise UsageError(f"Unexpected word {word!r} after --{key}.")
        else:
            values[key].append(word)
    return {key: _unwrap(value) for key, value in values.items()}


def _is_short_flag(word: str) -> bool:
    """Whether a word is meant as a flag, as `-n` is; `-1`, `-inf` and texts with spaces are values."""
    return re.fullmatch(r"-[A-Za-z]\S*", word) is not None and not re.fullmatch(r"-(inf|infinity|nan)", word.lower())


def _unwrap(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return True if not value else value[0] if len(value) == 1 else value


def build_sft(
    values: Mapping[str, Any], overrides: Mapping[str, Any] | None = None, *, asks_hub: bool = True
) -> TrainArguments:
    """Build the typed arguments of the `sft` command; raise a `UsageError` for any key or value that has no place.

    `overrides` are training settings that count as not given: what a machine needs to look at a recipe for another.
    The model decides which configuration it is: that of an encoder-decoder has the same fields, and one of its own.
    """
    from trl_math.models import is_encoder_decoder  # noqa: PLC0415 - heavy
    from trl_math.trainers.seq2seq_config import MathSeq2SeqConfig  # noqa: PLC0415 - heavy
    from trl_math.trainers.sft_config import MathSFTConfig  # noqa: PLC0415 - heavy

    name, revision = (convert(key, values.get(key), str | None) for key in ("model_name_or_path", "model_revision"))
    is_seq2seq = is_encoder_decoder(name, revision, asks_hub=asks_hub)
    return _build_training(values, MathSeq2SeqConfig if is_seq2seq else MathSFTConfig, overrides)


def build_dpo(values: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> TrainArguments:
    """Build the typed arguments of the `dpo` command, as `build_sft`.

    The reference's log-probabilities are precomputed and kept, unless the recipe says otherwise or they cannot be.
    """
    from trl_math.trainers.dpo_config import MathDPOConfig  # noqa: PLC0415 - heavy

    is_moving = convert("sync_ref_model", values.get("sync_ref_model", False), bool)
    exists = convert("live_data", values.get("live_data"), str | None) is None
    defaults = {} if is_moving or not exists else {"precompute_ref_log_probs": True}
    over = {key: value for key, value in defaults.items() if key not in values} | dict(overrides or {})
    arguments = _build_training({"command": "dpo", **values}, MathDPOConfig, over)
    training = arguments.training
    if "reference_file" not in values and training.precompute_ref_log_probs and training.ld_alpha is None:
        training.reference_file = "auto"
    return arguments


def _build_training(
    values: Mapping[str, Any], config: type, overrides: Mapping[str, Any] | None = None
) -> TrainArguments:
    from trl import ModelConfig  # noqa: PLC0415 - heavy

    from trl_math.data.load import DataArguments  # noqa: PLC0415 - heavy

    consumers = {"header": LaunchHeader, "data": DataArguments, "training": config, "model": ModelConfig}
    parts = split_values(values, consumers)
    return TrainArguments(*_typed(parts, consumers, {"training": overrides or {}}))


class GenerateRequest(NamedTuple):
    """A recipe of `trl-math generate` in typed form."""

    header: Header
    generate: Any  # GenerateArguments
    engine: Any  # EngineArguments
    given: dict[str, Any]  # what was set to other than its default, converted


# TRL's names for the same things.
GENERATE_ALIASES = {
    "model_name_or_path": "model",
    "model_revision": "revision",
    "dataset_name": "data",
    "dataset_config": "data_config",
    "dataset_split": "split",
    "output_dir": "output",
}


TOKENIZE_ALIASES = {**GENERATE_ALIASES, "dataset_train_split": "split"}


def canonical(values: Mapping[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
    """Return settings of one place (a recipe, the flags) by their own names; raise if one is given by two names."""
    named: dict[str, Any] = {}
    for key, value in values.items():
        name = aliases.get(key, key)
        if name in named:
            other = key if key != name else next(alias for alias in values if aliases.get(alias) == name)
            raise UsageError(f"{other} is {name}, which is given too: give one of them.")
        named[name] = value
    return named


def build_generate(values: Mapping[str, Any]) -> GenerateRequest:
    """Build the typed arguments of the `generate` command; raise a `UsageError` for what has no place."""
    from trl_math.generation.arguments import GenerateArguments  # noqa: PLC0415 - heavy
    from trl_math.generation.engines import EngineArguments  # noqa: PLC0415 - heavy

    consumers = {"header": Header, "generate": GenerateArguments, "engine": EngineArguments}
    return GenerateRequest(*_typed(split_values(canonical(values, GENERATE_ALIASES), consumers), consumers))


class EvaluateRequest(NamedTuple):
    """A recipe of `trl-math evaluate` in typed form."""

    header: Header
    evaluate: Any  # EvaluateArguments
    engine: Any  # EngineArguments
    given: dict[str, Any]  # what was set to other than its default, converted


EVALUATE_ALIASES = {
    "benchmark": "benchmarks",
    **{alias: name for alias, name in GENERATE_ALIASES.items() if name in ("model", "revision", "output")},
}


def build_evaluate(values: Mapping[str, Any]) -> EvaluateRequest:
    """Build the typed arguments of the `evaluate` command; raise a `UsageError` for what has no place."""
    from trl_math.evaluation.arguments import EvaluateArguments  # noqa: PLC0415 - heavy
    from trl_math.generation.engines import EngineArguments  # noqa: PLC0415 - heavy

    consumers = {"header": Header, "evaluate": EvaluateArguments, "engine": EngineArguments}
    return EvaluateRequest(*_typed(split_values(canonical(values, EVALUATE_ALIASES), consumers), consumers))


def look_at_sft(values: Mapping[str, Any]) -> TrainArguments:
    """Build the arguments to look at them, also those of a recipe for GPUs on a machine that has none."""
    return build_sft(values, _cpu_overrides(), asks_hub=False)


def look_at_dpo(values: Mapping[str, Any]) -> TrainArguments:
    """Build the arguments to look at them, as `look_at_sft`."""
    return build_dpo(values, _cpu_overrides())


def _cpu_overrides() -> dict[str, Any]:
    import torch  # noqa: PLC0415 - heavy

    return {} if torch.cuda.is_available() else {"use_cpu": True, "tf32": None}


def _typed(
    parts: Mapping[str, Mapping[str, Any]],
    consumers: Mapping[str, type],
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Any]:
    """Return each dataclass with its values, and last what was given (overrides do not count)."""
    over = overrides or {}
    built = [_build(kind, {**parts[name], **over.get(name, {})}) for name, kind in consumers.items()]
    return [*built, _given(parts, consumers)]


def _given(parts: Mapping[str, Mapping[str, Any]], consumers: Mapping[str, type]) -> dict[str, Any]:
    return {
        key: value
        for name, consumer in consumers.items()
        for key, value in parts[name].items()
        if value != _default(consumer, key)
    }


def _default(consumer: type, key: str) -> Any:
    field = next(field for field in dataclasses.fields(consumer) if field.name == key)
    has_factory = field.default_factory is not dataclasses.MISSING
    return field.default_factory() if has_factory else field.default


def split_values(values: Mapping[str, Any], consumers: Mapping[str, type]) -> dict[str, dict[str, Any]]:
    """Give every key to the dataclass that has it, with its value converted to the field's type."""
    parts: dict[str, dict[str, Any]] = {name: {} for name in consumers}
    hints = {name: typing.get_type_hints(consumer) for name, consumer in consumers.items()}
    fields = {
        name: {field.name for field in dataclasses.fields(consumer) if field.init}
        for name, consumer in consumers.items()
    }
    for key, value in values.items():
        owner = next((name for name in consumers if key in fields[name]), None)
        if owner is None:
            raise UsageError(f"Unknown key {key!r}.{nearest(str(key), sorted(set().union(*fields.values())))}")
        parts[owner][key] = convert(key, value, hints[owner][key])
    return parts


def convert(key: str, value: Any, hint: Any) -> Any:
    """Return `value` as the field's type, or raise a `UsageError`.

    Text (from a flag, or what YAML takes for text, such as 1e-5) is read as the field's type; `no` for a field of text
    is the word and not false.
    """
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    kinds = tuple(typing.get_origin(option) or option for option in options)
    exact = tuple(kind for kind in kinds if isinstance(kind, type) and kind is not type(None))
    if isinstance(value, str):
        value = _read_text(value, kinds)
    item = next((typing.get_args(option)[0] for option in options if typing.get_origin(option) is list), Any)
    if isinstance(value, list):
        value = [convert(key, part, item) for part in value]
    if isinstance(value, bool) and str in kinds and bool not in kinds:
        value = "yes" if value else "no"
    if value is None and type(None) in kinds:
        return None
    is_wrong_bool = isinstance(value, bool) and bool not in kinds
    if not exact or Any in kinds or (isinstance(value, exact) and not is_wrong_bool):
        return value
    if float in kinds and isinstance(value, int) and not is_wrong_bool:
        return float(value)
    if str in kinds and isinstance(value, int | float):
        return str(value)
    if list in kinds and isinstance(value, str):
        return [convert(key, value, item)]
    if value is True:  # a flag at the end, or before another one
        raise UsageError(f"{key} has no value: it must be {_names(kinds)}, as in --{key} {_example(kinds)}.")
    raise UsageError(f"{key} must be {_names(kinds)}, got {value!r}.")


def _read_text(text: str, kinds: tuple[Any, ...]) -> Any:
    """Read text as a value of one of `kinds`, as far as it is one."""
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                continue
    if text in ("null", "~") and type(None) in kinds:
        return None
    try:
        parsed = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if list in kinds and not (isinstance(parsed, list) and text.lstrip().startswith("[")):
        return text  # one item, whatever YAML would make of `Question:`, `- x` or a line break
    is_structure = isinstance(parsed, dict | list) and {dict, list} & set(kinds)
    is_flag = isinstance(parsed, bool) and bool in kinds
    return parsed if is_structure or is_flag or (str not in kinds and not isinstance(parsed, str)) else text


def _names(kinds: tuple[Any, ...]) -> str:
    return " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds if kind is not type(None))


def _example(kinds: tuple[Any, ...]) -> str:
    return "VALUE [VALUE ...]" if list in kinds else "VALUE"


def _build(kind: type, values: dict[str, Any]) -> Any:
    try:
        return kind(**values)
    except TrlMathError:
        raise
    except (ValueError, TypeError, ImportError) as error:
        if "bf16/gpu" in str(error):
            raise UsageError(NO_GPU) from error
        # TRL and transformers explain at length; the command line says it in one line.
        raise UsageError(" ".join(str(error).split())) from error

"""Recipes: flat YAML files whose keys belong to TRL's and our dataclasses, checked strictly, overridden by flags.

    values = read_recipe("recipes/x.yaml") | parse_flags(["--learning_rate", "1e-5"])
    arguments = build_sft(values)     # typed: data, training and model arguments

A key that no dataclass has is an error that names the nearest one; so is a value of the wrong type. Reading costs no
heavy import; building imports TRL.
"""

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from trl_math.errors import UsageError, nearest


# In a source tree the recipes lie beside the package, in an installed one inside it.
ROOTS = (Path(__file__).parent.parent / "recipes", Path(__file__).parent / "recipe_files")

# Keys for the command line itself; no dataclass takes them.
HEADER = {
    "command": "The trl-math command that the recipe is for.",
    "description": "One line for `trl-math recipes`.",
    "accelerate_config": "How to launch: a name under recipes/accelerate, or the path of an accelerate config file.",
    "env": "Environment variables to set for the run, unless they are set already.",
    "num_processes": "How many processes to launch, instead of the number in the accelerate config.",
}


class SFTArguments(NamedTuple):
    """A recipe in typed form."""

    data: Any  # DataArguments
    training: Any  # MathSFTConfig
    model: Any  # trl.ModelConfig
    header: dict[str, Any]


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
    with open(file, encoding="utf-8") as stream:
        try:
            values = yaml.load(stream, Loader=_StrictLoader)
        except yaml.YAMLError as error:
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
    raise UsageError(f"There is no recipe {str(path)!r}.{nearest(str(path), map(recipe_name, all_recipes()))}")


def all_recipes() -> list[Path]:
    """Return the recipe files of this repository, launch settings left out."""
    root = next((root for root in ROOTS if root.is_dir()), None)
    return [path for path in sorted(root.rglob("*.yaml")) if path.parent.name != "accelerate"] if root else []


def recipe_name(path: Path) -> str:
    """Return the name by which a recipe of this repository can be given, such as `dco/llama3-8b-math-direct-n64`."""
    root = next((root for root in ROOTS if path.is_relative_to(root)), path.parent)
    return str(path.relative_to(root).with_suffix(""))


def parse_flags(flags: Iterable[str]) -> dict[str, Any]:
    """Turn `--key value`, `--key=value` and bare `--key` (true) into values, read as YAML reads them."""
    values: dict[str, Any] = {}
    key = None
    for word in flags:
        if word.startswith("--"):
            key, has_value, text = word[2:].partition("=")
            key = key.replace("-", "_")
            if key in values:
                raise UsageError(f"--{key} is given twice.")
            values[key] = _scalar(text) if has_value else []
        elif key is None:
            raise UsageError(f"Unexpected word {word!r}: settings are given as --key value.")
        elif not isinstance(values[key], list):
            raise UsageError(f"Unexpected word {word!r} after --{key}.")
        else:
            values[key].append(_scalar(word))
    return {key: _unwrap(value) for key, value in values.items()}


def _scalar(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _unwrap(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return True if not value else value[0] if len(value) == 1 else value


def build_sft(values: Mapping[str, Any]) -> SFTArguments:
    """Build the typed arguments of the `sft` command; raise a `UsageError` for any key or value that has no place."""
    from trl import ModelConfig  # noqa: PLC0415 - heavy

    from trl_math.data.load import DataArguments  # noqa: PLC0415 - heavy
    from trl_math.trainers.sft_config import MathSFTConfig  # noqa: PLC0415 - heavy

    consumers = {"data": DataArguments, "training": MathSFTConfig, "model": ModelConfig}
    parts = split_values(values, consumers)
    training = _build(MathSFTConfig, parts["training"])
    return SFTArguments(
        _build(DataArguments, parts["data"]), training, _build(ModelConfig, parts["model"]), parts["header"]
    )


def split_values(values: Mapping[str, Any], consumers: Mapping[str, type]) -> dict[str, dict[str, Any]]:
    """Give every key to the dataclass that has it, with its value converted to the field's type."""
    parts: dict[str, dict[str, Any]] = {"header": {}, **{name: {} for name in consumers}}
    hints = {name: typing.get_type_hints(consumer) for name, consumer in consumers.items()}
    fields = {
        name: {field.name for field in dataclasses.fields(consumer) if field.init}
        for name, consumer in consumers.items()
    }
    for key, value in values.items():
        owner = "header" if key in HEADER else next((name for name in consumers if key in fields[name]), None)
        if owner is None:
            known = set(HEADER).union(*fields.values())
            raise UsageError(f"Unknown key {key!r}.{nearest(str(key), sorted(known))}")
        parts[owner][key] = value if owner == "header" else convert(key, value, hints[owner][key])
    return parts


def convert(key: str, value: Any, hint: Any) -> Any:
    """Return `value` as the field's type, or raise a `UsageError`. YAML reads 1e-5 as text and 3 as a whole number."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    kinds = tuple(typing.get_origin(option) or option for option in options)
    if value is None and type(None) in kinds:
        return None
    if isinstance(value, bool) and bool not in kinds and not {str, Any} & set(kinds):
        raise UsageError(f"{key} must be {_names(kinds)}, got {value!r}.")
    exact = tuple(kind for kind in kinds if isinstance(kind, type))
    if not exact or len(exact) < len(kinds) or isinstance(value, exact):
        return value
    if float in kinds and isinstance(value, int):
        return float(value)
    if isinstance(value, str) and {int, float} & set(kinds):
        for kind in (int, float):
            try:
                if kind in kinds:
                    return kind(value)
            except ValueError:
                continue
    if str in kinds and isinstance(value, int | float):
        return str(value)
    if list in kinds and isinstance(value, str):
        return [value]
    raise UsageError(f"{key} must be {_names(kinds)}, got {value!r}.")


def _names(kinds: tuple[Any, ...]) -> str:
    return " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds if kind is not type(None))


def _build(kind: type, values: dict[str, Any]) -> Any:
    try:
        return kind(**values)
    except (ValueError, TypeError, ImportError) as error:
        if isinstance(error, UsageError):
            raise
        if "bf16/gpu" in str(error):
            raise UsageError(
                "There is no GPU here that trains in bf16 (TRL's default). On a CPU set use_cpu: true, and bf16: "
                "false for float32; or try the recipe with --smoke, or look at it with --dry-run."
            ) from error
        # TRL and transformers explain at length; the command line says it in one line.
        raise UsageError(" ".join(str(error).split())) from error

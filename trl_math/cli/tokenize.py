"""`trl-math tokenize`: rows to token files, and token files to others: joined, padded, or as the original has them."""

import dataclasses
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from trl_math.cli.request import quiet_bars, read_request, say, set_environment, settings_help
from trl_math.cli.tokenize_settings import TokenizeSettings, arguments
from trl_math.errors import DataError, UsageError
from trl_math.generation.hashes import short_hash
from trl_math.recipes import TOKENIZE_ALIASES


if TYPE_CHECKING:
    from trl_math.data.token_blocks import Block
    from trl_math.data.token_files import MadeTokens, Shape, TokenFile


HELP = """\
usage: trl-math tokenize --data DATA --model TOKENIZER --output X.tok [--prompt_style STYLE] [--setting value ...]
       trl-math tokenize --data A.tok [B.tok ...] --output X.tok [--layout padded] [--original]
       trl-math tokenize --config RECIPE.yaml [--setting value ...] [--dry-run]

Make a token file of rows: ids (X.tok), masks (X.msk), offsets (X.idx) and a manifest (X.tok.json), exactly what
`trl-math sft` trains on, which then takes it as --dataset_name X.tok. Of several sources one file is made, one after
the other. Given token files, join them or write them in another form.

settings (with defaults):
{settings}
"""


class Work(NamedTuple):
    """What a file will be made of, and how it is written."""

    made_of: dict[str, Any]
    blocks: "Iterable[Block]"
    shape: "Shape"
    tokenizer: Any  # a TokenizerName, or None where it is not known
    lines: list[str]  # what is known before anything is tokenised
    outcome: Any  # returns what is known afterwards


def run(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    if {"-h", "--help"} & set(argv):
        print(HELP.format(settings=settings_help(TokenizeSettings)).rstrip())
        return 0
    request = read_request(argv, "tokenize", _no_smoke, "output", TOKENIZE_ALIASES)
    set_environment(request)
    quiet_bars()
    return make(arguments(request.values), is_dry_run=request.is_dry_run)


def make(settings: TokenizeSettings, *, is_dry_run: bool = False) -> int:
    """Write the token file unless it is there, and say what is in it."""
    from trl_math.data.token_files import MadeTokens
    from trl_math.data.token_format import prefix_of

    file = MadeTokens(prefix_of(str(settings.output)))
    work = prepare(settings)
    if is_dry_run:
        is_there = file.is_finished(work.made_of)
        for line in work.lines:
            say(line)
        say(f"{file.path} {'is there already' if is_there else 'would be written'}.")
        return 0
    with file.hold():
        if file.is_finished(work.made_of):
            say(f"{file.path} is there already: nothing to do.")
            return 0
        manifest = file.write(work.blocks, work.shape, partial(_facts, work))
    _tell(file, manifest, work)
    return 0


def prepare(settings: TokenizeSettings) -> Work:
    """Return what is to be written, or raise why it cannot be."""
    from trl_math.data.token_format import TOKENS

    are_tokens = [name.endswith(TOKENS) for name in settings.sources]
    if all(are_tokens):
        return _of_tokens(settings)
    if any(are_tokens):
        raise UsageError(
            f"data has both token files and rows ({', '.join(settings.sources)}): tokenize the rows first, then join."
        )
    return _of_rows(settings)


# ---- Rows ----


def _of_rows(settings: TokenizeSettings) -> Work:
    from trl_math.data.load import digest
    from trl_math.data.token_format import choose_dtype, tokenizer_name
    from trl_math.trainers.tokenised import TokenStream

    tokenizer = load_tokenizer(settings)
    name = tokenizer_name(tokenizer)._replace(name=str(settings.model))
    dtype = choose_dtype("uint16" if settings.original else settings.dtype, name.vocabulary)
    if settings.layout == "padded" and settings.limit is None:
        raise UsageError("layout: padded fills rows up to max_length: give one above 0.")
    rows = read_rows(settings)
    stream = TokenStream(rows, tokenizer, training_config(settings, rows.column_names), settings.prompt_style)
    shape = _shape(settings, dtype, settings.limit, pad_id(tokenizer, is_original=settings.original))
    made_of = {
        "rows": digest(rows),
        "settings": _material(settings),
        "tokenizer": _state(tokenizer, name),
    }
    lines = [
        f"{len(rows):,} rows with {', '.join(rows.column_names)}",
        f"{name.vocabulary:,} ids of {name.name} ({name.sha256}) as {dtype.name}, {settings.layout}",
    ]
    return Work(made_of, stream, shape, name, lines, lambda: stream)


def load_tokenizer(settings: TokenizeSettings) -> Any:
    """Return the tokenizer that a model's name stands for."""
    from transformers import AutoTokenizer

    from trl_math.models import resolve_model

    if settings.model is None:
        raise UsageError("Whose tokens? Set model (a hub name, a path, or embedded:smollm2-135m-instruct).")
    name = resolve_model(settings.model)
    try:
        return AutoTokenizer.from_pretrained(name, revision=settings.revision)
    except (OSError, ValueError) as error:
        raise UsageError(f"There is no tokenizer in {settings.model!r}: {' '.join(str(error).split())}") from error


def _state(tokenizer: Any, name: Any) -> dict[str, Any]:
    """Return what decides on the tokens of a row."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return {
        "sha256": name.sha256,
        "rules": short_hash(backend.to_str()) if backend is not None else None,
        "chat_template": short_hash(repr(tokenizer.chat_template)),
        "eos_token": tokenizer.eos_token,
    }


def read_rows(settings: TokenizeSettings) -> Any:
    """Return the rows as sft would read them."""
    from trl_math.data.load import DataArguments, load_rows, load_split
    from trl_math.trainers.tokenised import ORIGINAL

    if settings.prompt_style == ORIGINAL:
        import datasets

        parts = [load_split(name, settings.split, settings.data_config) for name in settings.sources]
        return datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    data = DataArguments(
        dataset_name=settings.sources,
        dataset_config=settings.data_config,
        dataset_train_split=settings.split,
        prompt_style=settings.prompt_style,
    )
    return load_rows(data, seed=0, evaluates=False)[0]


def training_config(settings: TokenizeSettings, columns: Iterable[str]) -> Any:
    """Return the training settings under which sft makes these tokens."""
    from trl_math.data.columns import sft_format
    from trl_math.trainers.sft_config import MathSFTConfig
    from trl_math.trainers.tokenised import ORIGINAL

    losses: dict[str, Any] = {}
    if settings.loss is not None:
        form = ("prompt",) if settings.prompt_style == ORIGINAL else sft_format(columns)
        losses["completion_only_loss"] = settings.loss == "solution"
        if settings.loss == "solution" and form in (("messages",), ("conversations",)):
            losses = {"assistant_only_loss": True}
        elif settings.loss == "solution" and form not in (("prompt",), ("prompt", "completion")):
            raise UsageError(
                f"loss: solution needs rows with prompts; these have {' and '.join(form or columns)} alone."
            )
    share: dict[str, Any] = (
        {} if settings.max_truncated_fraction is None else {"max_truncated_fraction": settings.max_truncated_fraction}
    )
    return MathSFTConfig(
        output_dir="unused",
        use_cpu=True,
        bf16=False,
        report_to="none",
        max_length=settings.limit,
        drop_truncated=settings.drop_truncated,
        eos_token=settings.eos_token,
        chat_template_path=settings.chat_template_path,
        dataset_text_field=settings.dataset_text_field,
        **losses,
        **share,
    )


def pad_id(tokenizer: Any, *, is_original: bool) -> int:
    """Return what stands in padding: the original's unknown token, else the padding token. The mask tells it apart."""
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    ordered = reversed(ids) if is_original else ids
    return next((found for found in ordered if found is not None), 0)


# ---- Token files ----


def _of_tokens(settings: TokenizeSettings) -> Work:
    from trl_math.data.token_files import TokenFile
    from trl_math.data.token_format import choose_dtype, prefix_of

    given = [field.name for field in dataclasses.fields(settings) if _is_of_rows(settings, field)]
    if given:
        raise UsageError(f"{given[0]} is about rows, and {settings.sources[0]} has tokens already: leave it out.")
    files = [TokenFile.open(name) for name in settings.sources]
    if prefix_of(str(settings.output)).resolve() in [file.prefix.resolve() for file in files]:
        raise UsageError(f"output {settings.output} is one of the files that are read: choose another.")
    names = {file.tokenizer.sha256 if file.tokenizer else None: file for file in files}
    if len(names) > 1:
        one, other = list(names.values())[:2]
        raise DataError(
            f"{one.prefix} and {other.prefix} have the tokens of two tokenizers, or it is not known whose they are: "
            "only files of one tokenizer are joined."
        )
    vocabulary = max(
        [1 + file.facts["largest_id"] for file in files]
        + [file.tokenizer.vocabulary for file in files if file.tokenizer]
    )
    dtype = choose_dtype("uint16" if settings.original else settings.dtype, vocabulary)
    length = _padded_length(settings, files)
    pads = [file.pad_id for file in files if file.pad_id is not None]
    shape = _shape(settings, dtype, length, pads[0] if pads else 0)
    made_of = {
        "files": [file.sha256() for file in files],
        "settings": {"layout": settings.layout, "dtype": dtype.name, "max_length": shape.max_length},
    }
    lines = [
        f"{file.prefix}: {len(file):,} rows, {file.facts['num_tokens']:,} tokens, {file.layout}" for file in files
    ]
    blocks = (block for file in files for block in file.blocks())
    return Work(made_of, blocks, shape, files[0].tokenizer, lines, lambda: None)


def _padded_length(settings: TokenizeSettings, files: "list[TokenFile]") -> int | None:
    """Return how long padded rows are: as asked for, else as they were, else as long as the longest."""
    if settings.layout == "ragged":
        if settings.max_length is not None:
            raise UsageError("max_length cuts rows that are tokenised, and these are already: leave it out.")
        return None
    before = {file.max_length for file in files}
    as_before = before.pop() if len(before) == 1 else None
    return settings.max_length or as_before or max(file.facts["lengths"]["longest"] for file in files)


def _is_of_rows(settings: TokenizeSettings, field: Any) -> bool:
    kept = ("data", "output", "layout", "max_length", "dtype", "original", "split")
    return field.name not in kept and getattr(settings, field.name) != field.default


# ---- What is written and said ----


def _shape(settings: TokenizeSettings, dtype: Any, length: int | None, pad: int) -> "Shape":
    from trl_math.data.token_files import Shape

    return Shape(settings.layout, dtype, length if settings.layout == "padded" else None, pad)


def _material(settings: TokenizeSettings) -> dict[str, Any]:
    """Return the settings that decide on the file's content; rows and tokenizer are known by what they are."""
    left_out = ("data", "data_config", "split", "model", "revision", "output", "chat_template_path", "eos_token")
    return {key: value for key, value in dataclasses.asdict(settings).items() if key not in left_out}


def _facts(work: Work) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "tokenizer": work.tokenizer._asdict() if work.tokenizer else None,
        "made_of": work.made_of,
        "versions": {"trl-math": version("trl-math")},
    }


def _tell(file: "MadeTokens", manifest: Mapping[str, Any], work: Work) -> None:
    lengths = manifest["lengths"]
    say(
        f"{file.path}: {manifest['num_rows']:,} rows of {lengths['shortest']} to {lengths['longest']} tokens, in all "
        f"{manifest['num_tokens']:,} ({manifest['num_trained']:,} in the loss), {manifest['dtype']}, "
        f"{manifest['layout']}."
    )
    stream = work.outcome()
    if stream is not None and stream.report.num_truncated:
        report = stream.report
        say(
            f"{report.num_truncated:,} rows are longer than max_length: {stream.num_dropped:,} were left out, "
            f"{report.num_truncated - stream.num_dropped:,} cut."
        )
    say(f"Train on it with: trl-math sft --dataset_name {file.path}")


def _no_smoke(values: dict[str, Any], name: str) -> dict[str, Any]:
    raise UsageError("tokenize has no smoke form, since it runs no model: leave smoke out, or look with --dry-run.")

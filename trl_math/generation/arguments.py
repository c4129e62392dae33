"""What `trl-math generate` is asked: which problems, in which prompts, sampled how; and the prompts that follow."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import datasets

from trl_math.data.columns import FROM_0
from trl_math.data.files import check_is_split
from trl_math.data.load import read_for_style
from trl_math.data.prompts import PROMPT_STYLES, PromptStyle, decoder_style, template_hash
from trl_math.data.shots import choose_shots
from trl_math.errors import DataError, UsageError, pick
from trl_math.generation.checkpoint import Checkpoint
from trl_math.generation.engines import EngineArguments
from trl_math.generation.hashes import sampler_hash as sampler_hash
from trl_math.generation.hashes import short_hash as short_hash
from trl_math.generation.interpreted_sample import check_stop
from trl_math.generation.interpreter import Interpreter
from trl_math.generation.run import Prompt
from trl_math.generation.tokenise import all_prompt_token_ids
from trl_math.grading.sandbox import Limits
from trl_math.records import Sampling


@dataclasses.dataclass
class SamplingArguments:
    """How problems are asked and samples drawn, for every command that does."""

    max_problems: int | None = dataclasses.field(default=None, metadata={"help": "Only the first so many problems."})
    num_shots: int = dataclasses.field(default=0, metadata={"help": "Solved problems before every prompt."})
    shots_data: str | None = dataclasses.field(
        default=None, metadata={"help": "Where they come from, if not from the train split of data."}
    )
    shots_split: str = dataclasses.field(default="train", metadata={"help": "Split of shots_data."})
    num_samples: int = dataclasses.field(default=1, metadata={"help": "Samples of each problem."})
    top_p: float = dataclasses.field(default=1.0, metadata={"help": "Nucleus sampling; 1 is off."})
    top_k: int = dataclasses.field(default=0, metadata={"help": "0 is off."})
    min_p: float = dataclasses.field(default=0.0, metadata={"help": "0 is off."})
    repetition_penalty: float = dataclasses.field(default=1.0, metadata={"help": "1 is off."})
    max_tokens: int = dataclasses.field(default=2048, metadata={"help": "Tokens of a sample at most."})
    stop: list[str] | None = dataclasses.field(
        default=None, metadata={"help": "Texts that end a sample, instead of those of the prompt style."}
    )
    seed: int = dataclasses.field(default=0, metadata={"help": "Random state of the samples."})

    def __post_init__(self) -> None:
        if self.max_problems is not None and self.max_problems < 1:
            raise UsageError(f"max_problems must be at least 1, got {self.max_problems}.")
        if self.num_shots < 0:
            raise UsageError(f"num_shots must be 0 or above, got {self.num_shots}.")
        if self.num_shots == 0 and (self.shots_data is not None or self.shots_split != "train"):
            raise UsageError("shots_data and shots_split need num_shots: how many solved problems come first?")
        if self.shots_split != "train" and self.shots_data is None:
            raise UsageError("shots_split is of shots_data: name that too.")


@dataclasses.dataclass
class GenerateArguments(SamplingArguments):
    """Which problems are asked, and how samples are drawn."""

    data: str | None = dataclasses.field(
        default=None,
        metadata={"help": "A hub name, a JSONL or Parquet file or folder, or reasoning_gym:<generator>?size=100."},
    )
    data_config: str | None = dataclasses.field(default=None, metadata={"help": "Configuration name on the hub."})
    split: str = dataclasses.field(default="train", metadata={"help": "Split to sample."})
    prompt_style: str = dataclasses.field(
        default="chat_cot", metadata={"help": f"How a problem is asked: {', '.join(PROMPT_STYLES)}."}
    )
    temperature: float = dataclasses.field(default=1.0, metadata={"help": "0 is greedy."})
    logprobs: bool = dataclasses.field(
        default=False, metadata={"help": "Keep each token's log-probability (the model's own, at temperature 1)."}
    )
    interpreter: bool = dataclasses.field(
        default=False,
        metadata={"help": "Run the Python blocks of a sample, put their output behind them, and let it go on."},
    )
    max_calls: int = dataclasses.field(default=4, metadata={"help": "Programs of a sample that are run."})
    max_errors: int = dataclasses.field(default=2, metadata={"help": "Programs that fail before a sample ends."})
    program_seconds: float = dataclasses.field(default=10.0, metadata={"help": "Seconds that a program may run."})
    skip_problems: int = dataclasses.field(
        default=0,
        metadata={
            "help": "Begin behind so many problems: with max_problems, a window that goes on at the beginning of the "
            "data where they end."
        },
    )
    shuffle_seed: int | None = dataclasses.field(
        default=None, metadata={"help": "Count problems in the random order of this seed. Unset: in that of the data."}
    )
    shard: str = dataclasses.field(
        default="0/1", metadata={"help": "INDEX/NUMBER: draw this part of the problems only, counted from 0."}
    )
    output: str | None = dataclasses.field(default=None, metadata={"help": "Folder of the samples."})
    export: str | None = dataclasses.field(
        default=None, metadata={"help": "Also write all samples to this .parquet or .jsonl file when done."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        pick("prompt style", self.prompt_style, PROMPT_STYLES)
        self.sampling()  # refuses what makes no sense
        self._check_asked()
        if self.skip_problems < 0:
            raise UsageError(f"skip_problems must be 0 or above, got {self.skip_problems}.")
        if self.skip_problems and self.max_problems is None:
            raise UsageError("skip_problems needs max_problems: how many problems are asked behind those skipped?")

    @property
    def source(self) -> str | None:
        """Where the problems come from, and which of them are asked, to be written down beside samples."""
        which = [f"{self.max_problems} problems behind {self.skip_problems}"] if self.skip_problems else []
        which += [] if self.shuffle_seed is None else [f"in the order of seed {self.shuffle_seed}"]
        return f"{self.data} ({' '.join(which)})" if which else self.data

    def interpreter_settings(self) -> Interpreter | None:
        """Return what programs in samples may do; None if none is run."""
        if not self.interpreter:
            return None
        return Interpreter(self.max_calls, self.max_errors, Limits(seconds=float(self.program_seconds)))

    def sampling(self) -> Sampling:
        """Return how samples are drawn; the stop strings are the prompt style's unless they are given."""
        stop = PROMPT_STYLES[self.prompt_style].stop if self.stop is None else self.stop
        names = {field.name for field in dataclasses.fields(Sampling)} - {"stop", "choices"}
        return Sampling(stop=tuple(stop), **{name: getattr(self, name) for name in names})

    def _check_asked(self) -> None:
        if self.interpreter_settings() is not None:
            check_stop(self.sampling().stop)
            return
        for name in ("max_calls", "max_errors", "program_seconds"):
            if getattr(self, name) != getattr(GenerateArguments, name):
                raise UsageError(f"{name} is for programs inside of samples: add interpreter true, or leave it out.")


def check_asked(arguments: GenerateArguments, engine: EngineArguments) -> None:
    """Raise if the engine cannot go on behind a program's output, or the model has no side apart for the prompt."""
    is_here = engine.engine in ("transformers", "vllm")
    if PROMPT_STYLES[arguments.prompt_style].is_seq2seq and is_here and not engine.is_encoder_decoder:
        raise UsageError(decoder_style(arguments.prompt_style, str(engine.model)))
    if arguments.interpreter and engine.engine == "server" and engine.endpoint == "chat":
        raise UsageError("interpreter needs token ids, which endpoint chat does not take: use endpoint completions.")
    if arguments.interpreter and engine.engine == "transformers" and engine.is_encoder_decoder:
        raise UsageError(
            f"interpreter lets a model go on behind what it wrote, and {engine.model} is an encoder-decoder, which "
            "begins anew: leave interpreter out."
        )


def load_problems(arguments: GenerateArguments) -> datasets.Dataset:
    """Return the problems to ask."""
    if not arguments.data:
        raise UsageError("Which problems? Set data (a hub name, a JSONL or Parquet file, or reasoning_gym:...).")
    check_is_split(arguments.data, arguments.split, "split")
    problems = read_for_style(arguments.data, arguments.split, arguments.data_config, arguments.prompt_style)
    number = len(problems) if arguments.max_problems is None else min(arguments.max_problems, len(problems))
    if arguments.shuffle_seed is None and not arguments.skip_problems:
        return problems.select(range(number))
    if "problem_id" not in problems.column_names:
        raise UsageError(
            f"shuffle_seed and skip_problems need problems; prompt_style {arguments.prompt_style} has none."
        )
    order = problem_order(problems["problem_id"], arguments.shuffle_seed)
    return problems.select([order[(arguments.skip_problems + place) % len(order)] for place in range(number)])


def problem_order(ids: Sequence[str], seed: int | None) -> list[int]:
    """Return the places of problems in a seed's order: by hash, so that it depends on nothing but seed and ids."""
    places = range(len(ids))
    if seed is None:
        return list(places)
    return sorted(places, key=lambda place: hashlib.sha256(f"{seed}\n{ids[place]}".encode()).digest())


def find_style(
    arguments: GenerateArguments, problems: datasets.Dataset, shots: datasets.Dataset | None = None
) -> PromptStyle:
    """Return the prompt style, with its shots: of `shots`, else of what the settings name; never of `problems`."""
    style = PROMPT_STYLES[arguments.prompt_style]
    if arguments.num_shots == 0:
        return style
    rows = _solved_problems(arguments) if shots is None else shots
    return style.with_shots(choose_shots(rows, arguments.num_shots, arguments.seed, style, problems))


def _solved_problems(arguments: GenerateArguments) -> datasets.Dataset:
    """Return the problems that shots are chosen from."""
    if arguments.shots_data is not None:
        return read_for_style(arguments.shots_data, arguments.shots_split, None, arguments.prompt_style)
    assert arguments.data is not None
    return read_for_style(arguments.data, "train", arguments.data_config, arguments.prompt_style)


def make_prompts(problems: datasets.Dataset, style: PromptStyle, tokenizer: Any) -> list[Prompt]:
    """Return each problem's prompt and its tokens; without a tokenizer (chat servers need none) no tokens."""
    missing = [column for column in style.prompt_columns if column not in problems.column_names]
    if missing:
        raise DataError(f"This prompt style needs the columns {', '.join(missing)}, which the data do not have.")
    for column in style.prompt_columns:
        gap = next((index for index, value in enumerate(problems[column]) if not value), None)
        if gap is not None:
            raise DataError(f"A prompt cannot be made of every row: row {gap} has no {column}. {FROM_0}")
    asked = [style.prompt(row) for row in problems]
    ids = all_prompt_token_ids(tokenizer, asked) if tokenizer is not None else [[] for _ in asked]
    has_ids = "problem_id" in problems.column_names
    names = problems["problem_id"] if has_ids else [f"row/{index}" for index in range(len(problems))]
    return [Prompt(*prompt) for prompt in zip(names, asked, ids, strict=True)]


def sampler_settings(
    arguments: GenerateArguments, engine: EngineArguments, style: PromptStyle, checkpoint: Checkpoint
) -> dict[str, Any]:
    """Return what samples must have in common to lie in one folder. How many there are of each is not part of it."""
    sampling = arguments.sampling().settings()
    del sampling["num_samples"]
    chat_template = getattr(checkpoint.tokenizer, "chat_template", None)
    interpreter = arguments.interpreter_settings()
    return {
        "model": checkpoint.identity,
        "dtype": engine.dtype,
        "max_model_len": engine.max_model_len,
        "tokenizer": tokenizer_hash(checkpoint.tokenizer),
        "end_ids": list(checkpoint.end_ids),
        "prompt_style": arguments.prompt_style,
        "num_shots": arguments.num_shots,
        "template_hash": template_hash(style),
        # By which samples are read; samples of other styles have no such setting, as before there were any.
        **({"answer_prefix": style.answer_prefix} if style.answer_prefix else {}),
        "chat_template": short_hash(str(chat_template)) if style.is_chat and chat_template is not None else None,
        **sampling,
        # Samples without one have no such settings, as before there were any with one.
        **({} if interpreter is None else interpreter.settings()),
    }


def tokenizer_hash(tokenizer: Any) -> str | None:
    """Return a short hash of how a tokenizer reads and writes; None for a server's own."""
    if tokenizer is None:
        return None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    says = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    return short_hash(f"{says}{tokenizer.special_tokens_map}")

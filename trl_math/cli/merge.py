"""`trl-math merge`: a LoRA adapter and its base become one checkpoint."""

import dataclasses

from trl_math.cli.request import say, settings_help, split_words
from trl_math.errors import UsageError
from trl_math.recipes import canonical, parse_flags, split_values


HELP = """\
usage: trl-math merge ADAPTER --output FOLDER [--dtype float32]

Write the model that a LoRA adapter makes of its base as an ordinary checkpoint, to train on or to publish. To sample
or evaluate it, ADAPTER will do as a model.

settings (with their defaults):
{settings}
"""


@dataclasses.dataclass
class MergeArguments:
    """Where the merged model goes, and in which precision."""

    output: str | None = dataclasses.field(default=None, metadata={"help": "Folder of the merged model."})
    dtype: str = dataclasses.field(
        default="auto",
        metadata={"help": "auto (the base's own), bfloat16, float16 or float32 (loses no small update)."},
    )


def run(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    if {"-h", "--help"} & set(argv):
        print(HELP.format(settings=settings_help(MergeArguments)).rstrip())
        return 0
    words, flags = split_words(argv)
    if len(words) != 1:
        raise UsageError("Which adapter? trl-math merge ADAPTER --output FOLDER, ADAPTER being the folder of one.")
    values = canonical(parse_flags(flags), {"output_dir": "output"})
    arguments = MergeArguments(**split_values(values, {"merge": MergeArguments})["merge"])
    if not arguments.output:
        raise UsageError("Where does the merged model go? Set output.")
    from trl_math.generation.merge import merge_adapter

    is_new = merge_adapter(words[0], arguments.output, arguments.dtype)
    say(f"{arguments.output} holds the merged model{'.' if is_new else ' already: nothing to do.'}")
    return 0

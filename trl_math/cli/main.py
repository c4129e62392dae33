"""`trl-math COMMAND ...`: finds the command's file and runs it. Nothing heavy is imported to print the help."""

import importlib
import logging
import os
import sys
import warnings

from trl_math.errors import TrlMathError, nearest
from trl_math.share import PART_VARIABLE


# Command -> (module, one line of help).
COMMANDS = {
    "sft": (
        "trl_math.cli.sft",
        "fine-tune on solutions or answers, with cross-entropy or a confidence-limited objective",
    ),
    "dpo": ("trl_math.cli.dpo", "train on preference pairs, weighted and scaled by difficulty"),
    "generate": ("trl_math.cli.generate", "sample problems with vLLM, transformers or servers, into a folder"),
    "split": ("trl_math.cli.split", "divide problems into those that train and those that test, also by templates"),
    "grade": ("trl_math.cli.grade", "tell right samples from wrong ones"),
    "difficulty": (
        "trl_math.cli.difficulty",
        "tell how often each problem is solved, with as few samples as that takes",
    ),
    "collect": (
        "trl_math.cli.collect",
        "draw new samples until each problem has its number of right answers, to train on",
    ),
    "rationales": (
        "trl_math.cli.rationales",
        "a teacher's reasoning that reaches the right answer, as rows to train a student on",
    ),
    "rephrase": (
        "trl_math.cli.rephrase",
        "a test set in other words, another language or with other numbers, checked",
    ),
    "pairs": ("trl_math.cli.pairs", "turn graded samples into preference pairs, with statistics"),
    "tokenize": ("trl_math.cli.tokenize", "rows to token files that lie on the disk while they are trained on"),
    "merge": ("trl_math.cli.merge", "make a LoRA adapter and its base one checkpoint"),
    "evaluate": ("trl_math.cli.evaluate", "ask benchmarks: accuracy, pass@k and maj@k with intervals"),
    "compare": ("trl_math.cli.compare", "two evaluations, problem by problem: is the difference real?"),
    "convert": ("trl_math.cli.convert", "published data sets, completions and OpenAI's formats, in and out"),
    "decontaminate": (
        "trl_math.cli.decontaminate",
        "find test items in what is trained on, show them side by side, and take them out",
    ),
    "detectors": ("trl_math.cli.detectors", "measure detectors of contamination on labelled pairs"),
    "run": ("trl_math.cli.run", "an experiment of stages, in rounds: generate, grade, pairs, dpo, evaluate, ..."),
    "report": ("trl_math.cli.report", "one HTML page of any runs: curves, tables, samples"),
    "recipes": ("trl_math.cli.recipes", "list the recipes, or show one"),
    "doctor": ("trl_math.cli.doctor", "check this machine and say how to mend what is wrong"),
    "demo": ("trl_math.cli.demo", "show the coverage effect on a CPU in minutes"),
}

USAGE = """\
usage: trl-math COMMAND [--config FILE.yaml] [--any-setting value ...] [--dry-run]

Fine-tuning for mathematical reasoning on top of TRL.

commands:
{commands}

Settings on the command line override those of the file; `trl-math COMMAND --help` lists them.
--dry-run resolves and checks everything without loading a model; --smoke runs a recipe for real on a tiny scale;
--debug shows the traceback of an error.
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit status: 0 done, 1 a check failed, 2 the user's mistake, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(_usage())
        return 0
    if words[0] in ("-V", "--version", "version"):
        from trl_math import __version__

        print(f"trl-math {__version__}")
        return 0
    command, *rest = words
    if "--debug" in rest:
        os.environ["TRL_MATH_DEBUG"] = "1"  # processes that this one launches inherit it
    is_debug = "TRL_MATH_DEBUG" in os.environ
    rest = [word for word in rest if word != "--debug"]
    try:
        if command not in COMMANDS:
            return _fail(f"Unknown command {command!r}.{nearest(command, COMMANDS)} Known: {', '.join(COMMANDS)}.")
        return importlib.import_module(COMMANDS[command][0]).run(rest)
    except TrlMathError as error:
        if is_debug:
            raise
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted. The same command goes on where it stopped.", status=130)
    except BrokenPipeError:  # `trl-math recipes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def entry() -> int:
    """Run as a program of its own, which may take shortcuts that a library may not."""
    os.environ["TRL_MATH_OWN_PROCESS"] = str(os.getpid())
    # TRL sets this deprecated field by default, so the warning says nothing to our users.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*deprecated", category=FutureWarning)
    # What packages remark about themselves when they are imported on a machine without a GPU.
    for name in ("bitsandbytes", "torch._library.triton"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return main()


def _usage() -> str:
    width = max(map(len, COMMANDS))
    return USAGE.format(commands="\n".join(f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items()))


def _fail(message: str, status: int = 2) -> int:
    # Of several processes that fail alike, one speaks; an interrupt reaches all, and the one that started them speaks.
    is_silent = status == 130 and PART_VARIABLE in os.environ
    is_another = os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get("RANK", "0") != "0"
    if not is_another and not is_silent:
        print(f"trl-math: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(entry())

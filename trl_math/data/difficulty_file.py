"""A difficulty file with what lies beside it; see `made_file`.

difficulty.jsonl                   a row for each problem
difficulty.json                    what it was made of and how, and what it came to
difficulty.svg, difficulty.png     the histogram of each source
samples/                           the samples, if they were drawn for it
"""

from trl_math.data.made_file import MadeFile, named_file


def difficulty_file(output: str) -> MadeFile:
    """Return the file that an output names: a folder's, or the file itself."""
    path = named_file(output, "difficulty.jsonl")
    return MadeFile(path, path.with_suffix(".json"), "difficulty")

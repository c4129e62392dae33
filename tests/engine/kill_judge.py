"""A judge of many pairs whose engine is slow, to be killed: `kill_judge.py FOLDER DELAY` prints outcomes."""

import json
import sys

from trl_math.contamination.judge import Judge
from trl_math.generation.engines import EngineArguments
from trl_math.generation.scripted import ScriptedBackend


PAIRS = [(f"What is {number} + {number}?", f"Add {number // 2 * 2} to itself.") for number in range(150)]


def same_number(request):
    """Yes if both texts have the same number."""
    first, second = (part.partition(">>>")[0] for part in request.prompt[0]["content"].split("<<<")[1:])
    numbers = [{word.strip("?.") for word in text.split() if word.strip("?.").isdigit()} for text in (first, second)]
    return " Yes" if numbers[0] == numbers[1] else " No"


def judge(folder, delay=0.0):
    return Judge(
        EngineArguments(model="embedded:tiny", backend="scripted"),
        folder,
        say=lambda text: None,
        around=lambda backend: ScriptedBackend(backend.tokenizer, same_number, delay=delay),
    )


if __name__ == "__main__":
    verdicts = judge(sys.argv[1], float(sys.argv[2])).verdicts(PAIRS)
    print(json.dumps([verdict.outcome for verdict in verdicts]))

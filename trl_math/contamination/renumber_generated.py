"""Further problems of a generator, for those that were made by one: as fresh as renumbered ones, without reading any.

task:coin_flip?seed=1                    the same task from other seeds
reasoning_gym:products?max_digits=2      the same generator from other seeds, in the same split
embedded:word_problems                   the problems of its other splits
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trl_math.data.embedded_problems import PREFIX as EMBEDDED
from trl_math.data.generators import PREFIX as REASONING_GYM
from trl_math.data.generators import read_options
from trl_math.data.load import read_for_style
from trl_math.data.sources import TASK
from trl_math.data.tasks import TASKS
from trl_math.errors import DataError


# Seeds are tried until there are problems enough; a generator whose space is small runs out before.
MAX_SEEDS = 20
# Far from the seeds that the generator itself goes on to.
SEED_STEP = 1_000_003


def is_generated(source: str) -> bool:
    """Whether a source makes its problems."""
    if source.startswith(TASK):
        name, _, query = source.removeprefix(TASK).partition("?")
        return name in TASKS and TASKS[name].is_made and "file=" not in query
    return source.startswith((REASONING_GYM, EMBEDDED))


def fresh_problems(source: str, split: str, originals: Sequence[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Return problems of the same generator that are not among these, as many if there are so many."""
    seen = {row["problem"] for row in originals}
    found: list[dict[str, Any]] = []
    for name, other_split in _others(source, split, len(originals), seed):
        try:
            rows = read_for_style(name, other_split, None, "plain")
        except DataError:
            continue  # the space of questions is too small for so many
        for row in rows:
            if row["problem"] not in seen:
                seen.add(row["problem"])
                found.append(dict(row))
                if len(found) == len(originals):
                    return found
    return found


def _others(source: str, split: str, number: int, seed: int) -> Iterator[tuple[str, str]]:
    """Yield where to look, source and split."""
    if source.startswith(EMBEDDED):
        yield from ((source, other) for other in ("train", "test", "validation") if other != split)
        return
    base, _, query = source.partition("?")
    options = read_options(source, query)
    is_task = source.startswith(TASK)
    own, step = int(options.get("seed", "0")), 1 if is_task else SEED_STEP
    for place in range(1, MAX_SEEDS + 1):
        size = {} if is_task and "size" not in options else {"size": str(max(int(options.get("size", "0")), number))}
        seeded = options | size | {"seed": str(own + step * (seed * MAX_SEEDS + place))}
        yield f"{base}?{'&'.join(f'{key}={value}' for key, value in seeded.items())}", "all" if is_task else split

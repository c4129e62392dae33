"""What `trl-math rephrase` rephrases: problems of a benchmark or any source, or programs with their tests."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from trl_math.cli.request import say
from trl_math.errors import DataError
from trl_math.wording import counted


if TYPE_CHECKING:
    from trl_math.cli.rephrase_settings import Asked


CODE_COLUMNS = ("prompt", "canonical_solution", "test", "entry_point")


def load_originals(asked: "Asked") -> Any:
    """Return what is to be rephrased: problems with answers, or programs with tests."""
    originals = asked.originals
    rows = _read_programs(originals) if asked.wanted.is_code else _read_problems(originals)
    return rows if originals.max_problems is None else rows.select(range(min(originals.max_problems, len(rows))))


def _read_problems(originals: Any) -> Any:
    from trl_math.data.benchmark_table import BENCHMARKS
    from trl_math.data.load import in_style, load_split
    from trl_math.evaluation.benchmarks import find_benchmark, load

    name = str(originals.data)
    if name.partition("=")[0] in BENCHMARKS:
        return load(*find_benchmark(name))
    found = load_split(name, originals.split, originals.data_config)
    problems = _with_equations(in_style(found, name, "plain"), found)
    kept = problems.filter(lambda row: row["answer"] is not None and row["problem"])
    if len(kept) < len(problems):
        say(f"{counted(len(problems) - len(kept), 'row has', 'rows have')} no problem or no answer, and are left out.")
    if not len(kept):
        raise DataError(f"No row of {name} has a problem and an answer.")
    return kept


def _with_equations(problems: Any, found: Any) -> Any:
    """Return problems with the equations that their rows have: SVAMP's are `Equation`."""
    names = {name.lower(): name for name in found.column_names}
    if "equation" not in names or "equation" in problems.column_names:
        return problems
    return problems.add_column("equation", [str(value) for value in found[names["equation"]]])


def _read_programs(originals: Any) -> Any:
    from trl_math.data.columns import listing
    from trl_math.data.load import load_split

    found = load_split(str(originals.data), originals.split, originals.data_config)
    if missing := [name for name in CODE_COLUMNS if name not in found.column_names]:
        raise DataError(
            f"Programs to rephrase have the columns {listing(CODE_COLUMNS)}, as HumanEval's; {originals.data} has no "
            f"{' and no '.join(missing)}. Found: {listing(found.column_names)}. For problems, choose other ways."
        )
    own = next((name for name in ("problem_id", "task_id") if name in found.column_names), None)
    ids = [str(one) for one in found[own]] if own else [f"row/{place}" for place in range(len(found))]
    if twice := next((one for one, number in Counter(ids).items() if number > 1), None):
        raise DataError(f"The id {twice!r} occurs twice in {originals.data}: ids must be unique.")
    rows = [
        {"problem_id": one, "source": str(originals.data), **{name: row[name] for name in CODE_COLUMNS}}
        for one, row in zip(ids, found, strict=True)
    ]
    import datasets

    return datasets.Dataset.from_list(rows)

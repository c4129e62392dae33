"""Samples of one model in a folder, drawn when they are asked for: what is there is not drawn again."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from trl_math.generation.arguments import sampler_hash
from trl_math.generation.backend import Backend, Usage, request_seed
from trl_math.generation.cost import NOTHING, MeteredBackend, Price
from trl_math.generation.engines import versions
from trl_math.generation.progress import Progress
from trl_math.generation.run import Missing, Prompt, fill
from trl_math.generation.sample_files import unique_rows
from trl_math.generation.session import Engine, Plan, describe_troubles
from trl_math.generation.store import CompletionStore


Row = Mapping[str, Any]
Say = Callable[[str], None]


class Purse:
    """What all samples of a command took so far, whichever model drew them, and what they may cost."""

    def __init__(self, price: Price | None = None, max_cost: float | None = None, say: Say = print) -> None:
        self.price = price
        self.max_cost = max_cost
        self.spent = NOTHING
        self._say = say

    def add(self, row: Row, prompt: Prompt) -> None:
        """Count a sample that was drawn before."""
        told = row.get("num_prompt_tokens")
        asked, drawn = self.spent
        self.spent = Usage(asked + (len(prompt.ids) if told is None else told), drawn + row["num_tokens"])

    def around(self, backend: Backend) -> Backend:
        """Return the backend with what counts its samples, and ends before they cost too much, if they cost."""
        return backend if self.price is None else _PursedBackend(backend, self, self._say)


class _PursedBackend(MeteredBackend):
    """A meter that several engines share."""

    def __init__(self, backend: Backend, purse: Purse, say: Say) -> None:
        self._purse = purse
        assert purse.price is not None
        super().__init__(backend, purse.price, purse.max_cost, purse.spent, say)

    @property
    def spent(self) -> Usage:
        return self._purse.spent

    @spent.setter
    def spent(self, usage: Usage) -> None:
        self._purse.spent = usage


class Samples:
    """The samples of a folder; use it as a context. `plan`: how they are drawn; its prompts do not matter."""

    def __init__(self, folder: Path, plan: Plan, engine: Engine, purse: Purse, say: Say) -> None:
        self._plan = plan
        self._engine = engine
        self._purse = purse
        self._say = say
        self._store = _Heard(folder, plan.settings, sampler=sampler_hash(plan.settings))
        self._backend: Backend | None = None
        self._counted: set[tuple[str, int]] = set()

    def __enter__(self) -> Self:
        self._store.__enter__()
        for _, _, row in unique_rows(self._store.folder):
            self._store.hear(row)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._backend is not None:
            troubles = self._backend.troubles()
            self._store.record_troubles(troubles)
            if said := describe_troubles(troubles):
                self._say(said)
        self._store.__exit__(kind, error, traceback)

    def ask(self, prompts: Sequence[Prompt], first: int, number: int, what: str) -> list[list[Row]]:
        """Return so many samples of each prompt, from that number on; draw those that are missing."""
        indices = range(first, first + number)
        missing = []
        for prompt in prompts:
            self._store.check_prompt(prompt.problem_id, prompt.prompt)
            for index in indices:
                if (key := (prompt.problem_id, index)) not in self._store:
                    missing.append(Missing(prompt, index))
                elif key not in self._counted:
                    self._purse.add(self._store.rows[key], prompt)
                self._counted.add(key)
        if missing:
            self._say(f"{what}: {len(missing):,} to draw.")
            self._draw(missing)
        if self._purse.price is None:  # nothing else counts them
            for prompt, index in missing:
                self._purse.add(self._store.rows[prompt.problem_id, index], prompt)
        return [[self._store.rows[prompt.problem_id, index] for index in indices] for prompt in prompts]

    def _draw(self, missing: Sequence[Missing]) -> None:
        backend = self._backend or self._start()
        progress = Progress(len(missing))
        try:
            fill(self._store, backend, missing, self._plan.sampling, progress)
        finally:
            progress.close()

    def _start(self) -> Backend:
        plan, store = self._plan, self._store
        # Another state for each session: the same one would draw after an interruption what it drew before it.
        seed = request_seed(plan.sampling.seed, f"engine {store.shard}", store.session)
        self._backend = backend = self._engine.start(seed, self._say)
        store.record_session(
            {"model": self._engine.arguments.label, "data": plan.data, **backend.facts(), "versions": versions()}
        )
        return backend


class _Heard(CompletionStore):
    """A store that keeps what matters of its samples at hand."""

    def __init__(self, folder: Path, settings: Row, *, sampler: str) -> None:
        super().__init__(folder, settings, sampler=sampler)
        self.rows: dict[tuple[str, int], Row] = {}

    def append(self, row: Row) -> None:
        super().append(row)
        self.hear(row)

    def hear(self, row: Row) -> None:
        kept = ("completion", "finish_reason", "num_tokens", "num_prompt_tokens")
        self.rows[row["problem_id"], row["sample_index"]] = {name: row[name] for name in kept if name in row}

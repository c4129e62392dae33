"""How the model is asked to rephrase and to solve: plans, and the engines and folders of samples behind them."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl_math.cli.request import say


if TYPE_CHECKING:
    from trl_math.cli.rephrase import Task
    from trl_math.cli.rephrase_settings import Asked
    from trl_math.contamination.rephrase_judges import Judge
    from trl_math.contamination.rephrase_samples import Purse
    from trl_math.contamination.rephrase_ways import Variant
    from trl_math.data.made_file import MadeFile
    from trl_math.generation.run import Prompt
    from trl_math.generation.session import Engine, Plan


def draft_plan(asked: "Asked", rows: Sequence[Mapping[str, Any]], variant: "Variant") -> "Plan":
    """Return how a model is asked to rephrase these."""
    import datasets

    from trl_math.contamination.rephrase_ways import prompt_row, prompt_style
    from trl_math.generation import session

    style = prompt_style(variant, asked.wanted.prompt_form)
    asked_rows = datasets.Dataset.from_list([prompt_row(row, variant) for row in rows])
    arguments = asked.draft_arguments()
    arguments.stop = list(style.stop)
    plan = session.prepare(asked_rows, arguments, asked.engine, style=style)
    return plan._replace(settings=plan.settings | {"prompt_style": f"rephrase {variant.name}"})


def solver_plan(asked: "Asked", rows: Sequence[Mapping[str, Any]]) -> "Plan":
    """Return how a solver is asked."""
    import datasets

    from trl_math.generation import session

    return session.prepare(datasets.Dataset.from_list(list(rows)), asked.solver_arguments(), asked.solver_engine())


class Desk:
    """Engines and folders of samples, opened when they are first needed and closed together."""

    def __init__(self, asked: "Asked", file: "MadeFile", task: "Task", purse: "Purse", stack: ExitStack) -> None:
        self._asked = asked
        self._folder = file.samples
        self._task = task
        self._purse = purse
        self._stack = stack
        self._engines: dict[str, Engine] = {}
        self._judge: Judge | None = None

    def prompts(self, rows: Sequence[Mapping[str, Any]], variant: "Variant") -> "list[Prompt]":
        """Return the prompts for drafts of these originals."""
        from trl_math.contamination.rephrase_ways import item_id

        by_id = {prompt.problem_id: prompt for prompt in self._task.drafts[variant].prompts}
        return [by_id[item_id(row, variant)] for row in rows]

    def drafts(self, variant: "Variant") -> Any:
        """Return the folder of the drafts."""
        return self._open(self._folder / "drafts" / variant.name, self._task.drafts[variant], solves=False)

    def judge(self, variant: "Variant") -> "Judge":
        """Return who tells right drafts from wrong ones."""
        if self._judge is None:
            self._judge = self._make_judge()
        return self._judge

    def _make_judge(self) -> "Judge":
        from trl_math.contamination.rephrase_judges import SolverJudge, TestsJudge, Unchecked
        from trl_math.grading import Grader
        from trl_math.grading.sandbox import Limits, Sandbox

        asked, checking, plan = self._asked, self._asked.checking, self._task.solver
        if asked.wanted.is_code:
            return TestsJudge(
                self._stack.enter_context(Sandbox(limits=Limits(seconds=float(checking.program_seconds))))
            )
        if plan is None:
            return Unchecked()
        return SolverJudge(
            self._open(self._folder / "answers", plan, solves=True),
            partial(_solver_prompts, plan=plan, style=checking.solver_style),
            self._stack.enter_context(Grader(checking.grading_workers)),
            number=checking.num_checks,
            min_agreement=checking.min_agreement,
            answer_prefix=plan.settings.get("answer_prefix", ""),
        )

    def _open(self, folder: Path, plan: "Plan", *, solves: bool) -> Any:
        from trl_math.contamination.rephrase_samples import Samples

        engine = self._engine(plan, solves=solves)
        return self._stack.enter_context(Samples(folder, plan, engine, self._purse, say))

    def _engine(self, plan: "Plan", *, solves: bool) -> "Engine":
        from trl_math.generation.session import Engine

        arguments = self._asked.solver_engine() if solves else self._asked.engine
        if arguments.label not in self._engines:
            engine = Engine(arguments, plan.checkpoint, self._purse.around)
            self._engines[arguments.label] = self._stack.enter_context(engine)
        return self._engines[arguments.label]


def _solver_prompts(rows: Sequence[Mapping[str, Any]], plan: "Plan", style: str) -> "list[Prompt]":
    import datasets

    from trl_math.data.prompts import PROMPT_STYLES
    from trl_math.generation.arguments import make_prompts

    columns = ("problem_id", "problem", "choices")
    asked = [{name: row.get(name) for name in columns} for row in rows]
    return make_prompts(datasets.Dataset.from_list(asked), PROMPT_STYLES[style], plan.checkpoint.tokenizer)

"""Prompt styles: one definition of how a problem becomes a prompt, for training, generation and evaluation alike.

A style is two format strings over the fields of a row. A plain prompt ends where a token ends (a colon, an equals
sign, a line), and the space that follows belongs to the completion: tokenizers join a space to the word behind it, so
a prompt that ended in a space would show the model, when it is asked, a token that it never saw in training.

How a completion ends: in training, TRL appends the EOS token to a plain one, and the chat template closes a turn, so
that a trained model stops by itself. A base model has not seen that and goes on to invent the next question; the
stop strings of a plain style end it there. They are for generation alone and change nothing in training.
"""

import dataclasses
import hashlib
import json
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import datasets

from trl_math.data.answers import LETTERS
from trl_math.data.columns import SFT, listing, sft_format, sft_formats
from trl_math.errors import DataError, pick
from trl_math.grading import last_boxed


Prompt = str | list[dict[str, str]]

# Part of every style's hash: raise it when `_fields` fills a field in another way.
FIELDS_VERSION = 1

# Columns from which a field is made, where it is not the column of the same name.
FIELD_COLUMNS = {"boxed_solution": ("solution", "answer")}


@dataclass(frozen=True)
class PromptStyle:
    """How a row becomes a prompt and, in training, a completion. `is_chat`: both are lists of messages.

    Fields: any text column (`problem` with its choices below it), and `boxed_solution`, the solution with its answer
    in a box at the end if it has no box itself. `stop`: where a sample of a model that was not trained on this style
    ends. `shots`: (prompt, completion) texts of solved problems that every prompt begins with.
    """

    prompt_format: str
    completion_format: str
    is_chat: bool = False
    stop: tuple[str, ...] = ()
    shots: tuple[tuple[str, str], ...] = ()

    def prompt(self, row: Mapping[str, Any]) -> Prompt:
        """Return the prompt of a row: a text, or the messages of a conversation."""
        text = self.prompt_format.format_map(_fields(row))
        if not self.is_chat:
            return "\n\n".join([*(asked + solved for asked, solved in self.shots), text])
        turns = [turn for asked, solved in self.shots for turn in (_turn("user", asked), _turn("assistant", solved))]
        return [*turns, _turn("user", text)]

    def completion(self, row: Mapping[str, Any]) -> Prompt:
        """Return what is to be trained on: the rest of the text, or the assistant's message."""
        text = self.completion_format.format_map(_fields(row))
        return [_turn("assistant", text)] if self.is_chat else text

    def with_shots(self, rows: Iterable[Mapping[str, Any]]) -> "PromptStyle":
        """Return this style with these solved problems before every prompt (`shots.choose_shots` chooses some).

        Plain prompts have them above, a blank line after each; chat prompts have them as earlier turns.
        """
        fields = [_fields(row) for row in rows]
        shots = [
            (self.prompt_format.format_map(row), self.completion_format.format_map(row).rstrip()) for row in fields
        ]
        return dataclasses.replace(self, shots=tuple(shots))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a row must have for `prompt` and `completion`."""
        return _columns(self.prompt_format + self.completion_format)

    @property
    def prompt_columns(self) -> tuple[str, ...]:
        """The columns that a row must have for `prompt` alone."""
        return _columns(self.prompt_format)


# A base model's next question. Both, so that the text before it has no blank line at its end.
NEXT_QUESTION = ("\n\nQuestion:", "\nQuestion:")
NEXT_INSTRUCTION = ("\n\n### Instruction:", "\n### Instruction:")

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{}\n\n### Response:"
)

PROMPT_STYLES = {
    # The coverage paper's direct answers: the answer between dollar signs and nothing else.
    "direct": PromptStyle(
        "Give only the final answer, between dollar signs and without any steps.\n\nQuestion: {problem}\nAnswer:",
        " ${answer}$",
        stop=("\n",),
    ),
    "cot": PromptStyle("Question: {problem}\nAnswer:", " {solution}", stop=NEXT_QUESTION),
    # Program of thought: what follows the prompt is code from its first character on.
    "program": PromptStyle(
        "Question: {problem}\n\n# Write a Python program that prints the answer.\n",
        "{program}",
        stop=(*NEXT_QUESTION, "\n```"),
    ),
    # Reasoning with programs in it, which an interpreter runs while the model writes.
    "tool": PromptStyle(
        "Solve the problem step by step. A ```python block is run, and its output follows it. The final answer is in "
        "\\boxed{{}}.\n\nQuestion: {problem}\nAnswer:",
        " {boxed_solution}",
        stop=NEXT_QUESTION,
    ),
    "chat_direct": PromptStyle(
        "{problem}\n\nGive only the final answer, within \\boxed{{}} and without any steps.",
        "\\boxed{{{answer}}}",
        is_chat=True,
    ),
    "chat_cot": PromptStyle(
        "{problem}\n\nReason step by step, and put the final answer within \\boxed{{}} at the end.",
        "{boxed_solution}",
        is_chat=True,
    ),
    "chat_program": PromptStyle(
        "{problem}\n\nWrite a Python program, in one ```python block, that prints the final answer.",
        "```python\n{program}\n```",
        is_chat=True,
    ),
    "chat_tool": PromptStyle(
        "{problem}\n\nReason step by step. Where computing helps, write a ```python block that prints what you want "
        "to know: it is run, and you see its output before you go on. Put the final answer within \\boxed{{}} at the "
        "end.",
        "{boxed_solution}",
        is_chat=True,
    ),
    # The problem says it all and ends on a token boundary itself: `12*34=` -> `408`.
    "plain": PromptStyle("{problem}", "{answer}", stop=("\n",)),
    # Of instruction data such as MathInstruct, whose instructions ask for a program where one is wanted. The prompt is
    # the published one to the letter. The response has a space before it, and has none there: many tokenizers would
    # join the colon to what follows.
    "alpaca": PromptStyle(ALPACA.format("{problem}"), " {solution}", stop=NEXT_INSTRUCTION),
    # For problems that do not ask for a program themselves.
    "alpaca_program": PromptStyle(
        ALPACA.format("{problem}\n\nWrite a Python program that prints the answer."),
        " {program}",
        stop=(*NEXT_INSTRUCTION, "\n```"),
    ),
    # One step of a formal proof: goal state -> tactic.
    "tactic": PromptStyle("{state}:::", "{tactic}"),
}


def template_hash(style: str | PromptStyle) -> str:
    """Return a short hash of what a style says, the same on every machine and in every version that says the same.

    It is of the two formats, `is_chat`, and the shots if there are any. Stop strings are no part of it: they say
    nothing to the model, and are written down with the sampling settings.
    """
    definition = _style(style) if isinstance(style, str) else style
    says = dataclasses.asdict(definition)
    del says["stop"]
    if not definition.shots:
        del says["shots"]
    text = json.dumps([FIELDS_VERSION, says], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def to_sft(dataset: datasets.Dataset, style: str | None) -> datasets.Dataset:
    """Return TRL's `prompt, completion` and `problem_id` for problems or proof steps in the style of that name.

    `pass_rate`, `weight` and `steps` stay where they exist. Without a style the rows must be in a format of TRL's
    already, and pass unchanged.
    """
    if style is None:
        return _already_sft(dataset)
    definition = _style(style)
    _check_columns(dataset, style, definition.columns)
    carried = [column for column in SFT.optional if column in dataset.column_names]

    def to_row(row: dict[str, Any], index: int) -> dict[str, Any]:
        return {
            "prompt": definition.prompt(row),
            "completion": definition.completion(row),
            "problem_id": row.get("problem_id") or f"row/{index}",
        }

    return dataset.map(
        to_row,
        with_indices=True,
        remove_columns=[column for column in dataset.column_names if column not in carried],
        desc=f"Prompts in style {style}",
    ).select_columns([*SFT.required, *carried])


def without_gaps(dataset: datasets.Dataset, style: str) -> tuple[datasets.Dataset, int]:
    """Return `dataset` without the rows that lack what the style needs, and how many went.

    Two training problems of MATH have an empty box for an answer, for one.
    """
    columns = [column for column in _style(style).columns if column in dataset.column_names]
    gaps = set().union(*(_gaps(dataset, column) for column in columns))
    return dataset.select([index for index in range(len(dataset)) if index not in gaps]), len(gaps)


def _turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _columns(formats: str) -> tuple[str, ...]:
    names = [name for _, name, _, _ in string.Formatter().parse(formats) if name]
    return tuple(dict.fromkeys(column for name in names for column in FIELD_COLUMNS.get(name, (name,))))


def _style(name: str) -> PromptStyle:
    return PROMPT_STYLES[pick("prompt style", name, PROMPT_STYLES)]


def _already_sft(dataset: datasets.Dataset) -> datasets.Dataset:
    if sft_format(dataset.column_names) is None:
        raise DataError(
            f"These rows are in none of TRL's formats. Found: {listing(dataset.column_names)}. Expected one of: "
            f"{sft_formats()}. For problems, choose a prompt style: {listing(PROMPT_STYLES)}."
        )
    return dataset


def _check_columns(dataset: datasets.Dataset, style: str, columns: tuple[str, ...]) -> None:
    """Raise a `DataError` unless every row has what the style needs."""
    if missing := [column for column in columns if column not in dataset.column_names]:
        hint = " These rows are in a format of TRL's: leave the style out." if sft_format(dataset.column_names) else ""
        raise DataError(
            f"Prompt style {style!r} needs the columns {listing(columns)}; there is no {' and no '.join(missing)}. "
            f"Found: {listing(dataset.column_names)}.{hint}"
        )
    for column in columns:
        if gaps := _gaps(dataset, column):
            raise DataError(
                f"Prompt style {style!r} needs {column!r}, which is empty in {len(gaps)} of {len(dataset)} rows (the "
                f"first is row {min(gaps)}): remove them, as `without_gaps` does. "
                f"Found: {listing(dataset.column_names)}."
            )


def _gaps(dataset: datasets.Dataset, column: str) -> set[int]:
    return {index for index, value in enumerate(dataset[column]) if value is None or value == ""}


def _fields(row: Mapping[str, Any]) -> dict[str, Any]:
    fields = dict(row)
    if choices := row.get("choices"):
        lines = [f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
        fields["problem"] = "\n".join([row["problem"], *lines])
    if solution := row.get("solution"):
        fields["boxed_solution"] = _boxed(solution, row.get("answer"))
    if program := row.get("program"):
        # A line break at its beginning would join the one before it, to another token than the prompt ends in.
        fields["program"] = program.strip()
    return fields


def _boxed(solution: str, answer: str | None) -> str:
    if last_boxed(solution) is not None:
        return solution
    # GSM8K's last line, `#### 72`, says the same in another way.
    reasoning = solution.rpartition("####")[0] or solution
    return f"{reasoning.rstrip()}\n\nThe final answer is $\\boxed{{{answer}}}$."

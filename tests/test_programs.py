"""Programs in completions: which one it is, what it answers, and that no text takes long to look through."""

import pytest

from trl_math.errors import UsageError
from trl_math.grading.programs import code_blocks, extract_program, open_program, program_answer, program_answers
from trl_math.grading.sandbox import Limits, sandbox_layers


def no_sandbox():
    """Return why programs cannot be run here; nothing if they can."""
    try:
        sandbox_layers()
    except UsageError as error:
        return str(error)
    return ""


needs_sandbox = pytest.mark.skipif(bool(no_sandbox()), reason=no_sandbox())


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("Let me.\n```python\nprint(1)\n```\nDone.", "print(1)"),
        ("```python\nprint(1)\n```\nor\n```python\nprint(2)\n```", "print(2)"),
        ("```python\nprint(1)\n```\nor\n```python\nprint(2", "print(1)"),
        ("First:\n```python\nprint(2)\n", "print(2)"),
        ("```Python3 title=a\nprint(1)\n```", "print(1)"),
        ("```py\nprint(1)```\nend", "print(1)"),
        ("1. Code:\n   ```python\n   if x:\n       y\n   ```", "if x:\n    y"),
        ("```python\nprint(1)\n```\n```output\n1\n```\nSo 1.", "print(1)"),
        ("```python\nprint(1)\n```output\n1\n```\n", "print(1)"),
        ("Run:\n```\nprint(1)\n```\nDone", "print(1)"),
        ("```bash\nls\n```\n```python\nprint(1)\n```", "print(1)"),
        # The prompt opened the block.
        ("print(1)\n```\nSo it is 1.", "print(1)"),
        ("print(1)\n```\n```output\n1\n```\n", "print(1)"),
        # The prompt asks for code alone.
        ("x = 1\nprint(x)\n", "x = 1\nprint(x)"),
        ("    x = 1\n    print(x)", "x = 1\nprint(x)"),
        ("s = '```'", "s = '```'"),
        ("", None),
        (" \n\n", None),
        ("```python\n", None),
        ("```python\n\n```", None),
    ],
)
def test_extraction(completion, program):
    assert extract_program(completion) == program


def test_open_program():
    assert open_program("Try\n```python\nx = 1\n") == "x = 1\n"
    assert open_program("```python\nx\n```\n```python\ny\n") == "y\n"
    assert open_program("```python\nx\n```\n") is None
    assert open_program("```\nx\n") is None
    assert open_program("no code") is None


@pytest.mark.parametrize(
    "text",
    [
        "```" + "a" * 10**6 + "`",
        "`" * 10**6,
        " " * 10**6 + "x",
        "```python\n" * 10**5,
        "```\n" * 10**5,
        ("```" + " " * 1000 + "x\n") * 1000,
    ],
    ids=["word", "ticks", "spaces", "opened", "bare", "open spaces"],
)
def test_any_text_is_looked_through_in_linear_time(text):
    """Quadratic would be hours, which the suite's timeout ends."""
    assert all(len(block.code) <= len(text) for block in code_blocks(text))
    assert len(extract_program(text) or "") <= len(text)


@needs_sandbox
@pytest.mark.parametrize(
    ("completion", "answer", "status"),
    [
        ("```python\nprint('work')\nprint(' 42 ')\n\n```", "42", "ok"),
        ("ans = 6 * 7", "42", "ok"),
        ("def solution():\n    return 6 * 7\n", "42", "ok"),
        ("6 * 7", "42", "ok"),
        ("x = 42", None, "ok"),
        ("print(42)\n1 / 0", None, "error"),
        ("I think it is 42.", None, "error"),
        ("", None, "error"),
        ("print(42)\nwhile True:\n    pass", None, "timeout"),
        ("import os\nprint(os.listdir('/root'))", None, "refused"),
    ],
)
def test_answers(completion, answer, status):
    seconds = 0.5 if status == "timeout" else 30
    found, outcome = program_answer(completion, limits=Limits(seconds=seconds))
    assert (found, outcome.status) == (answer, status)


@needs_sandbox
def test_a_batch_with_and_without_programs():
    answers = program_answers(["print(1)", "", "```python\nprint(2)\n```", "  "], workers=2)
    assert [answer for answer, _ in answers] == ["1", None, "2", None]
    assert answers[1].outcome.reason == "there is no program in the completion"

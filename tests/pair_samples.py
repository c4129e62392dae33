"""Graded samples for tests of pairs, with a tokenizer whose tokens are bytes: it cuts characters, as real ones do."""

from typing import Any

from trl_math.data.pairs import ProblemSamples


END = 256


def encode(text: str) -> list[int]:
    return list(text.encode())


def decode(ids: Any) -> str:
    return bytes(token for token in ids if token != END).decode(errors="replace")


def sample(text: str, correct: bool | None, index: int = 0, **changes: Any) -> dict[str, Any]:
    """A graded sample as `trl-math grade` writes it, of tokens that end with the end token if it is finished."""
    reason = changes.get("finish_reason", "stop")
    ids = [*encode(text), *([END] if reason == "stop" else [])]
    row = {
        "problem_id": "p",
        "sample_index": index,
        "prompt": "Q:",
        "completion": text,
        "completion_ids": ids,
        "num_tokens": len(ids),
        "logprob": None,
        "finish_reason": reason,
        "sampler": "s",
        "correct": correct,
        "extracted": text.split()[-1] if text.split() else None,
        "reason": "exact" if correct else "different",
    }
    return {**row, **changes}


def problem(rows: list[dict[str, Any]], name: str = "p", prompt: Any = "Q:", *, with_ids: bool = True) -> Any:
    """A problem of these samples; their ids and prompts become its own."""
    said = prompt if isinstance(prompt, str) else "".join(turn["content"] for turn in prompt)
    rows = [{**row, "problem_id": name, "prompt": prompt} for row in rows]
    return ProblemSamples(name, prompt, encode(said) if with_ids else None, "42", rows)


def mixed(name: str = "p", right: int = 3, wrong: int = 5, **options: Any) -> Any:
    """A problem with so many right and wrong samples, all different."""
    rows = [sample(f"it is {'so ' * index}42", True, index) for index in range(right)]
    rows += [sample(f"no, {'well, ' * index}{index}", False, right + index) for index in range(wrong)]
    return problem(rows, name, f"Q {name}:", **options)

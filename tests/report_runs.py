"""Run folders as `trl-math evaluate` and training write them, with the shapes that real models give.

Cross-entropy is sure of its answers, right or wrong: the best at one sample, and soon flat. Coverage losses spread:
worse at one sample, better at many. Problems and solutions are real mathematics with real LaTeX, worked out here.
"""

import json
import math
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trl_math.evaluation import calibration, majority_confidence, summarise, tally
from trl_math.evaluation.results import numbers, with_fallback
from trl_math.grading import Grader, cluster


class Shape(NamedTuple):
    """How a model answers: `sharpness` is how sure it is, `skill` how often its favourite answer is right."""

    skill: float
    sharpness: float
    num_attempts: int = 1


SHAPES = {
    "cross-entropy": Shape(0.35, 5.0),
    "coverage-n4": Shape(0.2, 2.2, 4),
    "coverage-n64": Shape(-0.35, 1.05, 64),
}
VERSIONS = {"trl_math": "0.1.0", "vllm": "0.30.1", "math_verify": "0.9.0"}


def _quadratic(rng: Any) -> tuple[str, str, list[str], str]:
    a, b = sorted(int(x) for x in rng.integers(-9, 10, 2))
    s, p = a + b, a * b
    linear = f"{-s:+d}x" if s else ""
    problem = f"What is the sum of the squares of the roots of $x^2 {linear} {p:+d} = 0$?"
    steps = (
        f"By Vieta's formulas the roots $r_1, r_2$ satisfy $r_1 + r_2 = {s}$ and $r_1 r_2 = {p}$.\n\n"
        f"**Squares.** Therefore\n\\[r_1^2 + r_2^2 = (r_1 + r_2)^2 - 2 r_1 r_2 = ({s})^2 - 2 \\cdot ({p}).\\]"
    )
    return problem, str(a * a + b * b), [str(s * s), str(s * s + 2 * p), str(abs(p))], steps


def _fraction(rng: Any) -> tuple[str, str, list[str], str]:
    n, m = int(rng.integers(3, 9)), int(rng.integers(2, 7))
    value = Fraction(math.comb(n, 2), math.comb(n + m, 2))
    answer = f"\\frac{{{value.numerator}}}{{{value.denominator}}}" if value.denominator > 1 else str(value)
    problem = (
        f"A bag has ${n}$ red and ${m}$ blue balls. Two are drawn without replacement. What is the probability that "
        "both are red? Express your answer as a common fraction."
    )
    steps = (
        f"There are $\\binom{{{n + m}}}{{2}} = {math.comb(n + m, 2)}$ ways to draw two balls and "
        f"$\\binom{{{n}}}{{2}} = {math.comb(n, 2)}$ to draw two red ones, so \n$$P = \\frac{{\\binom{{{n}}}{{2}}}}"
        f"{{\\binom{{{n + m}}}{{2}}}}.$$"
    )
    wrong = Fraction(n, n + m) ** 2
    return problem, answer, [f"\\frac{{{wrong.numerator}}}{{{wrong.denominator}}}", f"\\frac{{{n}}}{{{n + m}}}"], steps


def _modular(rng: Any) -> tuple[str, str, list[str], str]:
    base, power, mod = int(rng.integers(2, 10)), int(rng.integers(20, 90)), int(rng.integers(5, 14))
    problem = f"Find the remainder when ${base}^{{{power}}}$ is divided by ${mod}$."
    cycle = [pow(base, i, mod) for i in range(1, 6)]
    residues = ", ".join(f"{base}^{{{i}}} \\equiv {r}" for i, r in enumerate(cycle, 1))
    steps = f"The powers repeat: \\({residues} \\pmod{{{mod}}}\\). We reduce the exponent and read off the residue."
    answer = pow(base, power, mod)
    return problem, str(answer), [str((answer + d) % mod) for d in (1, 2, 3)], steps


def _matrix(rng: Any) -> tuple[str, str, list[str], str]:
    a, b, c, d = (int(x) for x in rng.integers(-6, 7, 4))
    problem = f"Compute $\\det \\begin{{pmatrix}} {a} & {b} \\\\ {c} & {d} \\end{{pmatrix}}$."
    steps = (
        "\\[\\begin{aligned} \\det &= ad - bc \\\\ "
        f"&= ({a})({d}) - ({b})({c}) \\\\ &= {a * d - b * c} \\end{{aligned}}\\]"
    )
    return problem, str(a * d - b * c), [str(a * d + b * c), str(b * c - a * d), str(a * c - b * d)], steps


def _money(rng: Any) -> tuple[str, str, list[str], str]:
    pens, price, paid = int(rng.integers(2, 9)), int(rng.integers(2, 9)), int(rng.integers(80, 120))
    problem = (
        f"Natalia buys {pens} pens for ${price} each and a book for $7. She pays with ${paid}. How many dollars of "
        "change does she get?"
    )
    left = paid - pens * price - 7
    steps = f"The pens cost {pens} * ${price} = ${pens * price}, and with the book ${pens * price + 7}."
    return problem, str(left), [str(left + 7), str(left - 7), str(paid - price - 7)], steps


FAMILIES = {
    "Algebra": _quadratic,
    "Counting & Probability": _fraction,
    "Number Theory": _modular,
    "Precalculus": _matrix,
}


def make_problems(benchmark: str, num: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return problem rows; those of "math" have levels and subjects."""
    rng = np.random.default_rng([seed, len(benchmark)])
    rows = []
    for index in range(num):
        subject = list(FAMILIES)[index % len(FAMILIES)]
        family = FAMILIES[subject] if benchmark.startswith("math") else _money
        problem, answer, wrong, steps = family(rng)
        row = {"problem_id": f"{benchmark}/{index}", "problem": problem, "answer": answer, "answer_kind": "math"}
        row |= {"source": f"made:{benchmark}", "benchmark": benchmark}
        if benchmark.startswith("math"):
            row |= {"level": str(index // len(FAMILIES) % 5 + 1), "subject": subject}
        rows.append(row | {"_wrong": wrong, "_steps": steps})
    return rows


def sample_rows(problems: list[dict[str, Any]], shape: Shape, num_samples: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return graded samples of every problem."""
    rng = np.random.default_rng([seed, round(100 * shape.sharpness)])
    difficulty = np.random.default_rng([seed, 1]).normal(0, 1.3, len(problems))  # the same for every model
    rows = []
    for place, problem in enumerate(problems):
        options = [problem["answer"], *dict.fromkeys(text for text in problem["_wrong"] if text != problem["answer"])]
        level = 0.35 * (int(problem.get("level", 2)) - 2)
        scores = rng.normal(0, 0.45, len(options))
        scores[0] += shape.skill + 1.1 - difficulty[place] - level
        weights = np.exp(shape.sharpness * scores - (shape.sharpness * scores).max())
        picks = rng.choice(len(options), num_samples, p=weights / weights.sum())
        rows += [_row(problem, options, int(pick), index, rng) for index, pick in enumerate(picks)]
    return rows


def _row(problem: dict[str, Any], options: list[str], pick: int, index: int, rng: Any) -> dict[str, Any]:
    num_tokens = int(np.clip(rng.lognormal(5.2 + 0.25 * (pick > 0), 0.45), 30, 1024))
    is_cut = num_tokens >= 620
    extracted = None if is_cut else options[pick]
    ending = " We continue and" if is_cut else f"\n\nThe answer is $\\boxed{{{options[pick]}}}$."
    correct = pick == 0 and not is_cut
    slip = " (Taking the sign into account.)" if pick else ""
    return {
        "problem_id": problem["problem_id"],
        "sample_index": index,
        "prompt": [{"role": "user", "content": problem["problem"]}],
        "completion": problem["_steps"] + slip + ending,
        "completion_ids": None,
        "num_tokens": num_tokens,
        "logprob": -0.3 * num_tokens,
        "finish_reason": "length" if is_cut else "stop",
        "sampler": "1f2e3d",
        "correct": correct,
        "extracted": extracted,
        "reason": "exact" if correct else "no_answer" if is_cut else "different",
        "place": "none" if is_cut else "box",
        "benchmark": problem["benchmark"],
        "mode": "cot",
    }


def summary_of(rows: list[dict[str, Any]], problems: list[dict[str, Any]], benchmark: str) -> dict[str, Any]:
    """Return one entry of summary.json, made as the evaluator makes it."""
    by_id = {row["problem_id"]: row for row in problems}
    tallies, num_unreadable = tally(rows, by_id, cluster)
    fewest = min(one.num_samples for one in tallies)
    ks = [k for k in (4, 8, 16, 64) if k <= fewest]
    majority = [k for k in (8,) if k <= fewest]
    entry = summarise(tallies, ks, majority, num_unreadable=num_unreadable).as_dict()
    found = None
    if fewest > 1:
        votes, right = [one.votes for one in tallies], [one.correct_classes for one in tallies]
        found = calibration(*majority_confidence(votes, right))._asdict()
        found["bins"] = [one._asdict() | {"accuracy": one.accuracy._asdict()} for one in found["bins"]]
        found |= {name: found[name]._asdict() for name in ("error", "overconfidence")}
    reasons, places = (dict(Counter(row[name] for row in rows)) for name in ("reason", "place"))
    grading = {"reasons": reasons, "places": places, "num_unmarked": places.get("none", 0), "num_timeouts": 0}
    return {"benchmark": benchmark, "mode": "cot", "source": f"made:{benchmark}", **entry, "calibration": found} | {
        "grading": grading,
        "sampler": "1f2e3d",
        "versions": VERSIONS,
    }


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_evaluation(
    folder: Path,
    shape: Shape = SHAPES["cross-entropy"],
    sizes: dict[str, int] | None = None,
    num_samples: int = 16,
    **settings: Any,
) -> Path:
    """Write the folder of an evaluation of `sizes` problems of each benchmark."""
    folder.mkdir(parents=True, exist_ok=True)
    problems, samples, results = [], [], []
    for benchmark, num in (sizes or {"math500": 120, "gsm8k": 60}).items():
        asked = make_problems(benchmark, num)
        rows = sample_rows(asked, shape, num_samples)
        entry = summary_of(rows, asked, benchmark)
        told = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 1024, "seed": 0, "prompt_style": "cot", "num_shots": 0}
        results.append(entry | {"settings": {"model": f"models/{folder.name}", **told, **settings}})
        problems += [{key: value for key, value in row.items() if key[0] != "_"} for row in asked]
        samples += rows
    _write_lines(folder / "problems.jsonl", problems)
    _write_lines(folder / "samples.jsonl", samples)
    summary = {"command": "evaluate", "model": f"models/{folder.name}", "created": "2026-11-20T10:00:00+00:00"}
    summary |= {"confidence": 0.95, "versions": VERSIONS, "results": results}
    (folder / "summary.json").write_text(json.dumps(summary, indent=1))
    return folder


def write_modes(folder: Path, num_problems: int = 12, num_samples: int = 4) -> Path:
    """Write the folder of `--mode fallback`: programs, texts, and the numbers of both together, which have no rows.

    Every third program fails, every seventh takes too long, and the others print what the text says.
    """
    write_evaluation(folder, SHAPES["coverage-n4"], {"gsm8k": num_problems}, num_samples)
    texts = [json.loads(line) for line in (folder / "samples.jsonl").open()]
    programs = []
    for place, row in enumerate(texts):
        outcome = "error" if place % 3 == 1 else "timeout" if place % 7 == 2 else "ok"
        lost = {"correct": False, "extracted": None, "reason": "no_answer", "place": "none"} if outcome != "ok" else {}
        code = f"```python\npaid = {place}\nprint({row['extracted']})\n```"
        programs.append(
            row | {"mode": "program", "outcome": outcome, "completion": code, "finish_reason": "stop"} | lost
        )
    problems = {row["problem_id"]: row for row in map(json.loads, (folder / "problems.jsonl").open())}
    rows = {"program": programs, "cot": texts, "fallback": with_fallback(programs, texts)}
    with Grader(1) as grader:
        results = [
            {"benchmark": "gsm8k", "mode": mode, "settings": {"temperature": 1.0}}
            | json.loads(json.dumps(numbers(found, problems, [1, num_samples], 0.95, grader)))
            for mode, found in rows.items()
        ]
    _write_lines(folder / "samples.jsonl", [*programs, *texts])
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"results": results}))
    return folder


def answer_logps(num_problems: int, shape: Shape, seed: int = 0) -> np.ndarray:
    """Return the log-probability of each problem's answer: sure models are right or wrong, others in between."""
    difficulty = np.random.default_rng([seed, 2]).normal(0, 1.2, num_problems)  # the same for every model
    noise = np.random.default_rng([seed, round(100 * shape.sharpness)]).normal(0, 0.4, num_problems)
    return -np.logaddexp(0, shape.sharpness * (difficulty - shape.skill + noise) + 1)


def write_coverage(
    folder: Path,
    shape: Shape = SHAPES["coverage-n4"],
    num_problems: int = 40,
    *,
    benchmark: str = "math500",
    **how: Any,
) -> Path:
    """Write the folder of `--mode coverage`: no samples, but the log-probability of each answer.

    `logps` are these, `confidence` is that of the intervals, `ks` are those of coverage@k.
    """
    from trl_math.evaluation.teacher_forced import coverage_numbers  # imports torch

    folder.mkdir(parents=True, exist_ok=True)
    problems = make_problems(benchmark, num_problems)
    logps = how.get("logps", answer_logps(num_problems, shape))
    pairs = zip(problems, logps, strict=True)
    rows = [{"problem_id": row["problem_id"], "logp": float(logp), "num_tokens": 5} for row, logp in pairs]
    level, ks = how.get("confidence", 0.95), how.get("ks", (1, 4, 16, 64, 256, 1024))
    told = coverage_numbers(rows, {row["problem_id"]: row for row in problems}, ks, level)
    entry = {
        "benchmark": benchmark,
        "mode": "coverage",
        "source": benchmark,
        "sampler": "c0ffee",
        "engine": "transformers",
    }
    entry |= {"settings": {"model": folder.name, "prompt_style": "direct", "seed": 0}, "versions": VERSIONS} | told
    summary = {"command": "evaluate", "model": f"models/{folder.name}", "created": "2026-11-21T10:00:00+00:00"}
    summary |= {"confidence": level, "versions": VERSIONS, "results": [entry]}
    _write_lines(folder / "coverage.jsonl", [row | {"benchmark": benchmark} for row in rows])
    _write_lines(folder / "problems.jsonl", [{k: v for k, v in row.items() if k[0] != "_"} for row in problems])
    (folder / "summary.json").write_text(json.dumps(summary, indent=1))
    return folder


def write_training(folder: Path, shape: Shape, num_steps: int = 400) -> Path:
    """Write what the report reads of a training run: the trainer's state and the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(round(100 * shape.sharpness))
    history: list[dict[str, Any]] = []
    for step in range(10, num_steps + 1, 10):
        share = step / num_steps
        p = 0.9 * (1 - math.exp(-3 * share)) / shape.num_attempts**0.3
        entry = {"loss": 0.35 + 1.6 * math.exp(-4 * share) + rng.normal(0, 0.03), "epoch": 3 * share, "step": step}
        entry |= {"grad_norm": 1.5 + rng.normal(0, 0.2), "learning_rate": 1e-5 * (1 - share), "num_tokens": 1e4 * step}
        entry |= {"coverage/probability": p, "coverage/weight": (1 - p) ** (shape.num_attempts - 1)}
        history.append(entry)
        if step % 50 == 0:
            overfit = 0.25 * max(0.0, share - 0.4) / shape.num_attempts**0.5
            evaluation = {"eval_loss": 0.5 + 1.3 * math.exp(-4 * share) + overfit, "eval_runtime": 3.1, "step": step}
            history.append(evaluation | {"eval_pass@1": 0.2 + 0.3 * share, "eval_pass@8": 0.5 + 0.2 * share - overfit})
    state = {"global_step": num_steps, "log_history": history}
    (folder / "trainer_state.json").write_text(json.dumps(state, indent=1))
    objective = "cross_entropy" if shape.num_attempts == 1 else "coverage"
    settings = {"objective": objective, "num_attempts": shape.num_attempts, "learning_rate": 1e-5}
    manifest = {"is_finished": True, "settings": settings | {"output_dir": f"models/{folder.name}"}}
    (folder / "run.json").write_text(json.dumps(manifest))
    return folder


if __name__ == "__main__":
    import sys

    root = Path(sys.argv[1])
    for name, shape in SHAPES.items():
        write_evaluation(root / name, shape, {"math500": 300, "gsm8k": 120}, num_samples=64)
        write_training(root / f"train-{name}", shape)

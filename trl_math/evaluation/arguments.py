"""What `trl-math evaluate` is asked: which benchmarks, answered in which way, and which numbers."""

import dataclasses
from typing import Any

from trl_math.data.prompts import PROMPT_STYLES
from trl_math.errors import UsageError, pick
from trl_math.evaluation.intervals import quantile
from trl_math.generation.arguments import GenerateArguments, SamplingArguments
from trl_math.records import Sampling


AUTO = "auto"
COVERAGE_KS = (1, 4, 16, 64, 256, 1024)
# How problems are answered -> what is asked for it. A fallback's sample counts by its program, where that ran and
# answered, and else by its reasoning. Coverage is computed from the probability of the answer, and nothing is sampled.
MODES = {
    "cot": ("cot",),
    "program": ("program",),
    "fallback": ("program", "cot"),
    "tool": ("tool",),
    "coverage": ("coverage",),
}
RUNS_PROGRAMS = ("program", "fallback", "tool")
# Of a fallback that is asked in a style of its own: the style of its texts -> that of its programs.
PROGRAM_STYLES = {"cot": "program", "chat_cot": "chat_program", "alpaca": "alpaca_program"}
# Setting -> the least and the most that make sense.
BOUNDS = (("grading_workers", 1, 4096), ("grading_deadline", 0.01, 3600), ("program_seconds", 0.01, 3600))


@dataclasses.dataclass
class EvaluateArguments(SamplingArguments):
    """Which benchmarks are asked, in which way, and which numbers are told."""

    benchmarks: list[str] | None = dataclasses.field(
        default=None,
        metadata={"help": "Names (gsm8k), names with a local file (gsm8k=test.jsonl), or problems of your own."},
    )
    mode: str = dataclasses.field(
        default="cot",
        metadata={
            "help": "cot: the answer stands in the text; program: a Python program prints it; fallback: the program's "
            "answer, and where it has none that of the text; tool: reasoning with programs whose output is put behind "
            "them; coverage: the probability of the direct answer itself, "
            "without sampling."
        },
    )
    prompt_style: str = dataclasses.field(
        default=AUTO,
        metadata={
            "help": "auto (by mode, and chat if the model has a chat template), or a style's name. With fallback that "
            "of the texts: cot, chat_cot or alpaca; programs are asked for in the one that goes with it."
        },
    )
    temperature: float | None = dataclasses.field(
        default=None, metadata={"help": "0 is greedy. Unset: 0 for one sample a problem, 1 for several."}
    )
    ks: list[int] | None = dataclasses.field(
        default=None,
        metadata={"help": "k of pass@k and maj@k. Unset: powers of two up to num_samples; of coverage@k, to 1024."},
    )
    confidence: float = dataclasses.field(default=0.95, metadata={"help": "Of the intervals."})
    grading_workers: int | None = dataclasses.field(
        default=None, metadata={"help": "Processes that compare answers or run programs. Unset: one for each core."}
    )
    grading_deadline: float = dataclasses.field(
        default=5.0, metadata={"help": "Seconds after which a comparison is killed and counts as wrong."}
    )
    program_seconds: float = dataclasses.field(default=10.0, metadata={"help": "Seconds that a program may run."})
    output: str | None = dataclasses.field(default=None, metadata={"help": "Folder of the run."})

    def __post_init__(self) -> None:
        super().__post_init__()
        pick("mode", self.mode, MODES)
        pick("prompt style", self.prompt_style, (AUTO, *PROMPT_STYLES))
        if self.mode == "fallback" and self.prompt_style not in (AUTO, *PROGRAM_STYLES):
            raise UsageError(
                "mode fallback asks twice, for a text and for a program. prompt_style is that of the texts, one of "
                f"{', '.join(PROGRAM_STYLES)}, got {self.prompt_style}: take one of these, or leave prompt_style out."
            )
        if self.num_samples < 1:
            raise UsageError(f"num_samples must be at least 1, got {self.num_samples}.")
        if self.benchmarks is not None and len(set(self.benchmarks)) < len(self.benchmarks):
            raise UsageError(f"A benchmark is given twice: {', '.join(self.benchmarks)}.")
        if self.mode == "coverage":
            self._check_coverage()
        for k in self.ks or ():
            if k < 1 or (k > self.num_samples and self.mode != "coverage"):
                raise UsageError(
                    f"k of pass@k and maj@k must be from 1 to num_samples ({self.num_samples}), got {k}: draw more "
                    "samples or ask for less."
                )
        quantile(self.confidence)  # refuses what is none
        for name, least, most in BOUNDS:
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise UsageError(f"{name} must be from {least} to {most}, got {value}.")
        if self.mode not in RUNS_PROGRAMS and self.program_seconds != EvaluateArguments.program_seconds:
            raise UsageError(f"program_seconds is for modes that run programs; mode {self.mode} does not.")
        self.generate_arguments("tool" if self.mode == "tool" else "plain")  # refuses what makes no sense

    def _check_coverage(self) -> None:
        """Raise for settings of samples, which are not drawn."""
        unused = [
            field.name for field in dataclasses.fields(Sampling) if field.name not in ("seed", "logprobs", "choices")
        ]
        unused += ["grading_workers", "grading_deadline"]
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        given = [name for name in unused if getattr(self, name) != defaults[name]]
        if given:
            raise UsageError(f"mode coverage draws no samples: leave {' and '.join(given)} out.")

    @property
    def all_ks(self) -> list[int]:
        """The k of pass@k and maj@k, or of coverage@k."""
        if self.ks is not None:
            return sorted(set(self.ks))
        return list(COVERAGE_KS) if self.mode == "coverage" else powers_of_two(self.num_samples)

    def style_in(self, mode: str) -> str:
        """Return the prompt style that is asked for in one of the ways of `mode`."""
        is_partner = self.mode == "fallback" and mode == "program" and self.prompt_style != AUTO
        return PROGRAM_STYLES[self.prompt_style] if is_partner else self.prompt_style

    def generate_arguments(self, style: str, **more: Any) -> GenerateArguments:
        """Return how samples in this prompt style are drawn."""
        shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(SamplingArguments)}
        temperature = self.temperature
        if temperature is None:
            temperature = 0.0 if self.num_samples == 1 else 1.0
        if self.mode == "tool":
            more = {"interpreter": True, "program_seconds": self.program_seconds, **more}
        return GenerateArguments(**{**shared, "temperature": temperature, "prompt_style": style, **more})


def powers_of_two(largest: int) -> list[int]:
    """Return 1, 2, 4, ... and `largest` itself."""
    ks = [1]
    while ks[-1] * 2 <= largest:
        ks.append(ks[-1] * 2)
    return ks if ks[-1] == largest else [*ks, largest]

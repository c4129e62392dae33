"""What samples from a model in training: the model itself, or engines of vLLM that take over its weights.

The model itself, where every process has all of it: nothing to install, and samples that depend on the weights and
nothing else. Where ZeRO-3 or FSDP hold it in pieces, processes whose samples end at different lengths would wait for
each other for ever, so there the engines are the only way; on GPUs they are also the quick one.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from trl_math.errors import TrlMathError, UsageError, pick
from trl_math.generation.backend import Request, request_seed, too_long
from trl_math.generation.live import LiveEngines
from trl_math.generation.parity import act_on
from trl_math.generation.run import Prompt
from trl_math.generation.together import everyone_or_nobody
from trl_math.generation.transformers_backend import TransformersBackend
from trl_math.optional import check_installed, is_installed
from trl_math.records import Completion, Sampling
from trl_math.trainers.generation_eval_config import ENGINES


# Room for the parity probe, whose prompts are not the problems'.
SHORTEST_CONTEXT = 64


class EvalEngine(Protocol):
    """What an evaluation asks for samples. Every method is for all processes to call together."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """Return the samples of this process's prompts, drawn from the weights as they are now."""

    def facts(self) -> dict[str, Any]:
        """Return what should be written beside the samples."""

    def rest(self) -> None:
        """Let go of what can be had again: there may be no evaluation any more."""


class OwnModel:
    """The trainer's model itself; each process draws its own samples."""

    def __init__(self, trainer: Any, tokenizer: Any, batch_size: int) -> None:
        self._trainer = trainer
        self._backend = TransformersBackend(trainer.model, tokenizer, batch_size=batch_size)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """Return the samples. A sample's random state is its problem's, whichever process draws it, and when."""
        self._backend.model = self._trainer.model  # another one in every training, where there is a `model_init`
        samples = [[too_long()] * sampling.num_samples for _ in prompts]
        places = [
            (row, sample)
            for row, prompt in enumerate(prompts)
            if self._backend.fits(prompt.ids)
            for sample in range(sampling.num_samples)
        ]
        requests = [
            Request(prompts[row].ids, request_seed(sampling.seed, prompts[row].problem_id, sample))
            for row, sample in places
        ]
        with everyone_or_nobody("sampling"):
            for number, completion in self._backend.stream(requests, sampling):
                row, sample = places[number]
                samples[row][sample] = completion
        return samples

    def facts(self) -> dict[str, Any]:
        return self._backend.facts()

    def rest(self) -> None:
        """Nothing: the model is the trainer's."""


class FollowingEngines:
    """Engines of vLLM beside the trainer, which take over its weights before they sample.

    Whether they then say what the model says is probed every time. The first time a difference is an error, since
    little is lost yet; later it is a warning. (Not as soon as the engine is there: where the first forward pass is not
    the trainer's own, ZeRO-3 loses track of the weights that the fused LM head reads, and fails in `backward`.)
    """

    def __init__(self, trainer: Any, tokenizer: Any, context_length: int, options: dict[str, Any]) -> None:
        model = trainer.model.get_base_model() if hasattr(trainer.model, "get_base_model") else trainer.model
        if not model.name_or_path:
            raise UsageError(
                "Engine vllm reads the model's files before it takes over its weights, and this model was made in "
                "memory: save it and train from there, or evaluate with engine transformers."
            )
        revision = (getattr(trainer.args, "model_init_kwargs", None) or {}).get("revision")
        self._trainer, self._tokenizer, self._name = trainer, tokenizer, model.name_or_path
        self._options = {"max_model_len": max(context_length, SHORTEST_CONTEXT), "revision": revision, **options}
        self._shares_connection = dist.is_initialized()
        self._is_proven = False
        self._engines: LiveEngines | None = None
        self._start()

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        engines = self._start()
        parity = engines.follow(self._trainer.model)
        if parity is not None and not self._is_proven:
            with everyone_or_nobody("the parity probe"):
                act_on(parity, "fail")
            self._is_proven = True
        return engines.generate([prompt.ids for prompt in prompts], sampling)

    def facts(self) -> dict[str, Any]:
        return self._start().engine.facts()

    def rest(self) -> None:
        """Shut the engine down; beside several processes it sleeps, and serves again if it is asked."""
        if self._engines is not None:
            self._engines.close()
            self._engines = self._engines if self._shares_connection else None

    def _start(self) -> LiveEngines:
        if self._engines is None:
            try:
                self._engines = LiveEngines(self._name, self._tokenizer, parity="warn", **self._options)
            except TrlMathError:
                raise
            except (ValueError, RuntimeError, OSError, AssertionError) as error:
                said = " ".join(str(error).split())
                raise UsageError(f"The vllm engine could not start: {said[:500]}") from error
        return self._engines


def choose_engine(name: str, trainer: Any) -> str:
    """Return the engine's name with `auto` decided, or raise if it cannot sample from this trainer's model."""
    pick("engine", name, ENGINES)
    if trainer.is_fsdp_enabled and not trainer.accelerator.is_fsdp2:
        raise UsageError("FSDP 1 does not let its weights be read while it trains: use fsdp_version 2 (fsdp2).")
    is_in_pieces = trainer.is_fsdp_enabled or is_deepspeed_zero3_enabled()
    if name == "auto":
        is_quicker = torch.cuda.is_available() and is_installed("vllm")
        name = "vllm" if is_in_pieces or is_quicker else "transformers"
    if name == "vllm":
        check_installed("vllm", "evaluating by generation under ZeRO-3 or FSDP" if is_in_pieces else "engine vllm")
    elif is_in_pieces:
        raise UsageError(
            "ZeRO-3 and FSDP hold the model in pieces, so engine transformers cannot sample from it: use engine vllm, "
            "or train with ddp or zero2."
        )
    return name


def make_engine(
    name: str, trainer: Any, tokenizer: Any, *, batch_size: int, context_length: int, options: dict[str, Any]
) -> EvalEngine:
    """Start an engine. `context_length`: what the longest prompt and its samples need; `options`: of `LiveEngines`."""
    if name == "transformers":
        return OwnModel(trainer, tokenizer, batch_size)
    return FollowingEngines(trainer, tokenizer, context_length, options)

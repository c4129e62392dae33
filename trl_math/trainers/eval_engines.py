"""What samples from a model in training: the model itself, or engines of vLLM that take over its weights.

The model itself, where every process has all of it: nothing to install, and samples that depend on the weights and
nothing else. Where ZeRO-3 or FSDP hold it in pieces, processes whose samples end at different lengths would wait for
each other for ever, so there the engines are the only way; on GPUs they are also the quick one.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
import torch.distributed as dist
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from trl_math.errors import TrlMathError, UsageError, pick
from trl_math.generation.backend import Request, request_seed, too_long
from trl_math.generation.live import EngineLayout, LiveEngines
from trl_math.generation.parity import act_on
from trl_math.generation.run import Prompt
from trl_math.generation.together import everyone_or_nobody
from trl_math.generation.transformers_backend import TransformersBackend
from trl_math.optional import check_installed, is_installed
from trl_math.records import Completion, Sampling
from trl_math.trainers.generation_eval_config import ENGINES


# Room for the parity probe, whose prompts are not the problems'.
SHORTEST_CONTEXT = 64

# What evaluation asks for where its settings say nothing.
ENGINE_DEFAULTS = {"gpu_memory_utilization": 0.3, "layout": EngineLayout(tensor_parallel_size=1)}


class EvalEngine(Protocol):
    """What evaluations, live pairs and live screening ask for samples.

    Every method is for all processes to call together.
    """

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """Return the samples of this process's prompts, drawn from the weights as they are now."""

    def follow(self, *, probes: bool = False) -> None:
        """Take over the weights as they are now, for `sample`; `probes`: make sure that it says what they say."""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """Return the samples of this process's prompts, drawn from the weights that `follow` took over last.

        They follow from `sampling.seed` and the prompts, not from what was sampled before.
        """

    def awake(self) -> AbstractContextManager[None]:
        """Return a context in which several calls of `sample` need not each take and give back a GPU's memory."""

    def start(self) -> None:
        """Begin now, so that what keeps an engine from starting shows at once."""

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

    def follow(self, *, probes: bool = False) -> None:
        """Nothing: the weights are the trainer's."""

    sample = generate

    def awake(self) -> AbstractContextManager[None]:
        """Nothing: the model is in memory anyway."""
        return nullcontext()

    def start(self) -> None:
        """Nothing: the model is there."""

    def facts(self) -> dict[str, Any]:
        return self._backend.facts()

    def rest(self) -> None:
        """Nothing: the model is the trainer's."""


class FollowingEngines:
    """Engines of vLLM beside the trainer, which take over its weights before they sample: one set for each trainer.

    Whether they then say what the model says is probed for every evaluation. The first time a difference is an error,
    since little is lost yet; later it is a warning. (Not as soon as the engine is there: where the first forward pass
    is not the trainer's own, ZeRO-3 loses track of the weights that the fused LM head reads, and fails in `backward`.)
    """

    def __init__(self, trainer: Any, tokenizer: Any, context_length: int, options: dict[str, Any]) -> None:
        model = trainer.model.get_base_model() if hasattr(trainer.model, "get_base_model") else trainer.model
        if not model.name_or_path:
            raise UsageError(
                "Engine vllm reads the model's files before it takes over its weights, and this model was made in "
                "memory: save it and train from there, or use engine transformers."
            )
        revision = (getattr(trainer.args, "model_init_kwargs", None) or {}).get("revision")
        self._trainer, self._tokenizer, self._name = trainer, tokenizer, model.name_or_path
        self._context_length = max(context_length, SHORTEST_CONTEXT)
        self._options = {"revision": revision, **options}
        self._shares_connection = dist.is_initialized()
        self._is_proven = False
        self._engines: LiveEngines | None = None

    def serve(self, context_length: int, options: dict[str, Any]) -> None:
        """Take on another user of the engines, who needs so much room and may not want other engines."""
        for name, value in options.items():
            if value not in (self._options.get(name), ENGINE_DEFAULTS.get(name)):
                raise UsageError(
                    f"One engine of vLLM serves evaluation and live pairs or screening, and they differ in {name}: "
                    "set it for these (live_..., screening_...), and leave it out for evaluation."
                )
        if self._engines is None:
            self._context_length = max(context_length, self._context_length)
        elif context_length > self._context_length:
            raise UsageError(
                f"The engine was started with room for {self._context_length} tokens, and {context_length} are needed "
                "now: give live_engine_params (or screening_engine_params): {max_model_len: ...}."
            )

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        self.follow(probes=True)
        return self._start().generate([prompt.ids for prompt in prompts], sampling)

    def follow(self, *, probes: bool = False) -> None:
        """Take over the weights. Live pairs need no probe: training compares what was sampled with what it sees."""
        parity = self._start().follow(self._trainer.model, probes=probes)
        if parity is not None and not self._is_proven:
            with everyone_or_nobody("the parity probe"):
                act_on(parity, "fail")
            self._is_proven = True

    def awake(self) -> AbstractContextManager[None]:
        return self._start().awake()

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        engines = self._start()
        engines.reseed(sampling.seed)
        return engines.generate([prompt.ids for prompt in prompts], sampling)

    def start(self) -> None:
        _register_head(self._trainer.model)
        self._start()

    def facts(self) -> dict[str, Any]:
        return self._start().engine.facts()

    def rest(self) -> None:
        """Shut the engine down; beside several processes it sleeps, and serves again if it is asked."""
        if self._engines is not None:
            self._engines.close()
            self._engines = self._engines if self._shares_connection else None

    def _start(self) -> LiveEngines:
        if self._engines is None:
            options = {"max_model_len": self._context_length, **self._options}
            try:
                self._engines = LiveEngines(self._name, self._tokenizer, parity="warn", **options)
            except TrlMathError:
                raise
            except (ValueError, RuntimeError, OSError, AssertionError) as error:
                said = " ".join(str(error).split())
                raise UsageError(f"The vllm engine could not start: {said[:500]}") from error
        return self._engines


def _register_head(model: Any) -> None:
    """Tell ZeRO-3 that the model reads the weights of its LM head itself, as TRL's fused head does.

    It would find out by itself where it has let go of them, and expects every step to be like the first. But it holds
    small weights until somebody gathers them, as following does: after a resume that can be the second step.
    """
    if not is_deepspeed_zero3_enabled():
        return
    import deepspeed  # noqa: PLC0415 - only under ZeRO-3

    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    deepspeed.zero.register_external_parameter(causal_lm, causal_lm.get_output_embeddings().weight)


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
        check_installed("vllm", "sampling from a model under ZeRO-3 or FSDP" if is_in_pieces else "engine vllm")
    elif is_in_pieces:
        raise UsageError(
            "ZeRO-3 and FSDP hold the model in pieces, so engine transformers cannot sample from it: use engine vllm, "
            "or train with ddp or zero2."
        )
    return name


def make_engine(
    name: str, trainer: Any, tokenizer: Any, *, batch_size: int, context_length: int, options: dict[str, Any]
) -> EvalEngine:
    """Return an engine. `context_length`: what the longest prompt and its samples need; `options`: of `LiveEngines`.

    Of vLLM there is one for each trainer, whoever asks for it: two would take the memory of two.
    """
    if name == "transformers":
        return OwnModel(trainer, tokenizer, batch_size)
    engines: FollowingEngines | None = vars(trainer).get("following_engines")
    if engines is None:
        engines = trainer.following_engines = FollowingEngines(trainer, tokenizer, context_length, options)
    else:
        engines.serve(context_length, options)
    return engines

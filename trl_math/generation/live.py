"""Engines beside a trainer: they take over its weights, sample for all of its processes, and sleep in between.

    engines = LiveEngines(model_folder, tokenizer, layout=EngineLayout(tensor_parallel_size=4))
    engines.follow(trainer.model)                         # every rank
    completions = engines.generate(prompt_ids, sampling)  # every rank gives its own prompts, and gets its own samples

Eight GPUs carry eight engines, four of two GPUs each, or two of four. Each process holds its piece of an engine, so
that taking over weights needs no connection between trainer and engine, whose hanging is what users of other
arrangements complain of most.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch.distributed as dist
from torch import nn

from trl_math.errors import UsageError
from trl_math.generation.parity import Parity, act_on, compare, probe
from trl_math.generation.together import everyone_or_nobody, gather, place
from trl_math.generation.vllm_engine import VLLMBackend
from trl_math.generation.weights import is_cut_up, named_weights
from trl_math.records import Completion, Sampling


@dataclass(frozen=True)
class EngineLayout:
    """How processes carry engines: one setting says it all, `num_engines` or `tensor_parallel_size`.

    Neighbouring ranks carry an engine together. Without settings, every process has an engine of its own.
    """

    tensor_parallel_size: int | None = None
    num_engines: int | None = None

    def engines(self, num_processes: int) -> list[range]:
        """Return the ranks of each engine."""
        size, number = self.tensor_parallel_size, self.num_engines
        if size is None:
            size = num_processes // number if number else 1
        if number is None:
            number = num_processes // size if size > 0 else 0
        if size < 1 or number < 1 or size * number != num_processes:
            raise UsageError(
                f"num_engines x tensor_parallel_size must be the number of processes ({num_processes}), got "
                f"{self.num_engines} x {self.tensor_parallel_size}."
            )
        return [range(first, first + size) for first in range(0, num_processes, size)]


class LiveEngines:
    """The engines of all processes, seen from one of them. Every method is for all ranks to call together.

    `parity`: what to do if the probe after an exchange finds a difference; `off` for no probe. `options` are those of
    `VLLMBackend`; adapters need `max_lora_rank` among them.
    """

    def __init__(
        self,
        model: str,
        tokenizer: Any,
        *,
        layout: EngineLayout | None = None,
        parity: Literal["fail", "warn", "off"] = "fail",
        tolerance: float | None = None,
        probe_prompts: Sequence[str] = ("What is 17 + 25?", "Let x be", "1, 2, 3,"),
        seed: int = 0,
        gpu_memory_utilization: float = 0.3,
        **options: Any,
    ) -> None:
        self._shares_connection = dist.is_initialized()
        self._rank, self._world = place()
        self._engines = (layout or EngineLayout()).engines(self._world)
        self._mine = next(number for number, ranks in enumerate(self._engines) if self._rank in ranks)
        self._parity, self._tolerance = parity, tolerance
        self._probe_ids = [tokenizer(text)["input_ids"] for text in probe_prompts]
        self._folder = TemporaryDirectory(prefix="trl-math-adapter-")
        self._holds_base = True  # engines are loaded with the model that training starts from
        launcher = {"distributed_executor_backend": "external_launcher"} if self._world > 1 else {}
        self.engine = VLLMBackend(
            model,
            tokenizer,
            tensor_parallel_size=len(self._engines[0]),
            gpu_memory_utilization=gpu_memory_utilization,
            seed=seed + self._mine,  # the processes of one engine draw the same
            follows_training=True,
            **launcher,
            **options,
        )
        self.engine.sleep()
        self._is_awake = False

    def follow(
        self, model: nn.Module, exchange: Literal["merged", "adapter"] = "merged", *, probes: bool = True
    ) -> Parity | None:
        """Take over the model's weights, and probe whether the engines now say what the model says.

        `merged` sends whole weights, with LoRA merged into a copy; `adapter` sends the LoRA adapter alone. Where the
        model is wrapped (DeepSpeed's engine, DDP), give the model inside.
        """
        with everyone_or_nobody("taking over weights"):
            if exchange == "adapter":
                self._send_adapter(model)
            else:
                self.engine.remove_adapter()
                self._send_weights(model)
                self._holds_base = False
        return self._probe(model, self._parity) if probes and self._parity != "off" else None

    def generate(self, prompt_ids: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        """Return the samples of this process's prompts. How many each process has may differ."""
        prompts = gather([list(ids) for ids in prompt_ids])
        everyone = list(chain.from_iterable(prompts))
        mine: list[list[Completion]] = []
        with everyone_or_nobody("generating"), self.awake():
            mine = self.engine.generate(everyone[self._mine :: len(self._engines)], sampling)
        samples = self._share(mine, len(everyone))
        first = sum(map(len, prompts[: self._rank]))
        return samples[first : first + len(prompt_ids)]

    def reseed(self, seed: int) -> None:
        """Let what is sampled from now on follow from this seed, and not from what was sampled before."""
        self.engine.reseed(seed + self._mine)

    def close(self) -> None:
        """Shut the engines down.

        Where they share `torch.distributed` with the trainer they are put to sleep until the process ends: vLLM's
        shutdown would end it for both, before the trainer has saved its model.
        """
        if self._shares_connection:
            self.engine.sleep()
            return
        self.engine.close()
        self._folder.cleanup()

    def _send_weights(self, model: nn.Module) -> None:
        weights = named_weights(model)
        try:
            with self.awake():
                self.engine.load_weights(weights)
        finally:
            # Every rank takes part in every gathering, whatever became of its own engine.
            for _ in weights:
                pass

    def _send_adapter(self, model: Any) -> None:
        """Write the adapter where this process's engine reads it; only adapters' weights are gathered and moved."""
        if not hasattr(model, "peft_config"):
            raise UsageError("exchange: adapter needs a model with a LoRA adapter; use merged.")
        if not self._holds_base:
            with model.disable_adapter():
                self._send_weights(model)
            self._holds_base = True
        state = _gathered_adapter(model) if is_cut_up(model) else None
        model.save_pretrained(self._folder.name, state_dict=state)
        self.engine.load_adapter(Path(self._folder.name))

    def _probe(self, model: nn.Module, action: Literal["fail", "warn"]) -> Parity:
        with everyone_or_nobody("probing"), self.awake():
            said = probe(self.engine, self._probe_ids)
        # Under ZeRO-3 all ranks make this forward pass together.
        parity = compare(model, self._probe_ids, said, self._tolerance, str(self.engine.facts()["dtype"]))
        with everyone_or_nobody("the parity probe"):
            act_on(parity, action)
        return parity

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Wake this process's engine for the while; inside of another while it is awake already."""
        is_outermost, self._is_awake = not self._is_awake, True
        if is_outermost:
            self.engine.wake_up()
        try:
            yield
        finally:
            if is_outermost:
                self.engine.sleep()
                self._is_awake = False

    def _share(self, mine: list[list[Completion]], number: int) -> list[list[Completion]]:
        by_rank = gather(mine)
        samples: list[list[Completion]] = [[] for _ in range(number)]
        for engine, ranks in enumerate(self._engines):
            samples[engine :: len(self._engines)] = by_rank[ranks[0]]
        return samples


def _gathered_adapter(model: Any) -> dict[str, Any]:
    """Return the state that PEFT writes of an adapter whose parameters ZeRO-3 holds in pieces."""
    import deepspeed  # noqa: PLC0415 - only under ZeRO-3

    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with deepspeed.zero.GatheredParameters(list(trained.values())):
        return {name: parameter.detach().cpu().clone() for name, parameter in trained.items()}

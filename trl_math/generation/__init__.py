"""Token ids -> completions: one protocol, several engines, and a store that loses no sample. Imported on first use."""

import importlib
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from trl_math.generation.backend import Backend as Backend
    from trl_math.generation.backend import Request as Request
    from trl_math.generation.export import to_dataset as to_dataset
    from trl_math.generation.interpreter import Interpreter as Interpreter
    from trl_math.generation.interpreter import InterpreterBackend as InterpreterBackend
    from trl_math.generation.live import EngineLayout as EngineLayout
    from trl_math.generation.live import LiveEngines as LiveEngines
    from trl_math.generation.scripted import ScriptedBackend as ScriptedBackend
    from trl_math.generation.server import ServerBackend as ServerBackend
    from trl_math.generation.store import CompletionStore as CompletionStore
    from trl_math.generation.store import Shard as Shard
    from trl_math.generation.transformers_backend import TransformersBackend as TransformersBackend
    from trl_math.generation.vllm_engine import VLLMBackend as VLLMBackend
    from trl_math.generation.weights import named_weights as named_weights


# Public name -> module that defines it.
_PUBLIC = {
    "Backend": "backend",
    "CompletionStore": "store",
    "EngineLayout": "live",
    "Interpreter": "interpreter",
    "InterpreterBackend": "interpreter",
    "LiveEngines": "live",
    "Request": "backend",
    "ScriptedBackend": "scripted",
    "ServerBackend": "server",
    "Shard": "store",
    "TransformersBackend": "transformers_backend",
    "VLLMBackend": "vllm_engine",
    "named_weights": "weights",
    "to_dataset": "export",
}

__all__ = [
    "Backend",
    "CompletionStore",
    "EngineLayout",
    "Interpreter",
    "InterpreterBackend",
    "LiveEngines",
    "Request",
    "ScriptedBackend",
    "ServerBackend",
    "Shard",
    "TransformersBackend",
    "VLLMBackend",
    "named_weights",
    "to_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"trl_math.generation.{_PUBLIC[name]}"), name)

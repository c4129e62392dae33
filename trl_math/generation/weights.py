"""The weights of a model that trains, by the names of its checkpoint: plain, with LoRA, or cut up by ZeRO-3 or FSDP2.

    for name, tensor in named_weights(model): ...

Where parameters are cut up, gathering them takes part of every process: all of them must walk to the end, also those
that have no use for the tensors. LoRA is merged into a copy of one weight at a time, in float32: merging in place and
undoing it loses bits at every exchange, until bfloat16 weights have drifted away.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from trl_math.errors import UsageError


# Parameters are gathered together up to this size: few collective calls, little memory.
BUCKET_BYTES = 2**28

# What wrappers of modules add to names: PEFT, activation checkpointing, torch.compile.
WRAPPERS = ("base_layer", "original_module", "_checkpoint_wrapped_module", "_orig_mod")


def named_weights(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name in the checkpoint, whole tensor); a tensor is the consumer's to keep.

    Tied weights come under all their names: an engine that packs the output head for its kernels (vLLM on a CPU) would
    go on with the old one if only the embedding came.
    """
    _check_same_names_as_checkpoint(model)
    tuned = dict(_tuned_layers(model))
    with torch.no_grad():
        for bucket in _buckets(_units(model, tuned)):
            parameters = [parameter for _, needed, _ in bucket for parameter in needed]
            with _whole(parameters):
                tensors = [(name, _weight(needed[0], layer)) for name, needed, layer in bucket]
            yield from tensors
    for name, buffer in _persistent_buffers(model):
        yield name, buffer.detach().clone()


def is_cut_up(model: nn.Module) -> bool:
    """Whether ZeRO-3 holds the parameters of the model in pieces."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def _units(model: nn.Module, tuned: dict[str, Any]) -> Iterator[tuple[str, list[nn.Parameter], Any]]:
    """Yield (checkpoint name, parameters that make it up, its layer if that is tuned)."""
    adapter_parts = {part for layer in tuned.values() for part in layer.adapter_layer_names}
    idle = tuple(_idle_modules(model))
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if adapter_parts & set(name.split(".")) or name.startswith(idle):
            continue
        layer = tuned.get(name.rpartition(".base_layer.weight")[0]) if name.endswith(".base_layer.weight") else None
        extra = _adapter_parameters(layer) if layer is not None else []
        yield checkpoint_name(name), [parameter, *extra], layer if extra else None


def checkpoint_name(name: str) -> str:
    """Return the checkpoint's name of a parameter, without what PEFT and wrappers of modules add."""
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    if parts[0] == "module":  # of DeepSpeed and DDP
        parts = parts[1:]
    if parts[:2] == ["base_model", "model"]:  # of PEFT
        parts = parts[2:]
    kept = []
    skip = False
    for part in parts:
        if skip:  # the adapter's name behind `modules_to_save`
            skip = False
        elif part == "modules_to_save":
            skip = True
        else:
            kept.append(part)
    return ".".join(kept)


def _tuned_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield (name, layer) for every layer with LoRA; raise for adapters that are no change of single weights."""
    if not hasattr(model, "peft_config"):
        return
    from peft.tuners.lora import LoraLayer, ParamWrapper  # noqa: PLC0415 - only where there is an adapter
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415

    for name, config in model.peft_config.items():
        if config.is_prompt_learning:
            raise UsageError(_cannot_merge(name, config.peft_type.value))
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            is_plain = isinstance(module, LoraLayer) and not isinstance(module, ParamWrapper)
            if not is_plain or not hasattr(module, "get_delta_weight") or _has_more_than_weights(module):
                raise UsageError(_cannot_merge(name, type(module).__name__))
            yield name, module


def _has_more_than_weights(layer: Any) -> bool:
    """Whether a LoRA layer is of a kind (DoRA and others) that does more than add to its weight."""
    return bool(getattr(layer, "lora_variant", None)) or any(getattr(layer, "lora_bias", {}).values())


def _cannot_merge(name: str, kind: str) -> str:
    return (
        f"The adapter of {name} ({kind}) cannot be merged into a copy weight by weight: send it to the engine as an "
        "adapter."
    )


def _idle_modules(model: nn.Module) -> Iterator[str]:
    """Yield how the names begin of parameters that PEFT keeps and does not compute with: the original of a module that
    was trained as a whole, or the trained one while adapters are switched off."""
    if not hasattr(model, "peft_config"):
        return
    from peft.utils.other import ModulesToSaveWrapper  # noqa: PLC0415 - only where there is an adapter

    for name, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper):
            used = None if module.disable_adapters else next(iter(module.active_adapters), None)
            yield from (f"{name}.modules_to_save.{copy}." for copy in module.modules_to_save if copy != used)
            if used is not None:
                yield f"{name}.original_module."


def _adapter_parameters(layer: Any) -> list[nn.Parameter]:
    """Return the active adapters' parameters of a layer; none if they are switched off or merged already."""
    if layer.disable_adapters or layer.merged:
        return []
    active = set(layer.active_adapters)
    return [
        parameter
        for name, parameter in layer.named_parameters()
        if set(layer.adapter_layer_names) & set(name.split(".")) and active & set(name.split("."))
    ]


def _weight(parameter: torch.Tensor, layer: Any) -> torch.Tensor:
    """Return a copy of a weight, with the layer's adapters added to it."""
    if layer is None:
        return _full(parameter).detach().clone()
    if not parameter.is_floating_point():
        from peft.utils.integrations import dequantize_module_weight  # noqa: PLC0415 - only for quantised layers

        parameter = dequantize_module_weight(layer.get_base_layer())
    weight = _full(parameter).detach().to(torch.float32, copy=True)
    for adapter in layer.active_adapters:
        if adapter in layer.scaling:
            weight += _full(layer.get_delta_weight(adapter)).detach().to(weight)
    return weight.to(parameter.dtype)


def _full(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter


def _whole(parameters: Sequence[torch.Tensor]) -> AbstractContextManager[Any]:
    """Return a context in which cut up parameters are whole on every process."""
    cut_up = list({id(parameter): parameter for parameter in parameters if hasattr(parameter, "ds_id")}.values())
    if not cut_up:
        return nullcontext()
    import deepspeed  # noqa: PLC0415 - only under ZeRO-3

    return deepspeed.zero.GatheredParameters(cut_up)


def _buckets(units: Iterator[Any]) -> Iterator[list[Any]]:
    bucket: list[Any] = []
    size = 0
    for unit in units:
        bucket.append(unit)
        size += sum(getattr(p, "ds_numel", p.numel()) * p.element_size() for p in unit[1])
        if size >= BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket


def _persistent_buffers(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(prefix=prefix, recurse=False):
            if name.rpartition(".")[2] not in module._non_persistent_buffers_set:
                yield checkpoint_name(name), buffer


def _check_same_names_as_checkpoint(model: nn.Module) -> None:
    """Raise where transformers holds the weights under other names or in other shapes than the checkpoint."""
    from transformers.conversion_mapping import get_model_conversion_mapping  # noqa: PLC0415

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not hasattr(inner, "config"):
        return
    if get_model_conversion_mapping(inner, add_legacy=False):
        raise UsageError(
            f"{type(inner).__name__} is not held in memory as its checkpoint is written (fused experts, for one): "
            "save a checkpoint and let the engine load that."
        )

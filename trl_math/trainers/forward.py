"""What a trainer may take from the one forward pass that TRL makes: its outputs, and its hidden states.

TRL computes per-token log-probabilities inside the model's patched forward and keeps them to itself. A forward hook
hears them without a second pass, so that TRL's metrics, our loss and the gradient come from one graph.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from trl.trainer import add_fused_lm_head


@contextmanager
def recorded_outputs(module: nn.Module | None) -> Iterator[list[Any]]:
    """Collect what `module` returns while the context is open, in call order; nothing for None."""
    outputs: list[Any] = []
    if module is None:
        yield outputs
        return
    handle = module.register_forward_hook(lambda module, args, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


class TemperedHead:
    """The model's LM head read a second time, at another temperature, on hidden states that already exist.

    Quacks like the part of a causal LM that TRL's fused head touches, with a backbone that returns the hidden states
    it is given: the tiling, the kernels and the ZeRO-3 gathering stay TRL's.
    """

    def __init__(self, causal_lm: nn.Module, temperature: float) -> None:
        self.config = causal_lm.config
        self._causal_lm = causal_lm
        add_fused_lm_head(self, temperature=temperature)  # replaces `forward` on this instance

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> Any:
        raise NotImplementedError("called with fused_lm_head=True only")

    def base_model(self, hidden_states: torch.Tensor, **kwargs: Any) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=hidden_states)

    def get_output_embeddings(self) -> nn.Module:
        return self._causal_lm.get_output_embeddings()

    def log_probs(self, hidden_states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities of the targets at this head's temperature, (B, T), zero where not trained."""
        return self.forward(hidden_states, labels=labels, fused_lm_head=True).log_probs

"""Sizes of T5 and its kin (Flan-T5, mT5, UMT5, ByT5), for the memory plan of `plan`: the same sums, on two sides.

Other encoder-decoders have no estimate. The activations are rougher than those of decoders: what attention keeps
beside its inputs depends on the kernel, and is counted as the position bias and its gradient.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trl_math.errors import UsageError


T5_FAMILIES = ("t5", "mt5", "umt5")


@dataclass(frozen=True)
class EncoderDecoderShape:
    """Sizes of a T5, from its `config.json`; a row is counted with `max_length` tokens on each side."""

    encoder_layers: int
    decoder_layers: int
    hidden: int
    inner: int  # width of all heads together
    heads: int
    intermediate: int
    maps: int  # of the MLP: 2, or 3 if it is gated
    vocabulary: int
    buckets: int
    tables: int  # of position biases: one for each side, or one for each layer
    has_own_head: bool = False  # Flan-T5 and mT5, as they are published; T5's head is the embeddings

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "EncoderDecoderShape":
        """Read the sizes."""
        kind = config.get("model_type", "")
        if kind not in T5_FAMILIES:
            raise UsageError(f"Of encoder-decoder models only T5 and its kin can be sized; {kind or 'this'} is not.")
        layers = config["num_layers"]
        decoder_layers = config.get("num_decoder_layers") or layers
        return cls(
            encoder_layers=layers,
            decoder_layers=decoder_layers,
            hidden=config["d_model"],
            inner=config["num_heads"] * config["d_kv"],
            heads=config["num_heads"],
            intermediate=config["d_ff"],
            maps=3 if str(config.get("feed_forward_proj", "relu")).startswith("gated") else 2,
            vocabulary=config["vocab_size"],
            buckets=config.get("relative_attention_num_buckets", 32),
            tables=layers + decoder_layers if kind == "umt5" else 2,
            # As the hub says it, and as transformers does once it has read that.
            has_own_head=False in (config.get("tie_word_embeddings"), config.get("scale_decoder_outputs")),
        )

    @property
    def embedding(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def _attentions(self) -> int:
        """How many attentions there are: the decoder's layers have one more, which looks at the encoder."""
        return self.encoder_layers + 2 * self.decoder_layers

    @property
    def _layers(self) -> int:
        return self.encoder_layers + self.decoder_layers

    @property
    def matrices(self) -> int:
        """Weights in the linear maps of all layers."""
        mlp = self.maps * self.hidden * self.intermediate
        return self._attentions * 4 * self.hidden * self.inner + self._layers * mlp

    @property
    def parameters(self) -> int:
        """All weights."""
        norms = (self._attentions + self._layers + 2) * self.hidden
        vocabularies = 2 if self.has_own_head else 1
        return self.matrices + norms + self.tables * self.buckets * self.heads + vocabularies * self.embedding

    def lora_parameters(self, rank: int) -> int:
        """Weights of LoRA on every linear map of the layers: rank x (inputs + outputs) each."""
        attention = 4 * (self.hidden + self.inner)
        return rank * (self._attentions * attention + self._layers * self.maps * (self.hidden + self.intermediate))

    def activations(self, size: int, rows: int, length: int, checkpointing: bool) -> int:
        """Bytes that autograd keeps of both sides; with checkpointing, the inputs of layers and the rest of one."""
        tokens = rows * length
        norm = self.hidden * (4 + size + 2)
        attention = norm + 2 * 4 * self.inner
        mlp = norm + 2 * (self.maps + 1) * self.intermediate
        encoder, decoder = attention + mlp, 2 * attention + mlp
        biases = 2 * 2 * 2 * rows * self.heads * length**2  # both sides, with gradients, in 16 bits
        casts = 2 * self.matrices if size == 4 else 0
        if checkpointing:
            inputs = self._layers * self.hidden * size * tokens
            return inputs + decoder * tokens + biases + casts // self._layers
        return (self.encoder_layers * encoder + self.decoder_layers * decoder) * tokens + biases + casts

    def lm_head(self, size: int, rows: int, length: int, is_trained: bool) -> int:
        """The logits whole, in 16 bits; their log-softmax, its gradient and one temporary, in 32."""
        logits = rows * length * self.vocabulary * (2 + 4 + 4 + 4)
        return logits + (self.embedding * (4 + size) if is_trained else 0)

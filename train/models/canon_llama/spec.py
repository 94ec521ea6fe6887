"""``model=llama``: Llama, with or without Canon layers, of the paper's sizes or any other."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from msgspec import Meta

from synthshards.errors import UsageError

from ...config.ranges import Count, Share
from ..base import ModelOptions, ModelSpec, check_divides
from .config import CanonLlamaConfig
from .model import CanonLlamaForCausalLM


class LlamaOptions(ModelOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`CanonLlamaConfig` says what the options of Canon layers mean.

    `size` is layers and width: the paper's are 12L768D, 12L512D, 8L768D and 8L512D, any other works. Heads are
    `head_dim` wide. `intermediate_size` null is Llama's rule: 8/3 of the width, rounded up to a multiple of 256; for a
    plain MLP, whose activation is GPT-2's GELU in place of SiLU, it is GPT-2's: 4 times the width.
    """

    sizes = ("model.vocab_size", "model.max_position_embeddings")

    size: Annotated[str, Meta(pattern="^[1-9][0-9]*L[1-9][0-9]*D$")] = "8L512D"
    vocab_size: Count = 10064
    max_position_embeddings: Count = 2048
    head_dim: Count = 64
    intermediate_size: Count | None = None
    tie_word_embeddings: bool = False
    rms_norm_eps: float = 1e-6
    initializer_range: Share = 0.02
    rope: bool = True
    rope_theta: float = 10000.0
    rope_share: Share = 1.0
    qk_norm: bool = False
    mlp: Literal["gated", "plain"] = "gated"
    canon: str = ""
    canon_kernel: Count = 4
    canon_bias: bool = False
    canon_activation: bool = False

    @property
    def layers_and_width(self) -> tuple[int, int]:
        """``"12L768D"`` → (12, 768)."""
        layers, width = re.findall("[0-9]+", self.size)
        return int(layers), int(width)

    def check(self) -> None:
        """Refuse a width that heads do not divide, and heads that cannot be rotated."""
        check_divides("llama", "head_dim", self.head_dim, "width of size", self.layers_and_width[1])
        if self.head_dim % 2:
            raise UsageError(f"llama: head_dim={self.head_dim} is odd; legal: even numbers, halves are rotated")


def fields(o: LlamaOptions) -> dict[str, Any]:
    """The fields of `CanonLlamaConfig` that the options mean."""
    layers, width = o.layers_and_width
    gated = o.mlp == "gated"
    inner = -(-8 * width // (3 * 256)) * 256 if gated else 4 * width
    return {
        "vocab_size": o.vocab_size,
        "hidden_size": width,
        "intermediate_size": o.intermediate_size or inner,
        "num_hidden_layers": layers,
        "num_attention_heads": width // o.head_dim,
        "num_key_value_heads": width // o.head_dim,
        "head_dim": o.head_dim,
        "hidden_act": "silu" if gated else "gelu_pytorch_tanh",
        "max_position_embeddings": o.max_position_embeddings,
        "tie_word_embeddings": o.tie_word_embeddings,
        "rms_norm_eps": o.rms_norm_eps,
        "initializer_range": o.initializer_range,
        "rope_theta": o.rope_theta,
        "bos_token_id": None,
        "eos_token_id": None,
        "rope": o.rope,
        "rope_share": o.rope_share,
        "qk_norm": o.qk_norm,
        "gated_mlp": gated,
        "canon": o.canon,
        "canon_kernel": o.canon_kernel,
        "canon_bias": o.canon_bias,
        "canon_activation": o.canon_activation,
    }


SPEC = ModelSpec(
    Options=LlamaOptions,
    configure=lambda options, seed: CanonLlamaConfig(**fields(options)),  # the seed plays no part
    make=lambda options, config: CanonLlamaForCausalLM(config),
    architectures=("canon_llama", "llama"),
    plain_logits=True,
)

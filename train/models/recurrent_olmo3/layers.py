"""Olmo3's layers with a second input: where it is given, keys and values come from it."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Olmo3Config
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.olmo3.modeling_olmo3 import (
    Olmo3Attention,
    Olmo3DecoderLayer,
    apply_rotary_pos_emb,
    eager_attention_forward,
)


class RecurrentOlmo3Attention(Olmo3Attention):  # type: ignore[misc]
    """Olmo3's attention; with `source` [rows, length, width] it is cross attention by the same weights."""

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Any = None,
        source: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Queries from `hidden_states`, keys and values from `source` (or, without one, from `hidden_states`)."""
        if source is None:
            plain: tuple[Tensor, Tensor | None] = super().forward(
                hidden_states=hidden_states,
                position_embeddings=position_embeddings,
                attention_mask=attention_mask,
                **kwargs,
            )
            return plain
        heads = (*hidden_states.shape[:-1], -1, self.head_dim)
        query = self.q_norm(self.q_proj(hidden_states)).view(heads).transpose(1, 2)
        key = self.k_norm(self.k_proj(source)).view(heads).transpose(1, 2)
        value = self.v_proj(source).view(heads).transpose(1, 2)
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        chosen = self.config._attn_implementation
        attend = eager_attention_forward if chosen == "eager" else ALL_ATTENTION_FUNCTIONS[chosen]
        dropout = self.attention_dropout if self.training else 0.0
        mixed, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=self.scaling,
            sliding_window=self.sliding_window,
            **kwargs,
        )
        return self.o_proj(mixed.reshape(*hidden_states.shape[:-1], -1).contiguous()), weights


class RecurrentOlmo3DecoderLayer(Olmo3DecoderLayer):  # type: ignore[misc]
    """Olmo3's layer. `source` is positional: gradient checkpointing follows gradients of positional inputs only."""

    def __init__(self, config: Olmo3Config, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.self_attn = RecurrentOlmo3Attention(config, layer_idx)

    def forward(self, hidden_states: Tensor, source: Tensor | None = None, **kwargs: Any) -> Tensor:
        """[rows, length, width] → the same shape."""
        out: Tensor = super().forward(hidden_states, source=source, **kwargs)
        return out

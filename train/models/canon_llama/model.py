"""Llama with Canon layers, on Hugging Face's Llama: the subject of the paper that the five tasks come from.

Each point of a layer follows a module that Llama has anyway (a norm or a projection), so those modules get the
convolution, and attention, rotary embedding, masks and cache stay transformers' own. Weights keep Llama's names;
those of the convolutions end in ``.canon.weight``.

Generation with a key-value cache is exact: `CanonCache` also carries the last inputs of every convolution.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM
from transformers.activations import ACT2FN
from transformers.cache_utils import DynamicCache
from transformers.models.llama.modeling_llama import (
    LlamaDecoderLayer,
    LlamaForCausalLM,
    LlamaModel,
    LlamaRMSNorm,
)

from synthshards.errors import UsageError

from ..attention_inputs import layer_masks, segment_positions, segments_of
from .config import CanonLlamaConfig
from .conv import CanonConv, CanonInputs, segment_gates

#: What the installed transformers calls the argument that holds the key-value cache.
_CACHE = "cache" if "cache" in inspect.signature(LlamaModel.forward).parameters else "past_key_values"


class CanonRMSNorm(LlamaRMSNorm):  # type: ignore[misc]
    """A norm, then a Canon layer (points A and C)."""

    def __init__(self, width: int, eps: float, canon: CanonConv) -> None:
        super().__init__(width, eps=eps)
        self.canon = canon

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[rows, length, width] → the same shape."""
        return self.canon(super().forward(hidden_states))  # type: ignore[no-any-return]


class HeadRMSNorm(LlamaRMSNorm):  # type: ignore[misc]
    """A norm of each head by itself (QK-norm); `weight` is [head width], the same for all heads."""

    def forward(self, x: Tensor) -> Tensor:
        """[rows, length, heads · head width] → the same shape."""
        return super().forward(x.reshape(*x.shape[:-1], -1, self.weight.shape[0])).flatten(-2)  # type: ignore[no-any-return]


class CanonLinear(nn.Linear):
    """A projection, then a Canon layer (points B and D), then QK-norm; what is not asked for is `nn.Identity`."""

    def __init__(self, plain: nn.Linear, canon: nn.Module, norm: nn.Module) -> None:
        super().__init__(plain.in_features, plain.out_features, bias=plain.bias is not None)
        self.canon = canon
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """[rows, length, in] → [rows, length, out]."""
        return self.norm(self.canon(super().forward(x)))  # type: ignore[no-any-return]


class PlainMLP(nn.Module):
    """The MLP without a gate: down(act(up(x)))."""

    def __init__(self, config: CanonLlamaConfig) -> None:
        super().__init__()
        width, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)
        self.act = ACT2FN[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """[rows, length, width] → the same shape."""
        return self.down_proj(self.act(self.up_proj(x)))  # type: ignore[no-any-return]


class PartialRotary(nn.Module):
    """Rotary tables of which the slowest pairs stand still: cos 1 and sin 0, so that q·cos + rotated(q)·sin is q there.

    Channel i is rotated with channel i + half, so the first `config.rotated / 2` pairs turn, by the angles that a head
    of that width would have; none of them is NoPE.
    """

    def __init__(self, config: CanonLlamaConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """(cos, sin), each [rows or 1, length, head width] in the dtype of `x`."""
        width = self.config.head_dim or self.config.hidden_size // self.config.num_attention_heads
        turned = self.config.rotated
        ropes = getattr(self.config, "rope_parameters", None)  # transformers 4.57 has the field itself
        theta = ropes["rope_theta"] if ropes else self.config.rope_theta
        powers = torch.arange(0, turned, 2, device=x.device, dtype=torch.float32) / max(1, turned)
        speeds = functional.pad(theta**-powers, (0, (width - turned) // 2))
        angles = (position_ids[..., None].float() * speeds).repeat(1, 1, 2)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


class CanonLlamaDecoderLayer(LlamaDecoderLayer):  # type: ignore[misc]
    """Llama's layer with convolutions at the configured points."""

    def __init__(self, config: CanonLlamaConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)

        def conv(channels: int, point: str) -> CanonConv:
            return CanonConv(
                channels, config.canon_kernel, config.canon_bias, config.canon_activation, f"{layer_idx}.{point}"
            )

        width, eps = config.hidden_size, config.rms_norm_eps
        if "A" in config.canon:
            self.input_layernorm = CanonRMSNorm(width, eps, conv(width, "A"))
        self._mix(config, layer_idx, conv)
        if "C" in config.canon:
            self.post_attention_layernorm = CanonRMSNorm(width, eps, conv(width, "C"))
        if not config.gated_mlp:
            self.mlp = PlainMLP(config)
        if "D" in config.canon:
            for name in ("gate_proj", "up_proj") if config.gated_mlp else ("up_proj",):
                plain = getattr(self.mlp, name)
                setattr(self.mlp, name, CanonLinear(plain, conv(plain.out_features, f"D.{name}"), nn.Identity()))

    def _mix(self, config: CanonLlamaConfig, layer: int, conv: Callable[[int, str], CanonConv]) -> None:
        """Give attention what the switches ask for; `conv` makes a convolution by (channels, point)."""
        del layer
        for name in ("q_proj", "k_proj", "v_proj"):
            plain, convolved = getattr(self.self_attn, name), "B" in config.canon
            normed = config.qk_norm and name != "v_proj"
            if convolved or normed:
                canon = conv(plain.out_features, f"B.{name}") if convolved else nn.Identity()
                norm = HeadRMSNorm(self.self_attn.head_dim, config.rms_norm_eps) if normed else nn.Identity()
                setattr(self.self_attn, name, CanonLinear(plain, canon, norm))

    def forward(self, hidden_states: Tensor, *args: Any, canon: CanonInputs | None = None, **kwargs: Any) -> Any:
        """As `LlamaDecoderLayer.forward`; `canon` reaches the convolutions of this layer."""
        for module in self.modules():
            if isinstance(module, CanonConv):
                module.inputs = canon or CanonInputs()
        return super().forward(hidden_states, *args, **kwargs)


class CanonCache(DynamicCache):  # type: ignore[misc]
    """A key-value cache with the last inputs of every convolution, [rows, kernel−1, channels] by name."""

    def __init__(self, config: CanonLlamaConfig) -> None:
        super().__init__(config=config)
        self.states: dict[str, Tensor] = {}

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.states.clear()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i becomes what row `beam_idx[i]` was."""
        super().reorder_cache(beam_idx)
        self.states.update({name: state.index_select(0, beam_idx) for name, state in self.states.items()})

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row `repeats` times in a row."""
        super().batch_repeat_interleave(repeats)
        self.states.update({name: state.repeat_interleave(repeats, 0) for name, state in self.states.items()})

    def batch_select_indices(self, indices: Tensor) -> None:
        """The rows `indices` alone, in that order."""
        super().batch_select_indices(indices)
        self.states.update({name: state[indices] for name, state in self.states.items()})

    def crop(self, *_: Any, **__: Any) -> None:
        """Impossible: inputs before the last few are gone."""
        raise UsageError("llama with Canon layers: a cache cannot be cut back; generate without assistance")


class _CanonWeights:
    """Convolutions start as PyTorch starts them, what says `keeps_its_weights` as it has, all else as in Llama."""

    def _init_weights(self, module: nn.Module) -> None:
        if getattr(module, "keeps_its_weights", False):
            return
        if isinstance(module, CanonConv):
            module.reset_parameters()
        else:
            super()._init_weights(module)  # type: ignore[misc]


class CanonLlamaModel(_CanonWeights, LlamaModel):  # type: ignore[misc]
    """Embeddings, layers and final norm; see `CanonLlamaForCausalLM`."""

    config_class = CanonLlamaConfig
    layer_class = CanonLlamaDecoderLayer

    def __init__(self, config: CanonLlamaConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(self.layer_class(config, index) for index in range(config.num_hidden_layers))
        if not config.rope or config.rope_share < 1:
            self.rotary_emb = PartialRotary(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        segment_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As `LlamaModel.forward`, with `segment_ids` int64 [rows, length] of a packed batch, 0 for padding.

        Raises:
            UsageError: segments together with a cache; a cache that already holds tokens but no convolution states.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        hidden: Tensor = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        cache = kwargs.pop("past_key_values", None) if "past_key_values" in kwargs else kwargs.pop("cache", None)
        if segment_ids is not None:
            if cache is not None:
                raise UsageError("llama: segment_ids are for whole packed windows, not for going on from a cache")
            use_cache = False
        cache = self._own_cache(cache, bool(use_cache))
        kernel, segments = self.config.canon_kernel, segments_of(segment_ids, attention_mask)
        canon = CanonInputs(states=cache.states if isinstance(cache, CanonCache) else None, segments=segments)
        if self.config.canon and segments is not None:
            canon.gates = segment_gates(segments, hidden.shape[1], kernel, hidden.dtype)
        if segment_ids is not None:
            assert segments is not None
            position_ids = segment_positions(segments) if position_ids is None else position_ids
        return super().forward(
            attention_mask=self._mask(hidden, attention_mask, position_ids, segment_ids),
            position_ids=position_ids,
            inputs_embeds=hidden,
            use_cache=use_cache,
            canon=canon,
            **{**kwargs, _CACHE: cache},
        )

    def _mask(self, hidden: Tensor, mask: Any, position_ids: Tensor | None, segment_ids: Tensor | None) -> Any:
        """What `LlamaModel` is given as its `attention_mask`."""
        if segment_ids is None:
            return mask
        assert position_ids is not None
        return layer_masks(self.config, hidden, mask, position_ids, segment_ids)[0]["full_attention"]

    def _own_cache(self, cache: Any, use_cache: bool) -> Any:
        """The cache of this pass; an empty one of transformers' becomes one with room for the convolutions' inputs."""
        if not self.config.canon or isinstance(cache, CanonCache):
            return cache
        if cache is not None and (cache.get_seq_length() or not isinstance(cache, DynamicCache)):
            raise UsageError(
                f"llama with Canon layers: a {type(cache).__name__} without convolution states; "
                "legal: the cache that the model's own output holds, or an empty DynamicCache"
            )
        return CanonCache(self.config) if use_cache or cache is not None else None


class CanonLlamaForCausalLM(_CanonWeights, LlamaForCausalLM):  # type: ignore[misc]
    """Llama with Canon layers and a language-model head; ``canon=""`` is plain Llama with the same weights.

    `forward` is that of `LlamaForCausalLM` and takes `segment_ids` (int64 [rows, length], 0 for padding) besides:
    neither attention nor convolutions then reach over a segment's border.

    >>> import torch
    >>> config = CanonLlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
    ...                           num_attention_heads=2, canon="ABCD")
    >>> model = CanonLlamaForCausalLM(config)
    >>> model(input_ids=torch.zeros((1, 5), dtype=torch.long)).logits.shape
    torch.Size([1, 5, 64])
    """

    config_class = CanonLlamaConfig
    model_class = CanonLlamaModel

    def __init__(self, config: CanonLlamaConfig) -> None:
        super(LlamaForCausalLM, self).__init__(config)  # not Llama's own, which would build a second model
        self.model = self.model_class(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


AutoModelForCausalLM.register(CanonLlamaConfig, CanonLlamaForCausalLM, exist_ok=True)

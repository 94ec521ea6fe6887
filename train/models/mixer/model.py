"""Llama's block with another mixer in the place of attention: all else, weights' names included, is that of its parent.

What the block offers, a mixer takes by naming it (see `BlockMixer`). Without a cache, generation goes over the whole
text for each token.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from synthshards.errors import UsageError

from ...loop.failures import users_code
from ..canon_llama.conv import CanonConv, CanonInputs
from ..canon_llama.model import CanonLlamaDecoderLayer, CanonLlamaForCausalLM, CanonLlamaModel, HeadRMSNorm
from ..target import load_target, standing_here
from .config import MixerConfig

#: What every mixer is made with, and what it is given where its constructor names it.
_ALWAYS, _OFFERED = ("width", "layer"), ("canon", "qk_norm", "head_dim")
#: What a pass gives a mixer where its `forward` names it.
_OF_A_PASS = ("position_ids", "segment_ids", "position_embeddings")


class BlockMixer(nn.Module):
    """A mixer in the place of `LlamaAttention`.

    It is made as ``Mixer(width=…, layer=…, **mixer_kwargs)`` and called as ``mixer(x)``, x [rows, length, width] → the
    same shape, causal. Its weights stay as it has made them. Where its constructor names them, it is also given

    - ``canon``: ``canon(channels)`` makes the Canon layer behind one of its projections (point B), [rows, length,
      channels] → the same shape; `nn.Identity` where the configuration has no B;
    - ``qk_norm``: ``qk_norm(head_width)`` makes an RMSNorm of each head of [rows, length, heads · head_width];
      `nn.Identity` where the configuration has none;
    - ``head_dim``: the head width of the block;

    and where its ``forward`` names them,

    - ``position_ids``: int64 [rows or 1, length];
    - ``segment_ids``: int64 [rows, length], 0 for padding; None where nothing separates tokens;
    - ``position_embeddings``: (cos, sin) of the rotary embedding, each [rows or 1, length, head_dim]; 1 and 0 of NoPE.

    Raises:
        UsageError: the mixer cannot be made, or does not take what a switch of the block asks for.
    """

    def __init__(self, config: MixerConfig, layer: int, conv: Callable[[int, str], CanonConv]) -> None:
        super().__init__()
        self.where = f"model.target={config.target}"
        make, _ = load_target(config.target, "model.target")
        names = _named(make)
        if taken := next((one for one in config.mixer_kwargs if one in (*_ALWAYS, *_OFFERED)), None):
            raise UsageError(f"model.kwargs: {taken} comes from the block; legal: names beside those of the block")
        convs: list[CanonConv] = []

        def canon(channels: int) -> nn.Module:
            if "B" not in config.canon:
                return nn.Identity()
            convs.append(conv(channels, f"B.{len(convs)}"))
            return convs[-1]

        qk_norm: Any = partial(HeadRMSNorm, eps=config.rms_norm_eps) if config.qk_norm else nn.Identity
        offered = {"canon": canon, "qk_norm": qk_norm, "head_dim": config.head_dim}
        given = {name: value for name, value in offered.items() if name in names}
        with standing_here(), users_code(self.where):
            mixer = make(width=config.hidden_size, layer=layer, **given, **copy.deepcopy(config.mixer_kwargs))
        if not isinstance(mixer, nn.Module):
            raise UsageError(f"{self.where} gives {type(mixer).__name__}; legal: what gives a torch.nn.Module")
        self.mixer = mixer
        self.takes = tuple(name for name in _OF_A_PASS if name in _named(mixer.forward))
        self._check_switches(config, bool(convs), "qk_norm" in names)
        for module in mixer.modules():
            module.keeps_its_weights = True  # type: ignore[assignment]
        #: Set by the layer at the start of each of its passes.
        self.inputs = CanonInputs()

    def _check_switches(self, config: MixerConfig, convolves: bool, norms: bool) -> None:
        """Refuse a switch that the mixer would not hear of: a comparison would take it for an effect."""
        if "B" in config.canon and not convolves:
            raise UsageError(
                f"model.canon={config.canon}: {self.where} offers no projection for point B; legal: canon without B, "
                "or a mixer whose constructor takes canon and calls canon(channels)"
            )
        if config.qk_norm and not norms:
            raise UsageError(
                f"model.qk_norm=true: {self.where} takes none; legal: false, or a mixer whose constructor takes qk_norm"
            )
        if config.rope and config.rope_share < 1 and "position_embeddings" not in self.takes:
            raise UsageError(
                f"model.rope_share={config.rope_share}: {self.where} takes no rotary embedding; legal: 1.0, or a mixer "
                "whose forward takes position_embeddings"
            )

    def forward(self, hidden_states: Tensor, **given: Any) -> tuple[Tensor, None]:
        """[rows, length, width] → (the same shape, None), as `LlamaAttention` without weights.

        Raises:
            UsageError: the mixer gives something else.
        """
        offered = {**given, "segment_ids": self.inputs.segments}
        mixed = self.mixer(hidden_states, **{name: offered.get(name) for name in self.takes})
        if not isinstance(mixed, Tensor) or mixed.shape != hidden_states.shape:
            what = list(mixed.shape) if isinstance(mixed, Tensor) else f"a {type(mixed).__name__}"
            raise UsageError(f"{self.where}: {what} from x {list(hidden_states.shape)}; legal: a tensor of that shape")
        return mixed, None


def _named(function: Any) -> frozenset[str]:
    """The parameters that a callable names."""
    try:
        return frozenset(inspect.signature(function).parameters)
    except ValueError:  # built in
        return frozenset()


class MixerDecoderLayer(CanonLlamaDecoderLayer):
    """Llama's layer around a mixer."""

    def _mix(self, config: MixerConfig, layer: int, conv: Callable[[int, str], CanonConv]) -> None:
        self.self_attn = BlockMixer(config, layer, conv)

    def forward(self, hidden_states: Tensor, *args: Any, canon: CanonInputs | None = None, **kwargs: Any) -> Any:
        """As `CanonLlamaDecoderLayer.forward`; `canon` reaches the mixer, too."""
        self.self_attn.inputs = canon or CanonInputs()
        return super().forward(hidden_states, *args, canon=canon, **kwargs)


class MixerModel(CanonLlamaModel):
    """Embeddings, layers and final norm; see `MixerForCausalLM`."""

    config_class = MixerConfig
    layer_class = MixerDecoderLayer

    def _own_cache(self, cache: Any, use_cache: bool) -> None:
        if use_cache or cache is not None:
            raise UsageError("mixer: there is no cache, each pass goes over the whole text; legal: use_cache=False")

    def _mask(self, hidden: Tensor, *_: Any) -> Tensor:
        """Four dimensions: such a mask transformers passes on, to where nobody looks at it, and builds none."""
        return hidden.new_zeros((1, 1, 1, 1))


class MixerForCausalLM(CanonLlamaForCausalLM):
    """Llama's block around a mixer, and a language-model head; `forward` is that of `CanonLlamaForCausalLM`."""

    config_class = MixerConfig
    model_class = MixerModel

    def state_size(self, length: int) -> list[int] | None:
        """Numbers that the mixer of each layer carries on behind `length` tokens; None where they do not tell."""
        blocks: Any = self.model.layers
        mixers = [block.self_attn.mixer for block in blocks]
        tell = all(callable(getattr(mixer, "state_size", None)) for mixer in mixers)
        return [mixer.state_size(length) for mixer in mixers] if tell else None


AutoModelForCausalLM.register(MixerConfig, MixerForCausalLM, exist_ok=True)

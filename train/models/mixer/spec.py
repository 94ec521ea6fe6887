"""``model=mixer``: Llama's block with a mixer of the user's own in the place of its attention."""

from __future__ import annotations

from typing import Any

from msgspec import field

from synthshards.errors import UsageError

from ...loop.failures import users_code
from ..base import ModelSpec
from ..canon_llama.config import CanonLlamaConfig
from ..canon_llama.model import CanonLlamaForCausalLM
from ..canon_llama.spec import LlamaOptions, fields
from ..target import load_target
from .config import MixerConfig
from .model import MixerForCausalLM


class MixerOptions(LlamaOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Those of `model=llama`, the mixer, and what it is made with; without `target` the model is `model=llama`.

    `BlockMixer` says what a mixer is, and what the switches of the block mean for it.
    """

    target: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def called(self) -> str:
        return "model" if self.target is None else f"model.target={self.target}"

    def check(self) -> None:
        """Refuse what plays no part with, or without, a mixer; and what `model=llama` refuses."""
        super().check()
        if self.target is None and self.kwargs:
            raise UsageError("mixer: model.kwargs without model.target; legal: module:Mixer or path/file.py:Mixer")
        if self.target is not None and self.attn_implementation is not None:
            raise UsageError("mixer: model.attn_implementation is of attention; legal: null with model.target")


def configure(o: MixerOptions, seed: int) -> CanonLlamaConfig:
    """The configuration that the options mean; the seed plays no part."""
    del seed
    if o.target is None:
        return CanonLlamaConfig(**fields(o))
    return MixerConfig(target=o.target, mixer_kwargs=o.kwargs, **fields(o))


def make(o: MixerOptions, config: CanonLlamaConfig) -> CanonLlamaForCausalLM:
    """The model; a mixer's weights are those that it makes under the seed."""
    return MixerForCausalLM(config) if isinstance(config, MixerConfig) else CanonLlamaForCausalLM(config)


def record(model: CanonLlamaForCausalLM, o: MixerOptions) -> dict[str, Any]:
    """What ``run.json`` says: target, digest, and each layer's state after as many tokens as the context has.

    Raises:
        UsageError: a mixer's `state_size` tells no number.
    """
    if o.target is None or not isinstance(model, MixerForCausalLM):
        return {}
    said: dict[str, Any] = {"target": o.target, "source_sha256": load_target(o.target, "model.target")[1]}
    length = o.max_position_embeddings
    with users_code(o.called):
        sizes = model.state_size(length)
    if sizes is None:
        return said
    if not all(type(one) is int and one >= 0 for one in sizes):
        raise UsageError(f"{o.called}: state_size({length}) is {sizes[0]!r}; legal: an integer from 0")
    return {**said, "state_size": sizes, "state_length": length}


SPEC = ModelSpec(
    Options=MixerOptions,
    configure=configure,
    make=make,
    architectures=("mixer",),
    plain_logits=True,
    unused_weights=True,  # of a mixer
    prove=True,
    record=record,
)

"""Configuration of Llama's block around another mixer: that of `model=llama`, and which mixer."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig

from ..canon_llama.config import CanonLlamaConfig


class MixerConfig(CanonLlamaConfig):
    """Llama, with or without Canon layers, whose attention is a module of the user's own.

    Args:
        target: ``module:name`` or ``path/file.py:name`` of what makes the mixer of a layer.
        mixer_kwargs: what it is called with beside what the block gives.
        **llama: every field of `CanonLlamaConfig`.
    """

    model_type = "mixer"

    def __init__(self, *, target: str = "", mixer_kwargs: dict[str, Any] | None = None, **llama: Any) -> None:
        super().__init__(**{**llama, "use_cache": False})  # a mixer goes over the whole text in each pass
        self.target = target
        self.mixer_kwargs = dict(mixer_kwargs or {})


AutoConfig.register(MixerConfig.model_type, MixerConfig, exist_ok=True)

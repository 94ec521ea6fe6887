"""Third floor: what feeds rows to training. Needs torch; imports pipelines and the core.

What tells models where the rows of packed windows begin can be had from here; it is loaded when first used, since
`synthshards cache` needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batching.attention import attention_mask_4d, flex_mask, varlen

__all__ = ["attention_mask_4d", "flex_mask", "varlen"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'synthshards.loaders' has no attribute {name!r}")
    return getattr(import_module(".batching.attention", __name__), name)

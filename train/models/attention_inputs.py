"""What every attention layer gets besides its states: masks and rotary tables, on transformers 4.57 to 5.x.

Between those versions the mask builders renamed ``input_embeds`` and ``past_key_values`` and dropped
``cache_position``, and the rotary tables of Olmo3 moved from one module a layer type to one module for all, which later
took the layer type. Both are met here and nowhere else, by looking at what the installed version takes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

_BUILDERS: dict[str, Callable[..., Any]] = {
    "full_attention": create_causal_mask,
    "sliding_attention": create_sliding_window_causal_mask,
}


def segments_of(segment_ids: Tensor | None, attention_mask: Tensor | None) -> Tensor | None:
    """One segment number a token, int64 [rows, length], with 0 for padding; None where nothing separates tokens.

    Args:
        segment_ids: int64 [rows, length] of a packed batch, 0 for padding, or None.
        attention_mask: 2-D [rows, length], 0 for padding, or None; a mask of another shape says nothing here.
    """
    mask = attention_mask if attention_mask is not None and attention_mask.ndim == 2 else None
    if segment_ids is None:
        return None if mask is None else (mask != 0).long()
    return segment_ids if mask is None else segment_ids.masked_fill(mask == 0, 0)


def segment_positions(segments: Tensor) -> Tensor:
    """Positions that start at 0 wherever the segment changes: int64 [rows, length] of the same shape.

    >>> segment_positions(torch.tensor([[1, 1, 2, 2, 2, 0]])).tolist()
    [[0, 1, 0, 1, 2, 0]]
    """
    place = torch.arange(segments.shape[1], device=segments.device).expand(segments.shape)
    change = torch.ones_like(segments, dtype=torch.bool)
    change[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return place - torch.where(change, place, 0).cummax(dim=1).values


def layer_masks(
    config: Any,
    embeds: Tensor,
    attention_mask: Any,
    position_ids: Tensor,
    segment_ids: Tensor | None = None,
) -> tuple[dict[str, Any], Tensor]:
    """The causal mask of each type of layer, in the form the configured attention implementation wants.

    Args:
        config: the model's config (`layer_types` where it has several, `sliding_window`, the attention chosen).
        embeds: [rows, length, width]; only shape, dtype and device matter.
        attention_mask: 2-D (0 for padding), 4-D (used as it is), or None.
        position_ids: int64 [rows or 1, length]. Without a mask and segments, a jump in them starts another row, as
            everywhere in transformers.
        segment_ids: int64 [rows, length]: tokens attend within their own segment only. Padding (0) is a segment, too,
            so that no token is left without anything to attend to.

    Returns:
        (masks by layer type, the positions that the masks were made from: what flash attention must be given).
    """
    if segment_ids is not None and (attention_mask is None or attention_mask.ndim == 2):
        # The builders tell rows apart by positions that start anew: give them such, and every implementation
        # (eager, sdpa, flex) gets its block-diagonal mask from code that is not ours.
        segments = segments_of(segment_ids, attention_mask)
        assert segments is not None
        position_ids, attention_mask = segment_positions(segments), None
    offered = {
        "config": config,
        "inputs_embeds": embeds,
        "input_embeds": embeds,
        "attention_mask": attention_mask,
        "cache": None,
        "past_key_values": None,
        "cache_position": torch.arange(embeds.shape[1], device=embeds.device),
        "position_ids": position_ids,
    }
    types = sorted(set(getattr(config, "layer_types", None) or ["full_attention"]))
    masks = {}
    for kind in types:
        build = _BUILDERS[kind]
        taken = inspect.signature(build).parameters
        masks[kind] = build(**{name: value for name, value in offered.items() if name in taken})
    return masks, position_ids


def rotary_tables(model: Any, hidden: Tensor, position_ids: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """(cos, sin) of each type of layer of an `Olmo3Model`, each [rows or 1, length, head width]."""
    kinds = sorted(set(model.config.layer_types))
    if hasattr(model, "rotary_embs"):  # transformers 4.57
        return {kind: model.rotary_embs[kind](hidden, position_ids) for kind in kinds}
    if "layer_type" in inspect.signature(model.rotary_emb.forward).parameters:
        return {kind: model.rotary_emb(hidden, position_ids, kind) for kind in kinds}
    return dict.fromkeys(kinds, model.rotary_emb(hidden, position_ids))  # transformers 5.0

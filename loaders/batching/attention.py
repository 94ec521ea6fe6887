"""Packed windows for models: masks that keep the rows of a window from attending to one another.

A packed batch says so in `segment_ids` (0 padding, rows from 1). Three kinds of attention want three things, each of
them in place of the batch's own `attention_mask` and beside its `position_ids`:

- transformers' models with ``sdpa`` or ``eager`` attention: a 4-D mask (`attention_mask_4d`);
- FlexAttention: a function of two positions (`flex_mask`);
- variable-length FlashAttention: all rows end to end, and where each begins (`varlen`).

Most models of transformers also find the borders by `position_ids` alone, but only without any mask and with
``use_cache=False``: with a cache, their default, rows see one another. Nothing of this reaches recurrent layers and
convolutions; docs/loading.md shows how to see whether a model leaks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .context import Batch


def attention_mask_4d(segment_ids: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The causal mask of packed windows, as models of transformers take it with ``sdpa`` and ``eager`` attention.

    Args:
        segment_ids: int64 [windows, seq_len].
        dtype: floating: 0 where a query may look, and the least number of the type elsewhere, to be added to the
            scores (float32 is right for models of any precision). Bool: true where a query may look, for torch's
            `scaled_dot_product_attention` alone: what adds it to the scores masks nothing, not even the future.

    Returns:
        [windows, 1, seq_len (queries), seq_len (keys)]. Padding looks at padding, so that no row of it is empty.
    """
    length = segment_ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segment_ids.device).tril()
    allowed = ((segment_ids[:, :, None] == segment_ids[:, None, :]) & causal)[:, None]
    if dtype == torch.bool:
        return allowed
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(~allowed, torch.finfo(dtype).min)


def flex_mask(segment_ids: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """A `mask_mod` for `torch.nn.attention.flex_attention.create_block_mask` (batch = windows): causal, within rows."""

    def mask_mod(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (segment_ids[b, q] == segment_ids[b, k])

    return mask_mod


def varlen(batch: Batch) -> dict[str, Any]:
    """A packed batch as one sequence without padding, as variable-length FlashAttention wants it.

    Returns:
        `input_ids`, `labels`, `position_ids` int64 [1, tokens]; `cu_seq_lens_q` and `cu_seq_lens_k` int32 [rows + 1],
        where each row begins; `max_length_q` and `max_length_k`, tokens of the longest: the keywords of transformers'
        models.
        The label of each row's first token is −100: nothing of its own row predicts it.
    """
    segments = batch["segment_ids"]
    window = torch.arange(len(segments), device=segments.device)[:, None]
    number = (window * (segments.shape[1] + 1) + segments)[segments > 0]
    border = torch.ones(len(number), dtype=torch.bool, device=segments.device)
    border[1:] = number[1:] != number[:-1]
    starts = border.nonzero().flatten()
    ends = torch.cat([starts, starts.new_tensor([len(number)])])
    labels = batch["labels"][segments > 0].clone()
    labels[starts] = -100
    longest = int(ends.diff().max()) if len(starts) else 0
    return {
        "input_ids": batch["input_ids"][segments > 0][None],
        "labels": labels[None],
        "position_ids": batch["position_ids"][segments > 0][None],
        "cu_seq_lens_q": ends.to(torch.int32),
        "cu_seq_lens_k": ends.to(torch.int32),
        "max_length_q": longest,
        "max_length_k": longest,
    }

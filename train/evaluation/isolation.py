"""Whether packed rows stay apart in a model: proved by exchanging one of them, not believed from the model's keywords.

Attention of transformers finds the borders of rows by their positions. Recurrent layers and convolutions take the same
keyword and run over them (Qwen3-Next, Bamba, Jamba, RecurrentGemma), and so does some attention (OPT, GPT-OSS).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synthshards.errors import UsageError

from .logits import accepted, borders, context_of, device_of, evaluating
from .probing import undisturbed, without_zeros

#: Windows and tokens of the proof: two rows in each, longer than the reach of any convolution in use.
_WINDOWS, _LENGTH = 4, 16
#: Of how far the exchanged row's own logits move: rounding stays below 1e-6, the smallest leak measured is 5e-4.
_TOLERANCE = 1e-5


def check_isolation(model: nn.Module, vocab_size: int, key: str, instead: str) -> None:
    """Raise `UsageError` where a row of a packed window sees the row before it.

    Args:
        model: a causal language model; its mode, weights and torch's generators are afterwards as before.
        vocab_size: ids are 0..vocab_size−1.
        key: the setting that asks for it, as ``train.isolate``.
        instead: another setting that makes it needless.
    """
    legal = f"legal: {key}=false, or {instead}"
    name = type(getattr(model, "module", model)).__name__
    if not accepted(model, position_ids=None, segment_ids=None):
        raise UsageError(f"{key}=true: {name} takes no position_ids, by which packed rows stay apart; {legal}")
    share = leak(model, vocab_size)
    if share > _TOLERANCE:
        raise UsageError(
            f"{key}=true: rows of a window do not stay apart in {name} (exchanging one moves the logits of the next "
            f"by {share:.1e} of its own); {legal}"
        )


def leak(model: nn.Module, vocab_size: int) -> float:
    """How far a window's second row moves when its first is exchanged, as a share of how far the first one moves.

    The least of several windows: a leak is in them all, while a router's tie that rounding decides is in one.
    """
    half = max(2, min(_LENGTH, context_of(model) or _LENGTH)) // 2
    draw, device = torch.Generator().manual_seed(0), device_of(model)
    ids = torch.randint(vocab_size, (_WINDOWS, 2 * half), generator=draw)
    exchanged = ids.clone()
    exchanged[:, :half] += torch.randint(1, max(2, vocab_size), (_WINDOWS, half), generator=draw)
    window = {"position_ids": torch.arange(half).repeat(2), "segment_ids": torch.arange(1, 3).repeat_interleave(half)}
    told = {
        **borders(model, {name: value.expand(_WINDOWS, -1).to(device) for name, value in window.items()}),
        **accepted(model, use_cache=False),
    }

    def logits(tokens: Tensor) -> Tensor:
        begin()
        out: Tensor = model(input_ids=tokens.to(device), **told).logits
        return out.float()

    with undisturbed(model) as begin, evaluating(model), without_zeros(model, draw):
        moved = (logits(ids) - logits(exchanged % vocab_size)).abs().amax(-1)
    own, other = moved[:, :half].amax(1), moved[:, half:].amax(1)
    return float((other / own).nan_to_num(0.0, 0.0).min())

"""Whether a model is a causal language model: proved on a few rows before a run, not believed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from synthshards.errors import UsageError

from ..loop.failures import users_code
from .logits import accepted, device_of, evaluating
from .probing import undisturbed, without_zeros

#: Rows and tokens of the proofs: longer than chunks in use and no multiple of them, and as short as a first prompt.
_SHAPES = ((2, 509), (4, 16))
#: Of how far the exchanged tokens' own logits move. Rounding (long convolutions by FFT have most) stays below it.
_TOLERANCE = 3e-5


def check_causal(model: nn.Module, vocab_size: int, context: int | None, where: str) -> None:
    """Raise `UsageError` where a model is no causal language model, as rows and loss here need it.

    It is shown that logits have their shape at every length, are numbers and can be trained, and that those of a
    position do not move when later tokens are exchanged.

    Args:
        model: what gives `logits`; its mode, weights, buffers and all generators are afterwards as before.
        vocab_size: ids are 0..vocab_size−1.
        context: tokens that it must take; None where it takes any number.
        where: what messages call it.
    """
    draw = torch.Generator().manual_seed(0)
    longest = context or _SHAPES[0][1]
    with undisturbed(model) as begin, users_code(where):

        def logits(ids: Tensor) -> Tensor:
            begin()
            out: Any = model(input_ids=ids.to(device_of(model)), **accepted(model, use_cache=False)).logits
            if tuple(out.shape[:2]) != tuple(ids.shape) or out.shape[2] < vocab_size:
                raise UsageError(
                    f"{where}: logits of {list(ids.shape)} tokens have the shape {list(out.shape)}; "
                    f"legal: [rows, length, {vocab_size}]"
                )
            if bool((out.isnan() | (out == torch.inf)).any()):
                raise UsageError(f"{where}: logits are no numbers at the start; legal: weights that give finite ones")
            return out  # type: ignore[no-any-return]

        def drawn(rows: int, length: int) -> Tensor:
            ids = torch.randint(vocab_size, (rows, length), generator=draw)
            ids[0, 0] = vocab_size - 1
            return ids

        with evaluating(model):
            for length in {1, longest}:
                logits(drawn(1, length))
        _check_gradients(model, logits, drawn(2, min(_SHAPES[1][1], longest)), where)
        for rows, length in _SHAPES:
            ids = drawn(rows, min(length, longest))
            with evaluating(model), without_zeros(model, draw):
                share = _moved_early(logits, ids, vocab_size, draw)
            if share > _TOLERANCE:
                raise UsageError(
                    f"{where}: not causal: exchanging later tokens moves the logits before them (by {share:.1e} of "
                    "their own); legal: logits that depend on no later token"
                )


def _check_gradients(model: nn.Module, logits: Any, ids: Tensor, where: str) -> None:
    """Raise `UsageError` where a loss does not reach the weights, or reaches them as no number."""
    if ids.shape[1] == 1:
        return
    model.train()
    with torch.enable_grad():
        loss = cross_entropy(logits(ids)[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten().to(device_of(model)))
    if not loss.requires_grad:
        raise UsageError(f"{where}: its logits depend on no weight that is trained; legal: logits with gradients")
    torch.autograd.backward(loss)
    for name, weight in model.named_parameters():
        if weight.grad is not None and not bool(weight.grad.isfinite().all()):
            raise UsageError(f"{where}: the gradient of {name} is no number at the start; legal: finite gradients")


def _moved_early(logits: Any, ids: Tensor, vocab_size: int, draw: torch.Generator) -> float:
    """How far logits move before the exchanged tokens, as a share of how far those behind them do.

    The least of all rows: a leak is in them all, while a router's tie that rounding decides is in one. What moves from
    pass to pass by itself (a generator that cannot be put back) proves nothing.
    """
    length = ids.shape[1]
    first = length * 5 // 8 + 1  # in no power of two's multiple, so that it parts the chunks of a recurrence
    if first >= length:
        return 0.0
    exchanged = ids.clone()
    exchanged[:, first:] += torch.randint(1, max(2, vocab_size), exchanged[:, first:].shape, generator=draw)
    plain = logits(ids).float()
    by_itself = (plain - logits(ids)).abs().amax(-1)[:, :first].amax(1)
    moved = (plain - logits(exchanged % vocab_size)).abs().amax(-1)
    early = moved[:, :first].amax(1)
    early[early <= 10 * by_itself] = 0
    return float((early / moved[:, first:].amax(1)).nan_to_num(0.0, 0.0).min())

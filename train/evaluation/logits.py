"""Getting logits from any causal language model: shared by generation and metrics."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from synthshards.errors import UsageError


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters lie (the CPU for a model without any)."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def context_of(model: nn.Module) -> int | None:
    """The most positions that the model's configuration allows, None where it does not say."""
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    return limit if isinstance(limit, int) else None


def check_context(model: nn.Module, length: int, what: str) -> None:
    """Raise `UsageError` where `what` has more tokens than the model has positions."""
    limit = context_of(model)
    if limit is not None and length > limit:
        raise UsageError(f"{what}: {length} tokens, but the model has {limit} positions; legal: 1..{limit}")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode and without gradients; afterwards in the mode it was in."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def keywords(model: nn.Module) -> Collection[str]:
    """The keywords that the model's `forward` names, or that of the model in it to which it passes them on.

    A model that stands before another tells them itself, as `forward_keywords`.
    """
    told: Collection[str] | None = getattr(model, "forward_keywords", None)
    if told is not None:
        return told
    names = dict(inspect.signature(model.forward).parameters)
    if any(p.kind is p.VAR_KEYWORD for p in names.values()):
        names |= inspect.signature(getattr(model, "base_model", model).forward).parameters
    return names


def accepted(model: nn.Module, **wished: Any) -> dict[str, Any]:
    """Those of the wished keywords that the model takes: see `keywords`."""
    names = keywords(model)
    return {name: value for name, value in wished.items() if name in names}


def borders(model: nn.Module, window: Mapping[str, Tensor]) -> dict[str, Any]:
    """What tells the model where packed rows begin: positions, segments, or both; {} where it takes neither."""
    return accepted(model, position_ids=window["position_ids"], segment_ids=window["segment_ids"])


def logits_at(model: nn.Module, window: Mapping[str, Tensor], chosen: Tensor, *, isolate: bool = True) -> Tensor:
    """The model's logits behind chosen positions of some windows.

    Args:
        model: a causal language model: ``model(input_ids=…).logits`` is [windows, length, vocabulary].
        window: `input_ids` int64 [windows, length]; packed ones also `position_ids` and `segment_ids` of that shape.
            Padding stands behind all else, where nothing that counts can see it.
        chosen: bool [windows, length]: which positions.
        isolate: packed rows neither see one another nor count on: the model is given their positions, by which
            transformers' attention masks, and Canon layers, find their borders (recurrent layers do not:
            `isolation.check_isolation` proves it). Otherwise all is one text.

    Returns:
        [n, vocabulary], a row for each chosen position, in the order of `chosen.nonzero()`.

    Raises:
        UsageError: a window is longer than the model's context, or its rows are packed and the model cannot be told.
    """
    device = device_of(model)
    ids, chosen = window["input_ids"].to(device), chosen.to(device)
    check_context(model, ids.shape[1], "a window")
    # A cache would hide the borders of packed rows: transformers look for them only where there is none.
    columns = chosen.any(0).nonzero().flatten()  # the vocabulary is wide: leave out positions that no window needs
    taken = accepted(model, use_cache=False, logits_to_keep=columns)
    if isolate and "position_ids" in window:
        told = borders(model, window)
        if not told:
            raise UsageError(
                f"{type(model).__name__}: its forward takes no position_ids, by which packed rows stay apart; "
                "legal: a model that takes them (not one in a wrapper for several processes), or isolate=False"
            )
        taken |= {name: value.to(device) for name, value in told.items()}
    logits: Tensor = model(input_ids=ids, **taken).logits
    return logits[chosen[:, columns] if "logits_to_keep" in taken else chosen]

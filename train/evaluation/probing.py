"""Trying a model out before a run without a trace: its weights, buffers, mode and all generators are put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .generators import get_states, seed_all, set_own, set_states
from .logits import device_of


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[Callable[[], None]]:
    """The model to be tried out; afterwards buffers, gradients, mode and generators are as before.

    Yields:
        What begins a pass: all passes then draw alike, whatever they draw from.
    """
    device, training = device_of(model), model.training
    states, buffers = get_states(model, device), [(one, one.clone()) for one in model.buffers()]

    def begin() -> None:
        seed_all(0)
        set_own(states, model)

    try:
        yield begin
    finally:
        set_states(states, model, device)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        model.zero_grad(set_to_none=True)
        model.train(training)


@contextmanager
def without_zeros(model: nn.Module, draw: torch.Generator) -> Iterator[None]:
    """The model with small numbers in place of weights that start at zero, which would hide what flows through them.

    Zeros that are not trained stay: they hide nothing that could ever flow.
    """
    zeros = [weight for weight in model.parameters() if weight.requires_grad and not weight.any()]
    with torch.no_grad():
        try:
            for weight in zeros:
                weight.copy_(torch.randn(weight.shape, generator=draw) * 0.02)
            yield
        finally:
            for weight in zeros:
                weight.zero_()

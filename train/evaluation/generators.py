"""What a pass draws from: the generators of torch, numpy and Python, and those of a model's own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn


@runtime_checkable
class OwnGenerator(Protocol):
    """A generator in an attribute of a module: a `torch.Generator`, or what has its state as one does."""

    def get_state(self) -> Tensor:
        """The state, uint8."""

    def set_state(self, state: Tensor) -> Any:
        """Go on from a state that `get_state` gave."""


def own_generators(model: nn.Module) -> Iterator[tuple[str, OwnGenerator]]:
    """The generators in the attributes of a model's modules, by their dotted names."""
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, OwnGenerator) and not isinstance(value, nn.Module):
                yield f"{name}.{key}", value


def get_states(model: nn.Module, device: torch.device) -> dict[str, Any]:
    """The states of all generators, as plain values and tensors."""
    algorithm, words, *rest = np.random.get_state(legacy=True)
    return {
        "generator": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": (algorithm, torch.from_numpy(np.array(words, np.int64)), *rest),
        "python": random.getstate(),
        "own": {name: one.get_state() for name, one in own_generators(model)},
    }


def set_states(states: dict[str, Any], model: nn.Module, device: torch.device) -> None:
    """Go on from what `get_states` gave."""
    torch.set_rng_state(states["generator"])
    if states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"], device)
    algorithm, words, *rest = states["numpy"]
    np.random.set_state((algorithm, words.numpy().astype(np.uint32), *rest))
    random.setstate(states["python"])
    set_own(states, model)


def set_own(states: dict[str, Any], model: nn.Module) -> None:
    """Set the model's own generators back; one that a pass has made since has no state to go on from."""
    for name, one in own_generators(model):
        if name in states["own"]:
            one.set_state(states["own"][name])


def seed_all(seed: int) -> None:
    """Seed the generators of torch, numpy and Python.

    Args:
        seed: 0..2^64−1.
    """
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.set_state(np.random.RandomState(np.random.MT19937(seed)).get_state())

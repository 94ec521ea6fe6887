"""``model=custom``: what a function of the user's builds."""

from __future__ import annotations

import copy
import inspect
from typing import Any

from msgspec import field
from torch import nn

from synthshards.errors import UsageError, nearest

from ...config.ranges import Count
from ...loop.failures import users_code
from ..base import CONTEXT, VOCAB_SIZE, ModelOptions, ModelSpec
from ..target import load_target, standing_here
from .model import CustomConfig, CustomModel


class CustomOptions(ModelOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`target` is called as ``build(vocab_size=…, context=…, **kwargs)``; `CustomModel` says what it must give.

    A vocabulary that is null is what the task needs. So is such a context, but then it limits no row: only the module
    itself knows whether it could take longer ones.
    """

    sizes = ("model.vocab_size", "model.context")

    target: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    vocab_size: Count | None = None
    context: Count | None = None

    @property
    def called(self) -> str:
        return f"model.target={self.target}"

    def check(self) -> None:
        """Refuse a missing target, and what says nothing here."""
        if not self.target:
            raise UsageError("custom: model.target is not set; legal: module:function or path/to/file.py:function")
        if self.attn_implementation is not None:
            raise UsageError("custom: model.attn_implementation says nothing here; legal: null")
        for name in ("vocab_size", "context"):
            if name in self.kwargs:
                raise UsageError(f"custom: model.kwargs has {name}, which is given anyway; legal: model.{name}")


def configure(o: CustomOptions, seed: int) -> CustomConfig:
    """The configuration that the options mean; the seed plays no part."""
    del seed
    assert o.target is not None, "checked by the options"
    build, digest = load_target(o.target, "model.target")
    context = o.context or CONTEXT
    return CustomConfig(o.target, digest, o.vocab_size or VOCAB_SIZE, context, context, o.kwargs, build)


def make(o: CustomOptions, config: CustomConfig) -> CustomModel:
    """The module, built and wrapped.

    Raises:
        UsageError: it cannot be built with these arguments, or is no module that can be trained.
    """
    sizes = {"vocab_size": config.vocab_size, "context": config.context}
    _check_arguments(config.build, {**sizes, **o.kwargs}, o.called)
    with standing_here(), users_code(o.called):
        module = config.build(**sizes, **copy.deepcopy(o.kwargs))
    if not isinstance(module, nn.Module):
        raise UsageError(f"{o.called}: it gives {type(module).__name__}; legal: a torch.nn.Module")
    weights = list(module.parameters())
    if any(isinstance(one, nn.parameter.UninitializedParameter) for one in weights):
        raise UsageError(f"{o.called}: it has lazy weights; legal: weights whose shapes are known when it is built")
    if not any(one.requires_grad for one in weights):
        raise UsageError(f"{o.called}: {type(module).__name__} has no weight to train; legal: at least one")
    return CustomModel(module, config)


def _check_arguments(build: Any, arguments: dict[str, Any], where: str) -> None:
    """Raise `UsageError` where a function cannot be called with these arguments."""
    try:
        parameters = inspect.signature(build).parameters
    except ValueError:  # it is written in C, and tells when it is called
        return
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for name in arguments:
            if name not in parameters:
                raise UsageError(
                    f"{where}: it takes no {name!r}{nearest(name, parameters)}; legal: {', '.join(parameters)}"
                )
    for name, p in parameters.items():
        if name not in arguments and p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL):
            raise UsageError(f"{where}: it needs {name!r}; legal: model.kwargs={{{name}: …}}")


def record(model: CustomModel, o: CustomOptions) -> dict[str, Any]:
    """What ``run.json`` says: target, digest, and the state after as many tokens as the context has.

    Raises:
        UsageError: `state_size` tells no number, or no numbers.
    """
    config = model.config
    said: dict[str, Any] = {"target": config.target, "source_sha256": config.source_sha256}
    state_size = getattr(model.module, "state_size", None)
    if callable(state_size):
        with users_code(o.called):
            size = state_size(config.context)
        if not all(type(one) is int and one >= 0 for one in (size if isinstance(size, list) else [size])):
            raise UsageError(
                f"{o.called}: state_size({config.context}) is {size!r}; legal: an integer from 0, or a list of them"
            )
        said |= {"state_size": size, "state_length": config.context}
    return said


SPEC = ModelSpec(
    Options=CustomOptions,
    configure=configure,
    make=make,
    architectures=("custom",),
    unused_weights=True,
    prove=True,
    binding=False,
    record=record,
)

"""``model=hf``: a causal model of transformers by its `model_type`, with random weights from the seed."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from typing import Any

import transformers
from msgspec import convert, field
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from synthshards.errors import UsageError, nearest

from ...config.ranges import Count, Natural
from ...loop.failures import raised
from ..base import CONTEXT, VOCAB_SIZE, ModelOptions, ModelSpec
from ..target import standing_here

#: Keys that transformers' configurations take beside their fields, and turn into `rope_parameters`.
_ROPE = ("rope_theta", "rope_scaling", "partial_rotary_factor")
_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


class HfModelOptions(ModelOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`config` holds fields of the configuration; what it does not say of vocabulary, context and special ids is filled
    in: `vocab_size` and `context` (what the task needs, where they are null), and no special id, whose defaults lie
    outside a small vocabulary. `imports` are packages that register models of theirs.
    """

    sizes = ("model.vocab_size", "model.context")

    model_type: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    imports: list[str] = field(default_factory=list)
    vocab_size: Count | None = None
    context: Count | None = None

    @property
    def called(self) -> str:
        return f"model.model_type={self.model_type}"

    def check(self) -> None:
        """Refuse a missing type, and sizes that are said twice."""
        if not self.model_type:
            raise UsageError("hf: model.model_type is not set; legal: a causal model of transformers, such as mamba2")
        for name, value in (("vocab_size", self.vocab_size), ("max_position_embeddings", self.context)):
            if value is not None and name in self.config:
                raise UsageError(f"hf: {name} is said by model.config and beside it; legal: one of them")


def configure(o: HfModelOptions, seed: int) -> PretrainedConfig:
    """The configuration that the options mean; the seed plays no part.

    Raises:
        UsageError: no such package, model or field, or values that do not go together.
    """
    del seed
    for package in o.imports:
        _register(package)
    kind = str(o.model_type)
    types = sorted(name for name in CONFIG_MAPPING if CONFIG_MAPPING[name] in MODEL_FOR_CAUSAL_LM_MAPPING)
    if kind not in types:
        raise UsageError(
            f"model.model_type={kind}: transformers {transformers.__version__} has no such causal model"
            f"{nearest(kind, types)}; legal: {', '.join(types)}"
        )
    cls = CONFIG_MAPPING[kind]
    names = _fields(cls)
    for name in o.config:
        if name not in names:
            raise UsageError(f"model.config: {kind} has no {name!r}{nearest(name, names)}; legal: {', '.join(names)}")
    filled: dict[str, int | None] = {name: None for name in _SPECIAL if name in names}
    if "vocab_size" in names:
        filled["vocab_size"] = o.vocab_size or VOCAB_SIZE
    if positions := next((name for name in _positions(cls) if name in names), None):
        filled[positions] = o.context or CONTEXT
    own = {cls.attribute_map.get(name, name) for name in o.config}
    filled = {name: value for name, value in filled.items() if cls.attribute_map.get(name, name) not in own}
    try:
        config: PretrainedConfig = AutoConfig.for_model(kind, **filled, **o.config)
        _check_sizes(config)
    except UsageError:
        raise
    except Exception as error:  # configurations check themselves, each in its own way
        raise UsageError(
            f"model.config: {kind}: {raised(error.__cause__ or error)}; legal: what fits together"
        ) from None
    return config


def make(o: HfModelOptions, config: PretrainedConfig) -> nn.Module:
    """The model, float32.

    Raises:
        UsageError: transformers cannot build it.
    """
    try:
        model: nn.Module = AutoModelForCausalLM.from_config(config)
    except MemoryError:
        raise
    except Exception as error:  # modeling files find out only here what does not fit together
        raise UsageError(f"{o.called}: cannot be built ({raised(error)}); legal: another model.config") from error
    return model.float()


def _register(package: str) -> None:
    """Import a package, whose models it registers with transformers itself."""
    try:
        with standing_here():
            importlib.import_module(package)
    except Exception as error:
        raise UsageError(f"model.imports: {package}: {raised(error)}; legal: packages that can be imported") from error


def _fields(cls: type[PretrainedConfig]) -> list[str]:
    """The names that a configuration takes: its own and those that all have."""
    own: Iterable[str] = inspect.signature(cls).parameters
    common = [*inspect.signature(PretrainedConfig).parameters, *vars(PretrainedConfig())]
    rope = _ROPE if "rope_parameters" in own else ()
    names = dict.fromkeys([*own, *cls.attribute_map, *rope, *common])
    return [name for name in names if name not in ("self", "args", "kwargs", "model_type") and name[0] != "_"]


def _positions(cls: type[PretrainedConfig]) -> tuple[str, ...]:
    """What a configuration may call the longest row."""
    return (
        cls.attribute_map.get("max_position_embeddings", "max_position_embeddings"),
        "n_positions",
        "context_length",
    )


def _check_sizes(config: PretrainedConfig) -> None:
    """Raise where what the checks of this project look at is no number."""
    convert(config.vocab_size, Count)
    for name in _SPECIAL:
        number = getattr(config, name, None)
        if number is not None and not all(convert(one, Natural) < config.vocab_size for one in _each(number)):
            raise UsageError(
                f"model.config: {name}={number} is outside the vocabulary; legal: 0..{config.vocab_size - 1} or null"
            )


def _each(number: Any) -> list[Any]:
    return number if isinstance(number, list) else [number]


SPEC = ModelSpec(
    Options=HfModelOptions,
    configure=configure,
    make=make,
    unused_weights=True,  # a step may leave experts out
    prove=True,
)

"""``model=from_pretrained``, and what else comes from the hub or a folder: weights, and tokenizers' special ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from synthshards.errors import UsageError

from .base import ModelOptions, ModelSpec, SpecialIds

#: A folder with none of these has no tokenizer.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "spiece.model")

T = TypeVar("T")


class PretrainedOptions(ModelOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model of the hub or a local folder, and its tokenizer (another one where `tokenizer_name_or_path` says so).

    With `trust_remote_code` what the model's own repository has for code is run.
    """

    sizes = ("the vocabulary of model.name_or_path", "the context of model.name_or_path")

    name_or_path: str | None = None
    tokenizer_name_or_path: str | None = None
    trust_remote_code: bool = False

    @property
    def tokenizer(self) -> str | None:
        return self.tokenizer_name_or_path or self.name_or_path

    def check(self) -> None:
        """Refuse a missing name."""
        if not self.name_or_path:
            raise UsageError("from_pretrained: model.name_or_path is not set; legal: a hub name or a local folder")


def load_config(name: str, trust: bool = False) -> Any:
    """The configuration of a causal model; with `trust`, of code that lies beside it.

    Raises:
        UsageError: there is none under that name.
    """
    return _loaded("model", name, lambda: AutoConfig.from_pretrained(name, trust_remote_code=trust))


def load_model(name: str, attn_implementation: str | None, trust: bool = False) -> nn.Module:
    """A causal model with its weights in float32, in training mode off (`eval`), as transformers gives it.

    Args:
        trust: run code that lies beside the weights.

    Raises:
        UsageError: there is none under that name, or it is no causal language model.
    """
    chosen = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    model: nn.Module = _loaded(
        "model",
        name,
        lambda: AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, trust_remote_code=trust, **chosen),
    )
    return model


def special_ids(name: str) -> SpecialIds | None:
    """The special ids of a tokenizer; None for a local folder that has a model and no tokenizer.

    Raises:
        UsageError: there is no tokenizer under that name.
    """
    folder = Path(name)
    if folder.is_dir() and not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        return None
    tokenizer = _loaded("tokenizer", name, lambda: AutoTokenizer.from_pretrained(name))
    pads = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id)
    pad = next((one for one in pads if one is not None), None)
    # sep_token_id exists only where the tokenizer defines one, in some versions.
    return SpecialIds(tokenizer.bos_token_id, getattr(tokenizer, "sep_token_id", None), pad)


def copy_weights(model: nn.Module, name: str, kinds: Sequence[str]) -> tuple[str, ...]:
    """Copy every weight of `model.init_from_pretrained` that has the same name and shape in `model`; the others stay.

    Args:
        kinds: the `model_type` of models whose weights have the names and the meaning of the model's own.

    Returns:
        The names of the copied weights, in the model's order.

    Raises:
        UsageError: no such model, a model of another kind, or not one weight that fits.
    """
    kind = load_config(name).model_type
    if kind not in kinds:
        raise UsageError(f"model.init_from_pretrained={name}: a model of type {kind}; legal: {', '.join(kinds)}")
    source = load_model(name, None).state_dict()
    target = model.state_dict()
    fitting = [key for key, value in target.items() if key in source and source[key].shape == value.shape]
    if not fitting:
        raise UsageError(
            f"model.init_from_pretrained={name}: no weight has a name and shape of this model; "
            "legal: an Olmo3 of the sizes under model.hf"
        )
    with torch.no_grad():
        for key in fitting:
            target[key].copy_(source[key])
    return tuple(fitting)


def _loaded(what: str, name: str, load: Callable[[], T]) -> T:
    """What `load` gives; its many kinds of failure become one line."""
    try:
        return load()
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"no {what} {name!r}: {reason}; legal: a hub name or a local folder") from error


SPEC = ModelSpec(
    Options=PretrainedOptions,
    configure=lambda o, seed: load_config(o.name_or_path, o.trust_remote_code),
    make=lambda o, config: load_model(o.name_or_path, o.attn_implementation, o.trust_remote_code),
    copy_weights=lambda model, options: tuple(model.state_dict()),
)

"""A module of the user's as a causal language model: what it is given, what it may answer, and the loss."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.modeling_outputs import CausalLMOutput

from synthshards.errors import UsageError
from synthshards.storage.local import replacing

#: What a pass gives beside the tokens, where the module's `forward` names it.
GIVEN = ("attention_mask", "position_ids", "segment_ids")


@dataclass
class CustomConfig:
    """What a custom model is.

    Attributes:
        target: the function that made the module, as it was given; source_sha256: the hex digest of its source file.
        vocab_size, context: ids and positions that it is made for. kwargs: what else. build: makes it.
        max_position_embeddings: tokens of the longest row that it takes, None where nothing limits them.
    """

    target: str
    source_sha256: str
    vocab_size: int
    context: int
    max_position_embeddings: int | None
    kwargs: dict[str, Any]
    build: Callable[..., Any]
    model_type: str = "custom"


class CustomModel(nn.Module):
    """A module behind the interface of transformers' causal models.

    Args:
        module: its ``forward(input_ids)`` takes int64 [rows, length] and answers with logits [rows, length,
            vocabulary], a tuple that begins with them, or an object that has them as `logits`. Those of `GIVEN` that it
            names are given to it in every pass, int64 [rows, length]; what comes as ``**kwargs`` is not named.
        config: what messages and ``run.json`` say of it.
    """

    def __init__(self, module: nn.Module, config: CustomConfig) -> None:
        super().__init__()
        self.module, self.config = module, config
        named = inspect.signature(module.forward).parameters
        self.forward_keywords = tuple(name for name in GIVEN if name in named)
        # transformers' models look for the borders of packed rows only where they have neither cache nor mask.
        self._no_cache = {"use_cache": False} if "use_cache" in named else {}
        mask = named.get("attention_mask")
        self._needs_mask = mask is not None and mask.default is mask.empty

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> CausalLMOutput:
        """Logits, and with labels (−100 where nothing counts) the mean loss of each from the token before it.

        Args:
            input_ids, labels, segment_ids: int64 [rows, length]; segments count from 1, 0 is padding.
            attention_mask: int64 [rows, length], 0 for padding; what is missing follows from the segments, and is left
                out of a packed window where the module can do without.
            position_ids: int64 [rows, length]; what is missing counts from 0.

        Raises:
            UsageError: the module answers with something else than logits.
        """
        packed = position_ids is not None and attention_mask is None
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids) if segment_ids is None else (segment_ids != 0).long()
        if segment_ids is None:
            segment_ids = attention_mask
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device).expand(input_ids.shape)
        offered = {"attention_mask": attention_mask, "position_ids": position_ids, "segment_ids": segment_ids}
        told = {name: offered[name] for name in self.forward_keywords}
        if packed and not self._needs_mask:
            told.pop("attention_mask", None)
        logits = self._logits(self.module(input_ids, **told, **self._no_cache), input_ids)
        loss = None
        if labels is not None:
            loss = cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return CausalLMOutput(loss=loss, logits=logits)

    def _logits(self, answer: Any, input_ids: Tensor) -> Tensor:
        """The logits of an answer, checked."""
        first = answer[0] if isinstance(answer, tuple) and answer else answer
        logits = getattr(first, "logits", first)
        rows, length = input_ids.shape
        legal = f"legal: logits [rows, length, {self.config.vocab_size}], a tuple that begins with them, or .logits"
        where = f"model.target={self.config.target}"
        if not isinstance(logits, Tensor) or not logits.is_floating_point():
            kind = str(logits.dtype) if isinstance(logits, Tensor) else type(logits).__name__
            raise UsageError(f"{where}: forward answers with {kind}, no logits; {legal}")
        if logits.ndim != 3 or logits.shape[:2] != input_ids.shape:
            raise UsageError(
                f"{where}: forward answers input_ids [{rows}, {length}] with the shape {list(logits.shape)}; {legal}"
            )
        if logits.shape[2] < self.config.vocab_size:
            raise UsageError(f"{where}: logits of {logits.shape[2]} ids are too few; {legal}")
        return logits

    def gradient_checkpointing_enable(self, options: dict[str, Any]) -> None:
        """Pass it on.

        Raises:
            UsageError: the module has no such method.
        """
        enable = getattr(self.module, "gradient_checkpointing_enable", None)
        if enable is None:
            raise UsageError(
                f"model.gradient_checkpointing=true: {type(self.module).__name__} has no method "
                "gradient_checkpointing_enable; legal: false"
            )
        enable(options)

    def save_pretrained(self, folder: str) -> None:
        """Write ``weights.pt``, the module's own state dict, and ``model.json``, what it was made with."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        with replacing(Path(folder) / "weights.pt") as file:
            torch.save(self.module.state_dict(), file)
        made = {
            "target": self.config.target, "source_sha256": self.config.source_sha256, "kwargs": self.config.kwargs,
            "vocab_size": self.config.vocab_size, "context": self.config.context,
        }  # fmt: skip
        with replacing(Path(folder) / "model.json") as file:
            file.write((json.dumps(made, indent=2) + "\n").encode())

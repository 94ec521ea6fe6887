"""A model of several tasks as a model of one: its ids begin at their place in the shared vocabulary."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from .logits import keywords


class TaskView(nn.Module):
    """What metrics meet in a run of several tasks: ids of one task in, logits of its ids out.

    Args:
        model: a causal language model over the shared vocabulary.
        offset: where the task's ids begin there.
        size: how many they are.
    """

    def __init__(self, model: nn.Module, offset: int, size: int) -> None:
        super().__init__()
        self.model, self._offset, self._size = model, offset, size
        self.config: Any = getattr(model, "config", None)

    @property
    def forward_keywords(self) -> Collection[str]:
        """Those that the model takes."""
        return keywords(self.model)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        **known: Any,
    ) -> Any:
        """The model's output on the shifted ids; `logits` are those of the task's ids alone."""
        if attention_mask is not None:
            known["attention_mask"] = attention_mask
        if position_ids is not None:
            known["position_ids"] = position_ids
        out = self.model(input_ids=torch.as_tensor(input_ids) + self._offset, **known)
        out.logits = out.logits[..., self._offset : self._offset + self._size]
        return out

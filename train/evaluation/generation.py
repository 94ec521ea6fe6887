"""Batched generation: greedy or at a temperature, from prompts of different lengths, exact for every causal model.

Prompts are not padded. The prompts of a batch start together at position 0; when the shortest ends, generation begins,
and the longer ones are fed their own next tokens until they end as well. So every model sees exactly the tokens and
positions that it would see for each prompt alone: with absolute positions, rotary embeddings, and convolutions, into
which padding on the left would leak. Prompts of similar length are batched together, so this costs little.

Models with transformers' `generate` use it, with a key-value cache if they have one; other models are run on the whole
text at each step. All randomness comes from the caller's generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from synthshards.errors import UsageError

from .logits import check_context, device_of, evaluating


def generate(
    model: nn.Module,
    prompts: Sequence[Any],
    *,
    max_new_tokens: int | Sequence[int],
    stop_ids: Sequence[int] = (),
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    use_cache: bool | None = None,
    batch_size: int = 64,
) -> list[np.ndarray]:
    """Continue each prompt, greedily or at a temperature.

    Args:
        model: a causal language model: ``model(input_ids=…).logits`` is [batch, length, vocabulary].
        prompts: 1-D arrays, lists or tensors of token ids, at least one id each.
        max_new_tokens: the maximal number of tokens to generate: one number, or one per prompt.
        stop_ids: generation of a row ends after any of these (prompts may contain them).
        temperature: 0 takes the most likely token; otherwise tokens are drawn from softmax(logits / temperature).
        generator: source of randomness; it may be on another device than the model. The same state, prompts and
            batch_size give the same tokens.
        use_cache: whether to cache keys and values; None follows the model's configuration.
        batch_size: prompts per batch.

    Returns:
        For each prompt its new tokens, int64 [new tokens], including the stop id if there is one.

    Raises:
        UsageError: an empty prompt, an illegal limit or temperature, a temperature without a generator, or a prompt
            that with its new tokens is longer than the model's context.
    """
    rows = [np.asarray(p, np.int64) for p in prompts]
    limits = [max_new_tokens] * len(rows) if isinstance(max_new_tokens, int) else [int(n) for n in max_new_tokens]
    _check(model, rows, limits, temperature, generator, batch_size)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    out: list[np.ndarray] = [np.empty(0, np.int64)] * len(rows)
    with evaluating(model):
        for at in range(0, len(order), batch_size):
            chosen = order[at : at + batch_size]
            batch = _Batch.of([rows[i] for i in chosen], [limits[i] for i in chosen], stop_ids, device_of(model))
            choose = _chooser(temperature, generator)
            complete = _by_library if hasattr(model, "generate") else _by_full_passes
            for i, new in zip(chosen, batch.new_tokens(complete(model, batch, choose, use_cache)), strict=True):
                out[i] = new
    return out


def _check(
    model: nn.Module,
    rows: Sequence[np.ndarray],
    limits: Sequence[int],
    temperature: float,
    generator: torch.Generator | None,
    batch_size: int,
) -> None:
    if len(limits) != len(rows):
        raise UsageError(f"max_new_tokens: {len(limits)} limits for {len(rows)} prompts; legal: one, or one each")
    if batch_size < 1:
        raise UsageError(f"batch_size={batch_size}; legal: from 1")
    if not 0 <= temperature < float("inf"):
        raise UsageError(f"temperature={temperature}; legal: 0 (the likeliest token) or more")
    if temperature > 0 and generator is None:
        raise UsageError(f"temperature={temperature} draws tokens; legal: with a torch.Generator")
    for i, (row, limit) in enumerate(zip(rows, limits, strict=True)):
        if row.ndim != 1 or not row.size:
            raise UsageError(f"prompt {i} has shape {list(row.shape)}; legal: one dimension, at least one token")
        if limit < 1:
            raise UsageError(f"prompt {i}: max_new_tokens={limit}; legal: from 1")
        check_context(model, len(row) + limit - 1, f"prompt {i} and its new tokens but the last")


@dataclass(frozen=True, eq=False)
class _Batch:
    """Prompts that are generated from together.

    Attributes:
        ids: int64 [rows, longest prompt]; what lies behind a row's prompt is never looked at.
        lengths, ends: int64 [rows]: where each prompt ends, and where its new tokens must.
        stop_ids: int64, any number.
    """

    ids: Tensor
    lengths: Tensor
    ends: Tensor
    stop_ids: Tensor

    @staticmethod
    def of(rows: Sequence[np.ndarray], limits: Sequence[int], stop_ids: Sequence[int], device: torch.device) -> _Batch:
        lengths = torch.tensor([len(row) for row in rows])
        ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.from_numpy(row)
        stops = torch.tensor(list(stop_ids), dtype=torch.int64)
        return _Batch(*(t.to(device) for t in (ids, lengths, lengths + torch.tensor(limits), stops)))

    @property
    def start(self) -> Tensor:
        """What all prompts have: as many tokens of each as the shortest has."""
        return self.ids[:, : int(self.lengths.min())]

    @property
    def steps(self) -> int:
        """The most tokens behind `start` that any row may need."""
        return int(self.ends.max() - self.lengths.min())

    def forced(self, at: int, chosen: Tensor) -> Tensor:
        """The tokens [rows] at position `at`: those of prompts that reach so far, else those chosen."""
        if at >= self.ids.shape[1]:
            return chosen
        return torch.where(at < self.lengths, self.ids[:, at], chosen)

    def finished(self, ids: Tensor) -> Tensor:
        """Bool [rows]: which rows end with the last token of `ids`."""
        at, last = ids.shape[1], ids[:, -1]
        return (at >= self.ends) | ((at > self.lengths) & torch.isin(last, self.stop_ids))

    def new_tokens(self, ids: Tensor) -> Iterator[np.ndarray]:
        """Each row's own new tokens, up to its first stop id or its limit."""
        stops = self.stop_ids.tolist()
        for row, length, end in zip(ids.cpu().numpy(), self.lengths.tolist(), self.ends.tolist(), strict=True):
            new = row[length:end]
            stopped = np.isin(new, stops).nonzero()[0]
            yield new[: stopped[0] + 1] if len(stopped) else new


_Choose = Callable[[Tensor], Tensor]


def _chooser(temperature: float, generator: torch.Generator | None) -> _Choose:
    """The next tokens [rows] from logits [rows, vocabulary]."""

    def likeliest(logits: Tensor) -> Tensor:
        return logits.argmax(-1)

    def drawn(logits: Tensor) -> Tensor:
        # The largest of logit − log(an exponential variable) is a draw from the softmax (the Gumbel-max trick).
        assert generator is not None, "checked at the door"
        noise = torch.empty(logits.shape, device=generator.device).exponential_(generator=generator)
        return (logits.float() / temperature - noise.log().to(logits.device)).argmax(-1)

    return drawn if temperature > 0 else likeliest


def _by_full_passes(model: nn.Module, batch: _Batch, choose: _Choose, use_cache: bool | None) -> Tensor:
    """Token by token, each from a pass over all before it."""
    del use_cache
    ids = batch.start
    going = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
    while going.any():
        chosen = choose(model(input_ids=ids).logits[:, -1])
        ids = torch.cat([ids, batch.forced(ids.shape[1], chosen)[:, None]], 1)
        going &= ~batch.finished(ids)
    return ids


def _by_library(model: nn.Module, batch: _Batch, choose: _Choose, use_cache: bool | None) -> Tensor:
    """By transformers' `generate`."""
    if use_cache is None:
        use_cache = bool(getattr(getattr(model, "config", None), "use_cache", True))
    with _plain_settings(model):
        ids = cast(Any, model).generate(
            batch.start,
            max_new_tokens=batch.steps,
            do_sample=False,
            use_cache=use_cache,
            logits_processor=LogitsProcessorList([_Chosen(batch, choose)]),
            stopping_criteria=StoppingCriteriaList([_Finished(batch)]),
        )
    assert isinstance(ids, Tensor)
    return ids


@contextmanager
def _plain_settings(model: nn.Module) -> Iterator[None]:
    """The model without its own generation settings: its end token, penalties and such have no say here."""
    own = cast(Any, model).generation_config
    cast(Any, model).generation_config = GenerationConfig()
    try:
        yield
    finally:
        cast(Any, model).generation_config = own


class _Chosen(LogitsProcessor):  # type: ignore[misc]
    """Leaves `generate` no choice: only the token that is to come next keeps a score."""

    def __init__(self, batch: _Batch, choose: _Choose) -> None:
        self.batch, self.choose = batch, choose

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        tokens = self.batch.forced(input_ids.shape[1], self.choose(scores))
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)


class _Finished(StoppingCriteria):  # type: ignore[misc]
    """Tells `generate` which rows have ended."""

    def __init__(self, batch: _Batch) -> None:
        self.batch = batch

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return self.batch.finished(input_ids)

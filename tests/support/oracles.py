"""Small models for tests of generation and metrics: random ones, and oracles whose answers are known."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from synthshards.train.evaluation.metrics.common import row_windows


def tiny_gpt2(vocab: int, positions: int = 128, spread: float = 0.5, dropout: float = 0.5) -> GPT2LMHeadModel:
    """Random weights, spread so wide that every token is sometimes the likeliest."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocab, n_positions=positions, n_embd=32, n_layer=2, n_head=2, initializer_range=spread,
        resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def tiny_llama(vocab: int, positions: int = 128, spread: float = 0.5) -> LlamaForCausalLM:
    """The same with rotary positions and an untied head."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab, max_position_embeddings=positions, hidden_size=32, intermediate_size=48,
        num_hidden_layers=2, num_attention_heads=2, initializer_range=spread, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def taught(task: Any, vocab: int, steps: int) -> GPT2LMHeadModel:
    """A GPT-2 after so many steps on 16 rows each, which often guesses right."""
    model = tiny_gpt2(vocab, spread=0.02, dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for step in range(steps):
        window = next(row_windows(task.batch(1, "train", 16 * step, 16).rows(), 1 << 20))
        model(input_ids=window["input_ids"], labels=window["labels"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


class Oracle(nn.Module):
    """A model whose logits a function of its input ids [batch, length] says; it has no cache and no `generate`."""

    def __init__(self, says: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.says = says
        self.unused = nn.Parameter(torch.zeros(1))  # a model has some

    def forward(self, input_ids: Tensor, position_ids: Tensor | None = None) -> Any:
        return SimpleNamespace(logits=self.says(input_ids))


def sure_of(tokens: Tensor, vocab: int) -> Tensor:
    """Logits that put all on `tokens` [...]: float [..., vocab]."""
    return torch.full((*tokens.shape, vocab), -1e4).scatter_(-1, tokens[..., None], 0.0)


def peeking(vocab: int, change: Callable[[Tensor], Tensor] = lambda ids: ids) -> Oracle:
    """Predicts at each position the very next token of its input, after `change`: right wherever it changes nothing."""
    return Oracle(lambda ids: sure_of(change(torch.roll(ids, -1, 1)), vocab))


class Script(nn.Module):
    """Says what a dict of prompt → tokens tells, token by token; elsewhere token 0."""

    def __init__(self, script: dict[tuple[int, ...], list[int]], vocab: int) -> None:
        super().__init__()
        self.script, self.vocab = script, vocab
        self.longest = 0

    def forward(self, input_ids: Tensor) -> Any:
        self.longest = max(self.longest, input_ids.shape[1])
        said = torch.zeros_like(input_ids)
        for row, ids in enumerate(input_ids.tolist()):
            for prompt, answer in self.script.items():
                if tuple(ids[: len(prompt)]) == prompt:
                    done = len(ids) - len(prompt)
                    if done < len(answer):
                        said[row, -1] = answer[done]
        return SimpleNamespace(logits=sure_of(said, self.vocab))


def packed(rows: list[dict[str, Any]], length: int, carry: bool = False) -> dict[str, Tensor]:
    """Rows packed by hand into windows of `length` tokens: as in the paper, whose windows start with a fresh row.

    With `carry`, a row that the window's end cuts goes on in the next one.
    """
    names = ("input_ids", "labels", "segment_ids", "position_ids")
    windows: list[dict[str, list[int]]] = []
    for row in rows:
        left = [row["input_ids"].tolist(), row["labels"].tolist(), list(range(len(row["input_ids"])))]
        while left[0]:
            if not windows or len(windows[-1]["input_ids"]) == length:
                windows.append({name: [] for name in names})
            window = windows[-1]
            room = length - len(window["input_ids"])
            here, left = [part[:room] for part in left], [part[room:] for part in left]
            window["input_ids"] += here[0]
            window["labels"] += here[1]
            window["position_ids"] += here[2]
            window["segment_ids"] += [max(window["segment_ids"], default=0) + 1] * len(here[0])
            if not carry:
                break
    padding = {"input_ids": 0, "labels": -100, "segment_ids": 0, "position_ids": 0}
    return {
        name: torch.tensor([window[name] + [padding[name]] * (length - len(window[name])) for window in windows])
        for name in names
    }

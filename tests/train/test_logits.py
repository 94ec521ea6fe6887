"""Logits at chosen positions: of padded rows, of packed windows, of every kind of model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from oracles import Script, packed, tiny_gpt2, tiny_llama
from torch import Tensor

from synthshards.errors import UsageError
from synthshards.train.evaluation.generation import generate
from synthshards.train.evaluation.logits import evaluating, logits_at
from synthshards.train.evaluation.metrics.common import row_windows
from synthshards.train.models.canon_llama.config import CanonLlamaConfig
from synthshards.train.models.canon_llama.model import CanonLlamaForCausalLM
from synthshards.train.models.recurrent_olmo3.config import RecurrentOlmo3Config
from synthshards.train.models.recurrent_olmo3.model import RecurrentOlmo3ForCausalLM

VOCAB = 30


pytestmark = pytest.mark.usefixtures("one_thread")  # tests share the machine


def canon(vocab: int) -> Any:
    torch.manual_seed(0)
    config = CanonLlamaConfig(
        vocab_size=vocab, max_position_embeddings=128, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, initializer_range=0.5, canon="ABCD", bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return CanonLlamaForCausalLM(config)


def recurrent(vocab: int) -> Any:
    torch.manual_seed(0)
    config = RecurrentOlmo3Config(
        vocab_size=vocab, hidden_size=32, intermediate_size=48, num_attention_heads=2, num_key_value_heads=2,
        max_position_embeddings=128, initializer_range=0.5, eos_token_id=1,
    )  # fmt: skip
    return RecurrentOlmo3ForCausalLM(config)


MODELS: dict[str, Callable[[int], Any]] = {
    "gpt2": tiny_gpt2, "llama": tiny_llama, "canon": canon, "recurrent": recurrent,
}  # fmt: skip


def some_rows(count: int = 9) -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    out = []
    for length in rng.integers(4, 22, count):
        ids = rng.integers(0, VOCAB, length)
        out.append({"input_ids": ids, "labels": np.where(rng.random(length) < 0.5, ids, -100)})
    return out


def same(found: Tensor, right: Tensor) -> None:
    """Equal but for the order in which floats are summed; logits here are some units large."""
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-3)


def alone(model: Any, ids: np.ndarray) -> Tensor:
    return model(input_ids=torch.from_numpy(ids)[None]).logits[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", MODELS)
def test_padded_rows_have_the_logits_of_each_row_alone(name: str) -> None:
    model, rows, seen = MODELS[name](VOCAB), some_rows(), []
    with evaluating(model):
        for window in row_windows(rows, 50):
            wanted = window["labels"] != -100
            logits = logits_at(model, window, wanted)
            right = [alone(model, rows[i]["input_ids"])[rows[i]["labels"] != -100] for i in window["row"].tolist()]
            same(logits, torch.cat(right))
            seen.append(window)
    assert sorted(i for window in seen for i in window["row"].tolist()) == list(range(len(rows)))
    assert all(window["input_ids"].numel() <= 50 for window in seen)
    assert len(seen) > 1


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("carry", [False, True])
def test_packed_rows_do_not_see_one_another(name: str, carry: bool) -> None:
    model, rows = MODELS[name](VOCAB), some_rows()
    window = packed(rows, 24, carry)
    with evaluating(model):
        logits = logits_at(model, window, window["segment_ids"] > 0)
        at = 0
        for ids, segments, positions in zip(
            window["input_ids"], window["segment_ids"], window["position_ids"], strict=True
        ):
            for segment in range(1, int(segments.max()) + 1):
                inside = segments == segment
                piece, place = ids[inside][None], positions[inside][None]
                right = model(input_ids=piece, position_ids=place).logits[0]
                same(logits[at : at + piece.shape[1]], right)
                at += piece.shape[1]
    assert at == len(logits)
    assert int(window["segment_ids"].max()) > 1


@pytest.mark.parametrize("name", MODELS)
def test_without_borders_a_window_is_one_text(name: str) -> None:
    model = MODELS[name](VOCAB)
    window = packed(some_rows(), 24)
    with evaluating(model):
        logits = logits_at(model, window, window["segment_ids"] > 0, isolate=False)
        right = torch.cat([alone(model, ids.numpy()) for ids in window["input_ids"]])
        same(logits, right[window["segment_ids"].flatten() > 0])
        apart = logits_at(model, window, window["segment_ids"] > 0)
    assert not torch.allclose(logits, apart, atol=1e-2)


def test_only_positions_that_some_window_wants_reach_the_head() -> None:
    model = tiny_llama(VOCAB)
    seen = []
    model.lm_head.register_forward_hook(lambda _module, args, _out: seen.append(args[0].shape))
    wanted = torch.zeros(2, 20, dtype=torch.bool)
    wanted[0, 3] = wanted[1, 3] = wanted[1, 7] = True
    with evaluating(model):
        assert logits_at(model, {"input_ids": torch.ones(2, 20, dtype=torch.int64)}, wanted).shape == (3, VOCAB)
    assert seen == [(2, 2, 32)]


def test_a_model_of_ones_own_needs_only_input_ids() -> None:
    model = Script({}, VOCAB)
    window = packed(some_rows(), 24)
    wanted = window["segment_ids"] == 2
    with evaluating(model):
        assert logits_at(model, window, wanted, isolate=False).shape == (int(wanted.sum()), VOCAB)
        with pytest.raises(UsageError, match="Script: its forward takes no position_ids, by which packed rows stay"):
            logits_at(model, window, wanted)


def test_a_window_longer_than_the_context_is_refused() -> None:
    window = {"input_ids": torch.zeros(1, 129, dtype=torch.int64)}
    with pytest.raises(UsageError, match=r"^a window: 129 tokens, but the model has 128 positions; legal: 1\.\.128$"):
        logits_at(tiny_gpt2(VOCAB), window, torch.ones(1, 129, dtype=torch.bool))


@pytest.mark.parametrize("name", ["canon", "recurrent"])
def test_models_of_this_project_generate_alike_with_and_without_their_cache(name: str) -> None:
    model = MODELS[name](VOCAB)
    prompts = [row["input_ids"] for row in some_rows()]
    said = generate(model, prompts, max_new_tokens=8, batch_size=4)
    full = generate(model, prompts, max_new_tokens=8, use_cache=False)
    assert [new.tolist() for new in said] == [new.tolist() for new in full]
    with evaluating(model):
        for prompt, new in zip(prompts, said, strict=True):
            text = np.concatenate([prompt, new])
            assert alone(model, text[:-1]).argmax(-1)[len(prompt) - 1 :].tolist() == new.tolist()

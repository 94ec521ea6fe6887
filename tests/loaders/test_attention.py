"""Packed windows for models: a row's logits in a window are those of the row alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from transformers import LlamaConfig, LlamaForCausalLM

from synthshards import open_dataset
from synthshards.loaders.batching.attention import attention_mask_4d, flex_mask, varlen

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def batch() -> dict[str, Any]:
    ds = open_dataset("mano-10", L=3, num_examples=40)
    found: dict[str, Any] = next(iter(ds.batches(3, packing="best-fit", seq_len=64)))
    assert int(found["segment_ids"].max()) > 3
    assert int(found["segment_ids"].min()) == 0, "padding, too"
    return found


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=10_064, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        attn_implementation="sdpa",
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def rows(batch: dict[str, Any]) -> list[tuple[int, torch.Tensor]]:
    """(window, positions) of each row."""
    found = []
    for w, segments in enumerate(batch["segment_ids"]):
        found += [(w, (segments == s).nonzero().flatten()) for s in range(1, int(segments.max()) + 1)]
    return found


@torch.no_grad()
def test_with_the_4d_mask_rows_are_alone(batch: dict[str, Any], model: LlamaForCausalLM) -> None:
    for dtype in (torch.bool, torch.float32):
        mask = attention_mask_4d(batch["segment_ids"], dtype)
        assert mask.shape == (3, 1, 64, 64)
        together = model(batch["input_ids"], attention_mask=mask, position_ids=batch["position_ids"]).logits
        for w, at in rows(batch):
            alone = model(batch["input_ids"][w, at][None]).logits[0]
            torch.testing.assert_close(together[w, at], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_by_positions_alone_transformers_finds_the_borders(batch: dict[str, Any], model: LlamaForCausalLM) -> None:
    together = model(batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
    for w, at in rows(batch):
        alone = model(batch["input_ids"][w, at][None]).logits[0]
        torch.testing.assert_close(together[w, at], alone, atol=1e-5, rtol=1e-5)


def test_without_any_mask_rows_would_see_one_another(batch: dict[str, Any], model: LlamaForCausalLM) -> None:
    with torch.no_grad():
        together = model(batch["input_ids"], attention_mask=torch.ones(3, 64, dtype=torch.int64)).logits
        w, at = rows(batch)[1]
        alone = model(batch["input_ids"][w, at][None]).logits[0]
    assert not torch.allclose(together[w, at], alone, atol=1e-3)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")  # slow, and right
def test_flex_attention_is_that_of_the_4d_mask(batch: dict[str, Any]) -> None:
    q, k, v = torch.randn(3, 3, 2, 64, 16, generator=torch.Generator().manual_seed(0))
    block_mask = create_block_mask(flex_mask(batch["segment_ids"]), 3, None, 64, 64, device="cpu")
    found = flex_attention(q, k, v, block_mask=block_mask)
    mask = attention_mask_4d(batch["segment_ids"])
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_varlen_cuts_at_every_row(batch: dict[str, Any]) -> None:
    found = varlen(batch)
    listed = rows(batch)
    ends = found["cu_seq_lens_q"]
    assert ends.dtype == torch.int32
    assert ends.tolist() == found["cu_seq_lens_k"].tolist()
    assert len(ends) == len(listed) + 1
    for i, (w, at) in enumerate(listed):
        part = slice(int(ends[i]), int(ends[i + 1]))
        for name in ("input_ids", "position_ids"):
            assert found[name][0, part].tolist() == batch[name][w, at].tolist()
        assert found["labels"][0, part].tolist() == [-100, *batch["labels"][w, at].tolist()[1:]]
    assert found["max_length_q"] == found["max_length_k"] == max(len(at) for _, at in listed)

"""Packed windows for models: a row's logits in a window are those of the row alone."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from transformers import LlamaConfig, LlamaForCausalLM

from synthshards import open_dataset
from synthshards.loaders import attention_mask_4d, flex_mask, varlen

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
    return of("sdpa").eval()


def rows(batch: dict[str, Any]) -> list[tuple[int, torch.Tensor]]:
    """(window, positions) of each row."""
    found = []
    for w, segments in enumerate(batch["segment_ids"]):
        found += [(w, (segments == s).nonzero().flatten()) for s in range(1, int(segments.max()) + 1)]
    return found


def moved(batch: dict[str, Any], model: LlamaForCausalLM, **inputs: Any) -> float:
    """How far the logits of other rows move when the first row of each window is another one, and the past when the
    future is."""
    segments, found = batch["segment_ids"], []
    last = segments.amax(1, keepdim=True)
    for changed, kept in ((segments == 1, segments > 1), (segments == last, (segments > 0) & (segments < last))):
        other = batch["input_ids"].masked_fill(changed, 5001)
        with torch.no_grad():
            a, b = (
                model(input_ids=ids, position_ids=batch["position_ids"], **inputs).logits[kept].float()
                for ids in (batch["input_ids"], other)
            )
        found.append(float((a - b).abs().max()))
    return max(found)


def of(attention: str, precision: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """The model with this attention, in training mode: no dropout, but a cache where nothing is said."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=10_064, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        attn_implementation=attention,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(precision).train()


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention without its compiler, which takes a minute."""

    def attend(query: Tensor, key: Tensor, value: Tensor, training: bool = False, **options: Any) -> Any:
        return flex_attention(query, key, value, **options)

    monkeypatch.setattr("transformers.integrations.flex_attention.compile_friendly_flex_attention", attend)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex_attention"])
def test_by_the_4d_mask_nothing_moves_that_should_not(
    attention: str, precision: torch.dtype, batch: dict[str, Any]
) -> None:
    mask = attention_mask_4d(batch["segment_ids"])
    assert mask.shape == (3, 1, 64, 64)
    assert moved(batch, of(attention, precision), attention_mask=mask) == 0


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
def test_by_the_flex_mask_nothing_moves_that_should_not(batch: dict[str, Any]) -> None:
    block_mask = create_block_mask(flex_mask(batch["segment_ids"]), 3, None, 64, 64, device="cpu")
    assert moved(batch, of("flex_attention"), attention_mask=block_mask) == 0


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_what_docs_say_of_positions(attention: str, batch: dict[str, Any]) -> None:
    """Alone and without a cache they suffice; with a cache, or beside the batch's own mask, they do not."""
    model = of(attention)
    assert moved(batch, model, use_cache=False) == 0
    assert moved(batch, model) > 1e-4
    assert moved(batch, model, attention_mask=batch["attention_mask"], use_cache=False) > 1e-4


def test_a_mask_of_booleans_is_for_torch_alone(batch: dict[str, Any]) -> None:
    mask = attention_mask_4d(batch["segment_ids"], torch.bool)
    assert moved(batch, of("sdpa"), attention_mask=mask) == 0
    assert moved(batch, of("eager"), attention_mask=mask) > 1e-4


@torch.no_grad()
def test_with_the_4d_mask_rows_are_alone(batch: dict[str, Any], model: LlamaForCausalLM) -> None:
    mask = attention_mask_4d(batch["segment_ids"])
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


def test_the_helpers_are_public_and_torch_is_loaded_only_for_them() -> None:
    code = "import sys, synthshards.loaders as l; assert 'torch' not in sys.modules; from synthshards.loaders import "
    subprocess.run([sys.executable, "-c", code + "attention_mask_4d, flex_mask, varlen"], check=True)


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

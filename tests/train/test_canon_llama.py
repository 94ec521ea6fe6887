"""Llama with Canon layers: what they compute and where, what they never see, and that caches stay exact."""

from __future__ import annotations

import inspect
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import TINY, checkpointed, close, gradients, rows
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig, LlamaForCausalLM, LlamaModel

from synthshards.errors import UsageError
from synthshards.train.models import build_model
from synthshards.train.models.canon_llama.conv import CanonConv, CanonInputs, segment_gates
from synthshards.train.models.canon_llama.model import CanonLlamaConfig, CanonLlamaForCausalLM

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
}


pytestmark = pytest.mark.usefixtures("one_thread")  # tests share the machine


def llama(canon: str = "ABCD", **options: Any) -> CanonLlamaForCausalLM:
    torch.manual_seed(0)
    return CanonLlamaForCausalLM(CanonLlamaConfig(**{**SIZES, **options}, canon=canon)).eval()


def cache_in(output: Any) -> Any:
    """The cache that an output holds, under either of transformers' names."""
    names = [name for name in ("cache", "past_key_values") if output.get(name) is not None]
    return output[names[0]] if names else None


def with_cache(cache: Any) -> dict[str, Any]:
    """The cache as an argument, under the installed transformers' name."""
    return {"cache" if "cache" in inspect.signature(LlamaModel.forward).parameters else "past_key_values": cache}


# The convolution -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", [False, True])
@pytest.mark.parametrize("kernel", [1, 2, 4])
def test_the_layer_is_torchs_causal_depthwise_convolution(kernel: int, bias: bool, activation: bool) -> None:
    conv, x = CanonConv(6, kernel, bias, activation, "x"), torch.randn(3, 9, 6)
    assert (conv.bias is not None) == bias
    padded = functional.pad(x.transpose(1, 2), (kernel - 1, 0))
    mixed = functional.conv1d(padded, conv.weight, conv.bias, groups=6).transpose(1, 2)
    assert close(conv(x), x + (functional.silu(mixed) if activation else mixed), 1e-6)


def test_a_pass_in_two_parts_is_the_whole_pass() -> None:
    for cut in (1, 2, 3, 6):
        conv, x = CanonConv(6, 4, True, True, "x"), torch.randn(2, 9, 6)
        whole = conv(x)
        conv.inputs = CanonInputs(states={})
        assert close(torch.cat([conv(x[:, :cut]), conv(x[:, cut:])], 1), whole, 1e-6)


def test_gates_close_at_borders() -> None:
    segments = torch.tensor([[1, 1, 2, 2, 2, 0]])
    one, two = segment_gates(segments, 6, 3, torch.float32)
    assert one[0, :, 0].tolist() == [0, 1, 0, 1, 1, 0]
    assert two[0, :, 0].tolist() == [0, 0, 0, 0, 1, 0]
    # Of the last two tokens alone, with the four before them as cached ones.
    one, two = segment_gates(segments, 2, 3, torch.float32)
    assert (one[0, :, 0].tolist(), two[0, :, 0].tolist()) == ([1, 0], [1, 0])


# What it equals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("canon", ["", "A", "B", "C", "D", "ABCD"])
def test_zero_kernels_are_plain_llama(canon: str, attention: str) -> None:
    torch.manual_seed(1)
    plain = LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation=attention)).eval()
    model, ids = llama(canon, attn_implementation=attention), rows(2, 12)
    found = model.load_state_dict(plain.state_dict(), strict=False)
    kernels = {name for name, _ in model.named_parameters() if ".canon." in name}
    assert set(found.missing_keys) == kernels
    assert not found.unexpected_keys
    assert bool(canon) != close(model(input_ids=ids).logits, plain(input_ids=ids).logits)
    with torch.no_grad():
        for name in kernels:
            model.get_parameter(name).zero_()
    out, expected = model(input_ids=ids, labels=ids), plain(input_ids=ids, labels=ids)
    assert torch.equal(out.logits, expected.logits)
    assert torch.equal(out.loss, expected.loss)


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_points_are_where_the_paper_has_them(gated: bool, qk_norm: bool) -> None:
    """A block written out once more, from the weights: norm, A, projections, B, QK-norm, attention; norm, C, gate and
    up, D."""
    model = llama("ABCD", rope=False, num_hidden_layers=1, canon_bias=True, qk_norm=qk_norm, gated_mlp=gated)
    layer, start = model.model.layers[0], torch.randn(1, 7, 32)
    for name, weight in model.named_parameters():
        if name.endswith(".norm.weight"):
            weight.data.uniform_(0.5, 2.0)

    def convolved(y: Tensor, conv: Any) -> Tensor:
        padded = functional.pad(y.transpose(1, 2), (3, 0))
        return y + functional.conv1d(padded, conv.weight, conv.bias, groups=y.shape[-1]).transpose(1, 2)

    def normed(y: Tensor) -> Tensor:
        return y / (y.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()

    def projected(y: Tensor, module: Any) -> Tensor:
        return convolved(y @ module.weight.T, module.canon)

    attn, mlp = layer.self_attn, layer.mlp
    a = convolved(normed(start), layer.input_layernorm.canon)
    q, k, v = (projected(a, m).view(1, 7, -1, 8) for m in (attn.q_proj, attn.k_proj, attn.v_proj))
    if qk_norm:
        q, k = normed(q) * attn.q_proj.norm.weight, normed(k) * attn.k_proj.norm.weight
    heads = []
    for head in range(4):
        scores = q[:, :, head] @ k[:, :, head // 2].transpose(1, 2) / 8**0.5
        heads.append(scores.masked_fill(torch.ones(7, 7).tril() == 0, -torch.inf).softmax(-1) @ v[:, :, head // 2])
    x = start + torch.cat(heads, -1) @ attn.o_proj.weight.T
    c = convolved(normed(x), layer.post_attention_layernorm.canon)
    inner = projected(c, mlp.gate_proj if gated else mlp.up_proj)
    inner = functional.silu(inner) * (projected(c, mlp.up_proj) if gated else 1)
    expected = x + inner @ mlp.down_proj.weight.T
    assert close(model(inputs_embeds=start).logits, model.lm_head(model.model.norm(expected)))


def test_the_switches_at_their_defaults_draw_the_weights_of_the_first_release() -> None:
    """Counted before there were any: these sums are of what `model=llama` began with then."""
    model = build_model("llama", {**TINY["llama"], "canon": "ACD"}, seed=3).model
    names = ("embed_tokens", "0.input_layernorm.canon", "1.self_attn.o_proj", "1.mlp.gate_proj.canon", "norm")
    sums = [
        float(model.model.get_parameter(f"{'layers.' if n[0] in '01' else ''}{n}.weight").detach().sum()) for n in names
    ]
    assert sums == pytest.approx([-7.8988, -3.94381, -10.1784, -2.25366, 32.0], abs=1e-4)


def test_partial_rotary_turns_the_first_pairs_as_a_narrower_head_would() -> None:
    ids, places = rows(1, 8), torch.arange(5, 13)[None]
    partial, narrow = llama("", rope_share=0.5).model, llama("", head_dim=4).model
    x = torch.zeros(1, 8, 32)
    for table, whole, still in zip(partial.rotary_emb(x, places), narrow.rotary_emb(x, places), (1, 0), strict=True):
        first, second = table.chunk(2, -1)
        assert torch.equal(first, second)
        assert close(first[..., :2], whole[..., :2], 1e-6)
        assert torch.equal(first[..., 2:], torch.full((1, 8, 2), float(still)))
    for share in (0.25, 0.5, 0.75):
        model = llama("", rope_share=share)
        logits = [model(input_ids=ids, position_ids=one).logits for one in (places, places + 9, 2 * places)]
        assert close(logits[0], logits[1]), "only distances count"
        assert not close(logits[0], logits[2])
    none, nope = (llama("ABCD", **one)(input_ids=ids).logits for one in ({"rope_share": 0.0}, {"rope": False}))
    assert torch.equal(none, nope)


def test_only_the_points_asked_for_have_kernels() -> None:
    where = {
        "A": {"input_layernorm"},
        "B": {"q_proj", "k_proj", "v_proj"},
        "C": {"post_attention_layernorm"},
        "D": {"gate_proj", "up_proj"},
    }
    for canon in ("A", "B", "C", "D", "DA"):
        model = llama(canon, canon_kernel=3)
        held = {n.split(".")[-3]: p for n, p in model.named_parameters() if n.endswith("canon.weight")}
        assert set(held) == set().union(*(where[point] for point in canon))
        assert all(p.shape[1:] == (1, 3) for p in held.values())
        # As PyTorch starts a convolution: uniform in ±1/√3, filled to its edges.
        largest = max(float(p.detach().abs().max()) for p in held.values())
        assert 0.9 / 3**0.5 < largest <= 1 / 3**0.5


def test_without_rotary_embedding_positions_are_nothing() -> None:
    ids = rows(1, 8)
    for rope in (True, False):
        model = llama("", rope=rope)
        stretched = model(input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=torch.arange(0, 24, 3)[None])
        assert torch.equal(stretched.logits, model(input_ids=ids).logits) == (not rope)


# What it never sees --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("canon", ["A", "B", "C", "D", "ABCD"])
def test_no_token_sees_the_future(canon: str) -> None:
    model, ids = llama(canon), rows(1, 14)
    later = ids.clone()
    later[:, 9:] = rows(1, 5, seed=5)
    a, b = model(input_ids=ids).logits, model(input_ids=later).logits
    assert torch.equal(a[:, :9], b[:, :9])
    assert not close(a[:, 9:], b[:, 9:])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("canon", ["", "A", "B", "C", "D", "ABCD"])
def test_packed_rows_are_rows_alone(canon: str, attention: str) -> None:
    model = llama(canon, attn_implementation=attention)
    one, two = rows(1, 7), rows(1, 11, seed=2)
    packed = torch.cat([one, two, torch.zeros(1, 4, dtype=torch.int64)], 1)
    segments = torch.tensor([[1] * 7 + [2] * 11 + [0] * 4])
    alone = torch.cat([model(input_ids=one).logits, model(input_ids=two).logits], 1)
    positions = torch.cat([torch.arange(7), torch.arange(11), torch.arange(4)])[None]
    for extra in (
        {"segment_ids": segments},
        {"segment_ids": segments, "position_ids": positions},
        {"segment_ids": segments, "attention_mask": (segments != 0).long()},
    ):
        assert close(model(input_ids=packed, **extra).logits[:, :18], alone)
    assert not close(model(input_ids=packed).logits[:, :18], alone)


@pytest.mark.parametrize("rope", [True, False])
def test_padding_on_the_left_changes_nothing(rope: bool) -> None:
    model, one, two = llama(rope=rope), rows(1, 7), rows(1, 11, seed=2)
    mask = torch.tensor([[0] * 4 + [1] * 7, [1] * 11])
    both = torch.cat([functional.pad(one, (4, 0)), two])
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model(input_ids=both, attention_mask=mask, position_ids=places).logits
    assert close(logits[:1, 4:], model(input_ids=one).logits)
    assert close(logits[1:], model(input_ids=two).logits)


# Caches and generation -----------------------------------------------------------------------------------------------

SETTINGS = {"max_new_tokens": 9, "pad_token_id": 0}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"canon_bias": True, "canon_activation": True, "rope": False},
        {"rope_share": 0.5, "qk_norm": True, "gated_mlp": False},
    ],
)
@pytest.mark.parametrize("canon", ["", "A", "B", "C", "D", "ABCD"])
def test_cached_logits_are_those_of_full_passes(canon: str, options: dict[str, Any]) -> None:
    model, ids = llama(canon, **options), rows(2, 12)
    whole = model(input_ids=ids, use_cache=False)
    assert cache_in(whole) is None
    for cuts in ([0, 5, 6, 7, 12], [0, 1, 2, 12], [0, 11, 12]):
        parts, cache = [], None
        for start, stop in pairwise(cuts):
            out = model(input_ids=ids[:, start:stop], use_cache=True, **with_cache(cache))
            cache = cache_in(out)
            parts.append(out.logits)
        assert close(torch.cat(parts, 1), whole.logits)


def test_generation_with_a_cache_is_generation_without() -> None:
    model, prompt = llama(), rows(3, 6)
    mask = torch.ones_like(prompt)
    mask[0, :3] = 0
    for settings in ({"do_sample": False}, {"do_sample": False, "num_beams": 3}):
        cached, full = (
            model.generate(prompt, attention_mask=mask, use_cache=cache, **settings, **SETTINGS)
            for cache in (True, False)
        )
        assert torch.equal(cached, full)
        assert cached.shape == (3, 15)
    alone = model.generate(prompt[:1, 3:], use_cache=True, do_sample=False, **SETTINGS)
    greedy = model.generate(prompt, attention_mask=mask, do_sample=False, **SETTINGS)
    assert torch.equal(alone[0], greedy[0, 3:])


def test_the_cache_follows_its_rows() -> None:
    model, ids = llama(), rows(2, 8)
    whole = model(input_ids=ids).logits[:, -1:]

    def half() -> Any:
        return cache_in(model(input_ids=ids[:, :7], use_cache=True))

    cache = half()
    cache.reorder_cache(torch.tensor([1, 1]))
    assert close(model(input_ids=ids[[1, 1], 7:], **with_cache(cache)).logits, whole[[1, 1]])
    cache = half()
    cache.batch_repeat_interleave(2)
    assert close(model(input_ids=ids[[0, 0, 1, 1], 7:], **with_cache(cache)).logits, whole[[0, 0, 1, 1]])
    cache.batch_select_indices(torch.tensor([3]))
    assert cache.states["0.A"].shape == (1, 3, 32)
    cache.reset()
    assert not cache.states
    with pytest.raises(UsageError, match="cannot be cut back"):
        half().crop(3)


def test_caches_without_convolution_states_are_refused() -> None:
    model, ids = llama(), rows(1, 6)
    plain = llama("")
    old = cache_in(plain(input_ids=ids, use_cache=True))
    with pytest.raises(UsageError, match="DynamicCache without convolution states"):
        model(input_ids=ids[:, -1:], **with_cache(old))
    empty = model(input_ids=ids, **with_cache(DynamicCache(config=model.config)))
    assert type(cache_in(empty)).__name__ == "CanonCache"
    with pytest.raises(UsageError, match="segment_ids are for whole packed windows"):
        model(input_ids=ids, segment_ids=torch.ones_like(ids), **with_cache(cache_in(empty)))
    assert cache_in(model.train()(input_ids=ids)) is None, "training keeps no cache"


# A model like any other ----------------------------------------------------------------------------------------------


def test_gradient_checkpointing_changes_no_gradient() -> None:
    """Two passes before one backward, of different borders: what is recomputed must see its own."""
    model, ids = llama(canon_bias=True).train(), rows(2, 9)
    segments = torch.tensor([[1] * 4 + [2] * 5] * 2)

    def both() -> dict[str, Tensor]:
        model.zero_grad()
        first = model(input_ids=ids, labels=ids, segment_ids=segments).loss
        (first + model(input_ids=ids, labels=ids).loss).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    plain = both()
    calls: list[int] = []
    checkpointed(model).model.layers[0].mlp.up_proj.register_forward_hook(lambda *_: calls.append(1))
    again = both()
    assert len(calls) == 4
    assert all(close(again[name], value, 1e-6) for name, value in plain.items())
    assert len(plain) == len(list(model.parameters()))
    assert gradients(model, input_ids=ids, labels=ids)["model.layers.0.input_layernorm.canon.weight"].any()


def test_saved_and_loaded_by_the_auto_classes_it_is_the_same(tmp_path: Path) -> None:
    options = {
        "canon_kernel": 3, "canon_bias": True, "canon_activation": True, "rope": False, "rope_share": 0.5,
        "qk_norm": True, "gated_mlp": False,
    }  # fmt: skip
    model, ids = llama("DB", **options), rows(2, 10)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".canon." in name:
                p.normal_()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is CanonLlamaForCausalLM
    assert {name: getattr(loaded.config, name) for name in options} == options
    assert loaded.config.canon == "DB"
    assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"canon": "AE"}, "canon='AE' is not legal; legal: a subset of ABCD (A before attention, after its norm; B on"),
        ({"canon": "AA"}, "canon='AA' is not legal"),
        ({"canon": None}, "canon=None is not legal"),
        ({"rope_share": 0.3}, "rope_share=0.3 rotates 2.4 of the 8 channels of a head; legal: an even number of them, "
                              "such as rope_share=0.5"),
        ({"rope_share": 1.5}, "rope_share=1.5 rotates 12 of the 8 channels"),
        ({"canon_kernel": 0}, "canon_kernel=0 is not legal; legal: int from 1"),
    ],
)  # fmt: skip
def test_illegal_configurations_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        CanonLlamaConfig(**SIZES, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)

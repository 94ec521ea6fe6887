"""The depth-recurrent Olmo3: what it equals, what its options do, and that it lives like a model of transformers."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import OLMO3, checkpointed, close, gradients, plain_olmo3, recurrent, rows
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from synthshards.errors import UsageError
from synthshards.train.models.recurrent_olmo3.model import RecurrentOlmo3Config, RecurrentOlmo3ForCausalLM

pytestmark = pytest.mark.usefixtures("one_thread")  # tests share the machine


# What it equals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_one_loop_is_the_plain_olmo3(attention: str) -> None:
    model = recurrent(num_loops=1, attn_implementation=attention)
    plain, ids = plain_olmo3(model), rows(3, 20)
    assert model.config._attn_implementation == attention
    assert torch.equal(model(input_ids=ids).logits, plain(input_ids=ids).logits)
    assert torch.equal(model(input_ids=ids, labels=ids).loss, plain(input_ids=ids, labels=ids).loss)
    # The same under padding and under positions that start anew inside a row.
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    assert torch.equal(
        model(input_ids=ids, attention_mask=mask).logits[:, 5:], plain(input_ids=ids, attention_mask=mask).logits[:, 5:]
    )
    positions = torch.cat([torch.arange(8), torch.arange(12)])[None]
    assert torch.equal(
        model(input_ids=ids, position_ids=positions).logits, plain(input_ids=ids, position_ids=positions).logits
    )
    assert not close(model(input_ids=ids, position_ids=positions).logits, plain(input_ids=ids).logits)


def test_more_loops_are_the_loop_layers_again() -> None:
    """T = 3 on 4 layers is the plain Olmo3 of 1 + 3·2 + 1 layers with the loop's weights three times."""
    model = recurrent(num_loops=3, layer_types=["full_attention"] * 4)
    unrolled = recurrent(num_loops=1, loop_layers=6, num_hidden_layers=8, layer_types=["full_attention"] * 8)
    order = [0, 1, 2, 1, 2, 1, 2, 3]
    weights = {k: v for k, v in model.state_dict().items() if ".layers." not in k}
    for new, old in enumerate(order):
        for name, value in model.model.layers[old].state_dict().items():
            weights[f"model.layers.{new}.{name}"] = value
    unrolled.load_state_dict(weights)
    ids = rows(2, 15)
    assert torch.equal(model(input_ids=ids).logits, plain_olmo3(unrolled)(input_ids=ids).logits)


def test_injection_is_a_linear_map_of_source_and_state() -> None:
    model, ids = recurrent(num_loops=2, inject_input_each_step=True), rows(2, 10)
    with torch.no_grad():
        zero, one = torch.zeros(32, 32), torch.eye(32)
        model.model.inject.weight.copy_(torch.cat([zero, one], 1))  # keep the state: as without injection
        without = recurrent(num_loops=2)
        without.load_state_dict({k: v for k, v in model.state_dict().items() if "inject" not in k})
        assert torch.equal(model(input_ids=ids).logits, without(input_ids=ids).logits)
        model.model.inject.weight.copy_(torch.cat([one, zero], 1))  # the source alone: every step is the first
        without.config.num_loops = 1
        assert torch.equal(model(input_ids=ids).logits, without(input_ids=ids).logits)


def test_cross_attention_takes_keys_and_values_from_the_source() -> None:
    ids = rows(2, 12)
    model = recurrent(num_loops=2, loop_attention_mode="cross")
    layer, seen = model.model.layers[2], {}

    def look(_: Any, args: Any, kwargs: Any, output: Any) -> None:
        seen.update(state=args[0], source=args[1], output=output, **kwargs)

    handle = layer.register_forward_hook(look, with_kwargs=True)
    with torch.no_grad():
        model(input_ids=ids)
    handle.remove()
    # Written out once more, one head at a time, from the layer's own weights.
    attn, mask = layer.self_attn, torch.ones(12, 12).tril(0).triu(-5)
    cos, sin = (t[0] for t in seen["position_embeddings"])

    def rotated(x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat((-b, a), -1) * sin

    q = attn.q_norm(attn.q_proj(seen["state"])).view(2, 12, 4, 8)
    k = attn.k_norm(attn.k_proj(seen["source"])).view(2, 12, 2, 8)
    v = attn.v_proj(seen["source"]).view(2, 12, 2, 8)
    heads = []
    for head in range(4):
        scores = rotated(q[:, :, head]) @ rotated(k[:, :, head // 2]).transpose(1, 2) / math.sqrt(8)
        heads.append(scores.masked_fill(mask == 0, -math.inf).softmax(-1) @ v[:, :, head // 2])
    state = seen["state"] + layer.post_attention_layernorm(attn.o_proj(torch.cat(heads, -1)))
    assert close(seen["output"], state + layer.post_feedforward_layernorm(layer.mlp(state)))
    assert not close(seen["state"], seen["source"])
    model.config.loop_attention_mode = "self"
    assert not close(model.model.layers[2](seen["state"], None, **_rest(seen)), seen["output"])


def _rest(seen: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in seen.items() if k not in ("state", "source", "output")}


def test_cross_and_self_agree_in_the_first_layer_of_the_first_step() -> None:
    """There the state is the source, so both read the same keys: one loop layer, one step."""
    options = {"num_loops": 1, "loop_layers": 1, "decoder_layers": 2}
    model, ids = recurrent(**options), rows(2, 9)
    crossed = recurrent(**options, loop_attention_mode="cross")
    assert close(model(input_ids=ids).logits, crossed(input_ids=ids).logits, 1e-6)


# Masks, padding, packing ---------------------------------------------------------------------------------------------

KINDS = [
    {"num_loops": 3},
    {"num_loops": 3, "loop_attention_mode": "cross", "inject_input_each_step": True},
    {"num_loops": 2, "random_init_loop_state": True, "inject_input_each_step": True},
]


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_and_padded_rows_are_rows_alone(options: dict[str, Any], attention: str) -> None:
    model = recurrent(**options, attn_implementation=attention)
    one, two = rows(1, 7), rows(1, 11, seed=2)
    packed = torch.cat([one, two, torch.zeros(1, 4, dtype=torch.int64)], 1)
    segments = torch.tensor([[1] * 7 + [2] * 11 + [0] * 4])
    alone = torch.cat([model(input_ids=one).logits, model(input_ids=two).logits], 1)
    positions = torch.cat([torch.arange(7), torch.arange(11), torch.arange(4)])[None]
    for extra in (
        {"segment_ids": segments, "position_ids": positions},
        {"segment_ids": segments},
        {"segment_ids": segments.masked_fill(segments == 0, 2), "attention_mask": (segments != 0).long()},
        {"position_ids": positions},
    ):
        assert close(model(input_ids=packed, **extra).logits[:, :18], alone)
    assert not close(model(input_ids=packed).logits[:, :18], alone)

    left = torch.tensor([[0] * 4 + [1] * 7, [1] * 11])
    both = torch.cat([functional.pad(one, (4, 0)), two])
    places = (left.cumsum(-1) - 1).clamp(min=0)
    padded = model(input_ids=both, attention_mask=left, position_ids=places).logits
    assert close(torch.cat([padded[:1, 4:], padded[1:]], 1), alone)


def test_padding_inside_a_segment_is_never_seen() -> None:
    model, ids = recurrent(num_loops=2), rows(1, 9)
    other = ids.clone()
    other[:, 3:5] = rows(1, 2, seed=4)
    inputs = {"segment_ids": torch.ones_like(ids), "attention_mask": torch.tensor([[1, 1, 1, 0, 0, 1, 1, 1, 1]])}
    a, b = (model(input_ids=x, **inputs).logits for x in (ids, other))
    assert torch.equal(a[:, 5:], b[:, 5:])
    assert not torch.equal(a[:, 3:5], b[:, 3:5])


def test_a_row_carried_over_keeps_its_positions_and_its_border() -> None:
    """Segments decide what is seen, positions only how it is rotated: rotary attention knows differences alone."""
    model, ids = recurrent(num_loops=2), rows(1, 16)
    segments = torch.tensor([[1] * 6 + [2] * 10])
    carried = torch.cat([torch.arange(9, 15), torch.arange(10)])[None]
    both = [
        model(input_ids=ids, segment_ids=segments, position_ids=p).logits
        for p in (carried, torch.cat([torch.arange(6), torch.arange(10)])[None])
    ]
    assert close(*both, 1e-4)
    other = ids.clone()
    other[:, :6] = rows(1, 6, seed=3)
    changed = model(input_ids=other, segment_ids=segments, position_ids=carried).logits
    assert torch.equal(changed[:, 6:], both[0][:, 6:])
    assert not torch.equal(changed[:, :6], both[0][:, :6])


@pytest.mark.parametrize("options", KINDS)
def test_no_token_sees_the_future(options: dict[str, Any]) -> None:
    model, ids = recurrent(**options), rows(1, 14)
    later = ids.clone()
    later[:, 9:] = rows(1, 5, seed=5)
    a, b = model(input_ids=ids).logits, model(input_ids=later).logits
    assert torch.equal(a[:, :9], b[:, :9])
    assert not close(a[:, 9:], b[:, 9:])


# A model like any other ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize(
    "options", [{"loop_attention_mode": "cross", "inject_input_each_step": True}, {"act_enabled": True}]
)
def test_gradient_checkpointing_changes_no_gradient(options: dict[str, Any], reentrant: bool) -> None:
    ids = rows(2, 8)
    model = recurrent(num_loops=2, **options).train()
    plain = gradients(model, input_ids=ids, labels=ids)
    calls = []
    checkpointed(model)
    if reentrant:
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": True})
    hook = model.model.layers[1].self_attn.q_proj.register_forward_hook(lambda *_: calls.append(1))
    again = gradients(model, input_ids=ids, labels=ids)
    hook.remove()
    assert len(calls) == 4, "each of the two steps runs its layer again in the backward pass"
    assert plain.keys() == again.keys()
    assert all(close(again[name], value, 1e-6) for name, value in plain.items())


def test_saved_and_loaded_by_the_auto_classes_it_is_the_same(tmp_path: Path) -> None:
    options = {
        "num_loops": 3, "act_enabled": True, "inject_input_each_step": True, "random_init_loop_state": True,
        "loop_attention_mode": "cross", "tbptt_steps": 2, "train_recursion_mode": "poisson",
        "poisson_mode_offset": 0.5, "act_kl_weight": 0.2, "recursion_seed": 9, "random_init_std": 0.7,
    }  # fmt: skip
    model, ids = recurrent(**options), rows(2, 10)
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is RecurrentOlmo3Config
    assert {name: getattr(config, name) for name in options} == options
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is RecurrentOlmo3ForCausalLM
    a, b = model(input_ids=ids, labels=ids), loaded(input_ids=ids, labels=ids)
    assert torch.equal(a.logits, b.logits)
    assert torch.equal(a.loss, b.loss)
    assert set(a.keys()) == {"loss", "logits", "num_steps", "exit_probabilities", "step_losses", "exit_kl"}


def test_rotary_frequencies_are_the_files_whichever_transformers_wrote_it() -> None:
    model, ids = recurrent(), rows(1, 10)
    theta = {"rope_type": "default", "rope_theta": 500.0}
    forms: list[dict[str, Any]] = [
        {},
        {"rope_theta": 10_000.0, "rope_scaling": None},
        {"rope_theta": 500.0, "rope_scaling": None},  # as 4.57 writes it
        {"rope_parameters": {"full_attention": theta, "sliding_attention": theta}},  # as 5.24 does
        {"rope_parameters": theta},  # as 5.0 does
    ]
    logits = []
    for form in forms:
        other = recurrent(**form)
        other.load_state_dict(model.state_dict())
        logits.append(other(input_ids=ids).logits)
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[2], logits[3])
    assert torch.equal(logits[2], logits[4])
    assert not close(logits[0], logits[2])


def test_copies_and_tuples_work() -> None:
    model, ids = recurrent(num_loops=2), rows(1, 6)
    assert torch.equal(copy.deepcopy(model)(input_ids=ids).logits, model(input_ids=ids).logits)
    loss, logits, *_ = model(input_ids=ids, labels=ids, return_dict=False)
    assert loss.ndim == 0
    assert logits.shape == (1, 6, 64)
    embeds = model.model.embed_tokens(ids)
    assert torch.equal(model(inputs_embeds=embeds).logits, logits)
    assert close(model(input_ids=ids, logits_to_keep=2).logits, logits[:, -2:])
    assert close(model(input_ids=ids, logits_to_keep=torch.tensor([1, 3])).logits, logits[:, [1, 3]])
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model(input_ids=ids, inputs_embeds=embeds)


@pytest.mark.parametrize("options", KINDS)
def test_generation_is_full_passes(options: dict[str, Any]) -> None:
    model = recurrent(**options)
    prompt = rows(2, 5)
    mask = torch.ones_like(prompt)
    mask[0, :2] = 0
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    said = model.generate(prompt, attention_mask=mask, use_cache=True, **settings)
    assert torch.equal(said, model.generate(prompt, attention_mask=mask, **settings))
    assert model.generate(prompt, attention_mask=mask, use_cache=True, num_beams=2, **settings).shape == (2, 11)
    assert said.shape == (2, 11)
    for row, start in enumerate((2, 0)):
        ids = prompt[row : row + 1, start:]
        for _ in range(6):
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], 1)
        assert torch.equal(ids[0], said[row, start:])


def test_a_cache_is_refused() -> None:
    from transformers import DynamicCache

    model = recurrent()
    for name in ("cache", "past_key_values"):
        with pytest.raises(UsageError, match="no key-value cache"):
            model(input_ids=rows(1, 3), **{name: DynamicCache()})
    assert model.config.use_cache is False
    assert getattr(model(input_ids=rows(1, 3), use_cache=True), "past_key_values", None) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loop_layers": 3}, "loop_layers 3 + decoder_layers 1 = 5 layers, but num_hidden_layers is 4"),
        ({"loop_layers": 1}, "= 3 layers, but num_hidden_layers is 4; legal: groups that add up to it"),
        ({"encoder_layers": 3, "loop_layers": 0}, "loop_layers=0 is not legal; legal: int from 1"),
        ({"encoder_layers": -1, "decoder_layers": 3}, "encoder_layers=-1 is not legal; legal: int from 0"),
        ({"num_loops": 0}, "num_loops=0 is not legal; legal: int from 1"),
        ({"tbptt_steps": -1}, "tbptt_steps=-1 is not legal"),
        ({"loop_attention_mode": "corss"}, "no loop_attention_mode 'corss'; did you mean 'cross'?; legal: self, cross"),
        ({"train_recursion_mode": "random"}, "no train_recursion_mode 'random'; legal: fixed, poisson"),
        ({"act_kl_weight": -0.1}, "act_kl_weight=-0.1 is not legal; legal: 0 or more"),
        ({"random_init_std": math.nan}, "random_init_std=nan is not legal"),
        ({"recursion_seed": 1 << 64}, "recursion_seed=18446744073709551616; legal: int 0..2^64-1"),
    ],
)  # fmt: skip
def test_illegal_configurations_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        RecurrentOlmo3Config(**{**OLMO3, **options})
    assert message in str(error.value)
    assert "\n" not in str(error.value)

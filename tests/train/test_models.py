"""Models by name: options and their YAML files, seeds, what is refused before training, hub and local folders."""

from __future__ import annotations

import doctest
import warnings
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec import to_builtins
from omegaconf import DictConfig, OmegaConf
from tiny_models import TINY, rows, same, weights

from synthshards.errors import UsageError
from synthshards.train import models as train_models
from synthshards.train.evaluation.logits import accepted
from synthshards.train.models import MODELS, attention_inputs, build_model, parse_options
from synthshards.train.models.canon_llama import model as canon
from synthshards.train.models.recurrent_olmo3 import model as recurrent_olmo3

pytestmark = pytest.mark.usefixtures("one_thread")  # tests share the machine


# Options -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_the_yaml_file_holds_every_option_and_its_default(name: str) -> None:
    text = files("synthshards.train").joinpath("conf", "model", f"{name}.yaml").read_text()
    stored = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(stored, dict)
    assert stored.pop("name") == name
    assert stored == to_builtins(MODELS[name].Options())


def test_options_come_as_hydra_gives_them() -> None:
    config = OmegaConf.load(Path(train_models.__file__).parents[1] / "conf/model/recurrent_olmo3.yaml")
    assert isinstance(config, DictConfig)
    config.merge_with_dotlist(["recurrent.act.enabled=true", "recurrent.random_init_std=1", "hf.num_hidden_layers=4"])
    name = config.pop("name")
    parsed = parse_options(name, config)
    assert to_builtins(parsed)["recurrent"]["act"] == {"enabled": True, "kl_weight": 0.01}
    assert to_builtins(parsed)["recurrent"]["random_init_std"] == 1.0
    assert parse_options(name, to_builtins(parsed)) == parsed


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gpt2", {}, "no model 'gpt2'; did you mean 'tiny_gpt2'?; legal: tiny_gpt2, from_pretrained, llama"),
        ("tiny_gpt2", {"n_layers": 3}, "tiny_gpt2: no parameter 'n_layers'; did you mean 'n_layer'?"),
        ("tiny_gpt2", {"n_head": 3}, "tiny_gpt2: n_head=3 does not divide n_embd=128; legal: a divisor of it"),
        ("tiny_gpt2", {"n_layer": 0}, "n_layer=0 is not legal"),
        ("tiny_gpt2", {"attn_implementation": "fast"}, "legal: 'eager' 'sdpa' 'flex_attention' or null"),
        ("llama", {"size": "12x768"}, "size='12x768' is not legal"),
        ("llama", {"size": "2L100D"}, "llama: head_dim=64 does not divide width of size=100"),
        ("llama", {"size": "2L9D", "head_dim": 3}, "llama: head_dim=3 is odd; legal: even numbers"),
        ("llama", {"rope_share": 0.3}, "llama: rope_share=0.3 rotates 19.2 of the 64 channels of a head"),
        ("llama", {"mlp": "swiglu"}, "mlp='swiglu' is not legal"),
        ("llama", {"canon": "ABX"}, "llama: canon='ABX' is not legal; legal: a subset of ABCD"),
        ("recurrent_olmo3", {"recurrent": {"loop_layers": 3}}, "= 5, but model.hf.num_hidden_layers is 4"),
        ("recurrent_olmo3", {"hf": {"num_hidden_layers": 6}}, "= 4, but model.hf.num_hidden_layers is 6"),
        ("recurrent_olmo3", {"recurrent": 3}, "model.recurrent=3 is not legal; legal: a group of options"),
        ("recurrent_olmo3", {"recurrent": {"act": {"on": True}}}, "model.recurrent.act: no parameter 'on'"),
        ("recurrent_olmo3", {"recurrent": {"loop_attention_mode": "x"}}, "legal: 'self' 'cross'"),
        ("recurrent_olmo3", {"hf": {"num_attention_heads": 3}}, "num_attention_heads=3 does not divide hidden_"),
        ("recurrent_olmo3", {"hf": {"num_key_value_heads": 3}}, "num_key_value_heads=3 does not divide num_attention_"),
        ("recurrent_olmo3", {"hf": {"num_attention_heads": 128}}, "hidden_size / num_attention_heads is odd"),
        ("recurrent_olmo3", {"hf": {"vocab_size": 9000}}, "eos_token_id=9500 is outside the vocabulary; legal: 0.."),
        ("recurrent_olmo3", {"hf": {"hidden_act": "sillu"}}, "no hidden_act 'sillu'; did you mean 'silu'?"),
        ("recurrent_olmo3", {"hf": {"use_cache": True}}, "use_cache=True is not legal; legal: false"),
        ("from_pretrained", {}, "model.name_or_path is not set; legal: a hub name or a local folder"),
        ("from_pretrained", {"name_or_path": "/nowhere/at/all"}, "no model '/nowhere/at/all': "),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_one_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        build_model(name, options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tiny_gpt2", {"vocab_size": 9700}, "model.vocab_size=9700 is too small: the largest token id of depo is 9700; "
                                            "legal: 9701 or more"),
        ("llama", {"vocab_size": 64}, "model.vocab_size=64 is too small"),
        ("recurrent_olmo3", {"hf": {"vocab_size": 9501}}, "model.hf.vocab_size=9501 is too small"),
        ("tiny_gpt2", {"n_positions": 1200}, "model.n_positions=1200 is too short: the longest row of depo has 1201 "
                                             "tokens; legal: 1201 or more"),
        ("llama", {"max_position_embeddings": 8}, "model.max_position_embeddings=8 is too short"),
        ("recurrent_olmo3", {"hf": {"max_position_embeddings": 8}}, "model.hf.max_position_embeddings=8 is too short"),
    ],
)  # fmt: skip
def test_a_task_that_does_not_fit_is_refused_before_a_weight_is_made(
    name: str, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setitem(MODELS, name, replace(MODELS[name], make=lambda *_: made.append(name)))
    with pytest.raises(UsageError) as error:
        build_model(name, options, task="depo", largest_id=9700, longest_row=1201)
    assert message in str(error.value)
    assert not made


def test_what_just_fits_is_built() -> None:
    built = build_model("tiny_gpt2", TINY["tiny_gpt2"], task="depo", largest_id=63, longest_row=64)
    assert (built.vocab_size, built.context, built.special, built.copied) == (64, 64, None, ())
    assert built.model.training
    assert {p.dtype for p in built.model.parameters()} == {torch.float32}
    assert built.model.loss_type == "ForCausalLM", "else transformers warns at the first loss"


@pytest.mark.parametrize(
    ("size", "layers", "heads", "mlp"),
    [("12L768D", 12, 12, 2048), ("12L512D", 12, 8, 1536), ("8L768D", 8, 12, 2048), ("8L512D", 8, 8, 1536)],
)
def test_llama_has_the_papers_shapes(size: str, layers: int, heads: int, mlp: int) -> None:
    config = MODELS["llama"].configure(parse_options("llama", {"size": size}), 0)
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (layers, heads, heads)
    assert config.hidden_size == 64 * heads
    assert config.head_dim == 64
    assert config.intermediate_size == mlp
    assert not config.tie_word_embeddings


def test_a_plain_mlp_has_the_width_and_activation_of_gpt2() -> None:
    for name in ("llama", "mixer"):
        config = MODELS[name].configure(parse_options(name, {"size": "8L512D", "mlp": "plain"}), 0)
        assert (config.intermediate_size, config.hidden_act, config.gated_mlp) == (2048, "gelu_pytorch_tanh", False)
        assert MODELS[name].configure(parse_options(name, {"size": "8L512D"}), 0).hidden_act == "silu"


def test_the_default_is_the_recurrent_model_with_the_sizes_of_its_file() -> None:
    built = build_model()
    config = built.model.config
    assert config.model_type == "recurrent_olmo3"
    assert (built.vocab_size, built.context) == (10064, 2048)
    assert (config.hidden_size, config.intermediate_size, config.num_hidden_layers) == (128, 512, 4)
    assert (config.num_attention_heads, config.num_key_value_heads, config.hidden_act) == (4, 4, "silu")
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (0, 9500, 0)
    assert (config.rms_norm_eps, config.initializer_range, config.attention_dropout) == (1e-5, 0.02, 0.0)
    assert not config.tie_word_embeddings
    assert not config.attention_bias
    assert not config.use_cache
    gpt2 = build_model("tiny_gpt2").model.config
    assert (gpt2.vocab_size, gpt2.n_positions, gpt2.n_embd, gpt2.n_layer, gpt2.n_head) == (10064, 2048, 128, 2, 4)


def test_every_option_of_the_recurrence_reaches_the_model() -> None:
    options = {
        "encoder_layers": 0, "loop_layers": 1, "decoder_layers": 2, "num_loops": 3, "inject_input_each_step": True,
        "random_init_loop_state": True, "random_init_std": 0.25, "loop_attention_mode": "cross", "tbptt_steps": 2,
        "train_recursion_mode": "poisson", "poisson_mode_offset": 0.5,
    }  # fmt: skip
    hf = {**TINY["recurrent_olmo3"]["hf"], "num_hidden_layers": 3, "rope_theta": 500.0, "tie_word_embeddings": True}
    act = {"enabled": True, "kl_weight": 0.5}
    built = build_model("recurrent_olmo3", {"hf": hf, "recurrent": {**options, "act": act}}, seed=11)
    config = built.model.config
    assert {name: getattr(config, name) for name in options} == options
    assert (config.act_enabled, config.act_kl_weight, config.recursion_seed) == (True, 0.5, 11)
    assert built.model.lm_head.weight is built.model.model.embed_tokens.weight
    out = built.model(input_ids=rows(2, 6), labels=rows(2, 6))
    out.loss.backward()
    assert out.exit_kl is not None


def test_a_loop_that_sees_nothing_is_warned_of() -> None:
    options = {**TINY["recurrent_olmo3"], "recurrent": {"random_init_loop_state": True}}
    with pytest.warns(UserWarning, match="the loop never sees the input"):
        blind = build_model("recurrent_olmo3", options).model.eval()
    assert torch.equal(blind(input_ids=rows(1, 6)).logits, blind(input_ids=rows(1, 6, seed=2)).logits)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        options["recurrent"] = {"random_init_loop_state": True, "loop_attention_mode": "cross"}
        seeing = build_model("recurrent_olmo3", options).model.eval()
    assert not torch.equal(seeing(input_ids=rows(1, 6)).logits, seeing(input_ids=rows(1, 6, seed=2)).logits)


@pytest.mark.parametrize("module", [train_models, canon, recurrent_olmo3, attention_inputs])
def test_examples_in_docstrings_hold(module: Any) -> None:
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


# Seeds and packing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY)
def test_the_seed_fixes_the_weights_and_disturbs_nothing(name: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = weights(build_model(name, TINY[name], seed=3).model)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert same(weights(build_model(name, TINY[name], seed=3).model), first)
    assert not same(weights(build_model(name, TINY[name], seed=4).model), first)
    build_model(name, TINY[name], seed=(1 << 64) - 1)
    for seed in (-1, 1 << 64, 1.0, True):
        with pytest.raises(UsageError, match="is not legal; legal: int 0"):
            build_model(name, TINY[name], seed=seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", TINY)
def test_packed_rows_are_rows_alone(name: str, attention: str) -> None:
    model = build_model(name, {**TINY[name], "attn_implementation": attention}).model.eval()
    assert model.config._attn_implementation == attention
    one, two = rows(1, 7), rows(1, 11, seed=2)
    window = {
        "position_ids": torch.cat([torch.arange(7), torch.arange(11)])[None],
        "segment_ids": torch.tensor([[1] * 7 + [2] * 11]),
    }
    ids = torch.cat([one, two], 1)
    packed = model(input_ids=ids, **accepted(model, use_cache=False, **window)).logits
    alone = torch.cat([model(input_ids=one).logits, model(input_ids=two).logits], 1)
    assert (packed - alone).abs().max() < 2e-5
    assert (model(input_ids=ids).logits - alone).abs().max() > 1e-3


@pytest.mark.parametrize("name", TINY)
def test_gradient_checkpointing_is_an_option(name: str) -> None:
    options = {**TINY[name], "dropout": 0.0} if name == "tiny_gpt2" else TINY[name]
    ids, runs = rows(2, 8), []
    for checkpointing in (False, True):
        model = build_model(name, {**options, "gradient_checkpointing": checkpointing}).model
        calls: list[int] = []
        norm = next(m for n, m in model.named_modules() if n.endswith(("ln_2", "post_attention_layernorm")))
        norm.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        runs.append((len(calls), {n: p.grad for n, p in model.named_parameters()}))
    (once, plain), (twice, again) = runs
    assert twice == 2 * once
    assert all((plain[name] - again[name]).abs().max() < 1e-6 for name in plain)

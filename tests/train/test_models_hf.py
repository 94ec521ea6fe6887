"""``model=hf``: causal models of transformers with random weights train on every task, or are refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from curves import BREVO, BRIEF, CAPO, DEPO, LANO, MANO, files, make_run, only_csv, run
from tiny_models import same, weights
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from synthshards.errors import UsageError
from synthshards.train.config.options import TrainOptions
from synthshards.train.loop.step import LossModule, make_optimizer, mean_loss, train_step
from synthshards.train.models import build_model

pytestmark = pytest.mark.usefixtures("no_pictures")

ATTENTION = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
LAYERS = {"hidden_size": 16, "num_hidden_layers": 2}
TOYS: dict[str, dict[str, Any]] = {
    "mamba": {**LAYERS, "state_size": 4},
    "mamba2": {**LAYERS, "head_dim": 8, "num_heads": 4, "state_size": 4, "n_groups": 1, "chunk_size": 8},
    "qwen3_next": {
        **LAYERS, **ATTENTION, "head_dim": 8, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8,
        "num_experts": 4, "num_experts_per_tok": 2, "linear_num_key_heads": 2, "linear_num_value_heads": 2,
        "linear_key_head_dim": 4, "linear_value_head_dim": 4, "layer_types": ["linear_attention", "full_attention"],
    },
    "bamba": {
        **LAYERS, **ATTENTION, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_chunk_size": 8,
        "attn_layer_indices": [1],
    },
    "jamba": {
        **LAYERS, **ATTENTION, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
        "expert_layer_offset": 1, "num_experts": 4, "mamba_d_state": 4,
    },
    "mixtral": {**LAYERS, **ATTENTION, "num_local_experts": 4, "output_router_logits": True},
    "olmoe": {**LAYERS, **ATTENTION, "num_experts": 4, "num_experts_per_tok": 2, "output_router_logits": True},
    "rwkv": LAYERS,
}  # fmt: skip
TOYS = {name: sizes for name, sizes in TOYS.items() if name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}


def settings(name: str, **more: Any) -> tuple[str, ...]:
    """The settings of a toy."""
    text = json.dumps({**TOYS[name], **more}).replace('"', "")
    return ("model=hf", f"model.model_type={name}", f"model.config={text}")


def of_task(one: tuple[str, ...]) -> tuple[str, ...]:
    """The settings of a task alone."""
    return tuple(setting for setting in one if not setting.startswith("model."))


SHORT = (*BRIEF, "train.max_steps=2", "train.eval_every_steps=2")


@pytest.mark.parametrize("name", TOYS)
def test_it_trains_and_is_measured(name: str, tmp_path: Path) -> None:
    made = run(tmp_path / "out", *of_task(BREVO), base=(*settings(name), *SHORT))
    config = made.built.model.config
    assert config.vocab_size == 64
    assert (config.bos_token_id, config.eos_token_id, getattr(config, "pad_token_id", None)) == (None, None, None)
    assert {weight.dtype for weight in made.model.parameters()} == {torch.float32}
    assert only_csv(tmp_path / "out").count(b"\n") == 3


@pytest.mark.parametrize("task", [DEPO, MANO, LANO, CAPO])
def test_a_recurrence_is_measured_on_the_other_tasks(task: tuple[str, ...], tmp_path: Path) -> None:
    run(tmp_path / "out", *of_task(task), base=(*settings("mamba2"), *SHORT))
    assert only_csv(tmp_path / "out").count(b"\n") > 1


def test_the_seed_draws_the_weights() -> None:
    def built(seed: int) -> dict[str, torch.Tensor]:
        options = {"model_type": "mamba2", "config": TOYS["mamba2"], "vocab_size": 9}
        return weights(build_model("hf", options, seed=seed).model)

    assert same(built(1), built(1))
    assert not same(built(1), built(2))


def test_what_is_not_said_is_filled_in() -> None:
    options = {"model_type": "gpt2", "config": {"n_embd": 16, "n_layer": 1, "n_head": 2, "bos_token_id": 3}}
    built = build_model("hf", options, largest_id=70, longest_row=100)
    config = built.model.config
    assert (config.vocab_size, config.n_positions, built.context, config.bos_token_id) == (71, 128, 128, 3)
    assert built.plain_logits, "as model=tiny_gpt2"
    options["config"] = {**options["config"], "vocab_size": 80, "n_positions": 101}
    built = build_model("hf", options, largest_id=70, longest_row=100)
    assert (built.vocab_size, built.context) == (80, 101)


def test_a_resumed_run_ends_as_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = (*settings("mamba2"), *BRIEF, "train.checkpoint_every=2", "train.resume=auto", "train.save_model=true")
    whole = run(tmp_path / "whole", *of_task(BREVO), base=base)
    plain = type(whole)._one_step
    with monkeypatch.context() as patched:
        patched.setattr(type(whole), "_one_step", lambda own, *rest: plain(own, *rest) if own.step < 5 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path / "cut", *of_task(BREVO), base=base)
    resumed = run(tmp_path / "cut", *of_task(BREVO), base=base)
    assert same(weights(resumed.model), weights(whole.model))
    assert only_csv(tmp_path / "cut") == only_csv(tmp_path / "whole")
    again = build_model("from_pretrained", {"name_or_path": str(tmp_path / "whole" / "model")}).model
    assert same(weights(again), weights(whole.model))


@pytest.mark.parametrize("name", ["mixtral", "olmoe", "qwen3_next"])
def test_a_routers_loss_is_told_apart(name: str, tmp_path: Path) -> None:
    sizes = {**TOYS[name], "output_router_logits": True, "router_aux_loss_coef": 0.5}
    model = build_model("hf", {"model_type": name, "config": sizes, "vocab_size": 40}).model
    plain = build_model(
        "hf", {"model_type": name, "config": {**sizes, "output_router_logits": False}, "vocab_size": 40}
    )
    draw = torch.Generator().manual_seed(1)
    parts = []
    for length in (6, 9):
        ids = torch.randint(0, 40, (3, length), generator=draw)
        parts.append({"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)})
    total = sum(float(mean_loss(model, part).detach()) * 3 * (len(part["labels"][0]) - 1) for part in parts) / 39
    task = sum(float(mean_loss(plain.model, part).detach()) * 3 * (len(part["labels"][0]) - 1) for part in parts) / 39
    o = TrainOptions()
    told = train_step(
        LossModule(model, True, False), model, make_optimizer(model, o), parts, 0.1, o, torch.device("cpu")
    )
    assert told == pytest.approx(task, rel=1e-5)
    assert told.router == pytest.approx(total - task, rel=1e-4)
    assert told.router > 0.1
    module = LossModule(plain.model, True, False)
    assert (
        train_step(module, plain.model, make_optimizer(plain.model, o), parts, 0.1, o, torch.device("cpu")).router
        is None
    )
    run(tmp_path / "out", *of_task(BREVO), base=(*settings(name, output_router_logits=True), *SHORT))
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert all(line["train/router_loss"] > 0 for line in lines if "train/loss" in line)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "model.model_type is not set"),
        ({"model_type": "mamba22"}, "has no such causal model; did you mean 'mamba2'?; legal: "),
        ({"model_type": "t5"}, "model.model_type=t5: transformers"),
        (
            {"model_type": "mamba", "config": {"hiden_size": 8}},
            "mamba has no 'hiden_size'; did you mean 'hidden_size'?",
        ),
        ({"model_type": "mamba2", "config": {"hidden_size": 64}}, "mamba2: ValueError: Inconsistent configuration"),
        ({"model_type": "gpt2", "config": {"n_embd": "wide"}}, "model.config: gpt2: "),
        (
            {"model_type": "gpt2", "config": {"n_embd": 16, "n_head": 3}},
            "model.model_type=gpt2: cannot be built (ValueE",
        ),
        ({"model_type": "mamba", "config": {"eos_token_id": 90}}, "eos_token_id=90 is outside the vocabulary"),
        ({"model_type": "mamba", "config": {"vocab_size": 9}}, "model.vocab_size=9 is too small: the largest token id"),
        (
            {"model_type": "mamba", "config": {"vocab_size": 9}, "vocab_size": 9},
            "vocab_size is said by model.config and",
        ),
        (
            {"model_type": "mamba", "imports": ["not_there_at_all"]},
            "model.imports: not_there_at_all: ModuleNotFoundErr",
        ),
    ],
)
def test_what_cannot_be_built_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        build_model("hf", options, largest_id=70, longest_row=20)
    assert message in str(error.value)


def test_a_model_that_sees_later_tokens_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    bert = ("model=hf", "model.model_type=bert", "model.config={hidden_size: 16, num_attention_heads: 2}")
    with pytest.raises(UsageError, match=r"model.model_type=bert: not causal"):
        make_run(tmp_path / "out", *of_task(MANO), base=(*bert, *BRIEF))
    assert files(tmp_path / "out") == set()


REGISTERING = """
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
class MineConfig(GPT2Config):
    model_type = "mine_of_a_test"
class Mine(GPT2LMHeadModel):
    config_class = MineConfig
AutoConfig.register("mine_of_a_test", MineConfig)
AutoModelForCausalLM.register(MineConfig, Mine)
"""


def test_packages_register_models_of_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "registers_models.py").write_text(REGISTERING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    options = {
        "model_type": "mine_of_a_test", "imports": ["registers_models"], "vocab_size": 9,
        "config": {"n_embd": 16, "n_layer": 1, "n_head": 2},
    }  # fmt: skip
    for _ in range(2):  # it is registered once
        assert type(build_model("hf", options).model).__name__ == "Mine"


def test_one_key_of_the_configuration_can_be_set(tmp_path: Path) -> None:
    made = make_run(tmp_path, *of_task(MANO), "model.config.hidden_size=24", base=(*settings("mamba"), *BRIEF))
    assert made.built.model.config.hidden_size == 24

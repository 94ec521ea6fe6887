"""Packed rows stay apart, or the run is refused before anything is written: proved by exchanging a row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from curves import BRIEF, CAPO, GPT2, MANO, files, make_run, run, table
from helpers import Ended
from oracles import tiny_gpt2
from tiny_models import TINY
from torch import Tensor, nn

from synthshards.errors import UsageError
from synthshards.train.config.compose import compose
from synthshards.train.evaluation.isolation import check_isolation, leak
from synthshards.train.models import build_model

Cli = Callable[..., Ended]
pytestmark = pytest.mark.usefixtures("no_pictures")
SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
#: Each takes `position_ids`, and its recurrence or convolution runs over the borders that they tell.
LEAKING: dict[str, dict[str, Any]] = {
    "Jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 1, "mamba_d_state": 4},
    "RecurrentGemma": {"num_hidden_layers": 3, "lru_width": 32, "head_dim": 8, "attention_window_size": 64},
    "Lfm2": {"layer_types": ["full_attention", "conv"]},
}
#: Options of the project's models that draw something in a pass.
DRAWING: dict[str, dict[str, Any]] = {
    "tiny_gpt2": {"dropout": 0.5},
    "llama": {"gradient_checkpointing": True},
    "recurrent_olmo3": {
        "recurrent": {
            "num_loops": 2, "random_init_loop_state": True, "random_init_std": 5.0, "train_recursion_mode": "poisson",
            "inject_input_each_step": True, "act": {"enabled": True},
        },
    },
}  # fmt: skip


def of_transformers(name: str, **sizes: Any) -> nn.Module:
    """A tiny model of transformers with random weights."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **sizes})
    model: nn.Module = transformers.AutoModelForCausalLM.from_config(config)
    return model


def refusal(model: nn.Module) -> str:
    with pytest.raises(UsageError) as refused:
        check_isolation(model, 64, "train.isolate", "train.packing=pad")
    return str(refused.value)


# The proof ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEAKING)
def test_layers_that_run_over_borders_are_refused(name: str) -> None:
    line = refusal(of_transformers(name, **LEAKING[name]))
    assert line.startswith(f"train.isolate=true: rows of a window do not stay apart in {name}ForCausalLM (")
    assert line.endswith("; legal: train.isolate=false, or train.packing=pad")


def test_a_model_that_cannot_be_told_is_refused_by_that_name() -> None:
    class Deaf(nn.Module):
        def forward(self, input_ids: Tensor) -> Any:
            raise AssertionError("it need not run")

    assert "Deaf takes no position_ids, by which packed rows stay apart" in refusal(Deaf())


@pytest.mark.parametrize("name", DRAWING)
def test_what_a_model_draws_is_no_leak_and_nothing_of_it_is_changed(name: str) -> None:
    model = build_model(name, {**TINY[name], **DRAWING[name]}, seed=3).model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    recursion = getattr(model, "recursion", None)
    drawn = torch.get_rng_state(), None if recursion is None else recursion.get_state()
    assert leak(model, 64) == 0
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn[0])
    assert recursion is None or torch.equal(recursion.get_state(), drawn[1])


def test_routers_and_windows_of_attention_pass() -> None:
    check_isolation(of_transformers("Qwen3Moe", num_experts=8, head_dim=8, moe_intermediate_size=8), 64, "a", "b")
    check_isolation(of_transformers("Mistral", sliding_window=3), 64, "a", "b")


class Mixer(nn.Module):
    """The state of a recurrence over all of a window, or of one window alone, through a weight that starts at zero."""

    def __init__(self, leaking: int, start: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.leaking = nn.Embedding(64, 8), leaking
        self.out, self.head = nn.Linear(8, 8, bias=False), nn.Linear(8, 64, bias=False)
        nn.init.constant_(self.out.weight, start)
        nn.init.constant_(self.head.weight, start)

    def forward(self, input_ids: Tensor, position_ids: Tensor) -> Any:
        states = self.embed(input_ids)
        summed = states.cumsum(1)
        summed[self.leaking :] = 0
        return SimpleNamespace(logits=self.head(torch.tanh(states + self.out(summed))))


def test_weights_that_start_at_zero_hide_no_leak() -> None:
    model = Mixer(leaking=99, start=0.0)
    assert "do not stay apart in Mixer" in refusal(model)
    assert not model.out.weight.any()
    assert not model.head.weight.any()


def test_what_moves_in_one_window_alone_is_no_leak() -> None:
    """As a router's tie that rounding decides, in a model of many experts."""
    assert leak(Mixer(leaking=1, start=0.1), 64) == 0
    assert leak(Mixer(leaking=99, start=0.1), 64) > 0


def test_a_short_context_is_enough() -> None:
    check_isolation(tiny_gpt2(30, positions=3), 30, "a", "b")


# Runs --------------------------------------------------------------------------------------------------------------

WINDOWS = ("train.packing=best-fit", "train.seq_len=64")


@pytest.mark.parametrize(
    ("command", "overrides", "key"),
    [
        ("curve", WINDOWS, "train.isolate"),
        ("curve", (*WINDOWS, "train.isolate=false", "eval.packed_seq_len=64", "eval.isolate=true"), "eval.isolate"),
        ("curve", ("eval.packed_seq_len=64",), "eval.isolate"),
        ("train", WINDOWS, "train.isolate"),
    ],
)
def test_a_leaking_run_is_refused_before_anything_is_written(
    command: str, overrides: tuple[str, ...], key: str, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_transformers("Lfm2", **LEAKING["Lfm2"], vocab_size=5100).save_pretrained(tmp_path / "model")  # type: ignore[operator]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    base = ("model=from_pretrained", f"model.name_or_path={tmp_path / 'model'}", *MANO[:-1], "train.max_steps=1")
    ended = cli(command, *base, *overrides)
    assert (ended.code, ended.out) == (2, "")
    line = ended.err.splitlines()[-1]  # transformers shows that it loads weights
    assert f"{key}=true: rows of a window do not stay apart in Lfm2ForCausalLM" in line
    assert files(tmp_path / "here") == set()


def test_evaluation_isolates_where_training_does() -> None:
    assert compose([])["eval"]["isolate"] is True
    assert compose(["train.isolate=false"])["eval"]["isolate"] is False
    assert compose(["train.isolate=false", "eval.isolate=true"])["eval"]["isolate"] is True
    assert {compose([f"preset={name}"])["eval"]["isolate"] for name in ("depo1-225", "mano-10")} == {False}


@pytest.mark.parametrize("isolate", ["true", "false"])
def test_packed_evaluation_asks_the_model_as_training_does(isolate: str, tmp_path: Path) -> None:
    made = make_run(tmp_path, *MANO, *WINDOWS, f"train.isolate={isolate}", "eval.packed_seq_len=64")
    told: set[bool] = set()

    def watch(model: nn.Module, _: Any, inputs: dict[str, Any]) -> None:
        if not model.training:
            told.add("position_ids" in inputs)

    made.model.register_forward_pre_hook(watch, with_kwargs=True)
    made.run()
    assert told == {isolate == "true"}


def test_a_model_without_positions_is_trained_and_measured_as_one_text(tmp_path: Path) -> None:
    bloom = transformers.BloomConfig(vocab_size=5100, hidden_size=16, n_layer=1, n_head=2)
    transformers.AutoModelForCausalLM.from_config(bloom).save_pretrained(tmp_path / "model")
    base = ("model=from_pretrained", f"model.name_or_path={tmp_path / 'model'}", *BRIEF)
    run(tmp_path / "out", *MANO[:-1], *WINDOWS, "train.isolate=false", "eval.packed_seq_len=64", base=base)
    assert len(table(tmp_path / "out" / "mano_metrics.csv")) == 3


def test_tasks_that_are_not_measured_in_windows_need_no_proof(tmp_path: Path) -> None:
    made = make_run(tmp_path, *CAPO, "eval.packed_seq_len=64", base=(*GPT2, *BRIEF))
    assert not made.evaluator.in_windows

"""Models, weights and special ids from local folders (the hub's are the same calls)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import OLMO3, TINY, plain_olmo3, recurrent, rows, same, weights
from tokenizers import Tokenizer, models
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from synthshards.errors import UsageError
from synthshards.train.models import build_model, parse_options, tokenizer_ids
from synthshards.train.models.base import SpecialIds
from synthshards.train.models.pretrained import special_ids

pytestmark = pytest.mark.usefixtures("one_thread")  # tests share the machine


def save_gpt2(folder: Path, **special: str | None) -> GPT2LMHeadModel:
    """A tiny GPT-2 and, where special tokens are named, a tokenizer with them."""
    sizes = {"vocab_size": 64, "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=None, eos_token_id=None)).eval()
    model.save_pretrained(folder)
    if special:
        vocabulary = {"a": 0, "<b>": 1, "<e>": 2, "<s>": 3, "<p>": 4, "<unk>": 5}
        inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    ("special", "ids"),
    [
        ({"bos_token": "<b>", "eos_token": "<e>", "sep_token": "<s>", "pad_token": "<p>"}, SpecialIds(1, 3, 4)),
        ({"bos_token": "<b>", "eos_token": "<e>"}, SpecialIds(1, None, 2)),
        ({"bos_token": "<b>"}, SpecialIds(1, None, 1)),
        ({"unk_token": "<unk>"}, SpecialIds(None, None, None)),
        ({}, None),
    ],
)
def test_from_pretrained_loads_the_model_and_the_special_ids(
    special: dict[str, str], ids: SpecialIds | None, tmp_path: Path
) -> None:
    source = save_gpt2(tmp_path, **special)
    options = {"name_or_path": str(tmp_path)}
    built = build_model("from_pretrained", options)
    assert built.special == ids == tokenizer_ids(parse_options("from_pretrained", options))
    assert same(weights(built.model), weights(source))
    assert (built.vocab_size, built.context) == (64, 32)
    assert built.model.training
    with pytest.raises(UsageError, match=r"the vocabulary of model.name_or_path=64 is too small: .* of depo is 9700"):
        build_model("from_pretrained", options, task="depo", largest_id=9700)


def test_weights_of_half_precision_train_in_full(tmp_path: Path) -> None:
    source = save_gpt2(tmp_path).to(torch.bfloat16)
    source.save_pretrained(tmp_path)
    model = build_model("from_pretrained", {"name_or_path": str(tmp_path)}).model
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert same(weights(model), {name: p.float() for name, p in weights(source).items()})


def test_a_model_of_this_package_comes_back(tmp_path: Path) -> None:
    for name, options in TINY.items():
        model = build_model(name, options, seed=8).model
        model.save_pretrained(tmp_path / name)
        again = build_model("from_pretrained", {"name_or_path": str(tmp_path / name)}).model
        assert type(again) is type(model)
        assert same(weights(again), weights(model))


def test_what_is_known_of_a_model_is_known_of_it_when_it_comes_back(tmp_path: Path) -> None:
    known = {"tiny_gpt2": (True, False), "llama": (True, False), "recurrent_olmo3": (False, True)}
    for name, options in TINY.items():
        built = build_model(name, options)
        built.model.save_pretrained(tmp_path / name)
        again = build_model("from_pretrained", {"name_or_path": str(tmp_path / name)})
        assert [(one.plain_logits, one.unused_weights) for one in (built, again)] == [known[name]] * 2
    plain_olmo3(recurrent(num_loops=1)).save_pretrained(tmp_path / "olmo3")
    stranger = build_model("from_pretrained", {"name_or_path": str(tmp_path / "olmo3")})
    assert (stranger.plain_logits, stranger.unused_weights) == (False, False)


def test_a_tokenizer_from_elsewhere(tmp_path: Path) -> None:
    save_gpt2(tmp_path / "with", bos_token="<b>", eos_token="<e>")
    save_gpt2(tmp_path / "without")
    there = {"tokenizer_name_or_path": str(tmp_path / "with")}
    ids = SpecialIds(1, None, 2)
    assert build_model("from_pretrained", {"name_or_path": str(tmp_path / "without"), **there}).special == ids
    assert build_model("recurrent_olmo3", {**TINY["recurrent_olmo3"], **there}).special == ids
    with pytest.raises(UsageError, match="no tokenizer '/nowhere/at/all'"):
        special_ids("/nowhere/at/all")


def test_matching_weights_of_an_olmo3_are_copied(tmp_path: Path) -> None:
    source = plain_olmo3(recurrent(num_loops=1, sliding_window=4096))
    source.save_pretrained(tmp_path)
    hf = {name: value for name, value in OLMO3.items() if name not in ("sliding_window",)}
    hf = {**hf, "bos_token_id": None, "pad_token_id": None}
    options = {"hf": hf, "recurrent": {"num_loops": 1}, "init_from_pretrained": str(tmp_path)}
    built = build_model("recurrent_olmo3", options)
    assert set(built.copied) == set(source.state_dict())
    ids = rows(2, 10)
    assert torch.equal(built.model.eval()(input_ids=ids).logits, source(input_ids=ids).logits)

    # Another vocabulary, a layer more, an injection: what fits is copied, all else is as the seed made it.
    options["hf"] = {**hf, "vocab_size": 80, "num_hidden_layers": 5}
    options["recurrent"] = {"loop_layers": 3, "inject_input_each_step": True}
    fresh = weights(build_model("recurrent_olmo3", {**options, "init_from_pretrained": None}, seed=2).model)
    built = build_model("recurrent_olmo3", options, seed=2)
    mixed, donor = weights(built.model), source.state_dict()
    assert set(built.copied) == {n for n in donor if n not in ("model.embed_tokens.weight", "lm_head.weight")}
    assert all(
        torch.equal(value, donor[name] if name in built.copied else fresh[name]) for name, value in mixed.items()
    )


def test_weights_that_do_not_belong_are_refused(tmp_path: Path) -> None:
    save_gpt2(tmp_path / "gpt2")
    options = {**TINY["recurrent_olmo3"], "init_from_pretrained": str(tmp_path / "gpt2")}
    with pytest.raises(UsageError, match=r"gpt2: a model of type gpt2; legal: olmo3, recurrent_olmo3"):
        build_model("recurrent_olmo3", options)
    plain_olmo3(recurrent(num_loops=1)).save_pretrained(tmp_path / "olmo3")
    options = {"hf": {**TINY["recurrent_olmo3"]["hf"], "hidden_size": 48, "vocab_size": 50, "intermediate_size": 60},
               "init_from_pretrained": str(tmp_path / "olmo3")}  # fmt: skip
    with pytest.raises(UsageError, match="no weight has a name and shape of this model"):
        build_model("recurrent_olmo3", options)
    with pytest.raises(UsageError, match="no model '/nowhere/at/all'"):
        build_model("recurrent_olmo3", {**TINY["recurrent_olmo3"], "init_from_pretrained": "/nowhere/at/all"})

"""A step of training: the loss is the model's own, accumulation changes nothing, learning rates meet their corners."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_models import TINY, value
from torch import Tensor, nn

import synthshards
from synthshards.errors import UsageError
from synthshards.train.config.options import TrainOptions
from synthshards.train.data.batches import training_tensors
from synthshards.train.loop.step import (
    LossModule,
    choose_device,
    labelled,
    learning_rate,
    make_optimizer,
    mean_loss,
    train_step,
)
from synthshards.train.models import MODELS, build_model

CPU = torch.device("cpu")
TASK = {"N": 6, "K": 4, "mini_vocab": 6, "max_tlen": 1, "query_token_base": 20, "answer_token_id": 40}
NAMES = ["tiny_gpt2", "llama", "recurrent_olmo3"]


pytestmark = pytest.mark.usefixtures("one_thread")  # tests share the machine


def rows(count: int = 8, packing: str = "pad") -> dict[str, Tensor]:
    """A batch of the tiny Depo."""
    seq_len = None if packing == "pad" else 48
    stream = synthshards.open_dataset("depo", **TASK).batches(count, packing=packing, seq_len=seq_len)
    return training_tensors(next(iter(stream)))


def model_of(name: str, **changed: Any) -> nn.Module:
    options = {**TINY[name], **changed}
    if name == "tiny_gpt2":
        options["dropout"] = changed.get("dropout", 0.0)
    built: nn.Module = build_model(name, options, seed=3).model
    with torch.no_grad():  # weights as large as after some training: initial ones predict all tokens alike
        for p in built.parameters():
            if p.dim() > 1 and name == "tiny_gpt2":
                p.mul_(10)
    return built


def by_hand(model: nn.Module, batch: dict[str, Tensor]) -> float:
    """The mean over labelled tokens, each row (or each row of a window) put to the model by itself."""
    total, count = 0.0, 0
    for w, ids in enumerate(batch["input_ids"]):
        segments = batch["segment_ids"][w] if "segment_ids" in batch else batch["attention_mask"][w]
        for number in range(1, int(segments.max()) + 1):
            at = segments == number
            logits = model(input_ids=ids[at][None]).logits[0]
            labels = batch["labels"][w][at]
            for i in range(1, len(labels)):
                if labels[i] != -100:
                    total -= value(logits[i - 1].log_softmax(-1)[labels[i]])
                    count += 1
    return total / count


# The loss ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("packing", ["pad", "best-fit"])
def test_the_loss_is_that_of_each_row_by_itself(name: str, packing: str) -> None:
    """Best-fit cuts no row, and Depo's first token is not in the loss, so rows alone have the same loss."""
    model, batch = model_of(name), rows(packing=packing)
    assert ("segment_ids" in batch) == (packing != "pad")
    assert value(mean_loss(model, batch, plain_logits=MODELS[name].plain_logits)) == pytest.approx(
        by_hand(model, batch), rel=2e-5
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("packing", ["pad", "concat"])
def test_the_loss_is_the_models_own(name: str, packing: str) -> None:
    model, batch = model_of(name), rows(packing=packing)
    inputs = {"input_ids": batch["input_ids"], "labels": batch["labels"], "use_cache": False}
    if packing == "pad":
        inputs["attention_mask"] = batch["attention_mask"]
    own = value(model(**inputs).loss)
    plain = MODELS[name].plain_logits
    assert value(mean_loss(model, batch, False, plain)) == pytest.approx(own, rel=1e-5)
    if packing == "concat":  # here rows do see one another, unless they are kept apart
        assert value(mean_loss(model, batch, True, plain)) != pytest.approx(own, rel=1e-4)


def test_only_labelled_positions_cost_logits() -> None:
    model, batch, seen = model_of("tiny_gpt2"), rows(), []
    model.get_output_embeddings().register_forward_hook(lambda module, args, out: seen.append(out.shape))  # type: ignore[operator]
    mean_loss(model, batch, plain_logits=True).backward()  # type: ignore[no-untyped-call]
    assert seen == [(labelled(batch), 64)]
    assert labelled(batch) < batch["input_ids"].numel() / 2


def test_gradients_are_those_of_the_models_own_loss() -> None:
    model, batch = model_of("tiny_gpt2"), rows()
    model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]).loss.backward()
    own = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    mean_loss(model, batch, plain_logits=True).backward()  # type: ignore[no-untyped-call]
    for name, p in model.named_parameters():
        assert p.grad is not None
        assert torch.allclose(p.grad, own[name], atol=1e-5), name


# A step ------------------------------------------------------------------------------------------------------------


def step(name: str, parts: list[dict[str, Tensor]], **options: Any) -> tuple[float, dict[str, Tensor]]:
    """The loss of one step and the gradients it was made with."""
    o = TrainOptions(**options)
    model = model_of(name)
    told = train_step(
        LossModule(model, True, MODELS[name].plain_logits), model, make_optimizer(model, o), parts, 0.01, o, CPU
    )
    return told, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def halves(batch: dict[str, Tensor], at: int) -> list[dict[str, Tensor]]:
    return [{k: v[:at] for k, v in batch.items()}, {k: v[at:] for k, v in batch.items()}]


@pytest.mark.parametrize("name", ["tiny_gpt2", "llama"])
@pytest.mark.parametrize("at", [4, 1])
def test_accumulated_parts_are_one_batch(name: str, at: int) -> None:
    """Weighted by labelled tokens: rows of different n have different numbers of them."""
    batch = rows(packing="best-fit")
    first, second = halves(batch, at)
    assert labelled(first) != labelled(second)
    whole, gradients = step(name, [batch])
    parts, added = step(name, [first, second])
    assert parts == pytest.approx(whole, rel=1e-5)
    assert gradients.keys() == added.keys()
    for key, gradient in gradients.items():
        assert torch.allclose(added[key], gradient, atol=2e-5), key


def test_parts_without_labels_change_nothing() -> None:
    batch = rows()
    blank = {**batch, "labels": torch.full_like(batch["labels"], -100)}
    alone, gradients = step("tiny_gpt2", [batch])
    told, added = step("tiny_gpt2", [blank, batch])
    assert told == alone
    assert all(torch.equal(added[name], gradients[name]) for name in gradients)
    nothing, none = step("tiny_gpt2", [blank])
    assert nothing == 0
    assert all(not bool(g.any()) for g in none.values())


def test_gradients_are_clipped_to_a_norm() -> None:
    def norm(gradients: dict[str, Tensor]) -> float:
        return math.sqrt(sum(value((g**2).sum()) for g in gradients.values()))

    free, clipped = (step("tiny_gpt2", [rows()], max_grad_norm=limit)[1] for limit in (0.0, 0.5))
    assert norm(free) > 0.6
    assert norm(clipped) == pytest.approx(0.5, rel=1e-3)


def test_what_decays_and_with_which_rate() -> None:
    model = model_of("tiny_gpt2")
    optimizer = make_optimizer(model, TrainOptions(weight_decay=0.1, beta1=0.8, beta2=0.98, eps=1e-6))
    decay = {p.dim() > 1: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {True: 0.1, False: 0.0}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    assert {(group["betas"], group["eps"]) for group in optimizer.param_groups} == {((0.8, 0.98), 1e-6)}
    train_step(LossModule(model, True, True), model, optimizer, [rows()], 0.123, TrainOptions(), CPU)
    assert {group["lr"] for group in optimizer.param_groups} == {0.123}


def test_bf16_differs_a_little_and_weights_stay_in_fp32() -> None:
    exact, gradients = step("tiny_gpt2", [rows()])
    half, rounded = step("tiny_gpt2", [rows()], precision="bf16")
    assert half != exact
    assert half == pytest.approx(exact, rel=0.05)
    assert {g.dtype for g in rounded.values()} == {torch.float32}
    assert any(not torch.equal(rounded[name], gradients[name]) for name in gradients)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_it_is_the_same_loss() -> None:
    """With the backend that traces and runs without a C++ compiler's minute."""
    model, batch = model_of("tiny_gpt2"), rows()
    compiled = torch.compile(LossModule(model, True, True), backend="aot_eager")
    assert value(compiled(batch)) == pytest.approx(value(mean_loss(model, batch, True, True)), rel=1e-5)


# Learning rates ----------------------------------------------------------------------------------------------------


def rates(**options: Any) -> list[float]:
    o = TrainOptions(learning_rate=1.0, max_steps=10, **options)
    return [learning_rate(step, o) for step in range(1, 11)]


def test_learning_rates_at_their_corners() -> None:
    assert rates() == [1.0] * 10
    assert rates(warmup_steps=4)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates(schedule="linear", warmup_steps=4)[3:] == pytest.approx([1 - i / 7 for i in range(7)])
    assert rates(schedule="linear", final_share=0.1)[-1] == pytest.approx(0.1)
    cosine = rates(schedule="cosine", warmup_steps=2, final_share=0.1)
    assert cosine[:2] == [0.5, 1.0]
    assert cosine[5] == pytest.approx(0.55)  # half way
    assert cosine[-1] == pytest.approx(0.1)
    assert cosine[1:] == sorted(cosine[1:], reverse=True)
    assert 0 < rates(schedule="cosine")[-1] < 0.03
    assert rates(schedule="cosine", warmup_steps=10) == pytest.approx([i / 10 for i in range(1, 11)])


def test_devices() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(UsageError, match=r"^train.device=abacus: [^\n]*; legal: auto, cpu, cuda, mps$"):
        choose_device("abacus")

"""`synthshards bench --only train`: that it times what it says; the figures themselves are no test's business."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from helpers import Ended

from synthshards import make_task
from synthshards.train import bench
from synthshards.train.loop.step import mean_loss
from synthshards.train.models import build_model


def test_plain_batches_are_padded_rows_of_the_task() -> None:
    task = make_task("depo", N=12)
    batches = bench.plain_batches(task)
    for _ in range(3):
        batch = next(batches)
        assert len(batch["input_ids"]) == bench.BATCH
        assert int(batch["attention_mask"].sum(1).max()) == batch["input_ids"].shape[1]
        for ids, labels, mask in zip(*(batch[k] for k in ("input_ids", "labels", "attention_mask")), strict=True):
            length = int(mask.sum())
            assert not ids[length:].any()
            assert bool((labels[length:] == -100).all())
            row = {"input_ids": ids[:length].numpy(), "loss_mask": (labels[:length] != -100).numpy()}
            row["labels"] = labels[:length].numpy()
            assert set(ids[:length][labels[:length] != -100].tolist()) == set(row["labels"].tolist()) - {-100}
            assert ids[0] == task.params.bos_token_id


@pytest.mark.usefixtures("one_thread")
def test_both_losses_are_one() -> None:
    with torch.no_grad():
        model = build_model("tiny_gpt2", {"n_embd": 16, "n_layer": 1, "dropout": 0.0}).model
        batch = next(bench.plain_batches(make_task("depo", N=12)))
        ours = float(mean_loss(model, batch, plain_logits=True))
        assert float(bench.own_loss(model, batch)) == pytest.approx(ours, rel=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_the_section_of_the_command(cli: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_TURNS", 1)
    monkeypatch.setattr(bench, "BATCH", 2)
    ended = cli("bench", "mano-10", "--only", "train", "--quick", "--json")
    assert ended.code == 0, ended.err
    entries = json.loads(ended.out)["train"]
    assert [e["loop"] for e in entries] == ["ours", "ours, 1 thread ahead", "plain Python"]
    for e in entries:
        assert e["preset"] == "mano-10"
        assert e["steps"] >= 2
        assert e["tokens"] >= e["steps"] * bench.BATCH * 3
        assert 0 < e["waiting"] < 1
        assert e["of_plain"] == pytest.approx(e["per_second"] / entries[-1]["per_second"])

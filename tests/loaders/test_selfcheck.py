"""`synthshards loaders-check`: right where the loaders are, and it rings where one of them is broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Ended
from small_datasets import make

from synthshards.loaders.batching.context import BatchContext
from synthshards.loaders.batching.lanes import Packer
from synthshards.loaders.order.shuffle import Order
from synthshards.loaders.order.state import checksum
from synthshards.loaders.stream import Stream


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return make(tmp_path / "out", examples=2000, shard_examples=500)


OPTIONS = ("--world", 4, "--workers", 1, "--seq-len", 100, "--batch-size", 32)


def test_all_is_well(folder: str, cli: Callable[..., Ended]) -> None:
    ended = cli("loaders-check", folder, *OPTIONS)
    assert ended.code == 0, ended.err
    assert [line[:4] for line in ended.out.splitlines()] == ["ok  "] * 6 + ["2,00"]
    found = json.loads(cli("loaders-check", "depo", *OPTIONS, "--rows", 300, "--json").out)
    assert found["ok"] is True
    assert found["rows"] == 300
    assert [check["name"] for check in found["checks"]] == [
        "once", "worlds", "workers", "resume", "packing", "regenerated",
    ]  # fmt: skip


def lose_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Order.indices
    monkeypatch.setattr(Order, "indices", lambda self, e, p: np.where((r := real(self, e, p)) == 5, 6, r))


def give_one_rank_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BatchContext, "rank_part", lambda self, n: (0, n if self.options.world_size == 1 else n // 4))


def forget_the_position(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Stream.state_dict

    def forgetful(self: Stream) -> dict[str, Any]:
        state = {**real(self), "unit": 0}
        return {**state, "checksum": checksum(state)}

    monkeypatch.setattr(Stream, "state_dict", forgetful)


def drop_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Packer.plan

    def plan(self: Any, lanes: np.ndarray) -> Any:
        real(self, lanes[:1])
        return real(self, lanes)

    monkeypatch.setattr(Packer, "plan", plan)


@pytest.mark.parametrize(
    ("damage", "name", "message"),
    [
        (lose_a_row, "once", "1 of 2000 rows are missing in an epoch"),
        (give_one_rank_more, "worlds", "batch 0 of 4 ranks differs from that of one"),
        (forget_the_position, "resume", "after a cut at batch"),
        (drop_a_window, "packing", "rows are in no window"),
    ],
)
def test_a_broken_loader_is_found(
    folder: str, cli: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, damage: Any, name: str, message: str
) -> None:
    damage(monkeypatch)
    ended = cli("loaders-check", folder, *OPTIONS, "--json")
    assert ended.code == 1
    problems = {check["name"]: check["problem"] for check in json.loads(ended.out)["checks"]}
    assert message in problems[name]
    assert ended.err.startswith(f"error: {folder}: ")


def test_damaged_shards_are_found(folder: str, cli: Callable[..., Ended]) -> None:
    (Path(folder) / "train-00000.parquet").write_bytes(b"nothing")
    ended = cli("loaders-check", folder, *OPTIONS)
    assert ended.code == 1
    assert "train-00000.parquet" in ended.err


def test_wrong_usage(folder: str, cli: Callable[..., Ended]) -> None:
    ended = cli("loaders-check", folder, "--world", 3)
    assert ended.code == 2
    assert ended.err == "error: --batch-size 64 is no multiple of --world 3; legal: 3, 6, …\n"
    assert cli("loaders-check", "/nowhere").code == 2
    assert cli("loaders-check", "capo-50k").code == 2

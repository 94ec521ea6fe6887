"""Ranks: taken from torch.distributed by default, and left to accelerate where that splits batches itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from synthshards import UsageError, make_task, open_dataset
from synthshards.loaders.ranks import rank_and_world_size


@pytest.fixture
def second_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if torch.distributed ran with three ranks, of which this is number 1."""
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)


def test_without_torch_distributed_it_is_rank_0_of_1() -> None:
    assert rank_and_world_size(None, None) == (0, 1)
    assert rank_and_world_size(0, None) == (0, 1)
    assert rank_and_world_size(None, 1) == (0, 1)
    assert rank_and_world_size(None, 2) == (0, 2)
    assert rank_and_world_size(2, 3) == (2, 3)


@pytest.mark.parametrize(
    ("rank", "world_size", "message"),
    [
        (1, None, r"rank=1 of world_size=1; legal: 0\.\.0"),
        (3, 3, r"rank=3 of world_size=3; legal: 0\.\.2"),
        (-1, 3, "rank=-1; legal: an integer of at least 0"),
        (0, 0, "world_size=0; legal: an integer of at least 1"),
        (0, 2.0, r"world_size=2\.0; legal: an integer"),
    ],
)
def test_wrong_ranks_are_refused(rank: Any, world_size: Any, message: str) -> None:
    ds = open_dataset("mano", L=3, num_examples=12)
    with pytest.raises(UsageError, match=message):
        ds.batches(6, rank=rank, world_size=world_size)
    with pytest.raises(UsageError, match=message):
        make_task("mano", L=3).iterable(0, 12, rank=rank, world_size=world_size)


@pytest.mark.usefixtures("second_of_three")
def test_ranks_come_from_torch_distributed() -> None:
    assert rank_and_world_size(None, None) == rank_and_world_size(1, None) == rank_and_world_size(None, 3) == (1, 3)
    assert rank_and_world_size(0, 1) == rank_and_world_size(None, 1) == (0, 1)
    ds = open_dataset("mano", L=3, num_examples=12)
    assert [batch["index"].tolist() for batch in ds.batches(6)] == [[2, 3], [8, 9]]
    assert [batch["index"].tolist() for batch in ds.batches(6, rank=0, world_size=1)] == [[*range(6)], [*range(6, 12)]]
    with pytest.raises(UsageError, match=r"rank=2 of world_size=2; legal: 0\.\.1"):
        ds.batches(6, rank=2, world_size=2)


def test_an_iterable_is_split_over_ranks_and_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a process finds when it iterates: it is asked when the iterable is made."""
    task = make_task("depo", N=9, K=3)
    for count in (0, 1, 5, 2500, 5000):
        found: Counter[str] = Counter()
        for rank in range(3):
            rows = task.iterable(5, count, rank=rank, world_size=3)
            for worker in range(2):
                info = type("Info", (), {"id": worker, "num_workers": 2})
                with monkeypatch.context() as patch:
                    patch.setattr("synthshards.loaders.iterable.get_worker_info", lambda info=info: info)
                    found.update(str(row["input_ids"].tolist()) for row in rows)
        assert found == Counter(str(row["input_ids"].tolist()) for row in task.iter_examples(5, count))


@pytest.mark.usefixtures("second_of_three")
def test_an_iterable_takes_its_rank_from_torch_distributed() -> None:
    rows = make_task("mano", L=3).iterable(0, 12)
    assert (rows.rank, rows.world_size, len(list(rows))) == (1, 3, 4)


SCRIPT = """
import json, sys, torch
import torch.distributed as dist
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments
from synthshards import make_task, open_dataset

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.rows = torch.nn.Parameter(torch.zeros(1)), []
    def forward(self, input_ids, labels, attention_mask):
        self.rows += [str(row[:n].tolist()) for row, n in zip(input_ids, attention_mask.sum(1))]
        return {"loss": self.weight.sum() * 0}

def whole(batches):
    return batches[0]

if __name__ == "__main__":
    accelerator, found = Accelerator(cpu=True), {}
    ds = open_dataset("depo", N=12, num_examples=70)
    alone = {"rank": 0, "world_size": 1}
    found["plain"] = [i for batch in ds.batches(8) for i in batch["index"].tolist()]
    found["iterable"] = [str(row["input_ids"].tolist()) for row in make_task("depo", N=12).iterable(0, 70)]
    for workers in (0, 1):
        loader = DataLoader(ds.batches(8, **alone, seq_len=256), batch_size=None, num_workers=workers)
        rows = [i for batch in accelerator.prepare(loader) for i in batch["index"].tolist()]
        found[f"accelerate {workers}"] = rows
    net, stream = Net(), ds.batches(8, **alone, seq_len=256, drop_last=True)
    options = {"per_device_train_batch_size": 1, "num_train_epochs": 1, "report_to": "none", "disable_tqdm": True}
    arguments = TrainingArguments(sys.argv[1], use_cpu=True, save_strategy="no", **options)
    Trainer(net, arguments, train_dataset=stream, data_collator=whole).train()
    found["trainer"] = net.rows
    both = [None, None]
    dist.all_gather_object(both, found)
    if dist.get_rank() == 0:
        print("FOUND" + json.dumps(both), flush=True)
    dist.barrier()
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_lose_and_double_nothing(tmp_path: Path) -> None:
    """With a stream of their own rank; and with rank 0 of 1 under accelerate and a plain Trainer, which split it."""
    pytest.importorskip("accelerate")
    (tmp_path / "two.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "two.py", "out"],
        cwd=tmp_path, capture_output=True, text=True, timeout=240,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
    assert lines, done.stderr[-3000:]
    first, second = json.loads(lines[0].removeprefix("FOUND"))
    texts = [str(row["input_ids"].tolist()) for row in make_task("depo", N=12).iter_examples(0, 70)]
    for name in first:
        assert first[name], name
        assert second[name], name
        rows = {"iterable": texts, "trainer": texts[:64]}.get(name, list(range(70)))
        assert Counter(first[name] + second[name]) == Counter(rows), name

"""Two processes under torchrun, with Gloo: the curve of one process, within the noise of floats."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from curves import BRIEF, DEPO, GPT2, RECURRENT, files, make_run, run, table

from synthshards.errors import UsageError

#: Dropout draws anew in each process; everything else is the same arithmetic in another order. A large eps, since Adam
#: would not notice gradients that are all half or twice as large.
PLAIN = (
    *GPT2,
    *BRIEF,
    "model.dropout=0",
    "train.eps=0.01",
    "train.max_steps=12",
    "train.eval_every_steps=4",
    "train.device=cpu",
)
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


def torchrun(folder: Path, *overrides: str, base: tuple[str, ...] = PLAIN) -> subprocess.Popen[str]:
    last = {one.partition("=")[0]: one for one in (*base, *DEPO, *overrides)}
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "synthshards",
         "curve", *last.values(), f"output_dir={folder}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV,
    )  # fmt: skip


def ended(child: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = child.communicate(timeout=240)
    return child.returncode, out, err


def assert_close(one: Path, two: Path, tolerance: float = 0.03) -> None:
    """The same evaluations; accuracies may differ by a token or so on which the model wavers."""
    a, b = table(one / "depo_hop_metrics.csv"), table(two / "depo_hop_metrics.csv")
    names = ("step", "examples_seen", "hop", "count")
    assert [[row[name] for name in names] for row in a] == [[row[name] for name in names] for row in b]
    for x, y in zip(a, b, strict=True):
        assert float(x["token_accuracy"]) == pytest.approx(float(y["token_accuracy"]), abs=tolerance)


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [(), ("train.packing=concat", "train.seq_len=48", "train.gradient_accumulation_steps=2")],
    ids=["padded", "packed and accumulated"],
)
def test_two_processes_give_the_curve_of_one(overrides: tuple[str, ...], tmp_path: Path) -> None:
    code, out, err = ended(torchrun(tmp_path / "two", *overrides))
    assert code == 0, err
    assert out.count("step 12/12") == 1  # one rank tells
    run(tmp_path / "one", *DEPO, *overrides, base=PLAIN)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=2e-4)
    assert len(losses(tmp_path / "two")) == 12
    assert_close(tmp_path / "one", tmp_path / "two")
    assert files(tmp_path / "two") == files(tmp_path / "one")
    two, one = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("two", "one"))
    for name in ("eval_rows_trained_on", "training_rows_compared"):
        assert two[name] == one[name]


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on(tmp_path: Path) -> None:
    """Ctrl-C reaches both, as it does from a terminal; the second time both go on from their own state."""
    base = (*RECURRENT, *BRIEF, "train.max_steps=40", "train.eval_every_steps=40", "train.device=cpu",
            "train.log_every_steps=1", "model.recurrent.train_recursion_mode=poisson", "train.resume=auto")  # fmt: skip
    child = torchrun(tmp_path / "cut", base=base)
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("step 3/"):
            child.send_signal(signal.SIGINT)  # torchrun passes it on
            break
    code, _, err = ended(child)
    assert code != 0
    assert (tmp_path / "cut" / "checkpoint.pt").exists(), err
    code, out, err = ended(torchrun(tmp_path / "cut", base=base))
    assert code == 0, err
    assert "going on from step" in out
    run(tmp_path / "one", *DEPO, base=base)
    assert losses(tmp_path / "cut") == pytest.approx(losses(tmp_path / "one"), rel=1e-3)
    assert len(losses(tmp_path / "cut")) == 40


def test_a_batch_that_ranks_cannot_share_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthshards.train.run.rank_and_world_size", lambda: (1, 3))
    with pytest.raises(
        UsageError, match=r"^train.batch_size=4 is not shared evenly by 3 ranks; legal: a multiple of 3$"
    ):
        make_run(tmp_path / "out", *DEPO, base=PLAIN)
    assert files(tmp_path) == set()

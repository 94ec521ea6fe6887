"""The small experiments: each is a legal run, and a short one of Mano still learns what it learned when recorded.

Record again, after a change that is meant to change it:

    .venv/bin/python tests/train/test_experiments.py
"""

from __future__ import annotations

import csv
import shutil
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from synthshards.train.config.compose import CONF, compose
from synthshards.train.data.trained_rows import COMPARED
from synthshards.train.run import Run

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
GOLDEN = Path(__file__).parents[1] / "golden" / "mano_short.csv"
#: One operation modulo 3: seconds on one core.
SHORT = (
    "experiment=mano-small", "dataset.L=1", "dataset.value_mod=3", "train.max_steps=150", "train.eval_every_steps=50",
    "train.warmup_steps=20", "eval.num_examples_per_hop=1024", "eval.batch_size=256",
)  # fmt: skip
#: The share of the commonest answer, 0: 1/3 of sums and of differences, 5/9 of products.
CHANCE = (1 / 3 + 1 / 3 + 5 / 9) / 3
#: Of an accuracy: another processor or version of torch adds up in another order.
TOLERANCE = 0.03


pytestmark = pytest.mark.usefixtures("one_thread")  # tests share the machine


def run(folder: Path, *overrides: str) -> list[dict[str, str]]:
    """The rows of the CSV of a run."""
    Run(compose([*overrides, f"output_dir={folder}"]), say=lambda _: None).run()
    (path,) = folder.glob("*_metrics.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_there_is_an_experiment_for_each_task() -> None:
    assert EXPERIMENTS == ["brevo-small", "capo-small", "depo-small", "lano-small", "mano-small"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_runs(name: str, tmp_path: Path) -> None:
    short = ("train.max_steps=2", "train.warmup_steps=0", "eval.num_examples_per_hop=16")
    rows = run(tmp_path, f"experiment={name}", *short)
    assert {row["step"] for row in rows} == {"1", "2"}
    assert (tmp_path / "config.yaml").exists()
    assert len(list(tmp_path.glob("*_curve.svg"))) == 1


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("brevo-small", {"brevo": 0}),
        ("capo-small", {"capo_qa": 0, "capo_bios": 200}),
        ("depo-small", {"hop_1": 0, "hop_2": 0, "hop_4": 0}),
        ("lano-small", {"lano": 128}),
        ("mano-small", {"mano": 512}),
    ],
)
def test_so_many_rows_of_the_evaluation_are_trained_on(name: str, counts: dict[str, int], tmp_path: Path) -> None:
    """docs/training-curves.md says so, and why."""
    made = Run(compose([f"experiment={name}", f"output_dir={tmp_path}"]), say=lambda _: None)
    for _ in islice(made.stream, made.train.max_steps):
        pass
    made.evaluator.count_trained(made.stream.rows_given(COMPARED))
    assert made.evaluator.trained_on["eval_rows_trained_on"] == counts


@pytest.mark.slow
def test_a_short_mano_learns_as_recorded(tmp_path: Path) -> None:
    found = run(tmp_path, *SHORT)
    recorded: list[dict[str, Any]] = list(csv.DictReader(GOLDEN.read_text().splitlines()))
    assert [(row["step"], row["examples_seen"], row["count"]) for row in found] == [
        (row["step"], row["examples_seen"], row["count"]) for row in recorded
    ]
    for row, old in zip(found, recorded, strict=True):
        assert float(row["accuracy"]) == pytest.approx(float(old["accuracy"]), abs=TOLERANCE), row["step"]
    assert float(found[-1]["accuracy"]) > CHANCE + 2 * TOLERANCE


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), *SHORT)
        shutil.copy(next(Path(folder).glob("*_metrics.csv")), GOLDEN)
    sys.stdout.write(GOLDEN.read_text())

"""A run that diverges is a result: a row of the table with what is known, and the record says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from curves import CAPO, DEPO, TASKS, make_run, table

from synthshards.train.run import Run

pytestmark = pytest.mark.usefixtures("no_pictures")


def diverging(folder: Path, *overrides: str, step: int = 2) -> Run:
    """A run that is given a weight that is no number behind a step."""
    said: list[str] = []
    made = make_run(folder, "train.eval_every_steps=4", *overrides, say=said.append)
    if step == 0:
        spoil(made)
    else:
        made.optimizer.register_step_post_hook(lambda *_: spoil(made) if made.step + 1 == step else None)
    made.run()
    assert any(line.startswith("diverged at step") for line in said), said
    return made


def spoil(made: Run) -> None:
    with torch.no_grad():
        for p in made.model.parameters():
            p.fill_(float("nan"))


def record(folder: Path) -> dict[str, object]:
    loaded: dict[str, object] = json.loads((folder / "run.json").read_text())
    return loaded


@pytest.mark.parametrize("task", TASKS)
def test_a_model_without_numbers_is_measured_as_far_as_it_can_be(task: str, tmp_path: Path) -> None:
    diverging(tmp_path, *TASKS[task], step=0)
    (path,) = tmp_path.glob("*.csv")
    rows = table(path)
    assert {(row["step"], row["examples_seen"]) for row in rows} == {("1", "4")}
    for row in rows:
        assert int(row["count"]) > 0
        assert (
            float(row["accuracy"]) == float(row["token_accuracy"]) == 0
        )  # Lano's end is the id 0, torch's argmax of NaN
        assert {row[name] for name in ("kl", "bits", "bits_per_parameter", "p1", "p2") if name in row} <= {""}
    assert (record(tmp_path)["diverged"], record(tmp_path)["diverged_at"], record(tmp_path)["steps"]) == (True, 1, 1)


def test_it_is_evaluated_and_ends(tmp_path: Path) -> None:
    diverging(tmp_path, *DEPO)
    assert [row["step"] for row in table(tmp_path / "depo_hop_metrics.csv") if row["hop"] == "1"] == ["1", "3"]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    (told,) = [line for line in lines if "train/diverged" in line]
    assert (told["step"], told["train/loss"], told["train/diverged"]) == (3, None, 1)
    assert record(tmp_path)["steps"] == record(tmp_path)["diverged_at"] == 3


def test_it_goes_on_where_that_is_wanted(tmp_path: Path) -> None:
    diverging(tmp_path, *DEPO, "train.stop_on_nan=false")
    assert [row["step"] for row in table(tmp_path / "depo_hop_metrics.csv") if row["hop"] == "1"] == ["1", "4", "6"]
    assert (record(tmp_path)["steps"], record(tmp_path)["diverged_at"]) == (6, 3)


def test_weights_behind_the_last_step_count_too(tmp_path: Path) -> None:
    diverging(tmp_path, *DEPO, step=6)
    assert (record(tmp_path)["diverged"], record(tmp_path)["diverged_at"]) == (True, 6)


def test_a_resumed_run_has_not_forgotten_it(tmp_path: Path) -> None:
    diverging(tmp_path, *DEPO, "train.resume=auto", "train.checkpoint_every=3")
    csv = (tmp_path / "depo_hop_metrics.csv").read_bytes()
    make_run(tmp_path, "train.eval_every_steps=4", *DEPO, "train.resume=auto", "train.checkpoint_every=3").run()
    assert (tmp_path / "depo_hop_metrics.csv").read_bytes() == csv
    assert (record(tmp_path)["diverged"], record(tmp_path)["steps"]) == (True, 3)


def test_a_run_that_learns_has_not_diverged(tmp_path: Path) -> None:
    made = make_run(tmp_path, *CAPO)
    made.run()
    assert (record(tmp_path)["diverged"], record(tmp_path)["diverged_at"]) == (False, None)

"""Eval sets: which rows they hold, fresh and frozen ones, and their manifests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from curves import BRIEF, DEPO, GPT2, MANO, TASKS, files, make_run, only_csv, run, table
from helpers import Ended

import synthshards
from synthshards.errors import UsageError
from synthshards.train.data.eval_sets import EvalSet, write_manifests

Cli = Callable[..., Ended]
pytestmark = pytest.mark.usefixtures("no_pictures")


def test_train_and_eval_rows_have_no_stream_in_common(tmp_path: Path) -> None:
    made = make_run(tmp_path, *DEPO)
    assert made.train_tasks[0].dataset.identity.split == "train"
    assert {one.split for one in made.evaluator.sets[0]} == {"eval"}
    assert [one.task.params.fixed_k for one in made.evaluator.sets[0]] == [1, 2, 4]
    assert all(one.task.params.qa for one in made.evaluator.sets[0])


def test_fresh_rows_at_each_evaluation(tmp_path: Path) -> None:
    made = make_run(tmp_path, *DEPO)
    one = made.evaluator.sets[0][0]
    rows = [[tuple(row["input_ids"]) for row in one.at(number).rows()] for number in (0, 1, 2)]
    assert len({row for some in rows for row in some}) == 15
    assert rows[1] == [tuple(row["input_ids"]) for row in one.task.batch(42, "eval", 5, 5).rows()]


def test_fresh_and_frozen_runs_ask_for_the_rows_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    plain = EvalSet.rows
    monkeypatch.setattr(EvalSet, "rows", lambda self: asked.append(self.start) or plain(self))  # type: ignore[func-returns-value]
    run(tmp_path / "fresh", *DEPO, "eval.hops=[2]")
    assert asked == [0, 5, 10]
    asked.clear()
    run(tmp_path / "frozen", *DEPO, "eval.hops=[2]", "eval.resample_each_eval=false")
    assert asked == [0, 0, 0]


def test_fresh_rows_in_windows(tmp_path: Path) -> None:
    """Evaluation j takes rows 5j..5j+4, and counts as many answers as any other."""
    packed = ("eval.packed_seq_len=24", "train.max_steps=4", "train.eval_every_steps=1")
    made = run(tmp_path, *MANO, *packed)
    one = made.evaluator.sets[0][0]
    for number in range(4):
        windows = list(one.at(number).windows(2, 24))
        assert {int(i) for window in windows for i in window["index"].unique()} - {-1} == set(
            range(5 * number, 5 * number + 5)
        )
        first = one.at(number).rows()[0]["input_ids"]
        assert windows[0]["input_ids"][0, : len(first)].tolist() == list(first)
    assert [row["count"] for row in table(tmp_path / "mano_metrics.csv")] == ["4"] * 4, "the fifth is cut off"


@pytest.mark.parametrize("task", ["depo", "lano", "capo"])
def test_a_frozen_run_is_evaluated_again_from_its_manifests_alone(task: str, tmp_path: Path, cli: Cli) -> None:
    first = tmp_path / "first"
    made = run(first, *TASKS[task], "eval.resample_each_eval=false")
    labels = {"depo": ["hop_1", "hop_2", "hop_4"], "lano": ["lano"], "capo": ["capo_bios", "capo_qa"]}[task]
    assert sorted(path.name for path in (first / "eval").iterdir()) == [f"{one}.manifest.json" for one in labels]
    run(tmp_path / "second", *TASKS[task], f"eval.manifests={first / 'eval'}", "eval.num_examples_per_hop=1")
    assert only_csv(first) == only_csv(tmp_path / "second")
    assert files(tmp_path / "second") & {"eval"} == set()
    one = made.evaluator.sets[0][0]
    manifest = first / "eval" / f"{one.label}.manifest.json"
    assert cli("reproduce", manifest, "--out", tmp_path / "rows").code == 0
    stored = synthshards.open_dataset(str(tmp_path / "rows"))
    name = "text" if task == "capo" else "input_ids"
    assert [list(row[name]) for row in (stored[i] for i in range(len(stored)))] == [list(r[name]) for r in one.rows()]


def test_manifests_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    wide = synthshards.make_task("depo", N=6, K=4, qa=True, fixed_k=2)
    write_manifests([EvalSet("hop_2", 2, wide, 0, "eval", 3)], tmp_path / "wide")
    with pytest.raises(UsageError, match=r"hop_2.manifest.json: its rows hold the id 9500, and depo has ids up to 40"):
        make_run(tmp_path, *DEPO, f"eval.manifests={tmp_path / 'wide'}")
    mixed = make_run(tmp_path, *DEPO).train_tasks[0].task
    write_manifests([EvalSet("all", None, mixed, 0, "eval", 3)], tmp_path / "mixed")
    with pytest.raises(UsageError, match=r"different hops; legal: rows of one, fixed_k=HOP"):
        make_run(tmp_path, *DEPO, f"eval.manifests={tmp_path / 'mixed'}")


def test_training_on_what_is_evaluated_is_refused(tmp_path: Path, cli: Cli) -> None:
    pairs = [one.removeprefix("dataset.") for one in DEPO]
    cli("build", "depo", *pairs, "--examples", 20, "--split", "eval", "--out", tmp_path / "data")
    ended = cli("curve", *GPT2, *BRIEF, f"data.path={tmp_path / 'data'}", f"output_dir={tmp_path / 'out'}")
    assert ended.code == 2
    assert "its rows are of the split eval, on which the run is evaluated" in ended.err

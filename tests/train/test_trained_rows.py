"""How many rows of an evaluation a run has been trained on: equal in content, whatever their index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from curves import CAPO, DEPO, MANO, MIXTURE, make_run, run

from synthshards.train.data import trained_rows
from synthshards.train.data.eval_sets import EvalSet
from synthshards.train.data.trained_rows import TrainedRows
from synthshards.train.run import Run

pytestmark = pytest.mark.usefixtures("no_pictures")
#: One operation modulo 3: 27 rows and their synonyms.
TINY = (*MANO, "dataset.L=1", "dataset.value_mod=3", "dataset.knowledge_augment=false")


def rows_of(task: Any, seed: int, split: str, start: int, stop: int) -> list[Any]:
    """Rows as what they are compared by."""
    rows = task.batch(seed, split, start, stop - start).rows()
    return [row["text"] if "text" in row else tuple(row["input_ids"]) for row in rows]


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return found


def test_rows_of_a_small_space_are_told_and_counted(tmp_path: Path) -> None:
    told: list[str] = []
    made = make_run(tmp_path, *TINY, "eval.num_examples_per_hop=20", say=told.append)
    made.run()
    task, seed = made.train_tasks[0].task, made.train_tasks[0].seed
    counts = []
    for number, step in enumerate((1, 3, 6)):
        trained = set(rows_of(task, seed, "train", 0, 4 * step))
        asked = rows_of(made.evaluator.sets[0][0].task, seed, "eval", 20 * number, 20 * number + 20)
        counts.append(sum(row in trained for row in asked))
    assert 0 < counts[0] < counts[2]
    lines = [line for one in told for line in one.splitlines() if "trained on" in line]
    assert lines == [f"  mano: {count} of 20 rows have been trained on" for count in counts]
    assert record(tmp_path)["eval_rows_trained_on"] == {"mano": counts[2]}
    assert record(tmp_path)["training_rows_compared"] == {"mano": 24}


def test_a_large_space_shares_nothing_and_says_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    make_run(tmp_path, *DEPO, say=told.append).run()
    assert record(tmp_path)["eval_rows_trained_on"] == {"hop_1": 0, "hop_2": 0, "hop_4": 0}
    assert not any("trained on" in line for line in told)


def test_before_the_first_evaluation_nothing_is_known(tmp_path: Path) -> None:
    made = make_run(tmp_path, *TINY)
    made._write_inputs()
    assert record(tmp_path)["eval_rows_trained_on"] == {"mano": None}


@pytest.mark.parametrize("packing", [(), ("train.packing=best-fit", "train.seq_len=24")])
def test_each_task_of_a_mixture_has_its_own(packing: tuple[str, ...], tmp_path: Path) -> None:
    made = run(
        tmp_path, *MIXTURE, *packing, "train.max_steps=60", "train.eval_every_steps=30", "eval.num_examples_per_hop=30"
    )
    found = record(tmp_path)
    assert found["training_rows_compared"].keys() == {"depo1", "mano"}
    given = made.stream.rows_given(1000)
    assert list(found["training_rows_compared"].values()) == [int(mask.sum()) for mask in given]
    mano, sets = made.train_tasks[1], made.evaluator.sets[1]
    last = int(given[1].nonzero()[0][-1])
    every = rows_of(mano.task, mano.seed, "train", 0, last + 1)
    trained = {row for row, met in zip(every, given[1].tolist(), strict=False) if met}
    asked = rows_of(sets[0].task, mano.seed, "eval", 60, 90)  # steps 1, 30 and 60
    assert found["eval_rows_trained_on"]["mano"] == sum(row in trained for row in asked) > 0


def test_biographies_are_trained_on_as_they_are_meant_to_be(tmp_path: Path) -> None:
    packed = ("train.packing=concat", "train.seq_len=128", "train.isolate=false", "dataset.qa_share=0.5")
    made = run(tmp_path, *CAPO, *packed, "train.max_steps=40", "train.eval_every_steps=40")
    counts = record(tmp_path)["eval_rows_trained_on"]
    assert counts["capo_bios"] == 5
    assert counts["capo_qa"] == 0
    trained = TrainedRows(made.train_tasks[0])
    trained.update(made.stream.rows_given(1000))
    questions = made.train_tasks[0].parts[1]
    asked = EvalSet("", None, questions.task, questions.identity.seed, questions.identity.split, 3)
    assert trained.count(asked) == 3


def test_a_resumed_run_counts_as_one_that_was_not_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = (*TINY, "train.checkpoint_every=3", "train.resume=auto")
    run(tmp_path / "whole", *settings)
    plain = Run._one_step

    def stopped(self: Run, *args: Any) -> float:
        if self.step == 5:
            raise RuntimeError("killed")
        return plain(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_one_step", stopped)
        with pytest.raises(RuntimeError, match="killed"):
            run(tmp_path / "cut", *settings)
    run(tmp_path / "cut", *settings)
    names = ("eval_rows_trained_on", "training_rows_compared")
    whole = {name: record(tmp_path / "whole")[name] for name in names}
    assert {name: record(tmp_path / "cut")[name] for name in names} == whole
    run(tmp_path / "cut", *settings)  # nothing is left to do, and what was counted stands
    assert {name: record(tmp_path / "cut")[name] for name in names} == whole


def test_the_first_rows_alone_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthshards.train.run.COMPARED", 10)
    made: list[int] = []
    plain = trained_rows.row_hashes
    monkeypatch.setattr(trained_rows, "row_hashes", lambda batch: made.append(len(batch)) or plain(batch))  # type: ignore[func-returns-value]
    run(tmp_path, *TINY)
    assert record(tmp_path)["training_rows_compared"] == {"mano": 10}
    assert made == [4, 5, 6, 5, 5], "4 rows, then 6, each once; 5 rows of each evaluation"

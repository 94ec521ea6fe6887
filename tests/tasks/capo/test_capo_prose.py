"""docs/capo.md is enough to write the rows again: a rewriting from it alone agrees with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference_capo
from capo_parts import CASES

from synthshards import make_task
from synthshards.kernels.buffers import Buffers
from synthshards.tasks.capo import biod as capo_biod
from synthshards.tasks.capo import task as capo
from synthshards.tasks.capo.biography import QUESTIONS

DOCS = Path(__file__).parents[3] / "docs" / "capo.md"


@pytest.mark.parametrize("case", [case for case in CASES if "/capo-" not in case or "2m" in case])
def test_rows_written_again_from_the_prose(case: str) -> None:
    task = CASES[case]
    again = reference_capo.Capo(task.params.canonical(), 2**64 - 1, "eval_2")
    last = (task.num_examples or 0) - 1
    indices = [0, 1, 2, 3, last // 2, last // 2 + 1, last // 2 + 2, last // 3, last - 1, last]
    batch = task.generate(task.key(2**64 - 1, "eval_2"), np.array(indices, np.uint64), Buffers())
    for i, row in zip(indices, batch.rows(), strict=True):
        wanted: dict[str, Any] = again.row(i)
        assert {name: row[name] for name in wanted} == wanted


def test_the_samples_in_docstrings_are_real() -> None:
    told = " ".join((capo.__doc__ or "").split())
    for i in (7, 67_833):
        row = make_task("capo-50k").example(0, "train", i)
        assert row["text"] in told
        assert f"person {row['person_id']:,}" in told
    sample = make_task("capo-50k", form="biod", K=3).example(0, "train", 0)["text"]
    assert sample in " ".join((capo_biod.__doc__ or "").split())


def test_the_prose_lists_the_questions() -> None:
    lines = DOCS.read_text().splitlines()
    for name, question in QUESTIONS.items():
        assert f"| {name} | {question} |" in lines

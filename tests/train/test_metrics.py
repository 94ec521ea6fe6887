"""The table of evaluations: a task for each file of metrics, and one line where a task has none."""

from __future__ import annotations

from importlib.util import module_from_spec
from pathlib import Path

import pytest
from curves import BRIEF, GPT2, make_run

from synthshards import ManoTask
from synthshards.catalog import TASKS
from synthshards.errors import UsageError
from synthshards.train.evaluation import metrics


class Toy(ManoTask):
    """A task of the catalogue that nobody has written metrics for."""

    name = "toy"


def test_every_task_of_the_package_has_metrics() -> None:
    assert list(metrics.EVALUATIONS) == list(TASKS)


def test_a_task_without_metrics_hurts_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    names = list(TASKS)
    monkeypatch.setitem(TASKS, "toy", (Toy, "mano-10"))
    assert metrics.__spec__ is not None
    assert metrics.__spec__.loader is not None
    afresh = module_from_spec(metrics.__spec__)
    metrics.__spec__.loader.exec_module(afresh)
    assert list(afresh.EVALUATIONS) == names


def test_asking_for_metrics_that_are_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "toy", (Toy, "mano-10"))
    with pytest.raises(UsageError, match=r"^no metrics for toy; legal: depo, brevo, mano, lano, capo$"):
        make_run(tmp_path, "dataset=mano", "dataset.task=toy", "dataset.L=4", base=(*GPT2, *BRIEF))

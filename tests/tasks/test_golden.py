"""Goldens: a change of rows under an unchanged task_version cannot pass, and cannot be blessed by accident."""

from __future__ import annotations

import json
from pathlib import Path

import golden_rows
import pytest
from helpers import SUPPORT, python

from synthshards.catalog import TASKS, make_task

CASES = [(task, name) for task in TASKS for name in golden_rows.load(task)["cases"]]


@pytest.mark.parametrize(("task", "name"), CASES)
def test_rows_are_the_golden_ones(task: str, name: str) -> None:
    golden = golden_rows.load(task)
    case = golden["cases"][name]
    made = make_task(case["preset"], case["params"])
    assert golden["task_version"] == made.version, f"{task}: golden rows of another version; {golden_rows.RULE}"
    assert golden_rows.first_row(made) == case["first"], golden_rows.RULE
    assert golden_rows.content(made) == case["content"], golden_rows.RULE


@pytest.mark.parametrize("task", TASKS)
def test_every_preset_is_pinned(task: str) -> None:
    pinned = {case["preset"] for case in golden_rows.load(task)["cases"].values() if not case["params"]}
    assert pinned == set(TASKS[task][0].presets)


def test_rows_are_the_golden_ones_with_an_empty_kernel_cache(tmp_path: Path) -> None:
    python(str(SUPPORT / "golden_rows.py"), SYNTHSHARDS_CACHE=str(tmp_path))
    assert list(tmp_path.rglob("*.nbc")), "the kernels were not compiled into the empty cache"


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A golden file of three cases, in a folder of its own."""
    kept = golden_rows.load("depo")
    kept["cases"] = dict(list(kept["cases"].items())[:3])
    path = tmp_path / "depo.json"
    path.write_text(golden_rows.dump(kept))
    return path


def test_update_refuses_changed_rows_under_the_same_version(golden: Path) -> None:
    changed = golden.read_text().replace("sha256:", "sha256:0", 1)
    golden.write_text(changed)
    refusals = golden_rows.update(golden)
    assert refusals == ["depo/depo1-225: rows changed at task_version 1"]
    assert golden.read_text() == changed


def test_update_refuses_a_changed_first_row(golden: Path) -> None:
    data = json.loads(golden.read_text())
    data["cases"]["depo1-375"]["first"]["ks"][0] += 1
    golden.write_text(golden_rows.dump(data))
    assert golden_rows.update(golden) == ["depo/depo1-375: rows changed at task_version 1"]


def test_update_takes_changed_rows_of_a_new_version(golden: Path) -> None:
    before = golden.read_text()
    golden.write_text(before.replace("sha256:", "sha256:0", 1).replace('"task_version": 1', '"task_version": 0'))
    assert golden_rows.update(golden) == []
    assert golden.read_text() == before


def test_update_adds_new_cases_and_leaves_the_rest_byte_for_byte(golden: Path) -> None:
    before = golden.read_text()
    data = json.loads(before)
    data["cases"]["new"] = {"preset": "depo1-225", "params": {"N": 10}}
    golden.write_text(json.dumps(data))
    assert golden_rows.update(golden) == []
    data = json.loads(golden.read_text())
    assert data["cases"].pop("new")["content"].startswith("sha256:")
    assert golden_rows.dump(data) == before


def test_the_script_says_what_to_do(monkeypatch: pytest.MonkeyPatch, golden: Path, capsys: object) -> None:
    golden.write_text(golden.read_text().replace("sha256:", "sha256:0", 1))
    monkeypatch.setattr(golden_rows, "FOLDER", golden.parent)
    monkeypatch.setattr(golden_rows, "TASKS", {"depo": TASKS["depo"]})
    for args in ([], ["--update"]):
        assert golden_rows.main(args) == 1
        said = capsys.readouterr().err  # type: ignore[attr-defined]
        assert "depo/depo1-225" in said
        assert "bump the task's version" in said
        assert "CHANGELOG under 'Data changes'" in said

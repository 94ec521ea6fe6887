"""Golden rows: what tests/golden/<task>.json pins, and how it may be changed.

    python tests/support/golden_rows.py       compare (exit 1 and one line for each case that differs)
    python tests/support/golden_rows.py --update   fill in new cases; replace old ones only where the version was raised

A case is a preset with parameters of its own. It pins the content digest of rows 0..255 of seed 0, split "train", and
the first row in full, so that a change can be looked at. Rows are pinned, never a serializer's bytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from synthshards.catalog import TASKS, make_task
from synthshards.digest import ContentDigest
from synthshards.tasks.task import Task

FOLDER = Path(__file__).parents[1] / "golden"
ROWS = 256
RULE = (
    "bump the task's version and add a line to CHANGELOG under 'Data changes', "
    "then run tests/support/golden_rows.py --update"
)


def load(task: str) -> dict[str, Any]:
    """The golden file of a task."""
    path = FOLDER / f"{task}.json"
    assert path.is_file(), f"{task} has no golden rows: write {path.name} with cases, then run golden_rows.py --update"
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def cases(*tasks: str) -> dict[str, Task]:
    """Every case of some tasks (all, if none is named): "task/case" → the task object."""
    return {
        f"{task}/{name}": make_task(case["preset"], case["params"])
        for task in tasks or TASKS
        for name, case in load(task)["cases"].items()
    }


def content(task: Task, rows: int = ROWS) -> str:
    """The content digest of the first rows of seed 0, split "train"."""
    digest = ContentDigest(task.columns)
    digest.update(task.batch(0, "train", 0, rows))
    return digest.hexdigest()


def first_row(task: Task) -> dict[str, Any]:
    """Row 0 as plain values: the mask as a string of 0 and 1, no labels."""
    row = task.example(0, "train", 0)
    row.pop("labels", None)
    plain = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in row.items()}
    if "loss_mask" in plain:
        plain["loss_mask"] = "".join("01"[on] for on in plain["loss_mask"])
    return plain


def differences(golden: dict[str, Any]) -> list[str]:
    """One line for each case whose rows are not the golden ones (a case without a digest is new, not different)."""
    out = []
    for name, case in golden["cases"].items():
        task = make_task(case["preset"], case["params"])
        if "content" in case and (case["content"], case["first"]) != (content(task), first_row(task)):
            out.append(f"{golden['task']}/{name}: rows changed at task_version {task.version}")
    return out


def update(path: Path) -> list[str]:
    """Rewrite a golden file from today's rows; the lines returned are the reasons why it was left alone."""
    golden = json.loads(path.read_text())
    version = TASKS[golden["task"]][0].version
    if golden.get("task_version") == version and (refusals := differences(golden)):
        return refusals
    golden["task_version"] = version
    for case in golden["cases"].values():
        task = make_task(case["preset"], case["params"])
        case["content"], case["first"] = content(task), first_row(task)
    path.write_text(dump(golden))
    return []


def dump(golden: dict[str, Any]) -> str:
    """JSON with one line a field, so that a change of rows reads well in a diff."""

    def line(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    blocks = []
    for name, case in golden["cases"].items():
        first = ",\n".join(f"        {line(k)}: {line(v)}" for k, v in case["first"].items())
        fields = [f"      {line(k)}: {line(case[k])}" for k in ("preset", "params", "content")]
        fields.append(f'      "first": {{\n{first}\n      }}')
        blocks.append(f"    {line(name)}: {{\n" + ",\n".join(fields) + "\n    }")
    head = f'{{\n  "task": {line(golden["task"])},\n  "task_version": {golden["task_version"]},\n  "cases": {{\n'
    return head + ",\n".join(blocks) + "\n  }\n}\n"


def main(args: list[str]) -> int:
    """Compare or update all golden files."""
    bad = []
    for task in TASKS:
        bad += update(FOLDER / f"{task}.json") if args == ["--update"] else differences(load(task))
    for text in bad:
        print(f"{text}; {RULE}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

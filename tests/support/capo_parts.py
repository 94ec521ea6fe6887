"""What the tests of Capo share: rows, and what to read off them."""

from __future__ import annotations

from typing import Any

import golden_rows
from helpers import plain

from synthshards.ragged import RaggedBatch
from synthshards.tasks.capo.biography import ATTRIBUTES, date
from synthshards.tasks.capo.task import CapoTask

CASES = golden_rows.cases("capo")
SMALL = CapoTask(num_people=30, exposures=6)


def rows_of(batch: RaggedBatch) -> list[dict[str, Any]]:
    return [plain(row) for row in batch.rows()]


def everything(task: CapoTask, seed: int = 0, split: str = "train") -> list[dict[str, Any]]:
    return rows_of(task.batch(seed, split, 0, task.num_examples))


def facts(row: dict[str, Any]) -> tuple[Any, ...]:
    """What must not change from one row of a person to another."""
    return tuple(row[name] for name in sorted(row) if name not in ("text", "exposure_idx", "spans", "question"))


def order_of(row: dict[str, Any]) -> tuple[int, ...]:
    """The attributes in the order of their sentences."""
    starts = row["spans"][2::2]
    return tuple(sorted(range(6), key=lambda a: starts[a]))


def values_of(row: dict[str, Any], reverse_md: bool = False) -> dict[str, str]:
    """Full name and attributes as texts write them."""
    values = {name: row[name] for name in ATTRIBUTES if name in row}
    values["birth_date"] = date(row["birth_month"], row["birth_day"], row["birth_year"], reverse_md)
    values["full_name"] = f"{row['first_name']} {row['middle_name']} {row['last_name']}"
    return values

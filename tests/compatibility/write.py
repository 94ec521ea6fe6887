"""Writes a generation of the files that all later versions must read: `python tests/compatibility/write.py NAME`.

A generation is a folder beside this file:

    datasets/NAME/FORMAT   small datasets: each task in each format, each compression, each kind of columns
    rows.json              the rows of each NAME
    frozen.json            a manifest of rows that no file holds
    states.json            states of loaders, and the batch that comes after each

A new one is due where something else is written than before; what is there is never written again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from synthshards import make_task, open_dataset
from synthshards.formats import FORMATS
from synthshards.pipelines.build import build
from synthshards.pipelines.plan import make_plan
from synthshards.tasks.task import Task

FOLDER = Path(__file__).parent
ROWS, SHARD = 4, 2

#: In every format.
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "depo": ("depo", {"N": 6, "K": 2}),
    "brevo": ("brevo", {"N": 6}),
    "mano": ("mano", {"L": 2}),
    "lano": ("lano", {"grammar": "drawn", "depth": 2, "symbols": 2}),
    "capo": ("capo", {"num_people": 3, "exposures": 2}),
}
#: In one format: other columns, and what else may stand in a manifest's parameters.
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "depo-wide": ("depo", {"N": 6, "K": 2, "bos_token_id": 100_000}),
    "brevo-multi": ("brevo", {"N": 6, "multi": True}),
    "lano-own": ("lano", {"grammar": "S -> A B | B A\nA -> 1 2 | 1\nB -> 2 3 3"}),
    "lano-published": ("lano", {"grammar": "cfg3b"}),
    "capo-qa": ("capo", {"num_people": 3, "exposures": 2, "form": "qa"}),
    "capo-biod": ("capo", {"num_people": 3, "exposures": 2, "form": "biod"}),
}
ONE, TWO = ["depo/parquet"], ["depo/parquet", "mano/arrow"]
#: Streams: of which datasets, and how.
STREAMS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "padded": (ONE, {}),
    "shuffled": (ONE, {"shuffle": True, "seed": 3, "epoch": 1}),
    "concat": (ONE, {"packing": "concat", "seq_len": 16}),
    "paper": (ONE, {"packing": "paper", "seq_len": 32, "shuffle": True}),
    "best-fit": (ONE, {"packing": "best-fit", "seq_len": 32}),
    "endless": (ONE, {"packing": "concat", "seq_len": 16, "repeat": True, "shuffle": True, "lanes": 2}),
    "mixture": (TWO, {}),
    "packed mixture": (TWO, {"packing": "concat", "seq_len": 16}),
}


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """A row or batch in lists and numbers."""
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in values.items()}


def write(folder: Path) -> None:
    datasets, rows = folder / "datasets", {}

    def make(name: str, task: Task, format: str, compression: str | None = None) -> None:
        plan = make_plan(task, examples=ROWS, shard_examples=SHARD, format=format, compression=compression)
        build(plan, str(datasets / name))

    for name, (task_name, params) in {**TASKS, **OTHERS}.items():
        task = make_task(task_name, params)
        rows[name] = [plain(row) for row in task.batch(0, "train", 0, ROWS).rows()]
        for format in FORMATS if name in TASKS else ["parquet"]:
            make(f"{name}/{format}", task, format)
    for format, kind in FORMATS.items():
        for compression in kind.compressions[1:]:  # the first is the default
            make(f"mano/{format}-{compression}", make_task("mano", TASKS["mano"][1]), format, compression)
    (folder / "rows.json").write_text("{\n" + ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in rows.items()) + "\n}\n")

    with TemporaryDirectory() as elsewhere:
        manifest = build(make_plan(make_task("mano", L=3), examples=ROWS, split="eval"), elsewhere).manifest
    assert manifest is not None
    absent = [msgspec.structs.replace(entry, bytes=None, sha256=None) for entry in manifest.shards]
    (folder / "frozen.json").write_bytes(replace(manifest, shards=absent).to_json())

    states = {}
    for name, (those, options) in STREAMS.items():
        weights = {str(datasets / each): 1.0 for each in those}
        stream = open_dataset(weights if len(weights) > 1 else str(datasets / those[0])).batches(1, **options)
        batches = iter(stream)
        next(batches)
        state = stream.state_dict()
        states[name] = {"datasets": those, "options": options, "state": state, "next": plain(next(batches))}
    lines = [f'"{name}": {json.dumps(state)}' for name, state in states.items()]
    (folder / "states.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main() -> None:
    if len(sys.argv) != 2 or not sys.argv[1].replace(".", "").isalnum():
        sys.exit(f"usage: python {sys.argv[0]} NAME    (a version, such as 0.1.0)")
    folder = FOLDER / sys.argv[1]
    if folder.exists():
        sys.exit(f"{folder} exists: it is what later versions must read, and is never written again")
    write(folder)


if __name__ == "__main__":
    main()

"""What earlier versions wrote is read: shards, manifests and states of loaders, of every generation beside this file.

`write.py` writes a generation; docs/compatibility.md says what is promised.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from helpers import plain
from small_datasets import run

from synthshards.dataset.stored import open_stored

FOLDER = Path(__file__).parent
GENERATIONS = sorted(path.parent for path in FOLDER.glob("*/rows.json"))
DATASETS = [path for generation in GENERATIONS for path in sorted((generation / "datasets").glob("*/*"))]
STATES = [
    (generation, name) for generation in GENERATIONS for name in json.loads((generation / "states.json").read_text())
]


def label(value: Any) -> str:
    return "-".join(value.parts[len(FOLDER.parts) :]) if isinstance(value, Path) else value


def test_there_is_a_generation_and_it_is_small() -> None:
    assert len(DATASETS) >= 25
    for generation in GENERATIONS:
        assert sum(path.stat().st_size for path in generation.rglob("*") if path.is_file()) < 300_000


@pytest.mark.parametrize("folder", DATASETS, ids=label)
def test_shards_are_clean_and_hold_their_rows(folder: Path) -> None:
    verdict = run("verify", folder, "--json")
    document = json.loads(verdict.out)
    assert (verdict.code, document["ok"], document["notes"]) == (0, True, [])
    dataset = open_stored(str(folder))
    found = [
        plain(row)
        for shard in range(len(dataset.manifest.shards))
        for batch in dataset.blocks(shard)
        for row in batch.rows()
    ]
    rows = json.loads((folder.parents[2] / "rows.json").read_text())
    assert found == rows[folder.parent.name]


@pytest.mark.parametrize("folder", DATASETS, ids=label)
def test_rows_are_generated_again_as_long_as_their_task_is_of_the_same_version(folder: Path) -> None:
    manifest = open_stored(str(folder)).manifest
    if manifest.identity.task_version != type(manifest.task()).version:
        pytest.skip("the task has another version")
    assert run("verify", folder, "--rederive").code == 0


@pytest.mark.parametrize("generation", GENERATIONS, ids=label)
def test_rows_that_no_file_holds_are_made_from_their_manifest(generation: Path, tmp_path: Path) -> None:
    assert run("reproduce", generation / "frozen.json", "--out", tmp_path / "again").code == 0


@pytest.mark.parametrize(("generation", "name"), STATES, ids=label)
def test_a_loader_goes_on_from_a_state(generation: Path, name: str) -> None:
    pytest.importorskip("torch")
    from synthshards import open_dataset

    known = json.loads((generation / "states.json").read_text())[name]
    one, *others = (str(generation / "datasets" / each) for each in known["datasets"])
    stream = open_dataset(dict.fromkeys([one, *others], 1.0) if others else one).batches(1, **known["options"])
    stream.load_state_dict(known["state"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plain(next(iter(stream))) == known["next"]


def test_what_is_there_is_never_written_again() -> None:
    ended = subprocess.run([sys.executable, FOLDER / "write.py", GENERATIONS[0].name], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.endswith("exists: it is what later versions must read, and is never written again\n")

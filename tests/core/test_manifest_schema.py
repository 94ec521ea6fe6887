"""The JSON Schema of a manifest: it takes all that the parser takes, and little else."""

from __future__ import annotations

import copy
import importlib.resources
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from json_trees import WRONG, Json, fields, parent_of
from small_datasets import FORMATS, SMALL, make

from synthshards.catalog import TASKS
from synthshards.dataset.manifest_parser import parse
from synthshards.errors import ManifestError

ROOT = Path(__file__).parents[2]
TEXT = (importlib.resources.files("synthshards.dataset") / "manifest.schema.json").read_text()
SCHEMA = jsonschema.Draft202012Validator(json.loads(TEXT))
#: Small datasets: every task, and each kind of parameter.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in TASKS},
    "capo, questions": ("capo", {"form": "qa", "num_people": 30}),
    "capo, bioD": ("capo", {"form": "biod", "num_people": 30}),
    "depo, qa": ("depo", {"qa": True, "fixed_k": 3}),
    "lano, drawn": ("lano", {"grammar": "drawn", "symbols": "3,4,5", "depth": 3}),
    "lano, own": ("lano", {"grammar": "S -> A B\nA -> 1 2 | 1\nB -> 2 3 3"}),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Json:
    return manifest_of(make(tmp_path_factory.mktemp("schema") / "good", params={**SMALL, "fixed_k": 3}))


def manifest_of(folder: str) -> Json:
    return json.loads((Path(folder) / "_manifest").read_text())


def test_it_follows_from_the_types_and_the_docs_have_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import manifest_schema

    assert json.loads(manifest_schema.schema()) == SCHEMA.schema
    assert (ROOT / "docs" / manifest_schema.NAME).read_text() == TEXT
    assert SCHEMA.schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    SCHEMA.check_schema(SCHEMA.schema)
    del sys.modules["manifest_schema"]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_takes_the_manifests_of_every_task_and_format(kind: str, format: str, tmp_path: Path) -> None:
    task, params = KINDS[kind]
    seed = 2**64 - 1
    document = manifest_of(make(tmp_path / "x", task=task, params=params, seed=seed, split="a_1", format=format))
    SCHEMA.validate(document)
    document["totals"]["bytes"] = None
    for shard in document["shards"]:
        shard["bytes"] = shard["sha256"] = None
    parse(json.dumps(document).encode(), "frozen")
    SCHEMA.validate(document)


def test_it_takes_what_earlier_versions_wrote() -> None:
    found = [path for name in ("_manifest", "manifest.json", "frozen.json") for path in (ROOT / "tests").rglob(name)]
    assert len(found) >= 50
    for path in found:
        SCHEMA.validate(json.loads(path.read_text()))


def test_it_refuses_what_is_missing_and_what_is_unknown(good: Json) -> None:
    for path in [(), *fields(good)]:
        holder = parent_of(good, (*path, ""))
        if path and path[0] != "columns" and isinstance(parent_of(good, path), dict):
            bad = copy.deepcopy(good)
            del parent_of(bad, path)[path[-1]]
            assert not SCHEMA.is_valid(bad), path
        if isinstance(holder, dict):
            bad = copy.deepcopy(good)
            parent_of(bad, (*path, ""))["surplus"] = 1
            assert not SCHEMA.is_valid(bad), path


def test_of_wrong_values_it_takes_those_of_the_right_type_alone(good: Json) -> None:
    """It takes what the parser takes. What it takes beside that is another number, or a name of the right form."""
    taken = 0
    for path in fields(good):
        right = parent_of(good, path)[path[-1]]
        for value in WRONG:
            bad = copy.deepcopy(good)
            parent_of(bad, path)[path[-1]] = value
            try:
                parse(json.dumps(bad).encode(), "here")
            except ManifestError:
                if not SCHEMA.is_valid(bad):
                    continue
                same = isinstance(value, float | int) and not isinstance(value, bool) and value == int(value)
                assert type(value) is type(right) or (same and isinstance(right, int)) or value is None, (path, value)
                assert not isinstance(value, str) or path[-1] == "split" or path[0] == "generator", (path, value)
                taken += 1
            else:
                SCHEMA.validate(bad)
    assert 20 < taken < 200


def setting(*path: str | int, to: Json) -> Callable[[Json], None]:
    def change(document: Json) -> None:
        parent_of(document, path)[path[-1]] = to

    return change


REFUSED = [
    setting("schema_version", to=2),
    setting("dataset", "task", to="depot"),
    setting("dataset", "task_version", to=0),
    setting("dataset", "seed", to=-1),
    setting("dataset", "seed", to=2**64),
    setting("dataset", "split", to="Train"),
    setting("dataset", "params", "N", to=2),
    setting("dataset", "params", "qa", to=1),
    setting("fingerprint", to="sha256:" + 64 * "A"),
    setting("layout", "format", to="csv"),
    setting("layout", "compression", to="lz4"),  # Arrow has it, Parquet does not
    setting("layout", "shard_examples", to=10_000_001),
    setting("layout", "num_shards", to=100_001),
    setting("columns", "n", to="float32"),
    setting("columns", "N!", to="uint16"),
    setting("totals", "examples", to=10**12 + 1),
    setting("totals", "characters", to=1),
    setting("shards", to=[]),
    setting("shards", 0, "path", to="../train-00000.parquet"),
    setting("shards", 0, "start", to=-1),
    setting("shards", 0, "stop", to=0),
    setting("shards", 0, "tokens", to=2**63),
    setting("shards", 0, "characters", to=1),
    setting("shards", 0, "bytes", to=0),
    setting("shards", 0, "bytes", to=None),
    setting("shards", 0, "sha256", to=None),
    setting("shards", 0, "content", to=None),
    setting("generator", "version", to="x" * 101),
]


@pytest.mark.parametrize("change", REFUSED, ids=range(len(REFUSED)))
def test_it_has_the_parsers_bounds(change: Callable[[Json], None], good: Json) -> None:
    bad = copy.deepcopy(good)
    change(bad)
    assert not SCHEMA.is_valid(bad)
    with pytest.raises(ManifestError):
        parse(json.dumps(bad).encode(), "here")

"""What works for one task works for all alike, in every format, on a disk and in an object store."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from folders import files
from s3 import Server

from synthshards.catalog import TASKS
from synthshards.formats import FORMATS

ROOT = Path(__file__).parents[2]
#: Task and parameters: every task, and each kind of row that one has.
KINDS = [*([name] for name in TASKS), ["capo", "form=qa"], ["capo", "form=biod"], ["lano", "grammar=drawn"]]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=" ".join)


def contents(folder: Path) -> list[str]:
    return [shard["content"] for shard in json.loads((folder / "_manifest").read_bytes())["shards"]]


@every_kind
@pytest.mark.parametrize("format", FORMATS)
def test_build_verify_reproduce_inspect(kind: list[str], format: str, tmp_path: Path, cli: Any) -> None:
    out, again, other = tmp_path / "out", tmp_path / "again", tmp_path / "other"
    size = ["--examples", "90", "--shard-examples", "40"]
    assert cli("build", *kind, *size, "--format", format, "--out", out).code == 0
    assert cli("verify", out, "--rederive").code == 0
    manifest = out / "_manifest"
    assert cli("reproduce", manifest, "--out", again).code == 0
    assert files(again) == files(out)
    formats = list(FORMATS)
    next_one = formats[(formats.index(format) + 1) % len(formats)]
    assert cli("reproduce", manifest, "--out", other, "--format", next_one).code == 0
    assert contents(other) == contents(out)
    shown = cli("inspect", out, "--show", "90")
    assert (shown.code, shown.out.count("· valid"), "INVALID" in shown.out) == (0, 90, False)
    assert cli("info", out).code == 0
    assert json.loads(cli("overlap", out, other, "--json").out)["rows_a"] == 90


@every_kind
def test_an_object_store_holds_what_a_folder_holds(
    kind: list[str], s3_url: str, s3_bucket: str, s3_env: Server, tmp_path: Path, cli: Any
) -> None:
    size = ["--examples", "50", "--shard-examples", "40"]
    assert cli("build", *kind, *size, "--out", s3_url).code == 0
    assert cli("build", *kind, *size, "--out", tmp_path / "out").code == 0
    assert {key.removeprefix("prefix/"): s3_env.get(s3_bucket, key) for key in s3_env.objects(s3_bucket)} == files(
        tmp_path / "out"
    )
    assert cli("verify", s3_url, "--rederive").code == 0


def comparisons(source: str) -> Iterator[int]:
    """Lines that compare something with a task's name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare | ast.Match):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and part.value in TASKS:
                    yield node.lineno


def task_names(source: str) -> Iterator[str]:
    """Strings (but docstrings) and identifiers that hold a task's name as a word, such as `DepoTask` or "lano_kl"."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        for _, text in ast.iter_fields(node):
            if isinstance(text, str) and id(node) not in docstrings:
                words = re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", text)
                if any(word.lower() in TASKS for word in words):
                    yield text


def test_training_names_no_task_but_in_its_evaluation() -> None:
    for path in (ROOT / "train").rglob("*.py"):
        if path.parent.name != "metrics" or path.stem not in TASKS:
            assert list(task_names(path.read_text())) == [], path
    assert list(task_names('"""Lano."""\nTITLES = {"lano": "Kapo"}')) == ["lano"]
    assert list(task_names("from tasks import DepoTask as Task\nMANO = 1\nx.capo_kl(brevo1=2)")) == [
        "DepoTask", "MANO", "capo_kl", "brevo1",
    ]  # fmt: skip


def test_no_task_is_told_apart_outside_its_own_file() -> None:
    for floor in ("synthshards", "pipelines", "loaders"):
        for path in (ROOT / floor).rglob("*.py"):
            if path.parent.name != "tasks":
                assert list(comparisons(path.read_text())) == [], path
    assert list(comparisons('x = 1\nif task.name == "capo": pass')) == [2]
    assert list(comparisons('match name:\n    case "lano": pass')) == [1]

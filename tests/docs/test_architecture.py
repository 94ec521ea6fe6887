"""docs/architecture.md names every folder and module of the floors, and none that is not there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
FLOORS = ("synthshards", "pipelines", "loaders", "train")


@pytest.mark.parametrize("floor", FLOORS)
def test_the_tree_is_the_tree(floor: str) -> None:
    (table,) = re.findall(rf"<!-- generated: tree {floor} -->\n(.*?)<!-- end -->", PAGE, re.S)
    named = re.findall(r"^\| \**`([^`]+)`\** \| (.+) \|$", table, re.M)
    modules = {path.relative_to(ROOT / floor) for path in (ROOT / floor).rglob("*.py")}
    folders = {f"{path.parent}/" for path in modules if path.name == "__init__.py"} - {"./"}
    files = {str(path) for path in modules if path.name != "__init__.py"}
    assert sorted(name for name, _ in named) == sorted({f"{floor}/"} | folders | files), "run: make docs"


def test_paths_in_the_prose_exist() -> None:
    prose = re.sub(r"<!-- generated.*?<!-- end -->", "", PAGE, flags=re.S)
    paths = re.findall(r"`((?:synthshards|pipelines|loaders|train|docs|tests|examples|\.github|\.ci)/[^`]*)`", prose)
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_paths_in_the_pictures_exist() -> None:
    for name in ("build", "load"):
        picture = (ROOT / "docs" / f"architecture-{name}.svg").read_text()
        paths = [p for p in re.findall(r">([a-z_]+/[a-z_0-9./]*)<", picture) if p.count("/") or p.endswith(".py")]
        assert len(paths) > 8
        for path in paths:
            assert any((ROOT / floor / path).exists() for floor in ("", *FLOORS)), path


def test_nothing_else_lies_at_the_top() -> None:
    """What a run writes into the folder one stands in is not part of the project."""
    git = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if git.returncode:
        pytest.skip("not a git checkout")
    folders = {".ci", ".github", "docs", "examples", "loaders", "pipelines", "synthshards", "tests", "train"}
    files = {
        ".gitignore", ".pre-commit-config.yaml", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE",
        "Makefile", "README.md", "SECURITY.md", "constraints.txt", "mkdocs.yml", "pyproject.toml",
    }  # fmt: skip
    assert {name.split("/")[0] for name in git.stdout.splitlines()} == folders | files

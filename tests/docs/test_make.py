"""Workflows, hooks and docs name make targets that are there; the places that state the version agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
#: `make x` in code or a command; and a workflow's matrix of targets.
NAMED = re.compile(r"(?:^|`|run: |entry: |\$ )make ([a-z][a-z0-9-]*)|target: \[(.*)\]", re.MULTILINE)
CALLERS = [
    *(ROOT / ".github" / "workflows").glob("*.yml"),
    *(ROOT / name for name in (".ci/run", ".pre-commit-config.yaml", ".github/pull_request_template.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if "`make " in page.read_text()),
]


@pytest.mark.parametrize("path", CALLERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_targets_exist(path: Path) -> None:
    named = {name for one, several in NAMED.findall(path.read_text()) for name in (one, *several.split(", ")) if name}
    assert named, "no target found: the pattern no longer fits"
    assert named <= TARGETS


def test_the_citation_has_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()

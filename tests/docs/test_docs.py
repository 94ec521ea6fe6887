"""Docs that are generated are fresh, links lead somewhere, and the commands and options that docs show exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from synthshards.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def generate(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the generated parts of a folder of docs."""
    command = [sys.executable, str(folder / "generate.py"), "--check"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)


@pytest.mark.slow
def test_generated_parts_are_fresh_and_staleness_is_seen(tmp_path: Path) -> None:
    assert generate(ROOT / "docs").stderr == ""
    copy = tmp_path / "docs"
    copy.mkdir()
    for path in (ROOT / "docs").iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    page = copy / "tasks.md"
    page.write_text(page.read_text().replace("| `depo1-225` | N=225 |", "| `depo1-225` | N=226 |"))
    stale = generate(copy)
    assert stale.returncode == 1
    assert "docs/tasks.md is stale; run: make docs" in stale.stderr
    assert "docs/training.md is stale" not in stale.stderr
    page = copy / "training.md"
    page.write_text(page.read_text().replace("| `train.max_steps` | `200` |", "| `train.max_steps` | `300` |"))
    assert "docs/training.md is stale; run: make docs" in generate(copy).stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", page.read_text()):
        name, _, heading = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{page.name}: {target}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert heading in slugs, f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_shown_are_commands_and_have_these_options(page: Path) -> None:
    for line in re.findall(r"^\$ synthshards (.*)$", page.read_text(), re.M):
        command: click.Command | None = cli
        arguments = shlex.split(line, comments=True)
        while isinstance(command, click.Group):
            name, *arguments = arguments
            command = command.get_command(click.Context(command), name)
        assert command is not None, line
        command.make_parser(click.Context(command, **command.context_settings)).parse_args(arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_figures_of_bench_are_filled_in(page: Path) -> None:
    blocks = re.findall(r"<!-- bench:([\w-]+) -->\n(.*?)<!-- /bench -->", page.read_text(), re.S)
    assert [name for name, text in blocks if not text.strip()] == []

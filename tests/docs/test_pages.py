"""Every block of every page runs as printed, in order, in a folder of its own, and prints what stands there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pages import ROOT, TOO_MUCH, agrees, blocks, follow
from s3 import Server

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FOLLOWED = [page for page in PAGES if any(block.language for block in blocks(page))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.slow
@pytest.mark.parametrize("page", FOLLOWED, ids=name_of)
def test_it_runs_as_printed(page: Path, tmp_path: Path, s3_env: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    if "synthshards cache clear" in page.read_text():  # not that of whoever runs the tests
        monkeypatch.setenv("SYNTHSHARDS_CACHE", str(tmp_path / "cache"))
    if "bucket" not in s3_env.buckets():
        s3_env.make_bucket("bucket")
    follow(page, tmp_path)
    shutil.rmtree(tmp_path)  # a page's million rows


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_block_escapes(page: Path) -> None:
    """Code stands in blocks that are run; a page that makes files begins with a folder of its own."""
    found = blocks(page)
    assert {block.language for block in found} <= {"", "console", "python", "bibtex"}
    for block in found:
        assert block.language or not block.text.startswith(("$ ", "import ", "from "))
        if block.language == "console":
            for command, shown in block.steps:
                assert shown or not command.startswith(("python ", "torchrun ")) or TOO_MUCH.search(command), command
    commands = [command for block in found if block.language == "console" for command, _ in block.steps]
    run = [command for command in commands if not TOO_MUCH.search(command)]
    if name_of(page) != "README.md" and any("synthshards build" in command for command in run):
        assert run[0].startswith("mkdir "), "a folder of its own"
    files = {block.file for block in found if block.file}
    text = "\n".join(block.text for block in found)
    assert [name for name in files if name.removesuffix(".py") not in "\n".join(commands)
            and f"from {name.removesuffix('.py')} import" not in text] == []  # fmt: skip


def test_what_is_printed_is_compared() -> None:
    assert agrees("a b\nbuilt in 1.2 s (3 rows/s)\n", ["a b", "built in 3.4 s (1 rows/s)"])
    assert agrees("x\ny\nz 7 w\n", ["…", "z … w"])
    assert not agrees("a b\n", ["a c"])
    assert not agrees("a b\nmore\n", ["a b"])

"""The examples of docs/loading.md run as they stand there, and print what stands there.

A Python block whose first line is a comment with a file name is that file. A console block is run line by line, as a
reader would, in a folder with these files and the datasets that the page builds; a printed line "…" stands for any.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from helpers import SUPPORT
from s3 import Server
from scripts import execute

PAGE = (SUPPORT.parents[1] / "docs" / "loading.md").read_text()
FILES = {name: code for code, name in re.findall(r"^```python\n(# (\S+\.py)\n.*?)^```$", PAGE, re.S | re.M)}
SHOWN = re.findall(r"^```console\n(.*?)^```$", PAGE, re.S | re.M)
BUILDS = next(block for block in SHOWN if block.count("$ synthshards build") == 3)
BLOCKS = [block for block in SHOWN if block != BUILDS]


def steps(block: str) -> list[tuple[str, list[str]]]:
    """The commands of a console block, and the lines that each prints."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def name_of(block: str) -> str:
    return str(shlex.split(steps(block)[-1][0])[-1]) if "trainer" not in block else "trainer.py"


def agrees(printed: str, shown: list[str]) -> bool:
    """Whether what was printed is what is shown."""
    pattern = "".join(r"(?:.*\n)*?" if line == "…" else re.escape(line) + "\n" for line in shown)
    return re.fullmatch(pattern, printed) is not None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the page's reader has it."""
    folder = tmp_path_factory.mktemp("reader")
    for name, code in FILES.items():
        (folder / name).write_text(code)
    for command, shown in steps(BUILDS):
        assert shown == []
        execute(command, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("block", [b for b in BLOCKS if "s3://" not in b], ids=name_of)
def test_it_prints_what_the_page_says(block: str, folder: Path) -> None:
    follow(block, folder)


@pytest.mark.slow
@pytest.mark.parametrize("block", [b for b in BLOCKS if "s3://" in b], ids=name_of)
def test_it_does_so_with_a_store(block: str, folder: Path, s3_env: Server) -> None:
    if "bucket" not in s3_env.buckets():
        s3_env.make_bucket("bucket")
    follow(block, folder)


def follow(block: str, folder: Path) -> None:
    for command, shown in steps(block):
        printed = execute(command, folder)
        if command.startswith("torchrun"):  # ranks print in any order
            printed = "".join(sorted(printed.splitlines(keepends=True)))
        if not command.startswith("synthshards build"):
            assert agrees(printed, shown), f"{command} printed\n{printed}"


def test_every_file_of_the_page_is_run() -> None:
    run = {word for block in BLOCKS for command, _ in steps(block) for word in shlex.split(command)}
    assert set(FILES) - run == {"stream_trainer.py"}
    assert "from stream_trainer import" in FILES["trainer.py"]
    assert len(FILES) >= 12
    assert all(steps(block)[-1][1] for block in BLOCKS), "every example shows what it prints"

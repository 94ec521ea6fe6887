"""Follow a page of the docs as its reader would: its files are written, and its commands run, from top to bottom.

A Python block whose first line is a comment with a file name is that file; any other is run as it stands. Each line of
a console block that begins with ``$ `` is a command, and the lines after it are what it prints: there "…" is for any
text (alone on a line: lines), and times are not compared. A command whose comment says that it takes minutes or
hours, or needs the network or a GPU, is not run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from helpers import SUPPORT
from scripts import execute

ROOT = SUPPORT.parents[1]
FENCE = re.compile(r"^( *)```(\S*)\n(.*?)^\1```$", re.S | re.M)
FILE = re.compile(r"# (\S+\.py)\n")
TOO_MUCH = re.compile(r"\s# .*\b(minutes|hours|network|GPU)\b")
#: The time that a command of ours took, which no two runs share.
TIME = re.compile(r" in [\d.]+ m?s( \(.*\))?$", re.M)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, and what stands in it."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The file that a Python block is, None for one that is run as it stands."""
        found = FILE.match(self.text) if self.language == "python" else None
        return found[1] if found else None

    @property
    def steps(self) -> list[tuple[str, list[str]]]:
        """The commands of a console block, and the lines that each prints."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
        return found


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(found[2], found[3]) for found in FENCE.finditer(page.read_text())]


def follow(page: Path, folder: Path) -> None:
    """Do what a page says, in a folder."""
    for block in blocks(page):
        if block.language == "console":
            for command, shown in block.steps:
                if not TOO_MUCH.search(command):
                    folder = _step(command, shown, folder)
        elif block.language == "python":
            (folder / (block.file or "block.py")).write_text(block.text)
            if block.file is None:
                execute("python block.py", folder)


def _step(command: str, shown: list[str], folder: Path) -> Path:
    """Run a command, compare what it prints with what is shown, if anything; the folder in which the next one runs."""
    if entered := re.fullmatch(r"mkdir (\S+) && cd \1", command):
        (folder / entered[1]).mkdir()
        return folder / entered[1]
    printed = execute(_demo() if command == "make demo" else command, folder)
    if command.startswith("torchrun"):  # ranks print in any order
        printed = "".join(sorted(printed.splitlines(keepends=True)))
    if shown:
        assert agrees(printed, shown), f"{command} printed\n{printed}"
    return folder


def _demo() -> str:
    """What `make demo` runs once everything is installed; make prints each command before it."""
    recipe = re.search(r"^demo:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    assert recipe is not None
    commands = [line.strip().removeprefix("$(BIN)/") for line in recipe[1].splitlines()]
    return " && ".join(f"echo .venv/bin/{command} && {command}" for command in commands)


def agrees(printed: str, shown: list[str]) -> bool:
    """Whether what was printed is what is shown, apart from times and empty lines at the end."""
    patterns = (
        r"(?:.*\n)*?" if line == "…" else ".*".join(map(re.escape, TIME.sub("", line).split("…"))) + "\n"
        for line in shown
    )
    return re.fullmatch("".join(patterns) + r"\n*", TIME.sub("", printed)) is not None

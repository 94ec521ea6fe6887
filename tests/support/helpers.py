"""What several test files share: subprocesses, copies of the package, and small conveniences."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import synthshards
from synthshards.errors import StorageError

PACKAGE = Path(synthshards.__file__).parent
SUPPORT = Path(__file__).parent


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def python(*args: str, package: Path = PACKAGE, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """Run this Python on `args` with `package` importable; `env` is added to the environment, "" removes a name.

    Numba's own settings are not inherited, so that a test means the same under any of them.
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    merged = {**inherited, "PYTHONPATH": os.pathsep.join([str(package.parent), str(SUPPORT)]), **env}
    kept = {k: v for k, v in merged.items() if v}
    done = subprocess.run(  # from a folder of its own: the current one stands first in the path of -c
        [sys.executable, *args], env=kept, cwd=package.parent, capture_output=True, text=True, timeout=300
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def copy_package(folder: Path) -> Path:
    """A copy of the core package in `folder`, to be edited."""
    ignore = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(PACKAGE, folder / "synthshards", ignore=ignore))


def fails(call: Callable[[], object], *parts: str) -> str:
    """The message of the StorageError that `call` raises: one line that holds `parts`."""
    with pytest.raises(StorageError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 250
    assert "Request ID" not in message
    for part in parts:
        assert part in message
    return message


def edit(file: Path, old: str, new: str) -> None:
    """Replace the one occurrence of `old` in a file."""
    text = file.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file.name}"
    file.write_text(text.replace(old, new))


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row with lists in place of arrays, so that rows compare with ==."""
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in row.items()}

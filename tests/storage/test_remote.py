"""Stores that pyarrow has no file system for, through fsspec."""

from __future__ import annotations

import sys

import pytest

from synthshards.errors import UsageError
from synthshards.storage.open import open_folder


def test_a_listing_passes_the_cache_of_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem
    dropped = []
    monkeypatch.setattr(memory, "invalidate_cache", lambda self, path=None: dropped.append(path))
    open_folder("memory://x").list()
    assert dropped


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")

    def lacking(url: str) -> None:
        raise ImportError("Install huggingface_hub to access HfFileSystem")

    monkeypatch.setattr(fsspec.core, "url_to_fs", lacking)
    with pytest.raises(UsageError, match=r"hf:// needs another package: Install huggingface_hub"):
        open_folder("hf://datasets/x/y")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(UsageError, match=r"hf:// needs fsspec: pip install 'synthshards\[remote\]'"):
        open_folder("hf://datasets/x/y")

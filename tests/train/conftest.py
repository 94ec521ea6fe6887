"""What tests of training runs share."""

from __future__ import annotations

import pytest

from synthshards.train.report.table import ScoreTable


@pytest.fixture
def no_pictures(one_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs on one thread that draw nothing; `monkeypatch.undo()` brings the pictures back."""
    monkeypatch.setattr(ScoreTable, "draw", lambda self: None)

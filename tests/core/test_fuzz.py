"""Crafted files and documents are read right or refused in one line, in bounded memory (`fuzz` goes on for hours)."""

from __future__ import annotations

import fuzz
import pytest


@pytest.mark.parametrize(
    ("subject", "cases"),
    [
        ("parquet", 300),
        ("arrow", 300),
        ("webdataset", 300),
        ("manifest", 300),
        ("plan", 200),
        ("journal", 200),
        ("overrides", 200),
    ],
)
def test_what_is_crafted_is_refused_or_right(subject: str, cases: int) -> None:
    ended, faults = fuzz.fuzz(subject, cases, seed=1)
    assert not faults
    assert ended.total() == cases
    assert ended["read"] > 0, "nothing of what was changed slightly is read any more"
    assert ended["refused"] > 0 or subject == "journal"  # what is no record is passed over


def test_faults_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fuzz.SUBJECTS, "broken", "fuzz_broken")
    ended, faults = fuzz.fuzz("broken", 5, seed=0)
    assert [line.split(": ")[0].split()[-1] for line in faults] == ["1", "2", "3"]
    for word, line in zip(("MemoryError", "TypeError", "Segmentation fault"), faults, strict=True):
        assert word in line
    assert ended == {"read": 2, "fault": 3}, "after a crash the next case begins anew"

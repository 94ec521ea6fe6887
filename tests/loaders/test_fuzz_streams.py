"""Datasets, states and settings that were crafted: right or refused, in bounded memory."""

from __future__ import annotations

import fuzz
import pytest


@pytest.mark.parametrize(("subject", "cases"), [("folder", 60), ("state", 150), ("settings", 40)])
def test_what_is_crafted_is_refused_or_right(subject: str, cases: int) -> None:
    ended, faults = fuzz.fuzz(subject, cases, seed=1)
    assert not faults
    assert ended.total() == cases
    assert ended["refused"] > 0

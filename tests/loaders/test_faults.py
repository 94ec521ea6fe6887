"""A bounded part of every fault campaign (`make faults` runs them whole), and the table of docs/reliability.md."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from unittest import mock

import pytest
from faults.__main__ import table
from faults.catalog import FAULTS
from faults.fault import Fault, attempt

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


@pytest.fixture
def same_environment() -> Iterator[None]:
    """Campaigns on S3 lead the environment to their store."""
    with mock.patch.dict(os.environ):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.few], ids=lambda fault: fault.name)
def test_a_few_of_each_are_survived(fault: Fault, same_environment: None) -> None:
    tally = attempt(fault, fault.few)
    assert tally.problems == []
    assert tally.survived == tally.tried >= fault.few


def test_what_is_not_survived_is_counted_and_an_exception_is_no_success(tmp_path: Path) -> None:
    def run(tries: int, chance: Random, place: Path) -> Iterator[str]:
        yield from ["", "other rows", ""]
        raise OSError("gone")

    tally = attempt(Fault("f", "r", 3, 3, run), 3)
    assert (tally.tried, tally.survived, tally.problems) == (4, 2, ["other rows", "OSError: gone"])


def test_the_page_shows_every_fault_and_that_all_were_survived() -> None:
    (shown,) = re.findall(r"<!-- faults -->\n(.*?)<!-- /faults -->", PAGE.read_text(), re.DOTALL)
    rows = dict(re.findall(r"^\| (.*?) \| .* \| ([\d,]+) \| \2 \|$", shown, re.M))
    assert list(rows) == [fault.name for fault in FAULTS]
    tried = {name: int(count.replace(",", "")) for name, count in rows.items()}
    assert [fault.name for fault in FAULTS if tried[fault.name] < fault.full] == []
    made = {name: {"tried": count, "survived": count} for name, count in tried.items()}
    assert table(made) == shown

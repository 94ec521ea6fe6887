"""Files and documents made to deceive: cases of tests/support/fuzz.py, each in bounded memory and time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

from fuzz import fuzz

from .fault import Campaign, Fault

#: Subject of the fuzzer → what the table calls it, and tries of `make faults`.
NAMES = {
    "parquet": ("a crafted Parquet file", 5000),
    "arrow": ("a crafted Arrow file", 5000),
    "webdataset": ("a crafted tar", 5000),
    "manifest": ("a hostile manifest", 2000),
    "plan": ("a hostile plan of a build", 500),
    "journal": ("a hostile journal of a build", 500),
    "folder": ("a dataset whose manifest fits its files and is not true", 500),
    "overrides": ("hostile parameters of a task", 2000),
    "state": ("a hostile state of a loader", 2000),
    "settings": ("hostile settings of a training run", 500),
}


def crafted(subject: str, tries: int, chance: Random, place: Path) -> Iterator[str]:
    ended, faults = fuzz(subject, tries, chance.randrange(1 << 32))
    yield from [*faults, *[""] * (ended.total() - len(faults))]


def _campaign(subject: str) -> Campaign:
    return partial(crafted, subject)


FAULTS = [
    Fault(name, "read right or refused in one line, in bounded memory", full, 0, _campaign(subject))
    for subject, (name, full) in NAMES.items()
]

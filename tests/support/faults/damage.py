"""Shards that are damaged on the disk: `verify` names each, and the loader goes on with the right rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from shutil import rmtree

from small_datasets import FORMATS, make

from synthshards.errors import HealWarning
from synthshards.pipelines.verify import verify

from .disks import rows_of
from .fault import Campaign, Fault

Damage = Callable[[Path, list[Path], Random], None]


def flipped(path: Path, others: list[Path], chance: Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def spoilt(path: Path, others: list[Path], chance: Random) -> None:
    """Gone, cut, longer, empty, exchanged, a folder, or zeros where a sector was."""
    data = path.read_bytes()
    at = chance.randrange(len(data))
    path.unlink()
    match chance.randrange(7):
        case 0:
            pass
        case 1:
            path.write_bytes(data[:at])
        case 2:
            path.write_bytes(data + bytes(1 + at))
        case 3:
            path.write_bytes(b"")
        case 4:
            path.write_bytes(chance.choice(others).read_bytes())
        case 5:
            path.mkdir()
        case _:
            path.write_bytes(data[:at] + bytes(len(data[at : at + 512])) + data[at + 512 :])
            if path.read_bytes() == data:  # there were zeros
                flipped(path, others, chance)


def damaged(formats: list[str], damage: Damage, tries: int, chance: Random, place: Path) -> Iterator[str]:
    rows = {}
    for format in formats:
        make(place / format, examples=300, shard_examples=100, format=format)
        rows[format] = rows_of(place / format)
    for number in range(tries):
        out = place / formats[number % len(formats)]
        shards = sorted(out.glob("train-*"))
        path = shards[number // len(formats) % len(shards)]
        good = path.read_bytes()
        damage(path, [shard for shard in shards if shard != path], chance)
        verdict = verify(str(out)).problems
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = rows_of(out)
        told = [str(each.message) for each in caught if each.category is HealWarning]
        rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(good)
        if [name for name, _ in verdict] != [path.name]:
            yield f"{path.name}: verify found {verdict}"
        elif len(told) != 1 or path.name not in told[0]:
            yield f"{path.name}: the loader said {told}"
        else:
            yield "" if found == rows[out.name] else f"{path.name}: other rows"


FOUND = "`verify` names the file and no other; the loader warns once and gives the right rows"


def _campaign(formats: list[str], damage: Damage) -> Campaign:
    return partial(damaged, formats, damage)


FAULTS = [
    *(Fault(f"a flipped bit of a shard ({name})", FOUND, 500, 10, _campaign([name], flipped)) for name in FORMATS),
    Fault(
        "a shard that is gone, cut, longer, empty, exchanged, a folder, or has a sector of zeros",
        FOUND, 500, 9, _campaign(FORMATS, spoilt),
    ),
]  # fmt: skip

"""An object store that fails: requests refused, throttled, delayed, cut, garbled, or dropped, once or for long."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from unittest import mock

from folders import files, small
from s3 import Server

from synthshards.errors import DataError, StorageError
from synthshards.pipelines.build import build

from . import store
from .disks import rows_of
from .fault import Fault

#: What the proxy does to requests; the second is how often.
SPOILED: dict[str, Callable[[Server, str, int], None]] = {
    "refused": lambda proxy, requests, times: proxy.refuse(requests, times=times),
    "failing": lambda proxy, requests, times: proxy.refuse(requests, 500, "InternalError", "We failed", times=times),
    "gone": lambda proxy, requests, times: proxy.refuse(requests, 404, "NoSuchKey", times=times),
    "throttled": lambda proxy, requests, times: proxy.throttle(requests, times=times),
    "delayed": lambda proxy, requests, times: proxy.delay(requests, 0.3, times=times),
    "reset": lambda proxy, requests, times: proxy.reset(requests, times=times),
    "cut": lambda proxy, requests, times: proxy.cut(requests, 50, times=times),
    "garbled": lambda proxy, requests, times: proxy.garble(requests, times=times),
}


def spoil(how: str, requests: str, chance: Random) -> str:
    times = chance.choice([1, 2, 5, 0])
    SPOILED[how](store.proxy(), requests, times)
    return f"{requests} {how} {times or 'all'} times"


def writing(tries: int, chance: Random, place: Path) -> Iterator[str]:
    build(small(3), str(place / "whole"))
    whole = files(place / "whole")
    bucket = store.bucket(store.proxy().endpoint)
    for number in range(tries):
        prefix, said = f"{number}", ""
        which = chance.choice(
            ["PUT .*train-", "PUT .*manifest", "PUT .*records", "PUT .*plan", "GET", "HEAD", "DELETE"]
        )
        what = spoil(chance.choice([how for how in SPOILED if how not in ("garbled", "gone")]), which, chance)
        try:
            build(small(3), f"s3://{bucket}/{prefix}", workers=chance.randint(1, 3))
        except (DataError, StorageError) as error:
            said = str(error)
        store.proxy().refuse("")
        problem = said if "\n" in said else ""
        for name, data in objects(bucket, prefix).items():
            if not name.startswith(".building") and data != whole[name]:
                problem = f"{name} is half there"
        build(small(3), f"s3://{bucket}/{prefix}")
        if objects(bucket, prefix) != whole:
            problem = f"the same command made {sorted(objects(bucket, prefix))}, or other bytes"
        yield problem and f"{what}: {problem}"


def objects(bucket: str, prefix: str) -> dict[str, bytes]:
    """What stands below a prefix, but the "folder" that stays where a deletion was refused (see `s3.delete`)."""
    keys = [key for key in store.server().objects(bucket) if key.startswith(f"{prefix}/") and key != f"{prefix}/"]
    return {key.partition("/")[2]: store.server().get(bucket, key) for key in keys}


def reading(tries: int, chance: Random, place: Path) -> Iterator[str]:
    bucket = store.bucket(store.proxy().endpoint)
    out = f"s3://{bucket}/set"
    store.proxy().refuse("")
    build(small(3), out)
    rows = rows_of(out)
    for _ in range(tries):
        which = chance.choice(["GET .*train-", "GET .*train-00001", "GET .*manifest", "HEAD", "GET"])
        what = spoil(chance.choice(list(SPOILED)), which, chance)
        problem = ""
        with warnings.catch_warnings(), mock.patch.dict(os.environ, SYNTHSHARDS_CACHE_BYTES="0"):
            warnings.simplefilter("ignore")
            try:
                problem = "" if rows_of(out) == rows else "other rows"
            except ValueError as error:
                # Without a manifest there is nothing to go on from; whatever is wrong with shards is healed.
                if "train-" in which or "\n" in str(error) or not str(error):
                    problem = f"{type(error).__name__}: {error}"
        store.proxy().refuse("")
        yield problem and f"{what}: {problem}"


FAULTS = [
    Fault(
        "S3 fails under a build: requests refused, failing, throttled, delayed, reset or cut, once to always",
        "one line or success, no object is half there; the same command gives the bytes of an undisturbed build",
        40, 2, writing,
    ),
    Fault(
        "S3 fails under a loader: the same, and answers gone or garbled",
        "the right rows; one line where the manifest itself cannot be had",
        40, 2, reading,
    ),
]  # fmt: skip

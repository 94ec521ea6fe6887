"""Fetching a shard's file from an object store, with retries when the store fails.

pyarrow asks a store four times itself before it reports an error (`storage_s3.connect`). Here a failed or damaged
fetch is repeated a few times more. A store that goes on failing is left in peace for a while, since every attempt costs
seconds and the rows can be generated.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pyarrow as pa

from synthshards.dataset.manifest import ShardEntry
from synthshards.dataset.stored import check_bytes
from synthshards.errors import DataError, StorageError
from synthshards.storage.folder import Folder

#: Attempts at one file, as long as they have taken less than `PATIENCE` seconds together.
ATTEMPTS = 3
PATIENCE = 6.0
#: Seconds before the second attempt; doubled before each further one, and lengthened by chance by up to as much again.
BACKOFF = 0.2
#: A store that has failed for this many files on end, or for one that long, is not asked for `REST` seconds.
FAILURES = 2
REST = 60.0

_chance = random.SystemRandom()  # `random` itself belongs to the user: a draw would change what their program draws


class Fetcher:
    """Fetches files of one folder. May be used by several threads.

    Args:
        folder: an object store.
        count: takes a name and a number: "bytes_read", "bytes_fetched", "retries".
        restful: whether to leave a failing store in peace; only for callers that can do without it.
    """

    def __init__(self, folder: Folder, count: Callable[[str, int], None], restful: bool) -> None:
        self._folder, self._count, self._restful = folder, count, restful
        self._failures = 0  # files on end that could not be read
        self._rests_until = 0.0
        self._reason = ""

    @property
    def rests(self) -> bool:
        """Whether the store is left in peace now."""
        return time.monotonic() < self._rests_until

    def fetch(self, entry: ShardEntry, patient: bool = True) -> pa.Buffer:
        """The bytes of a shard's file, whose size and sha256 are those of the manifest.

        Without `patient` one attempt is made, whose failure is not held against the store.

        Raises:
            DataError: no such file, or not those bytes, also the second time (the message does not name the file).
            StorageError: the store fails, or has failed before and rests.
        """
        if self.rests:
            raise StorageError(f"{self._reason} (not asked again within {REST:.0f} s)")
        had_its_chances = self._restful and self._failures
        attempts = ATTEMPTS if patient and not had_its_chances else 1
        begun, wait = time.monotonic(), BACKOFF
        for attempt in range(1, attempts + 1):
            try:
                data = self._read(entry)
                self._failures = 0
                check_bytes(data, entry)
            except FileNotFoundError:
                self._failures = 0
                raise DataError("the file is absent") from None
            except (DataError, StorageError) as error:
                final = attempt == attempts or time.monotonic() - begun > PATIENCE
                # Damage on the way is rare, damage in the store stays: one more look tells them apart.
                if final or (isinstance(error, DataError) and attempt == 2):
                    if patient and isinstance(error, StorageError):
                        self._failed(str(error), time.monotonic() - begun > PATIENCE)
                    raise
            else:
                return data
            time.sleep(wait * (1 + _chance.random()))
            self._count("retries", 1)
            wait *= 2
        raise AssertionError("the last attempt returns or raises")

    def _read(self, entry: ShardEntry) -> pa.Buffer:
        data = self._folder.read(entry.path)
        self._count("bytes_fetched", data.size)
        self._count("bytes_read", data.size)
        return data

    def _failed(self, reason: str, at_length: bool) -> None:
        self._failures += 1
        self._reason = reason
        if self._restful and (at_length or self._failures >= FAILURES):
            self._rests_until = time.monotonic() + REST

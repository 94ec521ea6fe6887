"""Kill builds in an object store before and after every change of it: `python kill_every_s3.py BUCKET`. See kill_every.

AWS_ENDPOINT_URL and the like lead to the store. A step is the beginning or the end of a write or deletion of a
RemoteFolder, since pyarrow's requests raise no audit events.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from kill_every import CASES, fork, nothing, plan_of
from s3 import Server

from synthshards.pipelines.folder import journal
from synthshards.pipelines.shard import warm_up
from synthshards.storage.remote import RemoteFolder

store = Server()
store.endpoint = os.environ["AWS_ENDPOINT_URL"]
bucket = sys.argv[1]


def objects(prefix: str) -> dict[str, bytes]:
    """Every object below `prefix` with its bytes, but the "folder" that pyarrow may leave for the prefix itself."""
    found = [key for key in store.objects(bucket) if key.startswith(f"{prefix}/") and key != f"{prefix}/"]
    return {key.removeprefix(f"{prefix}/"): store.get(bucket, key) for key in found}


def killed(work: Callable[[], object], step: int) -> None:
    """Do `work` until its step."""
    count = 0

    def reached() -> None:
        nonlocal count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in ("write", "delete", "delete_tree"):
        real = getattr(RemoteFolder, name)

        def method(self: RemoteFolder, *args: Any, real: Any = real) -> None:
            reached()
            real(self, *args)
            reached()

        setattr(RemoteFolder, name, method)
    work()


def run(name: str) -> tuple[int, list[str]]:
    prepare, work, finish = CASES[name]
    whole = f"{name}/whole"
    if fork(lambda: [step(f"s3://{bucket}/{whole}") for step in (prepare, work, finish)]):
        return 0, ["uninterrupted run failed"]
    expected = objects(whole)
    problems = [f"left over: {key}" for key in expected if ".building" in key]
    step, ended = 0, -signal.SIGKILL
    while ended == -signal.SIGKILL:
        step += 1
        prefix = f"{name}/{step}"
        url = f"s3://{bucket}/{prefix}"
        old: dict[str, bytes] = {}
        if prepare is not nothing:
            fork(lambda url=url: prepare(url))  # type: ignore[misc]
            old = objects(prefix)
        ended = fork(lambda url=url, step=step: killed(lambda: work(url), step))  # type: ignore[misc]
        for key, data in objects(prefix).items():
            if ".building" not in key and data not in (expected.get(key), old.get(key)):
                problems.append(f"step {step}: {key} is half made")
        if ended == -signal.SIGKILL and fork(lambda url=url: work(url)):  # type: ignore[misc]
            problems.append(f"step {step}: the same command failed")
        elif finish is not nothing and fork(lambda url=url: finish(url)):  # type: ignore[misc]
            problems.append(f"step {step}: what came after it failed")
        elif objects(prefix) != expected:
            problems.append(f"step {step}: {sorted(objects(prefix).keys() ^ expected.keys())} or their bytes")
    return step - 1, problems


def main() -> None:
    warm_up(plan_of(1))
    journal.FLUSH_SECONDS = 0.0  # a record after each shard: the most moments
    print(json.dumps({name: run(name) for name in sys.argv[2:]}))


if __name__ == "__main__":
    main()

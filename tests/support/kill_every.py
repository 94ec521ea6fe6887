"""Kill a build at every moment: `python kill_every.py FOLDER` runs each case below, killed before its first, second …
last step, and the same command again after each. Prints one JSON object: case → [moments, what went wrong].

A step is a call of the operating system that touches the folder, which Python's audit hooks announce before it happens,
so that no knowledge of the code under test is needed. Builds run in forks, so that nothing is imported twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from synthshards import make_task
from synthshards.pipelines.build import build, seal
from synthshards.pipelines.plan import BuildPlan, make_plan
from synthshards.pipelines.shard import warm_up

Work = Callable[[str], object]

STEPS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.scandir", "os.listdir", "fcntl.flock")


def plan_of(shards: int, seed: int = 0) -> BuildPlan:
    return make_plan(make_task("depo", N=8, K=2), seed=seed, shards=shards, shard_examples=8)


def digests(folder: Path) -> dict[str, str]:
    """Every file and folder below `folder`, with the digest of its bytes."""
    found = sorted(folder.rglob("*"))
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in found
    }


def fork(work: Callable[[], object], kill_at: int = 0, within: Path | None = None) -> int:
    """Run `work` in a fork, killed before its step number `kill_at`; return how it ended (0, 1 or -SIGKILL)."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        if kill_at:
            _kill_before(kill_at, str(within))
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _kill_before(step: int, within: str) -> None:
    count = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event in STEPS and (event == "fcntl.flock" or str(args[0]).startswith(within)):
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def run(base: Path, prepare: Work, work: Work, finish: Work) -> tuple[int, list[str]]:
    """Kill `work` at every step, in folders that `prepare` made; compare with what it leaves when it is let alone."""
    whole, before = base / "whole", base / "before"
    if fork(lambda: prepare(str(before))):
        return 0, ["preparing failed"]
    if before.exists():
        shutil.copytree(before, whole)
    if fork(lambda: (work(str(whole)), finish(str(whole)))):
        return 0, ["uninterrupted run failed"]
    old, expected = digests(before), digests(whole)
    problems = [f"left over: {name}" for name in expected if ".building" in name]
    step, ended = 0, -signal.SIGKILL
    while ended == -signal.SIGKILL:
        step += 1
        out = base / f"killed-{step}"
        if before.exists():
            shutil.copytree(before, out)
        ended = fork(lambda out=out: work(str(out)), step, out)  # type: ignore[misc]
        for name, digest in digests(out).items():
            if ".building" not in name and digest not in (expected.get(name), old.get(name)):
                problems.append(f"step {step}: {name} is half made")
        if ended == -signal.SIGKILL and fork(lambda out=out: work(str(out))):  # type: ignore[misc]
            problems.append(f"step {step}: the same command failed")
        elif finish is not nothing and fork(lambda out=out: finish(str(out))):  # type: ignore[misc]
            problems.append(f"step {step}: what came after it failed")
        elif digests(out) != expected:
            problems.append(f"step {step}: {sorted(digests(out).items() ^ expected.items())}")
        shutil.rmtree(out)
    return step - 1, problems


def parts(out: str) -> None:
    build(plan_of(3), out, only_shards="0-1")
    build(plan_of(3), out, only_shards="2")


def damaged(out: str) -> None:
    build(plan_of(3), out)
    Path(out, "train-00001.parquet").unlink()


def rest(out: str) -> None:
    build(plan_of(3), out, only_shards="0")
    seal(out)


def nothing(out: str) -> None:
    pass


#: name → what stands there before, what is killed, and what finishes the folder.
CASES: dict[str, tuple[Work, Work, Work]] = {
    "build": (nothing, lambda out: build(plan_of(2), out), nothing),
    "two workers": (nothing, lambda out: build(plan_of(3), out, workers=2), nothing),
    "grow": (lambda out: build(plan_of(1), out), lambda out: build(plan_of(2), out), nothing),
    "overwrite": (lambda out: build(plan_of(2, 1), out), lambda out: build(plan_of(1), out, overwrite=True), nothing),
    "part": (nothing, lambda out: build(plan_of(3), out, only_shards="1-2"), rest),
    "seal": (parts, seal, nothing),
    "made again": (damaged, lambda out: build(plan_of(3), out), nothing),
}


def main() -> None:
    os.fsync = lambda fd: None  # a kill, unlike a power failure, loses nothing that was written
    warm_up(plan_of(1))
    outcome = {}
    for name, case in CASES.items():
        base = Path(sys.argv[1], name)
        base.mkdir(parents=True)
        outcome[name] = run(base, *case)
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()

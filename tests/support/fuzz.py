"""Crafted inputs: each must be read right, or refused in one clear line, in bounded memory.

    python tests/support/fuzz.py --cases 5000 --seed 1 --only parquet,manifest

Each subject (a format, a kind of document) is tried in a process of its own whose memory is limited, so that a file
that asks for gigabytes, a crash and a hang are told with the number of their case. `--case N` runs one case again, in
this process. Exit code 1 where there was a fault.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import random
import resource
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from synthshards.errors import SynthshardsError

#: One case: returns where what was crafted is read right, raises where it is refused.
Case = Callable[[random.Random], None]
#: Subject → the module with what prepares it, a function of its name. Some need torch, so each is imported when used.
SUBJECTS = {
    "parquet": "fuzz_formats",
    "arrow": "fuzz_formats",
    "webdataset": "fuzz_formats",
    "manifest": "fuzz_documents",
    "plan": "fuzz_documents",
    "journal": "fuzz_documents",
    "folder": "fuzz_documents",
    "overrides": "fuzz_documents",
    "state": "fuzz_streams",
    "settings": "fuzz_streams",
}
#: Memory beyond what the process has when all is loaded, and seconds after which a case counts as one without end.
MEMORY, PATIENCE = 600 << 20, 60


def outcome(case: Case, chance: random.Random) -> str:
    """``"read"``, ``"refused"``, or what is wrong, in one line."""
    try:
        case(chance)
    except SynthshardsError as error:
        line = str(error)
        if not line.isprintable() or len(line) > 20_000 or not line:
            return f"{type(error).__name__} of {len(line)} characters: {line[:200]!r}"
        return "refused"
    except BaseException as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} in {Path(at.filename).name}:{at.lineno}: {str(error)[:200]!r}"
    return "read"


def chance_of(name: str, seed: int, number: int) -> random.Random:
    return random.Random(f"{name}/{seed}/{number}")


def prepared(name: str, module: str, folder: Path) -> Case:
    """A subject in an empty folder. It reads the sound input once, so that kernels are compiled."""
    case: Case = getattr(importlib.import_module(module), name)(folder)
    return case


def _work(name: str, module: str, seed: int, first: int, last: int, at: Any, told: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        case = prepared(name, module, Path(folder))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in range(first, last):
            at.value = number
            signal.alarm(PATIENCE)
            told.put((number, outcome(case, chance_of(name, seed, number))))
        signal.alarm(0)
        at.value = last


def fuzz(name: str, cases: int, seed: int) -> tuple[Counter[str], list[str]]:
    """How the cases of a subject ended, and a line on each fault."""
    context = multiprocessing.get_context("spawn")
    ended: Counter[str] = Counter()
    faults: list[str] = []
    first = 0
    while first < cases:
        at, told = context.Value("q", first), context.SimpleQueue()
        child = context.Process(target=_work, args=(name, SUBJECTS[name], seed, first, cases, at, told))
        child.start()
        while child.is_alive() or not told.empty():
            if told.empty():
                child.join(0.02)
                continue
            number, how = told.get()
            if how not in ("read", "refused"):
                faults.append(f"{name} --seed {seed} --case {number}: {how}")
                how = "fault"
            ended[how] += 1
        if child.exitcode == 0:
            break
        if child.exitcode is None or child.exitcode > 0:
            faults.append(f"{name}: could not start")
            break
        how = signal.strsignal(-child.exitcode)
        faults.append(f"{name} --seed {seed} --case {at.value}: ended by {how}")
        ended["fault"] += 1
        first = at.value + 1
    return ended, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000, help="cases of each subject")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(SUBJECTS), help="subjects, separated by commas")
    parser.add_argument("--case", type=int, help="this case of the subject alone, in this process")
    options = parser.parse_args()
    names = options.only.split(",")
    if options.case is not None:
        with tempfile.TemporaryDirectory() as folder:
            (name,) = names
            prepared(name, SUBJECTS[name], Path(folder))(chance_of(name, options.seed, options.case))
        return 0
    broken = False
    for name in names:
        ended, faults = fuzz(name, options.cases, options.seed)
        print(
            f"{name}: {ended.total()} cases, {ended['read']} read, {ended['refused']} refused, {ended['fault']} faults"
        )
        for line in faults:
            print(f"  {line}")
        broken |= bool(faults)
        sys.stdout.flush()
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())

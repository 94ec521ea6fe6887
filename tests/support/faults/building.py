"""The command line in forks of a process that has imported it, so that a build to be struck costs no second of imports.

`python -m faults.building` is that process: a line of JSON on its standard input starts a command, or asks how one is.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from helpers import SUPPORT


class Command:
    """A command of `synthshards`, running in a session of its own."""

    def __init__(self, args: Sequence[str], said: Path) -> None:
        self.said = said
        self.pid: int = _ask({"args": args, "said": str(said), "env": dict(os.environ)})
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code (negative: the signal that ended it), None while it runs."""
        if self._code is None:
            self._code = _ask({"pid": self.pid})
        return self._code

    def wait(self, seconds: float = 120.0) -> int:
        """Its exit code.

        Raises:
            TimeoutError: it goes on and on; it is killed.
        """
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
                raise TimeoutError(f"a command did not end within {seconds:.0f} s")
            time.sleep(0.002)
        return code

    def send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def is_left(self) -> bool:
        """Whether a process of its session still runs, though it has ended."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True


@cache
def _server() -> tuple[IO[str], IO[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "faults.building"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(SUPPORT)},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.returncode = 0  # it ends with its standard input, hence with us, and nobody waits for it
    return process.stdin, process.stdout


def _ask(question: dict[str, Any]) -> Any:
    asked, answers = _server()
    asked.write(json.dumps(question) + "\n")
    asked.flush()
    return json.loads(answers.readline())


def serve() -> None:
    from synthshards import make_task
    from synthshards.cli import main
    from synthshards.pipelines import build, commands  # noqa: F401 (loaded once, here)
    from synthshards.pipelines.plan import make_plan
    from synthshards.pipelines.shard import warm_up

    warm_up(make_plan(make_task("depo", N=20), shards=1))
    for line in sys.stdin:
        question = json.loads(line)
        if "pid" in question:
            ended, status = os.waitpid(question["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        elif not (answer := os.fork()):
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.environ.clear()
            os.environ.update(question["env"])
            for number, name in enumerate((os.devnull, os.devnull, question["said"])):
                os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
            sys.argv = ["synthshards", *question["args"]]
            main()  # ends this process as the command line ends
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()

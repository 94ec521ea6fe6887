"""Run a command as a reader of the docs would, with this environment's programs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def execute(command: str, folder: Path) -> str:
    """Run a command of a shell in a folder, on one thread and without the hub; return what it printed."""
    programs = Path(sys.executable).parent
    env = {
        **os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "hf"), "SYNTHSHARDS_CACHE_BYTES": "0",
        "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    for _ in range(3):
        done = subprocess.run(["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True, timeout=600)
        # On a busy machine torch's gloo aborts now and then at the end of a process that has done all its work.
        if "terminate called without an active exception" not in done.stderr:
            break
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr[-3000:]}"
    return done.stdout

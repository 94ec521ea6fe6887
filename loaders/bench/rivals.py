"""The section `peers` of `synthshards bench`: the same rows read by other libraries and by ours, in one run.

Each library has an environment of its own under `FOLDER`, made by pip at the first run and kept; one that cannot be
installed, or whose reader fails, is left out with its reason. Libraries fill two padded tensors, ours all five.
"""

from __future__ import annotations

import json
import os
import subprocess
import venv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from synthshards import __version__
from synthshards.catalog import make_task
from synthshards.dataset.manifest import NAME
from synthshards.errors import SynthshardsError
from synthshards.pipelines.bench.process import scratch_folder
from synthshards.ragged import BLOCK_ROWS, concat

from .streams import BATCH, build, case, one_thread

#: Package → the module of `peers` that writes and reads with it.
PEERS = {
    "litdata": "litdata_rows",
    "datasets": "datasets_rows",
    "webdataset": "webdataset_rows",
    "mosaicml-streaming": "streaming_rows",
}
#: Where the environments are, under the current folder.
FOLDER = Path(".peers")
#: Seconds that an installation and a reader may take.
_INSTALL, _READ = 1200, 600


def measure(preset: str, rows: int, seconds: float, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Rows 0..rows−1 of a preset (seed 0, split "train") by every library: padded batches of 64, one process.

    Every dataset is opened, and read once, before the clock starts; every pass decodes every row. Ours come before all
    others and once more after them; the better counts.

    Returns:
        one entry: `preset`, `rows`, `tokens`; `ours` and `peers`: entries with `library`, `version`, `reader`,
        `per_second` (tokens), `rows_per_second`, `bytes` on disk; peers' with `write_rows_per_second`, and `of_ours`:
        format → how many times as fast ours reads it; `left_out`: entries with `library` and `reason`.
    """
    with one_thread(), scratch_folder() as folder:
        tokens = _leave(preset, rows, folder / "rows")
        stored = build(preset, rows, folder)
        size = {name: sum(e["bytes"] for e in _manifest(folder / name)["shards"]) for name in stored}
        ours: dict[str, dict[str, Any]] = {}

        def read_ours() -> None:
            for name, dataset in stored.items():
                say(f"peers, ours from {name}")
                found = case(partial(dataset.batches, BATCH), rows, 0, seconds, anew=False)
                if name not in ours or found["per_second"] > ours[name]["per_second"]:
                    ours[name] = {"library": "synthshards", "version": __version__, "reader": name, **found}
                    ours[name]["bytes"] = size[name]

        read_ours()
        peers, left_out = [], []
        for package, module in PEERS.items():
            say(f"peers, {package}")
            try:
                found = _run(package, module, folder, seconds)
            except SynthshardsError as error:
                left_out.append({"library": package, "reason": str(error)})
                continue
            for reader in found["readers"]:
                peers.append(
                    {
                        "library": package,
                        "version": found["version"],
                        "reader": reader["reader"],
                        "per_second": tokens / reader["seconds"],
                        "rows_per_second": rows / reader["seconds"],
                        "write_rows_per_second": rows / reader["write_seconds"],
                        "bytes": reader["bytes"],
                    }
                )
        read_ours()
    for entry in peers:
        entry["of_ours"] = {name: mine["per_second"] / entry["per_second"] for name, mine in ours.items()}
    mine = list(ours.values())
    return [{"preset": preset, "rows": rows, "tokens": tokens, "ours": mine, "peers": peers, "left_out": left_out}]


def _leave(preset: str, rows: int, folder: Path) -> int:
    """Leave the rows as flat arrays for the peers; their tokens."""
    task = make_task(preset)
    batch = concat([task.batch(0, "train", at, min(BLOCK_ROWS, rows - at)) for at in range(0, rows, BLOCK_ROWS)])
    folder.mkdir()
    for name, array in (("ids", batch.input_ids), ("mask", batch.loss_mask), ("offsets", batch.offsets)):
        np.save(folder / f"{name}.npy", array)
    return int(batch.offsets[-1])


def _manifest(folder: Path) -> Any:
    return json.loads((folder / NAME).read_bytes())


def _run(package: str, module: str, folder: Path, seconds: float) -> Any:
    """What a peer found.

    Raises:
        SynthshardsError: it cannot be installed, or failed; with its last line.
    """
    python = environment(package)
    own = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    own |= {"HOME": str((folder / "home").absolute()), "TMPDIR": str(folder.absolute())}  # their caches go, too
    command = [
        str(python),
        "-P",
        "-m",
        f"peers.{module}",
        str(folder / "rows"),
        str(folder / f"of-{package}"),
        str(seconds),
    ]
    lines = _lines(command, _READ, own)
    try:
        return json.loads(lines[-1])
    except (IndexError, ValueError):
        raise SynthshardsError(f"its reader printed no result: {' '.join(lines[-1:])}") from None


def environment(package: str) -> Path:
    """The Python of a peer's environment, which is made if need be.

    Raises:
        SynthshardsError: pip failed; with its last line.
    """
    home = FOLDER / package
    python, ready = home / "bin" / "python", home / ".ready"
    if not ready.exists():
        try:
            venv.create(home, with_pip=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SynthshardsError(f"no environment in {home}: {error}") from None
        pins = ["-c", "constraints.txt"] if Path("constraints.txt").exists() else []
        install = ["install", "-q", "--disable-pip-version-check", *pins, "torch", "numpy", package]
        _lines([str(python), "-m", "pip", *install], _INSTALL, dict(os.environ))
        ready.touch()
    return python


def _lines(command: list[str], seconds: float, env: dict[str, str]) -> list[str]:
    """The lines that a command prints; `SynthshardsError` with its last one where it fails."""
    try:
        ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise SynthshardsError(f"not done after {seconds:.0f} s") from None
    if ended.returncode:
        said = (ended.stderr.strip() or ended.stdout.strip()).splitlines()
        raise SynthshardsError(said[-1] if said else f"exit code {ended.returncode}")
    return ended.stdout.splitlines()

"""What a run writes for people: logs, its record, the table and the curve."""

import importlib
import os
import sys


def _load_matplotlib() -> None:
    """Import matplotlib as if MPLBACKEND were not set: a notebook sets it to a backend that only its own kernel has, at
    which the import fails. The pictures here need none."""
    if "matplotlib" in sys.modules or (backend := os.environ.pop("MPLBACKEND", None)) is None:
        return
    try:
        importlib.import_module("matplotlib")
    finally:
        os.environ["MPLBACKEND"] = backend


_load_matplotlib()

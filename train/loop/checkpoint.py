"""Checkpoints: everything that a run's future depends on, in one file that is always complete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from torch import nn

from synthshards.digest import canonical_json
from synthshards.errors import DataError, UsageError, first_line
from synthshards.loaders.threaded import Loader
from synthshards.storage.local import replacing

from ..evaluation.generators import get_states, set_states

NAME = "checkpoint.pt"
_VERSION = 3
#: Options that may differ between a run and its resumption: they change nothing that has been computed.
_FREE = {
    "output_dir", "metrics_file", "plot_file", "logging", "train.resume", "train.checkpoint_every", "train.num_workers",
    "train.log_every_steps", "train.stop_on_usr1",
}  # fmt: skip


def digest_of(config: Mapping[str, Any]) -> str:
    """A digest of what a run's results depend on."""

    def walk(value: Any, at: str) -> Any:
        if isinstance(value, Mapping):
            inner = {str(k): walk(v, f"{at}.{k}" if at else str(k)) for k, v in value.items()}
            return {k: v for k, v in inner.items() if (f"{at}.{k}" if at else k) not in _FREE}
        return repr(value)

    return hashlib.sha256(canonical_json(walk(config, ""))).hexdigest()


def rank_state(model: nn.Module, loader: Loader, device: torch.device) -> dict[str, Any]:
    """What a rank goes on from beside the weights: where its rows stand, and the generators that it draws from."""
    return {"loader": json.dumps(loader.state_dict()), "generators": get_states(model, device)}


def set_rank_state(state: Mapping[str, Any], model: nn.Module, loader: Loader, device: torch.device) -> None:
    """Go on from what `rank_state` gave."""
    set_states(state["generators"], model, device)
    loader.load_state_dict(json.loads(state["loader"]))


def save(folder: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; the one before stays until this one is whole."""
    with replacing(folder / NAME) as file:
        torch.save({"version": _VERSION, **state}, file)


def load(folder: Path, config_digest: str) -> dict[str, Any] | None:
    """The checkpoint of a folder, None where there is none.

    Raises:
        UsageError: it is of a run with another configuration.
        DataError: it cannot be read.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        with ZipFile(path) as file:  # torch itself does not look at the checksums of what it reads
            if damaged := file.testzip():
                raise DataError(f"{damaged} is damaged")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        version, digest = state["version"], state["config"]
    except Exception as error:  # torch raises what it likes
        raise DataError(f"{path}: not a checkpoint ({first_line(error)})") from None
    if version != _VERSION:
        raise DataError(f"{path}: of version {version}; legal: {_VERSION}")
    if digest != config_digest:
        raise UsageError(
            f"{path} is of a run with another configuration; legal: train.resume=no, another output_dir, or the same "
            f"configuration ({', '.join(sorted(_FREE))} may differ) and source of model.target"
        )
    return state

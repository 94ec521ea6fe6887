"""What a run records about itself in its folder: the resolved ``config.yaml``, and ``run.json``."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from synthshards import __version__
from synthshards.storage.local import replacing

from ..data.eval_sets import EvalSet
from ..data.train_tasks import TrainTask


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """The resolved configuration as ``config.yaml``."""
    from omegaconf import OmegaConf

    data = {k: v for k, v in config["data"].items() if k != "mixture_groups"}
    with replacing(folder / "config.yaml") as file:
        file.write(OmegaConf.to_yaml(OmegaConf.create({**config, "data": data})).encode())


def write_record(
    folder: Path, train_tasks: Sequence[TrainTask], sets: Sequence[Sequence[EvalSet]], figures: Mapping[str, Any]
) -> None:
    """``run.json``: which rows, which versions, and what has been done by now (`figures`)."""
    import numba
    import numpy
    import transformers

    record = {
        "data": [
            {
                "name": one.name,
                "fingerprint": one.dataset.fingerprint,
                "identity": one.dataset.identity.as_dict(),
                "rows": one.dataset.num_examples,
                "id_offset": one.offset,
            }
            for one in train_tasks
        ],
        "eval": [
            {
                "name": one.label,
                "fingerprint": one.identity.fingerprint,
                "seed": one.seed,
                "split": one.split,
                "rows": one.count,
            }
            for sets_of_task in sets
            for one in sets_of_task
        ],
        "versions": {
            "python": platform.python_version(), "synthshards": __version__, "torch": torch.__version__,
            "transformers": transformers.__version__, "numpy": numpy.__version__, "numba": numba.__version__,
        },
        **figures,
    }  # fmt: skip
    with replacing(folder / "run.json") as file:
        file.write((json.dumps(record, indent=2) + "\n").encode())

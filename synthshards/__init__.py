"""synthshards: deterministic, self-proving shards of synthetic tasks for language-model pretraining research.

Row i is a pure function of (task, task version, params, seed, split, i). Everything else (shards, formats, workers,
machines, batches) only decides where its bytes land and when.

The public names are listed below; each is loaded when first used, so that ``import synthshards`` costs nothing and
the core never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .catalog import make_task as make_task
    from .errors import DataError as DataError
    from .errors import HealWarning as HealWarning
    from .errors import SynthshardsError as SynthshardsError
    from .errors import UsageError as UsageError
    from .loaders.iterable import TaskIterable as TaskIterable
    from .loaders.open_dataset import open_dataset as open_dataset
    from .ragged import RaggedBatch as RaggedBatch
    from .tasks.brevo.task import BrevoTask as BrevoTask
    from .tasks.capo.task import CapoTask as CapoTask
    from .tasks.depo import DepoTask as DepoTask
    from .tasks.lano.task import LanoTask as LanoTask
    from .tasks.mano.task import ManoTask as ManoTask
    from .tasks.task import Task as Task

#: Public name → module that defines it.
_PUBLIC = {
    "BrevoTask": "tasks.brevo.task",
    "CapoTask": "tasks.capo.task",
    "DataError": "errors",
    "DepoTask": "tasks.depo",
    "HealWarning": "errors",
    "LanoTask": "tasks.lano.task",
    "ManoTask": "tasks.mano.task",
    "RaggedBatch": "ragged",
    "SynthshardsError": "errors",
    "Task": "tasks.task",
    "TaskIterable": "loaders.iterable",
    "UsageError": "errors",
    "make_task": "catalog",
    "open_dataset": "loaders.open_dataset",
}

__all__ = [
    "BrevoTask",
    "CapoTask",
    "DataError",
    "DepoTask",
    "HealWarning",
    "LanoTask",
    "ManoTask",
    "RaggedBatch",
    "SynthshardsError",
    "Task",
    "TaskIterable",
    "UsageError",
    "make_task",
    "open_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'synthshards' has no attribute {name!r}")
    try:
        value = getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torch":
            raise
        line = f"{name} needs torch; install it with: pip install 'synthshards[torch]'"
        raise ImportError(line, name="torch") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])

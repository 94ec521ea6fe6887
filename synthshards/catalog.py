"""The one table of tasks, and what their presets and bare names mean. A new task is one line in `TASKS`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import UsageError, cut, nearest
from .params import assignments, parse
from .tasks.brevo.task import BrevoTask
from .tasks.capo.task import CapoTask
from .tasks.depo import DepoTask
from .tasks.lano.task import LanoTask
from .tasks.mano.task import ManoTask
from .tasks.task import Task

#: Task name → class, and the preset that the bare name stands for.
TASKS: dict[str, tuple[type[Task], str]] = {
    "depo": (DepoTask, "depo1-225"),
    "brevo": (BrevoTask, "brevo1-70"),
    "mano": (ManoTask, "mano-10"),
    "lano": (LanoTask, "lano-cfg3f"),
    "capo": (CapoTask, "capo-50k"),
}


def preset_names() -> list[str]:
    """Every preset, task by task."""
    return [name for cls, _ in TASKS.values() for name in cls.presets]


def is_task_name(name: str) -> bool:
    """Whether `name` is a task or a preset (anything else is a path or URI)."""
    return name in TASKS or name in preset_names()


def resolve(name: str) -> tuple[type[Task], dict[str, Any]]:
    """The class and the preset parameters that a task or preset name means.

    Raises:
        UsageError: no such name.
    """
    if name in TASKS:
        cls, preset = TASKS[name]
        return cls, dict(cls.presets[preset].params)
    for cls, _ in TASKS.values():
        if name in cls.presets:
            return cls, dict(cls.presets[name].params)
    names = [*TASKS, *preset_names()]
    raise UsageError(f"no task or preset {cut(repr(name))}{nearest(name, names)}; legal: {', '.join(names)}")


def make_task(name: str, params: Mapping[str, Any] | None = None, /, **overrides: Any) -> Task:
    """A task by its name or a preset's, with parameters changed: ``make_task("depo1-225", K=4)``.

    Args:
        name: ``"depo"``, ``"depo1-225"`` and so on; `synthshards tasks` lists them.
        params: parameters by name, as a mapping.
        **overrides: the same as keywords.

    Raises:
        UsageError: unknown name, unknown parameter, illegal value or combination.
    """
    cls, values = resolve(name)
    return cls({**values, **(params or {}), **overrides})


def task_from_text(name: str, pairs: Sequence[str]) -> Task:
    """A task or preset name and ``KEY=VALUE`` strings, as typed on a command line.

    Raises:
        UsageError: unknown name, unknown parameter, illegal value or combination.
    """
    cls, values = resolve(name)
    texts = assignments(list(pairs), name)
    if not texts:
        return make_task(name)
    # Presets hold typed values, the command line strings: only the latter are converted.
    typed = parse(cls.Params, texts, name, text=True, check=False)
    return cls({**values, **{key: getattr(typed, key) for key in texts}})


def task_from_identity(task: str, params: Mapping[str, Any]) -> Task:
    """The task that a manifest's ``dataset`` object names (its version is the caller's to compare).

    Raises:
        UsageError: no such task, or parameters it does not take.
    """
    if task not in TASKS:
        raise UsageError(f"no task {cut(repr(task))}{nearest(task, TASKS)}; legal: {', '.join(TASKS)}")
    cls = TASKS[task][0]
    cls.Params.check_identity(params)
    return cls(params)

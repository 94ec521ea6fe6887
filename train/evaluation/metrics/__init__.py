"""The paper's metrics: for each task, how well a model does on given rows, with standard errors.

    from synthshards import DepoTask
    from synthshards.train.evaluation.metrics import EVALUATIONS, MetricOptions, eval_rows

    task, evaluation = DepoTask(qa=True, fixed_k=4), EVALUATIONS["depo"]
    rows = eval_rows(task, seed=0, count=256)
    score = evaluation.measure(model, task, rows, MetricOptions())
    score.accuracy, score.standard_error, score.columns(), evaluation.chance(task, rows)

What training needs to know about a particular task is in its `TaskEvaluation`, and nowhere else. Source: "Physics of
Language Models: Part 4.1" (arXiv 2512.17351).
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from synthshards.catalog import TASKS
from synthshards.errors import UsageError

from .common import MetricOptions, Score, Stratum, TaskEvaluation, eval_rows, with_qa

__all__ = [
    "EVALUATIONS",
    "MetricOptions",
    "Score",
    "Stratum",
    "TaskEvaluation",
    "eval_rows",
    "evaluation_of",
    "with_qa",
]

_MODULES = {module.name for module in iter_modules(__path__)}
#: Task → how it is evaluated: the `EVALUATION` of the module of its name, for each task of the catalogue that has one.
EVALUATIONS: dict[str, TaskEvaluation] = {
    name: import_module(f"{__name__}.{name}").EVALUATION for name in TASKS if name in _MODULES
}


def evaluation_of(task: str) -> TaskEvaluation:
    """How the task of that name is evaluated.

    Raises:
        UsageError: it has no metrics.
    """
    if task not in EVALUATIONS:
        raise UsageError(f"no metrics for {task}; legal: {', '.join(EVALUATIONS)}")
    return EVALUATIONS[task]

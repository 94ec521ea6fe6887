"""The paper's metrics, exact: for each task how well a model does on given rows, with standard errors.

    from synthshards.train.evaluation.metrics import EVALUATIONS, eval_rows

    task, evaluation = DepoTask(qa=True, fixed_k=4), EVALUATIONS["depo"]
    rows = eval_rows(task, seed=0, count=256)
    score = evaluation.measure(model, task, rows, MetricOptions())
    score.accuracy, score.standard_error, score.columns(), evaluation.chance(task, rows)

What training needs to know of a task in particular stands in its `TaskEvaluation`, and nowhere else. Source: "Physics
of Language Models: Part 4.1" (arXiv 2512.17351).
"""

from __future__ import annotations

from . import brevo, capo, depo, lano, mano
from .common import MetricOptions, Score, Stratum, TaskEvaluation, eval_rows, with_qa

__all__ = ["EVALUATIONS", "MetricOptions", "Score", "Stratum", "TaskEvaluation", "eval_rows", "with_qa"]

#: Task → how it is evaluated.
EVALUATIONS: dict[str, TaskEvaluation] = {
    "depo": depo.EVALUATION,
    "brevo": brevo.EVALUATION,
    "mano": mano.EVALUATION,
    "lano": lano.EVALUATION,
    "capo": capo.EVALUATION,
}

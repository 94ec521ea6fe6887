"""The paper's metrics, exact: for each task how well a model does on given rows, with standard errors.

    from synthshards.train.evaluation.metrics import METRICS, eval_rows

    task = DepoTask(qa=True, fixed_k=4)
    score = METRICS["depo"](model, task, eval_rows(task, seed=0, count=256))
    score.accuracy, score.standard_error, score.columns()

Each is called with (model, task, rows, options). Source: "Physics of Language Models: Part 4.1" (arXiv 2512.17351).
"""

from __future__ import annotations

from collections.abc import Callable

from . import brevo, capo, depo, lano, mano
from .common import Options, Score, eval_rows

__all__ = ["METRICS", "PACKED_METRICS", "Options", "Score", "eval_rows"]

#: Task → its metric on rows.
METRICS: dict[str, Callable[..., Score]] = {
    "depo": depo.measure,
    "brevo": brevo.measure,
    "mano": mano.measure,
    "lano": lano.measure,
    "capo": capo.measure,
}
#: Task → its metric in packed windows, for those whose metric the paper takes so.
PACKED_METRICS: dict[str, Callable[..., Score]] = {"depo": depo.measure_windows, "mano": mano.measure_windows}

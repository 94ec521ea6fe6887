"""One evaluation of one task of a run: rows of its table, and the same figures under the names that logs have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from ..config.options import EvalOptions
from ..data.eval_sets import EvalSet
from ..data.train_tasks import Subject
from .metrics import METRICS, PACKED_METRICS
from .metrics import Options as MetricOptions
from .task_view import Shifted


def scores(
    model: nn.Module, subject: Subject, sets: Sequence[EvalSet], options: EvalOptions, seed: int
) -> Iterator[tuple[dict[str, Any], dict[str, float]]]:
    """The metric of the subject's task on each set; Capo's on all of them together.

    Args:
        model: over the vocabulary of the run.
        options: the group `eval`.
        seed: of what Lano's model says, 0..2^64−1.

    Yields:
        A row of the table (for Depo with `hop` first), and figures such as ``eval/hop_8_accuracy``.
    """
    if subject.mixed:
        model = Shifted(model, subject)
    name = subject.task.name
    chosen = MetricOptions(
        batch_tokens=options.batch_size * 512, batch_rows=options.batch_size, samples=options.samples,
        seed=seed % (1 << 63), tokenizer=subject.tokenizer,
        used_tokens=None if subject.tokenizer is None else len(subject.tokenizer),
    )  # fmt: skip
    if name == "capo":
        rows = [row for one in sets for row in one.rows()]
        columns = METRICS[name](model, subject.task, rows, chosen).columns()
        yield columns, _named(subject.name, columns)
        return
    for one in sets:
        if options.packed_seq_len is not None and name in PACKED_METRICS:
            stream = one.dataset().batches(options.batch_size, packing="paper", seq_len=options.packed_seq_len)
            score = PACKED_METRICS[name](model, one.task, stream, chosen)
        else:
            score = METRICS[name](model, one.task, one.rows(), chosen)
        columns = score.columns()
        yield ({"hop": one.hop, **columns} if one.hop is not None else columns), _named(one.label, columns)


def told(name: str, row: Mapping[str, Any]) -> str:
    """A line for eyes of a row of the table."""
    what = f"{name} hop {row['hop']}" if "hop" in row else name
    extra = ("token_accuracy", "kl", "bits", "bits_per_parameter")
    more = "".join(f"  {key} {row[key]:.4g}" for key in extra if key in row)
    return f"  {what}: accuracy {row['accuracy']:.4f} ± {row['standard_error']:.4f}{more}"


def _named(label: str, columns: Mapping[str, float]) -> dict[str, float]:
    return {f"eval/{label}_{name}": value for name, value in columns.items()}

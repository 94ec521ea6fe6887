"""Rows for human eyes: decoded, coloured by the loss mask, each with its length and whether it is valid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import click

from .catalog import is_task_name, make_task, resolve
from .dataset import StoredDataset, open_stored
from .errors import SynthshardsError, UsageError
from .params import assignments, parse
from .tasks.task import Row, Task

Names = Callable[[Sequence[int]], list[str]]


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


def rows_of(source: str, pairs: Sequence[str], seed: int, split: str) -> tuple[Task | None, Iterator[Row], str]:
    """The task (None where this package no longer has its version), the rows and a title for a task name or a folder.

    Raises:
        UsageError: unknown task, no such folder, or overrides for stored rows.
    """
    if is_task_name(source):
        task = task_from_text(source, pairs)
        return task, _generated(task, seed, split), f"{source}, seed {seed}, split {split}, generated now"
    dataset = open_stored(source)
    if pairs:
        raise UsageError(f"{source}: stored rows take no {pairs[0]}; legal: KEY=VALUE after a task name")
    identity = dataset.manifest.identity
    try:
        stored_task: Task | None = dataset.manifest.task()
    except SynthshardsError:
        stored_task = None
    title = f"{source}: {identity.task}, seed {identity.seed}, split {identity.split}, read from shards"
    return stored_task, _stored(dataset), title


def _generated(task: Task, seed: int, split: str) -> Iterator[Row]:
    count, at = task.num_examples, 0
    while count is None or at < count:
        yield task.example(seed, split, at)
        at += 1


def _stored(dataset: StoredDataset) -> Iterator[Row]:
    for index in range(len(dataset.manifest.shards)):
        for batch in dataset.blocks(index):
            yield from batch.rows()


def tokenizer_names(name: str) -> Names:
    """Token ids → the tokens of a Hugging Face tokenizer (a hub name or a local folder).

    Raises:
        UsageError: transformers is not installed, or there is no such tokenizer.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise UsageError(
            "--tokenizer needs transformers; install it with: pip install 'synthshards[tokenizers]'"
        ) from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:
        raise UsageError(f"--tokenizer {name!r}: no such tokenizer ({str(error).splitlines()[0]})") from None

    def names(ids: Sequence[int]) -> list[str]:
        known = len(tokenizer)
        return [str(tokenizer.convert_ids_to_tokens(i)) if i < known else f"<unknown_{i}>" for i in ids]

    return names


def render_row(
    number: int, row: Row, task: Task | None, names: Names | None, *, max_tokens: int, text_chars: int
) -> str:
    """One row: a line of facts, then its tokens (dim where the loss mask is 0, green where it is 1) or its text."""
    facts = {k: v for k, v in row.items() if k not in ("input_ids", "loss_mask", "labels", "text")}
    told = " ".join(f"{name}={_short(value)}" for name, value in facts.items())
    if task is None:
        validity = "not checked (another task version)"
    else:
        verdict = task.validate_example(row)
        validity = click.style("valid", fg="green") if verdict else click.style(f"INVALID: {verdict.reason}", fg="red")
    if "text" in row:
        text = row["text"]
        shown = text if text_chars < 0 else text[:text_chars]
        rest = f" … {len(text) - len(shown)} more characters" if len(shown) < len(text) else ""
        return f"row {number} · {len(text)} characters · {told} · {validity}\n  {shown}{rest}\n"
    ids, mask = row["input_ids"].tolist(), row["loss_mask"].tolist()
    head = f"row {number} · {len(ids)} tokens, {sum(mask)} in the loss · {told} · {validity}"
    count = len(ids) if max_tokens < 0 else min(max_tokens, len(ids))
    decode = names or (task.decode if task else lambda some: [str(i) for i in some])
    body = _coloured(decode(ids[:count]), mask[:count])
    rest = f" … {len(ids) - count} more tokens" if count < len(ids) else ""
    return f"{head}\n  {body}{rest}\n"


def _coloured(tokens: Sequence[str], mask: Sequence[bool]) -> str:
    """Tokens joined by spaces, one style a run of equal mask."""
    parts, begin = [], 0
    for at in range(1, len(tokens) + 1):
        if at == len(tokens) or mask[at] != mask[begin]:
            run = " ".join(tokens[begin:at])
            parts.append(click.style(run, fg="green", bold=True) if mask[begin] else click.style(run, dim=True))
            begin = at
    return " ".join(parts)


def _short(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def render(
    source: str,
    pairs: Sequence[str],
    *,
    show: int,
    seed: int,
    split: str,
    tokenizer: str | None,
    max_tokens: int,
    text_chars: int,
) -> Iterator[str]:
    """The report of ``synthshards inspect``, piece by piece.

    Raises:
        UsageError: as `rows_of` and `tokenizer_names`.
    """
    task, rows, title = rows_of(source, pairs, seed, split)
    names = tokenizer_names(tokenizer) if tokenizer else None
    yield title + "\n"
    for number, row in enumerate(islice(rows, show)):
        yield render_row(number, row, task, names, max_tokens=max_tokens, text_chars=text_chars)

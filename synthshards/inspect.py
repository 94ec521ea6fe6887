"""Rows for human eyes: decoded, coloured by the loss mask, each with its length and whether it is valid."""

from __future__ import annotations

import html
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import click

from .catalog import TASKS, is_task_name, preset_names, task_from_text
from .dataset.stored import StoredDataset, open_stored
from .errors import UsageError, VersionError, nearest, printable
from .tasks.task import Row, Task, Verdict
from .tokenizer import with_special_ids

#: Entries of a list that are shown among a row's facts.
_LIST = 16


@dataclass(frozen=True)
class Shown:
    """One row as it is shown, on a terminal or a page: all of it prints.

    Attributes:
        head: number and length.
        verdict: of the task's checker; None where this package no longer has that version of the law.
        facts: ``name=value``, of each fact.
        runs: (text, mask): stretches of one loss mask; None where rows have no mask.
        rest: what is left out, or empty.
    """

    head: str
    verdict: Verdict | None
    facts: list[str]
    runs: list[tuple[str, bool | None]]
    rest: str


@dataclass(frozen=True)
class Tokenizer:
    """Token ids → printed tokens, and text → ids, of a Hugging Face tokenizer; its own ids for what begins a row and
    what separates, None where it has none."""

    name: str
    bos: int | None
    sep: int | None
    names: Callable[[Sequence[int]], list[str]]
    encode: Callable[[str], list[int]]


def rows_of(
    source: str,
    pairs: Sequence[str] = (),
    *,
    seed: int | None = None,
    split: str | None = None,
    tokenizer: Tokenizer | None = None,
) -> tuple[Task | None, Iterator[Row], str]:
    """The task (None where this package no longer has its version), the rows and a title.

    Args:
        source: a task or preset name, whose rows are made now, or a dataset, whose rows are read.
        pairs, seed, split: of rows that are made now (seed 0 and split "train" where left out).
        tokenizer: whose bos and sep these rows have, as in training with it; stored rows keep their own.

    Raises:
        UsageError: no such task or dataset, or any of `pairs`, `seed` and `split` for stored rows.
    """
    if is_task_name(source):
        task = task_from_text(source, pairs)
        if tokenizer is not None:
            task = with_special_ids(task, tokenizer.bos, tokenizer.sep)
        seed, split = 0 if seed is None else seed, "train" if split is None else split
        task.key(seed, split)  # an illegal seed or split is refused before anything is shown
        title = f"{' '.join([source, *pairs])}: seed {seed}, split {split}, made now"
        return task, _generated(task, seed, split), title
    if "=" in source and not pairs:
        raise UsageError(f"{source!r}: first a task or a dataset, then KEY=VALUE")
    try:
        dataset = open_stored(source)
    except UsageError as error:
        raise UsageError(f"{error}{nearest(source, [*TASKS, *preset_names()])}") from None
    idle = [*pairs, *(["--seed"] if seed is not None else []), *(["--split"] if split is not None else [])]
    if idle:
        raise UsageError(f"{source}: its rows are read, not made; legal: {idle[0]} after a task or preset name")
    identity = dataset.manifest.identity
    try:
        stored_task: Task | None = dataset.manifest.task()
    except VersionError:
        stored_task = None
    version = f" version {identity.task_version}" if stored_task is None else ""
    title = f"{source}: {identity.task}{version}, seed {identity.seed}, split {identity.split}, read from its shards"
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


def load_tokenizer(name: str) -> Tokenizer:
    """A Hugging Face tokenizer by hub name, local folder, or a ``tokenizer.json``.

    Raises:
        UsageError: transformers is not installed, or there is no such tokenizer.
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        from transformers import AutoTokenizer, PreTrainedTokenizerFast
    except ImportError:
        raise UsageError(
            "--tokenizer needs transformers; install it with: pip install 'synthshards[tokenizers]'"
        ) from None
    logging.disable(logging.WARNING)  # the hub's client tells of every retry; the error below says it once
    try:
        open_file: Any = PreTrainedTokenizerFast  # untyped
        tokenizer: Any = open_file(tokenizer_file=name) if Path(name).is_file() else AutoTokenizer.from_pretrained(name)
    except Exception as error:  # of the hub, of the file system, of JSON …
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(f"--tokenizer {name!r}: no such tokenizer ({reason})") from None
    finally:
        logging.disable(logging.NOTSET)
    known = len(tokenizer)

    def names(ids: Sequence[int]) -> list[str]:
        tokens = [tokenizer.convert_ids_to_tokens(i) if i < known else None for i in ids]
        return [f"<unknown_{i}>" if token is None else str(token) for i, token in zip(ids, tokens, strict=True)]

    return Tokenizer(
        name, tokenizer.bos_token_id, getattr(tokenizer, "sep_token_id", None), names,
        lambda text: list(tokenizer.encode(text, add_special_tokens=False)),
    )  # fmt: skip


def show_row(
    number: int, row: Row, task: Task | None, tokenizer: Tokenizer | None, *, max_tokens: int, text_chars: int
) -> Shown:
    """Prepare one row.

    Args:
        max_tokens, text_chars: how much of it; negative for all.
    """
    facts = {name: value for name, value in row.items() if name not in ("input_ids", "labels", "loss_mask", "text")}
    told = [printable(f"{name}={_short(value)}") for name, value in facts.items()]
    verdict = task.validate_example(row) if task is not None else None
    if "text" in row:
        text = row["text"]
        if tokenizer is None:
            shown = text if text_chars < 0 else text[:text_chars]
            head = f"row {number} · {len(text)} characters"
            return Shown(head, verdict, told, [(printable(shown), None)], _rest(len(text) - len(shown), "characters"))
        ids = tokenizer.encode(text)
        count = len(ids) if max_tokens < 0 else min(max_tokens, len(ids))
        head = printable(f"row {number} · {len(text)} characters, {len(ids)} tokens of {tokenizer.name}")
        tokens = " ".join(tokenizer.names(ids[:count]))
        return Shown(head, verdict, told, [(printable(tokens), None)], _rest(len(ids) - count, "tokens"))
    ids, mask = row["input_ids"].tolist(), row["loss_mask"].tolist()
    count = len(ids) if max_tokens < 0 else min(max_tokens, len(ids))
    decode: Callable[[Sequence[int]], list[str]] = lambda some: [str(i) for i in some]  # noqa: E731
    if tokenizer is not None:
        decode = tokenizer.names
    elif task is not None:
        decode = task.decode
    runs: list[tuple[str, bool | None]] = []
    for on, pairs in groupby(zip(mask, decode(ids[:count]), strict=False), key=lambda pair: bool(pair[0])):
        runs.append((printable(" ".join(token for _, token in pairs)), on))
    head = f"row {number} · {len(ids)} tokens, {sum(mask)} in the loss"
    return Shown(head, verdict, told, runs, _rest(len(ids) - count, "tokens"))


def _rest(count: int, what: str) -> str:
    return f"… {count} more {what}" if count else ""


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value[:_LIST])) + (f",… ({len(value)})" if len(value) > _LIST else "")
    return str(value)


def report(
    source: str,
    pairs: Sequence[str] = (),
    *,
    show: int = 3,
    seed: int | None = None,
    split: str | None = None,
    tokenizer: str | None = None,
    max_tokens: int = -1,
    text_chars: int = 500,
) -> tuple[str, Iterator[Shown]]:
    """The title, and the first `show` rows of a task or dataset.

    Raises:
        UsageError: as `rows_of` and `load_tokenizer`.
        DataError: a shard is damaged (while iterating).
    """
    names = load_tokenizer(tokenizer) if tokenizer is not None else None
    task, rows, title = rows_of(source, pairs, seed=seed, split=split, tokenizer=names)
    numbered = enumerate(islice(rows, show))
    return printable(title), (
        show_row(i, r, task, names, max_tokens=max_tokens, text_chars=text_chars) for i, r in numbered
    )


def as_terminal(row: Shown) -> str:
    """Dim where the loss mask is 0, green where it is 1 (click takes the colours out again for a pipe)."""
    styles: dict[bool | None, dict[str, Any]] = {True: {"fg": "green", "bold": True}, False: {"dim": True}, None: {}}
    body = " ".join(click.style(text, **styles[on]) for text, on in row.runs)
    validity = _validity(row.verdict)
    if row.verdict is not None:
        validity = click.style(validity, fg="green" if row.verdict else "red")
    head = " · ".join([row.head, validity, *row.facts])
    return f"{head}\n  {body}{' ' if row.rest else ''}{row.rest}\n"


def _validity(verdict: Verdict | None) -> str:
    if verdict is None:
        return "not checked (another version of the task)"
    return "valid" if verdict else printable(f"INVALID: {verdict.reason}")


def aligned(table: Sequence[Sequence[str]], *, right: int | None = None, longest: int | None = None) -> list[str]:
    """The lines of a table whose columns are as wide as their widest entry.

    Args:
        right: the first of the columns of numbers, which end flush; None: there are none.
        longest: an entry of more characters stands out and widens no column; None: there are none.
    """
    widths = [max(len(entry) for entry in column if longest is None or len(entry) <= longest)
              for column in zip(*table, strict=True)]  # fmt: skip
    return [
        "  ".join(
            entry.rjust(width) if right is not None and i >= right else entry.ljust(width)
            for i, (entry, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def as_html(title: str, rows: Iterator[Shown]) -> str:
    """One page without scripts and without outside files: tokens in the loss are green, the others grey."""
    classes = {True: "on", False: "off", None: "text"}
    parts = []
    for row in rows:
        body = " ".join(f'<span class="{classes[on]}">{html.escape(text)}</span>' for text, on in row.runs)
        bad = ' class="bad"' if row.verdict is not None and not row.verdict else ""
        validity = f"<span{bad}>{html.escape(_validity(row.verdict))}</span>"
        head = " · ".join([html.escape(row.head), validity, *map(html.escape, row.facts)])
        parts.append(f"<h2>{head}</h2>\n<p>{body} {html.escape(row.rest)}</p>")
    style = (
        "body{font:14px/1.6 monospace;max-width:110ch;margin:2em auto;padding:0 1em;color-scheme:light dark}"
        "h1,h2{font-size:1em}h2{font-weight:normal}p{overflow-wrap:anywhere;white-space:pre-wrap}"
        ".on{color:#0a0;font-weight:bold}.off{color:#888}.bad{color:#d00;font-weight:bold}"
    )
    name = html.escape(title)
    head = f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{name}</title>\n<style>{style}</style>\n'
    return f"{head}<h1>{name}</h1>\n" + "\n".join(parts) + "\n</html>\n"

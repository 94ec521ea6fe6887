"""Reading a manifest, which is not trusted until every field and every claim has been checked.

An error names the place, the value and what is legal there, in one line.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import msgspec
import pyarrow as pa

from ..catalog import TASKS, task_from_identity
from ..errors import ManifestError, SynthshardsError, UsageError, nearest
from ..formats import FORMATS
from ..identity import MAX_SEED, MAX_SHARDS, Identity, Layout
from ..ragged import KINDS
from ..storage.folder import SCRATCH, Folder
from .document import Document, DocumentLayout, decode, shown
from .manifest import MAX_COUNT, MAX_SHARD_EXAMPLES, NAME, NAMES, Manifest, shard_name

_NAME = re.compile(r"[a-z0-9_]+")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def find(folder: Folder) -> tuple[str, pa.Buffer]:
    """The name of the folder's manifest, and its bytes.

    Raises:
        FileNotFoundError: it has none.
        ManifestError: it has one of each name.
        StorageError: it cannot be read.
    """
    found = []
    for name in NAMES:
        with suppress(FileNotFoundError):
            found.append((name, folder.read(name)))
    if not found:
        raise FileNotFoundError(folder.where(NAME))
    if len(found) > 1:
        raise ManifestError(
            f"{folder.url}: holds {' and '.join(NAMES)}; legal: one of them (delete the one that does not belong there)"
        )
    return found[0]


def load(folder: Folder, name: str | None = None) -> Manifest:
    """Read and check a manifest.

    Args:
        folder: where it lies.
        name: its name, or None for the folder's own.

    Raises:
        UsageError: there is none.
        ManifestError: it is not one, or claims the impossible, or the folder has two.
        StorageError: it cannot be read.
    """
    try:
        found, data = find(folder) if name is None else (name, folder.read(name))
    except FileNotFoundError:
        if not folder.exists():
            raise UsageError(
                f"{folder.url}: nothing there; legal: a dataset (make one with: synthshards build TASK --shards N) "
                "or a manifest"
            ) from None
        if below := _datasets_below(folder) if name is None else []:
            raise UsageError(
                f"{folder.url}: no {NAME} in it, but in folders below; legal: {', '.join(map(folder.where, below))}"
            ) from None
        raise UsageError(
            f"{folder.url}: no {name or NAME} in it; legal: a finished dataset "
            "(an unfinished one is finished by the same build command again, or by: synthshards seal)"
        ) from None
    return parse(data, folder.where(found))


def _datasets_below(folder: Folder) -> list[str]:
    """The sub-folders that hold a manifest, of the first few: in an object store each takes a request."""
    return [
        name for name in folder.subfolders()[:16] if name != SCRATCH and not folder.list(name).keys().isdisjoint(NAMES)
    ]


def parse(buffer: bytes | pa.Buffer, where: str) -> Manifest:
    """Check a manifest's bytes; `where` is what errors name.

    Raises:
        ManifestError: with the place inside the document and what is legal there.
    """
    try:
        return _checked(decode(memoryview(buffer)))
    except SynthshardsError as error:
        raise ManifestError(f"{where}: {error}") from None
    except RecursionError:
        raise ManifestError(f"{where}: nested too deeply") from None


def _checked(doc: Document) -> Manifest:
    identity, columns = _check_dataset(doc)
    if doc.fingerprint != identity.fingerprint:
        raise ManifestError(
            f"$.fingerprint: {shown(doc.fingerprint)}; legal: {identity.fingerprint!r}, as dataset says"
        )
    _check_layout(doc.layout)
    _check_shards(doc)
    generator: dict[str, str] = msgspec.to_builtins(doc.generator)
    for name, text in generator.items():
        if not text.isprintable() or len(text) > 100:
            raise ManifestError(f"$.generator.{name}: {shown(text)}; legal: at most 100 printable characters")
    layout = Layout(**msgspec.to_builtins(doc.layout))
    manifest = Manifest(identity, layout, columns, doc.shards, generator)
    totals, claimed = manifest.totals, msgspec.to_builtins(doc.totals)
    for name in {**totals, **claimed}:
        if name not in totals or name not in claimed:
            raise ManifestError(f"$.totals: {', '.join(claimed)}; legal: {', '.join(totals)}")
        if claimed[name] != totals[name]:
            raise ManifestError(
                f"$.totals.{name}: {shown(claimed[name])}; legal: {json.dumps(totals[name])}, the sum over the shards"
            )
    if doc.dataset.task_version == TASKS[doc.dataset.task][0].version:
        limit = manifest.task().num_examples
        if limit is not None and manifest.examples > limit:
            raise ManifestError(f"$.totals.examples: {manifest.examples}; legal: 1..{limit}, all that the task has")
    return manifest


def _check_dataset(doc: Document) -> tuple[Identity, dict[str, str]]:
    """The identity, and the columns in the order of the schema (whatever order the JSON had)."""
    data = doc.dataset
    if data.task not in TASKS:
        hint = nearest(data.task[:80], TASKS)
        raise ManifestError(f"$.dataset.task: {shown(data.task)}{hint}; legal: {', '.join(TASKS)}")
    if not 1 <= data.task_version <= MAX_COUNT:
        raise ManifestError(f"$.dataset.task_version: {shown(data.task_version)}; legal: from 1")
    if not 0 <= data.seed <= MAX_SEED:
        raise ManifestError(f"$.dataset.seed: {shown(data.seed)}; legal: 0..2^64-1")
    if not _NAME.fullmatch(data.split):
        raise ManifestError(f"$.dataset.split: {shown(data.split)}; legal: lower-case letters, digits and _")
    cls = TASKS[data.task][0]
    if cls.version != data.task_version:
        # The rows can be read, but this package does not know what their parameters mean.
        _check_canonical(data.params, "$.dataset.params")
        _check_columns(doc.columns)
        return Identity(data.task, data.task_version, data.params, data.seed, data.split), doc.columns
    try:
        task = task_from_identity(data.task, data.params)
    except UsageError as error:
        text = str(error)
        raise ManifestError(f"$.dataset.params: {text if len(text) <= 400 else f'{text[:400]}…'}") from None
    identity = task.identity(data.seed, data.split)
    if identity.params != data.params:
        missing = sorted(set(identity.params) - set(data.params))
        surplus = sorted(set(data.params) - set(identity.params))
        raise ManifestError(
            f"$.dataset.params: not the canonical form: missing {', '.join(missing) or 'none'}; "
            f"superfluous {', '.join(surplus) or 'none'}"
        )
    for name in {**task.columns, **doc.columns}:
        if doc.columns.get(name) != task.columns.get(name):
            legal = repr(task.columns[name]) if name in task.columns else "no such column"
            raise ManifestError(f"$.columns.{shown(name)[1:-1]}: {shown(doc.columns.get(name))}; legal: {legal}")
    return identity, task.columns


def _check_canonical(value: object, place: str) -> None:
    """What may be hashed: integers, booleans, strings, null, and lists of them."""
    if isinstance(value, dict) and place == "$.dataset.params":
        for name, item in value.items():
            _check_canonical(item, f"{place}.{shown(name)[1:-1]}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _check_canonical(item, f"{place}[{i}]")
    elif not isinstance(value, int | str | None):
        raise ManifestError(f"{place}: {shown(value)}; legal: an integer, a boolean, a string, null or a list of them")


def _check_columns(columns: dict[str, Any]) -> None:
    """Columns of another task version: any, as long as they can be read and hold rows."""
    for name, kind in columns.items():
        if not _NAME.fullmatch(name):
            raise ManifestError(f"$.columns: {shown(name)}; legal: names of lower-case letters, digits and _")
        if not isinstance(kind, str) or kind not in KINDS:
            hint = nearest(kind[:80], KINDS) if isinstance(kind, str) else ""
            raise ManifestError(f"$.columns.{name}: {shown(kind)}{hint}; legal: {', '.join(KINDS)}")
    tokens = columns.get("input_ids") in ("list<uint16>", "list<uint32>") and columns.get("loss_mask") == "list<bool>"
    if not tokens and columns.get("text") != "string":
        raise ManifestError(
            "$.columns: no rows; legal: input_ids (list<uint16> or list<uint32>) and loss_mask, or text"
        )


def _check_layout(layout: DocumentLayout) -> None:
    if layout.format not in FORMATS:
        hint = nearest(layout.format[:80], FORMATS)
        raise ManifestError(f"$.layout.format: {shown(layout.format)}{hint}; legal: {', '.join(FORMATS)}")
    compressions = FORMATS[layout.format].compressions
    if layout.compression not in compressions:
        raise ManifestError(f"$.layout.compression: {shown(layout.compression)}; legal: {', '.join(compressions)}")
    for name, value, limit in (
        ("num_shards", layout.num_shards, MAX_SHARDS),
        ("shard_examples", layout.shard_examples, MAX_SHARD_EXAMPLES),
    ):
        if not 1 <= value <= limit:
            raise ManifestError(f"$.layout.{name}: {shown(value)}; legal: 1..{limit}")


def _check_shards(doc: Document) -> None:
    layout = doc.layout
    if len(doc.shards) != layout.num_shards:
        raise ManifestError(f"$.shards: {len(doc.shards)} entries; legal: {layout.num_shards}, as layout says")
    names = ["tokens", "loss_tokens"] if "input_ids" in doc.columns else ["characters"]
    suffix = FORMATS[layout.format].suffix
    for i, entry in enumerate(doc.shards):
        start = i * layout.shard_examples
        full = start + layout.shard_examples
        last = i == layout.num_shards - 1
        path = shard_name(doc.dataset.split, i, suffix)
        if entry.path != path:
            raise ManifestError(f"$.shards[{i}].path: {shown(entry.path)}; legal: {path!r}")
        if entry.start != start:
            raise ManifestError(f"$.shards[{i}].start: {shown(entry.start)}; legal: {start}")
        if not (start < entry.stop <= full if last else entry.stop == full):
            legal = f"{start + 1}..{full}" if last else f"{full}"
            raise ManifestError(f"$.shards[{i}].stop: {shown(entry.stop)}; legal: {legal}")
        counts = entry.counts()
        if list(counts) != names:
            raise ManifestError(f"$.shards[{i}]: counts {', '.join(counts) or 'nothing'}; legal: {', '.join(names)}")
        for name, value in counts.items():
            limit = counts["tokens"] if name == "loss_tokens" else MAX_COUNT
            if not 0 <= value <= limit:
                raise ManifestError(f"$.shards[{i}].{name}: {shown(value)}; legal: 0..{limit}")
        if entry.bytes is not None and not 1 <= entry.bytes <= MAX_COUNT:
            raise ManifestError(f"$.shards[{i}].bytes: {shown(entry.bytes)}; legal: 1..{MAX_COUNT}, or null")
        if (entry.bytes is None) != (entry.sha256 is None):
            raise ManifestError(f"$.shards[{i}]: one of bytes and sha256 is null; legal: both or neither")
        for name, digest in (("sha256", entry.sha256), ("content", entry.content)):
            if digest is not None and not _DIGEST.fullmatch(digest):
                raise ManifestError(f"$.shards[{i}].{name}: {shown(digest)}; legal: sha256: and 64 hex digits")

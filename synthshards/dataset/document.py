"""A manifest's JSON as typed fields: correct in form, with claims that are not checked yet.

An error names the place, the value and what is legal there, in one line.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from ..errors import ManifestError
from .manifest import SCHEMA_VERSION, ShardEntry

#: No manifest of 100,000 shards comes near this; anything larger is not read.
MAX_BYTES = 1 << 28


class Dataset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    task: str
    task_version: int
    params: dict[str, Any]
    seed: int
    split: str


class DocumentLayout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    shard_examples: int
    num_shards: int
    compression: str


class Totals(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    examples: int
    tokens: int | UnsetType = UNSET
    loss_tokens: int | UnsetType = UNSET
    characters: int | UnsetType = UNSET
    bytes: int | None


class Generator(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    package: str
    version: str
    pyarrow: str


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema_version: int
    dataset: Dataset
    fingerprint: str
    layout: DocumentLayout
    columns: dict[str, Any]
    totals: Totals
    shards: list[ShardEntry]
    generator: Generator


class _Head(msgspec.Struct, frozen=True):
    """Read first, so that a newer schema is called newer and not full of unknown fields."""

    schema_version: int = SCHEMA_VERSION


def decode(buffer: memoryview) -> Document:
    """The fields of a manifest's bytes.

    Raises:
        ManifestError: too large, not JSON, of another schema, or a field is missing, unknown, repeated or of another
            type.
        RecursionError: nested too deeply.
    """
    if buffer.nbytes > MAX_BYTES:
        raise ManifestError(f"{buffer.nbytes} bytes; legal: at most {MAX_BYTES}")
    data = bytes(buffer)
    try:
        head = msgspec.json.decode(data, type=_Head)
        if head.schema_version != SCHEMA_VERSION:
            newer = " (a newer release of synthshards may read it)" if head.schema_version > SCHEMA_VERSION else ""
            raise ManifestError(f"$.schema_version: {shown(head.schema_version)}; legal: {SCHEMA_VERSION}{newer}")
        document = msgspec.json.decode(data, type=Document)
        _check_unique(data)
        return document
    except msgspec.ValidationError as error:
        raise ManifestError(_located(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"not JSON ({error})") from None


def _located(message: str) -> str:
    """msgspec's message with the place first."""
    text, _, place = message.rpartition(" - at `")
    if not text:
        text, place = message, "$"
    return f"{place.rstrip('`')}: {text.replace('`', '')}"


def shown(value: object) -> str:
    """A value as a message shows it: at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}… ({len(text)} characters)"


def _check_unique(data: bytes) -> None:
    """Refuse a key that stands twice in one object: parsers keep one of the two values, and not all the same one."""
    repeats: list[tuple[dict[str, Any], str]] = []

    def hook(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            repeats.append((made, next(name for name in names if names.count(name) > 1)))
        return made

    document = json.loads(data, object_pairs_hook=hook)
    for target, name in repeats:
        raise ManifestError(f"{_place(document, target, '$') or '$'}: the key {shown(name)} stands twice; legal: once")


def _place(tree: Any, target: object, at: str) -> str | None:
    if tree is target:
        return at
    if isinstance(tree, dict):
        branches = [(f"{at}.{name}", branch) for name, branch in tree.items()]
    else:
        branches = [(f"{at}[{i}]", branch) for i, branch in enumerate(tree)] if isinstance(tree, list) else []
    return next((place for name, branch in branches if (place := _place(branch, target, name))), None)

"""A manifest's JSON as typed fields: correct in form, with claims that are not checked yet.

An error names the place, the value and what is legal there, in one line.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from ..errors import ManifestError
from .manifest import LFS_POINTER, SCHEMA_VERSION, ShardEntry

#: No manifest of 100,000 shards comes near this; anything larger is not read.
MAX_BYTES = 1 << 28
#: What the first bytes of a file that is no JSON say of it.
_OTHER_FORMS = {
    LFS_POINTER: "a Git LFS pointer in place of the file; fetch the files with: git lfs pull",
    b"\x1f\x8b": "compressed by gzip; legal: the JSON itself (unpack it with: gzip -d)",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; legal: the JSON itself (unpack it with: zstd -d)",
    b"\xef\xbb\xbf": "begins with a byte-order mark; legal: UTF-8 without one",
    b"\xff\xfe": "is UTF-16; legal: UTF-8",
    b"\xfe\xff": "is UTF-16; legal: UTF-8",
}


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
    for start, what in _OTHER_FORMS.items():
        if data.startswith(start):
            raise ManifestError(what)
    try:
        head = msgspec.json.decode(data, type=_Head)
        if head.schema_version != SCHEMA_VERSION:
            newer = " (a newer release of synthshards may read it)" if head.schema_version > SCHEMA_VERSION else ""
            raise ManifestError(f"$.schema_version: {shown(head.schema_version)}; legal: {SCHEMA_VERSION}{newer}")
        document = msgspec.json.decode(data, type=Document)
        _check_unique(data)
        return document
    except ManifestError:
        raise
    except msgspec.ValidationError as error:
        raise ManifestError(_located(str(error))) from None
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: bytes that are no UTF-8, or thousands of digits
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
            counts = Counter(name for name, _ in pairs)
            repeats.append((made, next(name for name, count in counts.items() if count > 1)))
        return made

    document = json.loads(data, object_pairs_hook=hook)
    for target, name in repeats:
        place = "".join(_steps(document, target) or [])
        raise ManifestError(f"${place}: the key {shown(name)} stands twice; legal: once")


def _steps(tree: Any, target: object) -> list[str] | None:
    """The way from a document to an object within it; None where it is not there."""
    if tree is target:
        return []
    for key, branch in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(branch, dict | list) and (rest := _steps(branch, target)) is not None:
            return [f".{shown(key)[1:-1]}" if isinstance(tree, dict) else f"[{key}]", *rest]
    return None

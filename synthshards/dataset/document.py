"""A manifest's JSON as typed fields: correct in form, with claims that are not checked yet.

An error names the place, the value and what is legal there, in one line.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from ..catalog import TASKS
from ..errors import ManifestError
from ..formats import FORMATS
from ..identity import MAX_SEED, MAX_SHARDS
from ..ragged import KINDS
from .manifest import (
    COUNTED,
    LFS_POINTER,
    MAX_COUNT,
    MAX_EXAMPLES,
    MAX_SHARD_EXAMPLES,
    SCHEMA_VERSION,
    Digest,
    ShardEntry,
    stated,
)

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


NAME_PATTERN = "^[a-z0-9_]+$"
#: A parameter's value in the JSON Schema: what may be hashed.
VALUE = {
    "type": ["integer", "boolean", "string", "null", "array"],
    "items": {"$ref": "#/$defs/Dataset/properties/params/additionalProperties"},
}
Text = Annotated[str, stated(maxLength=100)]


class Dataset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    task: Annotated[str, stated(enum=list(TASKS))]
    task_version: Annotated[int, stated(minimum=1, maximum=MAX_COUNT)]
    params: Annotated[dict[str, Any], stated(additionalProperties=VALUE)]
    seed: Annotated[int, stated(minimum=0, maximum=MAX_SEED)]
    split: Annotated[str, stated(pattern=NAME_PATTERN)]


class DocumentLayout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Annotated[str, stated(enum=list(FORMATS))]
    shard_examples: Annotated[int, stated(minimum=1, maximum=MAX_SHARD_EXAMPLES)]
    num_shards: Annotated[int, stated(minimum=1, maximum=MAX_SHARDS)]
    compression: Annotated[str, stated(enum=sorted({c for f in FORMATS.values() for c in f.compressions}))]


Sum = Annotated[int, stated(minimum=0)]


class Totals(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    examples: Annotated[int, stated(minimum=1, maximum=MAX_EXAMPLES)]
    tokens: Sum | UnsetType = UNSET
    loss_tokens: Sum | UnsetType = UNSET
    characters: Sum | UnsetType = UNSET
    bytes: Sum | None


class Generator(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    package: Text
    version: Text
    pyarrow: Text


#: What goes together, in the JSON Schema.
COMPRESSIONS = [
    {"properties": {"format": {"const": name}, "compression": {"enum": list(kind.compressions)}}}
    for name, kind in FORMATS.items()
]
FILE_OR_NONE = [
    {"properties": {"bytes": {"type": one}, "sha256": {"type": other}}}
    for one, other in (("integer", "string"), ("null", "null"))
]
COLUMN = {"enum": list(KINDS)}


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema_version: Annotated[int, stated(const=SCHEMA_VERSION)]
    dataset: Dataset
    fingerprint: Digest
    layout: Annotated[DocumentLayout, stated(anyOf=COMPRESSIONS)]
    columns: Annotated[dict[str, Any], stated(propertyNames={"pattern": NAME_PATTERN}, additionalProperties=COLUMN)]
    totals: Annotated[Totals, COUNTED]
    shards: Annotated[
        list[Annotated[ShardEntry, COUNTED, stated(anyOf=FILE_OR_NONE)]], stated(minItems=1, maxItems=MAX_SHARDS)
    ]
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

"""The JSON Schema of a manifest, from the types that the parser decodes and those of the tasks' parameters."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from synthshards.catalog import TASKS
from synthshards.dataset.document import Document

NAME = "manifest.schema.json"


def schema() -> str:
    """The text of the schema. It cannot say sums, the order of shards and the fingerprint: the parser checks them."""
    classes = {name: cls for name, (cls, _) in TASKS.items()}
    types = [Document, *(cls.Params for cls in classes.values())]
    (top, *params), parts = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    rules: list[dict[str, Any]] = []
    for (name, cls), of_task in zip(classes.items(), params, strict=True):
        always = [field.name for field in msgspec.structs.fields(cls.Params) if field.name not in cls.Params.later]
        version = {"task": {"const": name}, "task_version": {"const": cls.version}}
        rules.append(
            {"if": {"properties": version}, "then": {"properties": {"params": {**of_task, "required": always}}}}
        )
    parts["Dataset"]["allOf"] = rules
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"https://github.com/synthshards/synthshards/blob/main/docs/{NAME}",
        "title": "Manifest of a synthshards dataset",
        **top,
        "$defs": parts,
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

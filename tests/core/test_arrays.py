"""Every array that a kernel takes has its shape in the kernel's docstring, or in that of the named tuple it lies in."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from helpers import SUPPORT

from synthshards.kernels import arrays

REPO = SUPPORT.parents[1]
FILES = [
    path for floor in ("synthshards", "pipelines", "loaders", "train") for path in sorted((REPO / floor).rglob("*.py"))
]
TYPES = {name for name in vars(arrays) if name[0].isupper() and name not in ("Any", "NDArray", "TypeAlias")}


def shapeless(code: str) -> list[str]:
    """Arrays whose shape no docstring gives: ``function.argument``, ``Tuple.field``.

    A shape is a bracket behind the name: ``out [rows]``, ``out: [rows, 2]``, ``ids, out: uint64 [rows]``.
    """
    missing = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef):
            if "kernel" not in map(ast.unparse, node.decorator_list):
                continue
            fields = [(arg.arg, arg.annotation) for arg in node.args.args]
        elif isinstance(node, ast.ClassDef) and "NamedTuple" in map(ast.unparse, node.bases):
            fields = [(ast.unparse(f.target), f.annotation) for f in node.body if isinstance(f, ast.AnnAssign)]
        else:
            continue
        doc = ast.get_docstring(node) or ""
        for name, annotation in fields:
            array = TYPES & set(re.findall(r"\w+", ast.unparse(annotation))) if annotation else None
            if array and not re.search(rf"\b{name}(, \w+)*(:( \w+,?)*)? \[\w", doc):
                missing.append(f"{node.name}.{name}")
    return missing


def test_a_missing_shape_is_seen() -> None:
    kernel = '@kernel\ndef fill(key: U64, out: Ids, n: int) -> None:\n    """{}"""\n'
    assert shapeless(kernel.format("Fill out [n].")) == ["fill.key"]
    assert shapeless(kernel.format("key: [2]; out: see out[n].")) == ["fill.out"]
    assert shapeless(kernel.format("key, out: [n]")) == []
    assert shapeless('class Lanes(NamedTuple):\n    """Lanes."""\n    base: I64\n') == ["Lanes.base"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPO)))
def test_every_array_has_its_shape(path: Path) -> None:
    assert shapeless(path.read_text()) == []

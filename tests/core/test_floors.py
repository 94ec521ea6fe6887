"""The floor plan: imports run only downward, relative inside a floor, absolute across; the core knows no torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Floor folder → (rank, what it may use of other people's packages besides those below).
FLOORS = {
    "synthshards": (0, {"numpy", "numba", "llvmlite", "pyarrow", "click", "msgspec"}),
    "pipelines": (1, set()),
    "loaders": (2, {"torch"}),
    "train": (3, {"transformers", "hydra", "omegaconf", "matplotlib", "wandb"}),
}
#: Optional packages that single modules of a floor may import inside a function, where they are asked for.
OPTIONAL = {
    "synthshards/inspect.py": {"transformers"},
    "synthshards/subwords.py": {"tokenizers"},
    "loaders/sources/tokenize.py": {"tokenizers", "transformers"},
    "synthshards/storage/remote.py": {"fsspec"},
    "synthshards/storage/s3.py": {"botocore"},
    "pipelines/ray_executor.py": {"ray"},
    # What runs in the environments of other libraries.
    "loaders/bench/peers/litdata_rows.py": {"litdata"},
    "loaders/bench/peers/datasets_rows.py": {"datasets"},
    "loaders/bench/peers/webdataset_rows.py": {"webdataset"},
    "loaders/bench/peers/streaming_rows.py": {"streaming"},
}
STANDARD = __import__("sys").stdlib_module_names


def floor_of(module: str) -> str | None:
    """The floor that an absolute module name lies on, None for other people's packages."""
    parts = module.split(".")
    if parts[0] != "synthshards":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS else "synthshards"


def imports(tree: ast.AST) -> Iterator[tuple[int, int, str]]:
    """(line, number of leading dots, module) of every import, wherever in the file it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, 0, alias.name
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.level, node.module or ""


def faults(path: str, source: str) -> list[str]:
    """What breaks the floor plan in one file; `path` is relative to the repository."""
    floor = path.split("/")[0]
    rank = FLOORS[floor][0]
    packages = set().union(*(used for r, used in FLOORS.values() if r <= rank)) | OPTIONAL.get(path, set())
    found = []
    for line, level, module in imports(ast.parse(source)):
        if level:
            depth = len(path.split("/")) - 1
            if level > depth:
                found.append(f"{path}:{line}: a relative import leaves its floor")
            continue
        target = floor_of(module)
        top = module.split(".")[0]
        if target is not None:
            if target == floor:
                found.append(f"{path}:{line}: {module} lies on this floor; import it relatively")
            elif FLOORS[target][0] > rank:
                found.append(f"{path}:{line}: {module} lies on a floor above")
        elif top in FLOORS:
            found.append(f"{path}:{line}: {module}: floors are packages of synthshards")
        elif top not in STANDARD and top not in packages:
            found.append(f"{path}:{line}: {module} is not a package that {floor}/ may use")
    return found


@pytest.mark.parametrize("path", sorted(str(p.relative_to(ROOT)) for f in FLOORS for p in (ROOT / f).rglob("*.py")))
def test_imports_run_downward(path: str) -> None:
    assert faults(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("synthshards/kernels/rng.py", "import torch"),
        ("synthshards/kernels/rng.py", "from synthshards.pipelines import plan"),
        ("synthshards/tasks/depo.py", "def f():\n    from ... import pipelines"),
        ("synthshards/kernels/rng.py", "from synthshards.identity import Identity"),
        ("pipelines/build.py", "from synthshards.loaders.iterable import TaskIterable"),
        ("pipelines/build.py", "import loaders"),
        ("pipelines/build.py", "from synthshards.pipelines.plan import Plan"),
        ("pipelines/build.py", "import pandas"),
        ("loaders/stream.py", "import transformers"),
        ("loaders/stream.py", "from ..synthshards import spec"),
    ],
)
def test_the_rule_bites(path: str, source: str) -> None:
    assert len(faults(path, source)) == 1


def test_every_public_name_stands_in_its_module() -> None:
    import synthshards

    for name in synthshards.__all__:
        assert getattr(synthshards, name).__name__ == name

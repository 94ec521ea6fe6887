"""The floor plan: imports run only downward, relative inside a floor, absolute across, and never in a circle; the core
knows no torch; no floor's root is crowded."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from synthshards import _PUBLIC

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
    "synthshards/tokenizer.py": {"tokenizers"},
    "loaders/sources/tokenize.py": {"tokenizers", "transformers"},
    "synthshards/storage/aws_config.py": {"botocore"},
    "synthshards/storage/remote.py": {"fsspec"},
    "synthshards/storage/s3.py": {"botocore"},
    # What runs in the environments of other libraries.
    "loaders/bench/peers/litdata_rows.py": {"litdata"},
    "loaders/bench/peers/datasets_rows.py": {"datasets"},
    "loaders/bench/peers/webdataset_rows.py": {"webdataset"},
    "loaders/bench/peers/streaming_rows.py": {"streaming"},
}
SOURCES = {str(p.relative_to(ROOT)): p.read_text() for f in FLOORS for p in sorted((ROOT / f).rglob("*.py"))}
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


@pytest.mark.parametrize("path", SOURCES)
def test_imports_run_downward(path: str) -> None:
    assert faults(path, SOURCES[path]) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("synthshards/kernels/rng.py", "import torch"),
        ("synthshards/kernels/rng.py", "from synthshards.pipelines import plan"),
        ("synthshards/tasks/depo.py", "def f():\n    from ... import pipelines"),
        ("synthshards/kernels/rng.py", "from synthshards.identity import Identity"),
        ("pipelines/build.py", "from synthshards.loaders.iterable import TaskIterable"),
        ("pipelines/build.py", "import loaders"),
        ("pipelines/build.py", "from synthshards.pipelines.plan import BuildPlan"),
        ("pipelines/build.py", "import pandas"),
        ("loaders/stream.py", "import transformers"),
        ("loaders/stream.py", "from ..synthshards import identity"),
    ],
)
def test_the_rule_bites(path: str, source: str) -> None:
    assert len(faults(path, source)) == 1


#: What may name modules of floors above by strings: the table of commands, and the public names.
NAMES_BY_STRING = ("synthshards/cli.py", "synthshards/__init__.py")
#: The one call upward, made when a user asks: `Task.iterable` gives a torch dataset, and the core needs no torch.
UP_CALL = ("synthshards/tasks/task.py", "TaskIterable")


def module_of(path: str) -> str:
    """The dotted name of a file, as it is imported."""
    parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
    return ".".join(parts if parts[0] == "synthshards" else ["synthshards", *parts])


def uses(path: str, source: str, modules: Mapping[str, str]) -> Iterator[str]:
    """The modules of the floors that a file imports: anywhere in it, also for type checkers alone and by a string."""
    package = module_of(path) if path.endswith("__init__.py") else module_of(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            for alias in node.names:
                named = f"{module}.{alias.name}"
                if module == "synthshards" and alias.name in _PUBLIC:
                    named = named if (path, alias.name) == UP_CALL else f"synthshards.{_PUBLIC[alias.name]}"
                yield named if named in modules else module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and path not in NAMES_BY_STRING:
            dots = len(node.value) - len(node.value.lstrip("."))
            yield node.value[dots:] if not dots else f"{package.rsplit('.', dots - 1)[0]}.{node.value[dots:]}"


def circle(sources: Mapping[str, str]) -> list[str]:
    """The modules of one circle of imports, [] where there is none."""
    modules = {module_of(path): path for path in sources}
    graph = {
        module: {used for used in uses(path, sources[path], modules) if used in modules and used != module}
        for module, path in modules.items()
    }
    graph["synthshards"] = set()  # its public names are loaded when they are used
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_what_floors_may_import_is_there() -> None:
    assert OPTIONAL.keys() <= SOURCES.keys()
    assert f"import {UP_CALL[1]}" in SOURCES[UP_CALL[0]]


def test_no_import_runs_in_a_circle() -> None:
    assert circle(SOURCES) == []


@pytest.mark.parametrize(
    "planted",
    [
        "from . import build\n",
        "from .build import build\n",
        "def f():\n    from .build import build\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .build import build\n",
        "import synthshards.pipelines.build\n",
        "from importlib import import_module\nbuild = import_module('synthshards.pipelines.build')\n",
        "from importlib import import_module\nbuild = import_module('.build', __package__)\n",
    ],
)
def test_a_planted_circle_is_found(planted: str) -> None:
    found = circle({**SOURCES, "pipelines/plan.py": SOURCES["pipelines/plan.py"] + planted})
    assert {"synthshards.pipelines.plan", "synthshards.pipelines.build"} <= set(found)


def test_a_circle_through_a_public_name_is_found() -> None:
    planted = "def f():\n    from . import open_dataset\n"
    found = circle({**SOURCES, "synthshards/digest.py": SOURCES["synthshards/digest.py"] + planted})
    assert {"synthshards.digest", "synthshards.loaders.open_dataset"} <= set(found)


def up_calls(path: str, source: str) -> list[str]:
    """Strings of a file that name a floor above its own, as a module is named."""
    rank = FLOORS[path.split("/")[0]][0]
    above = "|".join(floor for floor, (r, _) in FLOORS.items() if r > rank)
    if not above or path in NAMES_BY_STRING:
        return []
    strings = (n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return [text for text in strings if re.fullmatch(rf"(synthshards)?\.+({above})\b\S*", text)]


@pytest.mark.parametrize("path", SOURCES)
def test_no_string_names_a_floor_above(path: str) -> None:
    assert up_calls(path, SOURCES[path]) == []


@pytest.mark.parametrize(
    "text",
    ["synthshards.loaders.stream", "synthshards.train", "synthshards.pipelines.", "synthshards.loaders.stream:Stream",
     ".loaders", "..pipelines.plan"],
)  # fmt: skip
def test_a_planted_up_call_is_found(text: str) -> None:
    assert up_calls("synthshards/tasks/task.py", f"def f():\n    return import_module({text!r})\n") == [text]


@pytest.mark.parametrize("floor", FLOORS)
def test_at_most_twelve_files_stand_at_the_root_of_a_floor(floor: str) -> None:
    assert len(list((ROOT / floor).glob("*.py"))) <= 12


def test_every_public_name_stands_in_its_module() -> None:
    pytest.importorskip("torch")
    import synthshards

    for name in synthshards.__all__:
        assert getattr(synthshards, name).__name__ == name

"""The public door: every name is listed and loaded when used; the core works where torch cannot be imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PACKAGE

import synthshards

#: Every task, both ways of naming it, a build, its proof, and rows by index: the core's work.
CORE = """
import sys
from importlib.abc import MetaPathFinder

class NoTorch(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "hydra", "omegaconf", "ray", "wandb"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoTorch())
from synthshards import DataError, DepoTask, HealWarning, RaggedBatch, SynthshardsError, Task, UsageError, make_task
from synthshards.pipelines.build import build
from synthshards.pipelines.overlap import overlap
from synthshards.pipelines.plan import make_plan
from synthshards.pipelines.reproduce import reproduce
from synthshards.pipelines.verify import verify

task = make_task("depo1-225", N=9)
assert isinstance(task, DepoTask) and isinstance(task, Task)
assert task.validate_example(task.example(0, "train", 3))
assert isinstance(task.batch(0, "train", 0, 5), RaggedBatch)
build(make_plan(task, examples=20), "a")
assert verify("a", rederive=True).rederived == 20
reproduce("a", "b", format="arrow")
assert overlap("a", "b").shared == 20
try:
    task.iterable(0)
except UsageError as error:
    print(error)
from synthshards import cli
for command in (["inspect", "depo", "--show", "1"], ["info", "a"], ["tasks"], ["verify", "a"], ["overlap", "a", "b"]):
    sys.argv = ["synthshards", *command]
    try:
        cli.main()
    except SystemExit as end:
        print(command[0], end.code)
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"torch", "transformers", "hydra", "ray", "wandb"}
"""


def fresh(code: str, folder: Path | None = None) -> str:
    """What `code` prints in a new Python."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_public_name_loads() -> None:
    pytest.importorskip("torch")
    assert sorted(synthshards.__all__) == synthshards.__all__
    for name in synthshards.__all__:
        value = getattr(synthshards, name)
        assert value.__name__ == name
        assert value.__module__.startswith("synthshards.")
        assert value.__doc__


def test_the_lists_of_names_agree() -> None:
    """`__all__`, the table that loads them, and what type checkers see are one list."""
    assert set(synthshards._PUBLIC) == set(synthshards.__all__)
    assert set(synthshards.__all__) <= set(dir(synthshards))
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: node.module
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name == alias.asname
    }
    assert seen == synthshards._PUBLIC


def test_what_errors_are() -> None:
    for name in ("DataError", "UsageError"):
        assert issubclass(getattr(synthshards, name), synthshards.SynthshardsError)
    assert issubclass(synthshards.SynthshardsError, ValueError)
    assert issubclass(synthshards.HealWarning, UserWarning)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'synthshards' has no attribute 'nonsense'"):
        synthshards.nonsense  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        exec("from synthshards import nonsense")


@pytest.mark.parametrize("name", [None, *synthshards.__all__])
def test_a_name_loads_no_more_than_it_needs(name: str | None) -> None:
    """`import synthshards` costs nothing; errors and the batch cost no compiler; nothing in the core costs torch."""
    if name in ("open_dataset", "TaskIterable"):
        pytest.importorskip("torch")
    use = f"synthshards.{name}" if name else "None"
    loaded = set(fresh(f"import sys, synthshards; {use}; print(*sys.modules)").split())
    assert ("torch" in loaded) == (name in ("TaskIterable", "open_dataset"))
    if name is None:
        assert not loaded & {"numpy", "numba", "pyarrow", "click", "msgspec"}
        assert {module for module in loaded if module.startswith("synthshards")} == {"synthshards"}
    if name in ("DataError", "HealWarning", "RaggedBatch", "SynthshardsError", "UsageError"):
        assert not loaded & {"numba", "pyarrow"}


def test_the_core_without_torch(tmp_path: Path) -> None:
    out = fresh(CORE, tmp_path)
    assert "iterable() needs torch; install it with: pip install 'synthshards[torch]'" in out
    for words in ("inspect 0", "info 0", "tasks 0", "verify 0", "overlap 1"):
        assert f"{words}\n" in out

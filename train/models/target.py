"""What `model.target` names: a function or class of the user's, in a module or a file, and the digest of its source.

A module is looked for in the folder one stands in before all others. Nothing is written beside it: no bytecode.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.machinery import PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from synthshards.errors import UsageError, nearest

from ..loop.failures import users_code

_LEGAL = "legal: module:function or path/to/file.py:function"
#: The folder that a command was started in, where it is not the one it runs in.
STARTED_IN: ContextVar[Path | None] = ContextVar("STARTED_IN", default=None)
#: The digests of the sources that were run, by the name of their module: what has changed since is run again.
_RUN: dict[str, str] = {}


def load_target(target: str, where: str) -> tuple[Callable[..., Any], str]:
    """What a target names, and the hex SHA-256 of its source file.

    Args:
        target: ``my_models:build`` or ``path/to/file.py:build``, relative to the folder one stands in.
        where: the setting, as ``model.target``.

    Raises:
        UsageError: there is no such file, module or function, or it fails when it is run.
    """
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise UsageError(f"{where}={target!r} is not legal; {_LEGAL}")
    with standing_here(), users_code(f"{where}={target}"):
        module = _of_file(place, where) if place.endswith(".py") else _of_name(place, where)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        what = "no function" if found is None else "no function, but a value,"
        raise UsageError(f"{where}={target}: {place} has {what} {name!r}{nearest(name, functions)}; {_LEGAL}")
    return found, _RUN[module.__name__]


@contextmanager
def standing_here() -> Iterator[None]:
    """Imports find what lies in the folder one stands in, then and later, and leave no bytecode there."""
    here, before = str(_here()), sys.dont_write_bytecode
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _here() -> Path:
    return STARTED_IN.get() or Path.cwd()


def _of_file(place: str, where: str) -> ModuleType:
    """The module of a source file; those beside it can be imported, as from a script."""
    path = _here() / Path(place).expanduser()
    if not path.is_file():
        others = [one.name for one in path.parent.glob("*.py")]
        raise UsageError(f"{where}: no file {place!r}{nearest(path.name, others)}; {_LEGAL}")
    source = path.read_bytes()
    digest = hashlib.sha256(source).hexdigest()
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if _RUN.get(name) == digest:
        return sys.modules[name]
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = spec_from_file_location(name, path)
    assert spec is not None, "a file that ends in .py has a loader"
    module = sys.modules[name] = module_from_spec(spec)  # dataclasses and pickles look for their module there
    exec(compile(source, str(path), "exec"), vars(module))
    _RUN[name] = digest
    return module


def _of_name(place: str, where: str) -> ModuleType:
    """The module of a dotted name."""
    top = place.partition(".")[0]
    known = sys.modules.get(place)
    if known is not None and place in _RUN and (_RUN[place] != _digest(known) or _moved(top)):
        for name in [one for one in sys.modules if one == top or one.startswith(f"{top}.")]:
            del sys.modules[name]
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise  # what it imports is missing
        others = [one.stem for one in _here().glob("*.py")]
        raise UsageError(
            f"{where}: no module {error.name!r} here or installed{nearest(top, others)}; {_LEGAL}"
        ) from None
    _RUN[place] = _digest(module)
    return module


def _digest(module: ModuleType) -> str:
    """The digest of a module's source as it is now; of nothing for one without, as those that are compiled."""
    path = Path(module.__file__ or "")
    return hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest()


def _moved(top: str) -> bool:
    """Whether a package that was imported from elsewhere lies in the folder one stands in."""
    here = PathFinder.find_spec(top, [str(_here())])
    return here is not None and here.origin != getattr(sys.modules.get(top), "__file__", None)

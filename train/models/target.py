"""What `model.target` names: a function or class of the user's, in a module or a file, and the digest of its source.

A module is looked for in the folder one stands in before all others. Nothing is written beside it: no bytecode.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from synthshards.errors import SynthshardsError, UsageError, cut, first_line, nearest

_LEGAL = "legal: module:function or path/to/file.py:function"
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
    here, before = str(Path.cwd()), sys.dont_write_bytecode
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


@contextmanager
def users_code(where: str) -> Iterator[None]:
    """What code of the user's raises, as one line that says where it was raised.

    Raises:
        UsageError: it raised anything but what is the machine's fault (memory, a device) or ours.
    """
    try:
        yield
    except (SynthshardsError, MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{where}: {raised(error)}") from error


def raised(error: BaseException) -> str:
    """An error in one line: its class, what it says, and the line of the user's code that it came from."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    said = cut(first_line(error), 300)
    kind = "" if said == type(error).__name__ else f"{type(error).__name__}: "
    return f"{kind}{said}{users_line(error) or ''}"


def users_line(error: BaseException) -> str | None:
    """`` (file, line n)``, the innermost line of a user's own code that an error came through, None without any."""
    own, others = Path(__file__).parents[2], (sys.prefix, sys.base_prefix, "<")
    frames = [
        f"{frame.filename}, line {frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(others) and not Path(frame.filename).is_relative_to(own)
    ]
    return f" ({frames[-1]})" if frames else None


def _of_file(place: str, where: str) -> ModuleType:
    """The module of a source file; those beside it can be imported, as from a script."""
    path = Path(place).expanduser().absolute()
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
    if place in _RUN and _RUN[place] != _digest(sys.modules[place]) or (place in _RUN and _moved(top)):
        for name in [one for one in sys.modules if one == top or one.startswith(f"{top}.")]:
            del sys.modules[name]
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise  # what it imports is missing
        others = [one.stem for one in Path.cwd().glob("*.py")]
        raise UsageError(f"{where}: no module {error.name!r} here or installed{nearest(top, others)}; {_LEGAL}") from None
    _RUN[place] = _digest(module)
    return module


def _digest(module: ModuleType) -> str:
    """The digest of a module's source as it is now; of nothing for one without, as those that are compiled."""
    path = Path(module.__file__ or "")
    return hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest()


def _moved(top: str) -> bool:
    """Whether a package that was imported from elsewhere lies in the folder one stands in."""
    here = importlib.machinery.PathFinder.find_spec(top, [str(Path.cwd())])
    return here is not None and here.origin != getattr(sys.modules.get(top), "__file__", None)

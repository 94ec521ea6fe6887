"""`@kernel`: Numba compilation whose on-disk cache can never serve stale code.

Numba invalidates a cached function when the function's *own* file changes. A generator kernel inlines helpers from
other files, so an edit of `rng.py` alone would leave cached callers drawing the old rows. Here every cache entry is
stamped with a digest of every source file of the core, of the kernel's own floor and of the floors between, sub-folders
included, and lives in a folder of that name. An entry that cannot be read (truncated by a full disk, say) is deleted
and compiled again.

The cache lies under ``$NUMBA_CACHE_DIR``, else under the user's cache folder (see `cache_root`).
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import caching

from ..errors import UsageError

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: The floors above the core, from the lowest up. In a checkout they lie beside it; installed, below it.
_FLOORS = ("pipelines", "loaders", "train")

JIT_DISABLED: bool = bool(numba.config.DISABLE_JIT)


def cache_root() -> Path | None:
    """The cache folder of this package: ``$SYNTHSHARDS_CACHE``, else ``synthshards`` in the user's cache folder.

    None where the user has no home: then nothing is cached.

    Raises:
        UsageError: SYNTHSHARDS_CACHE names no local folder.
    """
    if explicit := _folder_in("SYNTHSHARDS_CACHE"):
        return explicit
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if sys.platform != "darwin" and xdg.is_absolute():  # its specification: ignore what is relative
        return xdg / "synthshards"
    try:
        home = Path.home()
    except RuntimeError:  # no HOME, and a user without a name, as in a container
        return None
    return home.joinpath(*(("Library", "Caches") if sys.platform == "darwin" else (".cache",)), "synthshards")


def _folder_in(variable: str) -> Path | None:
    """The folder that an environment variable names, None where it is empty or not set."""
    text = os.environ.get(variable)
    return _absolute(variable, text) if text else None


@functools.cache  # so that os.chdir does not move it
def _absolute(variable: str, text: str) -> Path:
    try:
        if "://" in text:
            raise ValueError("is a URL")
        return Path(text).expanduser().absolute()
    except (ValueError, RuntimeError, OSError) as error:  # "~nobody/x"; a relative one in a folder that was deleted
        raise UsageError(f"{variable}={text!r}: {error}; legal: a local folder") from None


@functools.cache
def sources_digest(root: Path) -> str:
    """Hex digest over every Python file below `root`, in sub-folders too: their names and their bytes.

    All of them, not just those that define kernels: a kernel also holds the constants that it found in other modules
    when it was compiled.
    """
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _floor_of(file: Path) -> Path | None:
    """The outermost package folder that holds a file; None where it lies in no package."""
    root = None
    for folder in file.parents:
        if not (folder / "__init__.py").is_file():
            break
        root = folder
    return root


def _source_roots(file: Path) -> list[Path]:
    """The folders of all that a kernel in `file` may inline, or hold a constant of: the core's and its package's."""
    core = Path(__file__).parent.parent
    floor = _floor_of(file)
    if floor is None or floor == core:
        return [core]
    if floor.parent == core.parent and floor.name in _FLOORS:
        return [core, *(core.parent / name for name in _FLOORS[: _FLOORS.index(floor.name) + 1])]
    return [core, floor]


class _Locator(caching._CacheLocator):  # type: ignore[misc]
    """Names the folder of a function's cache files and the stamp that makes them valid."""

    def __init__(self, py_func: Any, py_file: str) -> None:
        own = Path(py_file)
        self._py_file = py_file
        digest = hashlib.sha256("".join(map(sources_digest, _source_roots(own))).encode())
        if _floor_of(own) is None and own.is_file():  # somebody's own: what it may import without a package lies beside
            for path in sorted(own.parent.glob("*.py")):
                digest.update(path.read_bytes())
        module = py_func.__module__  # files of one name, as the tasks' task.py, must not share entries
        digest.update(module.encode())
        self._stamp = digest.hexdigest()
        self._line = py_func.__code__.co_firstlineno
        root = cache_root()
        base = _folder_in("NUMBA_CACHE_DIR") or (root and root / "kernels")
        if base is None:
            raise FileNotFoundError("no folder to cache in")
        self._path = base / f"{module}-{self._stamp[:20]}"

    def get_cache_path(self) -> str:
        return str(self._path)

    def get_source_stamp(self) -> str:
        return self._stamp

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> _Locator:
        return cls(py_func, py_file)


@contextlib.contextmanager
def _collector_at_rest() -> Iterator[None]:
    """No garbage collection meanwhile: the first load makes some 65,000 objects that stay, and looking through
    them again and again took a third of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _spare_scipy() -> None:
    """Load Numba's array functions without `scipy.linalg`, which they import only to learn whether it is there.

    Where SciPy is installed, that took a quarter of the start of every command, and no kernel here needs it. Whether
    SciPy is there is found out all the same; a function that needs it (a user's own, with np.dot) imports it when it is
    compiled.
    """
    if "numba.np.arraymath" in sys.modules or "scipy.linalg" in sys.modules:
        return
    from numba.np import linalg

    def ensure_blas() -> None:
        if importlib.util.find_spec("scipy") is None:
            raise ImportError("no SciPy")

    real, linalg.ensure_blas = linalg.ensure_blas, ensure_blas
    try:
        importlib.import_module("numba.np.arraymath").ensure_blas = real  # type: ignore[attr-defined]
    finally:
        linalg.ensure_blas = real


class _Impl(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_Locator,)


class _KernelCache(caching.FunctionCache):  # type: ignore[misc]
    _impl_class = _Impl

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            with _collector_at_rest():
                _spare_scipy()
                compiled = super().load_overload(sig, target_context)
            # Two processes that fill an empty cache at once can leave an index that names the other's file.
            if compiled is None or compiled.signature.args == tuple(sig):
                return compiled
        except Exception:  # any unreadable entry: delete it, compile again
            pass
        with contextlib.suppress(OSError):  # in a read-only folder it stays, and is passed over each time
            for entry in Path(self.cache_path).glob(f"{self._impl.filename_base}.*"):
                entry.unlink(missing_ok=True)
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):  # a read-only or full cache folder costs time, never rows
            super().save_overload(sig, data)


def kernel(fn: _Function) -> _Function:
    """Compile `fn` with Numba: GIL released, cached, integer division without Python's zero checks."""
    if JIT_DISABLED:
        return fn
    dispatcher: Any = numba.njit(nogil=True, error_model="numpy")(fn)
    with contextlib.suppress(OSError, RuntimeError):  # nowhere to cache: compile in every process
        dispatcher._cache = _KernelCache(fn)
    return dispatcher  # type: ignore[no-any-return]


def helper(fn: _Function) -> _Function:
    """Compile `fn` to be inlined into the kernels that call it. Never cached on its own."""
    if JIT_DISABLED:
        return fn
    return numba.njit(nogil=True, error_model="numpy", forceinline=True)(fn)  # type: ignore[no-any-return]

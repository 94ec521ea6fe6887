"""What a command does not load before its work: time that every run would pay."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import python

#: Runs a kernel from the cache, then a user's own functions, which need SciPy's linear algebra.
SPARED = """
import sys
import numba, numpy as np
from synthshards import make_task
make_task("depo1-225").take(0, 1)
for module in (sys.modules["numba.np.arraymath"], sys.modules["numba.np.linalg"]):
    assert module.ensure_blas.__module__ == "numba.np.linalg", "Numba's own function is not back in its place"
assert "scipy.linalg" not in sys.modules, "a kernel has loaded scipy.linalg"
dot, cov, inv = (numba.njit(f) for f in (lambda a: np.dot(a, a), lambda a: np.cov(a), lambda a: np.linalg.inv(a)))
a = np.arange(9.0).reshape(3, 3) + np.eye(3)
assert np.allclose(dot(a), a @ a)
assert np.allclose(cov(a), np.cov(a))
assert np.allclose(inv(a), np.linalg.inv(a))
assert "scipy.linalg" in sys.modules
"""
#: The collector rests during the load, and only then; who has switched it off finds it off.
COLLECTOR = """
import gc, sys
from numba.core import caching
from synthshards import make_task
load, during = caching.FunctionCache.load_overload, []
caching.FunctionCache.load_overload = lambda *args: (during.append(gc.isenabled()), load(*args))[1]
make_task("depo1-225").take(0, 1)
assert gc.isenabled()
gc.disable()
make_task("depo2-75", bos_token_id=70_000).take(0, 1)
assert not gc.isenabled()
print(len(during), any(during))
"""
#: The same where SciPy is not to be found: Numba must know, and kernels must run.
WITHOUT = """
import sys
sys.modules["scipy"] = None
from synthshards import make_task
make_task("depo1-225").take(0, 1)
import numba.np.arraymath
assert not numba.np.arraymath._HAVE_BLAS
"""
#: A command loads NumPy without threads of its own, and leaves the environment as it was.
THREADS = """
import os, sys
from pathlib import Path
from synthshards.cli import cli
assert "numpy" not in sys.modules
cli.main(["tasks", "mano"], standalone_mode=False)
assert "numpy" in sys.modules
print(len(list(Path("/proc/self/task").iterdir())), os.environ.get("OPENBLAS_NUM_THREADS"))
"""


def test_kernels_run_without_loading_scipy_and_numbas_linear_algebra_still_works() -> None:
    pytest.importorskip("scipy")
    python("-c", SPARED)


def test_kernels_run_where_there_is_no_scipy() -> None:
    python("-c", WITHOUT)


def test_the_collector_rests_while_kernels_are_loaded_and_is_left_as_it_was() -> None:
    loads, enabled = python("-c", COLLECTOR).stdout.split()
    assert int(loads) > 2
    assert enabled == "False"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to count threads")
def test_a_command_starts_no_threads_for_linear_algebra() -> None:
    threads, left = python("-c", THREADS, OPENBLAS_NUM_THREADS="").stdout.split()[-2:]
    wanted, kept = python("-c", THREADS, OPENBLAS_NUM_THREADS="1").stdout.split()[-2:]
    assert (threads, left, kept) == (wanted, "None", "1")

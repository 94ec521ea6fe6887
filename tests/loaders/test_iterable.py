"""`task.iterable`: every row once, whatever the number of DataLoader workers; as tensors, equal to `iter_examples`."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from helpers import plain, python

from synthshards.catalog import make_task
from synthshards.errors import UsageError
from synthshards.tasks.depo import DepoTask

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader, IterableDataset  # noqa: E402

TASK = make_task("depo", N=9, K=3)
#: torch warns where there are more workers than cores.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def key(row: dict[str, Any]) -> str:
    """A row in a form that can be counted."""
    return repr(sorted(plain(row).items()))


def loaded(rows: Any, workers: int, **options: Any) -> Iterable[dict[str, Any]]:
    return DataLoader(rows, batch_size=None, num_workers=workers, **options)


def want(count: int) -> list[str]:
    return [key(row) for row in TASK.iter_examples(5, count)]


@pytest.mark.parametrize("count", [0, 1, 5, 1024, 2500])
def test_in_order_in_one_process(count: int) -> None:
    rows = TASK.iterable(5, count)
    assert isinstance(rows, IterableDataset)
    assert [key(row) for row in rows] == want(count)
    assert [key(row) for row in rows] == want(count), "and again"
    assert [key(row) for row in loaded(rows, 0)] == want(count)


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 2500])
def test_every_row_once_under_workers(workers: int, count: int) -> None:
    """Also where there are more workers than rows."""
    found = [key(row) for row in loaded(TASK.iterable(5, count), workers)]
    if workers == 1:
        assert found == want(count)
    assert Counter(found) == Counter(want(count))


def test_no_worker_idles_over_few_rows() -> None:
    """2,500 rows are three blocks of 1,024, yet three workers have as good as equal parts."""

    def part(worker: int) -> int:
        info = type("Info", (), {"id": worker, "num_workers": 3})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("synthshards.loaders.iterable.get_worker_info", lambda: info)
            return len(list(TASK.iterable(5, 2500)))

    assert sorted(part(worker) for worker in range(3)) == [832, 834, 834]


def test_endless_unless_told_otherwise() -> None:
    first = [key(row) for row in itertools.islice(iter(TASK.iterable(5)), 3000)]
    assert first == want(3000)
    found = Counter(key(row) for row in itertools.islice(loaded(TASK.iterable(5), 2), 2600))
    assert max(found.values()) == 1, "no row twice, though each worker is in its second block"


def test_the_whole_of_a_finite_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DepoTask, "num_examples", 70)
    assert [key(row) for row in TASK.iterable(5)] == want(70)
    assert len(list(TASK.iterable(5, 60))) == 60
    with pytest.raises(UsageError, match=r"legal: 0\.\.69"):
        TASK.iterable(5, 71)


@pytest.mark.parametrize("workers", [0, 2])
def test_tensors(workers: int) -> None:
    for row, twin in zip(loaded(TASK.iterable(5, 1), workers), TASK.iter_examples(5, 1), strict=True):
        assert list(row) == ["input_ids", "loss_mask", "labels", "n", "queries", "ks"]
        assert row["input_ids"].dtype == torch.int64
        assert row["labels"].dtype == torch.int64
        assert row["loss_mask"].dtype == torch.bool
        assert (type(row["n"]), type(row["queries"]), type(row["ks"])) == (int, int, list)
        assert plain(row) == plain(twin)
        assert (row["labels"][~row["loss_mask"]] == -100).all()


def test_a_row_stays_what_it_is() -> None:
    """Rows do not share memory with the buffers in which the next ones are made."""
    rows = list(TASK.iterable(5, 1500))
    rows[0]["input_ids"][:] = -1
    assert [key(row) for row in rows[1:]] == want(1500)[1:]


def test_it_can_be_pickled_before_and_after_use() -> None:
    rows = TASK.iterable(5, 30)
    again = pickle.loads(pickle.dumps(rows))
    assert [key(row) for row in again] == [key(row) for row in rows] == want(30)
    assert [key(row) for row in pickle.loads(pickle.dumps(again))] == want(30)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_started_from_nothing(method: str) -> None:
    """They get the task by pickling and compile or load its kernels themselves."""
    found = [key(row) for row in loaded(TASK.iterable(5, 40), 2, multiprocessing_context=method)]
    assert Counter(found) == Counter(want(40))


@pytest.mark.parametrize(
    ("args", "words"),
    [((-1,), "seed=-1"), ((2**64,), "seed="), ((1.0,), "seed=1.0"), ((0, -1), "legal: 0..")],
)
def test_illegal_arguments_are_refused_at_once(args: tuple[Any, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words.replace(".", r"\.")):
        TASK.iterable(*args)


def test_torch_is_loaded_only_when_called() -> None:
    code = "import sys; from synthshards import make_task; t = make_task('depo'); t.example(0, 'train', 0); {}"
    assert python("-c", code.format("print('torch' in sys.modules)")).stdout.strip() == "False"
    done = python("-c", code.format("t.iterable(0); print('torch' in sys.modules)"))
    assert done.stdout.strip() == "True"


def test_torch_absent() -> None:
    code = "import sys; sys.modules['torch'] = None; from synthshards import make_task; make_task('depo').iterable(0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stderr.splitlines()[-1] == (
        "synthshards.errors.UsageError: iterable() needs torch; install it with: pip install 'synthshards[torch]'"
    )

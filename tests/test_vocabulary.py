"""Dense ids and word-level tokenizers: exact both ways, for every preset of every token task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from synthshards.catalog import make_task, preset_names
from synthshards.errors import UsageError
from synthshards.tasks.task import Task
from synthshards.vocabulary import Vocabulary, write_tokenizer

TOKEN_PRESETS = [name for name in preset_names() if "input_ids" in make_task(name).columns]


@pytest.mark.parametrize("preset", TOKEN_PRESETS)
def test_every_id_of_every_row_has_one_dense_number(preset: str) -> None:
    task = make_task(preset)
    vocabulary = Vocabulary(task)
    assert vocabulary.to_dense(vocabulary.ids).tolist() == list(range(len(vocabulary)))
    batch = task.batch(0, "train", 0, 200)
    dense = vocabulary.to_dense(batch.input_ids)
    assert dense.max() < len(vocabulary)
    assert np.array_equal(vocabulary.from_dense(dense), batch.input_ids)
    row = task.example(0, "train", 0)
    assert np.array_equal(vocabulary.to_dense(row["labels"]) == -100, row["labels"] == -100)


def test_rows_use_nearly_all_ids_so_the_view_is_dense() -> None:
    for preset in TOKEN_PRESETS:
        task = make_task(preset)
        vocabulary = Vocabulary(task)
        seen = np.unique(vocabulary.to_dense(task.batch(0, "train", 0, 2000).input_ids))
        assert len(seen) >= len(vocabulary) - 4, f"{preset}: ids {set(vocabulary.ids) - set(vocabulary.ids[seen])}"


def test_strange_ids_are_refused() -> None:
    vocabulary = Vocabulary(make_task("depo"))
    with pytest.raises(UsageError, match="no row holds the id 101"):
        vocabulary.to_dense([0, 101])
    with pytest.raises(UsageError, match="no row holds the id 99999"):
        vocabulary.to_dense([99999])
    with pytest.raises(UsageError, match=r"dense id 110; legal: 0\.\.109"):
        vocabulary.from_dense([110])
    with pytest.raises(UsageError, match="dense id -1"):
        vocabulary.from_dense([-1])


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("preset", TOKEN_PRESETS)
def test_tokenizer_speaks_names(preset: str, dense: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    task: Task = make_task(preset)
    write_tokenizer(task, tmp_path / "tokenizer.json", dense=dense)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    ids = task.example(0, "train", 1)["input_ids"]
    text = " ".join(task.decode(ids))
    wanted = Vocabulary(task).to_dense(ids) if dense else ids
    assert tokenizer(text)["input_ids"] == wanted.tolist()
    assert tokenizer.decode(wanted, clean_up_tokenization_spaces=False) == text
    assert len(tokenizer) == len(Vocabulary(task))

"""Dense ids and word-level tokenizers: exact both ways, for every preset of every token task; Capo's: test_subwords."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from synthshards.catalog import TASKS, make_task, preset_names
from synthshards.cli import cli
from synthshards.errors import UsageError
from synthshards.inspect import load_tokenizer
from synthshards.tasks.task import Task
from synthshards.tokenizer import Vocabulary, write_tokenizer

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


@pytest.mark.parametrize("name", TASKS)
def test_the_command_writes_the_tokenizer_of_every_task(name: str, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    file = tmp_path / "tokenizer.json"
    result = CliRunner().invoke(cli, ["tasks", name, "--tokenizer", str(file)])
    assert (result.exit_code, result.output) == (0, f"wrote {file}\n")
    write_tokenizer(make_task(name), tmp_path / "again.json")
    assert file.read_bytes() == (tmp_path / "again.json").read_bytes()
    assert tokenizers.Tokenizer.from_file(str(file)).get_vocab_size() > 2


def test_the_command_takes_parameters_and_dense_ids(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    CliRunner().invoke(cli, ["tasks", "depo", "K=9", "--tokenizer", str(file), "--dense"], catch_exceptions=False)
    vocab = json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"]
    assert sorted(vocab.values()) == list(range(111))
    assert "<query_9>" in vocab


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--tokenizer", "FILE"], "--tokenizer: whose? legal: a task or preset name before it"),
        (["depo", "--dense"], "tasks: --dense has no effect here; legal: with --tokenizer FILE"),
        (["depo", "K=4"], "tasks: K=4 has no effect here; legal: with --tokenizer FILE"),
        (["depo", "k=4", "--tokenizer", "FILE"], "depo: no parameter 'k'"),
    ],
)
def test_the_command_refuses_what_says_nothing(args: list[str], line: str, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    given = [str(file) if arg == "FILE" else arg for arg in args]
    error = CliRunner().invoke(cli, ["tasks", *given]).exception
    assert isinstance(error, UsageError)
    assert str(error).startswith(line)
    assert not file.exists()


def test_inspect_takes_the_file(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    for name in ("depo", "capo"):
        file = tmp_path / f"{name}.json"
        write_tokenizer(make_task(name), file)
        names = load_tokenizer(str(file)).names
        assert names([0, 999_999]) == ["<bos>", "<unknown_999999>"]

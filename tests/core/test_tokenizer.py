"""Dense ids and word-level tokenizers of token tasks, exact both ways for every preset.

Capo's byte pairs: exact both ways in all forms, the same bytes everywhere, values in whole tokens.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from synthshards.catalog import TASKS, make_task, preset_names
from synthshards.cli import cli
from synthshards.errors import UsageError
from synthshards.inspect import load_tokenizer
from synthshards.tasks.capo.biography import token_spans
from synthshards.tasks.capo.people import load_pools
from synthshards.tasks.task import Row, Task
from synthshards.tokenizer import SIZE, SPECIALS, Vocabulary, write_tokenizer

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


def test_a_file_is_replaced_as_a_whole_and_a_pipe_written_to(tmp_path: Path) -> None:
    file, reader_of_old, pipe = tmp_path / "tokenizer.json", tmp_path / "old.json", tmp_path / "pipe"
    file.write_text("old")
    os.link(file, reader_of_old)
    write_tokenizer(make_task("mano"), file)
    assert reader_of_old.read_text() == "old"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as threads:
        text = threads.submit(pipe.read_text)
        write_tokenizer(make_task("mano"), pipe)
        assert text.result() == file.read_text()
    assert pipe.is_fifo()


# Byte pairs ----------------------------------------------------------------------------------------------------------

FORMS: list[dict[str, Any]] = [
    {},
    {"form": "qa"},
    {"form": "biod"},
    {"form": "biod", "T": 40_000, "L": 3, "C": 1, "fullname": True, "they": True},
    {"fullname": True, "they": True},
    {"reverse_md": True, "couple": True},
]


@pytest.fixture(scope="module")
def capo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tokenizers")
    file = tmp_path_factory.mktemp("capo") / "tokenizer.json"
    write_tokenizer(make_task("capo"), file)
    return file


@pytest.fixture(scope="module")
def capo_tokenizer(capo_file: Path) -> Any:
    return pytest.importorskip("transformers").PreTrainedTokenizerFast(tokenizer_file=str(capo_file))


def rows(params: dict[str, Any]) -> list[Row]:
    return make_task("capo", params).take(0, 300)


@pytest.mark.parametrize("params", FORMS, ids=str)
def test_texts_of_every_form_come_back_exactly(params: dict[str, Any], capo_tokenizer: Any) -> None:
    texts = [row["text"] for row in rows(params)]
    ids = capo_tokenizer(texts)["input_ids"]
    assert capo_tokenizer.batch_decode(ids, clean_up_tokenization_spaces=False) == texts
    assert max(max(row) for row in ids) < SIZE
    assert min(min(row) for row in ids) >= len(SPECIALS), "a text holds no special"


@pytest.mark.parametrize("params", FORMS, ids=str)
def test_a_value_is_whole_tokens(params: dict[str, Any], capo_tokenizer: Any) -> None:
    asked = 0
    for row in rows(params):
        text, spans = row["text"], row["spans"]
        encoded = capo_tokenizer(text, return_offsets_mapping=True)
        offsets = encoded["offset_mapping"]
        assert "".join(text[start:stop] for start, stop in offsets) == text.replace(" ", ""), (
            "a token leaves its space out"
        )
        found = token_spans(spans, offsets)
        assert len(found) == len(spans)
        for start, stop, first, last in zip(spans[::2], spans[1::2], found[::2], found[1::2], strict=True):
            if start < 0:
                assert (first, last) == (-1, -1)
                continue
            asked += 1
            assert (offsets[first][0], offsets[last - 1][1]) == (start, stop), text[start:stop]
            assert capo_tokenizer.decode(encoded["input_ids"][first:last]).strip() == text[start:stop]
    assert asked >= 2 * 300


def test_any_other_text_comes_back_too(capo_tokenizer: Any) -> None:
    for text in ("Zoë Ångström-O'Neil lives in 東京 🙂\n\tnow", "  two spaces ", "".join(map(chr, range(32, 127)))):
        assert capo_tokenizer.decode(capo_tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False) == text


def test_specials_are_known(capo_tokenizer: Any) -> None:
    assert capo_tokenizer.convert_tokens_to_ids(list(SPECIALS)) == [0, 1, 2]
    assert capo_tokenizer("Ann<eos>Bob<pad>")["input_ids"].count(1) == 1
    assert capo_tokenizer.decode([0, 1, 2, 2], skip_special_tokens=True) == ""
    assert len(capo_tokenizer) == SIZE


def test_words_are_those_of_the_pools(capo_tokenizer: Any) -> None:
    """A tokenizer that had not seen the pools and templates would cut them into two or three times as many tokens."""
    biographies = [row["text"] for row in rows({})]
    tokens = sum(map(len, capo_tokenizer(biographies)["input_ids"]))
    assert tokens < 1.4 * sum(len(text.split()) for text in biographies)
    for major in load_pools().majors[:20]:
        assert len(capo_tokenizer(f" {major}")["input_ids"]) <= 4, major


def test_one_tokenizer_for_all_of_capo(capo_file: Path, tmp_path: Path) -> None:
    for params in FORMS:
        write_tokenizer(make_task("capo-2m", params), tmp_path / "again.json", dense=True)
        assert (tmp_path / "again.json").read_bytes() == capo_file.read_bytes()


def test_another_process_writes_the_same_bytes(capo_file: Path, tmp_path: Path) -> None:
    for threads, seed in (("1", "1"), ("4", "2")):
        out = tmp_path / threads
        command = [sys.executable, "-m", "synthshards", "tasks", "capo", "--tokenizer", str(out)]
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": seed}
        subprocess.run(command, env=environment, check=True, timeout=120, stdout=subprocess.DEVNULL)
        assert out.read_bytes() == capo_file.read_bytes()


def test_without_the_library_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UsageError, match=r"needs tokenizers; install it with: pip install 'synthshards\[tokenizers\]'"):
        write_tokenizer(make_task("capo"), tmp_path / "none.json")
    assert not (tmp_path / "none.json").exists()
    write_tokenizer(make_task("depo"), tmp_path / "depo.json")
    assert json.loads((tmp_path / "depo.json").read_text())["model"]["type"] == "WordLevel"

"""Capo's tokenizer: exact in both directions in all forms, the same bytes everywhere, values in whole tokens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from synthshards.catalog import make_task
from synthshards.errors import UsageError
from synthshards.subwords import SIZE, SPECIALS
from synthshards.tasks.capo.biography import token_spans
from synthshards.tasks.capo.people import load_pools
from synthshards.tasks.task import Row
from synthshards.tokenizer import write_tokenizer

FORMS: list[dict[str, Any]] = [
    {},
    {"form": "qa"},
    {"form": "biod"},
    {"form": "biod", "T": 40_000, "L": 3, "C": 1, "fullname": True, "they": True},
    {"fullname": True, "they": True},
    {"reverse_md": True, "couple": True},
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tokenizers")
    file = tmp_path_factory.mktemp("capo") / "tokenizer.json"
    write_tokenizer(make_task("capo"), file)
    return file


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> Any:
    return pytest.importorskip("transformers").PreTrainedTokenizerFast(tokenizer_file=str(path))


def rows(params: dict[str, Any]) -> list[Row]:
    return make_task("capo", params).take(0, 300)


@pytest.mark.parametrize("params", FORMS, ids=str)
def test_texts_of_every_form_come_back_exactly(params: dict[str, Any], tokenizer: Any) -> None:
    texts = [row["text"] for row in rows(params)]
    ids = tokenizer(texts)["input_ids"]
    assert tokenizer.batch_decode(ids, clean_up_tokenization_spaces=False) == texts
    assert max(max(row) for row in ids) < SIZE
    assert min(min(row) for row in ids) >= len(SPECIALS), "a text holds no special"


@pytest.mark.parametrize("params", FORMS, ids=str)
def test_a_value_is_whole_tokens(params: dict[str, Any], tokenizer: Any) -> None:
    asked = 0
    for row in rows(params):
        text, spans = row["text"], row["spans"]
        encoded = tokenizer(text, return_offsets_mapping=True)
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
            assert tokenizer.decode(encoded["input_ids"][first:last]).strip() == text[start:stop]
    assert asked >= 2 * 300


def test_any_other_text_comes_back_too(tokenizer: Any) -> None:
    for text in ("Zoë Ångström-O'Neil lives in 東京 🙂\n\tnow", "  two spaces ", "".join(map(chr, range(32, 127)))):
        assert tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False) == text


def test_specials_are_known(tokenizer: Any) -> None:
    assert tokenizer.convert_tokens_to_ids(list(SPECIALS)) == [0, 1, 2]
    assert tokenizer("Ann<eos>Bob<pad>")["input_ids"].count(1) == 1
    assert tokenizer.decode([0, 1, 2, 2], skip_special_tokens=True) == ""
    assert len(tokenizer) == SIZE


def test_words_are_those_of_the_pools(tokenizer: Any) -> None:
    """A tokenizer that had not seen the pools and templates would cut them into two or three times as many tokens."""
    biographies = [row["text"] for row in rows({})]
    tokens = sum(map(len, tokenizer(biographies)["input_ids"]))
    assert tokens < 1.4 * sum(len(text.split()) for text in biographies)
    for major in load_pools().majors[:20]:
        assert len(tokenizer(f" {major}")["input_ids"]) <= 4, major


def test_one_tokenizer_for_all_of_capo(path: Path, tmp_path: Path) -> None:
    for params in FORMS:
        write_tokenizer(make_task("capo-2m", params), tmp_path / "again.json", dense=True)
        assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_another_process_writes_the_same_bytes(path: Path, tmp_path: Path) -> None:
    for threads, seed in (("1", "1"), ("4", "2")):
        out = tmp_path / threads
        command = [sys.executable, "-m", "synthshards", "tasks", "capo", "--tokenizer", str(out)]
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": seed}
        subprocess.run(command, env=environment, check=True, timeout=120, stdout=subprocess.DEVNULL)
        assert out.read_bytes() == path.read_bytes()


def test_without_the_library_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UsageError, match=r"needs tokenizers; install it with: pip install 'synthshards\[tokenizers\]'"):
        write_tokenizer(make_task("capo"), tmp_path / "none.json")
    assert not (tmp_path / "none.json").exists()
    write_tokenizer(make_task("depo"), tmp_path / "depo.json")
    assert json.loads((tmp_path / "depo.json").read_text())["model"]["type"] == "WordLevel"

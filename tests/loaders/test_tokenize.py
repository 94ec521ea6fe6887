"""Text rows through a tokenizer: its token rows, spans in tokens, windows of entries joined by an end of text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from loading import all_of, some_of
from small_datasets import make
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from synthshards import UsageError, make_task, open_dataset
from synthshards.loaders.batching.packing import MODES
from synthshards.loaders.sources.tokenize import TextTokens
from synthshards.tasks.capo.biography import SPANS
from synthshards.tokenizer import write_tokenizer

PARAMS = {"num_people": 40, "exposures": 30}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    where = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    write_tokenizer(make_task("capo"), where)
    return str(where)


@pytest.fixture(scope="module")
def tokenizer(path: str) -> Any:
    return PreTrainedTokenizerFast(tokenizer_file=path, eos_token="<eos>")


def capo(**options: Any) -> Any:
    return open_dataset("capo", **PARAMS, **options)


def test_rows_carry_ids_and_spans_in_tokens(tokenizer: Any) -> None:
    plain, ds = capo(), capo(tokenizer=tokenizer)
    for i in (0, 7, 1199):
        row, text = ds[i], plain[i]["text"]
        assert row["text"] == text
        assert row["input_ids"].tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
        assert row["labels"].tolist() == row["input_ids"].tolist()
        assert row["loss_mask"].all()
        for at in range(len(SPANS)):
            first, stop = row["spans"][2 * at : 2 * at + 2]
            value = text[slice(*plain[i]["spans"][2 * at : 2 * at + 2])]
            assert value in tokenizer.decode(row["input_ids"][first:stop])


def test_padded_batches_and_facts(tokenizer: Any) -> None:
    ds = capo(tokenizer=tokenizer)
    batch = next(iter(ds.batches(8, columns=["person_id", "spans", "birth_city"])))
    for r in range(8):
        row = ds[r]
        assert batch["input_ids"][r][batch["attention_mask"][r] == 1].tolist() == row["input_ids"].tolist()
        assert batch["person_id"][r] == row["person_id"]
        assert batch["spans"][r].tolist() == row["spans"]
        assert batch["birth_city"][r] == row["birth_city"]


@pytest.mark.parametrize("packing", MODES)
def test_windows_hold_entries_joined_by_eos(tokenizer: Any, packing: str) -> None:
    ds = capo()
    end = tokenizer.eos_token_id
    batches = all_of(ds.batches(4, packing=packing, seq_len=256, tokenizer=tokenizer))
    if packing == "concat":
        flat = [
            t
            for b in batches
            for w, a in zip(b["input_ids"], b["attention_mask"], strict=True)
            for t, on in zip(w, a, strict=True)
            if on
        ]
        texts = [ds[i]["text"] for i in range(len(ds))]
        expected = [t for text in texts for t in [*tokenizer(text, add_special_tokens=False)["input_ids"], end]]
        assert flat == expected
    for batch in batches[:-1]:
        for ids, segments in zip(batch["input_ids"], batch["segment_ids"], strict=True):
            borders = [i for i in range(1, 256) if segments[i] > segments[i - 1]]
            assert borders
            assert all(ids[i - 1] == end for i in borders)


def test_every_kind_of_tokenizer_gives_the_same_batches(path: str, tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "saved")
    options = {"packing": "concat", "seq_len": 256}
    expected = some_of(capo().batches(4, tokenizer=tokenizer, **options), 5)
    for other in (path, Path(path), Tokenizer.from_file(path), str(tmp_path / "saved")):
        assert some_of(capo(tokenizer=other).batches(4, **options), 5) == expected


@pytest.mark.parametrize("shuffle", [False, True])
def test_shards_and_threads_and_resume(tokenizer: Any, tmp_path: Path, shuffle: bool) -> None:
    out = make(tmp_path / "out", task="capo", params=PARAMS, examples=1200, shard_examples=500)
    options = {"packing": "concat", "seq_len": 256, "shuffle": shuffle, "tokenizer": tokenizer}
    expected = all_of(capo().batches(4, **options))
    stream = open_dataset(out).batches(4, **options)
    first = some_of(stream, 10)
    loader = open_dataset(out).batches(4, **options).loader(num_workers=2)
    loader.load_state_dict(stream.state_dict())
    assert first + all_of(loader) == expected


def test_the_state_knows_the_tokenizer(tokenizer: Any, tmp_path: Path) -> None:
    state = capo().batches(4, packing="concat", seq_len=256, tokenizer=tokenizer).state_dict()
    other = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    other.add_tokens(["Anya"])
    with pytest.raises(ValueError, match="a state of another stream: its tokenizer is"):
        capo().batches(4, packing="concat", seq_len=256, tokenizer=other).load_state_dict(state)


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="rows of capo are text: batches want a tokenizer="):
        capo().batches(4)
    with pytest.raises(UsageError, match="tokenizer is a dict; legal: a fast tokenizer"):
        capo(tokenizer={}).batches(4)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UsageError, match=r"tokenizer '.*tokenizer\.json' cannot be loaded: ") as error:
        capo().batches(4, tokenizer=tmp_path / "tokenizer.json")
    assert "\n" not in str(error.value)
    from tokenizers.models import WordLevel

    bare = Tokenizer(WordLevel({"a": 0}, unk_token="a"))
    assert TextTokens(bare).eos is None
    with pytest.raises(UsageError, match="packing joins texts by an end-of-text token, and the tokenizer has none"):
        capo().batches(4, packing="concat", seq_len=64, tokenizer=bare)

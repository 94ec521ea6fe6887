"""`inspect`: rows for human eyes, of a task and of a dataset, with colours where a person looks and nowhere else."""

from __future__ import annotations

import html
import os
import pty
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import python
from small_datasets import FORMATS, SMALL, edit_manifest, make, rewrite_shard, rows_of_shard, run, shard_bytes

from synthshards import inspect as inspection
from synthshards.catalog import make_task
from synthshards.dataset.stored import open_stored
from synthshards.ragged import Column, RaggedBatch
from synthshards.tasks.task import Verdict

DIM, GREEN, RESET = "\x1b[2m", "\x1b[32m\x1b[1m", "\x1b[0m"
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def on_a_terminal(*args: str | Path, **env: str) -> str:
    """What a command writes to a terminal (a pseudo-terminal of our own)."""
    ours, theirs = pty.openpty()
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    command = [sys.executable, "-m", "synthshards", *map(str, args)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**plain, **env}) as process:
        os.close(theirs)
        parts = []
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the terminal's other side is closed
                break
            if not part:
                break
            parts.append(part)
    os.close(ours)
    assert process.returncode == 0
    return b"".join(parts).decode().replace("\r\n", "\n")


def rows_shown(text: str) -> list[tuple[str, str]]:
    """(head, body) of each row."""
    pieces = text.split("\n\n")[1:]
    return [tuple(piece.split("\n  ", 1)) for piece in pieces if piece.strip()]  # type: ignore[misc]


def test_rows_of_a_task() -> None:
    outcome = run("inspect", "depo", "N=9", "K=3", "--show", "4", "--seed", "7", "--split", "eval")
    assert outcome.code == 0
    assert outcome.out.startswith("depo N=9 K=3: seed 7, split eval, made now\n\n")
    assert "\x1b" not in outcome.out
    rows = rows_shown(outcome.out)
    assert len(rows) == 4
    task = make_task("depo", N=9, K=3)
    for i, (head, body) in enumerate(rows):
        row = task.example(7, "eval", i)
        ks = ",".join(map(str, row["ks"]))
        assert head == (
            f"row {i} · {len(row['input_ids'])} tokens, {int(row['loss_mask'].sum())} in the loss · "
            f"valid · n={row['n']} · queries={row['queries']} · ks={ks}"
        )
        assert body.split() == task.decode(row["input_ids"])


def test_a_preset_with_overrides_is_that_task() -> None:
    a = run("inspect", "depo2-75", "N=6", "K=4", "--show", "1").out
    b = run("inspect", "depo", "N=6", "K=4", "mini_vocab=3", "min_tlen=5", "max_tlen=7", "--show", "1").out
    assert rows_shown(a) == rows_shown(b)
    assert "valid" in rows_shown(a)[0][0]


@pytest.mark.parametrize("format", FORMATS)
def test_rows_of_a_dataset(tmp_path: Path, format: str) -> None:
    """More than one shard of them, and the same rows as those made now."""
    out = make(tmp_path / "out", seed=3, format=format)
    outcome = run("inspect", out, "--show", "45")
    assert outcome.out.startswith(f"{out}: depo, seed 3, split train, read from its shards\n")
    made = run("inspect", "depo", "N=9", "K=3", "--seed", "3", "--show", "45")
    assert rows_shown(outcome.out) == rows_shown(made.out)
    assert len(rows_shown(made.out)) == 45


def test_no_more_rows_than_there_are(tmp_path: Path) -> None:
    out = make(tmp_path / "out", examples=5)
    assert len(rows_shown(run("inspect", out, "--show", "50").out)) == 5
    assert rows_shown(run("inspect", out, "--show", "0").out) == []
    assert len(rows_shown(run("inspect", out).out)) == 3


def test_seed_and_overrides_are_for_rows_that_are_made(tmp_path: Path) -> None:
    out = make(tmp_path / "out")
    for args, name in ((["--seed", "0"], "--seed"), (["--split", "eval"], "--split"), (["N=9"], "N=9")):
        outcome = run("inspect", out, *args)
        assert outcome.code == 2
        assert f"its rows are read, not made; legal: {name} after a task or preset name" in outcome.line


@pytest.mark.parametrize("count", [0, 1, 5, 1000])
def test_max_tokens(count: int) -> None:
    row = make_task("depo", SMALL).example(0, "train", 0)
    length = len(row["input_ids"])
    (head, body), *_ = rows_shown(run("inspect", "depo", "N=9", "K=3", "--max-tokens", str(count)).out)
    assert f" {length} tokens, " in head, "the length is that of the whole row"
    shown, _, rest = body.partition("…")
    assert len(shown.split()) == min(count, length)
    assert rest.strip() == (f"{length - count} more tokens" if count < length else "")


def test_long_facts_are_cut() -> None:
    (head, _), *_ = rows_shown(run("inspect", "depo", "N=40", "M=40", "qa=true", "--show", "1").out)
    assert re.search(r"ks=(\d+,){16}… \(40\)", head)


# Colours -----------------------------------------------------------------------------------------------------------


def test_colours_follow_the_loss_mask() -> None:
    text = on_a_terminal("inspect", "depo", "N=9", "K=3", "--show", "2")
    task = make_task("depo", SMALL)
    for i, (head, body) in enumerate(rows_shown(text)):
        row = task.example(0, "train", i)
        assert f" · \x1b[32mvalid{RESET} · n=" in head
        runs = re.findall(rf"(\x1b\[2m|\x1b\[32m\x1b\[1m)([^\x1b]*){re.escape(RESET)}", body)
        coloured = [(token, start == GREEN) for start, words in runs for token in words.split()]
        assert coloured == list(zip(task.decode(row["input_ids"]), row["loss_mask"].tolist(), strict=True))
        assert {start for start, _ in runs} == {DIM, GREEN}
        assert ESCAPE.sub("", body).split() == [token for token, _ in coloured]


@pytest.mark.parametrize(("args", "env"), [(["--no-color"], {}), ([], {"NO_COLOR": "1"}), ([], {"NO_COLOR": "yes"})])
def test_no_colours_where_none_are_wanted(args: list[str], env: dict[str, str]) -> None:
    assert "\x1b" not in on_a_terminal("inspect", "depo", "N=4", "--show", "1", *args, **env)


def test_an_empty_no_color_does_not_count() -> None:
    """https://no-color.org: present and not an empty string."""
    assert DIM in on_a_terminal("inspect", "depo", "N=4", "--show", "1", NO_COLOR="")


# Validity ----------------------------------------------------------------------------------------------------------


def test_an_invalid_row_is_called_so(tmp_path: Path) -> None:
    """A shard whose mask was edited, under a manifest that vouches for it."""
    out = make(tmp_path / "out")
    dataset = open_stored(out)
    batch = rows_of_shard(out, 0)
    mask = batch.loss_mask.copy()
    mask[0] = True
    columns = {**batch.columns, "loss_mask": Column("list<bool>", mask, batch.columns["loss_mask"].offsets)}
    rewrite_shard(dataset, 0, shard_bytes(dataset.manifest, RaggedBatch(columns), 0, 40))
    (head, _), (other, _), *_ = rows_shown(run("inspect", out).out)
    assert " · INVALID: loss_mask is 1 at 0; legal: 0 · n=" in head
    assert " · valid · n=" in other
    assert "\x1b[31mINVALID" in on_a_terminal("inspect", out)
    page = tmp_path / "page.html"
    assert run("inspect", out, "--html", page).code == 0
    assert '<span class="bad">INVALID: loss_mask is 1 at 0; legal: 0</span>' in page.read_text()


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    out = make(tmp_path / "out")
    path = Path(out) / "train-00001.parquet"
    path.write_bytes(bytes(path.stat().st_size))
    assert run("inspect", out, "--show", "40").code == 0
    outcome = run("inspect", out, "--show", "41")
    assert outcome.code == 1
    assert f"{path}: the sha256 of the file differs" in outcome.line
    assert len(rows_shown(outcome.out)) == 40
    first = path.with_name("train-00000.parquet")
    first.write_bytes(bytes(first.stat().st_size))
    outcome = run("inspect", out)
    assert (outcome.code, outcome.out) == (1, ""), "nothing stands before the error"


def test_a_manifest_without_files_says_what_to_do(tmp_path: Path) -> None:
    out = make(tmp_path / "out")

    def forget(document: Any) -> None:
        document["totals"]["bytes"] = None
        for entry in document["shards"]:
            entry["bytes"] = entry["sha256"] = None

    edit_manifest(out, forget)
    assert "rows that were not written; reproduce makes them" in run("inspect", out).line


# Texts (no task of this release has a row of another shape) -----------------------------------------------------


class TextTask:
    """What a row of text needs of its task."""

    def validate_example(self, row: dict[str, Any]) -> Verdict:
        return Verdict(None if row["text"] else "no text")


ROW = {"text": "Ada Lovelace was born in <London>. " * 20, "person_id": 7, "spans": list(range(14))}


@pytest.mark.parametrize(("chars", "shown"), [(10, 10), (0, 0), (-1, 700), (5000, 700)])
def test_text_is_cut_by_characters(chars: int, shown: int) -> None:
    row = inspection.show_row(0, ROW, TextTask(), None, max_tokens=1, text_chars=chars)  # type: ignore[arg-type]
    assert row.head == "row 0 · 700 characters"
    assert row.facts == ["person_id=7", "spans=0,1,2,3,4,5,6,7,8,9,10,11,12,13"]
    assert row.runs == [(ROW["text"][:shown], None)]
    assert row.rest == (f"… {700 - shown} more characters" if shown < 700 else "")
    assert inspection.as_terminal(row).endswith("\n")


# Tokenizers --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tokenizer of 100 tokens, as transformers saves it."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    vocabulary = {f"tok{i}": i for i in range(98)} | {"Ada": 98, "[UNK]": 99}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=model, unk_token="[UNK]").save_pretrained(folder)
    return folder


def test_a_tokenizer_names_the_tokens(tokenizer: str) -> None:
    outcome = run("inspect", "depo", "N=9", "K=3", "--tokenizer", tokenizer, "--show", "1")
    assert outcome.code == 0, outcome
    row = make_task("depo", SMALL).example(0, "train", 0)
    want = [f"tok{i}" if i < 98 else f"<unknown_{i}>" if i > 99 else "" for i in row["input_ids"].tolist()]
    (head, body), *_ = rows_shown(outcome.out)
    found = body.split()
    assert len(found) == len(want)
    assert all(a == b for a, b in zip(found, want, strict=True) if b)
    assert "<unknown_9500>" in found
    assert " · valid · " in head


def test_rows_have_the_bos_and_sep_of_a_tokenizer_as_in_training(tokenizer: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    loaded = transformers.AutoTokenizer.from_pretrained(tokenizer, bos_token="tok95", sep_token="tok96")
    loaded.save_pretrained(own := str(tmp_path / "own"))
    shown = run("inspect", "depo", "N=9", "K=3", "mini_vocab=20", "separator=true", "--tokenizer", own, "--show", "1")
    (head, body), *_ = rows_shown(shown.out)
    assert body.split()[0] == "tok95"
    assert "tok96" in body.split()
    assert "<unknown_9700>" not in body
    assert " · valid · " in head
    assert run("build", "depo", "N=9", "K=3", "--examples", "3", "--out", str(tmp_path / "data")).code == 0
    stored = run("inspect", str(tmp_path / "data"), "--tokenizer", own, "--show", "1")
    assert rows_shown(stored.out)[0][1].split()[0] == "tok0"  # stored rows keep their own


def test_a_tokenizer_cuts_texts_into_tokens(tokenizer: str) -> None:
    loaded = inspection.load_tokenizer(tokenizer)
    row = inspection.show_row(0, ROW, None, loaded, max_tokens=3, text_chars=-1)
    assert row.head == f"row 0 · 700 characters, 160 tokens of {tokenizer}"
    assert row.runs == [("Ada [UNK] [UNK]", None)]
    assert row.rest == "… 157 more tokens"


def test_no_such_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    outcome = run("inspect", "depo", "--tokenizer", str(tmp_path))
    assert outcome.code == 2
    assert f"--tokenizer {str(tmp_path)!r}: no such tokenizer (" in outcome.line
    assert outcome.out == ""


def test_a_tokenizer_whose_loading_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers")

    def fail(name: str) -> None:
        raise RuntimeError

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fail)
    assert "no such tokenizer (RuntimeError)" in run("inspect", "depo", "--tokenizer", "x").line


def test_transformers_absent(tmp_path: Path) -> None:
    """In a Python where importing transformers raises ImportError."""
    blocked = "import sys; sys.modules['transformers'] = None; from synthshards.cli import main; main()"
    done = python("-c", blocked, "inspect", "depo", "--tokenizer", "gpt2", check=False)
    assert done.returncode == 2
    assert (
        done.stderr == "error: --tokenizer needs transformers; install it with: pip install 'synthshards[tokenizers]'\n"
    )
    assert python("-c", blocked, "inspect", "depo", "--show", "1").stdout.startswith("depo: ")


# A page ------------------------------------------------------------------------------------------------------------


class Spans(HTMLParser):
    """(class, text) of every span."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._class: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img"), "a page of its own"
        if tag == "span":
            self._class = dict(attrs).get("class") or ""

    def handle_data(self, data: str) -> None:
        if self._class is not None:
            self.found.append((self._class, data))
            self._class = None


def test_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    outcome = run("inspect", "depo", "N=9", "K=3", "--show", "2", "--html", page)
    assert outcome.code == 0
    assert outcome.out == f"wrote {page}\n"
    text = page.read_text(encoding="utf-8")
    assert "<title>depo N=9 K=3: seed 0, split train, made now</title>" in text
    spans = Spans()
    spans.feed(text)
    task = make_task("depo", SMALL)
    want: list[tuple[str, str]] = []
    for i in range(2):
        row = task.example(0, "train", i)
        want += [
            ("on" if on else "off", token)
            for token, on in zip(task.decode(row["input_ids"]), row["loss_mask"].tolist(), strict=True)
        ]
    assert [(kind, token) for kind, words in spans.found if kind in ("on", "off") for token in words.split()] == want


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    outcome = run("inspect", "depo", "--html", tmp_path / "absent" / "page.html")
    assert outcome.code == 1
    assert f"{tmp_path}/absent/page.html: No such file or directory" in outcome.line


def test_a_page_escapes_what_it_shows() -> None:
    row = inspection.Shown("<head>", Verdict("<reason>"), ["<fact>"], [("<b>text</b>", None)], "<rest>")
    text = inspection.as_html("<title>", iter([row]))
    for words in ("<head>", "<reason>", "<fact>", "<b>text</b>", "<rest>", "<title>"):
        assert html.escape(words) in text
    assert text.count("<title>") == 1


def test_rows_are_not_changed_by_looking() -> None:
    task = make_task("depo", SMALL)
    row = task.example(0, "train", 0)
    before = {name: np.array(value) for name, value in row.items()}
    inspection.show_row(0, row, task, None, max_tokens=5, text_chars=5)
    assert all(np.array_equal(row[name], value) for name, value in before.items())

"""A manifest is hostile until read: whatever is wrong with it is one located line, on every command that takes one."""

from __future__ import annotations

import copy
import gzip
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from json_trees import WRONG, Json, Path_, fields, parent_of
from small_datasets import make, run

from synthshards.catalog import make_task
from synthshards.dataset.document import MAX_BYTES, _check_unique
from synthshards.dataset.manifest import Manifest, ShardEntry
from synthshards.dataset.manifest_parser import parse
from synthshards.errors import ManifestError
from synthshards.identity import Identity, Layout
from synthshards.tasks.depo import DepoTask


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make(tmp_path_factory.mktemp("manifest") / "good"))


@pytest.fixture(scope="module")
def raw(folder: Path) -> bytes:
    return (folder / "_manifest").read_bytes()


@pytest.fixture
def good(raw: bytes) -> Json:
    return json.loads(raw)


def refusal(document: Json | bytes) -> str:
    """The one line with which a manifest is refused, without the name of the file."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(ManifestError) as caught:
        parse(data, "here.json")
    line = str(caught.value)
    assert line.startswith("here.json: ")
    assert "\n" not in line
    assert len(line) < 700
    return line.removeprefix("here.json: ")


def name_of(path: Path_) -> str:
    """``$.shards[0].bytes``."""
    return "$" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)


def is_located(line: str, path: Path_) -> bool:
    """Whether a line names the field at `path`, what holds it, or else a sum, hash or limit that the field enters."""
    found = re.match(r"\$[\w.\[\]]*", line)
    assert found is not None, line
    place, name = found[0], name_of(path)
    if name.startswith(place) or place.startswith(name):
        return True
    if place == name_of((*path[:-1], "loss_tokens")) and path[-1] == "tokens":
        return True
    entered = {"dataset": "$.fingerprint", "columns": "$.columns", "shards": "$.totals", "layout": "$.shards"}
    return place.startswith(entered[str(path[0])])


def test_what_is_written_is_read(raw: bytes) -> None:
    manifest = parse(raw, "here.json")
    assert manifest.to_json() == raw
    assert [entry.stop for entry in manifest.shards] == [40, 80, 100]
    assert manifest.examples == 100


def test_the_spelling_of_the_json_does_not_matter(raw: bytes, good: Json) -> None:
    """Sorted keys, other spaces: the same manifest, and the columns are in the order of the schema again."""
    again = parse(json.dumps(good, indent=3, sort_keys=True).encode(), "here.json")
    assert list(json.loads(json.dumps(good, sort_keys=True))["columns"]) != list(again.columns)
    assert again.to_json() == raw


def test_every_field_is_needed(good: Json) -> None:
    paths = [path for path in fields(good) if path[0] != "shards" or len(path) == 1 or path[1] == 1]
    assert len(paths) > 40
    for path in paths:
        bad = copy.deepcopy(good)
        del parent_of(bad, path)[path[-1]]
        assert is_located(refusal(bad), path), path


def test_no_other_field_is_taken(good: Json) -> None:
    objects = [(), *(p for p in fields(good) if isinstance(parent_of(good, (*p, "")), dict))]
    assert len(objects) == 10  # with three shards
    for path in objects:
        bad = copy.deepcopy(good)
        parent_of(bad, (*path, ""))["surplus"] = 1
        line = refusal(bad)
        assert "surplus" in line
        assert line.startswith(name_of(path)), line


def test_every_field_has_its_type_and_range(good: Json) -> None:
    paths = [path for path in fields(good) if path[0] != "shards" or len(path) == 1 or path[1] == 1]
    legal = 0
    for path in paths:
        for value in WRONG:
            bad = copy.deepcopy(good)
            parent, key = parent_of(bad, path), path[-1]
            if type(parent[key]) is type(value) and parent[key] == value:
                continue
            parent[key] = value
            if path[:-1] == ("generator",) and isinstance(value, str) and value.isprintable() and len(value) <= 100:
                parse(json.dumps(bad).encode(), "here.json")  # any version may have written it
                legal += 1
                continue
            line = refusal(bad)
            assert is_located(line, path), (path, value, line)
    assert legal == 15


def duplicate(text: str, key: str) -> str:
    """The document with the first member `key` written twice."""
    match = re.search(rf'"{key}": ("[^"]*"|\d+|null|\{{[^}}]*\}})', text)
    assert match
    return text[: match.start()] + match[0] + ", " + text[match.start() :]


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("schema_version", "$"),
        ("seed", "$.dataset"),
        ("N", "$.dataset.params"),
        ("layout", "$"),
        ("start", "$.shards[0]"),
    ],
)
def test_no_key_stands_twice(raw: bytes, key: str, place: str) -> None:
    line = refusal(duplicate(raw.decode(), key).encode())
    assert line == f"{place}: the key {key!r} stands twice; legal: once"


def set_to(*path: str | int, to: Json) -> Callable[[Json], None]:
    def change(document: Json) -> None:
        parent_of(document, path)[path[-1]] = to

    return change


def drop_shard(index: int, *, tell: bool) -> Callable[[Json], None]:
    def change(document: Json) -> None:
        del document["shards"][index]
        document["layout"]["num_shards"] -= tell

    return change


def swap_shards(document: Json) -> None:
    document["shards"][0], document["shards"][1] = document["shards"][1], document["shards"][0]


def repeat_shard(document: Json) -> None:
    document["shards"].insert(1, document["shards"][0])
    document["layout"]["num_shards"] += 1


def fewer_rows_a_shard(document: Json) -> None:
    document["layout"]["shard_examples"] = 20


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (set_to("schema_version", to=2), "$.schema_version: 2; legal: 1 (a newer release of synthshards may read it)"),
        (set_to("schema_version", to=0), "$.schema_version: 0; legal: 1"),
        (set_to("dataset", "task", to="dep0"), "$.dataset.task: 'dep0'; did you mean 'depo'?; legal: depo"),
        (set_to("dataset", "task_version", to=0), "$.dataset.task_version: 0; legal: from 1"),
        (set_to("dataset", "seed", to=2**64), "$.dataset.seed: 18446744073709551616; legal: 0..2^64-1"),
        (set_to("dataset", "seed", to=1), "$.fingerprint: 'sha256:"),
        (set_to("dataset", "split", to="../up"), "$.dataset.split: '../up'; legal: lower-case letters, digits and _"),
        (set_to("dataset", "params", "N", to=2), "$.dataset.params: depo: N=2 is not legal"),
        (set_to("dataset", "params", "N", to=9.0), "$.dataset.params: depo: N=9.0 is not legal"),
        (set_to("dataset", "params", "qa", to=0), "$.dataset.params: depo: qa=0 is not legal"),
        (set_to("fingerprint", to="sha256:" + 64 * "0"), "$.fingerprint: 'sha256:00"),
        (set_to("layout", "format", to="parket"), "$.layout.format: 'parket'; did you mean 'parquet'?; legal: parq"),
        (set_to("layout", "compression", to="lz4"), "$.layout.compression: 'lz4'; legal: zstd, snappy, none"),
        (set_to("layout", "num_shards", to=100_001), "$.layout.num_shards: 100001; legal: 1..100000"),
        (set_to("layout", "num_shards", to=2), "$.shards: 3 entries; legal: 2, as layout says"),
        (set_to("layout", "shard_examples", to=10**9), "$.layout.shard_examples: 1000000000; legal: 1..10000000"),
        (fewer_rows_a_shard, "$.shards[0].stop: 40; legal: 20"),
        (set_to("columns", "n", to="uint32"), "$.columns.n: 'uint32'; legal: 'uint16'"),
        (set_to("columns", "m", to="uint32"), "$.columns.m: 'uint32'; legal: no such column"),
        (set_to("totals", "examples", to=101), "$.totals.examples: 101; legal: 100, the sum over the shards"),
        (set_to("totals", "bytes", to=None), "$.totals.bytes: None; legal: "),
        (set_to("totals", "characters", to=5), "$.totals: examples, tokens, loss_tokens, characters, bytes; legal"),
        (set_to("shards", to=[]), "$.shards: 0 entries; legal: 3, as layout says"),
        (set_to("shards", 1, "path", to="../train-00001.parquet"), "$.shards[1].path: '../train-00001.parquet'; leg"),
        (set_to("shards", 1, "path", to="/train-00001.parquet"), "$.shards[1].path: '/train-00001.parquet'; legal: '"),
        (set_to("shards", 1, "path", to="train-00002.parquet"), "$.shards[1].path: 'train-00002.parquet'; legal: 'tra"),
        (set_to("shards", 1, "start", to=39), "$.shards[1].start: 39; legal: 40"),
        (set_to("shards", 0, "stop", to=41), "$.shards[0].stop: 41; legal: 40"),
        (set_to("shards", 2, "stop", to=80), "$.shards[2].stop: 80; legal: 81..120"),
        (set_to("shards", 2, "stop", to=121), "$.shards[2].stop: 121; legal: 81..120"),
        (set_to("shards", 0, "tokens", to=10**300), "$.shards[0].tokens: 1000"),
        (set_to("shards", 0, "loss_tokens", to=10**9), "$.shards[0].loss_tokens: 1000000000; legal: 0.."),
        (set_to("shards", 0, "characters", to=1), "$.shards[0]: counts tokens, loss_tokens, characters; legal: tok"),
        (set_to("shards", 0, "bytes", to=0), "$.shards[0].bytes: 0; legal: 1..9223372036854775807, or null"),
        (set_to("shards", 0, "bytes", to=None), "$.shards[0]: one of bytes and sha256 is null; legal: both or neither"),
        (set_to("shards", 0, "sha256", to="sha256:" + 64 * "A"), "$.shards[0].sha256: 'sha256:AAA"),
        (set_to("shards", 0, "content", to="sha1:" + 66 * "a"), "$.shards[0].content: 'sha1:aaa"),
        (set_to("shards", 0, "content", to="sha256:" + 65 * "a"), "$.shards[0].content: 'sha256:aaa"),
        (set_to("generator", "version", to="\x1b[31m"), "$.generator.version: '\\x1b[31m'; legal: at most 100 print"),
        (drop_shard(1, tell=True), "$.shards[1].path: 'train-00002.parquet'; legal: 'train-00001.parquet'"),
        (drop_shard(1, tell=False), "$.shards: 2 entries; legal: 3, as layout says"),
        (drop_shard(2, tell=True), "$.totals.examples: 100; legal: 80, the sum over the shards"),
        (swap_shards, "$.shards[0].path: 'train-00001.parquet'; legal: 'train-00000.parquet'"),
        (repeat_shard, "$.shards[1].path: 'train-00000.parquet'; legal: 'train-00001.parquet'"),
    ],
)  # fmt: skip
def test_the_line_says_what_is_legal(good: Json, change: Callable[[Json], None], line: str) -> None:
    change(good)
    assert refusal(good).startswith(line), refusal(good)


def other_version(document: Json, **changes: Json) -> bytes:
    """The document as one of another version of the task, with a fingerprint that fits."""
    data = document["dataset"]
    data["task_version"] = 7
    data.update(changes)
    identity = Identity(data["task"], 7, data["params"], data["seed"], data["split"])
    document["fingerprint"] = identity.fingerprint
    return json.dumps(document).encode()


def test_another_version_may_have_other_parameters_and_columns(good: Json) -> None:
    good["columns"]["colour"] = "list<int32>"
    manifest = parse(other_version(good, params={"shape": ["a", 1, None, True, [2]]}), "here.json")
    assert manifest.columns["colour"] == "list<int32>"


@pytest.mark.parametrize(
    ("params", "line"),
    [
        ({"x": 1.5}, "$.dataset.params.x: 1.5; legal: an integer, a boolean, a string, null or a list of them"),
        (
            {"x": [0, {"y": 1}]},
            "$.dataset.params.x[1]: {'y': 1}; legal: an integer, a boolean, a string, null or a list",
        ),
    ],
)
def test_but_only_parameters_that_can_be_hashed(good: Json, params: Json, line: str) -> None:
    assert refusal(other_version(good, params=params)).startswith(line)


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        ({}, "$.columns: no rows; legal: input_ids"),
        ({"input_ids": "list<uint16>"}, "$.columns: no rows; legal: input_ids"),
        ({"input_ids": "list<int64>", "loss_mask": "list<bool>"}, "$.columns: no rows; legal: input_ids"),
        ({"text": "list<uint8>"}, "$.columns: no rows; legal: input_ids"),
        ({"text": "strin"}, "$.columns.text: 'strin'; did you mean 'string'?; legal: "),
        ({"text": ["string"]}, "$.columns.text: ['string']; legal: "),
        (
            {"text": "string", "a\x1bb": "bool"},
            "$.columns: 'a\\x1bb'; legal: names of lower-case letters, digits and _",
        ),
    ],
)
def test_and_only_columns_that_hold_rows(good: Json, columns: Json, line: str) -> None:
    good["columns"] = columns
    assert refusal(other_version(good)).startswith(line)


def test_no_more_rows_than_a_finite_task_has(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DepoTask, "num_examples", 100)
    parse(raw, "here.json")
    monkeypatch.setattr(DepoTask, "num_examples", 99)
    assert refusal(raw) == "$.totals.examples: 100; legal: 1..99, all that the task has"


def test_no_other_file_is_read(good: Json, tmp_path: Path) -> None:
    """A user may give a grammar by the path of a file; a manifest may not make anybody read one."""
    path = tmp_path / "grammar"
    path.write_text("S -> 1 2 | 2 1")
    assert "-> 1 2 | 2 1" in make_task("lano", grammar=str(path)).params.grammar
    params = make_task("lano").params.canonical()
    good["dataset"].update(task="lano", params={**params, "grammar": str(path)})
    assert refusal(good).startswith(f"$.dataset.params: lano: grammar={str(path)!r} is not legal; legal: ")


BAD_BYTES = {
    "empty": b"",
    "blank": b"  \n",
    "null": b"null",
    "a list": b"[]",
    "a number": b"1",
    "a string": b'"manifest"',
    "no fields": b"{}",
    "not UTF-8": b'{"schema_version": 1, "fingerprint": "\xff\xfe"}',
    "UTF-16": '{"schema_version": 1}'.encode("utf-16"),
    "a byte-order mark": b'\xef\xbb\xbf{"schema_version": 1}',
    "a lone surrogate": b'{"schema_version": 1, "fingerprint": "\\ud800"}',
    "NaN": b'{"schema_version": NaN}',
    "infinity": b'{"schema_version": 1e999}',
    "five thousand digits": b'{"schema_version": ' + b"9" * 5000 + b"}",
    "deep lists": b'{"schema_version": 1, "dataset": ' + b"[" * 200_000,
    "deep objects": b'{"a": ' * 200_000,
    "deep parameters": b'{"schema_version":1,"dataset":{"task":"depo","task_version":1,"params":{"N":' + b"[" * 99_999,
    "binary": bytes(range(256)) * 10,
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("kind", BAD_BYTES)
def test_bytes_that_are_no_manifest(kind: str) -> None:
    refusal(BAD_BYTES[kind])


def test_truncated_anywhere(raw: bytes) -> None:
    for size in range(0, len(raw.rstrip()), 7):
        refusal(raw[:size])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_value_anywhere(raw: bytes, data: st.DataObject) -> None:
    """Whatever stands in whatever place, a manifest is read or refused; nothing else happens."""
    document = json.loads(raw)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(sorted(fields(document), key=str)))
        if data.draw(st.booleans()):
            parent_of(document, path)[path[-1]] = data.draw(JSON_VALUES)
        else:
            del parent_of(document, path)[path[-1]]
    try:
        manifest = parse(json.dumps(document).encode(), "here.json")
    except ManifestError as error:
        line = str(error)
    else:
        line = ""
        assert parse(manifest.to_json(), "here.json") == manifest
    assert "\n" not in line


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_damage_to_the_bytes(raw: bytes, data: st.DataObject) -> None:
    damaged = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        manifest = parse(bytes(damaged), "here.json")
    except ManifestError as error:
        line = str(error)
    else:
        line = ""
        assert parse(manifest.to_json(), "here.json") == manifest
    assert "\n" not in line


def test_the_largest_manifest_is_read() -> None:
    task = make_task("depo")
    digest, huge = "sha256:" + 64 * "a", 2**62
    entries = [
        ShardEntry(
            path=f"train-{i:05d}.parquet",
            start=i * 10**7,
            stop=(i + 1) * 10**7,
            tokens=huge,
            loss_tokens=huge,
            bytes=huge,
            sha256=digest,
            content=digest,
        )
        for i in range(100_000)
    ]
    manifest = Manifest(task.identity(0, "train"), Layout("parquet", 10**7, 100_000, "zstd"), task.columns, entries)
    data = manifest.to_json()
    assert len(data) < MAX_BYTES / 5
    assert parse(data, "here.json") == manifest


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda raw: b"",
    "not JSON": lambda raw: b"PAR1\x00\x1b[31m",
    "a path out of the folder": lambda raw: raw.replace(b'"train-', b'"../train-'),
    "an unknown field with an escape sequence": lambda raw: b'{"\\u001b[31m\\n": 1}',
    "a range that is missing": lambda raw: raw.replace(b'"start": 40', b'"start": 41'),
    "deep": lambda raw: BAD_BYTES["deep objects"],
    "300 MB": lambda raw: raw,
}


def commands_on(bad: Path, folder: Path, out: Path) -> list[list[str | Path]]:
    """Every command that reads the manifest of the folder `bad`, another dataset beside it."""
    return [
        ["info", bad],
        ["info", bad, "--json"],
        ["verify", bad],
        ["verify", bad, "--json"],
        ["verify", bad, "--rederive"],
        ["reproduce", bad, "--out", out],
        ["reproduce", folder, "--out", bad],
        ["overlap", bad, folder],
        ["overlap", folder, bad, "--json"],
        ["inspect", bad],
        ["build", "depo", "N=9", "K=3", "--examples", "100", "--shard-examples", "40", "--out", bad],
    ]


def test_two_manifests_are_one_too_many(folder: Path, tmp_path: Path) -> None:
    bad = Path(make(tmp_path / "bad"))
    shutil.copy(bad / "_manifest", bad / "manifest.json")
    before = sorted(bad.iterdir())
    overwriting = [*commands_on(bad, folder, tmp_path / "out")[-1], "--overwrite"]
    for command in [*commands_on(bad, folder, tmp_path / "out"), overwriting, ["seal", bad]]:
        outcome = run(*command)
        assert outcome.code == 1, (command, outcome)
        assert outcome.line.endswith(
            f"{bad}: holds _manifest and manifest.json; legal: one of them (delete the one that does not belong there)"
        )
    assert sorted(bad.iterdir()) == before
    for name in ("_manifest", "manifest.json"):
        assert run("verify", bad / name).code == 0


@pytest.mark.parametrize("kind", HOSTILE)
def test_every_command_refuses_it(kind: str, folder: Path, tmp_path: Path) -> None:
    bad = Path(make(tmp_path / "bad"))
    path = bad / "_manifest"
    path.write_bytes(HOSTILE[kind](path.read_bytes()))
    if kind == "300 MB":
        os.truncate(path, 300 << 20)
    before = sorted(bad.iterdir())
    out = tmp_path / "out"
    for command in [*commands_on(bad, folder, out), ["reproduce", path, "--out", out]]:
        outcome = run(*command)
        assert outcome.code == 1, (command, outcome)
        assert str(bad / "_manifest") in outcome.line, (command, outcome)
        assert outcome.line.isprintable()
        assert outcome.out == "", (command, outcome)
        assert kind != "300 MB" or outcome.line.endswith(": 314572800 bytes; legal: at most 268435456")
    assert not out.exists()
    assert sorted(bad.iterdir()) == before


def test_a_doubled_key_costs_no_more_behind_many_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work is counted: each name of the document is looked at a few times, and not as often as there are names."""
    looked = Counter[str]()

    class Name(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            looked["at"] += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    real = json.loads

    def loads(data: bytes, object_pairs_hook: Any) -> Any:
        return real(data, object_pairs_hook=lambda pairs: object_pairs_hook([(Name(k), v) for k, v in pairs]))

    monkeypatch.setattr("synthshards.dataset.document.json.loads", loads)
    many = {f"k{i}": 0 for i in range(2000)}
    text = json.dumps({"a": many}).replace("}}", ', "zz": 1, "zz": 2}}')
    with pytest.raises(ManifestError, match=r"^\$\.a: the key 'zz' stands twice"):
        _check_unique(text.encode())
    assert looked["at"] < 20_000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: b"\xef\xbb\xbf" + data, "byte-order mark"),
        (gzip.compress, "gzip -d"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
        (lambda data: data.decode().encode("utf-16"), "UTF-16"),
        (lambda data: data.replace(b'"seed": 0', b'"seed": ' + b"1" * 5000), "out of range"),
    ],
)
def test_a_manifest_in_another_form_is_told(change: Callable[[bytes], bytes], words: str, tmp_path: Path) -> None:
    path = Path(make(tmp_path / "rows")) / "_manifest"
    path.write_bytes(change(path.read_bytes()))
    assert words in run("info", tmp_path / "rows").line


def test_splits_that_lie_below_are_named(tmp_path: Path) -> None:
    make(tmp_path / "depo" / "train")
    make(tmp_path / "depo" / "eval", split="eval")
    (tmp_path / "depo" / "notes").mkdir()
    outcome = run("info", tmp_path / "depo")
    assert outcome.code == 2
    assert outcome.line.endswith(f"in folders below; legal: {tmp_path}/depo/eval, {tmp_path}/depo/train")


def test_a_shard_that_is_an_lfs_pointer_is_told(tmp_path: Path) -> None:
    out = make(tmp_path / "rows")
    (tmp_path / "rows" / "train-00001.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1\nsize 9\n")
    assert "git lfs pull" in run("verify", out).out

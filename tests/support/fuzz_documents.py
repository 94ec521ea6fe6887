"""Crafted documents for `fuzz`: manifests, plans, journals, folders with other manifests, and words of a command."""

from __future__ import annotations

import copy
import gzip
import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from folders import small
from fuzz_formats import NUMBERS
from small_datasets import make

from synthshards.catalog import TASKS, preset_names, task_from_text
from synthshards.dataset.manifest_parser import parse
from synthshards.dataset.stored import open_stored
from synthshards.digest import sha256_of
from synthshards.errors import HealWarning
from synthshards.identity import Identity
from synthshards.loaders.shards.reader import Shards
from synthshards.pipelines.build import build
from synthshards.pipelines.folder.journal import read_journals
from synthshards.pipelines.overlap import overlap
from synthshards.pipelines.plan import plan_from_record, plan_record
from synthshards.pipelines.verify import verify
from synthshards.storage.folder import SCRATCH
from synthshards.storage.open import open_folder

_TEXTS = ["", "x" * 3000, "\x1b[2J\x1b[31m", "a\nb", "\u202e\u0085", "\ud800", "../../etc/passwd", "0", "null",
          "sha256:", "\x00", "é" * 50, "💥", "train", "parquet", "depo", "list<uint16>"]  # fmt: skip


def _values() -> list[Any]:
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    return [*NUMBERS, *_TEXTS, 10**30, 10**400, 0.5, 1e308, float("nan"), float("inf"), True, False, None, [], {}, [[]],
            {"a": 1}, [1, 2, 3], ["x"] * 100, deep, {str(i): i for i in range(100)}]  # fmt: skip


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        items = (
            list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
        )
        found += [(node, key) for key, _ in items]
        waiting += [value for _, value in items]
    return found


def change_document(tree: Any, chance: random.Random) -> Any:
    """A copy with something in it changed."""
    tree = copy.deepcopy(tree)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        places = _places(tree)
        if not places:
            return tree
        node, key = chance.choice(places)
        how = chance.randrange(5)
        if how < 3:
            was = node[key]
            near = [was + 1, was - 1, was * 1000, str(was), was + 0.5] if type(was) is int and abs(was) < 2**64 else []
            node[key] = chance.choice([*_values(), *near])
        elif how == 3:
            del node[key]
        elif isinstance(node, dict):
            node[chance.choice([*_TEXTS, "seed", "params"])] = chance.choice(_values())
        else:
            node.insert(key, node[key])
    return tree


def text_of(tree: Any, chance: random.Random) -> bytes:
    """The document as JSON, mostly."""
    text = json.dumps(tree, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 1]))
    data = text.encode(errors="surrogatepass")
    how = chance.randrange(25)
    if how == 0:
        data = data[: chance.randrange(len(data))]
    elif how == 1:
        at = chance.randrange(len(data))
        data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
    elif how == 2:
        at = data.index(b"{") + 1
        many = b"".join(b'"%d":0,' % i for i in range(3000))
        key = chance.choice(
            [b'"seed":1,', b'"layout":{},', b'"a":1,"a":2,', b'"shard":', b'"a":' + b"1" * 5000 + b",", many]
        )
        data = data[:at] + key + data[at:]
    elif how == 3:
        deep = chance.choice([100, 2000, 100_000])
        data = chance.choice(
            [b"[" * deep, b'{"params":' * deep, data[:-1] + b',"x":' + b"[" * deep + b"]" * deep + b"}"]
        )
    elif how == 4:
        data = chance.choice([b"\xef\xbb\xbf" + data, gzip.compress(data), text.encode("utf-16", "surrogatepass"), b"",
                              b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", b"\x00" * 99,
                              b"null", b"1", data + data, b"\xff" * 10])  # fmt: skip
    return data


def _made_whole(document: Any) -> Any:
    """A manifest's fingerprint and totals made to fit again, as far as that goes."""
    try:
        document["fingerprint"] = Identity(**document["dataset"]).fingerprint
        for name in document["totals"]:
            if name != "examples":
                document["totals"][name] = sum(entry[name] for entry in document["shards"])
        document["totals"]["examples"] = document["shards"][-1]["stop"]
    except (TypeError, KeyError, ValueError, IndexError, AttributeError, RecursionError):
        pass
    return document


def _sound_manifests(folder: Path) -> list[Any]:
    found = []
    for number, (task, params) in enumerate([("depo", {"N": 9, "K": 3}), ("brevo", {"N": 9}), ("mano", {"L": 2}),
                                             ("lano", {}), ("capo", {"num_people": 20})]):  # fmt: skip
        out = make(folder / f"sound-{number}", task=task, params=params, examples=20, shard_examples=10)
        found.append(json.loads((Path(out) / "_manifest").read_text()))
    return found


def manifest(folder: Path) -> Callable[[random.Random], None]:
    sound = _sound_manifests(folder)
    for document in sound:
        assert parse(json.dumps(document).encode(), "here").task().example(0, "train", 0)

    def case(chance: random.Random) -> None:
        document = change_document(chance.choice(sound), chance)
        if chance.random() < 0.7:
            document = _made_whole(document)
        found = parse(text_of(document, chance), "here")
        again = parse(found.to_json(), "there")
        assert (again.identity, again.layout, list(again.shards)) == (found.identity, found.layout, list(found.shards))

    return case


def plan(folder: Path) -> Callable[[random.Random], None]:
    sound = [small().as_dict(), small(format="arrow").as_dict()]
    for document in sound:
        assert plan_from_record(plan_record(json.dumps(document).encode(), "here"), "here").as_dict() == document

    def case(chance: random.Random) -> None:
        data = text_of(change_document(chance.choice(sound), chance), chance)
        found = plan_from_record(plan_record(data, "here"), "here")
        assert plan_from_record(found.as_dict(), "there").as_dict() == found.as_dict()

    return case


def journal(folder: Path) -> Callable[[random.Random], None]:
    wanted = small(4)
    build(wanted, str(folder), only_shards="0-2")
    (log,) = (folder / SCRATCH).glob("records-*")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    target = open_folder(str(folder))
    files = target.list()
    assert sorted(read_journals(target, wanted, files)) == [0, 1, 2]

    def case(chance: random.Random) -> None:
        crafted = [text_of(change_document(line, chance) if chance.random() < 0.7 else line, chance) for line in lines]
        log.write_bytes(b"\n".join(crafted))
        for index, entry in read_journals(target, wanted, files).items():
            assert (entry.start, entry.stop) == wanted.range(index)
            assert files[entry.path] == entry.bytes

    return case


def folder(folder: Path) -> Callable[[random.Random], None]:
    """Whole datasets whose manifest fits what is in it, and is not true."""
    outs = []
    for number, (task, params, name) in enumerate([("depo", {"N": 9, "K": 3}, "parquet"), ("lano", {}, "arrow"),
                                                   ("capo", {"num_people": 20}, "webdataset")]):  # fmt: skip
        out = make(folder / str(number), task=task, params=params, examples=20, shard_examples=10, format=name)
        outs.append((out, json.loads((Path(out) / "_manifest").read_text())))
    sides = [out for out, _ in outs]

    def case(chance: random.Random) -> None:
        out, sound = chance.choice(outs)
        document = copy.deepcopy(sound)
        entry = chance.choice(document["shards"])
        counts = [name for name in ("tokens", "loss_tokens", "characters") if name in entry]
        how = chance.randrange(4)
        if how == 0:
            for name in counts:
                entry[name] = chance.choice([0, 1, 10**6, 2**40, 2**63 - 1])
        elif how == 1:
            entry["bytes"], entry["sha256"] = chance.choice([(None, None), (1, entry["sha256"])])
        elif how == 2:
            params = document["dataset"]["params"]
            big = {
                "N": [65_535, 3],
                "max_tlen": [64],
                "num_people": [160_000_000],
                "exposures": [65_535],
                "M": [65_535],
            }
            for name in chance.sample(sorted(big), 2):
                if name in params:
                    params[name] = chance.choice(big[name])
        else:
            document = change_document(document, chance)
        path = Path(out) / "_manifest"
        path.write_text(json.dumps(_made_whole(document)))
        try:
            stored = open_stored(out)
            problems = verify(out, rederive=chance.random() < 0.3).problems
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", HealWarning)
                shards = Shards(stored, heal=chance.choice(["regenerate", "raise"]))
                for index, found in enumerate(stored.manifest.shards):
                    shards.read(index, 0, min(2, found.stop - found.start))
            if chance.random() < 0.2 and not problems:
                overlap(out, out)
        finally:
            path.write_text(json.dumps(sound))

    assert all(verify(out).ok for out in sides)
    return case


def overrides(folder: Path) -> Callable[[random.Random], None]:
    words = ["", "0", "-1", "1", "2", "3", "7", "64", "1_0", "٣", " 2 ", "1e3", "5.0", "0x10", "9" * 30, "9" * 5000,
             "true", "None", "null", "nan", "inf", "bios", "qa", "bos", "\x1b[2J", "x" * 3000, "S -> a b", "S -> S S",
             "/dev/null", "root -> 1 2\n1 -> a", "é", "\udc80", "65535", "[1]", "{}"]  # fmt: skip
    names = [*TASKS, *preset_names()]
    params = {name: list(TASKS[name][0].Params.__struct_fields__) for name in TASKS}

    def case(chance: random.Random) -> None:
        name = chance.choice(names)
        task = name if name in TASKS else chance.choice(list(TASKS))
        pairs = [
            f"{chance.choice([*params[task], 'x', ''])}={chance.choice(words)}" for _ in range(chance.randrange(1, 4))
        ]
        if chance.random() < 0.1:
            pairs.append(chance.choice(words))
        made = task_from_text(name, pairs)
        identity = made.identity(0, "train")
        assert sha256_of(json.dumps(identity.as_dict()).encode())

    return case

"""Crafted states of streams and settings of training runs for `fuzz` (these need torch)."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_documents import change_document
from fuzz_formats import NUMBERS
from small_datasets import make

from synthshards import open_dataset
from synthshards.errors import UsageError
from synthshards.loaders.order import state as states
from synthshards.params import parse
from synthshards.train.config.compose import compose
from synthshards.train.config.options import DataOptions, EvalOptions, LoggingOptions, TrainOptions
from synthshards.train.models import parse_options


def _change_lanes(text: str, chance: random.Random) -> str:
    """The cursors of packing lanes with numbers, or a letter, changed."""
    if chance.random() < 0.3:
        at = chance.randrange(len(text))
        return text[:at] + chance.choice("ABCDabcd0129+/=") + text[at + 1 :]
    pairs = np.frombuffer(base64.b64decode(text), "<u4").copy()
    for _ in range(chance.choice([1, 2])):
        pairs[chance.randrange(len(pairs))] = chance.choice([0, 1, 5, 31, 32, 100, 4096, 2**16, 2**31, 2**32 - 1])
    return base64.b64encode(pairs.tobytes()).decode()


def state(folder: Path) -> Callable[[random.Random], None]:
    out = make(folder / "rows", examples=300, shard_examples=100)
    opened = {"stored": open_dataset(out), "made": open_dataset("depo", N=9, K=3),
              "mixed": open_dataset({out: 1.0, "mano": 2.0})}  # fmt: skip
    streams = []
    for dataset in opened.values():
        for packing in ("pad", "concat", "paper", "best-fit"):
            stream = dataset.batches(4, seq_len=128, packing=packing, shuffle=dataset is opened["stored"])
            at = iter(stream)
            for _ in range(3):
                next(at)
            del at
            streams.append((stream, json.loads(json.dumps(stream.state_dict()))))

    def case(chance: random.Random) -> None:
        stream, sound = chance.choice(streams)
        document = json.loads(json.dumps(sound))
        if "stands" in document and chance.random() < 0.6:
            entry = chance.choice(document["stands"])
            if chance.random() < 0.7:
                entry["at"] = _change_lanes(entry["at"], chance)
            else:
                entry[chance.choice(["count", "least"])] = chance.choice(NUMBERS)
        elif chance.random() < 0.5:
            document[chance.choice(["epoch", "unit", "version"])] = chance.choice(NUMBERS)
        else:
            document = change_document(document, chance)
        if isinstance(document, dict) and chance.random() < 0.7:
            document = with_checksum(document)
        stream.load_state_dict(chance.choice([document, document, [document], [document, sound]]))
        try:
            for _, batch in zip(range(2), stream, strict=False):
                assert 0 <= int(batch["input_ids"].min()) <= int(batch["input_ids"].max()) < 1 << 20
        finally:
            stream.load_state_dict(sound)

    return case


def with_checksum(document: dict[str, Any]) -> dict[str, Any]:
    """The state with a checksum that fits, so that what stands behind it is tried, too."""
    try:
        return {**document, "checksum": states.checksum(document)}
    except (TypeError, ValueError, RecursionError):
        return document


def settings(folder: Path) -> Callable[[random.Random], None]:
    keys = ["train.max_steps", "train.batch_size", "train.learning_rate", "train.lr", "seed", "model", "dataset",
            "data.seed", "eval.every", "eval.packed_seq_len", "model.size", "dataset.N", "data.mixture", "output_dir",
            "x", "hydra.run", "+a.b", "~train", "++train.x", "train", "logging.wandb.enabled", "train.device",
            "data.path", ""]  # fmt: skip
    words = ["0", "-1", "1e400", "nan", "null", "true", "[]", "{}", "{depo:1,mano:2}", "{a:1}", "${seed}", "${x}", "",
             "${oc.env:X}", "'", "\x1b[2J", "gpt2", "mano", "../x", "9" * 400, "[[[[", "a,b", "a=b", "é",
             "x" * 3000]  # fmt: skip
    groups = {"train": TrainOptions, "eval": EvalOptions, "logging": LoggingOptions}
    compose([])

    def case(chance: random.Random) -> None:
        pairs = [f"{chance.choice(keys)}={chance.choice(words)}" for _ in range(chance.choice([1, 1, 2]))]
        config = compose(pairs)
        for name, kind in groups.items():
            if not isinstance(config[name], dict):
                raise UsageError(f"{name} is no group")
            parse(kind, config[name], name)
        parse(DataOptions, {key: value for key, value in config["data"].items() if key != "mixture_groups"}, "data")
        name, options = config["model"]["name"], {k: v for k, v in config["model"].items() if k != "name"}
        parse_options(name, options)

    return case

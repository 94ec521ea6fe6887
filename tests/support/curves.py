"""Curve runs that take a fraction of a second: the same command line as everybody's, with tiny models and tasks."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synthshards.train.config.compose import compose, given_of
from synthshards.train.run import Run

#: Depo with a vocabulary of 64.
DEPO = (
    "dataset.N=6", "dataset.K=4", "dataset.mini_vocab=6", "dataset.max_tlen=1", "dataset.query_token_base=20",
    "dataset.answer_token_id=40", "dataset.separator_token_id=41",
)  # fmt: skip
BREVO = (
    "dataset=brevo1", "dataset.N=6", "dataset.bos_token_id=60", "dataset.query_token_id=61",
    "dataset.answer_token_id=62", "dataset.eos_token_id=63",
)  # fmt: skip
MANO = ("dataset=mano", "dataset.L=2", "dataset.value_mod=5", "dataset.bos_token_id=60", "model.vocab_size=5100")
LANO = (
    "dataset=lano", "dataset.grammar=drawn", "dataset.depth=2", "dataset.symbols=2", "dataset.min_degree=2",
    "dataset.max_degree=2", "dataset.min_rule_length=2", "dataset.max_rule_length=2",
)  # fmt: skip
CAPO = ("dataset=capo", "dataset.num_people=6", "dataset.exposures=4", "model.vocab_size=4000", "model.n_positions=256")
#: Two tasks in a vocabulary of 41 + 5,005 ids.
MIXTURE = (
    "data.mixture={depo1: 2, mano: 1}", "model.vocab_size=5046",
    "data.mixture_params={depo1: {N: 6, K: 2, mini_vocab: 6, max_tlen: 1, query_token_base: 20, answer_token_id: 40, "
    "separator_token_id: 41}, mano: {L: 1, value_mod: 5, bos_token_id: 60}}",
)  # fmt: skip
TASKS = {"depo": DEPO, "brevo": BREVO, "mano": MANO, "lano": LANO, "capo": CAPO}
GPT2 = (
    "model=tiny_gpt2", "model.vocab_size=64", "model.n_positions=128", "model.n_embd=16", "model.n_layer=1",
    "model.n_head=2",
)  # fmt: skip
RECURRENT = (
    "model=recurrent_olmo3", "model.hf.vocab_size=64", "model.hf.hidden_size=16", "model.hf.intermediate_size=24",
    "model.hf.num_hidden_layers=3", "model.recurrent.loop_layers=1", "model.hf.num_attention_heads=2",
    "model.hf.num_key_value_heads=2", "model.hf.eos_token_id=1", "model.recurrent.num_loops=2",
)  # fmt: skip
BRIEF = (
    "train.max_steps=6", "train.eval_every_steps=3", "train.batch_size=4", "train.learning_rate=0.01",
    "eval.num_examples_per_hop=5",
)  # fmt: skip


def make_run(folder: Path, *overrides: str, say: Any = lambda line: None, base: Sequence[str] = (*GPT2, *BRIEF)) -> Run:
    """A run in this process; later overrides win."""
    last = {one.partition("=")[0]: one for one in (*base, *overrides)}
    settings = [*last.values(), f"output_dir={folder}"]
    return Run(compose(settings), given_of(settings), say)


def run(folder: Path, *overrides: str, base: Sequence[str] = (*GPT2, *BRIEF)) -> Run:
    """The same, run to its end."""
    made = make_run(folder, *overrides, base=base)
    made.run()
    return made


def only_csv(folder: Path) -> bytes:
    """The bytes of the one CSV of a folder."""
    (path,) = folder.glob("*.csv")
    return path.read_bytes()


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV."""
    with path.open() as file:
        return list(csv.DictReader(file))


def files(folder: Path) -> set[str]:
    """The paths of everything under a folder, relative to it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} if folder.exists() else set()

"""`synthshards train`: what it prints for each task, the same from shards, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from curves import GPT2, TASKS, files
from helpers import Ended

Cli = Callable[..., Ended]
TINY = ("train.max_steps=3", "train.batch_size=4", "eval.num_examples_per_hop=5", "train.learning_rate=0.01")
NUMBER = r"-?\d+(\.\d+)?(e[+-]\d+)?"
EXTRA = {"lano": rf"  kl {NUMBER}", "capo": rf"  bits {NUMBER}  bits_per_parameter {NUMBER}"}


@pytest.fixture(autouse=True)
def _elsewhere(one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current folder in which a file that should not be written would be seen."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def settings(*overrides: str) -> list[str]:
    return list({one.partition("=")[0]: one for one in (*GPT2, *TINY, *overrides)}.values())


@pytest.mark.parametrize("task", TASKS)
def test_lines_of_each_task(task: str, cli: Cli, tmp_path: Path) -> None:
    ended = cli("train", *settings(*TASKS[task]))
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    sets = ["hop_1", "hop_2", "hop_4"] if task == "depo" else [task]
    assert len(lines) == 3 + len(sets) + 1
    for number, line in enumerate(lines[:3], 1):
        assert re.fullmatch(rf"step   {number}  loss \d+\.\d{{4}}", line), line
    for name, line in zip(sets, lines[3:-1], strict=True):
        score = rf"{name}: whole answers \d\.\d{{4}} ± \d\.\d{{4}}  answer tokens \d\.\d{{4}}  with marks \d\.\d{{4}}"
        assert re.fullmatch(score + EXTRA.get(task, ""), line), line
    assert lines[-1] == "first row valid: True"
    assert files(tmp_path / "here") == set()


def test_shards_give_the_same_lines(cli: Cli, tmp_path: Path) -> None:
    pairs = [one.removeprefix("dataset.") for one in TASKS["depo"]]
    assert cli("build", "depo", *pairs, "--examples", 30, "--seed", 123, "--out", tmp_path / "data").code == 0
    fly = cli("train", *settings(*TASKS["depo"]))
    stored = cli("train", *settings(f"data.path={tmp_path / 'data'}"))
    other = cli("train", *settings(*TASKS["depo"], "seed=124"))
    assert fly.out == stored.out != other.out
    assert fly.out == cli("train", *settings(*TASKS["depo"])).out


def test_it_learns(cli: Cli) -> None:
    """A task of one hop among six words: a tenth of a second of training is enough to be sure of more than chance."""
    ended = cli("train", *settings(*TASKS["depo"], "train.max_steps=60", "eval.hops=[1]"))
    losses = [float(x) for x in re.findall(r"loss (\S+)", ended.out)]
    assert sum(losses[-10:]) / 10 < 0.6 * losses[0]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.schedule=cosine", "train.schedule says nothing here: the minimal example leaves it out"),
        ("data.mixture={depo1:1,mano:1}", "data.mixture says nothing here"),
        ("logging.jsonl=false", "logging.jsonl says nothing here"),
        ("output_dir=x", "no setting 'output_dir'"),
        ("model.vocab_size=40", "the largest token id of depo is 40; legal: 41 or more"),
        ("eval.hops=[9]", "eval.hops: 9 is above dataset.K=4; legal: 1..4"),
        ("train.max_step=1", "train: no key 'max_step'; did you mean 'max_steps'?"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(override: str, line: str, cli: Cli, tmp_path: Path) -> None:
    ended = cli("train", *settings(*TASKS["depo"], override))
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert line in ended.err
    assert files(tmp_path / "here") == set()

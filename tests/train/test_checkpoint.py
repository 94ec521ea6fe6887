"""Going on: a run that was stopped anywhere and resumed ends as one that was not, bit for bit on a CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from curves import BRIEF, CAPO, DEPO, GPT2, MIXTURE, RECURRENT, make_run, only_csv, table
from helpers import Ended

from synthshards.errors import DataError, UsageError
from synthshards.train import evaluator, run
from synthshards.train.loop import checkpoint
from synthshards.train.loop.signals import Terminated

STEPS = 9
BASE = (*GPT2, *BRIEF, f"train.max_steps={STEPS}", "train.eval_every_steps=4", "train.checkpoint_every=3")
PACKED = ("train.packing=concat", "train.seq_len=48")
CASES = {
    "dropout and cosine": (BASE, (*DEPO, "train.schedule=cosine", "train.warmup_steps=2", "train.num_workers=2")),
    "recurrent, random depth": (
        (*RECURRENT, *BASE[len(GPT2) :], "model.recurrent.train_recursion_mode=poisson",
         "model.recurrent.random_init_loop_state=true", "model.recurrent.inject_input_each_step=true"),
        DEPO,
    ),
    "packed, accumulated": (BASE, (*DEPO, *PACKED, "train.gradient_accumulation_steps=2", "train.num_examples=20")),
    "mixture": (BASE, MIXTURE),
}  # fmt: skip


class Killed(BaseException):
    """What ends a run here, as a kill would: nothing that it could still do comes after."""


pytestmark = pytest.mark.usefixtures("no_pictures")  # tests share the machine


def csvs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.csv")}


def whole(folder: Path, base: tuple[str, ...], overrides: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """The final weights of a run, with those that the optimizer goes on with."""
    made = make_run(folder, *overrides, "train.resume=auto", base=base)
    made.run()
    moments = made.optimizer.state_dict()["state"]
    flat = {f"{i}.{name}": value for i, state in moments.items() for name, value in state.items()}
    return {**made.model.state_dict(), **flat}


def stopped_at(
    monkeypatch: pytest.MonkeyPatch, step: int, folder: Path, base: tuple[str, ...], overrides: tuple[str, ...],
    how: type[BaseException] = Killed,
) -> None:  # fmt: skip
    """The same run, ended in the middle of a step: its batch is taken, its gradients are there, it has not moved."""
    plain = run.train_step
    made = make_run(folder, *overrides, "train.resume=auto", base=base)

    def broken(*args: Any) -> float:
        if made.step + 1 == step:
            torch.rand(1)  # dropout has drawn
            raise how
        return plain(*args)

    with monkeypatch.context() as patched:
        patched.setattr(run, "train_step", broken)
        with pytest.raises(how):
            made.run()


@pytest.mark.parametrize("case", CASES)
def test_killed_and_resumed_is_bit_for_bit_the_whole_run(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, overrides = CASES[case]
    expected = whole(tmp_path / "whole", base, overrides)
    assert len(csvs(tmp_path / "whole")) == (2 if case == "mixture" else 1)
    for step in (3, 5, 9):  # before any checkpoint, behind the one at 3, behind that at 6
        folder = tmp_path / str(step)
        stopped_at(monkeypatch, step, folder, base, overrides)
        assert (folder / "checkpoint.pt").exists() == (step > 3)
        again = whole(folder, base, overrides)
        assert csvs(folder) == csvs(tmp_path / "whole")
        assert again.keys() == expected.keys()
        assert all(torch.equal(again[name], expected[name]) for name in expected)


def test_a_second_resumption_and_a_finished_run_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = whole(tmp_path / "whole", BASE, DEPO)
    for step in (5, 8):
        stopped_at(monkeypatch, step, tmp_path / "twice", BASE, DEPO)
    again = whole(tmp_path / "twice", BASE, DEPO)
    assert all(torch.equal(again[name], expected[name]) for name in expected)
    assert only_csv(tmp_path / "twice") == only_csv(tmp_path / "whole")
    third = whole(tmp_path / "twice", BASE, DEPO)
    assert all(torch.equal(third[name], expected[name]) for name in expected)
    assert only_csv(tmp_path / "twice") == only_csv(tmp_path / "whole")


def test_text_goes_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = (*CAPO, "train.packing=paper", "train.seq_len=96", "dataset.qa_share=0.3")
    expected = whole(tmp_path / "whole", BASE, settings)
    stopped_at(monkeypatch, 5, tmp_path / "cut", BASE, settings)
    again = whole(tmp_path / "cut", BASE, settings)
    assert all(torch.equal(again[name], expected[name]) for name in expected)
    assert only_csv(tmp_path / "cut") == only_csv(tmp_path / "whole")


def test_the_record_of_a_resumed_run_is_of_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_at(monkeypatch, 5, tmp_path, BASE, DEPO)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    state["timer"]["spent"] += 1000.0
    state["timer"]["evaluated"] += 500.0
    checkpoint.save(tmp_path, state)
    whole(tmp_path, BASE, DEPO)
    for _ in range(2):  # the second time nothing is left to do
        record = json.loads((tmp_path / "run.json").read_text())
        assert record["wall_seconds"] > 1000
        assert record["evaluation_seconds"] > 500
        assert record["train_tokens_per_second"] > 0
        rows = make_run(tmp_path / "x", *DEPO).train_tasks[0].task.batch(42, "train", 0, 4 * STEPS)
        assert (record["steps"], record["tokens_seen"], record["rows_seen"]) == (
            STEPS,
            int(rows.offsets[-1]),
            4 * STEPS,
        )
        whole(tmp_path, BASE, DEPO)


# Ctrl-C ------------------------------------------------------------------------------------------------------------


def interrupted(
    monkeypatch: pytest.MonkeyPatch, folder: Path, where: str, step: int, *numbers: signal.Signals
) -> list[str]:
    """A run without periodic checkpoints that hears signals inside a step or an evaluation; what it said."""
    said: list[str] = []
    made = make_run(
        folder, *DEPO, "train.resume=auto", "train.checkpoint_every=0", "train.stop_on_usr1=true", base=BASE,
        say=said.append,
    )  # fmt: skip
    module = run if where == "train_step" else evaluator
    plain = getattr(module, where)

    def heard(*args: Any) -> Any:
        now = made.step + 1 if where == "train_step" else made.step
        if now == step:
            for number in numbers:
                os.kill(os.getpid(), number)
                time.sleep(0)  # Python calls handlers between two of its instructions
        return plain(*args)

    with monkeypatch.context() as patched:
        patched.setattr(module, where, heard)
        with pytest.raises(KeyboardInterrupt if numbers[0] == signal.SIGINT else Terminated):
            made.run()
    return said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize(("where", "step"), [("train_step", 5), ("scores", 4)])
def test_other_signals_write_a_checkpoint_too_however_often_they_come(
    number: signal.Signals, where: str, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGUSR1)]
    expected = whole(tmp_path / "whole", BASE, (*DEPO, "train.checkpoint_every=0"))
    said = interrupted(monkeypatch, tmp_path / "cut", where, step, number, signal.SIGTERM)
    assert said[-1] == f"stopped at step {step}; train.resume=auto with output_dir={tmp_path / 'cut'} goes on"
    assert said[-2] == f"{number.name}: stopping after this step"
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGUSR1)] == before
    again = whole(tmp_path / "cut", BASE, (*DEPO, "train.checkpoint_every=0"))
    assert all(torch.equal(again[name], expected[name]) for name in expected)
    assert only_csv(tmp_path / "cut") == only_csv(tmp_path / "whole")


def test_the_second_signal_may_come_while_the_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Slurm sends it to every process, and torchrun passes it on."""
    plain = checkpoint.save

    def saved(*args: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        plain(*args)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", saved)
        interrupted(monkeypatch, tmp_path, "train_step", 5, signal.SIGTERM)
    assert (tmp_path / "checkpoint.pt").exists()


def test_under_torchrun_a_second_ctrl_c_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    interrupted(monkeypatch, tmp_path, "train_step", 5, signal.SIGINT, signal.SIGINT)
    assert (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize(("where", "step"), [("train_step", 1), ("train_step", 5), ("scores", 4), ("scores", 9)])
def test_ctrl_c_writes_a_checkpoint_that_goes_on(
    where: str, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGINT)
    expected = whole(tmp_path / "whole", BASE, (*DEPO, "train.checkpoint_every=0"))
    said = interrupted(monkeypatch, tmp_path / "cut", where, step, signal.SIGINT)
    assert said[-1] == f"stopped at step {step}; train.resume=auto with output_dir={tmp_path / 'cut'} goes on"
    assert signal.getsignal(signal.SIGINT) is before
    again = whole(tmp_path / "cut", BASE, (*DEPO, "train.checkpoint_every=0"))
    assert all(torch.equal(again[name], expected[name]) for name in expected)
    assert only_csv(tmp_path / "cut") == only_csv(tmp_path / "whole")


def test_a_second_ctrl_c_ends_at_once_and_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_at(monkeypatch, 5, tmp_path / "run", BASE, DEPO, how=KeyboardInterrupt)
    state = checkpoint.load(tmp_path / "run", checkpoint.digest_of(config_of(tmp_path / "run")))
    assert state is not None
    assert state["step"] == 3


@pytest.mark.slow
def test_the_command_ends_with_130_after_ctrl_c_and_143_after_sigterm_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    settings = {one.partition("=")[0]: one for one in (*BASE, *DEPO, "train.resume=auto")}
    settings["train.max_steps"], settings["train.eval_every_steps"] = "train.max_steps=60", "train.eval_every_steps=10"
    settings["eval.hops"] = "eval.hops=[1]"
    ended = []
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, None):
        command = [sys.executable, "-m", "synthshards", "curve", *settings.values(), f"output_dir={tmp_path / 'cut'}"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert child.stdout is not None
        for line in child.stdout:
            if number is not None and line.startswith("step") and (number == signal.SIGKILL or "step 1/" not in line):
                child.send_signal(number)
                break
        child.stdout.read()
        ended.append(child.wait())
        child.stdout.close()
    assert ended == [-signal.SIGKILL, 130, 143, 0]
    whole(tmp_path / "whole", tuple(settings.values()), ())
    assert only_csv(tmp_path / "cut") == only_csv(tmp_path / "whole")


# What is refused ---------------------------------------------------------------------------------------------------


def config_of(folder: Path, *overrides: str) -> Any:
    return make_run(folder, *DEPO, *overrides, "train.resume=auto", base=BASE).config


def test_what_a_checkpoint_may_be_resumed_with(tmp_path: Path) -> None:
    first = checkpoint.digest_of(config_of(tmp_path / "a"))
    free = ("train.num_workers=2", "train.checkpoint_every=1", "train.log_every_steps=2", "logging.jsonl=false")
    assert checkpoint.digest_of(config_of(tmp_path / "b", *free)) == first
    for other in ("train.learning_rate=0.02", "seed=1", "dataset.K=3", "model.n_embd=32", "train.max_steps=10"):
        assert checkpoint.digest_of(config_of(tmp_path / "a", other)) != first, other


def test_the_checkpoint_of_another_configuration_is_refused(tmp_path: Path, cli: Callable[..., Ended]) -> None:
    whole(tmp_path, BASE, DEPO)
    kept = (tmp_path / "checkpoint.pt").read_bytes(), only_csv(tmp_path)
    last = {one.partition("=")[0]: one for one in (*BASE, *DEPO, "train.resume=auto", "train.learning_rate=0.02")}
    ended = cli("curve", *last.values(), f"output_dir={tmp_path}")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert (
        "checkpoint.pt is of a run with another configuration; legal: train.resume=no, another output_dir" in ended.err
    )
    assert ((tmp_path / "checkpoint.pt").read_bytes(), only_csv(tmp_path)) == kept


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    """In a weight, which torch would take as it is."""
    checkpoint.save(tmp_path, {"config": "x", "weights": torch.full((1000,), 1.0)})
    path = tmp_path / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    content[content.index(b"\x80\x3f" * 2) if b"\x80\x3f" * 2 in content else content.index(b"\x00\x00\x80\x3f")] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"checkpoint.pt: not a checkpoint \([^\n]*data/0 is damaged\)$"):
        checkpoint.load(tmp_path, "x")


@pytest.mark.parametrize(
    "field", ["ranks", "step", "model", "optimizer", "tables", "seen", "timer", "id", "diverged_at"]
)
def test_a_checkpoint_with_other_contents_is_refused(field: str, tmp_path: Path) -> None:
    made = make_run(tmp_path, *DEPO, "train.resume=auto", "train.max_steps=1", base=BASE)
    made._save(checkpoint.digest_of(made.config))
    whole_state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del whole_state[field]
    torch.save(whole_state, tmp_path / "checkpoint.pt")
    with pytest.raises(DataError, match=r"checkpoint.pt: damaged \([^\n]*\); legal: train.resume=no$"):
        make_run(tmp_path, *DEPO, "train.resume=auto", "train.max_steps=1", base=BASE).run()


@pytest.mark.parametrize("cut", [0, 10, 1000, -1])
def test_a_truncated_checkpoint_is_refused(cut: int, tmp_path: Path) -> None:
    made = make_run(tmp_path, *DEPO, "train.resume=auto", base=BASE)
    made.run()
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"checkpoint.pt: not a checkpoint \([^\n]+\)$"):
        make_run(tmp_path, *DEPO, "train.resume=auto", base=BASE).run()
    assert len(table(tmp_path / "depo_hop_metrics.csv")) == 4 * 3


def test_other_files_and_other_ranks_are_refused(tmp_path: Path) -> None:
    made = make_run(tmp_path, *DEPO, "train.resume=auto", base=BASE)
    digest = checkpoint.digest_of(made.config)
    torch.save({"some": "thing"}, tmp_path / "checkpoint.pt")
    with pytest.raises(DataError, match=r"not a checkpoint"):
        checkpoint.load(tmp_path, digest)
    torch.save({"version": 99, "config": digest}, tmp_path / "checkpoint.pt")
    with pytest.raises(DataError, match=r"checkpoint.pt: of version 99; legal: 3"):
        checkpoint.load(tmp_path, digest)
    checkpoint.save(tmp_path, {"config": digest, "ranks": [{}, {}]})
    with pytest.raises(UsageError, match=r"is of 2 ranks, and this run has 1; legal: as many, or train.resume=no"):
        made.run()

"""`synthshards curve`: what it writes, and that shards give the curve of rows on the fly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from curves import BRIEF, CAPO, DEPO, GPT2, LANO, MANO, MIXTURE, RECURRENT, TASKS, files, make_run, only_csv, run, table
from helpers import Ended

import synthshards
from synthshards.errors import UsageError

Cli = Callable[..., Ended]
TOKENS = ["token_accuracy", "token_standard_error", "answer_token_accuracy", "answer_token_standard_error"]
COMMON = ["accuracy", "standard_error", "count", *TOKENS]
COLUMNS = {
    "depo": ["hop", *COMMON],
    "brevo": COMMON,
    "mano": COMMON,
    "lano": ["accuracy", "kl", "kl_standard_error", *COMMON[1:]],
    "capo": [
        "accuracy", "bits", "bits_per_parameter", "bits_standard_error", "bits_per_parameter_standard_error", "p1",
        "p2", "biographies", *COMMON[1:],
    ],
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("no_pictures")  # tests share the machine


def build(cli: Cli, folder: Path, *overrides: str, form: str = "parquet", rows: int = 64, seed: int = 42) -> Path:
    """Shards of the tiny Depo."""
    pairs = [one.removeprefix("dataset.") for one in (*DEPO, *overrides)]
    done = cli(
        "build", "depo", *pairs, "--examples", rows, "--shard-examples", 10, "--seed", seed, "--format", form,
        "--out", folder,
    )  # fmt: skip
    assert done.code == 0, done.err
    return folder


# What is written ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_files_and_columns_of_each_task(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # with pictures
    run(tmp_path, *TASKS[task], "train.max_steps=4", "train.eval_every_steps=3")
    stem = "depo_hop" if task == "depo" else task
    own = {"tokenizer.json"} if task == "capo" else set()
    written = {f"{stem}_metrics.csv", f"{stem}_curve.png", f"{stem}_curve.svg", "config.yaml", "run.json", "log.jsonl"}
    assert files(tmp_path) == written | own
    rows = table(tmp_path / f"{stem}_metrics.csv")
    assert list(rows[0]) == ["step", "examples_seen", *COLUMNS[task], "tokens_seen", "rows_seen"]
    assert [int(r["rows_seen"]) for r in rows] == [int(r["examples_seen"]) for r in rows]  # padded
    hops = ["1", "2", "4"] if task == "depo" else [None]
    assert [(r["step"], r["examples_seen"], r.get("hop")) for r in rows] == [
        (step, seen, hop) for step, seen in (("1", "4"), ("3", "12"), ("4", "16")) for hop in hops
    ]
    assert all(0 <= float(r["accuracy"]) <= 1 for r in rows)
    assert (tmp_path / f"{stem}_curve.png").read_bytes()[:4] == b"\x89PNG"
    assert b"</svg>" in (tmp_path / f"{stem}_curve.svg").read_bytes()


def test_record_and_config(tmp_path: Path) -> None:
    made = run(tmp_path, *DEPO)
    record = json.loads((tmp_path / "run.json").read_text())
    (data,) = record["data"]
    assert data["fingerprint"] == made.train_tasks[0].dataset.fingerprint
    assert data["identity"]["params"]["N"] == 6
    assert data["identity"]["split"] == "train"
    assert [(e["name"], e["split"], e["rows"]) for e in record["eval"]] == [(f"hop_{h}", "eval", 5) for h in (1, 2, 4)]
    assert record["eval"][0]["fingerprint"] != record["eval"][1]["fingerprint"] != data["fingerprint"]
    assert (record["steps"], record["examples_seen"], record["device"], record["world_size"]) == (6, 24, "cpu", 1)
    rows = made.train_tasks[0].task.batch(42, "train", 0, 24)
    assert (record["rows_seen"], record["tokens_seen"]) == (24, int(rows.offsets[-1]))
    assert record["versions"]["torch"] == torch.__version__
    assert record["versions"]["synthshards"] == synthshards.__version__
    assert 0 <= record["waiting_for_data_seconds"] <= record["wall_seconds"]
    assert record["parameters"] == sum(p.numel() for p in made.model.parameters())
    from omegaconf import OmegaConf

    again = OmegaConf.to_container(OmegaConf.load(tmp_path / "config.yaml"), resolve=True)
    assert again == made.config
    assert isinstance(again, dict)
    assert (again["data"]["seed"], again["train"]["max_steps"]) == (42, 6)


def test_names_of_files_are_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    run(tmp_path, *DEPO, "metrics_file=m.csv", "plot_file=p.pdf", "train.max_steps=1")
    assert files(tmp_path) == {"m.csv", "p.pdf", "p.svg", "config.yaml", "run.json", "log.jsonl"}
    assert (tmp_path / "p.pdf").read_bytes()[:4] == b"%PDF"


def test_the_model_is_saved_on_request(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    made = run(tmp_path, *DEPO, "train.save_model=true", "train.max_steps=2")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    for name, weight in made.model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name


def test_another_seed_is_another_curve_and_the_same_seed_the_same(tmp_path: Path) -> None:
    one, two, three = (tmp_path / name for name in "abc")
    run(one, *DEPO, "seed=1")
    run(two, *DEPO, "seed=1")
    run(three, *DEPO, "seed=2")
    assert only_csv(one) == only_csv(two) != only_csv(three)


# Shards and rows on the fly ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_shards_give_the_curve_of_rows_on_the_fly(form: str, tmp_path: Path, cli: Cli) -> None:
    shards = build(cli, tmp_path / "data", form=form)
    run(tmp_path / "fly", *DEPO)
    run(tmp_path / "shards", "dataset=depo1", f"data.path={shards}")
    assert only_csv(tmp_path / "fly") == only_csv(tmp_path / "shards")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("packing", [(), ("train.packing=concat", "train.seq_len=48")])
def test_the_next_epoch_begins_at_num_examples(
    workers: int, packing: tuple[str, ...], tmp_path: Path, cli: Cli
) -> None:
    shards = build(cli, tmp_path / "data")
    often = ("train.num_examples=10", "train.max_steps=7", *packing)
    run(tmp_path / "fly", *DEPO, *often)
    run(tmp_path / "shards", f"data.path={shards}", *often, f"train.num_workers={workers}")
    run(tmp_path / "longer", *DEPO, "train.max_steps=7", *packing)
    assert only_csv(tmp_path / "fly") == only_csv(tmp_path / "shards")
    assert only_csv(tmp_path / "fly") != only_csv(tmp_path / "longer")


def test_shards_in_an_object_store(tmp_path: Path, cli: Cli, s3_url: str) -> None:
    pairs = [one.removeprefix("dataset.") for one in DEPO]
    assert cli("build", "depo", *pairs, "--examples", 30, "--seed", 42, "--out", s3_url).code == 0
    run(tmp_path / "fly", *DEPO)
    run(tmp_path / "shards", f"data.path={s3_url}")
    assert only_csv(tmp_path / "fly") == only_csv(tmp_path / "shards")


@pytest.mark.parametrize("packing", ["concat", "paper", "best-fit"])
def test_windows_are_counted_as_the_rows_and_tokens_in_them(packing: str, tmp_path: Path) -> None:
    made = make_run(tmp_path, *DEPO, f"train.packing={packing}", "train.seq_len=48", "train.num_workers=2")
    again = make_run(tmp_path, *DEPO, f"train.packing={packing}", "train.seq_len=48")
    batches, begun, tokens = iter(again.loader.stream), set(), 0
    for _ in range(made.train.max_steps):
        batch = next(batches)
        tokens += int((batch["index"] >= 0).sum())
        begun |= set(batch["index"][(batch["index"] >= 0)].tolist())
    made.run()
    (path,) = tmp_path.glob("*.csv")
    last = table(path)[-1]
    assert (int(last["examples_seen"]), int(last["tokens_seen"]), int(last["rows_seen"])) == (24, tokens, len(begun))


def test_the_end_of_an_epoch_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    make_run(tmp_path / "a", *DEPO, "train.num_examples=5", "train.max_steps=6", say=said.append).run()
    assert [line for line in said if "epoch" in line] == [
        f"step {step}: epoch {ended} of depo has ended: its 5 rows begin again"
        for step, ended in ((2, 1), (3, 2), (5, 4))
    ]
    said.clear()
    made = make_run(tmp_path / "b", *DEPO, say=said.append)
    made.run()
    assert made.train_tasks[0].dataset.num_examples is None  # by default there is no end
    assert not any("epoch" in line for line in said)
    mixed = make_run(tmp_path / "c", *MIXTURE, "train.num_examples=4", "train.max_steps=2", say=said.append)
    mixed.run()
    assert [line for line in said if "epoch" in line] == ["step 2: epoch 1 of depo1 has ended: its 4 rows begin again"]


def test_a_seed_that_draws_no_weights_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    make_run(tmp_path / "none", *DEPO).built.model.save_pretrained(tmp_path / "model")
    base = ("model=from_pretrained", f"model.name_or_path={tmp_path / 'model'}", *BRIEF)
    make_run(tmp_path / "run", *DEPO, "seed=3", base=base, say=said.append).run()
    assert said[0].startswith("seed=3 changes none of the model's ")
    said.clear()
    make_run(tmp_path / "random", *DEPO, "seed=3", say=said.append).run()
    assert not any("seed" in line for line in said)


def test_the_manifest_wins_over_defaults(tmp_path: Path, cli: Cli) -> None:
    shards = build(cli, tmp_path / "data", seed=7)
    made = make_run(tmp_path / "run", f"data.path={shards}", "dataset.N=6", "data.seed=7")
    assert made.train_tasks[0].task.params.N == 6
    assert {one.seed for one in made.evaluator.sets[0]} == {7}


# What is refused ------------------------------------------------------------------------------------------------------


def test_rows_that_only_training_meets_need_room_too(tmp_path: Path) -> None:
    few = (*LANO, "dataset.max_rule_length=3", "eval.num_examples_per_hop=1", "model.n_positions=9", "seed=2")
    make_run(tmp_path, *few, "train.max_steps=1", "train.batch_size=1")
    with pytest.raises(UsageError, match=r"model.n_positions=9 is too short: the longest row of lano has 10 tokens"):
        make_run(tmp_path, *few, "train.max_steps=30")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("dataset.N=5", "dataset.N=5, and {} has 6; legal: that, or leave it out"),
        ("data.seed=43", "data.seed=43, and {} has 42"),
        ("dataset=mano", "dataset.task='mano', and {} has 'depo'"),
        ("dataset.K=-1", "K=-1 is not legal"),
    ],
)
def test_what_differs_from_the_manifest_is_refused(override: str, line: str, tmp_path: Path, cli: Cli) -> None:
    shards = build(cli, tmp_path / "data")
    ended = cli("curve", *GPT2, *BRIEF, f"data.path={shards}", override, f"output_dir={tmp_path / 'out'}")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert line.format(shards) in ended.err
    assert not (tmp_path / "out").exists()


# The command -------------------------------------------------------------------------------------------------------


def test_several_seeds_have_a_folder_each(tmp_path: Path, cli: Cli) -> None:
    ended = cli("curve", *GPT2, *BRIEF, *DEPO, "--multirun", "seed=1,2", f"output_dir={tmp_path / 'out'}")
    assert (ended.code, ended.err) == (0, "")
    run(tmp_path / "one", *DEPO, "seed=1")
    run(tmp_path / "two", *DEPO, "seed=2")
    assert only_csv(tmp_path / "out" / "0") == only_csv(tmp_path / "one")
    assert only_csv(tmp_path / "out" / "1") == only_csv(tmp_path / "two")


def test_the_default_model_on_the_default_task(tmp_path: Path, cli: Cli) -> None:
    ended = cli("curve", "train.max_steps=2", "train.batch_size=2", "eval.num_examples_per_hop=2",
                f"output_dir={tmp_path}")  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    assert "step 2/2  4 rows  loss" in ended.out
    assert {row["hop"] for row in table(tmp_path / "depo_hop_metrics.csv")} == {"1", "2", "4", "8"}


def test_the_tokenizer_of_a_pretrained_model_replaces_special_ids(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(50)} | {"<s>": 50, "<sep>": 51, "<pad>": 52}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "w0")), bos_token="<s>", sep_token="<sep>", pad_token="<pad>"
    )
    made = make_run(tmp_path / "none", *DEPO)
    made.built.model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    base = ("model=from_pretrained", f"model.name_or_path={tmp_path / 'model'}", *BRIEF)
    taken = run(tmp_path / "run", *DEPO, "dataset.separator=true", base=base)
    p = taken.train_tasks[0].task.params
    assert (p.bos_token_id, p.separator_token_id) == (50, 51)
    asked = [one.task.params for one in taken.evaluator.sets[0]]
    assert {(p.bos_token_id, p.separator_token_id) for p in asked} == {(50, 51)}
    batch = next(iter(taken.loader.stream))
    assert set(batch["input_ids"][batch["attention_mask"] == 0].tolist()) == {52}
    assert set(batch["input_ids"][:, 0].tolist()) == {50}
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["data"][0]["identity"]["params"]["bos_token_id"] == 50


def test_a_recurrent_model_and_mano_run_too(tmp_path: Path) -> None:
    base = (*RECURRENT, *BRIEF, "model.recurrent.train_recursion_mode=poisson", "model.recurrent.act.enabled=true")
    run(tmp_path / "a", *DEPO, base=base)
    run(tmp_path / "b", *DEPO, base=base)
    assert only_csv(tmp_path / "a") == only_csv(tmp_path / "b")
    packed = ("train.packing=paper", "train.seq_len=64", "eval.packed_seq_len=64", "train.isolate=false")
    run(tmp_path / "c", *MANO, *packed)
    assert len(table(tmp_path / "c" / "mano_metrics.csv")) == 3


def test_questions_among_biographies(tmp_path: Path) -> None:
    made = run(
        tmp_path, *CAPO, "dataset.qa_share=0.5", "train.packing=paper", "train.seq_len=128", "train.batch_size=8"
    )
    assert made.train_tasks[0].training_rows() is not made.train_tasks[0].dataset
    batch = next(iter(made.loader.stream))
    assert set(batch["source"].tolist()) == {0, 1}
    assert {row["step"] for row in table(tmp_path / "capo_metrics.csv")} == {"1", "3", "6"}


# A kill ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_run_leaves_a_readable_csv(tmp_path: Path) -> None:
    """SIGKILL at moments that a fixed sequence spreads over the run, while it evaluates after every step."""
    for number, delay in enumerate((0.0, 0.31)):
        folder = tmp_path / str(number)
        settings = (*GPT2, *BRIEF, *DEPO, "train.max_steps=100000", "train.eval_every_steps=1", "eval.hops=[1]")
        last = {one.partition("=")[0]: one for one in settings}
        command = [sys.executable, "-m", "synthshards", "curve", *last.values(), f"output_dir={folder}"]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
        try:
            end = time.monotonic() + 60
            while not (folder / "depo_hop_metrics.csv").exists() and time.monotonic() < end:
                time.sleep(0.02)
            time.sleep(delay)
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        rows = table(folder / "depo_hop_metrics.csv")
        assert [int(row["step"]) for row in rows] == list(range(1, len(rows) + 1))
        assert all(None not in row.values() and row["token_accuracy"] for row in rows)
        assert json.loads((folder / "run.json").read_text())["data"]

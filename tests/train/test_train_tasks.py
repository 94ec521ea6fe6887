"""Several tasks in one vocabulary: the scheme of ids, and that each task's metric sees its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from curves import BRIEF, CAPO, GPT2, MIXTURE, files, make_run, run, table
from torch import Tensor, nn

from synthshards import make_task
from synthshards.errors import UsageError
from synthshards.train.config.options import EvalOptions
from synthshards.train.data.batches import shifted
from synthshards.train.data.eval_sets import EvalSet, metric_options
from synthshards.train.data.train_tasks import TrainTask
from synthshards.train.evaluation.evaluate import scores
from synthshards.train.evaluation.metrics import EVALUATIONS

WIDE = (
    "data.mixture={mano: 1, brevo1: 2, lano: 1, depo2: 1}", "model.vocab_size=5300",
    "data.mixture_params={depo2: {N: 4, K: 2, query_token_base: 20, answer_token_id: 40, separator_token_id: 41}, "
    "mano: {L: 1, value_mod: 5, bos_token_id: 60}, "
    "brevo1: {N: 6, bos_token_id: 60, query_token_id: 61, answer_token_id: 62, eos_token_id: 63}, "
    "lano: {grammar: drawn, depth: 2, symbols: 2, min_degree: 2, max_degree: 2, min_rule_length: 2, "
    "max_rule_length: 2}}",
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("no_pictures")  # tests share the machine


class Oracle(nn.Module):
    """Knows the rows of every task in the shared vocabulary: behind a prefix of one it says how it goes on.

    Anything else it answers with the largest id there is, so that a metric which asked with ids of another task, or
    without its offset, would score nothing.
    """

    def __init__(self, train_tasks: list[TrainTask], sets: list[Any]) -> None:
        super().__init__()
        self.size = max(s.largest_id for s in train_tasks) + 1
        self.next: dict[tuple[int, ...], int] = {}
        for train_task, some in zip(train_tasks, sets, strict=True):
            for row in (row for one in some for row in one.rows()):
                ids = [int(t) + train_task.offset for t in row["input_ids"]]
                if train_task.task.name == "lano":
                    ids.append(ids[0])  # a sentence ends where the next begins
                self.next |= {tuple(ids[:i]): ids[i] for i in range(1, len(ids))}

    def forward(self, input_ids: Tensor, **known: Any) -> Any:
        logits = torch.zeros(*input_ids.shape, self.size)
        for r, row in enumerate(input_ids.tolist()):
            for i in range(len(row)):
                logits[r, i, self.next.get(tuple(row[: i + 1]), self.size - 1)] = 50.0
        return SimpleNamespace(logits=logits)


def scored(model: nn.Module, train_task: TrainTask, sets: list[EvalSet], options: EvalOptions) -> list[Any]:
    """The scores of one task of a run."""
    measuring = metric_options(options, train_task, 0)
    return list(scores(train_task.view(model), train_task.name, train_task.task, sets, measuring))


def test_ids_of_each_task_stand_behind_those_of_the_tasks_before(tmp_path: Path) -> None:
    made = make_run(tmp_path, *WIDE)
    largest = [max(s.task.token_ids()) for s in made.train_tasks]
    assert [s.name for s in made.train_tasks] == ["mano", "brevo1", "lano", "depo2"]
    assert [s.offset for s in made.train_tasks] == [sum(largest[:j]) + j for j in range(4)]
    assert [s.largest_id for s in made.train_tasks] == [
        s.offset + top for s, top in zip(made.train_tasks, largest, strict=True)
    ]
    assert len({name for s in made.train_tasks for name in [s.offset]}) == 4


@pytest.mark.parametrize("packing", [(), ("train.packing=concat", "train.seq_len=64")])
def test_training_meets_shifted_ids_and_padding_stays(packing: tuple[str, ...], tmp_path: Path) -> None:
    made = make_run(tmp_path, *WIDE, "train.batch_size=12", *packing)
    seen: set[int] = set()
    for _, batch in zip(range(3), made.loader.stream, strict=False):
        moved = shifted(batch, made.train_tasks, made.pad_id)
        for r, number in enumerate(batch["source"].tolist()):
            train_task = made.train_tasks[number]
            seen.add(number)
            real = batch["attention_mask"][r] == 1
            assert torch.equal(moved["input_ids"][r][real], batch["input_ids"][r][real] + train_task.offset)
            assert not moved["input_ids"][r][~real].any()
            wanted = batch["labels"][r] != -100
            assert torch.equal(moved["labels"][r][wanted], moved["input_ids"][r][wanted])
            assert torch.equal(moved["labels"][r] == -100, ~wanted)
    assert seen == {0, 1, 2, 3}


def test_a_single_task_keeps_its_ids(tmp_path: Path) -> None:
    made = make_run(tmp_path, "dataset=mano", "dataset.L=1", "model.vocab_size=10064")
    batch = next(iter(made.loader.stream))
    assert torch.equal(shifted(batch, made.train_tasks, made.pad_id)["input_ids"], batch["input_ids"])
    assert made.train_tasks[0].offset == 0


def test_each_metric_sees_its_own_ids(tmp_path: Path) -> None:
    made = make_run(tmp_path, *WIDE)
    oracle = Oracle(made.train_tasks, made.evaluator.sets)
    for train_task, sets in zip(made.train_tasks, made.evaluator.sets, strict=True):
        found = scored(oracle, train_task, sets, EvalOptions(num_examples_per_hop=5, samples=3))
        assert len(found) == (2 if train_task.name == "depo2" else 1)
        for row, values in found:
            assert row["accuracy"] == 1
            label = f"depo2_hop_{row['hop']}" if "hop" in row else train_task.name
            assert values[f"eval/{label}_accuracy"] == row["accuracy"]


def test_a_task_at_a_wrong_place_scores_nothing(tmp_path: Path) -> None:
    made = make_run(tmp_path, *WIDE)
    oracle = Oracle(made.train_tasks, made.evaluator.sets)
    mano = replace(made.train_tasks[0], offset=1)
    ((row, _),) = scored(oracle, mano, made.evaluator.sets[0], EvalOptions())
    assert row["accuracy"] == 0


def test_the_view_of_a_task_is_the_model_on_shifted_ids(tmp_path: Path) -> None:
    made = make_run(tmp_path, *MIXTURE)
    model = made.model.eval()
    view = made.train_tasks[1].view(model)
    ids = torch.tensor([[60, 1, 2, 3]])
    positions = torch.tensor([[0, 1, 0, 1]])
    with torch.no_grad():
        whole = model(input_ids=ids + 41, position_ids=positions, use_cache=False).logits
        own = view(ids, position_ids=positions, use_cache=False).logits
    assert torch.equal(own, whole[..., 41:])
    assert own.shape[-1] == max(make_task("mano", L=1, value_mod=5, bos_token_id=60).token_ids()) + 1


@pytest.mark.parametrize("packed", [False, True])
def test_packed_rows_stay_apart_in_a_mixture_too(packed: bool, tmp_path: Path) -> None:
    """In packed windows a row is answered as alone: the view is told the borders."""
    made = make_run(tmp_path, *MIXTURE)
    from synthshards.train.evaluation.logits import logits_at

    model = made.train_tasks[1].view(made.model.eval())
    window = {"input_ids": torch.tensor([[60, 1, 2, 60, 3, 4]]), "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2]]),
              "segment_ids": torch.tensor([[1, 1, 1, 2, 2, 2]])}  # fmt: skip
    with torch.no_grad():
        together = logits_at(model, window, torch.tensor([[False] * 5 + [True]]), isolate=packed)
        alone = model(torch.tensor([[60, 3, 4]])).logits[0, -1:]
    assert torch.allclose(together, alone, atol=1e-6) == packed


def test_files_of_a_mixture(tmp_path: Path) -> None:
    two = MIXTURE[0], MIXTURE[1], MIXTURE[2]
    run(tmp_path / "first", *two, "eval.resample_each_eval=false")
    written = {"config.yaml", "run.json", "log.jsonl", "depo1_metrics.csv", "mano_metrics.csv", "eval"}
    manifests = {f"eval/{name}.manifest.json" for name in ("depo1_hop_1", "depo1_hop_2", "mano")}
    assert files(tmp_path / "first") == written | manifests
    assert [row["hop"] for row in table(tmp_path / "first" / "depo1_metrics.csv")] == ["1", "2"] * 3
    assert len(table(tmp_path / "first" / "mano_metrics.csv")) == 3
    data = json.loads((tmp_path / "first" / "run.json").read_text())["data"]
    assert [(d["name"], d["id_offset"]) for d in data] == [("depo1", 0), ("mano", 41)]
    run(tmp_path / "second", *two, f"eval.manifests={tmp_path / 'first' / 'eval'}")
    for name in ("depo1_metrics.csv", "mano_metrics.csv"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_weights_are_shares_of_rows(tmp_path: Path) -> None:
    made = make_run(tmp_path, *MIXTURE, base=(*GPT2, *BRIEF, "train.batch_size=30"))
    batch = next(iter(made.loader.stream))
    assert int((batch["source"] == 0).sum()) == 20


def test_two_depos_keep_their_hops_apart(tmp_path: Path) -> None:
    small = "N: 4, K: 2, query_token_base: 20, answer_token_id: 40, separator_token_id: 41"
    mixed = (
        "data.mixture={depo1: 1, depo2: 1}",
        f"data.mixture_params={{depo1: {{mini_vocab: 6, max_tlen: 1, {small}}}, depo2: {{{small}}}}}",
    )
    made = run(tmp_path, *mixed, "model.vocab_size=300", "eval.resample_each_eval=false", "train.max_steps=1")
    assert [[one.label for one in sets] for sets in made.evaluator.sets] == [
        ["depo1_hop_1", "depo1_hop_2"], ["depo2_hop_1", "depo2_hop_2"],
    ]  # fmt: skip
    assert len(list((tmp_path / "eval").iterdir())) == 4
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"eval/depo1_hop_1_accuracy", "eval/depo2_hop_1_accuracy"} < set(logged[-1])


def test_a_share_of_questions_is_of_a_task_that_has_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EVALUATIONS, "capo", replace(EVALUATIONS["capo"], questions=None))
    with pytest.raises(UsageError, match=r"^dataset.qa_share=0.5: capo has no questions; legal: 0$"):
        make_run(tmp_path, *CAPO, "dataset.qa_share=0.5")

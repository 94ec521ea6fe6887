"""Where a run tells of itself: JSON lines, TensorBoard, Weights & Biases without a network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from curves import DEPO, files, make_run, run, table

from synthshards.errors import UsageError
from synthshards.train.report.logs import JsonLines
from synthshards.train.report.table import ScoreTable

pytestmark = pytest.mark.usefixtures("one_thread")  # tests share the machine


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_json_lines_tell_every_step_and_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScoreTable, "draw", lambda self: None)
    run(tmp_path, *DEPO, "train.schedule=linear")
    found = lines(tmp_path)
    steps = [line for line in found if "train/loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert [line["train/examples_seen"] for line in steps] == [4, 8, 12, 16, 20, 24]
    assert steps[2]["train/learning_rate"] == pytest.approx(0.01 * 4 / 7)
    assert all(0 < line["train/loss"] < 6 for line in steps)
    told = [line for line in found if "train/loss" not in line]
    rows = table(tmp_path / "depo_hop_metrics.csv")
    assert [line["step"] for line in told] == [1, 3, 6]
    for row in rows:
        (line,) = [line for line in told if line["step"] == int(row["step"])]
        assert line[f"eval/hop_{row['hop']}_accuracy"] == float(row["accuracy"])


def test_json_lines_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScoreTable, "draw", lambda self: None)
    run(tmp_path, *DEPO, "logging.jsonl=false", "train.max_steps=1")
    assert "log.jsonl" not in files(tmp_path)


def test_a_run_that_goes_on_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    log = JsonLines(tmp_path, 2)
    log.numbers(3, {"x": 0.5, "bad": float("nan"), "worse": float("inf")})
    log.close()
    assert (tmp_path / "log.jsonl").read_text() == (
        '{"step": 1}\n{"step": 2}\n{"step": 3, "x": 0.5, "bad": null, "worse": null}\n'
    )
    JsonLines(tmp_path, 0).close()
    assert (tmp_path / "log.jsonl").read_text() == ""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TensorBoard's own
def test_tensorboard_gets_the_same_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScoreTable, "draw", lambda self: None)
    from tensorboard.backend.event_processing import event_accumulator as accumulator

    run(tmp_path, *DEPO, "logging.tensorboard=true", "eval.hops=[2]")
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    told = {line["step"]: line["train/loss"] for line in lines(tmp_path) if "train/loss" in line}
    assert {e.step: e.value for e in events.Scalars("train/loss")} == pytest.approx(told)
    rows = table(tmp_path / "depo_hop_metrics.csv")
    shown = {e.step: e.value for e in events.Scalars("eval/hop_2_accuracy")}
    assert shown == pytest.approx({int(row["step"]): float(row["accuracy"]) for row in rows})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # W&B's own
def test_weights_and_biases_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MODE": "offline", "SILENT": "true", "DIR": str(tmp_path), "CACHE_DIR": str(tmp_path / "c"),
                        "CONFIG_DIR": str(tmp_path / "g"), "DATA_DIR": str(tmp_path / "d")}.items():  # fmt: skip
        monkeypatch.setenv(f"WANDB_{name}", value)
    run(tmp_path / "run", *DEPO, "logging.wandb.enabled=true", "logging.wandb.name=nested", "train.max_steps=3")
    (stored,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    content = stored.read_bytes()
    for text in (b"train/loss", b"train/examples_seen", b"eval/hop_4_accuracy", b"synthshards", b"nested"):
        assert text in content, text
    pictures = list((tmp_path / "run" / "wandb").rglob("depo_hop_curve*.png"))
    assert len(pictures) == 2  # of the evaluations at steps 1 and 3
    assert pictures[0].read_bytes()[:4] == b"\x89PNG"


class Recorder:
    """In the place of the package wandb: notes what it is told."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.told: list[tuple[int, dict[str, Any]]] = []

    def init(self, **asked: Any) -> Recorder:
        self.asked = asked
        return self

    def log(self, values: dict[str, Any], step: int) -> None:
        self.told.append((step, values))

    def Image(self, path: str) -> str:
        return f"image {Path(path).name}"

    def finish(self) -> None:
        self.told.append((-1, {}))


def test_weights_and_biases_are_told_steps_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScoreTable, "draw", lambda self: None)
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, "wandb", recorder)
    run(tmp_path, *DEPO, "logging.wandb.enabled=true", "logging.wandb.entity=us", "train.max_steps=2", "eval.hops=[1]")
    asked = recorder.asked
    assert (asked["project"], asked["entity"], asked["name"]) == ("synthshards", "us", None)
    assert asked["config"]["dataset"]["N"] == 6
    assert asked["id"] == json.loads((tmp_path / "run.json").read_text())["id"]
    assert [step for step, _ in recorder.told] == [1, 1, 1, 2, 2, 2, -1]
    assert recorder.told[2] == (1, {"depo_hop_curve": "image depo_hop_curve.png"})
    assert "eval/hop_1_accuracy" in recorder.told[1][1]


def test_weights_and_biases_go_on_with_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScoreTable, "draw", lambda self: None)
    asked = []
    settings = (*DEPO, "logging.wandb.enabled=true", "train.resume=auto", "train.checkpoint_every=2")
    for _ in range(2):
        recorder = Recorder()
        monkeypatch.setitem(sys.modules, "wandb", recorder)
        run(tmp_path, *settings)
        asked.append(recorder.asked["id"])
    monkeypatch.setitem(sys.modules, "wandb", recorder := Recorder())
    run(tmp_path, *settings, "train.resume=no")
    assert asked[0] == asked[1] != recorder.asked["id"]


def test_what_weights_and_biases_refuse_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**asked: Any) -> None:
        raise ValueError("api_key not configured (no-tty).\nCall wandb.login()")

    recorder = Recorder()
    monkeypatch.setattr(recorder, "init", init)
    monkeypatch.setitem(sys.modules, "wandb", recorder)
    with pytest.raises(UsageError, match=r"^logging.wandb: api_key not configured \(no-tty\).; legal: a login"):
        run(tmp_path, *DEPO, "logging.wandb.enabled=true")


@pytest.mark.parametrize(
    ("module", "override", "package"),
    [
        ("torch.utils.tensorboard", "logging.tensorboard=true", "tensorboard"),
        ("wandb", "logging.wandb.enabled=true", "wandb"),
    ],
)
def test_what_is_not_installed_is_said_before_anything_is_written(
    module: str, override: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"^{override} needs {package}; install it with: pip install .synthshards"):
        make_run(tmp_path / "out", *DEPO, override)
    assert files(tmp_path / "out") == set()

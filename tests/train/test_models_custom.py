"""``model=custom``: a module of the user's trains, is measured, resumes and saves, or is refused in one line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from curves import BREVO, BRIEF, CAPO, DEPO, LANO, MANO, files, make_run, only_csv, run, table
from helpers import Ended
from tiny_models import TINY, same, weights
from torch import Tensor, nn

from synthshards.errors import UsageError
from synthshards.train.evaluation.causality import check_causal
from synthshards.train.loop.failures import explained
from synthshards.train.models import build_model

Cli = Callable[..., Ended]
pytestmark = pytest.mark.usefixtures("no_pictures")

MODELS = '''
import random
from types import SimpleNamespace
import numpy as np
import torch
from torch import nn

class Net(nn.Module):
    """A recurrence over an embedding; `answer` says how it gives its logits."""
    def __init__(self, vocab_size, context, width=8, answer="tensor", dropout=0.1):
        super().__init__()
        self.embed, self.gru = nn.Embedding(vocab_size, width), nn.GRU(width, width, batch_first=True)
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(width, vocab_size)
        self.answer, self.width = answer, width
        self.asked = (vocab_size, context)

    def forward(self, input_ids):
        logits = self.head(self.drop(self.gru(self.embed(input_ids))[0]))
        return {"tensor": logits, "tuple": (logits, None), "object": SimpleNamespace(logits=logits)}[self.answer]

    def state_size(self, length):
        return self.width

def build(vocab_size, context, **kwargs):
    return Net(vocab_size, context, **kwargs)

class Told(Net):
    def forward(self, input_ids, attention_mask, position_ids, segment_ids, **kwargs):
        assert not kwargs
        for one in (attention_mask, position_ids, segment_ids):
            assert one.dtype == torch.int64 and one.shape == input_ids.shape
        self.told = attention_mask, position_ids, segment_ids
        return super().forward(input_ids)

class Deaf(Net):
    def forward(self, input_ids, **kwargs):
        assert not kwargs
        return super().forward(input_ids)

class Drawing(Net):
    """Draws from every kind of generator there is, also in evaluation."""
    def __init__(self, vocab_size, context):
        super().__init__(vocab_size, context)
        self.own = torch.Generator().manual_seed(5)
        self.shift = nn.Parameter(torch.full((1,), random.random() + np.random.rand()))
    def forward(self, input_ids):
        noise = random.random() + np.random.rand() + torch.rand(1) + torch.rand(1, generator=self.own)
        return super().forward(input_ids) * (1 + 0.1 * noise) + self.shift

class Bidirectional(Net):
    def __init__(self, vocab_size, context):
        super().__init__(vocab_size, context)
        self.gru = nn.GRU(8, 4, batch_first=True, bidirectional=True)

class NextToken(Net):
    """Sees one token ahead, through a weight that starts at zero."""
    def __init__(self, vocab_size, context):
        super().__init__(vocab_size, context)
        self.peek = nn.Parameter(torch.zeros(()))
    def forward(self, input_ids):
        return super().forward(input_ids) + self.peek * self.head(self.embed(input_ids.roll(-1, 1)))

class Chunked(Net):
    """Sees the mean of its own chunk of 64."""
    def forward(self, input_ids):
        states = self.embed(input_ids)
        means = torch.cat([c.mean(1, True).expand(c.shape) for c in states.split(64, 1)], 1)
        return self.head(states + means)

class Nan(Net):
    def forward(self, input_ids):
        return super().forward(input_ids) / 0 * 0

class NanGradient(Net):
    def forward(self, input_ids):
        return super().forward(input_ids) + torch.sqrt(self.head.bias * 0).sum()

class Few(Net):
    def __init__(self, vocab_size, context):
        super().__init__(vocab_size - 1, context)
    def forward(self, input_ids):
        return super().forward(input_ids.clamp(max=self.asked[0] - 1))

class SmallTable(Net):
    def __init__(self, vocab_size, context):
        super().__init__(vocab_size, context)
        self.embed = nn.Embedding(vocab_size - 1, 8)

class ShortTable(Net):
    def __init__(self, vocab_size, context):
        super().__init__(vocab_size, context)
        self.positions = nn.Embedding(context - 1, 8)
    def forward(self, input_ids):
        return super().forward(input_ids) + self.positions(torch.arange(input_ids.shape[1])).sum(-1)[None, :, None]

class Last(Net):
    def forward(self, input_ids):
        return super().forward(input_ids)[:, -1:]

class Detached(Net):
    def forward(self, input_ids):
        return super().forward(input_ids).detach()

class Text(Net):
    def forward(self, input_ids):
        return "logits"

class Raising(Net):
    def forward(self, input_ids):
        raise RuntimeError("no luck\\nat all")

class Weightless(nn.Module):
    def __init__(self, vocab_size, context):
        super().__init__()

class Late(Net):
    """Fails in the third step alone."""
    def __init__(self, vocab_size, context):
        super().__init__(vocab_size, context)
        self.optimizer_steps = 0
    def forward(self, input_ids):
        if not torch.equal(self.head.bias, self.first()):
            raise KeyError("changed")
        return super().forward(input_ids)
    def first(self):
        self.before = getattr(self, "before", self.head.bias.detach().clone())
        return self.before

def number(vocab_size, context):
    return 3

def failing(vocab_size, context):
    return [][1]

def unsized(context):
    return 3

value = 3
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that one stands in, with `my_models.py`."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "my_models.py").write_text(MODELS)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    return folder


def custom(target: str = "my_models:build", *options: str) -> tuple[str, ...]:
    """The settings of a custom model."""
    return ("model=custom", f"model.target={target}", *options)


def of_task(settings: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a task alone."""
    return tuple(one for one in settings if not one.startswith("model."))


TASKS = {
    name: of_task(one)
    for name, one in (("depo", DEPO), ("brevo", BREVO), ("mano", MANO), ("lano", LANO), ("capo", CAPO))
}


# What it can do ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_every_task_trains_and_measures_it(task: str, here: Path, tmp_path: Path) -> None:
    made = run(tmp_path / "out", *TASKS[task], base=(*custom(), *BRIEF, "train.save_model=true"))
    (csv,) = (tmp_path / "out").glob("*.csv")
    assert {row["step"] for row in table(csv)} == {"1", "3", "6"}
    record = json.loads((tmp_path / "out" / "run.json").read_text())["model"]
    digest = hashlib.sha256((here / "my_models.py").read_bytes()).hexdigest()
    vocab_size, context = made.built.model.module.asked
    assert record == {
        "name": "custom", "target": "my_models:build", "source_sha256": digest, "state_size": 8, "state_length": context
    }  # fmt: skip
    assert vocab_size == made.train_tasks[0].largest_id + 1
    assert files(here) == {"my_models.py"}
    again = build_model("custom", {"target": "my_models:build", "vocab_size": vocab_size}, seed=3).model.module
    again.load_state_dict(torch.load(tmp_path / "out" / "model" / "weights.pt"))
    assert same(weights(again), weights(made.built.model.module))


def test_the_seed_draws_its_weights_and_a_path_is_as_good_as_a_module(here: Path) -> None:
    def built(target: str, seed: int) -> dict[str, Tensor]:
        return weights(build_model("custom", {"target": target, "vocab_size": 9}, seed=seed).model)

    for name in ("build", "Drawing"):
        first = built(f"my_models:{name}", 1)
        assert same(built(f"my_models:{name}", 1), first)
        assert same(built(f"{here}/my_models.py:{name}", 1), first)
        assert same(built(f"./my_models.py:{name}", 1), first)
        second = built(f"my_models:{name}", 2)
        assert not any(torch.equal(first[key], second[key]) for key in first)


def test_another_folders_module_of_that_name_and_a_changed_source_are_read_anew(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def width(target: str = "my_models:build") -> int:
        return int(build_model("custom", {"target": target, "vocab_size": 9}).model.module.width)

    assert width() == width("my_models.py:build") == 8
    (here / "my_models.py").write_text(MODELS.replace("width=8", "width=4"))
    assert width() == width("my_models.py:build") == 4
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "my_models.py").write_text(MODELS.replace("width=8", "width=2"))
    monkeypatch.chdir(tmp_path / "there")
    assert width() == width("my_models.py:build") == 2


def test_a_source_may_import_what_lies_beside_it(here: Path) -> None:
    (here / "inner").mkdir()
    (here / "inner" / "sizes_beside.py").write_text("WIDTH = 6")
    source = "def build(vocab_size, context): return Net(vocab_size, context, WIDTH)"
    (here / "inner" / "one.py").write_text(f"from my_models import Net\nfrom sizes_beside import WIDTH\n{source}")
    assert build_model("custom", {"target": "inner/one.py:build", "vocab_size": 9}).model.module.width == 6


@pytest.mark.parametrize("answer", ["tensor", "tuple", "object"])
def test_whatever_holds_the_logits_the_loss_is_ours(answer: str, here: Path) -> None:
    options = {"target": "my_models:Net", "vocab_size": 9, "kwargs": {"answer": answer}}
    model = build_model("custom", options).model.eval()
    ids = torch.tensor([[1, 2, 3, 4]])
    out = model(input_ids=ids, labels=torch.tensor([[1, -100, 3, 4]]))
    expected = -out.logits.log_softmax(-1)[0, [1, 2], [3, 4]].mean()
    assert torch.allclose(out.loss, expected)


def test_it_is_given_what_its_signature_names(here: Path, tmp_path: Path) -> None:
    window = ("train.packing=best-fit", "train.seq_len=32", "train.max_steps=1")
    made = run(tmp_path / "padded", *TASKS["mano"], base=(*custom("my_models:Told"), *BRIEF, "train.max_steps=1"))
    mask, positions, segments = made.built.model.module.told
    assert torch.equal(mask, segments)
    assert torch.equal(positions[0], torch.arange(positions.shape[1]))
    model = made.built.model
    model(input_ids=torch.ones(1, 4, dtype=torch.int64), segment_ids=torch.tensor([[1, 1, 2, 0]]))
    assert model.module.told[0].tolist() == [[1, 1, 1, 0]]
    with pytest.raises(UsageError, match="rows of a window do not stay apart in Told"):
        make_run(tmp_path / "x", *TASKS["mano"], *window, base=(*custom("my_models:Told"), *BRIEF))
    with pytest.raises(UsageError, match="Deaf takes no position_ids"):
        make_run(tmp_path / "x", *TASKS["mano"], *window, base=(*custom("my_models:Deaf"), *BRIEF))
    base = (*custom("my_models:Deaf"), *BRIEF)
    run(tmp_path / "one text", *TASKS["mano"], *window, "train.isolate=false", "eval.packed_seq_len=32", base=base)


SHIPPED = """
from transformers import GPT2Config, GPT2LMHeadModel
from synthshards.train.models import build_model

def gpt2(vocab_size, context):
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "bos_token_id": None, "eos_token_id": None}
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, n_positions=context, **sizes))

def recurrent(vocab_size, context):
    hf = {"vocab_size": vocab_size, "max_position_embeddings": context, "hidden_size": 16, "eos_token_id": None}
    drawn = {"random_init_loop_state": True, "inject_input_each_step": True, "train_recursion_mode": "poisson"}
    return build_model("recurrent_olmo3", {"hf": hf, "recurrent": drawn}).model
"""


@pytest.mark.parametrize("target", ["gpt2", "recurrent"])
def test_models_of_transformers_and_of_this_package_are_taken_in_windows_too(
    target: str, here: Path, tmp_path: Path
) -> None:
    (here / "shipped_models.py").write_text(SHIPPED)
    base = (*custom(f"shipped_models:{target}"), *BRIEF, "train.max_steps=1")
    run(tmp_path / "out", *TASKS["mano"], "train.packing=best-fit", "train.seq_len=32", base=base)


@pytest.mark.parametrize("target", ["Net", "Drawing"])
def test_a_resumed_run_ends_as_a_whole_one(
    target: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = (*custom(f"my_models:{target}"), *BRIEF, "train.checkpoint_every=2", "train.resume=auto")
    whole = run(tmp_path / "whole", *TASKS["depo"], base=base)
    plain = type(whole)._one_step
    with monkeypatch.context() as patched:
        patched.setattr(type(whole), "_one_step", lambda own, *rest: plain(own, *rest) if own.step < 5 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path / "cut", *TASKS["depo"], base=base)
    resumed = run(tmp_path / "cut", *TASKS["depo"], base=base)
    assert same(weights(resumed.model), weights(whole.model))
    assert only_csv(tmp_path / "cut") == only_csv(tmp_path / "whole")
    (here / "my_models.py").write_text(MODELS + "\n# changed\n")
    with pytest.raises(UsageError, match=r"is of a run with another configuration; .* and source of model.target"):
        run(tmp_path / "cut", *TASKS["depo"], base=base)


def test_options_of_the_model_can_be_set_and_swept_one_by_one(here: Path, tmp_path: Path, cli: Cli) -> None:
    ended = cli(
        "curve", "--multirun", *custom("./my_models.py:build"), *TASKS["mano"], *BRIEF, "train.max_steps=1",
        "model.kwargs={dropout: 0.0}", "model.kwargs.width=4,6", "hydra.job.chdir=true",
        f"output_dir={tmp_path / 'out'}",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    written = [(tmp_path / "out" / number / "config.yaml").read_text() for number in ("0", "1")]
    assert ["width: 4" in written[0], "width: 6" in written[1]] == [True, True]


# What is refused ---------------------------------------------------------------------------------------------------

REFUSED = [
    ("nowhere:build", "no module 'nowhere' here or installed; legal: module:function or path/to/file.py:function"),
    ("my_model:build", "no module 'my_model' here or installed; did you mean 'my_models'?"),
    ("nowhere.py:build", "no file 'nowhere.py'; legal"),
    ("my_model.py:build", "no file 'my_model.py'; did you mean 'my_models.py'?"),
    ("my_models", "model.target='my_models' is not legal; legal: module:function"),
    ("my_models:biuld", "my_models has no function 'biuld'; did you mean 'build'?"),
    ("my_models.py:value", "has no function, but a value, 'value'"),
    ("broken.py:build", "SyntaxError: "),
    ("lacking:build", "ModuleNotFoundError: No module named 'nothing_like_it' ("),
    ("my_models:number", "it gives int; legal: a torch.nn.Module"),
    ("my_models:failing", "IndexError: list index out of range ("),
    ("my_models:unsized", "it takes no 'vocab_size'; legal: context"),
    ("my_models:Weightless", "Weightless has no weight to train"),
    ("my_models:Bidirectional", "not causal: exchanging later tokens moves the logits before them (by "),
    ("my_models:NextToken", "not causal"),
    ("my_models:Chunked", "not causal"),
    ("my_models:Nan", "logits are no numbers at the start"),
    ("my_models:NanGradient", "gradient of module.head.bias is no number at the start"),
    ("my_models:Few", "ids are too few; legal: logits [rows, length, "),
    ("my_models:SmallTable", "IndexError: index out of range in self ("),
    ("my_models:ShortTable", "IndexError: index out of range in self ("),
    ("my_models:Last", "with the shape [1, 1, 5"),
    ("my_models:Detached", "its logits depend on no weight that is trained"),
    ("my_models:Text", "forward answers with str, no logits"),
    ("my_models:Raising", "RuntimeError: no luck ("),
]


@pytest.mark.parametrize(("target", "message"), REFUSED)
def test_what_is_wrong_is_one_line_before_anything_is_written(target: str, message: str, here: Path, cli: Cli) -> None:
    (here / "broken.py").write_text("def build(:\n")
    (here / "lacking.py").write_text("import nothing_like_it\n")
    before = files(here)
    ended = cli("curve", *custom(target), *TASKS["mano"], *BRIEF, "output_dir=out")
    assert (ended.code, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    assert message in line
    assert "model.target" in line
    assert files(here) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "model.target is not set"),
        ({"target": "my_models:Net", "kwargs": {"widht": 3}}, "it takes no 'widht'; did you mean 'width'?; legal: "),
        ({"target": "my_models:build", "kwargs": {"context": 3}}, "model.kwargs has context, which is given anyway"),
        ({"target": "my_models:build", "kwargs": 3}, "kwargs=3 is not legal"),
        ({"target": "my_models:build", "attn_implementation": "eager"}, "model.attn_implementation says nothing here"),
        ({"target": "my_models:build", "gradient_checkpointing": True}, "Net has no method gradient_checkpointing_ena"),
        ({"target": "my_models:build", "vocab_size": 9}, "model.vocab_size=9 is too small: the largest token id"),
        ({"target": "my_models:build", "context": 9}, "model.context=9 is too short: the longest row"),
    ],
)
def test_options_that_cannot_be_meant_are_one_line(options: dict[str, Any], message: str, here: Path) -> None:
    with pytest.raises(UsageError) as error:
        build_model("custom", options, largest_id=9, longest_row=10)
    assert message in str(error.value)


def test_what_it_raises_later_is_told_with_its_line(here: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"KeyError: 'changed' \(.*my_models.py, line [0-9]+\)"), explained():
        run(tmp_path / "out", *TASKS["mano"], base=(*custom("my_models:Late"), *BRIEF))


# The proof ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY)
def test_shipped_models_pass_and_nothing_of_them_is_changed(name: str) -> None:
    options = dict(TINY[name])
    if name == "recurrent_olmo3":
        options["recurrent"] = {
            "num_loops": 2, "random_init_loop_state": True, "random_init_std": 5.0, "train_recursion_mode": "poisson",
            "inject_input_each_step": True, "act": {"enabled": True},
        }  # fmt: skip
    model = build_model(name, options, seed=3).model
    before = weights(model)
    recursion = getattr(model, "recursion", None)
    drawn = torch.get_rng_state(), None if recursion is None else recursion.get_state()
    check_causal(model, 64, 64, "model")
    assert model.training
    assert same(weights(model), before)
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.equal(torch.get_rng_state(), drawn[0])
    assert recursion is None or torch.equal(recursion.get_state(), drawn[1])


class Fft(nn.Module):
    """A long convolution by FFT, whose rounding knows no order, and statistics of a batch that training moves."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(64, 16), nn.Linear(16, 64)
        self.filter, self.norm = nn.Parameter(torch.randn(512, 16)), nn.BatchNorm1d(16)

    def forward(self, input_ids: Tensor) -> Any:
        length = input_ids.shape[1]
        states = torch.fft.rfft(self.embed(input_ids), 2 * length, dim=1)
        mixed = torch.fft.irfft(states * torch.fft.rfft(self.filter[:length], 2 * length, dim=0), dim=1)[:, :length]
        normed = self.norm(mixed.transpose(1, 2)).transpose(1, 2)
        return SimpleNamespace(logits=self.head(normed))


class Restless(nn.Module):
    """Draws from a generator that nobody else can find."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head, self.state = nn.Embedding(64, 8), nn.Linear(8, 64), [0.0]

    def forward(self, input_ids: Tensor) -> Any:
        self.state[0] = (self.state[0] + 0.7) % 1
        return SimpleNamespace(logits=self.head(self.embed(input_ids)) * (1 + self.state[0]))


def test_what_moves_by_itself_proves_nothing() -> None:
    check_causal(Restless(), 64, 64, "model")


def test_rounding_is_no_leak_and_buffers_are_put_back() -> None:
    model = Fft()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_causal(model, 64, 512, "model")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

"""Llama's block around other mixers: what is the block's and what theirs, what is refused, and the two examples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from curves import BRIEF, TASKS, files, make_run, only_csv, run, table
from tiny_models import TINY, checkpointed, close, gradients, rows, same, weights
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from synthshards.errors import UsageError
from synthshards.train import run as train_run
from synthshards.train.config.compose import compose
from synthshards.train.evaluation.isolation import check_isolation, leak
from synthshards.train.models import build_model
from synthshards.train.models.canon_llama.conv import CanonConv
from synthshards.train.models.target import load_target

pytestmark = pytest.mark.usefixtures("no_pictures")  # tests share the machine

EXAMPLES = Path(__file__).parents[2] / "examples" / "mixers.py"
MIXERS = ("GatedLinearAttention", "GatedDeltaRule")

#: Softmax attention written as a user would: it takes all that the block offers.
ATTENTION = """
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

class Attention(nn.Module):
    def __init__(self, width, layer, head_dim, canon, qk_norm, scale=1.0):
        super().__init__()
        self.layer, self.head_dim, self.scale = layer, head_dim, scale
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self, name, nn.Linear(width, width, bias=False))
        self.canons = nn.ModuleList(canon(width) for _ in range(3))
        self.norms = nn.ModuleList(qk_norm(head_dim) for _ in range(2))

    def forward(self, x, segment_ids, position_embeddings):
        q, k, v = (c(p(x)) for c, p in zip(self.canons, (self.q_proj, self.k_proj, self.v_proj)))
        q, k = (norm(one) for norm, one in zip(self.norms, (q, k)))
        q, k, v = (one.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for one in (q, k, v))
        cos, sin = (one[:, None] for one in position_embeddings)
        q, k = (one * cos + torch.cat([-one.chunk(2, -1)[1], one.chunk(2, -1)[0]], -1) * sin for one in (q, k))
        sees = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        if segment_ids is not None:
            sees = sees & (segment_ids[:, None, :, None] == segment_ids[:, None, None, :])
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=sees).transpose(1, 2).flatten(-2)
        return self.o_proj(mixed) * self.scale
"""
#: A mixer in three lines, with what a test puts in the place of its forward and of its constructor's arguments.
SHORT = """
import torch
from torch import nn
class Mixer(nn.Module):
    def __init__(self, width, layer{arguments}):
        super().__init__()
        self.a = nn.Linear(width, width)
        {start}
    def forward(self, x{named}):
        return {mixed}
"""


def written(
    folder: Path, *, arguments: str = "", start: str = "pass", named: str = "", mixed: str = "self.a(x)"
) -> str:
    """A short mixer's file, as a target."""
    path = folder / "short.py"
    path.write_text(SHORT.format(arguments=arguments, start=start, named=named, mixed=mixed))
    return f"{path}:Mixer"


def mixer(target: str, seed: int = 3, **options: Any) -> Any:
    """A tiny model around a mixer."""
    return build_model("mixer", {**TINY["llama"], "target": target, **options}, seed=seed).model


def example(name: str, **options: Any) -> Any:
    return mixer(f"{EXAMPLES}:{name}", kwargs={"heads": 2}, **options)


# The block -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"canon": "ACD", "qk_norm": True, "mlp": "plain", "rope_share": 0.5}])
def test_without_a_target_it_is_llama_bit_for_bit(options: dict[str, Any]) -> None:
    llama, same_model = (build_model(name, {**TINY["llama"], **options}, seed=3).model for name in ("llama", "mixer"))
    assert same(weights(llama), weights(same_model))
    a, b = (gradients(one, input_ids=rows(2, 9), labels=rows(2, 9)) for one in (llama, same_model))
    assert same(a, b)


@pytest.mark.parametrize(
    "options",
    [
        {"canon": ""},
        {"rope": False, "canon": "ACD"},
        {"canon": "B", "qk_norm": True},
        {"rope_share": 0.5, "canon_bias": True, "mlp": "plain", "tie_word_embeddings": True},
    ],
)
def test_attention_as_a_mixer_is_llama(options: dict[str, Any], tmp_path: Path) -> None:
    """Every switch of the block means for a mixer what it means for attention: only the mixer differs."""
    (tmp_path / "own.py").write_text(ATTENTION)
    model = mixer(f"{tmp_path}/own.py:Attention", **options).eval()
    llama = build_model("llama", {**TINY["llama"], **options}, seed=5).model.eval()
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in llama.parameters())
    names = {".canon.": ".canons.{}.", ".norm.": ".norms.{}."}
    moved = {}
    for name, value in llama.state_dict().items():
        if "self_attn" in name:
            name = name.replace("self_attn.", "self_attn.mixer.")
            for old, new in names.items():
                if old in name:
                    head, _, tail = name.partition(old)
                    head, _, projection = head.rpartition(".")
                    name = head + new.format("qkv".index(projection[0])) + tail
        moved[name] = value
    model.load_state_dict(moved)
    ids = rows(2, 14)
    segments = torch.tensor([[1] * 5 + [2] * 7 + [0] * 2] * 2)
    for told in ({}, {"segment_ids": segments}, {"attention_mask": (segments > 0).long()}):
        assert close(model(input_ids=ids, **told).logits[:, :12], llama(input_ids=ids, **told).logits[:, :12])


def test_a_mixer_keeps_the_weights_it_made_and_the_seed_draws_them(tmp_path: Path) -> None:
    target = written(tmp_path, start="nn.init.constant_(self.a.bias, 7.0)")
    model = mixer(target, canon="ACD")
    assert model.model.layers[1].self_attn.mixer.a.bias.unique().tolist() == [7.0]
    assert model.model.layers[0].self_attn.mixer.a.weight.abs().max() < 32**-0.5  # as nn.Linear draws them
    assert model.lm_head.weight.std() > 0.1, "initializer_range is that of the block"
    assert same(weights(model), weights(mixer(target, canon="ACD")))
    other = mixer(target, seed=4, canon="ACD").model.layers[0].self_attn.mixer
    assert not torch.equal(other.a.weight, model.model.layers[0].self_attn.mixer.a.weight)


def test_only_what_is_named_is_given(tmp_path: Path) -> None:
    plain = mixer(written(tmp_path), canon="ACD").model.layers[1].self_attn
    assert plain.takes == ()
    target = written(
        tmp_path, arguments=", canon, size=3", start="self.c, self.size, self.layer = canon(width), size, layer",
        named=", position_ids, segment_ids=None", mixed="self.c(x) + 0 * position_ids[..., None]",
    )  # fmt: skip
    model = mixer(target, canon="ABCD", kwargs={"size": 5})
    own = [layer.self_attn.mixer for layer in model.model.layers]
    assert [(one.layer, one.size, type(one.c)) for one in own] == [(0, 5, CanonConv), (1, 5, CanonConv)]
    assert isinstance(mixer(target, canon="A").model.layers[0].self_attn.mixer.c, torch.nn.Identity)
    seen: list[Any] = []
    own[0].register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True)
    segments = torch.tensor([[1, 1, 2, 2, 0]])
    model(input_ids=rows(1, 5), segment_ids=segments)
    model(input_ids=rows(1, 5))
    assert torch.equal(seen[0]["segment_ids"], segments)
    assert seen[0]["position_ids"].tolist() == [[0, 1, 0, 1, 0]]
    assert (seen[1]["segment_ids"], seen[1]["position_ids"].tolist()) == (None, [[0, 1, 2, 3, 4]])


@pytest.mark.parametrize(
    ("mistake", "options", "message"),
    [
        ({}, ["target=nowhere:Mixer"], "no module 'nowhere'"),
        ({}, ["target=null", "kwargs={a: 1}"], "model.kwargs without model.target"),
        ({}, ["attn_implementation=eager"], "model.attn_implementation is of attention; legal: null with"),
        ({}, ["kwargs={head: 1}"], "unexpected keyword argument 'head'"),
        ({}, ["kwargs={width: 1}"], "model.kwargs: width comes from the block"),
        ({}, ["canon=AB"], "offers no projection for point B; legal: canon without B, or a"),
        ({"arguments": ", canon"}, ["canon=B"], "offers no projection for point B"),
        ({}, ["qk_norm=true"], "takes none; legal: false, or a mixer whose constructor takes qk_norm"),
        ({}, ["rope_share=0.5"], "takes no rotary embedding; legal: 1.0, or a mixer whose forward takes position_"),
        ({"mixed": "self.a(x)[:, :1]"}, [], "[1, 1, 16] from x [1, 256, 16]; legal: a tensor of that shape"),
        ({"mixed": "(self.a(x), None)"}, [], "a tuple from x [1, 256, 16]; legal: a tensor of that shape"),
        ({"mixed": "self.a(x) / 0"}, [], "are no numbers at the start"),
        ({"mixed": "self.b(x)"}, [], "'Mixer' object has no attribute 'b'"),
        ({"mixed": "self.a(x.flip(1))"}, [], "not causal: exchanging later tokens"),
        ({"start": "nn.init.zeros_(self.a.weight)", "mixed": "self.a(x + x.mean(1, True))"}, [], "not causal"),
        ({"start": "self.state_size = lambda length: 0.5"}, [], "state_size(256) is 0.5; legal: an integer from 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    mistake: dict[str, str], options: list[str], message: str, tmp_path: Path
) -> None:
    overrides = (f"model.target={written(tmp_path, **mistake)}", *(f"model.{one}" for one in options))
    with pytest.raises(UsageError) as error:
        make_run(tmp_path / "run", *TASKS["depo"], *overrides, base=(*BLOCK, *BRIEF))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_what_gives_no_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.py").write_text("def make(width, layer):\n    return width\n")
    with pytest.raises(UsageError, match=r"gives int; legal: what gives a torch\.nn\.Module"):
        mixer(f"{tmp_path}/short.py:make", canon="")


def test_dropout_is_no_sight_of_the_future(tmp_path: Path) -> None:
    target = written(tmp_path, mixed="torch.nn.functional.dropout(self.a(x), 0.5)")
    make_run(tmp_path / "run", *TASKS["depo"], f"model.target={target}", base=(*BLOCK, *BRIEF))


def test_gradient_checkpointing_changes_no_gradient(tmp_path: Path) -> None:
    model, ids = example("GatedLinearAttention"), rows(2, 9)
    segments = torch.tensor([[1] * 4 + [2] * 5] * 2)
    told = {"input_ids": ids, "labels": ids, "segment_ids": segments}
    plain = gradients(model, **told)
    assert len(plain) == len(list(model.parameters()))
    again = gradients(checkpointed(model), **told)
    assert all(close(again[name], value, 1e-6) for name, value in plain.items())


# The examples --------------------------------------------------------------------------------------------------------


def parts(name: str) -> tuple[Callable[..., Tensor], Callable[..., Tensor], Callable[..., Tensor]]:
    """Of an example's module: runs_of, the recurrence, and what equals it."""
    kind = "linear" if name == "GatedLinearAttention" else "delta"
    return tuple(
        load_target(f"{EXAMPLES}:{one}", "x")[0] for one in ("runs_of", f"recurrent_{kind}", f"chunked_{kind}")
    )  # type: ignore[return-value]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 32, 50])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("name", MIXERS)
def test_chunks_are_the_recurrence(name: str, dtype: Any, tolerance: float, length: int, packed: bool) -> None:
    runs_of, recurrent, chunked = parts(name)
    draw = torch.Generator().manual_seed(length)
    segments = torch.randint(1, 4, (2, length), generator=draw).sort().values if packed else None
    runs = runs_of(segments, 2, length, torch.device("cpu"))
    q, k, v = (torch.randn(2, 3, length, width, generator=draw, dtype=dtype) for width in (4, 4, 5))
    if name == "GatedLinearAttention":
        inputs = [q, k, v, -5 * torch.rand(q.shape, generator=draw, dtype=dtype)]  # as much as the mixer lets it forget
    else:
        strength, decay = (torch.rand(2, 3, length, 1, generator=draw, dtype=dtype) for _ in range(2))
        inputs = [q, functional.normalize(k, dim=-1), v, strength, -9 * decay**4]
    results = []
    for function in (recurrent, chunked):
        given = [one.clone().requires_grad_() for one in inputs]
        out = function(*given, runs)
        (out * torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)).sum().backward()
        results.append([out.detach(), *(one.grad for one in given)])
    for step_by_step, at_once in zip(*results, strict=True):
        assert close(at_once, step_by_step, tolerance * float(1 + step_by_step.abs().max()))


def test_the_recurrences_are_the_papers() -> None:
    """Two tokens, one head of width 1, written out."""
    one = torch.tensor
    q, k, v, a = one([1.0, 2.0]), one([3.0, 5.0]), one([7.0, 11.0]), one([0.5, 0.25])

    def shaped(x: Tensor) -> Tensor:
        return x.view(1, 1, 2, 1)

    runs_of, recurrent, _ = parts("GatedLinearAttention")
    runs = runs_of(None, 1, 2, torch.device("cpu"))
    found = recurrent(shaped(q), shaped(k), shaped(v), shaped(a.log()), runs)
    assert found.flatten().tolist() == pytest.approx([21.0, 2 * (0.25 * 21 + 55)])
    k, b = one([1.0, 1.0]), one([0.5, 0.25])
    _, recurrent, _ = parts("GatedDeltaRule")
    found = recurrent(shaped(q), shaped(k), shaped(v), shaped(b), shaped(a.log()), runs)
    assert found.flatten().tolist() == pytest.approx([3.5, 2 * (0.25 * 0.75 * 3.5 + 0.25 * 11)])


@pytest.mark.parametrize("name", MIXERS)
def test_packed_rows_stay_apart_in_the_examples(name: str) -> None:
    model = example(name).eval()
    check_isolation(model, 64, "train.isolate", "train.packing=pad")
    one, two = rows(1, 19), rows(1, 7, seed=2)
    segments = torch.tensor([[1] * 19 + [2] * 7])
    packed = model(input_ids=torch.cat([one, two], 1), segment_ids=segments).logits
    assert close(packed, torch.cat([model(input_ids=row).logits for row in (one, two)], 1))


def test_a_mixer_that_knows_no_borders_is_refused_by_the_proof(tmp_path: Path) -> None:
    target = written(tmp_path, mixed="self.a(x).cumsum(1)")
    model = mixer(target, canon="")
    assert leak(model, 64) > 1e-3
    overrides = (*TASKS["depo"], f"model.target={target}", "train.packing=concat", "train.seq_len=48")
    with pytest.raises(
        UsageError, match=r"train\.isolate=true: rows of a window do not stay apart in MixerForCausalLM"
    ):
        make_run(tmp_path / "run", *overrides, base=(*BLOCK, *BRIEF))
    make_run(tmp_path / "run", *overrides, "train.isolate=false", base=(*BLOCK, *BRIEF))


@pytest.mark.parametrize("name", MIXERS)
def test_the_examples_tell_their_state_and_no_longer_text_grows_it(name: str) -> None:
    model = example(name)
    assert model.state_size(10) == model.state_size(10_000) == [2 * 8 * 16] * 2
    half = torch.autocast("cpu", torch.bfloat16)
    ids = rows(2, 40)
    with half:
        assert close(model(input_ids=ids).logits.float(), model.float()(input_ids=ids).logits.float(), 1e-1)


def test_a_mixer_may_keep_its_state_to_itself(tmp_path: Path) -> None:
    assert mixer(written(tmp_path), canon="").state_size(10) is None


@pytest.mark.parametrize("name", MIXERS)
def test_saved_and_loaded_by_the_auto_classes_it_is_the_same(name: str, tmp_path: Path) -> None:
    model, ids = example(name, mlp="plain", rope_share=1.0).eval(), rows(2, 20)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
    out = model.generate(ids[:1], max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert out[0, 20] == model(input_ids=ids[:1]).logits[0, -1].argmax()
    with pytest.raises(UsageError, match="mixer: there is no cache"):
        model(input_ids=ids, use_cache=True)


# Runs ----------------------------------------------------------------------------------------------------------------

BLOCK = (
    "model=mixer", "model.size=1L16D", "model.head_dim=8", "model.intermediate_size=24", "model.vocab_size=64",
    "model.max_position_embeddings=256",
)  # fmt: skip


def base(name: str) -> tuple[str, ...]:
    return (*BLOCK, f"model.target={EXAMPLES}:{name}", "model.kwargs={heads: 2}", "model.canon=ABCD", *BRIEF)


@pytest.mark.parametrize(
    "given", [("model.kwargs={heads: 4, canon_: 1}",), ("model.kwargs.heads=4", "model.kwargs.canon_=1")]
)
def test_kwargs_come_whole_or_one_by_one(given: tuple[str, ...]) -> None:
    assert compose(["model=mixer", *given])["model"]["kwargs"] == {"heads": 4, "canon_": 1}


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("task", TASKS)
def test_every_task_trains(task: str, name: str, tmp_path: Path) -> None:
    settings = [one for one in TASKS[task] if not one.startswith("model.n_positions")]
    run(tmp_path, *settings, "train.max_steps=2", "train.eval_every_steps=1", "train.save_model=true", base=base(name))
    (path,) = tmp_path.glob("*.csv")
    assert {row["step"] for row in table(path)} == {"1", "2"}
    assert {"model/model.safetensors", "run.json"} <= files(tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    assert not record["diverged"]
    digest = hashlib.sha256(EXAMPLES.read_bytes()).hexdigest()
    told = {"source_sha256": digest, "state_size": [2 * 4 * 8], "state_length": 256}
    assert record["model"] == {"name": "mixer", "target": f"{EXAMPLES}:{name}", **told}


@pytest.mark.parametrize("name", MIXERS)
def test_killed_and_resumed_is_bit_for_bit_the_whole_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = (
        *TASKS["depo"], "train.packing=concat", "train.seq_len=48", "train.checkpoint_every=2", "train.resume=auto",
    )  # fmt: skip
    expected = run(tmp_path / "whole", *overrides, base=base(name))
    step, cut = train_run.train_step, make_run(tmp_path / "cut", *overrides, base=base(name))

    def killed(*args: Any) -> float:
        if cut.step == 4:
            raise InterruptedError
        return step(*args)

    with monkeypatch.context() as patched:
        patched.setattr(train_run, "train_step", killed)
        with pytest.raises(InterruptedError):
            cut.run()
    resumed = run(tmp_path / "cut", *overrides, base=base(name))
    assert same(weights(resumed.model), weights(expected.model))
    assert only_csv(tmp_path / "cut") == only_csv(tmp_path / "whole")

"""Settings become one configuration; wrong ones one line, which says what is legal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from curves import BRIEF, DEPO, GPT2, files
from helpers import Ended

Cli = Callable[..., Ended]
pytestmark = pytest.mark.usefixtures("no_pictures")
WRONG = {
    "a hop above K": (("eval.hops=[1,5]",), "eval.hops: 5 is above dataset.K=4; legal: 1..4"),
    "no hop": (("eval.hops=[]",), "eval.hops=[]; legal: at least one hop, or null"),
    "vocabulary": (("model.vocab_size=40",), "largest token id of depo is 40; legal: 41 or more"),
    "context": (("model.n_positions=20",), "model.n_positions=20 is too short: the longest row of depo has 37 tokens"),
    "context of hard rows": (  # none of which is met in training or evaluation
        ("model.n_positions=36", "eval.qa=false", "eval.hops=[1]", "eval.num_examples_per_hop=1", "train.max_steps=1",
         "train.batch_size=1", "seed=3"),
        "model.n_positions=36 is too short: the longest row of depo has 37 tokens",
    ),
    "unknown key": (("train.max_step=3",), "train: no key 'max_step'; did you mean 'max_steps'?; legal: num_examples"),
    "unknown group": (("trian.max_steps=3",), "no setting 'trian'; did you mean 'train'?; legal: seed, output_dir"),
    "settings in place of a group": (("train={a:1}",), "train: not the name of a group of settings; legal: train=NAME"),
    "a key beside them": (("data.pth=x", "train={a:1}"), "data: no key 'pth'; did you mean 'path'?"),
    "unknown inner key": (("data.pth=x",), "data: no key 'pth'; did you mean 'path'?; legal: path, seed, mixture"),
    "unknown parameter": (("dataset.NN=3",), "dataset: no key 'NN'"),
    "unknown option": (("model=tiny_gpt",), "no model 'tiny_gpt'; did you mean 'tiny_gpt2'?; legal: custom, from_pre"),
    "unknown preset": (("preset=depo1-22",), "no preset 'depo1-22'; did you mean 'depo1-225'?"),
    "a key of another model": (
        ("model.size=8L512D",), "model: no key 'size' in model=tiny_gpt2; model=llama and model=mixer have it; legal"
    ),
    "a key like another": (("model.n_embed=8",), "model: no key 'n_embed' in model=tiny_gpt2; did you mean 'n_embd'?"),
    "a key of a dataset": (("dataset.ttype=x",), "no key 'ttype' in dataset=depo1; dataset=mano has it; legal: "),
    "a key of nothing": (("+foo=1",), "curve: no parameter 'foo'; legal: seed, output_dir, metrics_file, plot_file"),
    "no group": (("train=null",), "Config group override must be a string or a list. Got NoneType; legal: GROUP=NAME"),
    "a group taken away": (("~logging",), "logging=None; legal: a group of settings"),
    "a number for a group": (("data=3",), "data=3; legal: a group of settings"),
    "a model taken away": (("~model.name",), "no model 'None'; legal: tiny_gpt2"),
    "bytes that are no text": (("data.path=\udcff",), "data.path=\\udcff: no UTF-8; legal: KEY=VALUE in UTF-8"),
    "a warm-up without end": (
        ("train.warmup_steps=7",), "train: warmup_steps=7 is beyond max_steps=6; legal: 0..6"
    ),
    "no moment": (("train.beta1=1",), "train: beta1=1 is not legal (expected float < 1.0)"),
    "no number": (("train.learning_rate=nan",), "train: learning_rate=nan is not legal"),
    "no finite number": (("train.learning_rate=inf",), "train: learning_rate=inf is not legal"),
    "beyond all counting": (("train.batch_size=99999999999",), "batch_size=99999999999 is not legal (expected int <="),
    "beyond float32": (("train.learning_rate=1e200",), "train.learning_rate, train.weight_decay and the like within"),
    "too many threads": (("train.num_workers=99999",), "num_workers=99999 is not legal (expected int <= 1024)"),
    "a device of dreams": (("train.device=meta",), "train.device=meta: no such device; legal: auto, cpu, cuda, mps"),
    "a model too large": (("model.vocab_size=2147483647", "model.n_embd=1073741824"), "out of memory ("),
    "attention that is not there": (
        ("model.attn_implementation=flex_attention",), "model.attn_implementation=flex_attention: GPT2LMHeadModel does"
    ),
    "metrics_file elsewhere": (
        ("metrics_file=a/m.csv",), "metrics_file='a/m.csv'; legal: the name of a file in output_dir, without a folder"
    ),
    "a flag of Hydra": (("--experimental-rerun", "x"), "curve: no flag --experimental-rerun; legal: KEY=VALUE"),
    "no value": (("train.max_steps",), "missing EQUAL"),
    "wrong type": (("train.max_steps=3.5",), "train: max_steps=3.5 is not legal (expected int, got float)"),
    "out of range": (("train.batch_size=0",), "train: batch_size=0 is not legal"),
    "seed": (("seed=-1",), "seed=-1 is not legal"),
    "large seed": (("seed=18446744073709551616", "data.seed=0"), "seed=18446744073709551616; legal: an integer 0..2"),
    "precision": (("train.precision=fp8",), "train: precision='fp8' is not legal"),
    "device": (("train.device=abacus",), "train.device=abacus: "),
    "windows without length": (("train.packing=concat",), "train: packing=concat needs train.seq_len"),
    "no data": (("data.path=/nowhere/x",), "/nowhere/x: nothing there; legal: a dataset"),
    "no manifests": (("eval.manifests=/nowhere/x",), "eval.manifests=/nowhere/x: no *.manifest.json of depo in it"),
    "metrics_file": (("metrics_file=m.txt",), "metrics_file=m.txt; legal: a name that ends in .csv"),
    "plot_file": (("plot_file=m.gif",), "plot_file=m.gif; legal: a name that ends in .png or .svg or .pdf"),
    "a mixture of one": (("data.mixture={depo1:1}",), "legal: weights of at least two of brevo1, brevo2, depo1"),
    "a mixture of strangers": (("data.mixture={depo1:1,nano:1}",), "'nano' cannot be mixed; did you mean 'mano'?"),
    "a mixture with text": (("data.mixture={depo1:1,capo:1}",), "'capo' cannot be mixed; legal: brevo1, brevo2, depo1"),
    "parameters of strangers": (
        ("data.mixture={depo1:1,mano:1}", "data.mixture_params={mano:{N:2}}"), "data.mixture_params: mano has no 'N'"
    ),
    "parameters without mixture": (("data.mixture_params={mano:{L:2}}",), "data.mixture_params: 'mano' is not mixed"),
    "two sources": (("data.mixture={depo1:1,mano:1}", "data.path=x"), "data.path and data.mixture are two sources"),
    "dataset in a mixture": (("data.mixture={depo1:1,mano:1}",), "dataset.N says nothing in a mixture"),
    "groups of layers": (("model=recurrent_olmo3", "model.recurrent.loop_layers=3"), "groups that add up to it"),
    "a flag": (("--cgf", "job"), "curve: no flag --cgf; legal: KEY=VALUE"),
    "what to show": (("--cfg", "jobs"), "invalid choice: 'jobs'"),
    "a key shown": (("--cfg", "job", "dataset.NN=3"), "dataset: no key 'NN'"),
    "a key in a sweep": (("--multirun", "seed=1,2", "dataset.NN=3"), "dataset: no key 'NN'"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings_are_refused_in_one_line_and_leave_nothing(case: str, tmp_path: Path, cli: Cli) -> None:
    overrides, line = WRONG[case]
    base = {one.partition("=")[0]: one for one in (*GPT2, *BRIEF, *DEPO, *overrides)}
    if "model=recurrent_olmo3" in overrides:
        base = {key: one for key, one in base.items() if one not in GPT2 or key == "model"}
    ended = cli("curve", *base.values(), f"output_dir={tmp_path / 'out'}")
    assert ended.code == (1 if case == "a model too large" else 2), ended
    assert line in ended.err
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert files(tmp_path) == set() or case == "beyond float32"


def test_the_command_shows_its_configuration(cli: Cli) -> None:
    ended = cli("curve", "--cfg", "job", "dataset=mano", "dataset.L=3")
    assert ended.code == 0
    assert "L: 3" in ended.out
    assert "max_steps: 200" in ended.out

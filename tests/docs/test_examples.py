"""Every script of examples/ runs, at toy size, and prints what it is about."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from s3 import Server
from scripts import execute

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@pytest.mark.slow
def test_quickstart(tmp_path: Path) -> None:
    printed = execute(f"python {EXAMPLES}/quickstart.py 20", tmp_path)
    assert "<query_2> 11 <ans> 18 " in printed
    assert "65,536 rows" in printed
    assert re.search(r"step 20: loss [0-2]\.", printed)
    assert "complete already" in execute(f"python {EXAMPLES}/quickstart.py 0", tmp_path)


@pytest.mark.slow
def test_ddp_goes_on_under_another_number_of_processes(tmp_path: Path) -> None:
    two = execute(f"torchrun --nproc-per-node 2 {EXAMPLES}/ddp.py", tmp_path)
    one = execute(f"torchrun --nproc-per-node 1 {EXAMPLES}/ddp.py", tmp_path)
    assert "steps 1 to 20 on 2 process(es)" in two
    assert "steps 21 to 40 on 1 process(es)" in one
    before, after = (float(text.split()[-1]) for text in (two, one))
    assert after < before


@pytest.mark.slow
def test_hf_trainer(tmp_path: Path) -> None:
    printed = execute(f"python {EXAMPLES}/hf_trainer.py 3", tmp_path)
    assert re.search(r"sentences that parse: 0\.\d+ ± 0\.0\d+, KL \d\.\d+ nats\n", printed)


@pytest.mark.slow
def test_s3_build(tmp_path: Path, s3_env: Server, s3_url: str) -> None:
    printed = execute(f"python {EXAMPLES}/s3_build.py {s3_url}", tmp_path)
    assert "streamed 8192 rows from 4 shards" in printed
    assert len(s3_env.objects(s3_url.split("/")[2])) == 5


def test_my_grammar(tmp_path: Path) -> None:
    printed = execute(f"python {EXAMPLES}/my_grammar.py", tmp_path)
    assert "1 2 4 is a sentence: True  2 1 4 is one: False" in printed
    assert "after 1 comes {2: 0.5, 3: 0.5}" in printed
    (command,) = re.findall(r"now try: (.*)", printed)
    assert "valid" in execute(command, tmp_path)


def test_mixers(tmp_path: Path) -> None:
    """Both commands of its docstring, made small; what they compute is tested beside the models."""
    small = "dataset.L=2 model.size=1L32D model.head_dim=8 train.max_steps=2 eval.num_examples_per_hop=4 output_dir=run"
    doc = ast.get_docstring(ast.parse((EXAMPLES / "mixers.py").read_text())) or ""
    commands = re.findall(r"^synthshards curve .*$", doc, re.M)
    assert len(commands) == 2
    for command in commands:
        here = command.replace("examples/mixers.py", f"{EXAMPLES}/mixers.py")
        assert "step 2/2" in execute(f"{here} {small}", tmp_path)


def test_each_is_run_and_says_how() -> None:
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    run = set(re.findall(r"/(\w+\.py)", Path(__file__).read_text()))
    assert scripts == run
    for name in scripts:
        doc = ast.get_docstring(ast.parse((EXAMPLES / name).read_text())) or ""
        assert f"examples/{name}" in doc

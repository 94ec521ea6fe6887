"""Nothing that comes from files reaches a terminal as it is."""

from __future__ import annotations

import ast
import json
import warnings
from pathlib import Path

import pytest
from helpers import PACKAGE
from small_datasets import edit_manifest, make, run

from synthshards.errors import HealWarning, say, say_json
from synthshards.identity import Identity
from synthshards.inspect import Shown, as_html, as_terminal
from synthshards.tasks.task import Verdict

ESC = "\x1b[2J\x9b31m\u202e"
#: Files that print by themselves → what: nothing of a file, or what they have made printable.
ELSEWHERE = {
    "synthshards/errors.py": 2,
    "synthshards/cli.py": 3,
    "synthshards/commands.py": 1,
    "pipelines/execution/progress.py": 3,
    "loaders/commands.py": 1,
    "train/minimal.py": 4,
    "train/curve.py": 1,
}


def _prints(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = ast.unparse(node.func)
    return name in ("print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write")


def test_say_is_the_only_way_to_the_terminal() -> None:
    found = {}
    for floor in ("synthshards", "pipelines", "loaders", "train"):
        for path in sorted((PACKAGE.parent / floor).rglob("*.py")):
            if "bench" not in path.parts:
                count = sum(map(_prints, ast.walk(ast.parse(path.read_text()))))
                found |= {path.relative_to(PACKAGE.parent).as_posix(): count} if count else {}
    assert found == ELSEWHERE


def test_say_is_one_line_that_prints(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"a{ESC}\nb")
    assert capsys.readouterr().out == "a\\x1b[2J\\x9b31m\\u202e\\nb\n"
    document = {"a": [ESC, "💥\U000e0001"]}
    say_json(json.dumps(document, indent=2, ensure_ascii=False))
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable()
    assert json.loads(out) == document


def test_no_command_lets_an_escape_sequence_through(tmp_path: Path) -> None:
    out = make(tmp_path / "rows")
    (tmp_path / "rows" / f"note{ESC}").write_text("")
    (tmp_path / "rows" / f"dir{ESC}").mkdir()
    (tmp_path / "rows" / f"train{ESC}-00000.parquet").write_text("")

    def spoil(document: dict[str, object]) -> None:
        data = document["dataset"]
        assert isinstance(data, dict)
        data["task_version"] = 9
        data["params"] = {f"p{ESC}": f"v{ESC}"}
        document["fingerprint"] = Identity(**data).fingerprint

    edit_manifest(out, spoil)
    for args in (["info"], ["info", "--json"], ["verify"], ["verify", "--json"], ["inspect"], ["overlap", out]):
        outcome = run(args[0], out, *args[1:])
        for text in (outcome.out, outcome.err):
            assert text.replace("\n", "").isprintable(), args
    assert "p\\x1b[2J" in run("info", out).out


def test_rows_are_shown_as_they_print(tmp_path: Path) -> None:
    out = make(tmp_path / "rows", task="capo", params={"num_people": 20}, examples=5, format="webdataset")
    with pytest.MonkeyPatch.context() as patch:
        rows = [{"text": f"x{ESC}\n", "first_name": ESC, "birth_year": 3}]
        patch.setattr("synthshards.inspect._stored", lambda dataset: iter(rows))
        page = tmp_path / "page.html"
        for outcome in (run("inspect", out), run("inspect", out, "--html", page)):
            assert outcome.code == 0
            assert outcome.out.replace("\n", "").isprintable()
        assert page.read_text().replace("\n", "").isprintable()
        assert "first_name=\\x1b[2J" in run("inspect", out).out
    bad = Shown("row 0", Verdict(f"is{ESC}"), [], [("text", None)], "")
    assert "\x1b[2J" not in as_terminal(bad) + as_html("title", iter([bad]))


def test_a_warning_of_healing_prints() -> None:
    with pytest.warns(HealWarning) as caught:
        warnings.warn(f"a{ESC}", HealWarning, stacklevel=1)
    assert str(caught[0].message).isprintable()

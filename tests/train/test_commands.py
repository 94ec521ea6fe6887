"""What the help of the training commands takes from `conf/`."""

from __future__ import annotations

from importlib.resources import files

from click.testing import CliRunner

from synthshards.cli import cli


def test_the_help_of_train_lists_every_dataset() -> None:
    text = CliRunner().invoke(cli, ["train", "--help"]).output
    shown = text.partition("Values of dataset=: ")[2].rstrip(".\n").split(", ")
    stored = [file.name for file in files("synthshards.train").joinpath("conf", "dataset").iterdir()]
    assert sorted(f"{name}.yaml" for name in shown) == sorted(stored)

"""The commands `train` and `curve`, whose arguments are Hydra's, and `plot`. What they run is loaded when they run."""

from __future__ import annotations

from pathlib import Path

import click

from synthshards.cli import Integer, load
from synthshards.errors import say

_HYDRA = {"ignore_unknown_options": True, "help_option_names": ["--help", "-h"]}
_DATASETS = sorted(path.stem for path in (Path(__file__).parent / "conf" / "dataset").glob("*.yaml"))


@click.command(context_settings=_HYDRA, epilog=f"Values of dataset=: {', '.join(_DATASETS)}.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED, metavar="[KEY=VALUE]...")
def train(overrides: tuple[str, ...]) -> None:
    """The smallest experiment: a few steps, then a score. Half a minute on two cores; nothing is written.

    \b
    Examples:
      synthshards train                                      GPT-2 of two layers on Depo1-225
      synthshards train dataset=mano train.max_steps=100     another task, for longer
      synthshards train data.path=data/depo/train            the same rows from shards: the same numbers

    Settings are those of `synthshards curve`.
    """
    load("synthshards.train.minimal", "train", "train").main(overrides)


@click.command(context_settings=_HYDRA)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED, metavar="[KEY=VALUE]... [--cfg job] [--multirun]")
def curve(overrides: tuple[str, ...]) -> None:
    """Train a model on a task, evaluate it during training, and write a CSV and a picture at every evaluation.

    \b
    Examples:
      synthshards curve                                            the recurrent Olmo3 on Depo1-225
      synthshards curve model=tiny_gpt2 dataset=mano dataset.L=4   another model, task, parameter
      synthshards curve preset=depo1-225                           the paper's settings
      synthshards curve experiment=depo-small                      settings that learn on two cores
      synthshards curve preset=mano-10 --cfg job                   show the configuration, and stop
      synthshards curve --multirun seed=1,2,3                      one run after another

    Settings are Hydra's: group=name and group.key=value. docs/training.md lists them all.
    """
    load("synthshards.train.curve", "train", "curve").main(overrides)


@click.command()
@click.argument("csvs", metavar="[NAME=]CSV...", nargs=-1, required=True)
@click.option(
    "--out", "outs", multiple=True, default=("curve.png",), show_default=True, metavar="FILE",
    help="Where to write the picture; .png, .svg or .pdf. May be given several times.",
)  # fmt: skip
@click.option("--metric", "metrics", multiple=True, default=("accuracy",), show_default=True, metavar="COLUMN",
    help="Column to plot. May be given several times.")  # fmt: skip
@click.option("--x", default="examples_seen", show_default=True, metavar="COLUMN", help="Column of the x axis.")
@click.option(
    "--scale", type=click.Choice(["linear", "log"]), default="linear", show_default=True, help="Of the x axis."
)
@click.option(
    "--spread", type=click.Choice(["range", "sd", "none"]), default="range", show_default=True,
    help="Over runs with one name: minimum to maximum, one standard deviation, or none.",
)  # fmt: skip
@click.option(
    "--hop",
    "hops",
    type=Integer(1, 1 << 31),
    multiple=True,
    metavar="K",
    help="Only this hop. May be given several times.",
)
@click.option("--title", default="", help="Title of the picture.")
def plot(
    csvs: tuple[str, ...],
    outs: tuple[str, ...],
    metrics: tuple[str, ...],
    x: str,
    scale: str,
    spread: str,
    hops: tuple[int, ...],
    title: str,
) -> None:
    """Draw the learning curves of several runs in one picture.

    Runs with the same NAME (or without one) are seeds of one setting: they become one line, their mean, with the
    spread around it. There is a line for each name, hop and metric.

    \b
    Examples:
      synthshards plot outputs/run/depo_hop_metrics.csv
      synthshards plot seed1.csv seed2.csv seed3.csv --scale log --out curve.svg --out curve.pdf
      synthshards plot GPT-2=a1.csv GPT-2=a2.csv Llama=b1.csv Llama=b2.csv --metric accuracy --metric kl
    """
    load("synthshards.train.report.plot", "train", "plot").plot_curves(
        csvs, outs, metrics, x, scale, spread, hops, title
    )
    for out in outs:
        say(out)

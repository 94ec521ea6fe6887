"""The command `plot`: several runs in one picture."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

from synthshards.errors import UsageError

from .report.plot import Run, Spread, check_path, lines_of, picture, save


@click.command()
@click.argument("csvs", metavar="[NAME=]CSV...", nargs=-1, required=True)
@click.option(
    "--out", "outs", multiple=True, default=("curve.png",), show_default=True, metavar="FILE",
    help="Where to write the picture; .png, .svg or .pdf. May be given several times.",
)  # fmt: skip
@click.option("--metric", "metrics", multiple=True, default=("accuracy",), show_default=True, metavar="COLUMN",
    help="What to show. May be given several times.")  # fmt: skip
@click.option("--x", default="examples_seen", show_default=True, metavar="COLUMN", help="What to show it over.")
@click.option("--scale", type=click.Choice(["linear", "log"]), default="linear", show_default=True, help="Of x.")
@click.option(
    "--spread", type=click.Choice(["range", "sd", "none"]), default="range", show_default=True,
    help="Of runs with one name: from least to greatest, a standard deviation each way, or none.",
)  # fmt: skip
@click.option("--hop", "hops", type=int, multiple=True, metavar="K", help="Only this hop. May be given several times.")
@click.option("--title", default="", help="What stands above the picture.")
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

    Runs of one NAME (those without any together) differ in their seed: they become one line, their mean, with its
    spread around it. There is a line for each name, hop and metric.

    \b
    Examples:
      synthshards plot outputs/run/depo_hop_metrics.csv
      synthshards plot seed1.csv seed2.csv seed3.csv --scale log --out curve.svg --out curve.pdf
      synthshards plot GPT-2=a1.csv GPT-2=a2.csv Llama=b1.csv Llama=b2.csv --metric accuracy --metric kl
    """
    for out in outs:
        check_path(Path(out))
    groups: dict[str, list[Run]] = {}
    for given in csvs:
        name, path = named(given)
        groups.setdefault(name, []).append(Run.read(path))
    lines = lines_of(groups, x, metrics, cast(Spread, spread))
    known = sorted({line.hop for line in lines if line.hop is not None})
    for hop in hops:
        if hop not in known:
            raise UsageError(f"no hop {hop} in these runs; legal: {', '.join(f'{k:g}' for k in known) or 'no --hop'}")
    lines = [line for line in lines if not hops or line.hop in hops]
    figure = picture(lines, x, log_x=scale == "log", title=title)
    for out in outs:
        save(figure, Path(out))
        click.echo(out)


def named(given: str) -> tuple[str, Path]:
    """The name and the path of ``NAME=CSV``; a path that exists is no name, whatever it holds."""
    name, sign, path = given.partition("=")
    return ("", Path(given)) if not sign or Path(given).is_file() else (name, Path(path))

"""The commands `train` and `curve`: their arguments are Hydra's."""

from __future__ import annotations

from importlib import import_module

import click

_HYDRA = {"ignore_unknown_options": True, "help_option_names": ["--help", "-h"]}


@click.command(context_settings=_HYDRA)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED, metavar="[KEY=VALUE]...")
def train(overrides: tuple[str, ...]) -> None:
    """The smallest experiment: a few steps, then a score. Half a minute on two cores; nothing is written.

    \b
    Examples:
      synthshards train                                      GPT-2 of two layers on Depo1-225
      synthshards train dataset=mano train.max_steps=100     any task: depo1 depo2 brevo1 brevo2 mano lano capo
      synthshards train data.path=data/depo/train            the same rows from shards: the same numbers

    Settings are those of `synthshards curve`.
    """
    import_module("synthshards.train.minimal").main(overrides)


@click.command(context_settings=_HYDRA)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED, metavar="[KEY=VALUE]... [--cfg job] [--multirun]")
def curve(overrides: tuple[str, ...]) -> None:
    """Train a model on a task, evaluate it as it learns, and write CSV and picture at every evaluation.

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
    import_module("synthshards.train.curve").main(overrides)

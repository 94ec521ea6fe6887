"""`synthshards curve`: train a model on a task and draw how it learns. Configured by Hydra: see ``conf/config.yaml``.

``synthshards curve --help`` has examples; ``torchrun --nproc-per-node 2 -m synthshards curve`` trains on two processes.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click
import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from synthshards.errors import UsageError

from .config.compose import CONF, REFUSED, compose, given_of, one_line, opened, resolved
from .loop.distributed import process_group
from .loop.failures import explained
from .loop.signals import Terminated
from .models.target import STARTED_IN
from .run import Run


def main(arguments: Sequence[str] | None = None) -> None:
    """Run Hydra on the arguments: overrides, ``--cfg job``, ``--multirun``, ``--help``.

    Raises:
        UsageError: whatever Hydra refuses, and all that `Run` does.
    """
    args = list(sys.argv[1:] if arguments is None else arguments)
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    known, unknown = parser.parse_known_intermixed_args(args)
    if flag := next((arg for arg in unknown if arg.startswith("-")), None):
        _refuse(f"no flag {flag}")
    for flag in ("config_name", "config_path", "shell_completion", "experimental_rerun", "hydra_help"):
        if getattr(known, flag, None):
            _refuse(f"no flag --{flag.replace('_', '-')}")
    overrides = [*known.overrides, *unknown]
    flags = [arg for arg in args if arg not in overrides]  # Hydra wants them apart
    _check(overrides, flags)
    caught: list[BaseException] = []  # Hydra would print a traceback of its own

    @hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
    def job(config: DictConfig) -> None:
        if caught:
            return
        try:
            values, context = resolved(config), HydraConfig.get()
            if context.mode == RunMode.MULTIRUN:
                values["output_dir"] = context.runtime.output_dir
            with explained(), process_group(str(values["train"].get("device"))):
                Run(values, given_of(context.overrides.task)).run()
        except BaseException as error:
            caught.append(error)

    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    started = STARTED_IN.set(Path.cwd())  # Hydra's job.chdir may lead elsewhere
    before, sys.argv = sys.argv, ["synthshards curve", *flags, *opened(overrides), *quiet]
    full, os.environ["HYDRA_FULL_ERROR"] = os.environ.get("HYDRA_FULL_ERROR"), "1"  # errors come out as exceptions
    try:
        job()
    except REFUSED as error:
        raise UsageError(one_line(error)) from None
    finally:
        STARTED_IN.reset(started)
        sys.argv = before
        os.environ.pop("HYDRA_FULL_ERROR")
        if full is not None:
            os.environ["HYDRA_FULL_ERROR"] = full
    if caught and isinstance(caught[0], Terminated):
        click.echo("stopped", err=True)
        raise click.exceptions.Exit(128 + signal.SIGTERM)
    if caught:
        raise caught[0]


def _refuse(message: str) -> NoReturn:
    raise UsageError(f"curve: {message}; legal: KEY=VALUE, GROUP=NAME, --cfg job, --multirun (see curve --help)")


def _check(overrides: Sequence[str], flags: Sequence[str]) -> None:
    """Compose every job, which says in one line, before anything is written, what Hydra would say in ten."""
    if not flags or "--cfg" in flags or "-c" in flags:
        compose(overrides)
    elif "--multirun" in flags or "-m" in flags:
        try:
            parsed = OverridesParser.create().parse_overrides(list(overrides))
            jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
        except HydraException as error:
            raise UsageError(one_line(error)) from None
        for one in jobs:
            compose(one)

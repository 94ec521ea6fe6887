"""Where a run reports its progress: JSON lines, Weights & Biases, TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from synthshards.errors import UsageError, first_line

from ..config.options import LoggingOptions


class Log(Protocol):
    """One place."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of a step, such as ``train/loss``."""

    def picture(self, step: int, path: Path) -> None:
        """The picture of an evaluation."""

    def close(self) -> None:
        """Write what is left."""


class JsonLines:
    """A line a step in ``log.jsonl``; a run that goes on drops what came after its checkpoint."""

    def __init__(self, folder: Path, from_step: int) -> None:
        self._path = folder / "log.jsonl"
        lines = []
        if from_step and self._path.is_file():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= from_step:
                        lines.append(line)
                except (ValueError, LookupError):
                    break  # the last line of a run that was killed
        self._path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        self._file = self._path.open("a", encoding="utf-8")

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        shown = {name: value if isfinite(value) else None for name, value in values.items()}  # JSON has no NaN
        self._file.write(json.dumps({"step": step, **shown}) + "\n")
        self._file.flush()

    def picture(self, step: int, path: Path) -> None:
        """It stands in the folder."""

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """Event files in ``tensorboard``."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"))

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, path: Path) -> None:
        """TensorBoard draws its own."""

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, in its own mode (``WANDB_MODE=offline`` works)."""

    def __init__(self, folder: Path, options: LoggingOptions, config: Mapping[str, Any], run_id: str) -> None:
        import wandb

        o = options.wandb
        self._wandb = wandb
        try:
            self._run = wandb.init(
                project=o.project, entity=o.entity, name=o.name, dir=str(folder), config=dict(config), resume="allow",
                id=run_id,
            )  # fmt: skip
        except Exception as error:  # no key, no network, an illegal name: it has classes of its own for each
            legal = "a login, WANDB_MODE=offline, or logging.wandb.enabled=false"
            raise UsageError(f"logging.wandb: {first_line(error)}; legal: {legal}") from None

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, step: int, path: Path) -> None:
        if path.suffix == ".png":
            self._run.log({path.stem: self._wandb.Image(str(path))}, step=step)

    def close(self) -> None:
        self._run.finish()


def check_installed(options: LoggingOptions) -> None:
    """Raise `UsageError` where a log needs a package that is not installed."""
    for enabled, key, package, module in (
        (options.tensorboard, "logging.tensorboard", "tensorboard", "torch.utils.tensorboard"),
        (options.wandb.enabled, "logging.wandb.enabled", "wandb", "wandb"),
    ):
        try:
            if enabled:
                import_module(module)
        except ImportError:
            raise UsageError(
                f"{key}=true needs {package}; install it with: pip install 'synthshards[logging]'"
            ) from None


def open_logs(
    folder: Path, options: LoggingOptions, config: Mapping[str, Any], from_step: int, run_id: str
) -> list[Log]:
    """Every log that the options ask for.

    Args:
        from_step: what came after it is dropped.
        run_id: the same for all processes of a run that is resumed.

    Raises:
        UsageError: Weights & Biases does not take the run.
    """
    logs: list[Log] = []
    if options.wandb.enabled:  # the one that may refuse comes first
        logs.append(WeightsAndBiases(folder, options, config, run_id))
    if options.tensorboard:
        logs.append(TensorBoard(folder))
    if options.jsonl:
        logs.append(JsonLines(folder, from_step))
    return logs

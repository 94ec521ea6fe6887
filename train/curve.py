"""`synthshards curve`: train a model on a task and draw how it learns. Configured by Hydra: see ``conf/config.yaml``.

synthshards curve                                       the recurrent Olmo3 on Depo1-225
synthshards curve model=tiny_gpt2 dataset=mano dataset.L=4 train.max_steps=1000
synthshards curve preset=depo1-225                      the paper's settings; --cfg job shows them
torchrun --nproc-per-node 2 -m synthshards curve model=llama …
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from synthshards.errors import UsageError, nearest

from .loop.distributed import process_group
from .run import Run

CONF = Path(__file__).parent / "conf"


def compose(overrides: Sequence[str], name: str = "config") -> dict[str, Any]:
    """The resolved configuration that some overrides of ``conf/<name>.yaml`` mean, as plain values.

    Raises:
        UsageError: an override that Hydra refuses.
    """
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra.compose(name, list(overrides), return_hydra_config=False)
        return resolved(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(one_line(error, name)) from None


def resolved(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain values; `data.mixture_groups` holds the datasets that `data.mixture` names."""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict), "a configuration is a mapping"
    values: dict[str, Any] = {str(key): value for key, value in plain.items()}
    mixture = values["data"]["mixture"]
    if mixture is not None:
        values["data"]["mixture_groups"] = _groups(mixture, values["data"]["mixture_params"] or {})
    return values


def _groups(mixture: Any, params: Any) -> dict[str, Any]:
    """The groups of `conf/dataset` that a mixture names, with what `data.mixture_params` changes of them."""
    known = sorted(path.stem for path in (CONF / "dataset").glob("*.yaml") if path.stem != "capo")
    legal = ", ".join(known)
    if not isinstance(mixture, dict) or len(mixture) < 2:
        raise UsageError(f"data.mixture={mixture!r}; legal: weights of at least two of {legal}")
    if not isinstance(params, dict) or not all(isinstance(changed, dict) for changed in params.values()):
        raise UsageError(f"data.mixture_params={params!r}; legal: parameters by the name of what is mixed")
    groups = {}
    for name in mixture:
        if name not in known:
            raise UsageError(f"data.mixture: {name!r} cannot be mixed{nearest(str(name), known)}; legal: {legal}")
        groups[name] = group = _group(name)
        for key, value in params.get(name, {}).items():
            if key not in group or key in ("name", "task"):
                may = [one for one in group if one not in ("name", "task")]
                raise UsageError(
                    f"data.mixture_params: {name} has no {key!r}{nearest(str(key), may)}; legal: {', '.join(may)}"
                )
            group[key] = value
    return groups


def _group(name: str) -> dict[str, Any]:
    """A group of ``conf/dataset`` as it stands there."""
    plain = OmegaConf.to_container(OmegaConf.load(CONF / "dataset" / f"{name}.yaml"))
    assert isinstance(plain, dict), "a group is a mapping"
    return {str(key): value for key, value in plain.items()}


def given_of(overrides: Sequence[str]) -> dict[str, Any]:
    """What overrides say of the rows: parameters by name, `task`, and `seed` for ``data.seed``."""
    found: dict[str, Any] = {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key, value = override.key_or_group, override.value()
        if key == "dataset":
            found["task"] = _group(str(value))["task"]
        elif key.startswith("dataset."):
            found[key.removeprefix("dataset.")] = value
        elif key == "data.seed":
            found["seed"] = value
    return found


def one_line(error: BaseException, name: str = "config") -> str:
    """What Hydra has to say of ``conf/<name>.yaml``, in one line."""
    parts = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__
    if cause is not None and str(cause).strip():
        parts += [line.strip() for line in str(cause).splitlines()[:1]]
    text = " ".join(dict.fromkeys(parts))
    if found := re.search(r"Could not override '([\w.@/-]+)'", text):
        return _no_such_key(found[1], name)
    if found := re.search(r"Could not find '([\w/]+)/([^'/]*)'", text):
        group, name = found[1], found[2]
        legal = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        return f"no {group} {name!r}{nearest(name, legal)}; legal: {', '.join(legal)}"
    return text


def _no_such_key(key: str, name: str) -> str:
    """A line on a key that no configuration has, with those that stand in its place."""
    *parents, last = key.split(".")
    at: Any = OmegaConf.load(CONF / f"{name}.yaml")
    legal = [str(name) for name in at if name not in ("defaults", "hydra")]
    groups = sorted(path.name for path in CONF.iterdir() if path.is_dir())
    where = "no setting"
    if parents and parents[0] in groups:
        files = [OmegaConf.load(path) for path in sorted((CONF / parents[0]).glob("*.yaml"))]
        found = [OmegaConf.select(file, ".".join(parents[1:])) if parents[1:] else file for file in files]
        legal = list(dict.fromkeys(str(name) for one in found if isinstance(one, DictConfig) for name in one))
        where = f"{'.'.join(parents)}: no key"
    elif parents and isinstance(at.get(parents[0]), DictConfig):
        legal, where = [str(name) for name in at[parents[0]]], f"{parents[0]}: no key"
    elif not parents or not legal:
        legal += groups
    else:
        last, legal = parents[0], [*legal, *groups]
    return f"{where} {last!r}{nearest(last, legal)}; legal: {', '.join(legal)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run Hydra on the arguments: overrides, ``--cfg job``, ``--multirun``, ``--help``.

    Raises:
        UsageError: whatever Hydra refuses, and all that `Run` does.
    """
    args = list(sys.argv[1:] if arguments is None else arguments)
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    found, unknown = parser.parse_known_intermixed_args(args)
    if flag := next((arg for arg in unknown if arg.startswith("-")), None):
        _refuse(f"no flag {flag}")
    overrides = [*found.overrides, *unknown]
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
            with process_group(values["train"]["device"]):
                Run(values, given_of(context.overrides.task)).run()
        except BaseException as error:
            caught.append(error)

    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    before, sys.argv = sys.argv, ["synthshards curve", *flags, *overrides, *quiet]
    full, os.environ["HYDRA_FULL_ERROR"] = os.environ.get("HYDRA_FULL_ERROR"), "1"  # errors come out as exceptions
    try:
        job()
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(one_line(error)) from None
    finally:
        sys.argv = before
        os.environ.pop("HYDRA_FULL_ERROR")
        if full is not None:
            os.environ["HYDRA_FULL_ERROR"] = full
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

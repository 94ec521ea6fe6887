"""`synthshards curve`: train a model on a task and draw how it learns. Configured by Hydra: see ``conf/config.yaml``.

synthshards curve                                       the recurrent Olmo3 on Depo1-225
synthshards curve model=tiny_gpt2 dataset=mano dataset.L=4 train.max_steps=1000
synthshards curve preset=depo1-225                      the paper's settings; --cfg job shows them
torchrun --nproc-per-node 2 -m synthshards.train.curve model=llama …
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from synthshards.errors import UsageError

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
        raise UsageError(one_line(error)) from None


def resolved(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain values; `data.mixture_groups` holds the datasets that `data.mixture` names."""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict), "a configuration is a mapping"
    values: dict[str, Any] = {str(key): value for key, value in plain.items()}
    mixture = values["data"]["mixture"]
    if mixture is not None:
        values["data"]["mixture_groups"] = _groups(mixture)
    return values


def _groups(mixture: Any) -> dict[str, Any]:
    """The groups of `conf/dataset` that a mixture names."""
    known = sorted(path.stem for path in (CONF / "dataset").glob("*.yaml"))
    if not isinstance(mixture, dict) or len(mixture) < 2:
        raise UsageError(f"data.mixture={mixture!r}; legal: weights of at least two of {', '.join(known)}")
    groups = {}
    for name in mixture:
        if name not in known or name == "capo":
            legal = ", ".join(one for one in known if one != "capo")
            raise UsageError(f"data.mixture: {name!r} cannot be mixed; legal: {legal}")
        groups[name] = _group(name)
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


def one_line(error: BaseException) -> str:
    """What Hydra has to say, in one line."""
    parts = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__
    if cause is not None and str(cause).strip():
        parts += [line.strip() for line in str(cause).splitlines()[:1]]
    return " ".join(dict.fromkeys(parts))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run Hydra on the arguments: overrides, ``--cfg job``, ``--multirun``, ``--help``."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    overrides = [arg for arg in args if not arg.startswith("-")]
    if not any(arg.startswith("-") for arg in args):
        compose(overrides)  # says in one line what Hydra would say in ten
    caught: list[BaseException] = []  # Hydra would print a traceback of its own

    @hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
    def job(config: DictConfig) -> None:
        try:
            _run(resolved(config), given_of(HydraConfig.get().overrides.task))
        except BaseException as error:
            caught.append(error)

    before, sys.argv = sys.argv, ["synthshards curve", *args, "hydra/job_logging=none", "hydra/hydra_logging=none"]
    try:
        job()
    finally:
        sys.argv = before
    if caught:
        raise caught[0]


def _run(config: dict[str, Any], given: dict[str, Any]) -> None:
    started = "RANK" in os.environ and "WORLD_SIZE" in os.environ and not dist.is_initialized()
    if started:
        dist.init_process_group("gloo" if config["train"]["device"] in ("cpu", "auto") else "nccl")
    try:
        Run(config, given).run()
    finally:
        if started:
            dist.destroy_process_group()


if __name__ == "__main__":
    main()

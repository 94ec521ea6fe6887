"""From Hydra overrides to a resolved configuration of ``conf/``, or to a one-line error."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from synthshards.errors import UsageError, nearest

from ..evaluation.metrics import EVALUATIONS

#: Where the configurations of this floor lie.
CONF = Path(__file__).parents[1] / "conf"


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
    names = sorted(path.stem for path in (CONF / "dataset").glob("*.yaml"))
    mixable = [name for name in names if (own := EVALUATIONS.get(_group(name)["task"])) is not None and own.mixable]
    legal = ", ".join(mixable)
    if not isinstance(mixture, dict) or len(mixture) < 2:
        raise UsageError(f"data.mixture={mixture!r}; legal: weights of at least two of {legal}")
    if not isinstance(params, dict) or not all(isinstance(changed, dict) for changed in params.values()):
        raise UsageError(f"data.mixture_params={params!r}; legal: parameters by the name of what is mixed")
    groups = {}
    for name in mixture:
        if name not in mixable:
            raise UsageError(f"data.mixture: {name!r} cannot be mixed{nearest(str(name), mixable)}; legal: {legal}")
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
    given: dict[str, Any] = {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key, value = override.key_or_group, override.value()
        if key == "dataset":
            given["task"] = _group(str(value))["task"]
        elif key.startswith("dataset."):
            given[key.removeprefix("dataset.")] = value
        elif key == "data.seed":
            given["seed"] = value
    return given


def one_line(error: BaseException, name: str = "config") -> str:
    """What Hydra has to say of ``conf/<name>.yaml``, in one line."""
    parts = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__
    if cause is not None and str(cause).strip():
        parts += [line.strip() for line in str(cause).splitlines()[:1]]
    text = " ".join(dict.fromkeys(parts))
    if match := re.search(r"Could not override '([\w.@/-]+)'", text):
        return _no_such_key(match[1], name)
    if match := re.search(r"Could not find '([\w/]+)/([^'/]*)'", text):
        group, name = match[1], match[2]
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
        inner = [OmegaConf.select(file, ".".join(parents[1:])) if parents[1:] else file for file in files]
        legal = list(dict.fromkeys(str(name) for one in inner if isinstance(one, DictConfig) for name in one))
        where = f"{'.'.join(parents)}: no key"
    elif parents and isinstance(at.get(parents[0]), DictConfig):
        legal, where = [str(name) for name in at[parents[0]]], f"{parents[0]}: no key"
    elif not parents or not legal:
        legal += groups
    else:
        last, legal = parents[0], [*legal, *groups]
    return f"{where} {last!r}{nearest(last, legal)}; legal: {', '.join(legal)}"

"""From Hydra overrides to a resolved configuration of ``conf/``, or to a one-line error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from synthshards.errors import UsageError, first_line, nearest

from ..evaluation.metrics import EVALUATIONS

#: Where the configurations of this floor lie.
CONF = Path(__file__).parents[1] / "conf"
#: Its groups of settings; whatever else stands at the top is a setting of its own.
GROUPS = ("dataset", "model", "train", "eval", "logging", "data")
#: Mappings whose keys are the user's own.
_OPEN = re.compile(r"model\.(kwargs|config)[.=]")
#: How Hydra and OmegaConf refuse.
REFUSED = (HydraException, OmegaConfBaseException)


def opened(overrides: Sequence[str]) -> list[str]:
    """The overrides with those of the user's own keys as Hydra wants what no file has: with ``++`` before them."""
    return [f"++{one}" if _OPEN.match(one) else one for one in overrides]


def compose(overrides: Sequence[str], name: str = "config") -> dict[str, Any]:
    """The resolved configuration that some overrides of ``conf/<name>.yaml`` mean, as plain values.

    Raises:
        UsageError: an override that Hydra refuses.
    """
    try:
        return resolved(_composed(overrides, name))
    except REFUSED as error:
        raise UsageError(one_line(error, overrides, name)) from None


def _composed(overrides: Sequence[str], name: str) -> DictConfig:
    for override in overrides:
        if any("\ud800" <= c <= "\udfff" for c in override):  # what Python has in place of bytes that are no UTF-8
            raise UsageError(f"{override}: no UTF-8; legal: KEY=VALUE in UTF-8")
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            return hydra.compose(name, opened(overrides), return_hydra_config=False)
    except (ValueError, TypeError) as error:  # a group is given something else than a name
        if isinstance(error, OmegaConfBaseException):
            raise
        groups = [one for one in overrides if "." not in one.partition("=")[0]]
        raise UsageError(f"{' '.join(groups)}: {first_line(error)}; legal: GROUP=NAME") from None


def resolved(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain values; `data.mixture_groups` holds the datasets that `data.mixture` names.

    Raises:
        UsageError: a group is missing or something else, or a mixture cannot be.
    """
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict), "a configuration is a mapping"
    values: dict[str, Any] = {str(key): value for key, value in plain.items()}
    for group in GROUPS:
        if not isinstance(values.get(group), dict):
            raise UsageError(f"{group}={values.get(group)!r}; legal: a group of settings")
    mixture = values["data"].get("mixture")
    if mixture is not None:
        values["data"]["mixture_groups"] = _groups(mixture, values["data"].get("mixture_params") or {})
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


def name_and_options(group: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What ``model=`` chose, and the options beside its name."""
    return str(group.get("name")), {key: value for key, value in group.items() if key != "name"}


def one_line(error: BaseException, overrides: Sequence[str] = (), name: str = "config") -> str:
    """What Hydra has to say of some overrides of ``conf/<name>.yaml``, in one line."""
    parts = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__
    if cause is not None and str(cause).strip():
        parts += [line.strip() for line in str(cause).splitlines()[:1]]
    text = " ".join(dict.fromkeys(parts))
    if match := re.search(r"Could not override '([\w.@/-]+)'", text):
        return _no_such_key(match[1], overrides, name)
    if match := re.search(r"Could not find '([\w/]+)/([^'/]*)'", text):
        group, name = match[1], match[2]
        legal = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        return f"no {group} {name!r}{nearest(name, legal)}; legal: {', '.join(legal)}"
    return text


def _no_such_key(key: str, overrides: Sequence[str], name: str) -> str:
    """A line on a key that the configuration does not have, with those in its place, and what else has the key."""
    groups = sorted(path.name for path in CONF.iterdir() if path.is_dir())
    if key in groups:
        names = ", ".join(sorted(path.stem for path in (CONF / key).glob("*.yaml")))
        return f"{key}: not the name of a group of settings; legal: {key}=NAME with {names}, or {key}.KEY=VALUE"
    chosen = [  # what else they change cannot be composed
        one for one in overrides if one.partition("=")[0] in groups and re.fullmatch(r"[\w-]+", one.partition("=")[2])
    ]
    at: Any = _composed(chosen, name)
    *parents, last = key.split(".")
    for depth, parent in enumerate(parents):
        inner = OmegaConf.select(at, parent)
        if not isinstance(inner, DictConfig):
            parents, last = parents[:depth], parent
            break
        at = inner
    legal = [str(one) for one in at] if parents else [*(str(one) for one in at if one not in groups), *groups]
    where = f"{'.'.join(parents)}: no key" if parents else "no setting"
    others = ""
    if len(parents) == 1 and len(files := sorted((CONF / parents[0]).glob("*.yaml"))) > 1:
        others = f" in {parents[0]}={at.get('name')}{nearest(last, legal)}"
        if having := [f"{parents[0]}={path.stem}" for path in files if last in OmegaConf.load(path)]:
            others += f"; {' and '.join(having)} {'have' if len(having) > 1 else 'has'} it"
    return f"{where} {last!r}{others or nearest(last, legal)}; legal: {', '.join(legal)}"

"""What is in a folder, and whether a plan may go there: continue or grow its own dataset, refuse anything else.

Looking changes nothing, so that a refused build leaves the folder as it was. Every build declares its plan by a file
of its own in the scratch folder before it looks a last time: of two plans that do not go together, whatever the
moment they come, at least one finds the other there and gives way. That holds without any lock, on object stores too.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa

from synthshards.dataset.document import shown
from synthshards.dataset.manifest import NAME, Manifest
from synthshards.dataset.manifest_parser import find, parse
from synthshards.digest import canonical_json
from synthshards.errors import ManifestError, UsageError
from synthshards.formats import FORMATS
from synthshards.storage.folder import SCRATCH, Folder

from ..plan import PLAN_PREFIX, SHARD_NAME, BuildPlan, names_shard, plan_record
from .journal import recorded


@dataclass(frozen=True)
class FolderState:
    """What stands in a folder.

    Attributes:
        raw, manifest: the manifest's bytes and what they say; None where there is none.
        plans: file name in the scratch folder → plan that a build declared and has not finished.
        name: of the manifest, also of one that is still to come.
    """

    raw: pa.Buffer | None
    manifest: Manifest | None
    plans: dict[str, dict[str, Any]]
    name: str = NAME


def admit(folder: Folder, plan: BuildPlan, before: FolderState | None = None) -> FolderState:
    """Look at the folder; refuse what this plan would damage or mix.

    Args:
        before: an earlier look, so that a manifest which has not changed is not parsed again.

    Raises:
        UsageError: it holds another identity or layout, more shards, a short last shard, or unknown shards.
        ManifestError: its manifest, or a plan in its scratch folder, is not one.
    """
    state = look(folder, before)
    old = state.manifest
    if old is not None:
        _same(folder, "identity", old.identity.as_dict(), plan.identity.as_dict())
        _same(folder, "layout", _fixed(old.layout.as_dict()), _fixed(plan.layout.as_dict()))
        _no_shrink(folder, "", old.layout.num_shards, old.examples, plan)
    for record in state.plans.values():
        _same(folder, "identity", record["dataset"], plan.identity.as_dict())
        _same(folder, "layout", _fixed(record["layout"]), _fixed(plan.layout.as_dict()))
        _no_shrink(folder, "an unfinished build of ", record["layout"]["num_shards"], record["examples"], plan)
    if before is None and (old is None or old.examples != plan.examples):
        _refuse_strays(folder, state, plan if old is not None or state.plans else None)
    return state


def look(folder: Folder, before: FolderState | None = None, *, damaged: bool = False) -> FolderState:
    """What stands in the folder, whatever it is. Changes nothing.

    Args:
        before: an earlier look, so that what has not changed is not read or parsed again.
        damaged: take a manifest or plan that is none for absent (`raw` has its bytes all the same).

    Raises:
        UsageError: it is a file, or its scratch folder is a symbolic link.
        ManifestError: its manifest, or a plan in its scratch folder, is not one, or it has two manifests.
    """
    if folder.is_file():
        raise UsageError(f"{folder.url}: is a file; legal: a folder, or a name that is free")
    plans = {}
    # The scratch folder first: a build that finishes in between shows its manifest.
    for name in folder.list(SCRATCH):
        if before is not None and name in before.plans:
            plans[name] = before.plans[name]  # such a name has one content
        elif name.startswith(PLAN_PREFIX):
            try:
                raw_plan = folder.read(f"{SCRATCH}/{name}").to_pybytes()
            except FileNotFoundError:
                continue  # that build has just finished
            with suppress(*([ManifestError] if damaged else [])):
                plans[name] = plan_record(raw_plan, folder.where(f"{SCRATCH}/{name}"))
    try:
        name, raw = find(folder)
    except FileNotFoundError:
        return FolderState(None, None, plans)
    if before is not None and before.raw is not None and raw.equals(before.raw):
        return FolderState(raw, before.manifest, plans, name)
    try:
        return FolderState(raw, parse(raw, folder.where(name)), plans, name)
    except ManifestError:
        if not damaged:
            raise
        return FolderState(raw, None, plans, name)


def declare(folder: Folder, plan: BuildPlan, before: FolderState | None, *, alone: bool) -> FolderState:
    """Write the plan into the scratch folder, so that other builds see it.

    Args:
        alone: whether a lock keeps other builds away.

    Raises:
        UsageError: as `admit`; the folder is then as it was.
    """
    state = admit(folder, plan, before)
    if plan.file not in state.plans:
        folder.write(f"{SCRATCH}/{plan.file}", canonical_json(plan.as_dict()))
    if alone:
        return state
    try:
        return admit(folder, plan, state)
    except UsageError:
        if plan.file not in state.plans:
            folder.delete(f"{SCRATCH}/{plan.file}")
        raise


def admit_overwriting(folder: Folder) -> None:
    """Refuse to delete what no build wrote: another program's manifest.json, or files that are only named like shards.

    Raises:
        UsageError: there is one (named), or the folder is a file, or its scratch folder is a symbolic link.
    """
    state = look(folder, damaged=True)
    if state.raw is not None and state.manifest is None:
        try:
            foreign = "fingerprint" not in msgspec.json.decode(state.raw, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            foreign = False  # damaged: overwriting is the remedy
        if foreign:
            raise UsageError(f"{folder.where(state.name)}: is not a manifest of synthshards; legal: another --out")
    _refuse_strays(folder, state)


def written(folder: Folder, state: FolderState) -> list[str]:
    """The files named like shards that the folder's manifest, plans or records name: those that builds wrote."""
    return _shards(folder, state)[0]


def _refuse_strays(folder: Folder, state: FolderState, plan: BuildPlan | None = None) -> None:
    """Raise `UsageError` where files are named like shards that no build wrote, or that `plan` would write."""
    strays = [name for name in _shards(folder, state)[1] if plan is None or plan.makes(name)]
    if strays:
        names = ", ".join(strays[:3]) + (" …" if len(strays) > 3 else "")
        raise UsageError(
            f"{folder.url}: holds {len(strays)} shard files that no manifest, plan or record there names ({names}); "
            "legal: another --out, or a folder without them"
        )


def _shards(folder: Folder, state: FolderState) -> tuple[list[str], list[str]]:
    """The files named like shards: those that manifest, plans or records name, and the others."""
    mine: list[str] = []
    others: list[str] = []
    known = set() if state.manifest is None else {e.path for e in state.manifest.shards if e.bytes is not None}
    plans = [
        (plan["dataset"]["split"], FORMATS[plan["layout"]["format"]].suffix, plan["layout"]["num_shards"])
        for plan in state.plans.values()
        if plan["layout"]["format"] in FORMATS
    ]
    for name in folder.list():
        if looks_like_shard(name):
            named = name in known or any(names_shard(name, *plan) for plan in plans)
            (mine if named else others).append(name)
    if others:
        records = recorded(folder)
        mine, others = [*mine, *(n for n in others if n in records)], [n for n in others if n not in records]
    return mine, others


def looks_like_shard(name: str) -> bool:
    """Whether a file name is ``<split>-00000.<suffix>`` of some split and format."""
    match = SHARD_NAME.fullmatch(name)
    return match is not None and match[3] in {f.suffix for f in FORMATS.values()}


def _fixed(layout: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in layout.items() if name != "num_shards"}


def _same(folder: Folder, what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse unless both are equal, naming the first difference."""
    for name in {**new, **old}:
        a, b = old.get(name), new.get(name)
        if a != b and isinstance(a, dict) and isinstance(b, dict):
            _same(folder, f"{what}.{name}", a, b)
        elif a != b:
            raise UsageError(
                f"{folder.url}: holds another {what} ({name} is {shown(a)} there, {shown(b)} here); "
                "legal: another --out (or replace it: build --overwrite)"
            )


def _no_shrink(folder: Folder, what: str, num_shards: int, examples: int, plan: BuildPlan) -> None:
    rows = plan.layout.shard_examples
    if plan.examples < examples:
        raise UsageError(
            f"{folder.url}: holds {what}{num_shards} shards ({examples} rows), more than {plan.layout.num_shards} "
            f"({plan.examples} rows); legal: at least as many, another --out, or --overwrite"
        )
    if plan.examples > examples and examples % rows:
        raise UsageError(
            f"{folder.url}: its last shard is short ({examples % rows} of {rows} rows), so it cannot grow; "
            "legal: another --out, or --overwrite"
        )

"""What is in a folder, and whether a plan may go there: continue or grow its own dataset, refuse anything else.

Looking changes nothing, so that a refused build leaves the folder as it was. Every build declares its plan by a file
of its own in the scratch folder before it looks a last time: of two plans that do not go together, whatever the
moment they come, at least one finds the other there and gives way. That holds without any lock, on object stores too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa

from synthshards.dataset.manifest import NAME, Manifest
from synthshards.dataset.manifest_parser import parse
from synthshards.digest import canonical_json
from synthshards.errors import StorageError, UsageError
from synthshards.formats import FORMATS
from synthshards.storage.folder import SCRATCH, Folder

from ..plan import PLAN_PREFIX, BuildPlan, plan_record

_SHARD_NAME = re.compile(r"[a-z0-9_]+-[0-9]{5}\.([a-z]+)")


@dataclass(frozen=True)
class FolderState:
    """What stands in a folder.

    Attributes:
        raw, manifest: the manifest's bytes and what they say; None where there is none.
        plans: file name in the scratch folder → plan that a build declared and has not finished.
    """

    raw: pa.Buffer | None
    manifest: Manifest | None
    plans: dict[str, dict[str, Any]]


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
    if old is None and not state.plans:
        strays = [name for name in folder.list() if looks_like_shard(name)]
        if strays:
            raise UsageError(
                f"{folder.url}: holds {len(strays)} shard files without a manifest (such as {strays[0]}); "
                "legal: an empty folder, or --overwrite"
            )
    return state


def look(folder: Folder, before: FolderState | None = None) -> FolderState:
    """What stands in the folder, whatever it is. Changes nothing.

    Raises:
        UsageError: it is a file.
        ManifestError: its manifest, or a plan in its scratch folder, is not one.
    """
    if folder.path is not None and folder.path.exists() and not folder.path.is_dir():
        raise UsageError(f"{folder.url}: is a file; legal: a folder, or a name that is free")
    plans = {}
    # The scratch folder first: a build that finishes in between shows its manifest.
    for name in folder.list(SCRATCH):
        if name.startswith(PLAN_PREFIX):
            try:
                raw_plan = folder.read(f"{SCRATCH}/{name}").to_pybytes()
            except FileNotFoundError:
                continue  # that build has just finished
            plans[name] = plan_record(raw_plan, folder.where(f"{SCRATCH}/{name}"))
    try:
        raw = folder.read(NAME)
    except FileNotFoundError:
        return FolderState(None, None, plans)
    if before is not None and before.raw is not None and raw.equals(before.raw):
        return FolderState(raw, before.manifest, plans)
    return FolderState(raw, parse(raw, folder.where(NAME)), plans)


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
    """Refuse to delete a manifest.json that is another program's.

    Raises:
        UsageError: it is, or the folder is a file.
    """
    try:
        raw = folder.read(NAME).to_pybytes()
    except FileNotFoundError:
        return
    except StorageError:
        if folder.path is not None and folder.path.is_file():
            raise UsageError(f"{folder.url}: is a file; legal: a folder, or a name that is free") from None
        raise
    try:
        foreign = "fingerprint" not in msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        foreign = False  # damaged: overwriting is the remedy
    if foreign:
        raise UsageError(f"{folder.where(NAME)}: is not a manifest of synthshards; legal: another --out")


def looks_like_shard(name: str) -> bool:
    """Whether a file name is ``<split>-00000.<suffix>`` of some split and format."""
    match = _SHARD_NAME.fullmatch(name)
    return match is not None and match[1] in {f.suffix for f in FORMATS.values()}


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
                f"{folder.url}: holds another {what} ({name} is {a!r} there, {b!r} here); "
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

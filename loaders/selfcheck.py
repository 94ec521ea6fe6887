"""The loaders' guarantees, checked on a user's own dataset."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from synthshards.errors import DataError
from synthshards.ragged import BLOCK_ROWS

from .batching.context import Batch
from .batching.packing import MODES
from .dataset import Dataset

#: Batches of a short run that is compared tensor by tensor.
_SHORT = 12


@dataclass
class Check:
    """One guarantee on one dataset: what it says, and what was found against it (None: nothing)."""

    name: str
    says: str
    problem: str | None = None
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """A dataset, and what it is to be tried with.

    Attributes:
        ds: its first rows.
        batch_size: of the global batch, a multiple of `world_size`.
        world_size: ranks.
        workers: of DataLoaders and loaders.
        seq_len: of packed windows.
        tokenizer: for text rows.
    """

    ds: Dataset
    batch_size: int
    world_size: int
    workers: int
    seq_len: int
    tokenizer: Any = None

    def stream(self, **options: Any) -> Any:
        """A stream of the dataset."""
        if options.get("packing", "pad") != "pad":
            options["seq_len"] = self.seq_len
        return self.ds.batches(self.batch_size, tokenizer=self.tokenizer, **{"rank": 0, "world_size": 1, **options})

    def ranks(self, **options: Any) -> list[Any]:
        """The same stream on every rank."""
        return [self.stream(rank=rank, world_size=self.world_size, **options) for rank in range(self.world_size)]


def run_checks(trial: Trial) -> Iterator[Check]:
    """Every check, one after another; a failed one does not stop the others."""
    for check in (_once, _worlds, _workers, _resume, _packing, _regenerated):
        outcome = Check(check.__name__.strip("_"), (check.__doc__ or "").strip())
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "This DataLoader will create")
                outcome.figures = check(trial) or {}
        except Broken as broken:
            outcome.problem = str(broken)
        yield outcome


class Broken(DataError):  # noqa: N818 (a finding, not an error of the program)
    """A guarantee that does not hold; its text says how."""


def _once(trial: Trial) -> dict[str, Any]:
    """a shuffled epoch has every row once, and a rank opens only its share of the blocks"""
    indices, most = [], 0.0
    blocks = -(-len(trial.ds) // BLOCK_ROWS)
    for stream in trial.ranks(shuffle=True):
        indices += [batch["index"] for batch in stream]
        most = max(most, stream.stats()["blocks_opened"] * trial.world_size / blocks)
    index = torch.cat(indices).sort().values
    if not torch.equal(index, torch.arange(len(trial.ds), device=index.device)):
        raise Broken(f"{len(trial.ds) - len(set(index.tolist()))} of {len(trial.ds)} rows are missing in an epoch")
    return {"rows": len(index), "blocks opened a rank, of its share": round(most, 2)}


def _worlds(trial: Trial) -> dict[str, Any]:
    """the ranks' batches, put together, are those of one rank"""
    for shuffle in (False, True):
        alone = _indices(trial.stream(shuffle=shuffle))
        parts = [_indices(stream) for stream in trial.ranks(shuffle=shuffle)]
        if {len(part) for part in parts} != {len(alone)}:
            raise Broken(f"ranks yield {sorted({len(part) for part in parts})} batches, one rank alone {len(alone)}")
        for g, whole in enumerate(alone):
            if not torch.equal(torch.cat([part[g] for part in parts]), whole):
                raise Broken(f"batch {g} of {trial.world_size} ranks differs from that of one (shuffle={shuffle})")
    return {"batches": len(alone)}


def _workers(trial: Trial) -> dict[str, Any]:
    """DataLoader workers and loader threads give the batches of a plain loop"""
    plain = _short(trial.stream(shuffle=True))
    for name, other in (
        ("DataLoader", DataLoader(trial.stream(shuffle=True), batch_size=None, num_workers=trial.workers)),
        ("stream.loader", trial.stream(shuffle=True).loader(num_workers=trial.workers)),
    ):
        _equal(plain, _short(other), f"{name} with {trial.workers} workers")
    return {"batches": len(plain)}


def _resume(trial: Trial) -> dict[str, Any]:
    """a stream that is cut anywhere goes on exactly, also under another number of ranks"""
    whole = torch.cat(_indices(trial.stream(shuffle=True)))
    rng = random.Random(0)
    cuts = 0
    for _ in range(8):
        stream, done = trial.stream(shuffle=True, rank=0, world_size=trial.world_size), 0
        for _ in range(rng.randrange(len(stream) + 1)):
            next(iter(stream))
            done += 1
        state = stream.state_dict()
        parts = []
        for other in trial.ranks(shuffle=True):
            other.load_state_dict(state)
            parts.append(_short(other, 3))
        rest = torch.cat([part[g]["index"] for g in range(len(parts[0])) for part in parts] or [whole[:0]])
        first = done * trial.batch_size
        if not torch.equal(rest.long(), whole[first : first + len(rest)]):
            raise Broken(f"after a cut at batch {done} the rows differ")
        cuts += 1
    return {"cuts": cuts}


def _packing(trial: Trial) -> dict[str, Any]:
    """a packed pass loses no row and ends at one batch on every rank"""
    figures = {}
    for packing in MODES:
        seen = np.zeros(len(trial.ds), np.bool_)
        counts = set()
        for stream in trial.ranks(packing=packing, shuffle=True):
            batches = 0
            for batch in stream:
                index = batch["index"].numpy().reshape(-1)
                seen[index[index >= 0]] = True
                batches += 1
            counts.add(batches)
        if len(counts) != 1:
            raise Broken(f"packing={packing!r}: ranks end after {sorted(counts)} batches")
        if not seen.all():
            raise Broken(f"packing={packing!r}: {int((~seen).sum())} rows are in no window")
        figures[f"{packing} batches"] = counts.pop()
    return figures


def _regenerated(trial: Trial) -> dict[str, Any]:
    """rows from the shards are those that the manifest's identity generates"""
    if trial.ds.stored is None:
        return {"rows": 0}
    identity = trial.ds.identity
    twin = Dataset(trial.ds.task, identity.seed, identity.split, trial.ds.num_examples)
    options = {"shuffle": True, "tokenizer": trial.tokenizer, "rank": 0, "world_size": 1}
    from_shards = _short(trial.ds.batches(trial.batch_size, heal="raise", **options))
    _equal(from_shards, _short(twin.batches(trial.batch_size, **options)), "generation")
    return {"rows": sum(len(batch["index"]) for batch in from_shards)}


def _indices(stream: Any) -> list[torch.Tensor]:
    return [batch["index"].clone() for batch in stream]


def _short(stream: Any, most: int = _SHORT) -> list[Batch]:
    out: list[Batch] = []
    for batch in stream:
        out.append(batch)
        if len(out) == most:
            break
    return out


def _equal(plain: list[Batch], others: list[Batch], what: str) -> None:
    if len(plain) != len(others):
        raise Broken(f"{what} gives {len(others)} batches instead of {len(plain)}")
    for g, (one, other) in enumerate(zip(plain, others, strict=True)):
        for name in one:
            if not torch.equal(one[name], other[name]):
                raise Broken(f"{what}: {name} of batch {g} differs")

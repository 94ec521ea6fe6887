"""The order of rows: a pure function of (fingerprint, number of rows, seed, epoch, lanes), in constant memory.

Words: R rows; a *block* is 1,024 neighbouring rows, a *superblock* 16 neighbouring blocks, both counted on the global
row index, whatever the shards or the format; a *list position* p = 0..R−1 is a place in an epoch's order.

Without shuffling, position p is row p. With it, two steps lead from p to a row:

1. **Dealing.** L lanes take turns: position p is turn ⌊p/L⌋ of lane p mod L. Each lane reads k = ⌊⌊R/1,024⌋/L⌋ whole
   blocks, then its contiguous share of the rest. So a lane reads one block to its end before it opens the next, and a
   batch holds rows from many blocks.
2. **Permuting.** Superblocks are permuted, the blocks in each superblock, and the rows in each block. A lane's
   neighbouring blocks lie in few superblocks, hence in few shards.

Both are bijections, so that an epoch meets every row once. The permutations are those of `kernels.permutation` on
at least 64 places (a Feistel network on fewer is not uniform), keyed by streams of `synthshards.kernels.rng`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any

import numpy as np

from synthshards.digest import canonical_json
from synthshards.errors import UsageError
from synthshards.kernels.arrays import U64
from synthshards.kernels.jit import helper, kernel
from synthshards.kernels.permutation import RoundKeys, permute, round_keys, sides
from synthshards.kernels.rng import key_of
from synthshards.ragged import BLOCK_ROWS

#: Neighbouring blocks that are kept together: with the recommended shards, the blocks of one shard.
SUPERBLOCK = 16

# Streams of an epoch's key: the tag in the upper bits, the number of a superblock or block in the lower ones.
_SUPER, _WITHIN, _REST, _ROW, _SHORT = (np.uint64(tag << 56) for tag in range(5))
_0, _1 = np.uint64(0), np.uint64(1)
_B, _U = np.uint64(BLOCK_ROWS), np.uint64(SUPERBLOCK)
_BLOCK_SIDES = tuple(np.uint64(side) for side in sides(BLOCK_ROWS))
_WITHIN_SIDES = tuple(np.uint64(side) for side in sides(64))
_BA, _BB = _BLOCK_SIDES
_WA, _WB = _WITHIN_SIDES

#: Blocks whose place and keys a thread remembers between calls.
_MEMO = 1024
_MEMO_SHIFT, _SPREAD = np.uint64(64 - 10), np.uint64(0x9E3779B97F4A7C15)


@helper
def _block_at(
    key: U64, x: np.uint64, supers: np.uint64, super_keys: RoundKeys, rest_keys: RoundKeys, shape: U64
) -> np.uint64:
    """The block in place x (x below the number of full blocks); `shape` as for `_rows_at`."""
    if x < _U * supers:
        s = permute(x // _U, supers, shape[0], shape[1], super_keys)
        return _U * s + permute(x % _U, _U, _WA, _WB, round_keys(key, _WITHIN | s))
    first = _U * supers
    return first + permute(x - first, shape[6] - first, shape[2], shape[3], rest_keys)


@kernel
def _rows_at(key: U64, places: U64, rows: np.uint64, shape: U64, memo: U64, out: U64) -> None:
    """out[i] = the row in place places[i] of the permuted list of `rows` rows.

    Args:
        key: [2]; places, out: [positions].
        shape: [7], sides of the networks on superblocks, on the other blocks, on the short block; number of full
            blocks.
        memo: [slots, 8]: x + 1, the block in place x, and its six keys, for blocks met lately.
    """
    full = shape[6]
    supers = full // _U
    super_keys, rest_keys = round_keys(key, _SUPER), round_keys(key, _REST)
    short_keys = round_keys(key, _SHORT)
    for i in range(places.size):
        z = places[i]
        x = z // _B
        if x >= full:
            first = full * _B
            out[i] = first + permute(z - first, rows - first, shape[4], shape[5], short_keys)
            continue
        slot = (x * _SPREAD) >> _MEMO_SHIFT  # lanes' blocks lie at equal distances: spread them
        if memo[slot, 0] != x + _1:
            block = _block_at(key, x, supers, super_keys, rest_keys, shape)
            memo[slot, 0], memo[slot, 1] = x + _1, block
            keys = round_keys(key, _ROW | block)
            for r in range(6):
                memo[slot, 2 + r] = keys[r]
        keys = (memo[slot, 2], memo[slot, 3], memo[slot, 4], memo[slot, 5], memo[slot, 6], memo[slot, 7])
        out[i] = memo[slot, 1] * _B + permute(z % _B, _B, _BA, _BB, keys)


@kernel
def _deal(positions: U64, rows: np.uint64, lanes: np.uint64, blocks: np.uint64, share: np.uint64, out: U64) -> None:
    """out[i] = the place in the permuted list that list position positions[i] reads.

    Args:
        positions, out: [positions]; rows: R.
        blocks: whole blocks a lane; share: rows a lane of what is left.
    """
    turns = blocks * _B
    tail = lanes * turns
    for i in range(positions.size):
        p = positions[i]
        turn = p // lanes
        lane = p - turn * lanes
        if turn < turns:
            out[i] = lane * turns + turn
        elif turn < turns + share:
            out[i] = tail + lane * share + (turn - turns)
        else:
            out[i] = tail + lanes * share + lane


@lru_cache(maxsize=64)
def _epoch_key(fingerprint: str, seed: int, epoch: int) -> np.ndarray:
    """uint64 [2]: the key of an epoch's permutations."""
    named = {"order": 1, "fingerprint": fingerprint, "seed": seed, "epoch": epoch}
    return key_of(sha256(canonical_json(named)).digest())


@dataclass(frozen=True)
class Order:
    """The order of `rows` rows over `lanes` lanes.

    Args:
        fingerprint: of the dataset's identity.
        rows: R; None: endless, in index order.
        seed: of the shuffle, any integer ≥ 0.
        lanes: L ≥ 1; matters with `shuffle` only.
        shuffle: otherwise position p is row p.

    >>> order = Order("sha256:0", rows=5, seed=0, lanes=2, shuffle=True)
    >>> sorted(order.indices(0, np.arange(5)).tolist())
    [0, 1, 2, 3, 4]
    """

    fingerprint: str
    rows: int | None
    seed: int
    lanes: int
    shuffle: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "_local", threading.local())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _local=threading.local())

    def indices(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """The rows at list positions of an epoch.

        Args:
            positions: integers below `rows`, any order, any shape [n].

        Returns:
            uint64 [n].

        Raises:
            UsageError: a position that the epoch does not have.
        """
        positions = np.ascontiguousarray(positions, dtype=np.uint64)
        if self.rows is not None and positions.size and positions.max() >= self.rows:
            raise UsageError(f"position {positions.max()} of an epoch of {self.rows} rows: the state is damaged")
        if not self.shuffle or self.rows is None or self.rows < 2:
            return positions
        full = self.rows // BLOCK_ROWS
        places, out = np.empty_like(positions), np.empty_like(positions)
        blocks = full // self.lanes
        share = (self.rows - self.lanes * blocks * BLOCK_ROWS) // self.lanes
        _deal(positions, np.uint64(self.rows), np.uint64(self.lanes), np.uint64(blocks), np.uint64(share), places)
        _rows_at(
            _epoch_key(self.fingerprint, self.seed, epoch),
            places,
            np.uint64(self.rows),
            self._shape,
            self._memo(epoch),
            out,
        )
        return out

    @property
    def _shape(self) -> np.ndarray:
        assert self.rows is not None
        full = self.rows // BLOCK_ROWS
        supers = full // SUPERBLOCK
        parts = supers, full - supers * SUPERBLOCK, self.rows - full * BLOCK_ROWS
        return np.array([side for n in parts for side in sides(max(n, 64))] + [full], np.uint64)

    def _memo(self, epoch: int) -> np.ndarray:
        """This thread's memo of an epoch's blocks."""
        local: Any = self.__dict__["_local"]
        if getattr(local, "epoch", None) != epoch:
            local.epoch, local.memo = epoch, np.zeros((_MEMO, 8), np.uint64)
        memo: np.ndarray = local.memo
        return memo

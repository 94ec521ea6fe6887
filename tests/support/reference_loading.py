"""The loaders' order, packing and mixing in plain Python, written from docs/loading-reference.md: slow, and with no
code shared but the permutation and the streams of words that docs/randomness.md defines
(tests/tasks/capo/test_people.py and tests/core/test_rng.py have those)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from hashlib import sha256
from math import ceil
from typing import Any

from synthshards.digest import canonical_json
from synthshards.kernels.permutation import permuted, round_keys_of
from synthshards.kernels.rng import key_of

Row = tuple[int, list[int], list[bool]]  # index, ids, mask


def sides_walk(x: int, n: int, keys: Sequence[int]) -> int:
    """A permutation of 0..n−1: that of max(n, 64) places, applied until the result is below n."""
    if n < 64:
        x = permuted(x, 64, keys)
        while x >= n:
            x = permuted(x, 64, keys)
        return x
    return permuted(x, n, keys)


def order(fingerprint: str, rows: int, seed: int, epoch: int, lanes: int) -> list[int]:
    """The rows at list positions 0..rows−1 of a shuffled epoch."""
    named = {"order": 1, "fingerprint": fingerprint, "seed": seed, "epoch": epoch}
    key = key_of(sha256(canonical_json(named)).digest())

    def perm(tag: int, number: int, n: int, x: int) -> int:
        return sides_walk(x, n, round_keys_of(key, (tag << 56) | number))

    full = rows // 1024
    supers = full // 16

    def block(x: int) -> int:
        if x < 16 * supers:
            s = perm(0, 0, supers, x // 16)
            return 16 * s + perm(1, s, 16, x % 16)
        return 16 * supers + perm(2, 0, full - 16 * supers, x - 16 * supers)

    def at(z: int) -> int:
        if z < 1024 * full:
            b = block(z // 1024)
            return 1024 * b + perm(3, b, 1024, z % 1024)
        return 1024 * full + perm(4, 0, rows - 1024 * full, z - 1024 * full)

    turns = full // lanes * 1024
    tail = lanes * turns
    share = (rows - tail) // lanes

    def place(p: int) -> int:
        lane, turn = p % lanes, p // lanes
        if turn < turns:
            return lane * turns + turn
        if turn < turns + share:
            return tail + lane * share + turn - turns
        return tail + lanes * share + lane

    if rows < 2:
        return list(range(rows))
    return [at(place(p)) for p in range(rows)]


def windows(mode: str, seq_len: int, rows: Iterator[Row]) -> Iterator[list[tuple[Row, int, int]]]:
    """One lane's windows as lists of (row, first token, tokens)."""
    held: list[Row] = []

    def fetch(count: int) -> None:
        while len(held) < count:
            row = next(rows, None)
            if row is None:
                return
            held.append(row)

    skip = 0
    taken: list[bool] = []
    while True:
        pieces: list[tuple[Row, int, int]] = []
        room = seq_len
        if mode == "best-fit":
            chosen = 0
            while True:
                fetch(32)
                taken += [False] * (len(held) - len(taken))
                if not held:
                    break
                n = min(len(held[chosen][1]), room)
                pieces.append((held[chosen], 0, n))
                taken[chosen], room = True, room - n
                while taken and taken[0]:
                    held.pop(0), taken.pop(0)
                fetch(32)
                taken += [False] * (len(held) - len(taken))
                fits = [(-len(held[i][1]), i) for i in range(len(held)) if not taken[i] and len(held[i][1]) <= room]
                if not fits:
                    break
                _, chosen = min(fits)
        else:
            while room:
                fetch(1)
                if not held:
                    break
                n = min(len(held[0][1]) - skip, room)
                pieces.append((held[0], skip, n))
                room -= n
                skip += n
                if skip == len(held[0][1]) or mode == "paper":
                    held.pop(0)
                    skip = 0
        if not pieces:
            return
        yield pieces


def tensors_of(pieces: list[tuple[Row, int, int]], seq_len: int, pad_id: int) -> dict[str, list[Any]]:
    """A window as the lists that its tensors hold."""
    out: dict[str, list[Any]] = {
        name: []
        for name in ("input_ids", "labels", "loss_mask", "attention_mask", "index", "segment_ids", "position_ids")
    }
    for number, ((index, ids, mask), skip, n) in enumerate(pieces, 1):
        out["input_ids"] += ids[skip : skip + n]
        out["labels"] += [t if m else -100 for t, m in zip(ids, mask, strict=True)][skip : skip + n]
        out["loss_mask"] += mask[skip : skip + n]
        out["attention_mask"] += [1] * n
        out["index"] += [index] * n
        out["segment_ids"] += [number] * n
        out["position_ids"] += range(skip, skip + n)
    rest = seq_len - len(out["input_ids"])
    for name, value in (
        ("input_ids", pad_id), ("labels", -100), ("loss_mask", False), ("attention_mask", 0), ("index", -1),
        ("segment_ids", 0), ("position_ids", 0),
    ):  # fmt: skip
        out[name] += [value] * rest
    return out


def mixed(weights: Sequence[Fraction], count: int) -> list[int]:
    """The components of the first `count` positions."""
    least = min(weights)
    shares = [w / least for w in weights]
    scale = 1
    while any((share * scale).denominator != 1 for share in shares):
        scale += 1
    a = [int(share * scale) for share in shares]
    total = sum(a)
    given = [0] * len(a)
    out = []
    for q in range(count):
        ready = [i for i in range(len(a)) if given[i] * total < a[i] * (q + 1)]
        chosen = min(ready, key=lambda i: (ceil(Fraction((given[i] + 1) * total, a[i])), i))
        given[chosen] += 1
        out.append(chosen)
    return out

"""Rows and digests in plain Python integers, written from docs/randomness.md and docs/format.md alone.

No NumPy, no Numba, no import of the package: where this file and the package agree, the prose is enough to reproduce a
row. Each docstring names the heading it follows. `bits` is 64 everywhere but in tests that try every word of a small
generator. A test that wants a wrong law overrides one method of `Depo`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from math import isqrt
from typing import Any

MASK32, MASK64 = 2**32 - 1, 2**64 - 1
ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def canonical(value: object) -> str:
    """format.md, "Canonical identity"."""
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return '"' + "".join(ESCAPES.get(c, c if c >= " " else f"\\u{ord(c):04x}") for c in value) + '"'
    if isinstance(value, list | tuple):
        return "[" + ",".join(canonical(v) for v in value) + "]"
    assert isinstance(value, Mapping)
    return "{" + ",".join(f"{canonical(k)}:{canonical(value[k])}" for k in sorted(value)) + "}"


def identity_digest(task: str, version: int, params: Mapping[str, Any], seed: int, split: str) -> bytes:
    """format.md, "Canonical identity" and "Fingerprint and key"."""
    identity = {"task": task, "task_version": version, "params": params, "seed": seed, "split": split}
    return hashlib.sha256(canonical(identity).encode()).digest()


def key_of(digest: bytes) -> tuple[int, int]:
    """randomness.md, "The key"."""
    return int.from_bytes(digest[0:8], "little"), int.from_bytes(digest[8:16], "little")


def philox(key: Sequence[int], counter: Sequence[int]) -> tuple[int, int, int, int]:
    """randomness.md, "Philox4x32-10"."""
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(10):
        p, q = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (q >> 32) ^ c1 ^ k0, q & MASK32, (p >> 32) ^ c3 ^ k1, p & MASK32
        k0, k1 = (k0 + 0x9E3779B9) & MASK32, (k1 + 0xBB67AE85) & MASK32
    return c0, c1, c2, c3


def start(key: tuple[int, int], i: int) -> tuple[int, int, int, int]:
    """randomness.md, "The start of a row"."""
    key0, key1 = key
    halves = []
    for block in (2 * i, 2 * i + 1):
        counter = (block & MASK32, block >> 32, key1 & MASK32, key1 >> 32)
        c0, c1, c2, c3 = philox((key0 & MASK32, key0 >> 32), counter)
        halves += [c0 + (c1 << 32), c2 + (c3 << 32)]
    s0, s1, s2, s3 = halves
    return s0, s1, s2, s3


def rotl(x: int, r: int) -> int:
    """randomness.md, "Words"."""
    return ((x << r) & MASK64) + (x >> (64 - r))


def words(state: tuple[int, int, int, int]) -> Iterator[int]:
    """randomness.md, "Words": all words from a state on."""
    s0, s1, s2, s3 = state
    while True:
        yield (rotl((s0 + s3) & MASK64, 23) + s0) & MASK64
        t = (s1 << 17) & MASK64
        s2 ^= s0
        s3 ^= s1
        s1 ^= s2
        s0 ^= s3
        s2 ^= t
        s3 = rotl(s3, 45)


def numbers(source: Iterator[int], *ranges: int, bits: int = 64) -> list[int]:
    """randomness.md, "Numbers"."""
    size, product = 1 << bits, 1
    for n in ranges:
        product *= n
    x = next(source)
    while x * product % size < size % product:
        x = next(source)
    drawn = []
    for n in ranges:
        drawn.append(x * n // size)
        x = x * n % size
    return drawn


def thresholds(N: int) -> list[int]:
    """randomness.md, "Size"."""
    r = isqrt(N << 128)
    w = [2**160 // (n * 2**64 + r) for n in range(3, N + 1)]
    total, sums = sum(w), 0
    out = []
    for weight in w[:-1]:
        sums += weight
        out.append(sums * 2**64 // total)
    return out


def spell(slot: int, V: int, min_tlen: int, max_tlen: int) -> tuple[int, ...]:
    """randomness.md, "Names": the name of a slot."""
    power = V**max_tlen
    L = min_tlen + slot // power
    number = (slot % power) // V ** (max_tlen - L)
    digits = [number // V ** (L - 1 - place) % V for place in range(L)]
    return (*(d + 1 for d in digits[:-1]), digits[-1] + 1 + V)


def shuffled(source: Iterator[int], n: int) -> list[int]:
    """randomness.md, "Edge order": the final `order`, whose reverse is the order of writing."""
    order, left = list(range(n)), n
    while left > 0:
        group = min(left, 6 if left <= 256 else 3)
        for j in numbers(source, *(left - step for step in range(group))):
            left -= 1
            order[j], order[left] = order[left], order[j]
    return order


class Depo:
    """randomness.md, "Depo": the law for one set of parameters (all of them, by name)."""

    version = 1

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params = dict(params)
        self.thresholds = thresholds(params["N"])

    def size(self, source: Iterator[int]) -> int:
        """randomness.md, "The size of a row"."""
        x = next(source)
        n = 3 + sum(t <= x for t in self.thresholds)
        return self.params["N"] if self.params["qa"] else n

    def names(self, source: Iterator[int], n: int) -> list[tuple[int, ...]]:
        """randomness.md, "Names"."""
        V, low, high = (self.params[name] for name in ("mini_vocab", "min_tlen", "max_tlen"))
        slots, group = (high - low + 1) * V**high, 1
        while group < 4 and slots ** (group + 1) <= 2**52:
            group += 1
        names: dict[tuple[int, ...], None] = {}
        while True:
            for slot in numbers(source, *[slots] * group):
                names[spell(slot, V, low, high)] = None
                if len(names) == n:
                    return list(names)

    def edge_order(self, source: Iterator[int], n: int) -> list[int]:
        """randomness.md, "Edge order"."""
        return shuffled(source, n)

    def hops(self) -> list[int]:
        """randomness.md, "Queries": the legal numbers of steps."""
        K = self.params["K"]
        if self.params["fixed_k"] is not None:
            return [self.params["fixed_k"]]
        if not self.params["qa"]:
            return list(range(1, K + 1))
        return sorted({2**e for e in range(17) if 2**e <= K} | {K} | ({24} if K == 32 else set()))

    def queries(self, source: Iterator[int], order: list[int]) -> list[tuple[int, int]]:
        """randomness.md, "Queries": (node, k) of each; `order` is changed."""
        hops, out = self.hops(), []
        for q in range(min(len(order), self.params["M"])):
            u, v = numbers(source, len(order) - q, len(hops))
            out.append((order[q + u], hops[v]))
            order[q + u], order[q] = order[q], order[q + u]
        return out

    def row(self, key: tuple[int, int], i: int) -> dict[str, Any]:
        """randomness.md, "Depo", "The cycle", "Tokens", "Mask and facts"."""
        p, source = self.params, words(start(key, i))
        n = self.size(source)
        names = self.names(source, n)
        order = self.edge_order(source, n)
        ids, mask = [p["bos_token_id"]], [False]

        def write(tokens: Sequence[int], on: bool = False) -> None:
            ids.extend(tokens)
            mask.extend([on] * len(tokens))

        for a in reversed(order):
            write([p["separator_token_id"]] * p["separator"] + [*names[a], *names[(a + 1) % n]])
        ks = []
        for a, k in self.queries(source, order):
            write([p["query_token_base"] + k, *names[a]])
            write([p["answer_token_id"], *names[(a + k) % n]], True)
            ks.append(k)
        return {"input_ids": ids, "loss_mask": mask, "n": n, "queries": len(ks), "ks": ks}

    def rows(self, seed: int, split: str, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The rows of some indices of one dataset."""
        key = key_of(identity_digest("depo", self.version, self.params, seed, split))
        return [self.row(key, i) for i in indices]

    def kinds(self) -> dict[str, str]:
        """randomness.md, "Mask and facts", and format.md, "Columns and kinds"."""
        p = self.params
        top = max(2 * p["mini_vocab"], p["query_token_base"] + p["K"])
        top = max(top, *(p[f"{name}_token_id"] for name in ("bos", "separator", "answer")))
        ids = "list<uint16>" if top < 65536 else "list<uint32>"
        return {"input_ids": ids, "loss_mask": "list<bool>", "n": "uint16", "queries": "uint16", "ks": "list<uint16>"}


def content_digest(rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> str:
    """format.md, "Content digest"."""
    columns = []
    for name, kind in kinds.items():
        ragged = kind == "string" or kind.startswith("list<")
        cells = [row[name].encode() if kind == "string" else row[name] for row in rows]
        flat = [v for cell in cells for v in cell] if ragged else cells
        lengths = b"".join(len(cell).to_bytes(4, "little") for cell in cells) if ragged else None
        columns.append([name, kind, None if lengths is None else _hex(lengths), _hex(_flat(flat, kind))])
    return "sha256:" + _hex(canonical({"columns": columns, "rows": len(rows)}).encode())


def _flat(values: Sequence[Any], kind: str) -> bytes:
    scalar = kind.removeprefix("list<").removesuffix(">")
    if scalar in ("bool", "string"):
        return bytes(int(v) for v in values)
    width, signed = int(scalar.lstrip("uint")) // 8, scalar.startswith("int")
    return b"".join(v.to_bytes(width, "little", signed=signed) for v in values)


def _hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def int_key(number: int) -> tuple[int, int]:
    """randomness.md, "The caller's own generator", for an integer."""
    return key_of(hashlib.sha256(b"synthshards generate_example\0int " + str(number).encode()).digest())

"""A Depo row taken apart into edges and queries, and written again: what the checker's tests break rows with.

Mask, labels and facts are written anew to agree with what stands there, so that of a broken row only the named fault
can be found. This parser is the tests' own.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from synthshards import make_task
from synthshards.tasks.task import Task

Word = tuple[int, ...]
Row = dict[str, Any]

TASKS = {
    "plain": make_task("depo1-225", N=12),
    "depo2": make_task("depo2-75", N=20, M=4),
    "qa": make_task("depo1-225", N=9, qa=True),
    "fixed k": make_task("depo1-225", N=12, fixed_k=3),
    "separator": make_task("depo1-225", N=12, separator=True),
    "two tokens": make_task("depo1-225", N=12, min_tlen=2),
}


@dataclass
class Parts:
    """A row taken apart."""

    task: Task
    edges: list[tuple[Word, Word]]
    queries: list[tuple[int, Word, Word]]  # k, node, answer

    @property
    def n(self) -> int:
        return len(self.edges)

    def fresh(self) -> Word:
        """A legal word that names no node."""
        p = self.task.params
        names = {tail for tail, _ in self.edges}
        words = ((*[a] * (p.max_tlen - 1), b + p.mini_vocab) for a in range(1, 4) for b in range(1, p.mini_vocab + 1))
        return next(word for word in words if word not in names)

    def tokens(self) -> list[tuple[str, list[int], bool]]:
        """What stands in the row: (what it is, its tokens, whether they are trained on)."""
        p = self.task.params
        out: list[tuple[str, list[int], bool]] = [("bos", [p.bos_token_id], False)]
        for tail, head in self.edges:
            if p.separator:
                out.append(("sep", [p.separator_token_id], False))
            out += [("tail", [*tail], False), ("head", [*head], False)]
        for k, node, answer in self.queries:
            out += [("k", [p.query_token_base + k], False), ("node", [*node], False)]
            out += [("ans", [p.answer_token_id], True), ("answer", [*answer], True)]
        return out

    def row(self, tokens: list[tuple[str, list[int], bool]] | None = None) -> Row:
        """The row as an example whose mask, labels and facts agree with it."""
        ids, mask = [], []
        for _what, part, on in tokens or self.tokens():
            ids += part
            mask += [on] * len(part)
        labels = [t if on else -100 for t, on in zip(ids, mask, strict=True)]
        ks = [k for k, _, _ in self.queries]
        return {"input_ids": ids, "loss_mask": mask, "labels": labels, "n": self.n, "queries": len(ks), "ks": ks}


def take_apart(task: Task, row: Row) -> Parts:
    p = task.params

    def split(tokens: list[int]) -> list[Word]:
        words: list[list[int]] = [[]]
        for token in tokens:
            words[-1].append(token)
            if token > p.mini_vocab:
                words.append([])
        assert words.pop() == []
        return [tuple(word) for word in words]

    ids = [int(t) for t in row["input_ids"]]
    starts = [i for i, t in enumerate(ids) if 0 < t - p.query_token_base <= p.K] + [len(ids)]
    words = split([t for t in ids[1 : starts[0]] if t != p.separator_token_id])
    queries = []
    for begin, end in pairwise(starts):
        node, answer = split([t for t in ids[begin + 1 : end] if t != p.answer_token_id])
        queries.append((ids[begin] - p.query_token_base, node, answer))
    return Parts(task, list(zip(words[::2], words[1::2], strict=True)), queries)

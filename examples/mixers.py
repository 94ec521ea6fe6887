"""Two mixers for `model=mixer`, in plain torch: gated linear attention, and the gated delta rule.

synthshards curve model=mixer model.target=examples/mixers.py:GatedLinearAttention model.canon=ABCD dataset=mano
synthshards curve model=mixer model.target=examples/mixers.py:GatedDeltaRule model.kwargs='{heads: 8}' dataset=mano

Both carry a matrix S [key width, value width] for each head from token to token, and read it with a query:

    gated linear attention (arXiv 2312.06635)   S_t = diag(a_t) S_{t-1} + k_t v_tᵀ                    o_t = S_tᵀ q_t
    gated delta rule       (arXiv 2412.06464)   S_t = a_t (I - b_t k_t k_tᵀ) S_{t-1} + b_t k_t v_tᵀ   o_t = S_tᵀ q_t

`recurrent_*` says just that, token by token. `chunked_*` gives the same from matrix products: all tokens of a chunk see
one another at once, and S goes from chunk to chunk. Tensors are [rows, heads, length, width]; decays are logarithms.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Tokens of a chunk. A gate forgets at most e^-5 a token, so that e^(5 · chunk) stays a float32.
CHUNK, LEAST_LOG = 16, -5.0


def runs_of(segment_ids: Tensor | None, rows: int, length: int, device: torch.device) -> Tensor:
    """Numbers that change wherever a packed row ends: int64 [rows, length]."""
    if segment_ids is None:
        return torch.zeros(rows, length, dtype=torch.int64, device=device)
    changed = segment_ids[:, 1:] != segment_ids[:, :-1]
    return functional.pad(changed.cumsum(1), (1, 0))


class Chunks:
    """Tokens cut into chunks, [rows, heads, chunks, chunk, width], and which of them see which.

    Attributes:
        runs: int64 [rows, 1, chunks, chunk], see `runs_of`.
        same: bool [rows, 1, chunks, chunk, chunk]: whether two tokens of a chunk are of one row.
        goes_on: [rows, 1, chunks, chunk, 1]: 1 where a token sees what came before its chunk.
        stays: [rows, 1, chunks, chunk, 1]: 1 where what comes behind its chunk may see a token.
        whole: [rows, 1, chunks, 1, 1]: 1 where what came before a chunk goes on behind it.
    """

    def __init__(self, runs: Tensor, dtype: torch.dtype) -> None:
        self.length = runs.shape[1]
        self.missing = -self.length % CHUNK
        cut = functional.pad(runs[:, None], (0, self.missing), value=-1).unflatten(-1, (-1, CHUNK))
        before = functional.pad(cut[..., :-1, -1], (1, 0), value=-1)[..., None]
        self.same = cut[..., :, None] == cut[..., None, :]
        self.goes_on = (cut == before).to(dtype)[..., None]
        self.stays = (cut == cut[..., -1:]).to(dtype)[..., None]
        self.whole = (cut[..., -1:] == before).to(dtype)[..., None]

    def cut(self, x: Tensor) -> Tensor:
        """[rows, heads, length, width] → chunks, filled with zeros."""
        return functional.pad(x, (0, 0, 0, self.missing)).unflatten(2, (-1, CHUNK))

    def join(self, x: Tensor) -> Tensor:
        """Chunks → [rows, heads, length, width]."""
        return x.flatten(2, 3)[:, :, : self.length]


def recurrent_linear(q: Tensor, k: Tensor, v: Tensor, log_a: Tensor, runs: Tensor) -> Tensor:
    """Gated linear attention token by token; q, k, log_a [rows, heads, length, key width], v and what it gives …, value
    width]; runs as `runs_of`."""
    state, out = q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3]), []
    for t in range(q.shape[2]):
        if t:
            state = state * (runs[:, t] == runs[:, t - 1])[:, None, None, None]
        state = log_a[:, :, t].exp()[..., None] * state + k[:, :, t, :, None] * v[:, :, t, None]
        out.append(torch.einsum("rhkv,rhk->rhv", state, q[:, :, t]))
    return torch.stack(out, 2)


def chunked_linear(q: Tensor, k: Tensor, v: Tensor, log_a: Tensor, runs: Tensor) -> Tensor:
    """The same from matrix products."""
    chunks = Chunks(runs, q.dtype)
    q, k, v, log_a = (chunks.cut(x) for x in (q, k, v, log_a))
    since = log_a.cumsum(3)  # the logarithm of what is left at a token of what came before its chunk
    left = since[:, :, :, -1:]
    q = q * since.exp()
    within = (q @ (k * (-since).exp()).mT).masked_fill(~chunks.same, 0.0).tril()
    added = (k * (left - since).exp() * chunks.stays).mT @ v
    kept = left.exp().mT * chunks.whole
    state, seen = q.new_zeros(added[:, :, 0].shape), []
    for i in range(added.shape[2]):
        seen.append(state)
        state = kept[:, :, i] * state + added[:, :, i]
    return chunks.join(within @ v + (q * chunks.goes_on) @ torch.stack(seen, 2))


def recurrent_delta(q: Tensor, k: Tensor, v: Tensor, b: Tensor, log_a: Tensor, runs: Tensor) -> Tensor:
    """The gated delta rule token by token; q, k [rows, heads, length, key width], v and what it gives …, value width];
    b, log_a [rows, heads, length, 1]; runs as `runs_of`."""
    state, out = q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3]), []
    for t in range(q.shape[2]):
        if t:
            state = state * (runs[:, t] == runs[:, t - 1])[:, None, None, None]
        state = log_a[:, :, t, :, None].exp() * state
        held = torch.einsum("rhkv,rhk->rhv", state, k[:, :, t])
        state = state + k[:, :, t, :, None] * (b[:, :, t] * (v[:, :, t] - held))[:, :, None]
        out.append(torch.einsum("rhkv,rhk->rhv", state, q[:, :, t]))
    return torch.stack(out, 2)


def chunked_delta(q: Tensor, k: Tensor, v: Tensor, b: Tensor, log_a: Tensor, runs: Tensor) -> Tensor:
    """The same from matrix products.

    What token t writes, u_t = b_t (v_t - what S holds for k_t), depends on the writes before it in its chunk: a
    triangular system, solved once for what v asks of it and once for what S before the chunk does.
    """
    chunks = Chunks(runs, q.dtype)
    q, k, v, b, log_a = (chunks.cut(x) for x in (q, k, v, b, log_a))
    since = log_a.cumsum(3)
    left = since[:, :, :, -1:]
    decay = (since - since.mT).tril().exp()  # from token s (column) to token t (row)
    seen = chunks.same.tril()
    system = (b * decay * (k @ k.mT)).masked_fill(~seen.tril(-1), 0.0)
    asked = torch.cat([b * v, b * since.exp() * chunks.goes_on * k], -1)
    solved = torch.linalg.solve_triangular(system, asked, upper=False, unitriangular=True)
    written, by_state = solved.split([v.shape[-1], k.shape[-1]], -1)
    within = (decay * (q @ k.mT)).masked_fill(~seen, 0.0)
    q, kept = q * since.exp() * chunks.goes_on, left.exp() * chunks.whole
    k = (k * (left - since).exp() * chunks.stays).mT
    state, out = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1]), []
    for i in range(q.shape[2]):
        u = written[:, :, i] - by_state[:, :, i] @ state
        out.append(within[:, :, i] @ u + q[:, :, i] @ state)
        state = kept[:, :, i] * state + k[:, :, i] @ u
    return chunks.join(torch.stack(out, 2))


class _Mixer(nn.Module):
    """Queries and keys of half the width, values, a gate, a norm of each head: 4 · width² weights, as attention.

    Args:
        width: of the model. layer: its number, which plays no part.
        heads: a divisor of width / 2.
        canon: makes the Canon layer behind a projection (point B); `nn.Identity` for none.
    """

    def __init__(self, width: int, layer: int, heads: int, canon: Callable[[int], nn.Module]) -> None:
        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"heads={heads} does not divide half of the width {width}")
        self.heads, self.head = heads, (width // 2 // heads, width // heads)
        self.q, self.k, self.v = (
            nn.Sequential(nn.Linear(width, out, bias=False), canon(out)) for out in (width // 2, width // 2, width)
        )
        self.gate, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.norm = nn.RMSNorm(self.head[1], eps=1e-5)

    def state_size(self, length: int) -> int:
        """Numbers that are carried from token `length` to the next: they do not grow."""
        return self.heads * self.head[0] * self.head[1]

    def split(self, x: Tensor) -> Tensor:
        """[rows, length, heads · width] → [rows, heads, length, width], in float32 at least: states are sums."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2).to(torch.promote_types(x.dtype, torch.float32))

    def finish(self, o: Tensor, x: Tensor) -> Tensor:
        """Heads [rows, heads, length, value width], and the mixer's input → what the mixer gives."""
        normed = self.norm(o.transpose(1, 2)).flatten(-2).to(x.dtype)
        return self.out(normed * functional.silu(self.gate(x)))


class GatedLinearAttention(_Mixer):
    """A decay for each channel of a key, from the token itself: sigmoid(low rank)^(1/16)."""

    def __init__(
        self, width: int, layer: int, heads: int = 4, rank: int = 16, canon: Callable[[int], nn.Module] = nn.Identity
    ) -> None:
        super().__init__(width, layer, heads, canon)
        self.decay = nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width // 2))

    def forward(self, x: Tensor, segment_ids: Tensor | None = None) -> Tensor:
        """[rows, length, width] → the same shape; segment_ids int64 [rows, length] keep packed rows apart."""
        runs = runs_of(segment_ids, x.shape[0], x.shape[1], x.device)
        q, k, v, decay = (self.split(one(x)) for one in (self.q, self.k, self.v, self.decay))
        with torch.autocast(x.device.type, enabled=False):
            log_a = (functional.logsigmoid(decay) / 16).clamp(min=LEAST_LOG)
            o = chunked_linear(q * self.head[0] ** -0.5, k, v, log_a, runs)
        return self.finish(o, x)


class GatedDeltaRule(_Mixer):
    """Keys of length 1, and for each head a decay and the strength of a write, from the token itself."""

    def __init__(self, width: int, layer: int, heads: int = 4, canon: Callable[[int], nn.Module] = nn.Identity) -> None:
        super().__init__(width, layer, heads, canon)
        self.strength, self.decay = nn.Linear(width, heads, bias=False), nn.Linear(width, heads)
        nn.init.uniform_(self.decay.bias, -7.0, -2.0)  # softplus of it: half-lives from 5 tokens to 760
        self.log_rate = nn.Parameter(torch.zeros(heads))

    def forward(self, x: Tensor, segment_ids: Tensor | None = None) -> Tensor:
        """[rows, length, width] → the same shape; segment_ids int64 [rows, length] keep packed rows apart."""
        runs = runs_of(segment_ids, x.shape[0], x.shape[1], x.device)
        q, k, v = (self.split(functional.silu(one(x))) for one in (self.q, self.k, self.v))
        b, decay = self.split(self.strength(x)).sigmoid(), self.split(self.decay(x))
        with torch.autocast(x.device.type, enabled=False):
            q, k = functional.normalize(q, dim=-1) * self.head[0] ** -0.5, functional.normalize(k, dim=-1)
            log_a = -self.log_rate.exp()[:, None, None] * functional.softplus(decay)
            o = chunked_delta(q, k, v, b, log_a, runs)
        return self.finish(o, x)

"""The Canon layer: each channel of a token gets a weighted sum of the last few tokens of its own row added to it.

y[t] = x[t] + act(Σᵣ w[r] · x[t − r] + b), r = 0..kernel−1 (Physics of Language Models, Part 4.1). Tokens before the
start of a row, of another segment, and padding count as 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass
class CanonInputs:
    """What the convolutions of one pass need beside their input.

    Attributes:
        gates: for r = 1..kernel−1, [rows, length, 1] in the model's dtype: 1 where token t − r is of the same row as
            token t. None where nothing separates tokens.
        states: the last kernel−1 inputs of each convolution by name, [rows, kernel−1, channels], read and replaced
            by a pass that goes on from cached tokens; None without a cache.
        segments: int64 [rows, length], 0 for padding: what the gates are made from; None where nothing separates.
    """

    gates: list[Tensor] | None = None
    states: dict[str, Tensor] | None = None
    segments: Tensor | None = None


def segment_gates(segments: Tensor, length: int, kernel: int, dtype: torch.dtype) -> list[Tensor]:
    """`CanonInputs.gates` from segment numbers, 0 for padding.

    Args:
        segments: int64 [rows, seen], seen ≥ length: of the cached tokens, then of this pass's `length` tokens.
    """
    padded = functional.pad(segments, (kernel - 1, 0), value=-1)
    now = padded[:, padded.shape[1] - length :]
    gates = []
    for back in range(1, kernel):
        stop = padded.shape[1] - back
        gates.append((padded[:, stop - length : stop] == now).to(dtype)[..., None])
    return gates


class CanonConv(nn.Conv1d):
    """A causal depthwise convolution with a residual; `weight` is [channels, 1, kernel], the last column r = 0.

    Initialised as PyTorch initialises a Conv1d (uniform in ±1/√kernel), as the published code does.

    Args:
        channels: width of the input.
        kernel: tokens it sees, its own included.
        bias, activation: as `CanonLlamaConfig`.
        name: under which its state is cached; unique in the model.
    """

    def __init__(self, channels: int, kernel: int, bias: bool, activation: bool, name: str) -> None:
        super().__init__(channels, channels, kernel, groups=channels, bias=bias)
        self.activation = activation
        self.name = name
        #: Set by the layer at the start of each of its passes, the recomputing ones of gradient checkpointing too.
        self.inputs = CanonInputs()

    def forward(self, x: Tensor) -> Tensor:
        """[rows, length, channels] → the same shape."""
        kernel, length, inputs = self.kernel_size[0], x.shape[1], self.inputs
        before = None if inputs.states is None else inputs.states.get(self.name)
        seen = functional.pad(x, (0, 0, kernel - 1, 0)) if before is None else torch.cat((before, x), dim=1)
        if inputs.states is not None:
            inputs.states[self.name] = seen[:, length:].detach()
        mixed = x * self.weight[:, 0, -1]
        for back in range(1, kernel):
            start = kernel - 1 - back
            earlier = seen[:, start : start + length]
            if inputs.gates is not None:
                earlier = earlier * inputs.gates[back - 1]
            mixed = mixed + earlier * self.weight[:, 0, start]
        if self.bias is not None:
            mixed = mixed + self.bias
        return x + (functional.silu(mixed) if self.activation else mixed)

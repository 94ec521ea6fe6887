"""The randomness of a recurrent model: how often the loop runs, and the noise it starts from, both repeatable.

Both come from one generator of the model's own on the CPU, so that they are the same on every device and neither
disturbs nor depends on what else draws from torch's global generator. All ranks of a distributed run draw the same T.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Recursion:
    """The draws of one model. `get_state` and `set_state` carry them over a checkpoint.

    Args:
        seed: 0..2^64−1.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self._noise: Tensor | None = None

    def get_state(self) -> Tensor:
        """The generator's state, uint8."""
        return self._generator.get_state()

    def set_state(self, state: Tensor) -> None:
        """Go on from a state that `get_state` gave."""
        self._generator.set_state(state)

    def steps(self, rate: float) -> int:
        """One draw of T ~ Poisson(rate); 0 is possible."""
        return int(torch.poisson(torch.tensor(rate, device="cpu"), generator=self._generator))

    def noise(self, like: Tensor) -> Tensor:
        """Fresh standard Gaussian noise of the shape, dtype and device of `like`."""
        return torch.randn(like.shape, generator=self._generator, device="cpu").to(like)

    def settled_noise(self, like: Tensor, position_ids: Tensor, positions: int) -> Tensor:
        """Standard Gaussian noise that the seed fixes for each position: what evaluation starts from.

        A row then gets the same prediction alone and in a batch, padded or not, and a longer pass agrees with a
        shorter one; and evaluating draws nothing.

        Args:
            like: [rows, length, width].
            position_ids: int64 [rows or 1, length].
            positions: how many have noise of their own, the model's context length; later positions start over.
        """
        width = like.shape[-1]
        if self._noise is None or self._noise.shape != (positions, width):
            own = torch.Generator("cpu").manual_seed(self._seed)
            self._noise = torch.randn((positions, width), generator=own, device="cpu")
        rows = self._noise[(position_ids % positions).to("cpu")]
        return rows.to(like).expand(like.shape)

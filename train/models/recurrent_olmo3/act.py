"""Adaptive computation: how much the prediction of each step of the loop counts, learned with the rest.

An exit head gives each step one score, the mean over the tokens of the batch of a sigmoid; the exit probabilities p
are the scores divided by their sum. The loss is Σₜ pₜ · CE(step t) + weight · KL(p ‖ uniform).
"""

from __future__ import annotations

import torch
from torch import Tensor


def exit_score(logits: Tensor, segments: Tensor | None) -> Tensor:
    """The mean of sigmoid(logits) over the tokens that are no padding: a float32 scalar in (0, 1).

    Args:
        logits: [rows, length] of the exit head.
        segments: int64 [rows, length], 0 for padding; None where every token counts.
    """
    scores = torch.sigmoid(logits.float())
    if segments is None:
        return scores.mean()
    real = (segments != 0).to(scores.dtype)
    return (scores * real).sum() / real.sum().clamp(min=1)


def exit_probabilities(scores: Tensor) -> Tensor:
    """Scores [steps], all above 0, divided by their sum."""
    return scores / scores.sum()


def kl_from_uniform(probabilities: Tensor) -> Tensor:
    """KL(p ‖ uniform) in nats of p [steps]: 0 for equal probabilities, ln(steps) where one step has all."""
    divergence: Tensor = torch.special.xlogy(probabilities, probabilities * len(probabilities)).sum()
    return divergence

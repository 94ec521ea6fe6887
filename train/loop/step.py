"""One step of training: loss, gradients, AdamW, and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from synthshards.errors import UsageError

from ..config.options import TrainOptions
from ..evaluation.logits import accepted, borders
from .distributed import rank_and_world_size


def choose_device(name: str) -> torch.device:
    """``auto`` (cuda, then mps, then cpu) or a device's name.

    Raises:
        UsageError: there is no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        if name.partition(":")[0] not in ("cpu", "cuda", "mps"):
            raise RuntimeError("no such device")
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        line = str(error).splitlines()[0]
        raise UsageError(f"train.device={name}: {line}; legal: auto, cpu, cuda, mps") from None
    return device


def learning_rate(step: int, o: TrainOptions) -> float:
    """The learning rate of step 1..max_steps: a warm-up from 0, then constant, cosine, or linear to a share of it.

    The share is that of the last step, or where it is 0 of the one that would follow: every step moves.
    """
    if step <= o.warmup_steps:
        return o.learning_rate * step / o.warmup_steps
    if o.schedule == "constant":
        return o.learning_rate
    end = o.max_steps if o.final_share else o.max_steps + 1
    done = (step - o.warmup_steps) / max(1, end - o.warmup_steps)
    fall = (1 - math.cos(math.pi * done)) / 2 if o.schedule == "cosine" else done
    return o.learning_rate * (1 - (1 - o.final_share) * fall)


def make_optimizer(model: nn.Module, o: TrainOptions) -> torch.optim.AdamW:
    """AdamW on all weights; what has one dimension (norms, biases) does not decay."""
    weights = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in weights if p.dim() > 1], "weight_decay": o.weight_decay},
        {"params": [p for p in weights if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], o.learning_rate, (o.beta1, o.beta2), o.eps)


def inputs_of(model: nn.Module, batch: dict[str, Tensor], isolate: bool) -> dict[str, Tensor]:
    """What the model is given of a batch, labels aside.

    Padded rows come with their mask. Rows of a window are told apart by their positions (and segments, where the
    model takes them), or with `isolate` off by nothing.
    """
    if "segment_ids" not in batch:
        return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    if not isolate:
        return {"input_ids": batch["input_ids"]}
    return {"input_ids": batch["input_ids"], **borders(model, batch)}


def mean_loss(model: nn.Module, batch: dict[str, Tensor], isolate: bool = True, plain_logits: bool = False) -> Tensor:
    """The mean cross-entropy over the labelled tokens of a batch, each predicted from the one before it.

    The same as the model's own loss.

    Args:
        batch: `input_ids`, `labels`, and of windows `segment_ids` and `position_ids`, of padded rows `attention_mask`;
            int64 [rows, length].
        isolate: rows of a window do not see one another.
        plain_logits: the logits are a plain matrix product (see `ModelSpec`): they are computed at labelled positions
            alone, which may be a tenth of them.
    """
    return losses(model, batch, isolate, plain_logits)[0]


def losses(
    model: nn.Module, batch: dict[str, Tensor], isolate: bool, plain_logits: bool
) -> tuple[Tensor, Tensor | None]:
    """`mean_loss`, and what of it is a router's, None where the model's loss has no such part."""
    inputs = inputs_of(model, batch, isolate)
    if not plain_logits:
        out = model(**inputs, labels=batch["labels"], **accepted(model, use_cache=False))
        balance, weight = getattr(out, "aux_loss", None), getattr(model, "router_aux_loss_coef", None)
        router = balance.detach() * weight if isinstance(balance, Tensor) and weight is not None else None
        return out.loss, router
    inner: Any = model
    states = inner.base_model(**inputs, use_cache=False).last_hidden_state[:, :-1]
    labels = batch["labels"][:, 1:]
    counted = labels != -100
    logits = inner.get_output_embeddings()(states[counted])
    return cross_entropy(logits.float(), labels[counted]), None


class LossModule(nn.Module):
    """A model as a module that returns its loss: what DistributedDataParallel and `torch.compile` wrap."""

    def __init__(self, model: nn.Module, isolate: bool, plain_logits: bool) -> None:
        super().__init__()
        self.model, self.isolate, self.plain_logits = model, isolate, plain_logits

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The mean loss of a batch, []; with a router [2]: the loss, and the router's part of it."""
        loss, router = losses(self.model, batch, self.isolate, self.plain_logits)
        return loss if router is None else torch.stack([loss, router])


class StepLoss(float):
    """The mean loss of a step, of the task alone; `router` is what a router added to it, None without one."""

    router: float | None = None


def labelled(batch: dict[str, Tensor]) -> int:
    """Tokens that a batch's loss is a mean of."""
    return int((batch["labels"][:, 1:] != -100).sum()) if batch["labels"].shape[1] > 1 else 0


def train_step(
    loss_of: nn.Module,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[dict[str, Tensor]],
    rate: float,
    o: TrainOptions,
    device: torch.device,
) -> StepLoss:
    """One step on the parts of a batch: their gradients add up to that of the mean over all their labelled tokens, and
    over all ranks'.

    Returns:
        The mean loss over the tokens of all parts and ranks, without what a router adds.
    """
    _, world_size = rank_and_world_size()
    counts = torch.tensor([float(labelled(batch)) for batch in batches])
    total = counts.sum()
    if world_size > 1:
        dist.all_reduce(total)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    mean, routed = torch.zeros(2), False
    for number, (batch, count) in enumerate(zip(batches, counts.tolist(), strict=True), 1):
        last = number == len(batches)
        sync = nullcontext() if last or world_size == 1 else loss_of.no_sync()  # type: ignore[operator]
        half = torch.autocast(device.type, torch.bfloat16) if o.precision == "bf16" else nullcontext()
        with sync:
            with half:
                told = loss_of({name: value.to(device) for name, value in batch.items()})
            routed = told.ndim > 0
            loss = told[0] if routed else told
            share = count / float(total) if count else 0.0  # windows may hold no answer, even all of them
            # DistributedDataParallel takes the mean over ranks; this makes it the sum of their shares.
            (loss * (share * world_size) if count else loss.nan_to_num() * 0).backward()
        mean[0] += float(loss.detach()) * share if share else 0.0
        mean[1] += float(told.detach()[1]) * share if share and routed else 0.0
    if world_size > 1:
        dist.all_reduce(mean)
    if o.max_grad_norm:
        nn.utils.clip_grad_norm_(model.parameters(), o.max_grad_norm)
    optimizer.step()
    whole, router = mean.tolist()
    of_task = StepLoss(whole - router)
    of_task.router = router if routed else None
    return of_task

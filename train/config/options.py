"""The options of a training run, except those of dataset and model: names, legal ranges, defaults (as in ``conf/``).

The keys and their defaults are a contract; `conf/config.yaml` says what each means.
"""

from __future__ import annotations

from typing import Any, Literal

from synthshards.errors import UsageError, nearest
from synthshards.loaders.batching.packing import Packing
from synthshards.params import Settings

from .ranges import Count, Natural, NonNegative, Share


class TrainOptions(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to train."""

    num_examples: int = 0
    batch_size: Count = 8
    learning_rate: NonNegative = 5e-4
    weight_decay: NonNegative = 0.0
    beta1: Share = 0.9
    beta2: Share = 0.999
    eps: NonNegative = 1e-8
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup_steps: Natural = 0
    final_share: Share = 0.0
    max_grad_norm: NonNegative = 0.0
    max_steps: Count = 200
    eval_every_steps: Count = 20
    gradient_accumulation_steps: Count = 1
    packing: Packing = "pad"
    seq_len: Count | None = None
    isolate: bool = True
    num_workers: Natural = 0
    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    checkpoint_every: Natural = 0
    resume: Literal["no", "auto"] = "no"
    log_every_steps: Natural = 0
    save_model: bool = False
    stop_on_nan: bool = True
    stop_on_usr1: bool = False

    def check(self) -> None:
        """Refuse windows without a length, and a warm-up that never ends."""
        if self.packing != "pad" and self.seq_len is None:
            raise UsageError(f"train: packing={self.packing} needs train.seq_len, the tokens of a window")
        if self.warmup_steps > self.max_steps:
            raise UsageError(
                f"train: warmup_steps={self.warmup_steps} is beyond max_steps={self.max_steps}; "
                f"legal: 0..{self.max_steps}"
            )


class EvalOptions(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to evaluate, and on what."""

    hops: list[Count] | None = None
    num_examples_per_hop: Count = 256
    batch_size: Count = 16
    qa: bool = True
    resample_each_eval: bool = True
    manifests: str | None = None
    samples: Count | None = None
    packed_seq_len: Count | None = None


class WandbOptions(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Weights & Biases."""

    enabled: bool = False
    project: str = "synthshards"
    entity: str | None = None
    name: str | None = None


class LoggingOptions(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a run is written to beside its CSV and picture."""

    wandb: WandbOptions = WandbOptions()
    tensorboard: bool = False
    jsonl: bool = True


class DataOptions(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where rows come from."""

    path: str | None = None
    seed: Natural = 42
    mixture: dict[str, float] | None = None
    mixture_params: dict[str, dict[str, Any]] | None = None

    def check(self) -> None:
        """Refuse two sources of rows, and parameters of what is not mixed."""
        if self.mixture is not None and self.path is not None:
            raise UsageError("data.path and data.mixture are two sources of rows; legal: one of them")
        for name in self.mixture_params or {}:
            if name not in (self.mixture or {}):
                raise UsageError(
                    f"data.mixture_params: {name!r} is not mixed{nearest(name, self.mixture or {})}; "
                    f"legal: {', '.join(self.mixture or {}) or 'nothing, without data.mixture'}"
                )

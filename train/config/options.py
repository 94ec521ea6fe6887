"""The options of a training run, except those of dataset and model: names, legal ranges, defaults (as in ``conf/``).

The keys and their defaults are a contract; `conf/config.yaml` says what each means.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta

from synthshards.errors import UsageError, nearest
from synthshards.identity import MAX_SEED
from synthshards.loaders.batching.packing import Packing
from synthshards.params import Settings

from .ranges import Count, Natural, NonNegative, Seed, Share

Beta: TypeAlias = Annotated[float, Meta(ge=0, lt=1)]
Examples: TypeAlias = Annotated[int, Meta(le=1 << 62)]
Workers: TypeAlias = Annotated[int, Meta(ge=0, le=1024)]


class RunOptions(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stands outside all groups."""

    seed: Seed = 42
    output_dir: str = "."
    metrics_file: str | None = None
    plot_file: str | None = None

    def check(self) -> None:
        """Refuse a seed of more than 64 bits, and names of files that are none."""
        if self.seed > MAX_SEED:
            raise UsageError(f"seed={self.seed}; legal: an integer 0..2^64-1")
        if not self.output_dir or "\0" in self.output_dir:
            raise UsageError(f"output_dir={self.output_dir!r}; legal: a folder")
        for key, value in (("metrics_file", self.metrics_file), ("plot_file", self.plot_file)):
            if value is not None and (Path(value).name != value or "\0" in value):
                raise UsageError(f"{key}={value!r}; legal: the name of a file in output_dir, without a folder")


class TrainOptions(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to train."""

    num_examples: Examples = 0
    batch_size: Count = 8
    learning_rate: NonNegative = 5e-4
    weight_decay: NonNegative = 0.0
    beta1: Beta = 0.9
    beta2: Beta = 0.999
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
    num_workers: Workers = 0
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
    isolate: bool = True


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
    seed: Seed = 42
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

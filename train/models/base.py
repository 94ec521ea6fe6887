"""What every model of ``model=`` has: options, a `ModelSpec`, and checks before it is built."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import torch
from msgspec import structs

from synthshards.errors import UsageError
from synthshards.params import Settings, parse

S = TypeVar("S", bound=Settings)


class ModelOptions(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every model has. `None` of `attn_implementation` leaves the choice to transformers (sdpa)."""

    #: The options that hold vocabulary size and context length, for messages.
    sizes: ClassVar[tuple[str, str]]

    attn_implementation: Literal["eager", "sdpa", "flex_attention"] | None = None
    gradient_checkpointing: bool = False

    @property
    def tokenizer(self) -> str | None:
        """The tokenizer whose special ids the task takes: a hub name or a local folder."""
        return None


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model that `model=` names.

    Attributes:
        Options: its options; ``conf/model/<name>.yaml`` holds the same defaults.
        configure: (options, seed) → the configuration of transformers that they mean.
        make: (options, configuration) → the model, whose random weights come from torch's global generator.
        copy_weights: (model, options) → the names of the weights that the options have it take from elsewhere.
        architectures: the `model_type` of the configurations whose models the two lines below are true of.
        plain_logits: whether logits are the output embedding of the last hidden state, and nothing else.
        unused_weights: whether a step may leave weights out, for which ranks must then look.
    """

    Options: type[ModelOptions]
    configure: Callable[[Any, int], Any]
    make: Callable[[Any, Any], Any]
    copy_weights: Callable[[Any, Any], tuple[str, ...]] = lambda model, options: ()
    architectures: tuple[str, ...] = ()
    plain_logits: bool = False
    unused_weights: bool = False


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """A tokenizer's ids that take the place of a task's own; None where the tokenizer has none.

    Attributes:
        bos: begins a row. sep: separates. pad: fills a batch: the tokenizer's pad, else its eos, else its bos.
    """

    bos: int | None
    sep: int | None
    pad: int | None


@dataclass(frozen=True)
class BuiltModel:
    """A model and what a training script needs to know of it.

    Attributes:
        model: a causal language model of transformers, float32, on the CPU, in training mode.
        vocab_size: ids are 0..vocab_size−1.
        context: the longest row in tokens; None where the model states no limit.
        plain_logits, unused_weights: as `ModelSpec`.
        special: the ids of the tokenizer that came with it, None without one.
        copied: names of the weights that were copied from another model.
    """

    model: Any
    vocab_size: int
    context: int | None
    plain_logits: bool
    unused_weights: bool
    special: SpecialIds | None = None
    copied: tuple[str, ...] = ()

    def about_seed(self, seed: int) -> str | None:
        """What to tell of a seed that draws not all weights, or none."""
        if not self.copied:
            return None
        total = len(self.model.state_dict())
        return (
            f"seed={seed} changes {total - len(self.copied) or 'none'} of the model's {total} weights: the others come "
            "from a pretrained model"
        )


def parse_group(cls: type[S], values: Any, where: str, group: str) -> S:
    """Options, checked, with the groups of options among them.

    Args:
        values: name → value; those of a group are a mapping, or its options.
        where: what messages call the options themselves.
        group: what goes before the names of groups in messages.

    Raises:
        UsageError: no such option, a value out of range, a combination that cannot be built.
    """
    if isinstance(values, Settings):
        values = structs.asdict(values)
    if not isinstance(values, Mapping):
        raise UsageError(f"{where}={values!r} is not legal; legal: a group of options")
    parsed = dict(values)
    for field in structs.fields(cls):
        if isinstance(field.default, Settings):
            name = f"{group}.{field.name}"
            parsed[field.name] = parse_group(type(field.default), values.get(field.name, {}), name, name)
    return parse(cls, parsed, where)


def check_divides(where: str, part: str, divisor: int, whole: str, number: int) -> None:
    """Raise `UsageError` where a number of parts is no divisor of the whole."""
    if number % divisor:
        raise UsageError(f"{where}: {part}={divisor} does not divide {whole}={number}; legal: a divisor of it")


def check_fits(
    options: ModelOptions,
    vocab_size: int,
    context: int | None,
    *,
    task: str,
    largest_id: int | None = None,
    longest_row: int | None = None,
) -> None:
    """Refuse a vocabulary that does not reach the task's largest id, and a context shorter than its longest row.

    Raises:
        UsageError: one line that names the option, its value and what the task needs.
    """
    vocabulary_option, context_option = options.sizes
    if largest_id is not None and largest_id >= vocab_size:
        raise UsageError(
            f"{vocabulary_option}={vocab_size} is too small: the largest token id of {task} is {largest_id}; "
            f"legal: {largest_id + 1} or more"
        )
    if longest_row is not None and context is not None and longest_row > context:
        raise UsageError(
            f"{context_option}={context} is too short: the longest row of {task} has {longest_row} tokens; "
            f"legal: {longest_row} or more"
        )


def enable_gradient_checkpointing(model: Any) -> None:
    """Recompute each layer in the backward pass, under whichever name the installed transformers has for it."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


@contextmanager
def global_generator(seed: int) -> Iterator[None]:
    """Torch's CPU generator, which initial weights are drawn from, under `seed`; afterwards as it was.

    `torch.manual_seed` would seed the generators of all devices, which nothing here would put back.
    """
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)

"""What every model of ``model=`` has: options, a `ModelSpec`, and checks before it is built."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from msgspec import structs

from synthshards.errors import UsageError
from synthshards.params import Settings, parse

S = TypeVar("S", bound=Settings)

#: The vocabulary and context of a model whose options and task say neither.
VOCAB_SIZE, CONTEXT = 10064, 2048


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

    @property
    def called(self) -> str:
        """The setting that says which model it is, as messages call it."""
        return "model"


Own = TypeVar("Own", bound=ModelOptions)


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
        prove: whether it must be tried out before it is believed to be a causal language model.
        binding: whether a context that the task's need has filled in is the longest row that the model takes.
        record: (model, options) → what ``run.json`` says of it under ``model``.
    """

    Options: type[ModelOptions]
    configure: Callable[[Any, int], Any]
    make: Callable[[Any, Any], Any]
    copy_weights: Callable[[Any, Any], tuple[str, ...]] = lambda model, options: ()
    architectures: tuple[str, ...] = ()
    plain_logits: bool = False
    unused_weights: bool = False
    prove: bool = False
    binding: bool = True
    record: Callable[[Any, Any], Mapping[str, Any]] = lambda model, options: {}


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
        prove: tries it out where it lies, if it must be (see `ModelSpec`); raises `UsageError` in one line.
        record: as `ModelSpec`.
    """

    model: Any
    vocab_size: int
    context: int | None
    plain_logits: bool
    unused_weights: bool
    special: SpecialIds | None = None
    copied: tuple[str, ...] = ()
    prove: Callable[[], None] = lambda: None
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> dict[str, Any]:
        """What results depend on beside the settings: the digest of the code that made the model, if it is a user's."""
        return {key: value for key, value in self.record.items() if key == "source_sha256"}

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
    for one in structs.fields(cls):
        if isinstance(one.default, Settings):
            name = f"{group}.{one.name}"
            parsed[one.name] = parse_group(type(one.default), values.get(one.name, {}), name, name)
    return parse(cls, parsed, where)


def fitted(options: Own, largest_id: int | None, longest_row: int | None) -> Own:
    """The options with the vocabulary and the context that the task needs, where they are left open (null).

    The context is a power of two from 64 on: the longest row is that of a sample.
    """
    room = None if longest_row is None else max(64, 1 << (longest_row - 1).bit_length())
    needed = {"vocab_size": None if largest_id is None else largest_id + 1, "context": room}
    left = {name: value for name, value in needed.items() if value is not None and getattr(options, name, 0) is None}
    return structs.replace(options, **left)


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
    """The generators that initial weights are drawn from (torch's on the CPU, numpy's, Python's) under `seed`; then as
    they were.

    `torch.manual_seed` would seed the generators of all devices, which nothing here would put back.
    """
    torch_before, numpy_before, python_before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.set_state(np.random.RandomState(np.random.MT19937(seed)).get_state())
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(torch_before)
        np.random.set_state(numpy_before)
        random.setstate(python_before)

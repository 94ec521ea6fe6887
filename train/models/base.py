"""The models that training scripts know by name: built from options, checked against the task before any step."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from synthshards.errors import UsageError

from . import pretrained
from .canon_llama.config import CanonLlamaConfig
from .canon_llama.model import CanonLlamaForCausalLM
from .options import (
    LlamaOptions,
    ModelOptions,
    PretrainedOptions,
    RecurrentOlmo3Options,
    TinyGpt2Options,
    parse_options,
)
from .pretrained import SpecialIds
from .recurrent_olmo3.config import RecurrentOlmo3Config
from .recurrent_olmo3.model import RecurrentOlmo3ForCausalLM

#: What `model=` means where nothing is said.
DEFAULT_MODEL = "recurrent_olmo3"


@dataclass(frozen=True)
class BuiltModel:
    """A model and what a training script needs to know of it.

    Attributes:
        model: a causal language model of transformers, float32, on the CPU, in training mode.
        vocab_size: ids are 0..vocab_size−1.
        context: the longest row in tokens; None where the model states no limit.
        special: the ids of the tokenizer that came with it, None without one.
        copied: names of the weights that `init_from_pretrained` copied.
    """

    model: Any
    vocab_size: int
    context: int | None
    special: SpecialIds | None = None
    copied: tuple[str, ...] = ()


def build_model(
    name: str = DEFAULT_MODEL,
    options: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    task: str = "the task",
    largest_id: int | None = None,
    longest_row: int | None = None,
) -> BuiltModel:
    """A model by name.

    Args:
        name: ``tiny_gpt2``, ``from_pretrained``, ``llama`` or ``recurrent_olmo3``.
        options: as in ``conf/model/<name>.yaml``; what is missing has its default.
        seed: 0..2^64−1; fixes the initial weights exactly (and, in a recurrent model, its own generator). Torch's
            global generator is afterwards as it was before, and its state then plays no part.
        task: what messages call the task.
        largest_id: the largest token id that a row can hold; the vocabulary must reach it.
        longest_row: tokens of the longest row (or window); the context must hold it.

    Raises:
        UsageError: an unknown name or option, an illegal value or combination, a vocabulary or context too small.
            All are found before a weight is made.

    Warns:
        UserWarning: a recurrent model whose output cannot depend on its input.

    >>> build_model("tiny_gpt2", {"n_embd": 16, "n_layer": 1}).model.num_parameters()
    197104
    """
    if type(seed) is not int or not 0 <= seed < 1 << 64:
        raise UsageError(f"seed={seed!r} is not legal; legal: int 0..2^64-1")
    parsed = parse_options(name, options)
    if isinstance(parsed, RecurrentOlmo3Options) and parsed.recurrent.blind:
        warnings.warn(
            "recurrent_olmo3: with random_init_loop_state alone the loop never sees the input; "
            "set inject_input_each_step=true or loop_attention_mode=cross, too",
            stacklevel=2,
        )
    config = _config(parsed, seed)
    vocab_size, context = int(config.vocab_size), getattr(config, "max_position_embeddings", None)
    check_fits(parsed, vocab_size, context, task=task, largest_id=largest_id, longest_row=longest_row)
    special = tokenizer_ids(parsed)
    copied: tuple[str, ...] = ()
    with _global_generator(seed):
        model = _make(parsed, config)
    if getattr(model, "loss_type", None) is None:
        model.loss_type = "ForCausalLM"  # what transformers falls back on anyway (GPT-2), but not without a warning
    if isinstance(parsed, RecurrentOlmo3Options) and parsed.init_from_pretrained:
        copied = pretrained.copy_weights(model, parsed.init_from_pretrained)
    if parsed.gradient_checkpointing:
        enable_gradient_checkpointing(model)
    return BuiltModel(model.train(), vocab_size, context, special, copied)


def tokenizer_ids(options: ModelOptions) -> SpecialIds | None:
    """The special ids of the tokenizer that the options name (see `parse_options`), without loading a weight."""
    name = getattr(options, "tokenizer_name_or_path", None)
    if name is None and isinstance(options, PretrainedOptions):
        name = options.name_or_path
    return None if name is None else pretrained.special_ids(name)


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


def _config(options: ModelOptions, seed: int) -> Any:
    """The configuration of transformers that the options mean."""
    if isinstance(options, TinyGpt2Options):
        drop = dict.fromkeys(("attn_pdrop", "resid_pdrop", "embd_pdrop"), options.dropout)
        return GPT2Config(
            vocab_size=options.vocab_size,
            n_positions=options.n_positions,
            n_embd=options.n_embd,
            n_layer=options.n_layer,
            n_head=options.n_head,
            bos_token_id=None,  # GPT-2's own, 50256, lies outside the vocabulary
            eos_token_id=None,
            **drop,
        )
    if isinstance(options, LlamaOptions):
        return _llama_config(options)
    if isinstance(options, PretrainedOptions):
        assert options.name_or_path is not None
        return pretrained.load_config(options.name_or_path)
    assert isinstance(options, RecurrentOlmo3Options)
    fields = {name: getattr(options.recurrent, name) for name in options.recurrent.__struct_fields__ if name != "act"}
    return RecurrentOlmo3Config(
        **{name: getattr(options.hf, name) for name in options.hf.__struct_fields__},
        **fields,
        act_enabled=options.recurrent.act.enabled,
        act_kl_weight=options.recurrent.act.kl_weight,
        recursion_seed=seed,
    )


def _llama_config(o: LlamaOptions) -> CanonLlamaConfig:
    layers, width = o.layers_and_width
    return CanonLlamaConfig(
        vocab_size=o.vocab_size,
        hidden_size=width,
        intermediate_size=o.intermediate_size or -(-8 * width // (3 * 256)) * 256,
        num_hidden_layers=layers,
        num_attention_heads=width // o.head_dim,
        num_key_value_heads=width // o.head_dim,
        head_dim=o.head_dim,
        max_position_embeddings=o.max_position_embeddings,
        tie_word_embeddings=o.tie_word_embeddings,
        rms_norm_eps=o.rms_norm_eps,
        initializer_range=o.initializer_range,
        rope_theta=o.rope_theta,
        bos_token_id=None,
        eos_token_id=None,
        rope=o.rope,
        canon=o.canon,
        canon_kernel=o.canon_kernel,
        canon_bias=o.canon_bias,
        canon_activation=o.canon_activation,
    )


def _make(options: ModelOptions, config: Any) -> Any:
    if isinstance(options, PretrainedOptions):
        assert options.name_or_path is not None
        return pretrained.load_model(options.name_or_path, options.attn_implementation)
    cls = {
        TinyGpt2Options: GPT2LMHeadModel,
        LlamaOptions: CanonLlamaForCausalLM,
        RecurrentOlmo3Options: RecurrentOlmo3ForCausalLM,
    }[type(options)]
    if options.attn_implementation is not None:
        config._attn_implementation = options.attn_implementation
    return cls(config)


@contextmanager
def _global_generator(seed: int) -> Iterator[None]:
    """Torch's CPU generator, which initial weights are drawn from, under `seed`; afterwards as it was.

    `torch.manual_seed` would seed the generators of all devices, which nothing here would put back.
    """
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)

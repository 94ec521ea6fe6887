"""The models that training scripts know by name: built from options, checked against the task before any step.

A new model is a file or folder with a `ModelSpec`, one line in `MODELS`, and its ``conf/model/<name>.yaml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from synthshards.errors import UsageError, first_line, nearest

from ..evaluation.causality import check_causal
from . import gpt2, pretrained
from .base import (
    BuiltModel,
    ModelOptions,
    ModelSpec,
    SpecialIds,
    check_fits,
    enable_gradient_checkpointing,
    fitted,
    global_generator,
    parse_group,
)
from .canon_llama import spec as canon_llama
from .custom import spec as custom
from .hf import spec as hf
from .mixer import spec as mixer
from .recurrent_olmo3 import spec as recurrent_olmo3

#: The models of ``model=``, by name.
MODELS: dict[str, ModelSpec] = {
    "tiny_gpt2": gpt2.SPEC,
    "from_pretrained": pretrained.SPEC,
    "llama": canon_llama.SPEC,
    "mixer": mixer.SPEC,
    "recurrent_olmo3": recurrent_olmo3.SPEC,
    "custom": custom.SPEC,
    "hf": hf.SPEC,
}
#: What ``model=`` means where nothing is said.
DEFAULT_MODEL = "recurrent_olmo3"


def parse_options(name: str, options: Mapping[str, Any] | None = None) -> ModelOptions:
    """The options of the model `name`, checked; groups (`hf`, `recurrent`, `recurrent.act`) are mappings.

    Raises:
        UsageError: no such model or option, a value out of range, a combination that cannot be built.
    """
    if name not in MODELS:
        raise UsageError(f"no model {name!r}{nearest(name, MODELS)}; legal: {', '.join(MODELS)}")
    return parse_group(MODELS[name].Options, options or {}, name, "model")


def tokenizer_ids(options: ModelOptions) -> SpecialIds | None:
    """The special ids of the tokenizer that the options name (see `parse_options`), without loading a weight."""
    return None if options.tokenizer is None else pretrained.special_ids(options.tokenizer)


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
        name: one of `MODELS`.
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
    asked = parse_options(name, options)
    parsed, spec = fitted(asked, largest_id, longest_row), MODELS[name]
    config = spec.configure(parsed, seed)
    vocab_size, context = int(config.vocab_size), getattr(config, "max_position_embeddings", None)
    check_fits(parsed, vocab_size, context, task=task, largest_id=largest_id, longest_row=longest_row)
    special = tokenizer_ids(parsed)
    if parsed.attn_implementation is not None:
        config._attn_implementation = parsed.attn_implementation
    try:
        with global_generator(seed):
            model = spec.make(parsed, config)
    except (ValueError, ImportError) as error:
        if parsed.attn_implementation is None or isinstance(error, UsageError):
            raise
        line = first_line(error)
        raise UsageError(f"model.attn_implementation={parsed.attn_implementation}: {line}; legal: null") from None
    if getattr(model, "loss_type", None) is None:
        model.loss_type = "ForCausalLM"  # what transformers falls back on anyway (GPT-2), but not without a warning
    copied = spec.copy_weights(model, parsed)
    if parsed.gradient_checkpointing:
        enable_gradient_checkpointing(model)
    proof = partial(check_causal, model, vocab_size, context, parsed.called) if spec.prove else lambda: None
    record = spec.record(model, parsed)
    if not spec.binding and getattr(asked, "context", 0) is None:
        context = config.max_position_embeddings = None
    # A pretrained model may be of an architecture that another spec describes.
    kind = next((one for one in MODELS.values() if config.model_type in one.architectures), spec)
    return BuiltModel(
        model.train(), vocab_size, context, kind.plain_logits, kind.unused_weights, special, copied, proof, record,
    )  # fmt: skip

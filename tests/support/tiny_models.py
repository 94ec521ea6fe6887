"""Models of a few thousand weights for the tests of the training floor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Olmo3Config, Olmo3ForCausalLM

from synthshards.train.models.recurrent_olmo3.model import RecurrentOlmo3Config, RecurrentOlmo3ForCausalLM

#: Sizes of the tiny Olmo3; the window is shorter than the rows, so that sliding layers differ from full ones.
OLMO3 = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "sliding_window": 6,
    "eos_token_id": 1,
}

#: Tiny options of each model that `build_model` makes from random weights.
TINY: dict[str, dict[str, Any]] = {
    "tiny_gpt2": {"vocab_size": 64, "n_positions": 64, "n_embd": 32, "n_head": 4},
    "llama": {
        "size": "2L32D", "head_dim": 8, "vocab_size": 64, "max_position_embeddings": 64, "intermediate_size": 48,
        "canon": "ABCD", "initializer_range": 0.2,
    },
    "recurrent_olmo3": {
        "hf": {
            "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "max_position_embeddings": 64,
            "eos_token_id": 1, "initializer_range": 0.2,
        },
        "recurrent": {"num_loops": 2},
    },
}  # fmt: skip


def recurrent(seed: int = 0, **options: Any) -> RecurrentOlmo3ForCausalLM:
    """A recurrent model in evaluation mode; weights wide enough for its options to matter."""
    torch.manual_seed(seed)
    sizes = {**OLMO3, "initializer_range": 0.2, "bos_token_id": None, "pad_token_id": None}
    return RecurrentOlmo3ForCausalLM(RecurrentOlmo3Config(**{**sizes, **options})).eval()


def plain_olmo3(model: RecurrentOlmo3ForCausalLM) -> Olmo3ForCausalLM:
    """Transformers' own Olmo3 of the same configuration and weights."""
    fields = {**model.config.to_dict(), "model_type": "olmo3"}
    own = set(RecurrentOlmo3Config().to_dict()) - set(Olmo3Config().to_dict())
    config = Olmo3Config(**{name: value for name, value in fields.items() if name not in own})
    config._attn_implementation = model.config._attn_implementation
    plain = Olmo3ForCausalLM(config).eval()
    plain.load_state_dict(model.state_dict())
    return plain


def rows(count: int, length: int, seed: int = 1) -> Tensor:
    """Token ids int64 [count, length], 2..63."""
    return torch.randint(2, 64, (count, length), generator=torch.Generator().manual_seed(seed))


def close(a: Tensor, b: Tensor, tolerance: float = 2e-5) -> bool:
    """Whether two tensors have one shape and differ nowhere by `tolerance`."""
    return a.shape == b.shape and bool((a - b).abs().max() < tolerance)


def value(scalar: Tensor) -> float:
    """The number in a tensor that has a gradient."""
    return float(scalar.detach())


def gradients(model: Any, **inputs: Any) -> dict[str, Tensor]:
    """The gradient of the loss of one pass by weight name; weights that have none are absent."""
    model.zero_grad()
    model(**inputs).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def checkpointed(model: Any) -> Any:
    """The model with gradient checkpointing on, under whichever name transformers has for it."""
    from synthshards.train.models.base import enable_gradient_checkpointing

    enable_gradient_checkpointing(model)
    return model


def weights(model: Any) -> dict[str, Tensor]:
    """A copy of every weight by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two sets of weights are equal."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)

"""``model=tiny_gpt2``: GPT-2 with random weights, as small as the minimal example trains it."""

from __future__ import annotations

from transformers import GPT2Config, GPT2LMHeadModel

from ..config.ranges import Count, Share
from .base import ModelOptions, ModelSpec, check_divides


class TinyGpt2Options(ModelOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`dropout` is GPT-2's own, on attention, residuals and embeddings."""

    sizes = ("model.vocab_size", "model.n_positions")

    vocab_size: Count = 10064
    n_positions: Count = 2048
    n_embd: Count = 128
    n_layer: Count = 2
    n_head: Count = 4
    dropout: Share = 0.1

    def check(self) -> None:
        """Refuse a width that the heads do not divide."""
        check_divides("tiny_gpt2", "n_head", self.n_head, "n_embd", self.n_embd)


def configure(o: TinyGpt2Options, seed: int) -> GPT2Config:
    """The configuration that the options mean; the seed plays no part."""
    del seed
    return GPT2Config(
        vocab_size=o.vocab_size,
        n_positions=o.n_positions,
        n_embd=o.n_embd,
        n_layer=o.n_layer,
        n_head=o.n_head,
        bos_token_id=None,  # GPT-2's own, 50256, lies outside the vocabulary
        eos_token_id=None,
        **dict.fromkeys(("attn_pdrop", "resid_pdrop", "embd_pdrop"), o.dropout),
    )


SPEC = ModelSpec(
    Options=TinyGpt2Options,
    configure=configure,
    make=lambda options, config: GPT2LMHeadModel(config),
    architectures=("gpt2",),
    plain_logits=True,
)

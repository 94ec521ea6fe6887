"""``model=recurrent_olmo3``: Olmo3 whose middle layers run several times."""

from __future__ import annotations

import warnings
from typing import Any, Literal

from msgspec import structs
from transformers.activations import ACT2FN

from synthshards.errors import UsageError, nearest
from synthshards.params import Settings

from ...config.ranges import Count, Natural, NonNegative, Share
from ..base import ModelOptions, ModelSpec, check_divides
from ..pretrained import copy_weights
from .config import RecurrentOlmo3Config
from .model import RecurrentOlmo3ForCausalLM


class HfOptions(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields of Olmo3's own configuration."""

    vocab_size: Count = 10064
    hidden_size: Count = 128
    intermediate_size: Count = 512
    num_hidden_layers: Count = 4
    num_attention_heads: Count = 4
    num_key_value_heads: Count = 4
    max_position_embeddings: Count = 2048
    bos_token_id: Natural | None = 0
    eos_token_id: Natural | None = 9500
    pad_token_id: Natural | None = 0
    tie_word_embeddings: bool = False
    rms_norm_eps: float = 1e-5
    initializer_range: Share = 0.02
    attention_dropout: Share = 0.0
    attention_bias: bool = False
    hidden_act: str = "silu"
    rope_theta: float = 10000.0
    use_cache: bool = False

    def check(self) -> None:
        """Refuse heads that do not divide, ids outside the vocabulary, an unknown activation, a cache."""
        heads, groups = self.num_attention_heads, self.num_key_value_heads
        check_divides("model.hf", "num_attention_heads", heads, "hidden_size", self.hidden_size)
        check_divides("model.hf", "num_key_value_heads", groups, "num_attention_heads", heads)
        if self.hidden_size // heads % 2:
            raise UsageError("model.hf: hidden_size / num_attention_heads is odd; legal: even, halves are rotated")
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if (getattr(self, name) or 0) >= self.vocab_size:
                raise UsageError(
                    f"model.hf: {name}={getattr(self, name)} is outside the vocabulary; legal: 0..{self.vocab_size - 1}"
                )
        if self.hidden_act not in ACT2FN:
            guess = nearest(self.hidden_act, ACT2FN)
            raise UsageError(f"model.hf: no hidden_act {self.hidden_act!r}{guess}; legal: {', '.join(sorted(ACT2FN))}")
        if self.use_cache:
            raise UsageError("model.hf: use_cache=True is not legal; legal: false, the loop runs anew in each pass")


class ActOptions(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Adaptive computation; see `synthshards.train.models.recurrent_olmo3.act`."""

    enabled: bool = False
    kl_weight: NonNegative = 0.01


class RecurrentOptions(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The recurrence; `RecurrentOlmo3Config` says what each option means."""

    encoder_layers: Natural = 1
    loop_layers: Count = 2
    decoder_layers: Natural = 1
    num_loops: Count = 4
    inject_input_each_step: bool = False
    random_init_loop_state: bool = False
    random_init_std: NonNegative = 0.5
    loop_attention_mode: Literal["self", "cross"] = "self"
    tbptt_steps: Natural = 0
    train_recursion_mode: Literal["fixed", "poisson"] = "fixed"
    poisson_mode_offset: NonNegative = 0.001
    act: ActOptions = ActOptions()

    @property
    def blind(self) -> bool:
        """Whether the loop starts from noise and nothing brings the input in."""
        return self.random_init_loop_state and not self.inject_input_each_step and self.loop_attention_mode == "self"


class RecurrentOlmo3Options(ModelOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`init_from_pretrained` copies every weight of an Olmo3 (hub name or local folder) of the same name and shape;
    `tokenizer_name_or_path` names a tokenizer whose special ids the task takes.
    """

    sizes = ("model.hf.vocab_size", "model.hf.max_position_embeddings")

    hf: HfOptions = HfOptions()
    recurrent: RecurrentOptions = RecurrentOptions()
    init_from_pretrained: str | None = None
    tokenizer_name_or_path: str | None = None

    @property
    def tokenizer(self) -> str | None:
        return self.tokenizer_name_or_path

    def check(self) -> None:
        """Refuse groups that do not add up to the layers."""
        r = self.recurrent
        total = r.encoder_layers + r.loop_layers + r.decoder_layers
        if total != self.hf.num_hidden_layers:
            raise UsageError(
                f"recurrent_olmo3: encoder_layers {r.encoder_layers} + loop_layers {r.loop_layers} + decoder_layers "
                f"{r.decoder_layers} = {total}, but model.hf.num_hidden_layers is {self.hf.num_hidden_layers}; "
                "legal: groups that add up to it"
            )


def configure(o: RecurrentOlmo3Options, seed: int) -> RecurrentOlmo3Config:
    """The configuration that the options mean; the model's own generator gets the seed.

    Warns:
        UserWarning: the output cannot depend on the input.
    """
    if o.recurrent.blind:
        warnings.warn(
            "recurrent_olmo3: with random_init_loop_state alone the loop never sees the input; "
            "set inject_input_each_step=true or loop_attention_mode=cross, too",
            stacklevel=3,
        )
    recurrence = structs.asdict(o.recurrent)
    act = recurrence.pop("act")
    return RecurrentOlmo3Config(
        **structs.asdict(o.hf), **recurrence, act_enabled=act.enabled, act_kl_weight=act.kl_weight, recursion_seed=seed
    )


def _copied(model: Any, o: RecurrentOlmo3Options) -> tuple[str, ...]:
    if not o.init_from_pretrained:
        return ()
    return copy_weights(model, o.init_from_pretrained, ("olmo3", "recurrent_olmo3"))


SPEC = ModelSpec(
    Options=RecurrentOlmo3Options,
    configure=configure,
    make=lambda options, config: RecurrentOlmo3ForCausalLM(config),
    copy_weights=_copied,
    architectures=("recurrent_olmo3",),
    unused_weights=True,  # a pass may skip the loop, and what only some readings use
)

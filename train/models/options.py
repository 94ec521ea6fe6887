"""The options of each model of `model=`: name, legal range, default. ``conf/model/*.yaml`` holds the same defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, structs
from transformers.activations import ACT2FN

from synthshards.errors import UsageError, nearest
from synthshards.params import Settings, parse

Count = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


class ModelOptions(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every model has. `None` of `attn_implementation` leaves the choice to transformers (sdpa)."""

    #: Options that are groups of options of their own.
    groups: ClassVar[dict[str, type[Settings]]] = {}
    #: The options that hold vocabulary size and context length, for messages.
    sizes: ClassVar[tuple[str, str]]

    attn_implementation: Literal["eager", "sdpa", "flex_attention"] | None = None
    gradient_checkpointing: bool = False


class TinyGpt2Options(ModelOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """GPT-2 with random weights; `dropout` is GPT-2's own, on attention, residuals and embeddings."""

    sizes = ("model.vocab_size", "model.n_positions")

    vocab_size: Count = 10064
    n_positions: Count = 2048
    n_embd: Count = 128
    n_layer: Count = 2
    n_head: Count = 4
    dropout: Share = 0.1

    def check(self) -> None:
        """Refuse a width that the heads do not divide."""
        _divides("tiny_gpt2", "n_head", self.n_head, "n_embd", self.n_embd)


class PretrainedOptions(ModelOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model of the hub or a local folder, and its tokenizer (another one where `tokenizer_name_or_path` says so)."""

    sizes = ("the vocabulary of model.name_or_path", "the context of model.name_or_path")

    name_or_path: str | None = None
    tokenizer_name_or_path: str | None = None

    def check(self) -> None:
        """Refuse a missing name."""
        if not self.name_or_path:
            raise UsageError("from_pretrained: model.name_or_path is not set; legal: a hub name or a local folder")


class LlamaOptions(ModelOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Llama, with or without Canon layers (`CanonLlamaConfig` says what those options mean).

    `size` is layers and width: the paper's are 12L768D, 12L512D, 8L768D and 8L512D, any other works. Heads are
    `head_dim` wide. `intermediate_size` null is Llama's rule: 8/3 of the width, rounded up to a multiple of 256.
    """

    sizes = ("model.vocab_size", "model.max_position_embeddings")

    size: Annotated[str, Meta(pattern="^[1-9][0-9]*L[1-9][0-9]*D$")] = "8L512D"
    vocab_size: Count = 10064
    max_position_embeddings: Count = 2048
    head_dim: Count = 64
    intermediate_size: Count | None = None
    tie_word_embeddings: bool = False
    rms_norm_eps: float = 1e-6
    initializer_range: Share = 0.02
    rope: bool = True
    rope_theta: float = 10000.0
    canon: str = ""
    canon_kernel: Count = 4
    canon_bias: bool = False
    canon_activation: bool = False

    @property
    def layers_and_width(self) -> tuple[int, int]:
        """``"12L768D"`` → (12, 768)."""
        layers, width = re.findall("[0-9]+", self.size)
        return int(layers), int(width)

    def check(self) -> None:
        """Refuse a width that heads do not divide, and heads that cannot be rotated."""
        _divides("llama", "head_dim", self.head_dim, "width of size", self.layers_and_width[1])
        if self.head_dim % 2:
            raise UsageError(f"llama: head_dim={self.head_dim} is odd; legal: even numbers, halves are rotated")


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
        _divides("model.hf", "num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)
        _divides(
            "model.hf", "num_key_value_heads", self.num_key_value_heads, "num_attention_heads", self.num_attention_heads
        )
        if self.hidden_size // self.num_attention_heads % 2:
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
    kl_weight: Annotated[float, Meta(ge=0)] = 0.01


class RecurrentOptions(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The recurrence; `RecurrentOlmo3Config` says what each option means."""

    encoder_layers: Natural = 1
    loop_layers: Count = 2
    decoder_layers: Natural = 1
    num_loops: Count = 4
    inject_input_each_step: bool = False
    random_init_loop_state: bool = False
    random_init_std: Annotated[float, Meta(ge=0)] = 0.5
    loop_attention_mode: Literal["self", "cross"] = "self"
    tbptt_steps: Natural = 0
    train_recursion_mode: Literal["fixed", "poisson"] = "fixed"
    poisson_mode_offset: Annotated[float, Meta(ge=0)] = 0.001
    act: ActOptions = ActOptions()

    @property
    def blind(self) -> bool:
        """Whether the loop starts from noise and nothing brings the input in."""
        return self.random_init_loop_state and not self.inject_input_each_step and self.loop_attention_mode == "self"


class RecurrentOlmo3Options(ModelOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Olmo3 whose middle layers run several times.

    `init_from_pretrained` copies every weight of an Olmo3 (hub name or local folder) that has the same name and shape;
    `tokenizer_name_or_path` names a tokenizer whose special ids the task takes.
    """

    groups = {"hf": HfOptions, "recurrent": RecurrentOptions}  # noqa: RUF012 (a ClassVar of the base)
    sizes = ("model.hf.vocab_size", "model.hf.max_position_embeddings")

    hf: HfOptions = HfOptions()
    recurrent: RecurrentOptions = RecurrentOptions()
    init_from_pretrained: str | None = None
    tokenizer_name_or_path: str | None = None

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


#: The models of `model=`, by name.
MODELS: dict[str, type[ModelOptions]] = {
    "tiny_gpt2": TinyGpt2Options,
    "from_pretrained": PretrainedOptions,
    "llama": LlamaOptions,
    "recurrent_olmo3": RecurrentOlmo3Options,
}


def parse_options(name: str, options: Mapping[str, Any] | None = None) -> ModelOptions:
    """The options of the model `name`, checked; groups (`hf`, `recurrent`, `recurrent.act`) are mappings.

    Raises:
        UsageError: no such model or option, a value out of range, a combination that cannot be built.
    """
    if name not in MODELS:
        raise UsageError(f"no model {name!r}{nearest(name, MODELS)}; legal: {', '.join(MODELS)}")
    values = dict(options or {})
    for group, cls in MODELS[name].groups.items():
        inner = dict(_mapping(values.get(group, {}), f"model.{group}"))
        if cls is RecurrentOptions:
            inner["act"] = parse(ActOptions, _mapping(inner.get("act", {}), f"model.{group}.act"), f"model.{group}.act")
        values[group] = parse(cls, inner, f"model.{group}")
    return parse(MODELS[name], values, name)


def as_mapping(options: ModelOptions) -> dict[str, Any]:
    """Every option as plain values, groups as dicts: what the YAML files hold."""
    return {
        name: as_mapping(value) if isinstance(value, Settings) else value  # type: ignore[arg-type]
        for name, value in structs.asdict(options).items()
    }


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if isinstance(value, Settings):
        return structs.asdict(value)
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}={value!r} is not legal; legal: a group of options")
    return value


def _divides(where: str, part: str, divisor: int, whole: str, number: int) -> None:
    if number % divisor:
        raise UsageError(f"{where}: {part}={divisor} does not divide {whole}={number}; legal: a divisor of it")

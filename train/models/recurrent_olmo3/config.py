"""Configuration of the depth-recurrent Olmo3: Olmo3's own fields and those of the recurrence, checked together."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, Olmo3Config

from synthshards.errors import UsageError, nearest

#: Legal values of the two options that are words.
LOOP_ATTENTION_MODES = ("self", "cross")
TRAIN_RECURSION_MODES = ("fixed", "poisson")

#: Olmo3 as small as the learning curves of this project train it.
_SMALL = {
    "vocab_size": 10064,
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "bos_token_id": 0,
    "eos_token_id": 9500,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-5,
    "use_cache": False,
}


class RecurrentOlmo3Config(Olmo3Config):  # type: ignore[misc]
    """Olmo3 whose layers are an encoder, a loop that runs several times, and a decoder.

    Args:
        encoder_layers, loop_layers, decoder_layers: sizes of the three consecutive groups; they add up to
            `num_hidden_layers`, and the loop has at least one layer.
        num_loops: T, how often the loop runs; in training with ``"poisson"`` its mean.
        inject_input_each_step: before each step, state ← W[source; state].
        random_init_loop_state: start from Gaussian noise × `random_init_std` instead of the source.
        loop_attention_mode: ``"self"``, or ``"cross"``: in loop layers keys and values come from the source.
        tbptt_steps: n > 0 cuts gradients through the loop state after every n-th step; 0 never.
        train_recursion_mode: ``"fixed"``, or ``"poisson"``: T ~ Poisson(num_loops + poisson_mode_offset) in training.
        poisson_mode_offset: an integer mean has two modes; the offset makes `num_loops` the only one.
        act_enabled: learn how much each step's prediction counts (see `synthshards.train.models.recurrent_olmo3.act`).
        act_kl_weight: weight of KL(exit probabilities ‖ uniform) in the loss.
        recursion_seed: seed of the model's own generator, which draws T and the noise, 0..2^64−1.
        rope_theta: base of the rotary frequencies (transformers 4.57 and 5.x have different defaults; ours is
            that of 4.57 under both).
        **olmo3: every field of `Olmo3Config`; defaults are those of a small model (4 layers, 128 wide).

    Raises:
        UsageError: groups that do not add up, a count out of range, an unknown mode.
    """

    model_type = "recurrent_olmo3"

    def __init__(
        self,
        *,
        encoder_layers: int = 1,
        loop_layers: int = 2,
        decoder_layers: int = 1,
        num_loops: int = 4,
        inject_input_each_step: bool = False,
        random_init_loop_state: bool = False,
        random_init_std: float = 0.5,
        loop_attention_mode: str = "self",
        tbptt_steps: int = 0,
        train_recursion_mode: str = "fixed",
        poisson_mode_offset: float = 0.001,
        act_enabled: bool = False,
        act_kl_weight: float = 0.01,
        recursion_seed: int = 0,
        rope_theta: float | None = None,
        **olmo3: Any,
    ) -> None:
        super().__init__(**{**_SMALL, **_rotary(rope_theta, olmo3), **olmo3})
        self.encoder_layers = encoder_layers
        self.loop_layers = loop_layers
        self.decoder_layers = decoder_layers
        self.num_loops = num_loops
        self.inject_input_each_step = inject_input_each_step
        self.random_init_loop_state = random_init_loop_state
        self.random_init_std = random_init_std
        self.loop_attention_mode = loop_attention_mode
        self.tbptt_steps = tbptt_steps
        self.train_recursion_mode = train_recursion_mode
        self.poisson_mode_offset = poisson_mode_offset
        self.act_enabled = act_enabled
        self.act_kl_weight = act_kl_weight
        self.recursion_seed = recursion_seed
        self._check()

    def _check(self) -> None:
        groups = {name: getattr(self, name) for name in ("encoder_layers", "loop_layers", "decoder_layers")}
        counts = {**groups, "num_loops": self.num_loops, "tbptt_steps": self.tbptt_steps}
        for name, value in counts.items():
            least = 1 if name in ("loop_layers", "num_loops") else 0
            if type(value) is not int or value < least:
                raise UsageError(f"recurrent_olmo3: {name}={value!r} is not legal; legal: int from {least}")
        if sum(groups.values()) != self.num_hidden_layers:
            spelled = " + ".join(f"{name} {size}" for name, size in groups.items())
            raise UsageError(
                f"recurrent_olmo3: {spelled} = {sum(groups.values())} layers, "
                f"but num_hidden_layers is {self.num_hidden_layers}; legal: groups that add up to it"
            )
        for name, legal in (
            ("loop_attention_mode", LOOP_ATTENTION_MODES),
            ("train_recursion_mode", TRAIN_RECURSION_MODES),
        ):
            value = getattr(self, name)
            if value not in legal:
                guess = nearest(str(value), legal)
                raise UsageError(f"recurrent_olmo3: no {name} {value!r}{guess}; legal: {', '.join(legal)}")
        for name in ("random_init_std", "poisson_mode_offset", "act_kl_weight"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"recurrent_olmo3: {name}={getattr(self, name)!r} is not legal; legal: 0 or more")
        if type(self.recursion_seed) is not int or not 0 <= self.recursion_seed < 1 << 64:
            raise UsageError(f"recurrent_olmo3: recursion_seed={self.recursion_seed!r}; legal: int 0..2^64-1")


def _rotary(theta: float | None, olmo3: dict[str, Any]) -> dict[str, Any]:
    """The rotary fields in the form of the installed version, from whichever form `olmo3` (a config file's) has.

    4.57 has `rope_theta`; 5.0 `rope_parameters`, one for all layers; later 5.x one for each type of layer.
    """
    stored = olmo3.pop("rope_parameters", None) or {}
    full = stored.get("full_attention", stored)
    base = theta or full.get("rope_theta") or 10_000.0
    own = getattr(Olmo3Config(num_hidden_layers=1), "rope_parameters", None)
    if own is None:
        return {"rope_theta": base}
    one = {"rope_type": "default", **full, "rope_theta": base}
    if "full_attention" not in own:
        return {"rope_parameters": one}
    sliding = {"rope_type": "default", "rope_theta": base, **stored.get("sliding_attention", {})}
    return {"rope_parameters": {"full_attention": one, "sliding_attention": sliding}}


AutoConfig.register(RecurrentOlmo3Config.model_type, RecurrentOlmo3Config, exist_ok=True)

"""Configuration of Llama with Canon layers: Llama's own fields, the switches of its block, and where it convolves."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, LlamaConfig

from synthshards.errors import UsageError

#: The points of a layer, in the paper's letters.
POINTS = {
    "A": "before attention, after its norm",
    "B": "on queries, keys and values, after their projections and before the rotary embedding",
    "C": "before the MLP, after its norm",
    "D": "inside the MLP, on the gate and up projections",
}


class CanonLlamaConfig(LlamaConfig):  # type: ignore[misc]
    """Llama with Canon layers (Physics of Language Models, Part 4.1).

    Args:
        canon: which of the points A, B, C, D get one: any subset, ``""`` for plain Llama.
        canon_kernel: width of the convolutions in tokens, 1 or more; the paper's is 4.
        canon_bias: whether they have a bias.
        canon_activation: SiLU on the convolution's output, before the residual is added.
        rope: False leaves the rotary embedding out (NoPE).
        rope_share: the share of a head's channels that are rotated, 0..1; below 1 is partial RoPE.
        qk_norm: an RMSNorm of each head's queries and keys, before they are rotated.
        gated_mlp: False is an MLP without the gate, down(act(up(x))).
        **llama: every field of `LlamaConfig`.

    Raises:
        UsageError: a letter that is no point, or twice; a kernel below 1; a share that is no even number of channels.
    """

    model_type = "canon_llama"

    def __init__(
        self,
        *,
        canon: str = "",
        canon_kernel: int = 4,
        canon_bias: bool = False,
        canon_activation: bool = False,
        rope: bool = True,
        rope_share: float = 1.0,
        qk_norm: bool = False,
        gated_mlp: bool = True,
        **llama: Any,
    ) -> None:
        super().__init__(**llama)
        if not isinstance(canon, str) or set(canon) - set(POINTS) or len(set(canon)) != len(canon):
            points = "; ".join(f"{letter} {where}" for letter, where in POINTS.items())
            raise UsageError(f"llama: canon={canon!r} is not legal; legal: a subset of ABCD ({points})")
        if type(canon_kernel) is not int or canon_kernel < 1:
            raise UsageError(f"llama: canon_kernel={canon_kernel!r} is not legal; legal: int from 1")
        width = self.head_dim or self.hidden_size // self.num_attention_heads
        if not 0 <= rope_share <= 1 or (rope_share < 1 and rope_share * width % 2):
            raise UsageError(
                f"llama: rope_share={rope_share!r} rotates {rope_share * width:g} of the {width} channels of a head; "
                f"legal: an even number of them, such as rope_share={width // 4 * 2 / width:g}"
            )
        self.canon = canon
        self.canon_kernel = canon_kernel
        self.canon_bias = canon_bias
        self.canon_activation = canon_activation
        self.rope = rope
        self.rope_share = rope_share
        self.qk_norm = qk_norm
        self.gated_mlp = gated_mlp

    @property
    def rotated(self) -> int:
        """How many channels of a head are rotated."""
        width = self.head_dim or self.hidden_size // self.num_attention_heads
        return int(self.rope_share * width) if self.rope else 0


AutoConfig.register(CanonLlamaConfig.model_type, CanonLlamaConfig, exist_ok=True)

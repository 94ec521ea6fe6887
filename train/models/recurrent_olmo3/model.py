"""A depth-recurrent transformer on Hugging Face's Olmo3 layers.

embeddings → encoder layers → *source*. The loop state starts as the source (or as noise); step t = 1..T mixes the
source in (an option) and runs the loop layers; step t's reading is final norm(decoder layers(state)). The logits are
those of the last step's reading. With T = 1 and every option off this is the plain Olmo3 with the same weights.

There is no key-value cache, because each pass runs the loop anew: `generate` works by full forward passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.olmo3.modeling_olmo3 import Olmo3ForCausalLM, Olmo3Model, Olmo3PreTrainedModel
from transformers.utils import can_return_tuple

from synthshards.errors import UsageError

from ..attention_inputs import layer_masks, rotary_tables, segments_of
from .act import exit_probabilities, exit_score, kl_from_uniform
from .config import RecurrentOlmo3Config
from .layers import RecurrentOlmo3DecoderLayer
from .recursion import Recursion


@dataclass
class RecurrentOlmo3Output(CausalLMOutputWithPast):  # type: ignore[misc]
    """What a pass gives.

    Attributes:
        loss: scalar, where labels were given.
        logits: [rows, length, vocabulary], of the last step.
        num_steps: T of this pass; 0 where a Poisson draw skipped the loop.
        exit_probabilities: float32 [steps], summing to 1 (with ACT; one step where the loop was skipped).
        step_losses: float32 [steps], the cross entropy of each step's reading (with ACT and labels).
        exit_kl: scalar, KL(exit probabilities ‖ uniform) in nats (with ACT).
    """

    num_steps: int | None = None
    exit_probabilities: Tensor | None = None
    step_losses: Tensor | None = None
    exit_kl: Tensor | None = None


class RecurrentOlmo3Model(Olmo3Model):  # type: ignore[misc]
    """Embeddings, the three groups of layers and the final norm, under the names that Olmo3 gives them."""

    config_class = RecurrentOlmo3Config

    def __init__(self, config: RecurrentOlmo3Config) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(
            RecurrentOlmo3DecoderLayer(config, index) for index in range(config.num_hidden_layers)
        )
        self.inject: nn.Linear | None = None
        if config.inject_input_each_step:
            self.inject = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.recursion = Recursion(config.recursion_seed)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> tuple[list[Tensor], int]:
        """Run the loop.

        Args:
            input_ids: int64 [rows, length]; or `inputs_embeds` [rows, length, width].
            attention_mask: 2-D (0 for padding), 4-D, or None.
            position_ids: int64 [rows or 1, length]; counted from 0 (within each segment) where absent.
            segment_ids: int64 [rows, length] of a packed batch: attention stays inside a segment.

        Returns:
            (the readings [rows, length, width] of all steps with ACT, otherwise of the last step alone; T).
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        hidden: Tensor = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        counted = torch.arange(hidden.shape[1], device=hidden.device)[None] if position_ids is None else position_ids
        masks, mask_positions = layer_masks(self.config, hidden, attention_mask, counted, segment_ids)
        positions = mask_positions if position_ids is None else position_ids
        tables = rotary_tables(self, hidden, positions)

        def run(first: int, stop: int, state: Tensor, source: Tensor | None = None) -> Tensor:
            for index in range(first, stop):
                kind = self.config.layer_types[index]
                state = self.layers[index](
                    state,
                    source,
                    attention_mask=masks[kind],
                    position_ids=mask_positions,
                    position_embeddings=tables[kind],
                )
            return state

        c = self.config
        loop, decoder = c.encoder_layers, c.encoder_layers + c.loop_layers
        source = run(0, loop, hidden)
        keys = source if c.loop_attention_mode == "cross" else None
        steps = self._steps()
        state = self._start(source, positions) if steps else source
        readings = []
        for step in range(1, steps + 1):
            if self.inject is not None:
                state = self.inject(torch.cat((source, state), dim=-1))
            state = run(loop, decoder, state, keys)
            if c.act_enabled and step < steps:
                readings.append(self.norm(run(decoder, c.num_hidden_layers, state)))
            if c.tbptt_steps and step % c.tbptt_steps == 0 and step < steps:
                state = state.detach()
        readings.append(self.norm(run(decoder, c.num_hidden_layers, state)))
        return readings, steps

    def _steps(self) -> int:
        if self.training and self.config.train_recursion_mode == "poisson":
            return self.recursion.steps(self.config.num_loops + self.config.poisson_mode_offset)
        return int(self.config.num_loops)

    def _start(self, source: Tensor, positions: Tensor) -> Tensor:
        if not self.config.random_init_loop_state:
            return source
        if self.training:
            noise = self.recursion.noise(source)
        else:
            noise = self.recursion.settled_noise(source, positions, self.config.max_position_embeddings)
        started: Tensor = noise * self.config.random_init_std
        return started


class RecurrentOlmo3ForCausalLM(Olmo3PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """The recurrent model with its language-model head; saved, loaded and registered like any model of transformers.

    >>> model = RecurrentOlmo3ForCausalLM(RecurrentOlmo3Config(vocab_size=64, hidden_size=16, eos_token_id=1))
    >>> model(input_ids=torch.zeros((1, 5), dtype=torch.long)).logits.shape
    torch.Size([1, 5, 64])
    """

    config_class = RecurrentOlmo3Config
    _tied_weights_keys = Olmo3ForCausalLM._tied_weights_keys

    def __init__(self, config: RecurrentOlmo3Config) -> None:
        super().__init__(config)
        self.model = RecurrentOlmo3Model(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.exit_head = nn.Linear(config.hidden_size, 1) if config.act_enabled else None
        self.post_init()

    @property
    def recursion(self) -> Recursion:
        """The generator of T and of the noise; its state belongs into a checkpoint of a run that resumes."""
        own: Recursion = self.model.recursion
        return own

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        cache: Any = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        **loss_options: Any,
    ) -> RecurrentOlmo3Output:
        """One pass.

        Args:
            input_ids, attention_mask, position_ids, segment_ids, inputs_embeds: as `RecurrentOlmo3Model.forward`.
            labels: int64 [rows, length], unshifted; −100 counts in no loss, neither the plain one nor ACT's.
            logits_to_keep: logits of the last so many positions only, 0 for all; or their indices.
            cache, past_key_values: must be None.
            use_cache: has no effect: there is no cache.
            **loss_options: what transformers' loss function takes (`num_items_in_batch`, `shift_labels`).

        Raises:
            UsageError: a key-value cache was given.
        """
        if cache is not None or past_key_values is not None:
            raise UsageError("recurrent_olmo3 has no key-value cache: pass whole sequences, use_cache=False")
        readings, steps = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            segment_ids=segment_ids,
            inputs_embeds=inputs_embeds,
        )
        positions_kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(readings[-1][:, positions_kept, :])
        losses = None
        if labels is not None:
            # Without ACT there is one reading, the last; with it each step's is judged by the same masked loss.
            each = [*(self.lm_head(y[:, positions_kept, :]) for y in readings[:-1]), logits]
            size = self.config.vocab_size
            losses = torch.stack(
                [self.loss_function(logits=one, labels=labels, vocab_size=size, **loss_options) for one in each]
            )
        if self.exit_head is None:
            loss = None if losses is None else losses[-1]
            return RecurrentOlmo3Output(loss=loss, logits=logits, num_steps=steps)
        segments = segments_of(segment_ids, attention_mask)
        chances = exit_probabilities(
            torch.stack([exit_score(self.exit_head(y).squeeze(-1), segments) for y in readings])
        )
        kl = kl_from_uniform(chances)
        loss = None if losses is None else (chances * losses).sum() + self.config.act_kl_weight * kl
        return RecurrentOlmo3Output(
            loss=loss, logits=logits, num_steps=steps, exit_probabilities=chances, step_losses=losses, exit_kl=kl
        )

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> dict[str, Any]:
        """The whole sequence at every step, with positions that start after a row's padding on the left."""
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask, "logits_to_keep": 1}
        if attention_mask is not None and attention_mask.ndim == 2:
            inputs["position_ids"] = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
        return inputs


AutoModelForCausalLM.register(RecurrentOlmo3Config, RecurrentOlmo3ForCausalLM, exist_ok=True)

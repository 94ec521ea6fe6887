"""The recurrence of the recurrent Olmo3: its loop state, its number of steps, and what adaptive computation learns."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_models import close, gradients, recurrent, rows, value
from torch import Tensor
from torch.nn import functional

pytestmark = pytest.mark.usefixtures("one_thread")  # tests share the machine


# The loop state and its gradients ------------------------------------------------------------------------------------


def test_noise_of_training_is_repeatable_and_its_state_can_be_carried_over() -> None:
    ids, options = rows(2, 8), {"num_loops": 1, "random_init_loop_state": True, "recursion_seed": 7}
    model, twin = recurrent(**options).train(), recurrent(**options).train()
    torch.manual_seed(1)
    first, second = model(input_ids=ids).logits, model(input_ids=ids).logits
    torch.manual_seed(2)  # the global generator has no say
    assert torch.equal(twin(input_ids=ids).logits, first)
    assert not close(first, second)
    twin.recursion.set_state(model.recursion.get_state())
    third = model(input_ids=ids).logits
    assert torch.equal(twin(input_ids=ids).logits, third)
    assert not close(recurrent(**{**options, "recursion_seed": 8}).train()(input_ids=ids).logits, first)
    before = model.recursion.get_state()
    torch.manual_seed(3)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    model.eval()(input_ids=ids)
    assert torch.equal(torch.rand(1), drawn)  # nor does a pass draw from it
    assert torch.equal(model.recursion.get_state(), before)  # and evaluation draws from neither


def test_the_noise_has_the_stated_spread() -> None:
    model = recurrent(num_loops=1, random_init_loop_state=True, random_init_std=0.25).train()
    source = torch.zeros(40, 64, 32)
    for start in (model.model._start(source, torch.arange(64)[None]),
                  model.eval().model._start(source, torch.arange(64)[None])[:1]):  # fmt: skip
        # Of n draws the deviation is within 5 σ/√(2n).
        assert abs(float(start.std()) - 0.25) < 5 * 0.25 / math.sqrt(2 * start.numel())
        assert abs(float(start.mean())) < 5 * 0.25 / math.sqrt(start.numel())


def test_gradients_of_an_early_step_vanish_beyond_a_tbptt_cut() -> None:
    """The encoder is reached through the loop state alone: with the cut after step 2 of 3 not at all."""
    ids = rows(2, 8)
    model = recurrent(num_loops=3)
    full = gradients(model, input_ids=ids, labels=ids)
    assert full["model.layers.0.mlp.up_proj.weight"].abs().max() > 1e-4
    for n in (1, 2):
        model.config.tbptt_steps = n
        cut = gradients(model, input_ids=ids, labels=ids)
        assert not cut.get("model.layers.0.mlp.up_proj.weight", torch.zeros(1)).any()
        assert cut["model.layers.1.mlp.up_proj.weight"].abs().max() > 1e-4
        assert not close(cut["model.layers.1.mlp.up_proj.weight"], full["model.layers.1.mlp.up_proj.weight"])
    model.config.tbptt_steps = 3  # never after the last step
    uncut = gradients(model, input_ids=ids, labels=ids)
    assert all(torch.equal(uncut[name], value) for name, value in full.items())


def test_a_cut_is_after_every_nth_step() -> None:
    """T = 4, n = 2: the last two steps' gradient of the loop is that of two steps from the detached state."""
    model, ids = recurrent(num_loops=4, tbptt_steps=2, layer_types=["full_attention"] * 4), rows(2, 8)
    cut = gradients(model, input_ids=ids, labels=ids)["model.layers.1.mlp.up_proj.weight"]
    one = recurrent(num_loops=4, tbptt_steps=3, layer_types=["full_attention"] * 4)
    other = gradients(one, input_ids=ids, labels=ids)["model.layers.1.mlp.up_proj.weight"]
    assert not close(cut, other)
    states: list[Tensor] = []
    hook = model.model.layers[1].register_forward_pre_hook(lambda _, args: states.append(args[0]))
    model(input_ids=ids)
    hook.remove()
    assert [state.grad_fn is None for state in states] == [False, False, True, False]


# Poisson -------------------------------------------------------------------------------------------------------------


def test_poisson_steps_have_their_mean_and_repeat() -> None:
    options = {"num_loops": 2, "train_recursion_mode": "poisson", "recursion_seed": 3}
    model, twin = recurrent(**options).train(), recurrent(**options).train()
    draws = [model.model._steps() for _ in range(2000)]
    assert draws == [twin.model._steps() for _ in range(2000)]
    assert abs(sum(draws) / 2000 - 2.001) < 5 * math.sqrt(2.001 / 2000)
    assert abs(draws.count(0) / 2000 - math.exp(-2.001)) < 5 * math.sqrt(0.135 * 0.865 / 2000)
    model.eval()
    assert {model.model._steps() for _ in range(20)} == {2}
    model.config.poisson_mode_offset = 40.0
    assert sum(model.train().model._steps() for _ in range(50)) / 50 > 30


def test_a_draw_of_two_gives_two_step_losses_and_a_draw_of_none_skips_the_loop() -> None:
    ids = rows(2, 8)
    model = recurrent(num_loops=2, train_recursion_mode="poisson", act_enabled=True).train()
    encoded, decoded, met = [], [], {}
    model.model.layers[0].register_forward_hook(lambda _, args, out: encoded.append(out))
    model.model.layers[3].register_forward_pre_hook(lambda _, args: decoded.append(args[0]))
    for _ in range(40):
        encoded.clear()
        decoded.clear()
        out = model(input_ids=ids, labels=ids)
        met[out.num_steps] = out
        assert len(out.step_losses) == len(out.exit_probabilities) == len(decoded) == max(out.num_steps, 1)
        assert torch.equal(decoded[-1], encoded[0]) == (out.num_steps == 0)
    assert {0, 1, 2, 3} <= set(met)
    assert value(met[0].exit_kl) == 0.0
    assert torch.equal(met[0].loss, met[0].step_losses[0])


# ACT -----------------------------------------------------------------------------------------------------------------


def test_act_loss_is_the_weighted_sum_of_step_losses_and_the_divergence() -> None:
    ids = rows(3, 10)
    labels = ids.masked_fill(torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)) < 0.6, -100)
    model = recurrent(num_loops=3, act_enabled=True, act_kl_weight=0.3)
    out = model(input_ids=ids, labels=labels)
    p = out.exit_probabilities.detach().double()
    assert abs(float(p.sum()) - 1) < 1e-6
    assert abs(value(out.exit_kl) - float((p * (p * 3).log()).sum())) < 1e-6
    # Each step's loss by hand: the shifted cross entropy over labels that are not −100, of the model of so many loops.
    for step in (1, 2, 3):
        model.config.num_loops = step
        logits = model(input_ids=ids).logits
        expected = functional.cross_entropy(logits[:, :-1].reshape(-1, 64), labels[:, 1:].reshape(-1))
        assert abs(value(out.step_losses[step - 1]) - value(expected)) < 1e-5
    expected_loss = (out.exit_probabilities * out.step_losses).sum() + 0.3 * out.exit_kl
    assert abs(value(out.loss) - value(expected_loss)) < 1e-6


def test_exit_scores_are_means_over_real_tokens_of_the_exit_head() -> None:
    ids, model = rows(2, 9), recurrent(num_loops=2, act_enabled=True)
    out = model(input_ids=ids)
    readings, _ = model.model(input_ids=ids)
    scores = torch.stack([model.exit_head(y).sigmoid().mean() for y in readings])
    assert close(out.exit_probabilities, scores / scores.sum(), 1e-6)
    assert out.loss is None
    assert out.step_losses is None
    padded = functional.pad(ids, (0, 5))
    mask = functional.pad(torch.ones_like(ids), (0, 5))
    assert close(model(input_ids=padded, attention_mask=mask).exit_probabilities, out.exit_probabilities, 1e-6)
    segments = mask * torch.tensor([[1] * 4 + [2] * 10])
    packed = model(input_ids=padded, segment_ids=segments).exit_probabilities
    assert close(packed, model(input_ids=ids, segment_ids=segments[:, :9]).exit_probabilities, 1e-6)


def test_act_learns_to_prefer_the_better_step() -> None:
    """The gradient of the loss moves the exit probabilities toward steps of smaller loss, and the KL back."""
    ids = rows(2, 10)
    model = recurrent(num_loops=3, act_enabled=True, act_kl_weight=0.0)
    out = model(input_ids=ids, labels=ids)
    p = out.exit_probabilities.detach().requires_grad_()
    (slope,) = torch.autograd.grad((p * out.step_losses.detach()).sum(), p)
    assert int(slope.argmin()) == int(out.step_losses.argmin())
    assert gradients(model, input_ids=ids, labels=ids)["exit_head.weight"].abs().max() > 0

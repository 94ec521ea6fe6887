"""Generation in batches: the same tokens as one by one, with a cache as without, greedy and drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from oracles import Oracle, Script, tiny_gpt2, tiny_llama
from torch import nn

from synthshards.errors import UsageError
from synthshards.train.evaluation.generation import generate

VOCAB = 40
MODELS: dict[str, Callable[..., Any]] = {"gpt2": tiny_gpt2, "llama": tiny_llama}


pytestmark = pytest.mark.usefixtures("one_thread")  # tests share the machine


def prompts(count: int = 13) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, VOCAB, length) for length in rng.integers(1, 30, count)]


def one_by_one(model: nn.Module, prompt: np.ndarray, limit: int, stop_ids: tuple[int, ...] = ()) -> list[int]:
    """Greedy generation as it is defined."""
    model.eval()
    ids = prompt.tolist()
    with torch.no_grad():
        while len(ids) < len(prompt) + limit:
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] in stop_ids:
                break
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_batches_say_what_one_prompt_alone_says(name: str, use_cache: bool, batch_size: int) -> None:
    model = MODELS[name](VOCAB)
    some = prompts()
    limits = [1 + i % 12 for i in range(len(some))]
    said = generate(model, some, max_new_tokens=limits, use_cache=use_cache, batch_size=batch_size)
    right = [one_by_one(model, prompt, limit) for prompt, limit in zip(some, limits, strict=True)]
    assert [new.tolist() for new in said] == right
    assert len({token for new in right for token in new}) > 10, "a model that always says the same proves nothing"


@pytest.mark.parametrize("name", MODELS)
def test_a_row_ends_behind_its_first_stop_id_and_prompts_may_hold_them(name: str) -> None:
    model = MODELS[name](VOCAB)
    some = prompts()
    stops = tuple(range(0, VOCAB, 6))  # among them 0: no prompt may end by what fills the batch's corner
    said = generate(model, some, max_new_tokens=15, stop_ids=stops, batch_size=8)
    assert [new.tolist() for new in said] == [one_by_one(model, prompt, 15, stops) for prompt in some]
    assert len({len(new) for new in said}) > 1
    assert any(np.isin(prompt, stops).any() for prompt in some)


@pytest.mark.parametrize("name", MODELS)
def test_a_models_own_settings_have_no_say(name: str) -> None:
    model = MODELS[name](VOCAB)
    some = prompts(5)
    right = [one_by_one(model, prompt, 12) for prompt in some]
    own = model.generation_config
    own.eos_token_id = [row[3] for row in right]
    own.repetition_penalty, own.max_new_tokens, own.pad_token_id = 3.0, 2, 7
    assert [new.tolist() for new in generate(model, some, max_new_tokens=12)] == right
    assert model.generation_config is own


@pytest.mark.parametrize("name", MODELS)
def test_draws_repeat_and_do_not_depend_on_the_cache(name: str) -> None:
    model, some = MODELS[name](VOCAB, spread=0.1), prompts(6)

    def drawn(seed: int, use_cache: bool) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        options: dict[str, Any] = {"generator": generator, "use_cache": use_cache, "batch_size": 4}
        return [new.tolist() for new in generate(model, some, max_new_tokens=9, temperature=1.0, **options)]

    state = torch.get_rng_state()
    first = drawn(1, True)
    assert drawn(1, True) == first == drawn(1, False)
    assert drawn(2, True) != first
    assert torch.equal(torch.get_rng_state(), state), "only the caller's generator is used"


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_draws_follow_the_law(temperature: float) -> None:
    """40,000 draws from a fixed distribution: each share within 4 standard deviations of its probability."""
    law = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    model = Oracle(lambda ids: law.expand(*ids.shape, 4))
    generator = torch.Generator().manual_seed(0)
    said = generate(
        model, [[0]] * 400, max_new_tokens=100, temperature=temperature, generator=generator, batch_size=400
    )
    count = np.bincount(np.concatenate(said), minlength=4)
    right = torch.softmax(law / temperature, 0).numpy()
    deviation = np.sqrt(40_000 * right * (1 - right))
    assert np.all(np.abs(count - 40_000 * right) < 4 * deviation), count


def test_models_without_generate_are_run_over_the_whole_text() -> None:
    model = Script({(5, 6): [1, 2, 3, 9], (5, 6, 7, 8): [4, 9, 1]}, vocab=10)
    said = generate(model, [(5, 6, 7, 8), (5, 6)], max_new_tokens=[6, 3], stop_ids=[9])
    assert [new.tolist() for new in said] == [[4, 9], [1, 2, 3]]
    assert model.longest == 5, "it stops when the last row has ended"


@pytest.mark.parametrize("name", MODELS)
def test_no_padding_is_seen(name: str) -> None:
    """A hook sees all that the model is given: of each prompt a part, and nothing else."""
    model = MODELS[name](VOCAB)
    some = [np.full(length, VOCAB - length) for length in (3, 9, 5)]
    seen = []
    model.get_input_embeddings().register_forward_pre_hook(lambda _module, args: seen.append(args[0].clone()))
    new = generate(model, some, max_new_tokens=4)
    text = torch.cat(seen, 1).tolist()  # with a cache, every step brings only what is new
    order = sorted(range(3), key=lambda i: len(some[i]))
    for row, i in zip(text, order, strict=True):
        whole = [*some[i].tolist(), *new[i].tolist()]
        assert row[: len(whole) - 1] == whole[:-1]


def test_the_model_is_left_in_its_mode() -> None:
    model = tiny_gpt2(VOCAB).train()
    right = one_by_one(tiny_gpt2(VOCAB), np.array([3, 4]), 8)
    assert generate(model, [[3, 4]], max_new_tokens=8)[0].tolist() == right, "without dropout"
    assert model.training
    assert generate(model, [], max_new_tokens=8) == []


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"prompts": [[1], []]}, "prompt 1 has shape [0]; legal: one dimension, at least one token"),
        ({"max_new_tokens": 0}, "prompt 0: max_new_tokens=0; legal: from 1"),
        ({"max_new_tokens": [2, 3]}, "max_new_tokens: 2 limits for 1 prompts; legal: one, or one each"),
        ({"temperature": -1.0}, "temperature=-1.0; legal: 0 (the likeliest token) or more"),
        ({"temperature": 1.0}, "temperature=1.0 draws tokens; legal: with a torch.Generator"),
        ({"batch_size": 0}, "batch_size=0; legal: from 1"),
        ({"max_new_tokens": 129}, "prompt 0 and its new tokens but the last: 129 tokens, but the model has 128 "
            "positions; legal: 1..128"),
    ],
)  # fmt: skip
def test_wrong_usage(wrong: dict[str, Any], line: str) -> None:
    arguments: dict[str, Any] = {"prompts": [[1]], "max_new_tokens": 2, **wrong}
    with pytest.raises(UsageError) as error:
        generate(tiny_gpt2(VOCAB), arguments.pop("prompts"), **arguments)
    assert str(error.value) == line


def test_the_last_position_can_be_used() -> None:
    model = tiny_gpt2(VOCAB, positions=8)
    assert len(generate(model, [[1, 2, 3]], max_new_tokens=6)[0]) == 6

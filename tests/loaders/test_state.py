"""Exact resume: cut anywhere, go on anywhere, and nothing is lost, repeated or changed."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loading import all_of, joined, lists, some_of
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from synthshards import UsageError, open_dataset
from synthshards.loaders.batching.packing import PACKINGS
from synthshards.loaders.order.shuffle import Order
from synthshards.loaders.order.state import checksum

SEQ = 400


def dataset(kind: str) -> Any:
    if kind == "mixture":
        return open_dataset(
            [(open_dataset("depo", N=12, num_examples=260), 2), (open_dataset("mano", L=3, num_examples=300), 1)]
        )
    if kind == "repeating mixture":
        return open_dataset(
            [(open_dataset("depo", N=12, num_examples=150), 2), (open_dataset("mano", L=3), 1)], exhaustion="repeat"
        )
    if kind == "endless":
        return open_dataset("mano", L=3)
    return open_dataset("mano", L=3, num_examples=int(kind))


def rows_of(batches: list[dict[str, Any]]) -> list[Any]:
    """The rows or windows of batches, end to end."""
    names = list(batches[0]) if batches else []
    return [tuple(map(str, line)) for batch in batches for line in zip(*(batch[n] for n in names), strict=True)]


def run(ds: Any, batch_size: int, world_size: int, states: Any, count: int, options: dict[str, Any]) -> tuple[Any, Any]:
    """`count` batches of all ranks from a state on, and the ranks' states then."""
    parts, after = [], []
    for rank in range(world_size):
        stream = ds.batches(batch_size, rank=rank, world_size=world_size, **options)
        if states is not None:
            stream.load_state_dict(json.loads(json.dumps(states)))
        parts.append(some_of(stream, count))
        after.append(stream.state_dict())
    return joined(parts), after


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(data=st.data())
def test_a_stream_cut_anywhere_goes_on_in_any_world(data: Any) -> None:
    kind = data.draw(st.sampled_from(["1", "40", "500", "2600", "endless", "mixture", "repeating mixture"]))
    packing = data.draw(st.sampled_from(list(PACKINGS)))
    repeat = data.draw(st.booleans()) and kind != "endless"
    endless = repeat or kind in ("endless", "repeating mixture")
    shuffle = data.draw(st.booleans()) and kind != "endless" and "repeating" not in kind
    lanes = data.draw(st.sampled_from([1, 2, 3, 8]))
    options: dict[str, Any] = {
        "packing": packing, "seq_len": SEQ if packing == "pad" else data.draw(st.sampled_from([30, 97])),
        "shuffle": shuffle, "repeat": repeat, "lanes": lanes, "epoch": data.draw(st.integers(0, 2)), "seed": 4,
    }  # fmt: skip
    ds = dataset(kind)
    whole = rows_of(some_of(ds.batches(12, **options), 20) if endless else all_of(ds.batches(12, **options)))
    found: list[Any] = []
    states: Any = None
    for _ in range(data.draw(st.integers(1, 4))):
        world_size = data.draw(st.sampled_from([1, 2, 3]))
        size = world_size * data.draw(st.integers(1, 6))
        count = data.draw(st.integers(0, 5))
        batches, after = run(ds, size, world_size, states, count, options)
        found += rows_of(batches)
        # Endless packing over lanes: each rank knows its own. Otherwise any rank's state will do.
        states = after if packing != "pad" and endless else data.draw(st.sampled_from(after))
        if not endless and after[0]["epoch"] > options["epoch"]:
            assert found == whole, "the epoch came to its end"
            return
    stream = ds.batches(12, **options)
    stream.load_state_dict(states)
    if endless:
        found += rows_of(some_of(stream, -(-(len(whole) - len(found)) // 12))) if len(found) < len(whole) else []
        assert found[: len(whole)] == whole[: len(found)]
    else:
        found += rows_of(all_of(stream))
        assert found == whole


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("kind", ["500", "mixture"])
def test_every_batch_boundary_of_two_epochs(packing: str, kind: str) -> None:
    ds, options = dataset(kind), {"packing": packing, "seq_len": SEQ if packing == "pad" else 150, "shuffle": True}
    stream = ds.batches(32, **options)
    found, states = [], [stream.state_dict()]
    for _ in range(2):
        for batch in stream:
            found.append(lists(batch))
            states.append(stream.state_dict())
    assert stream.epoch == 2
    half = len(found) // 2
    for at, state in enumerate(states):
        other = ds.batches(32, **options)
        other.load_state_dict(state)
        end = half if at < half or (at == half and state["epoch"] == 0) else len(found)
        assert all_of(other) == found[at:end], "to the end of the epoch"
        if end == half:
            assert all_of(other) == found[half:], "and the next"


@pytest.mark.parametrize("packing", PACKINGS)
def test_the_default_lanes_are_those_of_the_first_run(packing: str) -> None:
    ds = dataset("2600")
    options = {"packing": packing, "seq_len": SEQ if packing == "pad" else 150, "shuffle": True}
    whole = rows_of(all_of(ds.batches(8, **options)))
    stream = ds.batches(8, **options)
    first = some_of(stream, 5)
    other = ds.batches(20, **options)
    other.load_state_dict(stream.state_dict())
    assert other.state_dict()["lanes"] == 8
    assert rows_of(first) + rows_of(all_of(other)) == whole
    with pytest.raises(UsageError, match="its lanes is 8, this stream's is 20"):
        ds.batches(20, lanes=20, **options).load_state_dict(stream.state_dict())


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("kind", ["500", "endless", "mixture"])
def test_a_loader_hands_out_the_stream_and_its_state(packing: str, workers: int, kind: str) -> None:
    ds, options = dataset(kind), {"packing": packing, "seq_len": SEQ if packing == "pad" else 150}
    expected = some_of(ds.batches(16, **options), 60)
    loader = ds.batches(16, **options).loader(num_workers=workers)
    found, states = [], []
    iterator = iter(loader)
    for batch in iterator:
        found.append(lists(batch))
        states.append(loader.state_dict())
        if len(found) == len(expected):
            break
    iterator.close()
    assert found == expected
    for at in (0, 1, len(states) // 2, len(states) - 2):
        other = ds.batches(16, **options).loader(num_workers=2)
        other.load_state_dict(states[at])
        assert some_of(other, len(expected) - at - 1) == expected[at + 1 :]


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # more workers than cores
@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_a_plain_dataloader_keeps_order_and_completeness(packing: str, workers: int) -> None:
    ds, options = dataset("500"), {"packing": packing, "seq_len": SEQ if packing == "pad" else 150, "shuffle": True}
    expected = all_of(ds.batches(16, **options))
    assert all_of(DataLoader(ds.batches(16, **options), batch_size=None, num_workers=workers)) == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata 0.11 calls it
@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("workers", [0, 2])
def test_the_stateful_dataloader_resumes(packing: str, workers: int) -> None:
    ds, options = dataset("500"), {"packing": packing, "seq_len": SEQ if packing == "pad" else 150, "shuffle": True}
    expected = all_of(ds.batches(4, **options))
    for cut in (1, 2, 3, len(expected) - 1):
        loader = StatefulDataLoader(ds.batches(4, **options), batch_size=None, num_workers=workers)
        first = some_of(loader, cut)
        state = loader.state_dict()
        other = StatefulDataLoader(ds.batches(4, **options), batch_size=None, num_workers=workers)
        other.load_state_dict(state)
        assert first + all_of(other) == expected
        del loader, other


def test_the_state_is_small_json() -> None:
    for lanes in (1, 64, 512):
        for packing in PACKINGS:
            ds = open_dataset("mano", L=3)
            stream = ds.batches(lanes, packing=packing, seq_len=SEQ if packing == "pad" else 150)
            some_of(stream, 2)
            assert len(json.dumps(stream.state_dict())) <= 1024 + 32 * lanes


#: A lane at its row `least`, without a carry.
AT = base64.b64encode(bytes(8)).decode()


def signed(state: dict[str, Any]) -> dict[str, Any]:
    """A state whose checksum fits, whatever its fields are."""
    return {**state, "checksum": checksum(state)}


def state_of(**options: Any) -> dict[str, Any]:
    stream = dataset("500").batches(8, **{"packing": "concat", "seq_len": 64, **options})
    some_of(stream, 3)
    return stream.state_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "sha256:0"}, "a state of another stream: its dataset is 'sha256:0', this stream's is 'sha256:"),
        ({"rows": 501}, "its rows is 501, this stream's is 500"),
        ({"rows": 500.0}, r"its rows is 500\.0"),
        ({"shuffle": True}, "its shuffle is True"),
        ({"packing": "paper"}, "its packing is 'paper', this stream's is 'concat'"),
        ({"seq_len": 65}, "its seq_len is 65"),
        ({"repeat": True}, "its repeat is True"),
        ({"version": 2}, r"state\['version'\] is 2; legal: 1"),
        ({"unit": -1}, r"state\['unit'\] is -1; legal: 0\.\.2\^62-1"),
        ({"unit": 1 << 62}, r"legal: 0\.\.2\^62-1"),
        ({"epoch": 10**30}, r"legal: 0\.\.2\^62-1"),
        ({"unit": "3"}, r"state\['unit'\] is '3'; legal: int"),
        ({"epoch": True}, r"state\['epoch'\] is True; legal: int"),
        ({"lanes": 0}, r"state\['lanes'\] is 0; legal: 1\.\.4294967296"),
        ({"lanes": 10**30}, r"legal: 1\.\.4294967296"),
        ({"extra": 1}, "unknown field 'extra'; legal: version, dataset"),
        ({"stands": []}, "is of 0 components, this stream has 1"),
        ({"stands": [{"count": 1, "least": 0, "at": "????"}]}, "the state is damaged"),
        ({"stands": [{"count": 2, "least": 0, "at": base64.b64encode(bytes(16)).decode()}]}, "has 2 packing lanes"),
        ({"stands": [{"count": 1, "least": 0}]}, "lacks the field 'at'"),
        ({"stands": [{"count": 1, "least": 10**30, "at": AT}]}, "does not hold two numbers a lane"),
        ({"stands": [{"count": 1, "least": 501, "at": AT}]}, "a packing lane stands where it cannot"),
        ({"unit": 0, "stands": [{"count": 1, "least": 1, "at": AT}]}, "a packing lane stands where it cannot"),
    ],
)
def test_a_state_of_something_else_is_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    stream = dataset("500").batches(8, packing="concat", seq_len=64)
    before = stream.state_dict()
    with pytest.raises(ValueError, match=message) as error:
        stream.load_state_dict(signed({**state_of(), **change}))
    assert "\n" not in str(error.value)
    assert stream.state_dict() == before, "a refused state changes nothing"


@pytest.mark.parametrize("change", [{"unit": 23}, {"epoch": 1}, {"checksum": "0" * 16}, {"checksum": 3}, {"rows": {1}}])
def test_a_field_that_was_changed_does_not_fit_the_checksum(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"damaged|is 3; legal: str"):
        dataset("500").batches(8, packing="concat", seq_len=64).load_state_dict({**state_of(), **change})


@pytest.mark.parametrize("kind", ["500", "endless", "mixture"])
@pytest.mark.parametrize("packing", PACKINGS)
def test_a_state_with_any_letter_changed_is_refused(packing: str, kind: str) -> None:
    options = {"packing": packing, "seq_len": SEQ if packing == "pad" else 64}
    stream = dataset(kind).batches(8, lanes=3, **options)
    some_of(stream, 3)
    text = json.dumps(stream.state_dict())
    for at in range(len(text)):
        for letter in ("7" if text[at] != "7" else "8", "A", '"'):
            try:
                state = json.loads(text[:at] + letter + text[at + 1 :])
            except ValueError:
                continue
            if state != stream.state_dict():
                with pytest.raises(UsageError):
                    stream.load_state_dict(state)


@pytest.mark.parametrize(
    ("packing", "carry"),
    [
        ("concat", 40_000),
        ("concat", 0xFFFFFFFE),
        ("paper", 1),
        ("paper", 40_000),
        ("best-fit", 1),
        ("best-fit", 1 << 31),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_carry_that_its_row_cannot_have_is_refused_by_the_kernel(packing: str, carry: int, workers: int) -> None:
    """Though its checksum fits: what a row's length is, only the kernel knows."""
    stream = dataset("40").batches(2, packing=packing, seq_len=64)
    some_of(stream, 1)
    state = stream.state_dict()
    at = np.frombuffer(base64.b64decode(state["stands"][0]["at"]), "<u4").copy()
    at[1] = carry
    state["stands"][0]["at"] = base64.b64encode(at.tobytes()).decode()
    state["stands"][0]["least"] = 20
    stream.load_state_dict(signed(state))
    with pytest.raises(UsageError, match=f"the state is damaged: its carry {carry} is none that row 20 of a packing"):
        list(stream.loader(num_workers=workers))


def test_a_unit_behind_the_end_is_refused() -> None:
    """The end itself is where the last batch leads."""
    for kind, rows in (("500", 500), ("mixture", 390)):
        stream = dataset(kind).batches(8)
        state = stream.state_dict()
        stream.load_state_dict(signed({**state, "unit": rows}))
        assert list(stream) == []
        with pytest.raises(UsageError, match=rf"state\['unit'\] is {rows + 1}; legal: 0\.\.{rows}"):
            stream.load_state_dict(signed({**state, "unit": rows + 1}))


def test_no_row_of_an_epoch_is_behind_its_end() -> None:
    order = Order("sha256:0", rows=5, seed=0, lanes=2, shuffle=False)
    for shuffle in (False, True):
        with pytest.raises(UsageError, match="position 5 of an epoch of 5 rows"):
            replace(order, shuffle=shuffle).indices(0, np.array([1, 5, 2]))


def test_a_state_that_lacks_a_field_or_is_none_is_refused() -> None:
    state = state_of()
    stream = dataset("500").batches(8, packing="concat", seq_len=64)
    for name in state:
        with pytest.raises(ValueError, match=f"state lacks the field {name!r}"):
            stream.load_state_dict({key: value for key, value in state.items() if key != name})
    for nothing, message in (
        (None, "no dict but NoneType"), ("x", "no dict but str"), ([], "an empty list of states"),
        ([[state]], "a list in a list of states"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            stream.load_state_dict(nothing)


def test_endless_packing_under_another_world_wants_all_states() -> None:
    options = {"packing": "concat", "seq_len": 60, "lanes": 4}
    ds = open_dataset("mano", L=3)
    parts, states = [], []
    for rank in range(2):
        stream = ds.batches(4, rank=rank, world_size=2, **options)
        parts.append(some_of(stream, 7))
        states.append(stream.state_dict())
    with pytest.raises(
        ValueError, match=r"knows nothing of the packing lanes 2, 3: .* load the list of all ranks' states"
    ):
        ds.batches(4, **options).load_state_dict(states[0])
    stream = ds.batches(4, **options)
    stream.load_state_dict(states)
    assert joined(parts) + some_of(stream, 5) == some_of(ds.batches(4, **options), 12)
    later = [states[0], stream.state_dict()]
    with pytest.raises(ValueError, match="not of one moment"):
        ds.batches(4, **options).load_state_dict(later)
    first = states[0]["stands"][0]
    for change in ({"least": first["least"] + 1}, {"count": 1, "at": AT}):
        other = signed({**states[0], "stands": [{**first, **change}]})
        with pytest.raises(ValueError, match="not of one moment"):
            ds.batches(4, **options).load_state_dict([states[0], other])


def test_a_state_of_another_seed_matters_where_there_is_a_shuffle() -> None:
    ds = dataset("500")
    state = ds.batches(8, seed=1).state_dict()
    ds.batches(8, seed=2).load_state_dict(state)
    with pytest.raises(ValueError, match="its seed is 1, this stream's is 2"):
        ds.batches(8, seed=2, shuffle=True).load_state_dict(ds.batches(8, seed=1, shuffle=True).state_dict())


@pytest.mark.parametrize("packing", PACKINGS)
def test_resuming_far_away_costs_nothing(packing: str) -> None:
    ds = open_dataset("depo1-225", num_examples=None)
    options = {"packing": packing, "seq_len": 2048, "lanes": 64}
    stream = ds.batches(64, **options)
    state = stream.state_dict()
    state["unit"] = 10**9
    for stand in state.get("stands", []):
        stand["least"] = 10**9 // 64
    begin = time.process_time()
    stream.load_state_dict(signed(state))
    batch = next(iter(stream))
    assert int(batch["index"][batch["attention_mask" if packing != "pad" else "index"] > 0].min()) >= 10**9 - 64
    assert time.process_time() - begin < 60, "no walk over a billion rows"

"""The state of a stream as a small JSON-able dict, and its strict reading.

At most 1 KiB and 32 bytes a lane. The fields of its `signature` name the dataset and the order, and must be those of
the stream that loads the state; the others say where it stands. A checksum covers them all. No number is believed for
all that: what it may be is checked here and by the stream, and where a row must be known for it, by the kernels.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from synthshards.errors import UsageError, cut

VERSION = 1
#: Epochs, units and list positions are below this: what kernels add to them stays within 64 bits.
LIMIT = 1 << 62
#: Lanes at most, so that the same holds of distances between them.
MOST_LANES = 1 << 32
#: Of a field that the stream takes over from the state: any number of lanes.
ANY: Any = object()
#: A lane of which this rank knows nothing.
_UNKNOWN = 0xFFFFFFFF


@dataclass
class LaneCursors:
    """Where the packing lanes of one component are.

    Attributes:
        count: P, packing lanes in all.
        lanes: int64, ascending: the lanes known here.
        at: int64 [lanes, 2]: the cursor of each, n and carry.
    """

    count: int
    lanes: np.ndarray
    at: np.ndarray

    @staticmethod
    def start(count: int) -> LaneCursors:
        """All lanes at their first row."""
        return LaneCursors(count, np.arange(count), np.zeros((count, 2), np.int64))

    def to_json(self) -> dict[str, Any]:
        """P, the least n, and base64 of two uint32 a lane: n − least and carry."""
        least = int(self.at[:, 0].min()) if len(self.at) else 0
        pairs = np.full((self.count, 2), _UNKNOWN, "<u4")
        pairs[self.lanes] = np.stack([self.at[:, 0] - least, self.at[:, 1]], axis=1)
        return {"count": self.count, "least": least, "at": base64.b64encode(pairs.tobytes()).decode()}

    @staticmethod
    def from_json(value: Any) -> LaneCursors:
        """The inverse of `to_json`.

        Raises:
            UsageError: not such a dict.
        """
        fields = _fields(value, {"count": int, "least": int, "at": str}, "state['stands']")
        try:
            pairs = np.frombuffer(base64.b64decode(fields["at"], validate=True), "<u4").astype(np.int64)
        except ValueError:
            pairs = np.empty(0, np.int64)
        if pairs.size != 2 * fields["count"] or not pairs.size or not 0 <= fields["least"] < LIMIT:
            raise UsageError("state['stands'] does not hold two numbers a lane: the state is damaged")
        pairs = pairs.reshape(-1, 2)
        lanes = np.flatnonzero((pairs != _UNKNOWN).any(axis=1))
        at = pairs[lanes]
        at[:, 0] += fields["least"]
        return LaneCursors(fields["count"], lanes, at)

    def join(self, other: LaneCursors) -> LaneCursors:
        """What two ranks know together.

        Raises:
            UsageError: they contradict each other.
        """
        both = np.concatenate([self.at, other.at])
        lanes, first, same = np.unique(
            np.concatenate([self.lanes, other.lanes]), return_index=True, return_inverse=True
        )
        if self.count != other.count or (both != both[first][same]).any():
            raise _not_of_one_moment()
        return LaneCursors(self.count, lanes, both[first])

    def only(self, lanes: np.ndarray) -> LaneCursors:
        """Some of the lanes.

        Raises:
            UsageError: naming lanes that are not known here.
        """
        missing = np.setdiff1d(lanes, self.lanes)
        if len(missing):
            shown = ", ".join(map(str, missing[:8].tolist())) + (" …" if len(missing) > 8 else "")
            raise UsageError(
                f"the state knows nothing of the packing lanes {shown}: under another number of ranks, load the list "
                "of all ranks' states"
            )
        return LaneCursors(self.count, lanes, self.at[np.searchsorted(self.lanes, lanes)])


@dataclass
class Position:
    """Where a stream stands.

    Attributes:
        epoch: the epoch (of a repeating stream: its first).
        unit: rows or windows given since its start.
        cursors: of each component, where its packing lanes stand (packed streams).
    """

    epoch: int
    unit: int = 0
    cursors: list[LaneCursors] = field(default_factory=list)


def to_json(signature: Mapping[str, Any], position: Position) -> dict[str, Any]:
    """The state of a stream."""
    state = {"version": VERSION, **signature, "epoch": position.epoch, "unit": position.unit}
    if position.cursors:
        state["stands"] = [cursors.to_json() for cursors in position.cursors]
    return {**state, "checksum": checksum(state)}


def checksum(state: Mapping[str, Any]) -> str:
    """16 hex digits of a sha256 over all fields but the checksum itself.

    Raises:
        UsageError: a state that is not JSON.
    """
    try:
        text = json.dumps({name: value for name, value in state.items() if name != "checksum"}, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        raise UsageError("the state holds what no JSON does: it is damaged") from None
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def from_json(
    states: Any, signature: Mapping[str, Any], components: int, packed: bool
) -> tuple[Position, dict[str, Any]]:
    """Where the stream stands that `states` (a state, or the list of all ranks' states) came from.

    Args:
        signature: what a state must say of the dataset and the order; `ANY`: any number of lanes.
        components: number of components.
        packed: whether the stream packs.

    Returns:
        The position, and the state's own signature.

    Raises:
        UsageError: a state of another dataset, order or packing, with an unknown field, or damaged.
    """
    if isinstance(states, Sequence) and not isinstance(states, str | bytes):
        if not states:
            raise UsageError("an empty list of states; legal: a state, or the list of all ranks' states")
        if any(isinstance(state, Sequence) for state in states):
            raise UsageError("a list in a list of states; legal: a state, or the list of all ranks' states")
        (position, signed), *others = (from_json(state, signature, components, packed) for state in states)
        for other, other_signed in others:
            if (other.epoch, other.unit, other_signed) != (position.epoch, position.unit, signed):
                raise _not_of_one_moment()
            position.cursors = [a.join(b) for a, b in zip(position.cursors, other.cursors, strict=True)]
        return position, signed
    types: dict[str, type] = {"version": int, **dict.fromkeys(signature, object), "epoch": int, "unit": int}
    if packed:
        types["stands"] = list
    types["checksum"] = str
    fields = _fields(states, types, "state")
    if fields["version"] != VERSION:
        raise UsageError(f"state['version'] is {fields['version']!r}; legal: {VERSION}")
    if fields["checksum"] != checksum(fields):
        raise UsageError("the state is damaged: its checksum is not that of its fields")
    for name, value in signature.items():
        if value is ANY:
            if not (type(fields[name]) is int and 0 < fields[name] <= MOST_LANES):
                raise UsageError(f"state[{name!r}] is {_shown(fields[name])}; legal: 1..{MOST_LANES}")
        elif fields[name] != value or type(fields[name]) is not type(value):
            raise UsageError(
                f"a state of another stream: its {name} is {_shown(fields[name])}, this stream's is {value!r}"
            )
    for name in ("epoch", "unit"):
        if not 0 <= fields[name] < LIMIT:
            raise UsageError(f"state[{name!r}] is {_shown(fields[name])}; legal: 0..2^62-1")
    cursors = [LaneCursors.from_json(value) for value in fields.get("stands", [])]
    if packed and len(cursors) != components:
        raise UsageError(f"state['stands'] is of {len(cursors)} components, this stream has {components}")
    return Position(fields["epoch"], fields["unit"], cursors), {name: fields[name] for name in signature}


def _not_of_one_moment() -> UsageError:
    """The error over ranks' states that do not belong together."""
    return UsageError("the states of the list are not of one moment; legal: one state of each rank")


def _shown(value: Any) -> str:
    return cut(repr(value))


def _fields(value: Any, types: Mapping[str, type], where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where} is no dict but {type(value).__name__}; legal: what state_dict() gave")
    if unknown := sorted(map(str, set(value) - set(types))):
        raise UsageError(f"{where} has an unknown field {_shown(unknown[0])}; legal: {', '.join(types)}")
    for name, kind in types.items():
        if name not in value:
            raise UsageError(f"{where} lacks the field {name!r}")
        if not isinstance(value[name], kind) or (kind is int and isinstance(value[name], bool)):
            raise UsageError(f"{where}[{name!r}] is {_shown(value[name])}; legal: {kind.__name__}")
    return dict(value)

"""The state of a stream as a small JSON-able dict, and its strict reading.

At most 1 KiB and 32 bytes a lane. The fields of its `signature` name the dataset and the order, and must be those of
the stream that loads the state; the others say where it stands.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from synthshards.errors import UsageError

VERSION = 1
#: Of a field that the stream takes over from the state: any integer above 0.
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
        if pairs.size != 2 * fields["count"] or fields["count"] < 1 or fields["least"] < 0:
            raise UsageError("state['stands']['at'] does not hold two numbers a lane: the state is damaged")
        pairs = pairs.reshape(-1, 2)
        lanes = np.flatnonzero((pairs != _UNKNOWN).any(axis=1))
        at = pairs[lanes]
        at[:, 0] += fields["least"]
        return LaneCursors(fields["count"], lanes, at)

    def join(self, other: LaneCursors) -> LaneCursors:
        """What two ranks know together."""
        lanes, first = np.unique(np.concatenate([self.lanes, other.lanes]), return_index=True)
        return LaneCursors(self.count, lanes, np.concatenate([self.at, other.at])[first])

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
    if position.cursors:  # under the key that saved states have: a new name would refuse them
        state["stands"] = [cursors.to_json() for cursors in position.cursors]
    return state


def from_json(
    states: Any, signature: Mapping[str, Any], components: int, packed: bool
) -> tuple[Position, dict[str, Any]]:
    """Where the stream stands that `states` (a state, or the list of all ranks' states) came from.

    Args:
        signature: what a state must say of the dataset and the order; `ANY`: any integer above 0.
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
        (position, signed), *others = (from_json(state, signature, components, packed) for state in states)
        for other, other_signed in others:
            if (other.epoch, other.unit, other_signed) != (position.epoch, position.unit, signed):
                raise UsageError("the states of the list are not of one moment; legal: one state of each rank")
            position.cursors = [a.join(b) for a, b in zip(position.cursors, other.cursors, strict=True)]
        return position, signed
    types: dict[str, type] = {"version": int, **dict.fromkeys(signature, object), "epoch": int, "unit": int}
    if packed:
        types["stands"] = list
    fields = _fields(states, types, "state")
    if fields["version"] != VERSION:
        raise UsageError(f"state['version'] is {fields['version']!r}; legal: {VERSION}")
    for name, value in signature.items():
        if value is ANY:
            if not (type(fields[name]) is int and fields[name] > 0):
                raise UsageError(f"state[{name!r}] is {fields[name]!r}; legal: an integer above 0")
        elif fields[name] != value or type(fields[name]) is not type(value):
            raise UsageError(f"a state of another stream: its {name} is {fields[name]!r}, this stream's is {value!r}")
    if fields["epoch"] < 0 or not 0 <= fields["unit"] < 1 << 62:
        raise UsageError(f"state: epoch {fields['epoch']}, unit {fields['unit']}; legal: 0 or more")
    cursors = [LaneCursors.from_json(value) for value in fields.get("stands", [])]
    if packed and len(cursors) != components:
        raise UsageError(f"state['stands'] is of {len(cursors)} components, this stream has {components}")
    return Position(fields["epoch"], fields["unit"], cursors), {name: fields[name] for name in signature}


def _fields(value: Any, types: Mapping[str, type], where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where} is no dict but {type(value).__name__}; legal: what state_dict() gave")
    if unknown := sorted(map(str, set(value) - set(types))):
        raise UsageError(f"{where} has an unknown field {unknown[0]!r}; legal: {', '.join(types)}")
    for name, kind in types.items():
        if name not in value:
            raise UsageError(f"{where} lacks the field {name!r}")
        if not isinstance(value[name], kind) or (kind is int and isinstance(value[name], bool)):
            raise UsageError(f"{where}[{name!r}] is {value[name]!r}; legal: {kind.__name__}")
    return dict(value)

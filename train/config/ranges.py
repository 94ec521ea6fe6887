"""Ranges of numbers that options have in common."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta

_MOST = (1 << 31) - 1  # beyond it products of two overflow what torch counts with
Count: TypeAlias = Annotated[int, Meta(ge=1, le=_MOST)]
Natural: TypeAlias = Annotated[int, Meta(ge=0, le=_MOST)]
NonNegative: TypeAlias = Annotated[float, Meta(ge=0, le=1e300)]
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
#: A seed that is checked where it is used: up to 2^64 - 1, which msgspec cannot say.
Seed: TypeAlias = Annotated[int, Meta(ge=0)]

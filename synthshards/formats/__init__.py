"""The shard formats: one module each, with writer and reader side by side.

Every module has NAME, SUFFIX, COMPRESSIONS (the default first), Writer and Reader (see `parquet` for the signatures).
A new format is a module and one line in `FORMATS`.
"""

from __future__ import annotations

from types import ModuleType

from ..errors import UsageError, nearest
from . import arrow, webdataset
from .parquet import file as parquet

#: Name → module, the default first.
FORMATS: dict[str, ModuleType] = {module.NAME: module for module in (parquet, webdataset, arrow)}


def get_format(name: str) -> ModuleType:
    """The module of a format.

    Raises:
        UsageError: there is no such format.
    """
    if name not in FORMATS:
        raise UsageError(f"unknown format {name!r}: one of {', '.join(FORMATS)}{nearest(name, FORMATS)}")
    return FORMATS[name]


def check_compression(name: str, compression: str | None) -> str:
    """The compression to use with a format: the given one if the format has it, its default for None.

    Raises:
        UsageError: the format has no such compression.
    """
    legal: tuple[str, ...] = get_format(name).COMPRESSIONS
    if compression is None:
        return legal[0]
    if compression not in legal:
        hint = nearest(compression, legal)
        raise UsageError(f"format {name} has no compression {compression!r}: one of {', '.join(legal)}{hint}")
    return compression

"""The shard formats: one module each. A new format is a module and one entry in `FORMATS`."""

from __future__ import annotations

from ..errors import UsageError, nearest
from .arrow import ARROW
from .base import Format
from .parquet.file import PARQUET
from .webdataset import WEBDATASET

#: Name → format, the default first.
FORMATS: dict[str, Format] = {format.name: format for format in (PARQUET, WEBDATASET, ARROW)}


def get_format(name: str) -> Format:
    """A format by name.

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
    legal = get_format(name).compressions
    if compression is None:
        return legal[0]
    if compression not in legal:
        hint = nearest(compression, legal)
        raise UsageError(f"format {name} has no compression {compression!r}: one of {', '.join(legal)}{hint}")
    return compression

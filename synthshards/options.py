"""Numbers on the command line: plain ASCII decimals, in bounds; Python would take ``1_0``, ``٣`` and ``" 2 "``, too."""

from __future__ import annotations

import re
from typing import Any

import click

from .errors import cut
from .params import is_integer

#: Rows that a command may be told to go through.
MAX_ROWS = 10**12

_DECIMAL = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?(e-?[0-9]{1,3})?")


class Integer(click.IntRange):
    """An integer option; `min` and `max` may be given."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not is_integer(value):
            self.fail(f"{cut(repr(value))} is not an integer (plain digits, at most 20).", param, ctx)
        return super().convert(value, param, ctx)


class Decimal(click.FloatRange):
    """A decimal option; `min` and `max` may be given."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not _DECIMAL.fullmatch(value):
            self.fail(f"{cut(repr(value))} is not a decimal number (such as 0.01).", param, ctx)
        return super().convert(value, param, ctx)

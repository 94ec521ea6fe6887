"""The pictures of row lengths show no peaks that are not there, round ticks and whole titles."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

DOCS = Path(__file__).parents[2] / "docs"
SVG = "{http://www.w3.org/2000/svg}"
PICTURES = sorted(DOCS.glob("lengths-*.svg"))


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_ticks_are_round_and_texts_are_inside(path: Path) -> None:
    root = ElementTree.parse(path).getroot()
    width, height = (float(n) for n in root.get("viewBox", "").split()[2:])
    *ticks, title = root.iter(f"{SVG}text")
    for text in (*ticks, title):
        half = len(text.text or "") * 7 / 2  # wider than any letter of 12 pixels is on average
        assert half <= float(text.get("x", "")) <= width - half
        assert 12 <= float(text.get("y", "")) <= height - 4, "letters reach below their line"
    values = [int((tick.text or "").replace(",", "")) for tick in ticks]
    (step,) = {b - a for a, b in pairwise(values)}
    assert re.fullmatch(r"[125]0*", str(step))
    assert all(value % step == 0 for value in values)
    assert 3 <= len(values) <= 9


def test_a_bar_covers_as_many_lengths_as_any_other() -> None:
    """All ten lengths of Mano, the odd numbers from 7 to 25, are equally frequent: so are its bars."""
    root = ElementTree.parse(DOCS / "lengths-mano.svg").getroot()
    bars = [float(bar.get("height", "")) for bar in root.iter(f"{SVG}rect") if bar.get("rx") is None]
    assert len(bars) == 10
    assert min(bars) > 0.94 * max(bars)


def test_the_order_says_what_it_draws() -> None:
    text = (DOCS / "loading-order.svg").read_text()
    assert "drawn with 6 rows a block and 4 blocks a superblock; really 1,024 and 16" in text
    assert "16 blocks a superblock" not in text

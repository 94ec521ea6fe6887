"""Figures as people read them: three digits and a unit."""

from __future__ import annotations


def rate(value: float, unit: str = "") -> str:
    """``"62.4 M"``, three digits."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{_three(value / factor)} {letter} {unit}".rstrip()
    return f"{_three(value)} {unit}".rstrip()


def _three(value: float) -> str:
    """Three digits, more before the point if there are more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def times(value: float) -> str:
    return f"{_three(value)} ×"


def percent(value: float) -> str:
    return f"{100 * value:.0f}%"


def megabytes(value: int | None) -> str:
    return "–" if value is None else f"{value / 1e6:,.0f} MB"

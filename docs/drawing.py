"""What the pictures of docs/ are drawn with: cards, boxes, lines of text and arrows, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

# Fill, edge and text of boxes, as in overview.svg.
BLUE, YELLOW, GREEN = (
    ("#ddf4ff", "#0969da", "#0a3069"),
    ("#fff8c5", "#9a6700", "#4d2d00"),
    ("#dafbe1", "#1a7f37", "#0f5323"),
)
PURPLE, RED, GREY = (
    ("#fbefff", "#8250df", "#512a97"),
    ("#ffebe9", "#cf222e", "#82071e"),
    ("#f6f8fa", "#57606a", "#24292f"),
)
INK, SOFT = "#24292f", "#57606a"
HUES = (BLUE, YELLOW, GREEN, PURPLE)


def picture(width: int, height: int, parts: Sequence[str]) -> str:
    """An SVG on a white card, which reads on light and dark pages alike."""
    arrow = (
        '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        f'orient="auto-start-reverse"><path d="M0 0 L10 5 L0 10 z" fill="{SOFT}"/></marker></defs>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="Helvetica, Arial, '
        f'sans-serif" font-size="14">\n{arrow}\n<rect width="{width}" height="{height}" rx="10" fill="#ffffff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def box(x: float, y: float, w: float, h: float, hue: Sequence[str], text: str = "", **more: str) -> str:
    """A rectangle with a text in its middle."""
    style = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
    found = f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="3" fill="{hue[0]}" stroke="{hue[1]}"{style}/>'
    return found + (words(x + w / 2, y + h / 2 + 4.5, text, hue[2], "middle", 13) if text else "")


def words(
    x: float, y: float, text: str, ink: str = INK, anchor: str = "start", size: int = 14, bold: bool = False
) -> str:
    """A line of text."""
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" fill="{ink}" text-anchor="{anchor}" font-size="{size}"{weight}>{text}</text>'


def arrow(path: str, dashed: bool = False) -> str:
    """A line with a head."""
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    return f'<path d="{path}" stroke="{SOFT}" stroke-width="1.6" fill="none" marker-end="url(#arrow)"{dash}/>'

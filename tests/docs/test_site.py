"""The site has every page of docs/; `make site` builds it, strictly."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAV = re.findall(r"^ +- [^:]+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
#: Pages of the repository's root, which docs/site_pages.py brings along.
FROM_ROOT = {"index.md", "contributing.md", "security.md", "changelog.md"}


def test_the_navigation_lists_every_page_once() -> None:
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(NAV) == sorted(pages | FROM_ROOT)


def test_the_reference_names_every_public_name() -> None:
    import synthshards

    reference = "\n".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    named = re.findall(r"^::: synthshards\.(\w+)$", reference, re.M)
    assert set(synthshards.__all__) <= set(named)


def test_python_markdown_sees_every_list() -> None:
    """GitHub starts a list without an empty line before it, and nests by two spaces; the site's Markdown does not."""
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        text = re.sub(r"^( *)```.*?^\1```$", "", path.read_text(), flags=re.S | re.M)
        lines = text.splitlines()
        for before, line in pairwise(lines):
            if re.match(r"([-*]|\d+\.) ", line) and before and not re.match(r"([-*]|\d+\.) |  ", before):
                raise AssertionError(f"{path.name}: an empty line is missing before {line!r}")
            nested = re.match(r"( +)([-*]|\d+\.) ", line)
            assert nested is None or len(nested[1]) >= 4, f"{path.name}: {line!r} is nested by less than four spaces"

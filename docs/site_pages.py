"""What `make site` adds to docs/: the pages at the root of the repository, and links to files that are no pages."""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.hooks.site_pages")
ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/synthshards/synthshards/blob/main/"
#: Pages at the root → their place on the site.
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the root's pages."""
    for name, place in ROOT_PAGES.items():
        files.append(File.generated(config, place, content=(ROOT / name).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages, or to the repository."""
    place = page.file.src_uri
    source = next((name for name, at in ROOT_PAGES.items() if at == place), f"docs/{place}")

    def link(match: re.Match[str]) -> str:
        target, hash_, heading = match[1].partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target)) if target else source
        if path in ROOT_PAGES or path.startswith("docs/"):
            at = ROOT_PAGES.get(path, path.removeprefix("docs/"))
            return f"]({posixpath.relpath(at, posixpath.dirname(place) or '.')}{hash_}{heading})"
        return f"]({REPOSITORY}{path})"

    return re.sub(r"\]\((?!https?://)([^)\s]+)\)", link, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Warn, which fails a strict build, where a page would load something from the network."""
    for tag in re.findall(r"<(?:script|img|iframe)\b[^>]*\bsrc=\"?(?:https?:)?//[^>]*>|<link\b[^>]*>", output):
        if tag.startswith("<link") and not re.search(r"rel=\"?(?:stylesheet|preconnect|preload)\b.*//", tag):
            continue
        log.warning(f"{page.file.src_uri} loads from the network: {tag}")
    return output

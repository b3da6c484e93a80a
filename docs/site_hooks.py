"""Makes the repository's own links work on the site.

In the repository a page links to files by their place: `../README.md`, `../benchmarks/results/soak.md`, `../src/...`.
The site is built from `docs/`. So whatever is linked and lies elsewhere joins the site: README.md as the home page,
markdown as a page, Python as a page of code, anything else as a file; and links are rewritten to where it is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
HOME = "README.md"
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the home page, and what pages link to outside `docs/`."""
    waiting = [HOME, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    seen = set(waiting)
    while waiting:
        page = waiting.pop()
        if _joins(page):
            files.append(_generated(page, config))
        if page.endswith(".md"):
            fresh = {path for path in _linked(page) if _joins(path)} - seen
            waiting += sorted(fresh)
            seen |= fresh
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links by place in the repository become links by place on the site."""
    here = _place(page.file.src_uri)

    def rewritten(match: re.Match[str]) -> str:
        before, target, anchor, after = match.groups()
        path = _in_repository(here, target)
        if path is None:
            return match.group()
        return f"{before}{relpath(_uri(path), PurePosixPath(page.file.src_uri).parent)}{anchor or ''}{after}"

    return LINK.sub(rewritten, markdown)


def _linked(page: str) -> Iterator[str]:
    """What a page links to, by place in the repository."""
    for match in LINK.finditer((ROOT / page).read_text(encoding="utf-8")):
        path = _in_repository(page, match.group(2))
        if path is not None:
            yield path


def _in_repository(page: str, target: str) -> str | None:
    """The place of a link's target; None for addresses, and for what is not there (mkdocs then complains)."""
    if "://" in target or target.startswith(("mailto:", "/")):
        return None
    path = normpath(f"{PurePosixPath(page).parent}/{target}")
    return path if not path.startswith("..") and (ROOT / path).is_file() else None


def _joins(path: str) -> bool:
    """Whether a file is not on the site by itself."""
    return not path.startswith("docs/") or path.endswith(".py")


def _uri(path: str) -> str:
    """Where a file of the repository is on the site."""
    if path == HOME:
        return "index.md"
    if path.endswith(".py"):
        return f"source/{path.removesuffix('.py')}.md"
    return path.removeprefix("docs/")


def _place(uri: str) -> str:
    """The way back: where a page of the site is in the repository."""
    if uri == "index.md":
        return HOME
    return f"docs/{uri}" if (ROOT / "docs" / uri).is_file() else uri


def _generated(path: str, config: MkDocsConfig) -> File:
    """A file of the repository as a file of the site, not in the navigation unless it is named there."""
    if path.endswith(".py"):
        text = f"# {path}\n\n```python\n{(ROOT / path).read_text(encoding='utf-8')}\n```\n"
        file = File.generated(config, _uri(path), content=text)
    else:
        file = File.generated(config, _uri(path), abs_src_path=str(ROOT / path))
    file.inclusion = InclusionLevel.INCLUDED if path == HOME else InclusionLevel.NOT_IN_NAV
    return file

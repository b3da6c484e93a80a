"""Puts the scripts of `docs/extend/` into the page that quotes them: `python docs/quote_scripts.py`.

A block of Python whose first line before it is `<!-- FILE -->` is the file's text. A test compares.
"""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parent
PAGE = DOCS / "extend.md"
QUOTED = re.compile(r"<!-- ([\w/]+\.py) -->\n\n```python\n.*?^```$", flags=re.DOTALL | re.MULTILINE)


def quoted(page: str) -> str:
    """The page with every quoted script as it is now."""

    def block(match: re.Match[str]) -> str:
        text = (DOCS / match[1]).read_text(encoding="utf-8")
        return f"<!-- {match[1]} -->\n\n```python\n{text}```"

    return QUOTED.sub(block, page)


if __name__ == "__main__":
    PAGE.write_text(quoted(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

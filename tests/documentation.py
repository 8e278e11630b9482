"""The pages and what is in them: blocks of code to run, links to follow."""

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
PAGES = [REPOSITORY / "README.md", *sorted(DOCS.rglob("*.md"))]

_MARK = re.compile(r"<!-- (not run|slow): (.+?) -->", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of code.

    Attributes:
        page: Where it is.
        line: Its first line, counted from 1.
        language: ``bash`` or ``python``.
        code: What to run.
        mark: ``not run`` or ``slow``, or empty; a comment before the block says so and why.
    """

    page: Path
    line: int
    language: str
    code: str
    mark: str


def read_blocks(page: Path) -> list[Block]:
    """The ``bash`` and ``python`` blocks of a page, in order."""
    return blocks_of(page.read_text(), page=page)


def blocks_of(markdown: str, *, page: Path) -> list[Block]:
    """The same, of a page's text."""
    found: list[Block] = []
    mark = ""
    for token in MarkdownIt().parse(markdown):
        if token.type == "html_block":
            match = _MARK.match(token.content)
            mark = match[1] if match else ""
        elif token.type == "fence" and token.info in ("bash", "python"):
            line = (token.map or [0])[0] + 2
            found.append(
                Block(page=page, line=line, language=token.info, code=token.content, mark=mark)
            )
            mark = ""
        elif token.type in ("paragraph_open", "heading_open"):
            mark = ""
    return found


def as_script(blocks: list[Block]) -> str:
    """One bash program of them all: shell blocks share one shell, a Python block is a program."""
    parts = ["set -euo pipefail"]
    for block in blocks:
        parts.append(f"echo '--- {block.page.name}, line {block.line}' >&2")
        if block.language == "bash":
            parts.append(block.code)
        else:
            parts.append(f"python - <<'END OF BLOCK'\n{block.code}END OF BLOCK")
    return "\n".join(parts) + "\n"

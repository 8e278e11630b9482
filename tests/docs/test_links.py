"""Links between the pages, the README and the repository's files; none is fetched."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from documentation import PAGES, REPOSITORY


def test_links_are_read_from_text_and_pictures_but_not_from_code() -> None:
    text = "[a](b.md#c) ![d](e.png) `[f](g.md)`\n\n    [h](i.md)\n"
    assert links(text) == ["b.md#c", "e.png"]


def test_headings_are_named_as_sphinx_and_web_hosts_name_them() -> None:
    text = "# Larger tiles, less `overlap`\n\n## A: b\n\n## A: b\n"
    assert anchors(text) == {"larger-tiles-less-overlap", "a-b", "a-b-1"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_relative_link_leads_to_a_file_and_a_heading_of_it(page: Path) -> None:
    dead = []
    for link in links(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue  # another site's
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.is_file() or (anchor and anchor not in anchors(target.read_text())):
            dead.append(link)
    assert not dead


def links(markdown: str) -> list[str]:
    found = []
    for token in _walk(MarkdownIt().enable("table").parse(markdown)):
        link = token.attrs.get("href") if token.type == "link_open" else token.attrs.get("src")
        if link:
            found.append(str(link))
    return found


def anchors(markdown: str) -> set[str]:
    tokens = MarkdownIt().parse(markdown)
    found: set[str] = set()
    for before, token in pairwise(tokens):
        if before.type == "heading_open":
            title = "".join(child.content for child in token.children or ())
            slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            number = 1
            name = slug
            while name in found:
                name, number = f"{slug}-{number}", number + 1
            found.add(name)
    return found


def _walk(tokens: list[Token]) -> list[Token]:
    return [one for token in tokens for one in (token, *_walk(token.children or []))]

"""Commands that pages show exist, with the options that they are shown with."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from typer import Typer
from typer.testing import CliRunner

from documentation import DOCS, PAGES, REPOSITORY
from veloxseg.cli import app

sys.path.append(str(DOCS / "_ext"))

from command_line import Command, commands, to_markdown

_SEPARATORS = {"&&", "|", ";", ">"}


def test_a_command_is_read_over_continued_lines_and_without_its_comment() -> None:
    text = "    veloxseg plan 4 \\\n        --size S  # small\n    nnUNetv2_train 4\n"
    assert shown(text) == [["veloxseg", "plan", "4", "--size", "S"]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_command_of_a_page_exists_and_takes_its_options(page: Path) -> None:
    known = {command.name: options(command) for command in commands(app, "veloxseg")}
    wrong = []
    for words in shown(page.read_text()):
        if words[1:2] == ["--help"]:
            continue
        name = next((" ".join(words[:n]) for n in (3, 2) if " ".join(words[:n]) in known), None)
        typed = {word.partition("=")[0] for word in words if re.match(r"-{1,2}[a-z]", word)}
        if name is None or typed - known[name] - {"--debug", "--help"}:
            wrong.append(" ".join(words))
    assert not wrong


@pytest.mark.parametrize("name", [command.name for command in commands(app, "veloxseg")])
def test_the_reference_has_every_option_that_help_shows(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    page = to_markdown(app, "veloxseg")
    section = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
    done = CliRunner().invoke(app, [*name.split()[1:], "--help"])
    helped = set(re.findall(r"(?<=\s)--[a-z][a-z-]*", re.sub(r"\x1b\[[0-9;]*m", "", done.output)))
    helped -= {"--help", "--debug"}
    assert section
    assert helped >= set(re.findall(r"`(--[a-z-]+)", section))
    assert all(option in section for option in helped)


def test_a_group_s_commands_go_by_the_group_s_name() -> None:
    inner, outer = Typer(name="inner"), Typer()
    inner.command("leaf")(lambda: None)
    outer.add_typer(inner)
    assert [command.name for command in commands(outer, "top")] == ["top inner leaf"]


def test_a_group_that_does_something_alone_is_a_command() -> None:
    inner, outer = Typer(name="inner", help="List.", invoke_without_command=True), Typer()
    outer.add_typer(inner)
    found = list(commands(outer, "top"))
    assert [(command.name, command.help) for command in found] == [("top inner", "List.")]


def options(command: Command) -> set[str]:
    names = [one.name for one in command.parameters if one.name.startswith("-")]
    return {word for name in names for word in re.split(r"[ ,/]+", name) if word.startswith("-")}


def shown(markdown: str) -> list[list[str]]:
    """The words of every veloxseg command in a page's blocks of code."""
    found = []
    for token in MarkdownIt().parse(markdown):
        if token.type in ("fence", "code_block") and token.info in ("", "bash"):
            for line in token.content.replace("\\\n", " ").splitlines():
                found += _commands_in(line)
    return found


def _commands_in(line: str) -> list[list[str]]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # no shell: output, JSON
        return []
    found: list[list[str]] = []
    for word in [";", *words]:
        if word in _SEPARATORS:
            found.append([])
        else:
            found[-1].append(word)
    return [one for one in found if one[:1] == ["veloxseg"] and len(one) > 1]

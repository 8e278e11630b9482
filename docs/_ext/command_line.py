"""The reference of the command line, from the commands' own signatures.

A page that holds ``<!-- commands -->`` has it replaced by all commands with their options.
"""

import inspect
import re
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from sphinx.application import Sphinx
from typer.models import ArgumentInfo, OptionInfo

PLACE = "<!-- commands -->"

_TYPES = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """An argument or an option of a command.

    Attributes:
        name: As it is typed, with the value that it takes: ``--size S|B|L``.
        help: What it means.
        default: What is taken without it; empty where there is nothing to say.
    """

    name: str
    help: str
    default: str


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command.

    Attributes:
        name: With what it is a part of: ``veloxseg convert folder``.
        help: What it does.
        parameters: Arguments first, then options, each as the command declares it.
    """

    name: str
    help: str
    parameters: list[Parameter]


def commands(app: typer.Typer, prefix: str) -> Iterator[Command]:
    """Every command, in the order of ``--help``; a group that does something alone is one."""
    for info in app.registered_commands:
        if info.callback is not None:
            name = info.name or info.callback.__name__.replace("_", "-")
            help_text = inspect.getdoc(info.callback) or ""
            yield Command(
                name=f"{prefix} {name}", help=help_text, parameters=_parameters(info.callback)
            )
    for group in app.registered_groups:
        inner = group.typer_instance
        if inner is not None:
            name = f"{prefix} {group.name if isinstance(group.name, str) else inner.info.name}"
            if inner.info.invoke_without_command is True:
                yield Command(name=name, help=str(inner.info.help), parameters=[])
            yield from commands(inner, name)


def to_markdown(app: typer.Typer, name: str) -> str:
    """A section for each command."""
    return "\n".join(_section(command) for command in commands(app, name))


def _section(command: Command) -> str:
    lines = [f"## {command.name}\n", f"{command.help}\n"]
    if command.parameters:
        lines += ["| | | without it |", "| --- | --- | --- |"]
    lines += [
        f"| `{_cell(one.name)}` | {_prose(one.help)} | {_cell(one.default)} |"
        for one in command.parameters
    ]
    return "\n".join([*lines, ""])


def _parameters(command: Callable[..., Any]) -> list[Parameter]:
    hints = typing.get_type_hints(command, include_extras=True)
    declared = [
        _parameter(name, hints[name], one.default)
        for name, one in inspect.signature(command).parameters.items()
        if name != "debug" and hints[name] is not typer.Context  # all have the first
    ]
    return sorted(declared, key=lambda one: one.name.startswith("-"))


def setup(app: Sphinx) -> dict[str, Any]:
    """Let Sphinx read pages with the commands in them."""
    app.connect("source-read", _replace)
    return {"version": "1", "parallel_read_safe": True}


def _replace(_: Sphinx, __: str, source: list[str]) -> None:
    if PLACE in source[0]:
        from veloxseg.cli import app

        source[0] = source[0].replace(PLACE, to_markdown(app, "veloxseg"))


def _parameter(name: str, hint: Any, default: Any) -> Parameter:
    annotation, info = _info(hint)
    if isinstance(info, ArgumentInfo):
        shown = name.upper() if default is inspect.Parameter.empty else f"[{name.upper()}]"
        return Parameter(name=shown, help=info.help or "", default="")
    kebab = f"--{name.replace('_', '-')}"
    flag = annotation is bool
    first = [info.default] if isinstance(info.default, str) else []  # so typer keeps the first
    names = [*first, *(info.param_decls or ())]
    if not names:
        names = [f"{kebab}/--no-{name.replace('_', '-')}" if flag else kebab]
    value = "" if flag else f" {info.metavar or _value(annotation)}"
    return Parameter(
        name=", ".join(names) + value,
        help=info.help or "",
        default=_default(info, default, flag=flag),
    )


def _info(hint: Any) -> tuple[Any, OptionInfo | ArgumentInfo]:
    annotation, *metadata = typing.get_args(hint)
    info = next(one for one in metadata if isinstance(one, (OptionInfo, ArgumentInfo)))
    others = [one for one in typing.get_args(annotation) if one is not type(None)]
    if type(None) in typing.get_args(annotation) and len(others) == 1:
        annotation = others[0]
    return annotation, info


def _value(annotation: Any) -> str:
    if typing.get_origin(annotation) is list:
        return f"{_value(typing.get_args(annotation)[0])} ..."
    if typing.get_origin(annotation) is tuple:
        return " ".join(_value(one) for one in typing.get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "|".join(str(member.value) for member in annotation)
    return _TYPES.get(annotation, "VALUE")


def _default(info: OptionInfo | ArgumentInfo, default: Any, *, flag: bool) -> str:
    if isinstance(info.show_default, str):
        return info.show_default
    if default is inspect.Parameter.empty:
        return "required"
    if default is None or flag:
        return ""
    return f"`{default.value if isinstance(default, Enum) else default}`"


def _prose(text: str) -> str:
    """Options as code: else two dashes would be made one long one."""
    return re.sub(r"(?<![\w-])(--[a-z][a-z-]*)", r"`\1`", _cell(text))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")

"""Tables of the fields of a JSON file, from the class that reads it.

``<!-- fields: package.module.Class -->`` in a page is replaced by a row for each field: its name,
type, default, and what the class's docstring says of it under ``Attributes:``.
"""

import dataclasses
import importlib
import inspect
import json
import re
import typing
from typing import Any

from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.ext.autodoc.mock import mock

PLACE = re.compile(r"<!-- fields: ([\w.]+) -->")

_ATTRIBUTE = re.compile(r"    (\w+): (.*)")


def to_markdown(described: type) -> str:
    """A table of a pydantic model's or a dataclass's fields.

    Raises:
        ValueError: the docstring does not describe exactly the fields.
    """
    meanings = attributes(described)
    hints = typing.get_type_hints(described)
    defaults = _defaults(described)
    if set(meanings) != set(defaults):
        raise ValueError(
            f"{described.__name__}: the docstring describes {sorted(meanings)}, the fields are "
            f"{sorted(defaults)}. Expected every field to be described."
        )
    rows = [
        f"| `{name}` | `{_cell(_type(hints[name]))}` | {default} | {_cell(meanings[name])} |"
        for name, default in defaults.items()
    ]
    return "\n".join(["| key | type | default | meaning |", "| --- | --- | --- | --- |", *rows])


def attributes(described: type) -> dict[str, str]:
    """What the docstring says of each attribute, markup turned into Markdown."""
    lines = (inspect.getdoc(described) or "").partition("\nAttributes:\n")[2].splitlines()
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        if line and not line.startswith(" "):
            break  # the next section
        if match := _ATTRIBUTE.fullmatch(line):
            name = match[1]
            found[name] = match[2]
        elif name:
            found[name] += f" {line.strip()}"
    return {name: text.replace("``", "`").strip() for name, text in found.items()}


def setup(app: Sphinx) -> dict[str, Any]:
    """Let Sphinx read pages with the tables in them."""
    app.connect("source-read", _replace)
    return {"version": "1", "parallel_read_safe": True}


def _replace(app: Sphinx, _: str, source: list[str]) -> None:
    with mock(app.config.autodoc_mock_imports):
        source[0] = PLACE.sub(lambda match: to_markdown(_find(match[1])), source[0])


def _find(path: str) -> type:
    module, _, name = path.rpartition(".")
    found: type = getattr(importlib.import_module(module), name)
    return found


def _defaults(described: type) -> dict[str, str]:
    if issubclass(described, BaseModel):
        return {
            name: "required" if field.is_required() else _shown(field.default)
            for name, field in described.model_fields.items()
        }
    return {
        field.name: "required" if field.default is dataclasses.MISSING else _shown(field.default)
        for field in dataclasses.fields(described)
    }


def _shown(value: Any) -> str:
    if isinstance(value, BaseModel):
        settings = (f"{k} {v}" for k, v in value.model_dump(exclude_unset=True).items())
        return f"`{', '.join(settings)}`"
    if value is None or isinstance(value, bool):
        return f"`{json.dumps(value)}`"
    return f"`{value}`"


def _type(annotation: Any) -> str:
    text = inspect.formatannotation(annotation)
    return re.sub(r"\b(typing|veloxseg(\.\w+)+)\.", "", text)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")

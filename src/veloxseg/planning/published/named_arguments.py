"""An optimiser or a scheduler in a configuration: a name and arguments, in whatever form."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from veloxseg.errors import PlanError

_NAME_KEYS = ("name", "type", "class", "class_name", "_target_")
_ARGUMENT_KEYS = ("args", "params", "kwargs", "arguments", "parameters", "config")


@dataclass(frozen=True, kw_only=True)
class Argument:
    """An argument and where it stands.

    Attributes:
        name: What it is called.
        place: Keys that lead to it, with dots between.
        value: As in the file.
    """

    name: str
    place: str
    value: Any

    @property
    def number(self) -> float:
        """The value as a number.

        Raises:
            PlanError: it is none, or not a finite one.
        """
        value = self.value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise PlanError(f"{self.place} is {value!r}: expected a number.")
        if not math.isfinite(value):
            raise PlanError(f"{self.place} is {value}: expected a finite number.")
        return float(value)


@dataclass(frozen=True, kw_only=True)
class NamedArguments:
    """A name with arguments.

    Attributes:
        name: None if there is none; without the modules before it (``torch.optim.AdamW``).
        name_place: Keys that lead to the name; of the whole where there is none.
        arguments: In the order of the file.
    """

    name: str | None
    name_place: str
    arguments: tuple[Argument, ...]

    def first(self, *names: str) -> Argument | None:
        """The first argument that has one of these names, in the order of the names."""
        by_name = {argument.name: argument for argument in reversed(self.arguments)}
        return next((by_name[name] for name in names if name in by_name), None)


def named_arguments(value: Any, *, place: str) -> NamedArguments:
    """Read a name and its arguments.

    Forms: ``"AdamW"``; ``{"name": "AdamW", "lr": 1}``; the same with the arguments below ``args``,
    ``params`` or ``kwargs`` and the name as ``type`` or ``class``; ``{"AdamW": {"lr": 1}}``;
    ``["AdamW", {"lr": 1}]``.

    Args:
        value: From the file; not None.
        place: Keys that lead to it, for reports and messages.

    Raises:
        PlanError: it has none of these forms.
    """
    if isinstance(value, str):
        return NamedArguments(name=_last(value), name_place=place, arguments=())
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):
        arguments = _require_mapping(value[1], place=f"{place}.1")
        return NamedArguments(
            name=_last(value[0]),
            name_place=f"{place}.0",
            arguments=tuple(_flatten(arguments, f"{place}.1")),
        )
    content = _require_mapping(value, place=place)
    key = next((key for key in _NAME_KEYS if isinstance(content.get(key), str)), None)
    if key is not None:
        return NamedArguments(
            name=_last(content[key]),
            name_place=f"{place}.{key}",
            arguments=tuple(_flatten({k: v for k, v in content.items() if k != key}, place)),
        )
    if len(content) == 1:
        [(only, inner)] = content.items()
        if isinstance(inner, dict) and only not in _ARGUMENT_KEYS:
            inner_place = f"{place}.{only}"
            return NamedArguments(
                name=_last(only),
                name_place=inner_place,
                arguments=tuple(_flatten(inner, inner_place)),
            )
    return NamedArguments(name=None, name_place=place, arguments=tuple(_flatten(content, place)))


def _flatten(content: Mapping[str, Any], place: str) -> Iterator[Argument]:
    for name, value in content.items():
        if name in _ARGUMENT_KEYS and isinstance(value, dict):
            yield from _flatten(value, f"{place}.{name}")
        else:
            yield Argument(name=name, place=f"{place}.{name}", value=value)


def _require_mapping(value: Any, *, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PlanError(
            f"{place} is {value!r}: expected a name with arguments, such as "
            '{"name": "AdamW", "lr": 2.5e-4}.'
        )
    return value


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]

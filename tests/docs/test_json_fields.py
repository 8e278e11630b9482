"""Tables of JSON files' keys, from the classes that read them."""

import sys
from dataclasses import dataclass

import pytest
from pydantic import BaseModel, ConfigDict

from documentation import DOCS

pytest.importorskip("sphinx", reason="the extra veloxseg[docs] is not installed")
sys.path.append(str(DOCS / "_ext"))

from json_fields import attributes, to_markdown


class Inner(BaseModel):
    """An inner one.

    Attributes:
        order: Of the spline.
    """

    order: int = 3


class Outer(BaseModel):
    """An outer one.

    Attributes:
        name: What it is ``called``, on
            two lines.
        either: One of | two.
        inner: The inner one: with a colon.

    Source: nobody.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    either: bool | None = None
    inner: Inner = Inner(order=1)


@dataclass(frozen=True)
class Plain:
    """A dataclass.

    Attributes:
        widths: Of the stages.
    """

    widths: tuple[int, ...] = (8, 16)


def test_a_model_s_fields_are_rows_with_type_default_and_meaning() -> None:
    assert to_markdown(Outer).splitlines()[2:] == [
        "| `name` | `str` | required | What it is `called`, on two lines. |",
        r"| `either` | `bool \| None` | `null` | One of \| two. |",
        f"| `inner` | `{__name__}.Inner` | `order 1` | The inner one: with a colon. |",
    ]


def test_a_dataclass_is_described_alike() -> None:
    row = "| `widths` | `tuple[int, ...]` | `(8, 16)` | Of the stages. |"
    assert to_markdown(Plain).splitlines()[2:] == [row]


def test_the_section_after_the_attributes_is_no_attribute() -> None:
    assert list(attributes(Outer)) == ["name", "either", "inner"]


def test_a_field_that_nobody_describes_is_refused() -> None:
    class Silent(Plain):
        """Nothing.

        Attributes:
            heights: Of nothing.
        """

    with pytest.raises(ValueError, match=r"Silent.*\['heights'\].*\['widths'\]"):
        to_markdown(Silent)

"""Long lists in messages: the first few names, and how many more there are."""

from collections.abc import Sequence


def shorten(names: Sequence[str], *, shown: int = 5) -> str:
    """The first names and the number of the others: ``a, b, c, d, e and 2 more``."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{', '.join(names[:shown])}{more}"


def name_cases(cases: Sequence[str], *, capital: bool = False) -> str:
    """Cases by their names, shortened: ``case a``, or ``cases a, b``; ``Case`` with a capital."""
    word = "Case" if capital else "case"
    return f"{word}{'s' if len(cases) > 1 else ''} {shorten(cases)}"

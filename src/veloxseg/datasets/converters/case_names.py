"""Names of cases that every file system and shell takes."""

import re
from collections.abc import Iterable

from veloxseg.errors import DatasetError

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def safe_case_names(names: Iterable[str]) -> dict[str, str]:
    """Give every case a name of letters, digits, ``.``, ``_`` and ``-``.

    What is something else, such as a blank or an umlaut, becomes ``_``.

    Returns:
        Name at the source -> safe name, in the order of ``names``.

    Raises:
        DatasetError: nothing is left of a name, or two names become one, or differ in case alone,
            which some file systems do not tell apart.
    """
    safe: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in names:
        short = _UNSAFE.sub("_", name).strip("._")
        if not short.strip("_-."):
            raise DatasetError(
                f"The case {name!a} has no letter or digit of ASCII in its name. "
                "Expected some. Rename its files or folder."
            )
        other = taken.setdefault(short.casefold(), name)
        if other is not name:
            raise DatasetError(
                f"The cases {other!a} and {name!a} would both be named {short}. "
                "Expected distinct names of letters, digits, '.', '_' and '-', of which capital "
                "and small letters do not make two. Rename one."
            )
        safe[name] = short
    return safe

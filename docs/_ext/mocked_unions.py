"""Let ``Tensor | None`` be read where ``Tensor`` is one of ``autodoc_mock_imports``.

Sphinx has no setting for it: its mocks know no ``|``, which is its open issue 11211
(https://github.com/sphinx-doc/sphinx/issues/11211). Their class is private, so only this file
reaches for it; once the issue is closed, the file and its line in conf.py can go.
"""

from typing import Union

from sphinx.application import Sphinx
from sphinx.ext.autodoc.mock import _MockObject


def setup(app: Sphinx) -> dict[str, bool]:
    """Teach the mocks ``|`` on both sides."""
    _MockObject.__or__ = lambda self, other: Union[self, other]  # noqa: UP007
    _MockObject.__ror__ = lambda self, other: Union[other, self]  # noqa: UP007
    return {"parallel_read_safe": True}

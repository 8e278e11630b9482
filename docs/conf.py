"""How the site is built from these pages: `make docs`, warnings as errors, no network."""

import re
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent / "_ext"), str(Path(__file__).parents[1] / "src")]

from sphinx.application import Sphinx  # noqa: E402

from veloxseg import __version__  # noqa: E402  (found by the lines above)

project = "VeloxSeg"
author = "the VeloxSeg contributors"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "command_line",
    "json_fields",
    "mocked_unions",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_ext", "_static"]
nitpicky = True
highlight_language = "none"  # indented blocks are shell and output by turns

myst_heading_anchors = 4

# Nothing heavy is installed to build pages: a plain install is enough.
autodoc_mock_imports = [
    "SimpleITK",
    "batchgenerators",
    "batchgeneratorsv2",
    "dynamic_network_architectures",
    "matplotlib",
    "nnunetv2",
    "onnx",
    "onnxruntime",
    "openvino",
    "pydicom",
    "safetensors",
    "scipy",
    "torch",
]
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "model_config"}
python_display_short_literal_types = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
napoleon_use_ivar = True  # a class says what its attributes are; autodoc does not say it twice

# Other packages' types are named, not linked: their inventories would need a network.
nitpick_ignore_regex = [
    ("py:.*", r"(?!veloxseg\.).*"),
    ("py:.*", r"veloxseg\.(bundle\.container|evaluation)\..*"),  # parts of what is described
]

html_theme = "furo"
html_title = f"VeloxSeg {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = html_show_sphinx = False
html_copy_source = False


def setup(app: Sphinx) -> None:
    """Let docstrings be written as they are."""
    app.connect("autodoc-process-docstring", _adapt, priority=400)  # before napoleon


def _adapt(*event: Any) -> None:
    """``(B, C, *patch_size)`` begins no emphasis, and ``Returns`` names no type: it has a colon."""
    lines: list[str] = event[-1]
    returns = False
    for number, line in enumerate(lines):
        if not line.startswith(" "):
            returns = line == "Returns:" or (returns and not line)
        elif returns:
            line = line.replace(": ", " \u2013 ")
        lines[number] = re.sub(r"(?<=, )\*(?=\w)", r"\\*", line)

"""The site: `sphinx-build -W -b html docs build/site`; needs what the extra `docs` installs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from docutils import nodes  # noqa: E402
from sphinx.transforms import SphinxTransform  # noqa: E402

import daemon_context  # noqa: E402

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "daemon_context"
version = release = daemon_context.__version__
copyright = "the authors of daemon_context; MIT"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
nitpicky = False
default_role = "literal"  # in docstrings `name` is code
html_theme = "furo"
html_title = "daemon_context"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"source_edit_link": "", "top_of_page_buttons": []}
pygments_style = "friendly"
pygments_dark_style = "monokai"
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
maximum_signature_line_length = 88
LIGHT, DARK = "-light.svg", "-dark.svg"


class BothColours(SphinxTransform):
    """A page names the light picture, as plain Markdown; the dark one beside it is added."""

    default_priority = 400  # before the images are collected

    def apply(self, **kwargs: object) -> None:
        """Give each light picture its dark twin; the theme shows one of them."""
        for light in list(self.document.findall(nodes.image)):
            if light["uri"].endswith(LIGHT):
                dark = light.deepcopy()
                dark["uri"] = light["uri"].removesuffix(LIGHT) + DARK
                light["classes"].append("only-light")
                dark["classes"].append("only-dark")
                light.parent.insert(light.parent.index(light) + 1, dark)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_transform(BothColours)

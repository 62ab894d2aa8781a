"""How the documentation becomes a site and a manual page: `make docs`."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from commands_reference import commands_reference  # noqa: E402

from finetune.version import VERSION  # noqa: E402

project = "finetune"
author = "the authors of finetune"
project_copyright = author
version = release = VERSION

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4
autodoc_typehints = "description"
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"finetune {VERSION}"
html_extra_path = ["report-clothes.html"]
html_show_sphinx = False
smartquotes = False  # `--resume` is an option, not a dash
man_pages = [("commands", "finetune", "transfer learning on images from one YAML file", author, 1)]


def fill_commands(app, page, source):
    """Put what the program says of its commands into their page."""
    if page == "commands":
        source[0] = source[0].replace("<!-- commands -->", commands_reference())


def setup(app):
    """Tell Sphinx what is ours."""
    app.connect("source-read", fill_commands)

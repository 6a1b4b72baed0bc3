"""Sphinx configuration. `make docs` builds the pages into docs/_build."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "scripts")]

from generate import write_reference  # noqa: E402

import seqlab  # noqa: E402

project = "seqlab"
author = copyright = "The seqlab developers"
version = release = seqlab.__version__

extensions = ["myst_nb"]
nb_execution_mode = "off"
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
exclude_patterns = ["_build", "reference/README.md"]

html_theme = "furo"
html_title = f"seqlab {version}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
pygments_style, pygments_dark_style = "a11y-light", "a11y-dark"

write_reference(HERE / "reference")

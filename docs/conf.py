"""How the documentation is built: ``python -m sphinx -W docs DEST``, with the extra ``docs``."""

import re

import dmstore

project = "dmstore"
author = "the authors of dmstore"
version = release = dmstore.__version__
copyright = author

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_click",
]
exclude_patterns = ["_build"]
templates_path = []

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Executed when the page is built; an error in a cell fails the build.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 300

napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# Links to files of the repository that are no pages; tests/house/test_docs.py looks whether they are there.
suppress_warnings = ["config.cache", "myst.xref_missing"]

# Options in texts begin with two signs, which typography would make one.
smartquotes = False

html_theme = "pydata_sphinx_theme"
html_title = f"dmstore {version}"
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": True,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_show_sourcelink = False


def _plain(app, context, lines):
    """Help texts are no reStructuredText: signs stand for themselves, and what is laid out by hand stays so."""
    done, by_hand = [], False
    for line in lines:
        text = line.removeprefix("| ")
        if text == line:
            by_hand = False
            own = line.lstrip().startswith((".. ", ":"))
            done.append(line if own else re.sub(r"([*_|`\\])", r"\\\1", line))
            continue
        if not by_hand:
            done += [".. code-block:: text", ""]
            by_hand = True
        done.append(f"   {text}")
    lines[:] = done


def setup(app):
    """Hooks of the build."""
    for part in ("description", "options", "arguments", "epilog"):
        app.connect(f"sphinx-click-process-{part}", _plain)

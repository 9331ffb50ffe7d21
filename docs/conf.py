"""The site's settings, for Sphinx; ``docs/build.py`` puts its pages together."""

from pimsim import __version__

project = "pimsim"
author = "The pimsim maintainers"
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["conf.py", "build.py", "generate.py", "contents.txt"]
html_theme = "furo"
html_title = f"pimsim {__version__}"
html_copy_source = False
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# notebooks are shown as they were committed; CI runs them
nb_execution_mode = "off"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
suppress_warnings = ["myst.header", "misc.highlighting_failure"]

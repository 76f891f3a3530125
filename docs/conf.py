"""Sphinx configuration."""

import importlib.metadata

project = "flamespawn"
author = "The flamespawn developers"
release = importlib.metadata.version(project)
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
autodoc_typehints = "signature"
nitpick_ignore_regex = [("py:.*", r".*")]
exclude_patterns = ["_build"]

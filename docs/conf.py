"""How Sphinx builds the documentation site: ``python -m sphinx -W -n -b html docs OUT``.

Nothing is fetched: no intersphinx, no fonts, no scripts of others. Types of other packages therefore have no link.
"""

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from cloakbench_site.python_pages import MODULES

project = "CloakBench"
author = "the CloakBench authors"
copyright = "the CloakBench authors, Apache-2.0"  # noqa: A001  (Sphinx's name)
release = metadata.version("cloakbench")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinxcontrib.autodoc_pydantic",
    "cloakbench_site",
]
exclude_patterns: list[str] = []

myst_heading_anchors = 4
highlight_language = "none"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True
autodoc_pydantic_model_show_config_summary = False
autodoc_pydantic_model_show_field_summary = False
autodoc_pydantic_model_show_json = False
autodoc_pydantic_model_show_validator_members = False
autodoc_pydantic_model_show_validator_summary = False
autodoc_pydantic_field_list_validators = False
python_use_unqualified_type_names = True
# Only types of the documented modules have a place to link to, and of these neither private ones nor type variables.
nitpick_ignore_regex = [
    ("py:.*", rf"(?!({'|'.join(sorted(MODULES.keys() - {'bench'}))})\.[A-Za-z_.]+$).*"),
    ("py:.*", r".*\.(_\w+|[A-Z]\w?_co)"),
]

html_theme = "furo"
html_title = "CloakBench"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

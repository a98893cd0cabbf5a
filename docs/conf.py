"""Sphinx configuration; `make docs` builds with warnings as errors."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import re
import shutil
import tempfile
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from sphinx.application import Sphinx

project = "sccello-tools"
author = "The sccello-tools developers"
copyright = "2026, the sccello-tools developers"
release = version = installed_version("sccello-tools")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]

smartquotes_action = "De"  # dashes and dots; curly quotes would spoil adata.obs["..."]
exclude_patterns = ["_build", "_templates", "**.ipynb_checkpoints"]
templates_path = ["_templates"]
root_doc = "index"

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Tutorials are committed without outputs and run here, once; one that fails breaks the build. They run again when they or the
# package have changed. SCCELLO_DOCS_EXECUTE=off leaves them out, for work on the words.
_source = hashlib.sha256()
for _path in sorted((Path(__file__).parents[1] / "src").rglob("*.py")):
    _source.update(_path.read_bytes())
nb_execution_mode = os.environ.get("SCCELLO_DOCS_EXECUTE", "cache")
nb_execution_cache_path = str(
    Path(__file__).parent / "_build" / "executed" / _source.hexdigest()[:12]
)
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 180  # seconds a cell
nb_merge_streams = True
# tqdm asks for widgets that the pages would not show; lightning uses what torch has renamed
os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found,ignore:`isinstance(treespec")

# The API pages list what each public module names in its __all__, wherever it is written.
autosummary_generate = True
autosummary_ignore_module_all = False
autosummary_imported_members = True
autodoc_member_order = "bysource"
autodoc_typehints = (
    "description"  # types stand in signatures only; this puts them beside the parameters
)
autodoc_typehints_description_target = "documented"

napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_rtype = False

# A build without network leaves out the links into other projects' documentation.
if os.environ.get("SCCELLO_DOCS_INTERSPHINX") == "1":
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
        "scipy": ("https://docs.scipy.org/doc/scipy/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }

html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_theme = "sphinx_book_theme"
html_title = "sccello-tools"
html_theme_options = {"show_navbar_depth": 1, "home_page_in_toc": False, "navbar_persistent": []}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def plain_text(*event: Any) -> None:
    """Keep napoleon from two readings that are not meant."""
    what: str = event[1]
    lines: list[str] = event[-1]
    # Returns sections list written slots as `adata.obs["..."]`; napoleon makes such names bold by itself.
    lines[:] = [re.sub(r"^`([^`]+)`( : |$)", r"\1\2", line) for line in lines]
    # What stands before the first colon of an attribute's text is taken for its type: give it an empty one.
    if what in {"attribute", "data", "property"} and lines:
        lines[0] = f": {lines[0]}"


def quiet_kernels() -> str:
    """Return a profile folder, removed at exit, for kernels that log errors only: they warn that they are reached by TCP, which stays on this machine."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    profile = Path(folder) / "profile_default"
    profile.mkdir()
    (profile / "ipython_kernel_config.py").write_text('c.IPKernelApp.log_level = "ERROR"\n')
    return folder


def run_tutorials(app: Sphinx) -> None:
    """Run side by side the tutorials that have yet to run; the pages then find them done. Failures are left to the pages to report."""
    from jupyter_cache import get_cache
    from jupyter_cache.executors import load_executor

    if app.config.nb_execution_mode != "cache":
        return
    os.environ["IPYTHONDIR"] = quiet_kernels()
    quiet = logging.getLogger("tutorials")
    quiet.setLevel(logging.CRITICAL)
    cache = get_cache(app.config.nb_execution_cache_path)
    paths = sorted(map(str, (Path(app.srcdir) / "tutorials").glob("*.ipynb")))
    for path in paths:
        cache.add_nb_to_project(path)
    load_executor("temp-parallel", cache, logger=quiet).run_and_cache(
        filter_uris=paths, timeout=nb_execution_timeout
    )


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", run_tutorials)
    app.connect("autodoc-process-docstring", plain_text, priority=400)  # napoleon listens at 500

"""The documentation site. `make docs` builds it from this folder, offline, and a warning is an error.

The pages are plain Markdown and read well in the repository, too: links lead to files there. What belongs to the repository as a whole (ARCHITECTURE.md, CHANGELOG.md, the
page about the benchmarks) has a page here that is filled from it when the site is built, so that nothing is told twice.
"""
from __future__ import annotations

import dataclasses
import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent

project = "Overspill"
release = version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
copyright = "Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton", "sphinx_click"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
default_role = "code"  # the docstrings are Markdown-like: `name` is a name
smartquotes = False  # a dash or a quote of a command or a name stays what it is

html_theme = "furo"
html_title = "Overspill"
html_static_path = ["_static"]
html_css_files = ["overspill.css"]
html_theme_options = {"source_repository": "", "top_of_page_buttons": []}
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True
html_show_sphinx = False
pygments_style = "a11y-light"
pygments_dark_style = "a11y-dark"

FILLED_FROM = {"architecture": "ARCHITECTURE.md", "changes": "CHANGELOG.md", "benchmarks": "benchmarks/README.md", "measured": "benchmarks/results/latest.md"}
"""Pages that are files of the repository."""

_PAGES = {source: f"/{page}.md" for page, source in FILLED_FROM.items()} | {"README.md": "/index.md"}
_LINK = re.compile(r"(?<!!)\[([^\]\n]*)\]\(([^)\s]+)\)")


def _fill(app: Any, docname: str, source: list[str]) -> None:
    """Fill a page from the repository, and have links to files outside this folder lead to their pages, or to nothing."""
    at = HERE
    if docname in FILLED_FROM:
        at = (ROOT / FILLED_FROM[docname]).parent
        source[0] = (ROOT / FILLED_FROM[docname]).read_text(encoding="utf-8")
        source[0] = re.sub(r"!\[([^\]]*)\]\((?!https?:)([^)]+)\)", lambda image: f"![{image[1]}](/{_up(at)}{image[2]})", source[0])
    else:
        at = (HERE / docname).parent

    def lead(link: re.Match[str]) -> str:
        text, target = link[1], link[2]
        if target.startswith(("http", "#", "mailto:")):
            return link[0]
        path, _, anchor = target.partition("#")
        file = (at / path).resolve()
        anchor = f"#{anchor}" if anchor else ""
        if file.is_dir():
            file = file / "README.md"
        if file.is_relative_to(HERE) and file.suffix == ".md":
            return f"[{text}](/{file.relative_to(HERE)}{anchor})"
        page = _PAGES.get(str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else "")
        return f"[{text}]({page}{anchor})" if page else text

    source[0] = _LINK.sub(lead, source[0])
    if docname == "decisions/README":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n*\n```\n"


def _up(at: Path) -> str:
    return "../" + (f"{at.relative_to(ROOT)}/" if at != ROOT else "")


def _as_markup(app: Any, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Docstrings say ``name`` or `name` for a name; a paragraph that ends in two colons is followed by an example."""
    if lines and re.fullmatch(r"[\w.]+\(.*\)(?: -> .*)?", lines[0]):
        del lines[0]  # the signature that Cython writes there, left behind where a method has two names
    for i, line in enumerate(lines):
        lines[i] = re.sub(r"(?<!`)`([^`\n]+)`(?!`)", r"``\1``", line)


def _table_of_options(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """The fields of `Options` with what stands behind each in the source: its unit and its range."""
    if name != "overspill.options.Options":
        return
    rows = re.findall(r"^    (\w+): ([^=\n]+) = (.+?)  # (.+)$", inspect.getsource(obj), re.MULTILINE)
    rows += [(field, kind, value, "") for field, kind, value in re.findall(r"^    (\w+): ([^=\n]+) = ([^#\n]+)$", inspect.getsource(obj), re.MULTILINE)]
    order = {field.name: i for i, field in enumerate(dataclasses.fields(obj))}
    lines += ["", ".. list-table::", "   :header-rows: 1", "   :widths: 22 24 22 32", "", "   * - option", "     - type", "     - default", "     - may be"]
    for field, kind, value, note in sorted((row for row in rows if row[0] in order), key=lambda row: order[row[0]]):
        lines += [f"   * - ``{field}``", f"     - ``{kind}``", f"     - ``{value.strip().replace('_ITEM_SIZE_ASSUMED', '64 * MiB')}``", f"     - {note}"]
    lines.append("")


def _without_its_table(app: Any, what: str, name: str, obj: object, options: Any, signature: str | None, result: str | None) -> tuple[str, None] | None:
    """Two dozen keyword arguments are read in the table of them, not in a signature of ten lines."""
    return ("(*, ...)", None) if name == "overspill.options.Options" else None


def _public_bases(app: Any, name: str, obj: type, options: Any, bases: list[type]) -> None:
    bases[:] = [base for base in bases if not base.__name__.startswith("_")] or [public for base in bases for public in base.__bases__]


def _example_as_it_is_typed(app: Any, ctx: Any, lines: list[str]) -> None:
    """The example that ends the help of a command, as a block that can be copied."""
    said = [line.removeprefix("| ").strip() for line in lines]
    if "Example:" in said:
        example = [line for line in said[said.index("Example:") + 1 :] if line]
        lines[:] = ["Example:", "", ".. code-block:: sh", "", *(f"   {line}" for line in example), ""]


def setup(app: Any) -> None:
    app.connect("autodoc-process-signature", _without_its_table)
    app.connect("autodoc-process-bases", _public_bases)
    app.connect("sphinx-click-process-epilog", _example_as_it_is_typed)
    app.connect("source-read", _fill)
    app.connect("autodoc-process-docstring", _as_markup)
    app.connect("autodoc-process-docstring", _table_of_options)

"""Pages of the site that lie elsewhere in the repository, and links that leave `docs/`.

`examples/README.md` and every `examples/*/README.md` become pages of the section "Examples", whose
entry in `nav` is empty. Links are written as they work in the repository; here they are turned
to the pages that the site has. A link to a file that is no page (a program, a folder) stays as
its text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks/RESULTS.md": "results.md",
    "benchmarks/TENSORRT_PLACEMENT.md": "tensorrt-placement.md",
    "README.md": "index.md",
    "examples/README.md": "examples/index.md",
}
_LINK = re.compile(r"(?P<text>!?\[[^\]\[]*\])\((?P<target>[^)\s]+)\)")
_FENCE = re.compile(r"^(```.*?^```[ \t]*)$", re.MULTILINE | re.DOTALL)


def mounted() -> dict[str, str]:
    """Path in the repository -> path in the site, of all pages that lie outside `docs/`."""
    readmes = sorted(path.relative_to(ROOT) for path in ROOT.glob("examples/*/README.md"))
    examples = {
        path.as_posix(): f"examples/{path.parent.name.replace('_', '-')}.md" for path in readmes
    }
    return PAGES | examples


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lists the examples in the navigation."""
    examples = [page for path, page in mounted().items() if path.startswith("examples/")]
    for section in config.nav or []:
        if isinstance(section, dict) and "Examples" in section:
            section["Examples"] = examples
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages; `README.md` is the front page's own affair."""
    for path, page in mounted().items():
        if path != "README.md":
            files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Turns links to files of the repository to pages of the site."""
    places = {site: path for path, site in mounted().items() if path != "README.md"}
    here = places.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    parts = _FENCE.split(markdown)
    parts[::2] = [
        _LINK.sub(lambda m: _turned(m, here, page.file.src_uri), part) for part in parts[::2]
    ]
    return "".join(parts)


def _turned(link: re.Match[str], here: str, page: str) -> str:
    """The link as it has to be on the page, which is `here` in the repository."""
    target, _, anchor = link["target"].partition("#")
    if not target or re.match(r"[a-z]+:", target):
        return link[0]
    path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
    pages = mounted()
    if path in pages:
        place = pages[path]
    elif path.startswith("docs/"):
        place = path.removeprefix("docs/")
    elif (ROOT / path).exists():
        return link["text"].strip("![]")
    else:
        return link[0]  # broken in the repository too, and mkdocs says so
    relative = posixpath.relpath(place, posixpath.dirname(page) or ".")
    return f"{link['text']}({relative}{'#' + anchor if anchor else ''})"

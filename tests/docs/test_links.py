"""Links of pages as they are read in the repository; those of the site are mkdocs' affair."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from snippet_blocks import ROOT, pages

_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (?P<title>.*)$", re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """Of the headings, as they are made from their words in the repository and in the site."""
    titles = [m["title"].lower() for m in _HEADING.finditer(path.read_text(encoding="utf-8"))]
    plain = [re.sub(r"[^\w\s-]", "", title).strip() for title in titles]
    return {title.replace(" ", "-") for title in plain} & {
        re.sub(r"[-\s]+", "-", title) for title in plain
    }


@pytest.mark.parametrize("page", [*pages(), "CHANGELOG.md"])
def test_links_lead_to_files_and_headings(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in _LINK.finditer(re.sub(r"^```.*?^```$|`[^`\n]+`", "", text, flags=re.M | re.S)):
        target, _, anchor = link["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        assert path.exists(), f"{page}: {link['target']}"
        if anchor:
            assert anchor in anchors(path), f"{page}: {link['target']}"

"""Parts of the reference that are made from the program itself when the site is built.

A page asks for one by a comment, `<!-- made: commands -->`; `made_parts.py` has what there is.
"""

from __future__ import annotations

import re
from typing import Any

from made_parts import PARTS

_MARK = re.compile(r"<!-- made: (?P<part>[a-z-]+) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts each part in the place of its comment; one that nobody makes is a KeyError."""
    return _MARK.sub(lambda mark: PARTS[mark["part"]](), markdown)

"""Writes the picture of all candidates of a bundle's report: draw.py BUNDLE FILE.svg."""

from __future__ import annotations

import sys
from pathlib import Path

from edgebm.report.figures import candidates_svg
from edgebm.report.read import read_report

if __name__ == "__main__":
    bundle, picture = map(Path, sys.argv[1:])
    picture.write_text(candidates_svg(read_report(bundle)) + "\n", "utf-8")

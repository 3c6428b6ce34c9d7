"""Writes the ranking of the layers of an analysis: draw_ranking.py ANALYSIS.json FILE.svg.

ANALYSIS.json is what `edgebm analyze --json` prints.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edgebm.report.blame_figures import ranking_svg

if __name__ == "__main__":
    found, picture = map(Path, sys.argv[1:])
    analysis = json.loads(found.read_text("utf-8"))["analysis"]
    picture.write_text(ranking_svg(analysis) + "\n", "utf-8")

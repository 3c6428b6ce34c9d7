"""From `report.json` to tables and a page."""

from __future__ import annotations

import logging

# matplotlib complains on stderr about a home folder that cannot be written; no picture needs it.
logging.getLogger("matplotlib").setLevel(logging.ERROR)

"""`python -m edgebm` is the `edgebm` command."""

from __future__ import annotations

import sys

from edgebm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

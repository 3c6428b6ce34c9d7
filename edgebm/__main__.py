"""The `edgebm` command, also as `python -m edgebm`: small, as Ctrl-C may come this early too."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs the command line and returns its exit code."""
    try:
        from edgebm.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""`python -m sandreel_core.cli`: the same as `sandreel`."""

from __future__ import annotations

import sys

from sandreel_core.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())

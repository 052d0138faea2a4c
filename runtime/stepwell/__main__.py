"""``python -m stepwell`` is the command ``stepwell``."""

from __future__ import annotations

from stepwell.cli.main import main

main()

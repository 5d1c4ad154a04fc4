"""``python -m online_migrate.cli``."""

from __future__ import annotations

from online_migrate.cli import main

main()

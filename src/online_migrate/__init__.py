"""Zero-downtime PostgreSQL migrations under live traffic: staged, throttled, watched and resumable."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"

"""Figures as people read them: seconds, bytes, counts, shares, percentiles; each has one text in the whole
program.

What a plan's own text looks like (``500ms``, ``64MiB``) is :mod:`online_migrate.plan.units`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest of ``values`` that ``share`` (0…1) of them do not exceed (nearest rank); None if there are
    none.
    """
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else None


def seconds_text(seconds: float | None) -> str:
    """A measured time: ``45 ms``, ``3.2 s``, ``2 min 05 s``, ``3 h 07 min``; ``n/a`` if it is unknown."""
    if seconds is None:
        return "n/a"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02} h"


def short_seconds_text(seconds: float) -> str:
    """A time in one unit, for limits and what is compared with them: ``250 ms``, ``90 s``, ``10 min``, ``2.5
    h``.
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h"


def bytes_text(number: float) -> str:
    """``67108864`` → ``64 MiB``: the units that a plan is written in."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} TiB"


def count_text(count: float | None) -> str:
    """A count with separators between thousands: ``96,000``; ``?`` if it is unknown."""
    return "?" if count is None else f"{count:,.0f}"


def short_count_text(count: float | None) -> str:
    """A count in at most five characters: ``950``, ``96k``, ``1.2M``; ``?`` if it is unknown."""
    if count is None:
        return "?"
    for limit, divisor, unit in ((9_950, 1, ""), (999_500, 1e3, "k"), (999_500_000, 1e6, "M")):
        if count < limit:
            figure = count / divisor
            return f"{figure:.1f}{unit}" if unit and figure < 9.95 else f"{figure:.0f}{unit}"
    return f"{count / 1e9:.1f}G"


def share_text(share: float | None) -> str:
    """A share as a whole percentage, rounded down so that 100 % means all: ``45 %``;
    empty if it is unknown.
    """
    return "" if share is None else f"{int(share * 100)} %"

"""Durations, sizes and shares as plans spell them: ``500ms``, ``30min``, ``64MiB``, ``80%``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = {
    "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40,
}  # fmt: skip
_NUMBER: Final = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,15})?)\s*([A-Za-z%]*)\s*")

MOST_WORKERS: Final = 8
"""at the same time: each needs its own session and a busy backend of the server"""
LONGEST: Final = 24 * 86_400.0
"""seconds; PostgreSQL's timeouts are milliseconds in an int4, 24.8 days"""


def read_seconds(text: object) -> float:
    """``500ms`` → 0.5; raises ValueError."""
    return _between(_read(text, _SECONDS, "500ms"), 1e-6, LONGEST, "1us to 24d")


def read_bytes(text: object) -> int:
    """``64MiB`` → 67108864; raises ValueError."""
    return int(_between(_read(text, _BYTES, "64MiB"), 1, 2.0**60, "1B to 1048576TiB"))


def read_share(text: object) -> float:
    """``80%`` → 0.8; raises ValueError."""
    return _between(_read(text, {"%": 0.01}, "80%"), 1e-6, 1.0, "0.0001% to 100%")


def read_duty(text: object) -> float:
    """``150%`` → 1.5; raises ValueError."""
    return _between(
        _read(text, {"%": 0.01}, "50%"), 1e-6, float(MOST_WORKERS), f"0.0001% to {MOST_WORKERS}00%"
    )


def write_seconds(seconds: float) -> str:
    """0.5 → ``500ms``: in the largest unit that leaves a whole number."""
    return _write(seconds, _SECONDS, tolerance=1e-12)


def write_bytes(size: int) -> str:
    """67108864 → ``64MiB``."""
    return _write(size, _BYTES, tolerance=0)


def write_share(share: float) -> str:
    """0.8 → ``80%``."""
    return f"{share * 100:.12g}%"


def _read(text: object, units: Mapping[str, float], example: str) -> float:
    match = _NUMBER.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[2] not in units:
        raise ValueError(f"expected the form {example}; units: {', '.join(units)}")
    return float(match[1]) * units[match[2]]


def _between(value: float, least: float, most: float, words: str) -> float:
    if not least * (1 - 1e-9) <= value <= most * (1 + 1e-9):
        raise ValueError(f"must be from {words}")
    return min(value, most)


def _write(value: float, units: Mapping[str, float], tolerance: float) -> str:
    by_size = sorted(units.items(), key=lambda unit: -unit[1])
    for unit, factor in by_size:
        number = value / factor
        if number >= 1 and abs(number - round(number)) <= tolerance * number:
            return f"{round(number)}{unit}"
    unit, factor = by_size[-1]
    return f"{value / factor:.12f}".rstrip("0").rstrip(".") + unit


def _schema(units: str, example: str) -> WithJsonSchema:
    pattern = rf"^\s*[0-9]+(\.[0-9]+)?\s*({units})\s*$"
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]})


Duration = Annotated[
    float,
    BeforeValidator(read_seconds),
    PlainSerializer(write_seconds, return_type=str, when_used="json"),
    _schema("|".join(_SECONDS), "500ms"),
]
"""Seconds."""
Size = Annotated[
    int,
    BeforeValidator(read_bytes),
    PlainSerializer(write_bytes, return_type=str, when_used="json"),
    _schema("|".join(_BYTES), "64MiB"),
]
"""Bytes."""
Share = Annotated[
    float,
    BeforeValidator(read_share),
    PlainSerializer(write_share, return_type=str, when_used="json"),
    _schema("%", "50%"),
]
"""A part of a whole, 0…1."""
Duty = Annotated[
    float,
    BeforeValidator(read_duty),
    PlainSerializer(write_share, return_type=str, when_used="json"),
    _schema("%", "50%"),
]
"""How many of the runner's sessions are busy on average: 1.5 is one always and a
second one half of the time."""

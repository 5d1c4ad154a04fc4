"""Durations, sizes and shares as plans spell them: ``500ms``, ``30min``, ``64MiB``, ``80%``."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z%]*)\s*")


def _read(value: object, units: dict[str, float] | dict[str, int], example: str) -> float:
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in units:
        msg = f"{value!r} is not of the form {example}; units: {', '.join(units)}"
        raise ValueError(msg)
    return float(match[1]) * units[match[2]]


def _seconds(value: object) -> float:
    return _read(value, _SECONDS, "500ms")


def _bytes(value: object) -> int:
    return int(_read(value, _BYTES, "64MiB"))


def _share(value: object) -> float:
    return _read(value, {"%": 0.01}, "80%")


def _schema(pattern: str, example: str) -> dict[str, object]:
    return {"type": "string", "pattern": pattern, "examples": [example]}


Duration = Annotated[
    float, BeforeValidator(_seconds), Field(gt=0, json_schema_extra=_schema(r"^\d+(\.\d+)?\s*(us|ms|s|min|h|d)$", "500ms"))
]
"""Seconds."""
Size = Annotated[
    int, BeforeValidator(_bytes), Field(gt=0, json_schema_extra=_schema(r"^\d+(\.\d+)?\s*(B|kB|MB|GB|KiB|MiB|GiB|TiB)$", "64MiB"))
]
"""Bytes."""
Share = Annotated[float, BeforeValidator(_share), Field(gt=0, le=1, json_schema_extra=_schema(r"^\d+(\.\d+)?\s*%$", "50%"))]
"""A part of a whole, 0…1."""

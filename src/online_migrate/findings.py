"""A finding of a check: a severity, a fact, and the remedy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    STOP = "stop"
    """nothing is run until it is fixed"""
    WARN = "warn"
    ASK = "ask"
    """a question that only the operator can answer"""
    INFO = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A fact that a check found, where, and what to do about it."""

    severity: Severity
    code: str
    """a short stable name: ``column_type``"""
    fact: str
    remedy: str = ""
    step: str = ""
    table: str = ""
    manual: str = ""
    """the page of the PostgreSQL manual"""

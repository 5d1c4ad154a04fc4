"""Names within PostgreSQL's limit: it cuts longer ones silently, so that two may become one.

Source: PostgreSQL manual, 4.1.1 "Identifiers and Key Words".
"""

from __future__ import annotations

import hashlib
from typing import Final

NAME_BYTES: Final = 63
"""the longest name: NAMEDATALEN - 1 of a server as it is usually built"""


def fits(name: str) -> bool:
    """Would PostgreSQL keep the whole name?"""
    return len(name.encode()) <= NAME_BYTES


def short_name(text: str, *, prefix: str = "", suffix: str = "") -> str:
    """``prefix``, ``text`` and ``suffix`` within the limit; where that cuts ``text``, its hash follows."""
    whole = f"{prefix}{text}{suffix}"
    if fits(whole):
        return whole
    digest = "_" + hashlib.sha256(text.encode()).hexdigest()[:8]
    room = NAME_BYTES - len(f"{prefix}{digest}{suffix}".encode())
    return f"{prefix}{text.encode()[:room].decode(errors='ignore')}{digest}{suffix}"

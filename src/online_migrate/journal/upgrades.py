"""Steps from one version of the journal to the next; a new journal is version 1 with all steps applied.

Each step only adds: a runner of the older program that still works is not disturbed, and none of it rewrites
a table.
"""

from __future__ import annotations

from typing import Final

_APPROVALS: Final = """
ALTER TABLE online_migrate.approval
    ADD COLUMN account     text NOT NULL DEFAULT '',
    ADD COLUMN expires_at  timestamptz,
    ADD COLUMN revoked_at  timestamptz,
    ADD COLUMN revoked_by  text NOT NULL DEFAULT '',
    ADD COLUMN revoke_note text NOT NULL DEFAULT ''"""

_REQUESTS: Final = """
ALTER TABLE online_migrate.request ADD COLUMN about text NOT NULL DEFAULT ''"""

STEPS: Final[tuple[str, ...]] = (_APPROVALS, _REQUESTS)
"""the first makes version 2 of version 1"""

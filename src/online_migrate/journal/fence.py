"""The fence: the proof, within each transaction that writes, that no other runner has taken over."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """Who we are: unless this epoch and this holder are in force, nothing of ours may be written."""

    epoch: int
    holder: str

    @property
    def sql(self) -> sql.Composed:
        """The statement that fails with SQLSTATE OM006 if another runner has taken over."""
        return sql.SQL("SELECT online_migrate.fence({}, {}::uuid)").format(
            sql.Literal(self.epoch), sql.Literal(self.holder)
        )

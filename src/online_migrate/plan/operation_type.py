"""What the loader of a plan needs to know of an operation."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pydantic import BaseModel

from online_migrate.plan.model import Phase


class OperationType(Protocol):
    """What the loader needs to know of an operation; ``operations`` provides it."""

    @property
    def name(self) -> str: ...

    @property
    def phase(self) -> Phase: ...

    @property
    def summary(self) -> str:
        """One line for people; the JSON Schema's description."""

    @property
    def shorthand(self) -> str | None:
        """The parameter that a plain text sets: ``create_tables: multi_tenant.sql``."""

    @property
    def takes_each_partition(self) -> bool:
        """Of a partitioned table there is a step for each partition with rows."""

    @property
    def Params(self) -> type[BaseModel]: ...  # noqa: N802  # a class

    def title(self, params: BaseModel) -> str:
        """The step's name within its stage."""

    def load(self, params: BaseModel, folder: Path) -> BaseModel:
        """Read the files that the parameters name, relative to the plan's folder; raises ValueError with the
        reason.

        What was read becomes part of the result, for example of a subclass of Params, so that the fingerprint
        covers it.
        """

    def targets(self, params: BaseModel) -> tuple[str | None, ...] | str:
        """The tables of the step, or the name of the table set that it is over; (None,) for a step over no
        table.
        """

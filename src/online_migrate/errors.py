"""Every error that a user can meet: one tree, one exit code and one remedy each.

    OnlineMigrateError                1   unexpected
    ├── Defect                        1   the program did not expect it: a traceback is written to a file
    ├── UndeclaredLock                1   a statement took a stronger lock than its operation declares; rolled
    back
    ├── UsageError                    2   the command line or the environment is wrong
    │   ├── PlanError                 2   the plan is wrong; says file, line, step
    │   ├── PlanChanged               2   the plan is no longer the one that the run began with
    │   └── SecretMissing             2   a secret of the plan is not set (its name, never a value)
    ├── PreflightFailed               3   findings that stop the run; nothing was run
    │   └── Conflict                  3   an object of that name exists with another definition
    ├── ServerRefused                 3   the server refused a statement; it was rolled back
    ├── LockNotAcquired               4   a lock could not be acquired within its bounds; names the blockers
    ├── VerificationFailed            5   the rows or the catalog are not what the step promises
    ├── LeaseLost                     6   another runner holds, or took over, the lease
    ├── JournalVersion                7   the journal in the database is of another version
    ├── ConnectionFailed              8   the server cannot be reached
    │   └── ServerUnavailable         8   no throwaway server could be started
    ├── ResourcesExhausted            9   the server has no disk, memory, connections or locks left
    ├── GateClosed                   75   stopped at a gate that waits for approval
    └── Interrupted                 130   stopped by a signal or a request; resumable

Turned into text in one place, ``cli``.  No error carries a secret: values of secrets are never put into a
message.
"""

from __future__ import annotations

from typing import ClassVar


class OnlineMigrateError(Exception):
    """Something the program did not expect.

    ``message`` says what was found and where; ``remedy`` says what to do next.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class Defect(OnlineMigrateError):
    """A defect of online-migrate: its traceback is written to a file, without secrets."""


class UndeclaredLock(OnlineMigrateError):
    """A statement took a lock that its operation does not declare; its window was rolled back."""

    def __init__(self, *, held: str, declared: tuple[str, ...]) -> None:
        super().__init__(
            f"a statement took a lock that its step does not declare: {held}"
            f"\n  declared: {', '.join(declared) or 'nothing'}",
            remedy="nothing was changed; please report this with both lists",
        )
        self.held = held
        self.declared = declared


class UsageError(OnlineMigrateError):
    """The command line, a file, or the environment is not usable."""

    exit_code = 2


class PlanError(UsageError):
    """The plan is wrong.  ``where`` is ``file:line:column``, as far as known."""

    def __init__(self, message: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message, remedy=remedy)
        self.where = where


class PlanErrors(PlanError):
    """All mistakes of one plan, reported together."""

    def __init__(self, errors: list[PlanError]) -> None:
        super().__init__(
            "\n".join(e.message for e in errors),
            remedy="\n".join(dict.fromkeys(e.remedy for e in errors if e.remedy)),
        )
        self.errors = errors


class PlanChanged(UsageError):
    """The plan is not the one that the run began with; ``changes`` says what differs."""

    def __init__(self, changes: tuple[str, ...], *, remedy: str) -> None:
        super().__init__(
            "the plan changed since the run began:\n" + "\n".join(f"  - {c}" for c in changes),
            remedy=remedy,
        )
        self.changes = changes


class SecretMissing(UsageError):
    """A secret that the plan names is not set."""


class PreflightFailed(OnlineMigrateError):
    """The database is not ready for the plan; nothing was run."""

    exit_code = 3


class Conflict(PreflightFailed):
    """An object of that name exists with another definition."""


class ServerRefused(OnlineMigrateError):
    """The server refused a statement; it was rolled back, and the state of the run is kept."""

    exit_code = 3


class LockNotAcquired(OnlineMigrateError):
    """A lock could not be acquired within its bounds; nothing was changed, the run can be resumed."""

    exit_code = 4

    def __init__(self, message: str, *, blockers: tuple[str, ...] = (), remedy: str = "") -> None:
        super().__init__(message + "".join(f"\n  blocked by {b}" for b in blockers), remedy=remedy)
        self.blockers = blockers


class VerificationFailed(OnlineMigrateError):
    """What the database holds is not what the step promises."""

    exit_code = 5


class LeaseLost(OnlineMigrateError):
    """Another runner holds the lease of this database, or took it over; this one writes nothing more."""

    exit_code = 6


class JournalVersion(OnlineMigrateError):
    """The journal in the database was made by another version of online-migrate."""

    exit_code = 7


class ConnectionFailed(OnlineMigrateError):
    """The database cannot be reached, or the connection was lost and not regained."""

    exit_code = 8


class ServerUnavailable(ConnectionFailed):
    """A throwaway server for the demo or the tests could not be found or started."""


class ResourcesExhausted(OnlineMigrateError):
    """The server has no disk space, memory, connections or locks left, or its
    storage or configuration fails.
    """

    exit_code = 9


class GateClosed(OnlineMigrateError):
    """The run stopped at a gate that waits for approval."""

    exit_code = 75


class Interrupted(OnlineMigrateError):
    """The run was asked to stop; its state is kept, the same command continues it."""

    exit_code = 130

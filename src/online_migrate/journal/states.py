"""The states of runs, stages and steps, and the kinds of requests, as the journal
and ``--json`` spell them.
"""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"
    """by a signal, a request, or ``--through``"""
    WAITING = "waiting"
    """at a gate"""
    FAILED = "failed"
    DONE = "done"


class StageState(StrEnum):
    PENDING = "pending"
    WAITING = "waiting"
    """at its gate"""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class StepState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class RequestKind(StrEnum):
    STOP = "stop"
    ABORT = "abort"
    PAUSE = "pause"
    RESUME = "resume"
    TUNE = "tune"
    DISMISS_STANDBY = "dismiss_standby"

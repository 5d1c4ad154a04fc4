"""The words that the project does not use, and what to write instead.

A phrase is a regular expression; a space in it stands for any white space, line breaks included.
A name is an identifier in the code.
"""

from __future__ import annotations

from typing import Final

_END: Final = (
    r"(?=[.,;:)\"'`\n]|$| (?:and|or|before|after|when|while|already|again|now|with|yet|as|too|to)\b)"
)
"""where "there" ends its clause, so that it means existence; "is there a lock?" is plain English"""

PHRASES: Final[tuple[tuple[str, str], ...]] = (
    (r"(?:not|to be|cannot be|can be|was|is|be) had\b(?! by)|\block had\b|\bhad in time",
     "acquired; could not acquire"),
    (r"had to say", "reported; found"),
    (r"told|retold", "reported, logged, shown; distinguished"),
    (r"(?:stand|stands|stood)\b(?! for\b|-|ing\b)", "is, is set, remains, holds; waits"),
    (r"standing\b(?!-)", "set, open; waiting"),
    (r"(?:gave|give|gives|given|giving) way", "timed out; released; yielded"),
    (r"let(?:s|ting)? go", "released"),
    (r"in (?:the|our|its|their|your|his|whose|each other's) way\b(?! that)", "blocking; blocked by pid …"),
    (r"behind (?:us|me)", "wait behind our lock request; are blocked by us"),
    (r"anew", "again; restarts"),
    (r"mend(?:s|ed|ing)?", "fix"),
    (r"(?:is|are|was|were|be|been|has|have|had|not|already|longer|index|table|server|session) gone",
     "does not exist; was dropped; has ended; is unreachable"),
    (rf"not there|(?:is|are|was|were|be|been) (?:still |already |no longer )?there{_END}",
     "exists; does not exist"),
    (r"(?:hang|hangs|hung|hanging|lean|leans|leant|leaned|leaning) (?:up)?on|hangs? (?:by|from)|leaners?",
     "references; depends on"),
    (r"(?:get|gets|got|getting|gotten) on\b(?! with)", "made progress"),
    (r"(?:beat|beats|beaten|beating)\b(?! of\b)", "sent a heartbeat; heartbeat"),
    (r"look(?:s|ed) at", "checked, reads"),
    (r"ways? back", "revisit interval (of a page); rollback (of a stage)"),
    (r"by hand", "manually"),
    (r"meant so", "intended"),
    (r"hinder\w*", "blocks; delays"),
    (r"dear(?:er|est)?", "expensive, most expensive"),
    (r"(?<!user\s)(?:some|no|any|every)body", ("name the role: another session, no application session,"
        " everyone")),
    (r"whoever", "name the role: the session that, the statement that"),
    (r"for good\b(?! (?:reason|measure))", "permanently"),
    (r"(?:yet|still|is|are|was|were) to come|to come(?=[.,;:)\"])", "pending"),
    (r"under ?way", "running"),
    (r"what it takes|how it goes", "Cost; How it works"),
    (r"at the (?:soonest|latest moment)", "at the earliest"),
)  # fmt: skip

NAMES: Final[dict[str, str]] = {
    "Bench": "BackfillContext",
    "Crew": "WorkerPool",
    "Executioner": "SelfKill",
    "Few": "LateRows",
    "Hand": "WorkerContext",
    "Heirs": "Descendants",
    "LockNotHad": "LockNotAcquired",
    "Patience": "LockRetry",
    "StepTaker": "StepExecutor",
    "Teller": "ProgressReporter",
    "Trap": "Finding, Hazard",
    "Wishes": "DemoOptions",
    "_GaveWay": "_LockAttemptFailed",
    "heirs": "descendants",
    "is_told": "is_reported",
    "leaners": "dependents",
    "told": "reported_at; reported",
    "traps": "hazards",
}

NAME_PARTS: Final[dict[str, str]] = {
    "anew": "again",
    "beat": "heartbeat",
    "bench": "context",
    "crew": "pool",
    "gone": "dropped; closed; lost",
    "heirs": "descendants",
    "leaners": "dependents",
    "mend": "fix",
    "patience": "retry",
    "settle": "prove; finish; apply",
    "settled": "proven; finished; applied",
    "teller": "reporter",
    "told": "reported",
    "who": "pid; role; runner; blocked_by",
}
"""parts of a name in src: ``_heirs`` and ``BEAT_EVERY_S`` too"""

"""What people and Prometheus see of a run.  Nothing below imports it.

``snapshot`` reads one frozen picture of a run from its journal.  Three products draw it and do not know each
other: ``prometheus`` (metrics), ``terminal`` (live table, log lines, status line) and ``page`` (status page,
report). They share ``words`` (events as sentences), ``web`` (an HTTP server for routes), ``session`` (one
connection), ``watch`` (reads a snapshot again and again) and ``history`` (keeps events in the journal).
"""

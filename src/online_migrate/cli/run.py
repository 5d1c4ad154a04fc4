"""online-migrate run."""

from __future__ import annotations

import os
import shlex
import shutil
import signal as os_signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType

import click

from online_migrate.cli.common import (
    CLOCK,
    connector_of,
    dsn_option,
    duration,
    echo_findings,
    limit_of,
    plan_argument,
    read_plan,
    until_options,
)
from online_migrate.cli.defect import redact_in_errors
from online_migrate.cli.output import say, say_note
from online_migrate.cli.plan_names import complete_gate, complete_stage
from online_migrate.cli.screen import Screen
from online_migrate.cli.secret_file import default_directory, write_secret_file
from online_migrate.clock import Signal
from online_migrate.engine.runner import Options, Runner, RunResult
from online_migrate.errors import Interrupted
from online_migrate.events import CheckFound, Note, SecretShown, Sink, Sinks
from online_migrate.findings import Finding, Severity
from online_migrate.journal.steering import Limits
from online_migrate.observe.history import HistorySink
from online_migrate.observe.notify import NotifySink
from online_migrate.observe.page.serve import StatusPage
from online_migrate.observe.prometheus.exposition import metrics_route
from online_migrate.observe.prometheus.readings import ServerReader
from online_migrate.observe.prometheus.sink import Budgets, MetricsSink
from online_migrate.observe.session import Session
from online_migrate.observe.terminal.lock_summary import LockSummary
from online_migrate.observe.terminal.logs import Format, LogSink
from online_migrate.observe.watch import IDLE_S, SnapshotWatch
from online_migrate.observe.web import WebServer
from online_migrate.observe.words import place_text
from online_migrate.plan.model import Plan
from online_migrate.plan.secrets import Secrets
from online_migrate.postgres.connection import Connector
from online_migrate.run import RunContext


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessOptions:
    """Options of the runner's process: they change what is shown and where, not what is run."""

    log_format: Format = "console"
    log_level: str = "info"
    metrics_address: tuple[str, int] | None = None
    metrics_names: tuple[str, ...] = ()
    """further names by which the page may be asked for"""
    on_statement: Callable[[], None] | None = None
    """called before each statement; the demo's fault injection counts statements"""
    sinks: Sequence[Sink] = ()
    secrets_dir: Path | None = None
    """where generated secrets are written; None: see
    :func:`~online_migrate.cli.secret_file.default_directory`"""
    notify: Sequence[str] = ()
    """the words of a command that is called when a person is needed"""
    notify_hold_s: float = 600.0
    limits: Limits = field(default_factory=Limits)


def _command_line(_: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...]:
    """The words of a command that exists."""
    if text is None:
        return ()
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from error
    if not words or shutil.which(words[0]) is None:
        raise click.BadParameter(f"{text!r} names no command that can be executed", param=parameter)
    return words


@click.command("run")
@plan_argument
@dsn_option
@click.option("--through", metavar="STAGE", shell_complete=complete_stage, help="Stop after this stage.")
@click.option(
    "--approve",
    metavar="STAGE",
    shell_complete=complete_gate,
    multiple=True,
    help="Approve this stage's gate; may be repeated.",
)
@click.option(
    "--accept-changed-plan", is_flag=True, help="Resume although the plan changed since the run started."
)
@until_options("Stop after the current batch or statement, with exit code 0,")
@click.option(
    "--pause-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Pause the run while this file exists; checked once a second, between batches and statements.",
)
@click.option(
    "--notify",
    metavar="COMMAND",
    callback=_command_line,
    help="Call this at a gate, a long hold, a failure, and the end: ONLINE_MIGRATE_EVENT, _PLAN, _DATABASE,"
    " _STAGE, _STEP, _TABLE and _TEXT in its environment, the same as JSON on standard input.  It is no shell"
    " line, has 30 s, and cannot stop the run.",
)
@click.option(
    "--notify-hold",
    metavar="TIME",
    callback=duration,
    default="10min",
    show_default=True,
    help="A hold is long after this.",
)
@click.option(
    "--secrets-dir",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where a generated secret is written when there is no terminal to show it on: a file of mode 0600."
    "  [default: $XDG_STATE_HOME/online-migrate, else ~/.local/state/online-migrate]",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Serve the status page and /metrics on this port; 0 takes a free one.",
)
@click.option(
    "--metrics-host", default="127.0.0.1", show_default=True, help="Address to listen on with --metrics-port."
)
@click.option(
    "--metrics-allow-host",
    metavar="NAME",
    multiple=True,
    help="Answer requests for this host name too, such as a proxy's; may be repeated.  Loopback names and the"
    " address that is listened on are always answered.",
)
@click.option(
    "--log-format",
    type=click.Choice(["console", "json"]),
    default="console",
    show_default=True,
    help="console: for people; json: one object a line, for log collectors.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="The least severe events that are logged.",
)
def run_command(
    plan: Path,
    dsn: str,
    through: str | None,
    approve: tuple[str, ...],
    accept_changed_plan: bool,
    until: float | None,
    for_s: float | None,
    pause_file: Path | None,
    notify: tuple[str, ...],
    notify_hold: float,
    secrets_dir: Path | None,
    metrics_port: int | None,
    metrics_host: str,
    metrics_allow_host: tuple[str, ...],
    log_format: Format,
    log_level: str,
) -> None:
    """Apply PLAN.  The same command resumes it after a stop, a crash or a lost connection.

    Ctrl-C once: finish the batch or statement, keep the state, exit 130.  Twice: cancel the running
    statement. Three times: end the process at once; finished work is kept.

    \b
    Example:
      online-migrate run plans/multi_tenant.yaml --through backfill --metrics-port 9187
    """
    address = None if metrics_port is None else (metrics_host, metrics_port)
    process = ProcessOptions(
        log_format=log_format,
        log_level=log_level,
        metrics_address=address,
        metrics_names=metrics_allow_host,
        secrets_dir=secrets_dir,
        notify=notify,
        notify_hold_s=notify_hold,
        limits=Limits(until=_time_of(limit_of(until, for_s)), pause_file=pause_file),
    )
    options = Options(through=through, approve=approve, accept_changed_plan=accept_changed_plan)
    ended = run_plan(read_plan(plan), dsn, options, process)
    say(f"{ended.what}\nnext: {ended.next}")


def _time_of(limit_s: float | None) -> datetime | None:
    """So many seconds from now, in the time zone of this host."""
    return None if limit_s is None else datetime.now().astimezone() + timedelta(seconds=limit_s)


def run_plan(plan: Plan, dsn: str, options: Options, process: ProcessOptions) -> RunResult:
    """Connect a runner with its log, journal, metrics and screen, and run the plan; raises what the runner
    raises.
    """
    connector = Connector(dsn=dsn, schema=plan.schema, on_statement=process.on_statement)
    signal, secrets = Signal(), Secrets(plan.secrets, os.environ)
    redact_in_errors(secrets.redact)
    with ExitStack() as stack:
        locks = LockSummary()
        screen = Screen(
            is_live=process.log_format == "console" and process.log_level == "info",
            is_json=process.log_format == "json",
        )
        stack.callback(lambda: screen.say_all(_summary(locks, process.log_format)))
        sinks = _listeners(
            plan, connector_of(plan, dsn), replace(process, sinks=(*process.sinks, locks)), screen, stack
        )
        if process.notify:
            sinks = Sinks([sinks, _notifier(plan, connector, process, secrets, sinks, stack)])

        def show_secret(name: str, value: str) -> str:
            shown = _show_secret(
                name,
                value,
                stem=f"{plan.name}.{name}",
                where=connector.where,
                directory=process.secrets_dir,
                screen=screen,
            )
            sinks.emit(SecretShown(secret=name, where=shown))
            return shown

        runner = Runner(
            context=RunContext.create(
                plan,
                connector,
                clock=CLOCK,
                signal=signal,
                sink=sinks,
                secrets=secrets,
                show_secret=show_secret,
                limits=process.limits,
            ),
            options=options,
            on_findings=lambda findings: _say_findings(findings, sinks),
        )
        stack.enter_context(_stoppable(signal, screen))
        return runner.run()


def _summary(locks: LockSummary, log_format: Format) -> list[str]:
    """The lines after a run; a log for machines has each window already, and gets no table."""
    lines = list(locks.lines())
    return lines[:1] if log_format == "json" else lines


def _listeners(
    plan: Plan, connector: Connector, process: ProcessOptions, screen: Screen, stack: ExitStack
) -> Sinks:
    """Log, journal's history, metrics and, on a terminal, the live table; they share one database session."""
    sinks: list[Sink] = [*process.sinks]
    session = Session(connector)
    watch = SnapshotWatch(session, plan.name, every_s=IDLE_S)
    if process.metrics_address is not None:  # first, so that its wait for a last scrape comes last
        sinks.append(_serve_metrics(plan, process.metrics_address, watch, stack, process.metrics_names))
    stack.callback(session.close)
    history = HistorySink(session)
    stack.callback(history.close)
    sinks.append(history)
    stack.callback(screen.close)
    if screen.view is not None:
        watch.listeners.append(screen.view.update)
        watch.every_s = 1.0
        sinks.append(
            LogSink(plan=plan.name, fmt="console", stream=screen.view.stream, level="warning", colour=True)
        )
    else:
        sinks.append(
            LogSink(
                plan=plan.name,
                fmt=process.log_format,
                stream=sys.stderr,
                level=process.log_level,
                colour=sys.stderr.isatty(),
            )
        )
    if watch.listeners:
        watch.start()
        stack.callback(watch.close)
    return Sinks(sinks)


def _notifier(  # each a thing of its own
    plan: Plan, connector: Connector, process: ProcessOptions, secrets: Secrets, sink: Sink, stack: ExitStack
) -> NotifySink:
    """Closed before the journal's history, which keeps its warnings."""
    notifier = NotifySink(
        process.notify,
        facts={"plan": plan.name, "database": connector.where},
        hold_s=process.notify_hold_s,
        redact=secrets.redact,
        secret_names={source.env for source in plan.secrets.values() if source.env is not None},
        report=lambda text: sink.emit(Note(message=text, is_warning=True)),
    )
    stack.callback(notifier.close)
    return notifier


def _serve_metrics(
    plan: Plan, address: tuple[str, int], watch: SnapshotWatch, stack: ExitStack, names: Sequence[str] = ()
) -> MetricsSink:
    metrics = MetricsSink(plan=plan.name, budgets=Budgets.of(plan))
    page = StatusPage(plan.name, freshen=watch.freshen)
    watch.listeners += [metrics.update, page.update]
    watch.readers.append(ServerReader(metrics.take).look)
    watch.on_error = metrics.count_error
    host, port = address
    routes = {**page.routes, "/metrics": metrics_route(metrics.registry, freshen=watch.freshen)}
    server = WebServer(routes, host=host, port=port, allowed_hosts=names)
    url = server.start()
    say_note(f"status page: {url}/")
    say_note(f"metrics: {url}/metrics")
    stack.callback(server.stop)
    stack.callback(lambda: _await_last_scrape(metrics))
    return metrics


def _await_last_scrape(metrics: MetricsSink) -> None:
    """Wait until Prometheus has scraped how the run ended, for its alerts; Ctrl-C ends the wait."""
    within_s = metrics.registry.last_scrape_within_s()
    if within_s is not None:
        say_note(f"metrics: waiting for the next scrape, at most {within_s:.0f} s")
        with suppress(KeyboardInterrupt):
            metrics.registry.await_last_scrape()


def _say_findings(findings: list[Finding], sink: Sink) -> None:
    """Print warnings and questions; findings that stop the run are its error.  The report keeps all."""
    for finding in findings:
        where = place_text("", finding.step, finding.table)
        sink.emit(
            CheckFound(severity=finding.severity.value, fact=finding.fact, where=where, remedy=finding.remedy)
        )
    echo_findings([f for f in findings if f.severity in (Severity.WARN, Severity.ASK)], err=True)


@contextmanager
def _stoppable(signal: Signal, screen: Screen) -> Iterator[None]:
    """First signal: stop after the batch.  Second: cancel the statement; psycopg does so on
    KeyboardInterrupt.

    Third: end the process, for a server that does not answer a cancel; the journal survives it like a power
    failure.
    """
    received: list[str] = []

    def on_signal(number: int, _: FrameType | None) -> None:
        name = os_signal.Signals(number).name
        received.append(name)
        if len(received) == 1:
            screen.notice(f"{name}: stopping after the current batch or statement; send it again to cancel")
            signal.stop(name)
        elif len(received) == 2:
            screen.notice(f"{name}: cancelling; send it again to end this process at once")
            signal.abort(name)
            raise KeyboardInterrupt
        else:
            os._exit(Interrupted.exit_code)

    handled = [os_signal.SIGINT, os_signal.SIGTERM]
    if os_signal.getsignal(os_signal.SIGHUP) is not os_signal.SIG_IGN:  # under nohup the run continues
        handled.append(os_signal.SIGHUP)
    before = {number: os_signal.signal(number, on_signal) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            os_signal.signal(number, handler)


def _show_secret(
    name: str, value: str, *, stem: str, where: str, directory: Path | None, screen: Screen
) -> str:
    """Show a generated secret on the terminal, else write it to a file, before its row commits; where it
    went.
    """
    if sys.stdout.isatty() and sys.stderr.isatty():
        screen.keep(f"\n{name} (shown once; the database keeps only its SHA-256): {value}\n")
        return "the terminal"
    path = write_secret_file(directory or default_directory(os.environ), stem, value)
    screen.keep(f"{name} for {where}: written to {path} (mode 0600); the database keeps only its SHA-256")
    return str(path)

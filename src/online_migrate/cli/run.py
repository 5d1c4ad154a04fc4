"""online-migrate run."""

from __future__ import annotations

import os
import signal as os_signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import click

from online_migrate.cli.common import (
    CLOCK,
    connector_of,
    dsn_option,
    echo_findings,
    plan_argument,
    read_plan,
    say,
)
from online_migrate.cli.screen import Screen
from online_migrate.clock import Signal
from online_migrate.engine.runner import Ended, Options, Runner
from online_migrate.engine.secrets import Secrets
from online_migrate.errors import Interrupted, UsageError
from online_migrate.events import CheckFound, Event, SecretShown, Sink, Sinks
from online_migrate.findings import (
    Finding,
    Severity,
)
from online_migrate.observe.history import HistorySink
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
from online_migrate.postgres.connection import Connector


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """How a run is watched."""

    log_format: Format = "console"
    log_level: str = "info"
    metrics_address: tuple[str, int] | None = None
    on_statement: Callable[[], None] | None = None
    """called before each statement; the demo's fault injection counts them"""
    sinks: Sequence[Sink] = ()


@click.command("run")
@plan_argument
@dsn_option
@click.option("--through", metavar="STAGE", help="Stop after this stage.")
@click.option(
    "--approve", metavar="STAGE", multiple=True, help="Open this stage's gate; may be given several times."
)
@click.option(
    "--accept-changed-plan", is_flag=True, help="Go on with a plan that is not the one the run began with."
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Serve the status page and /metrics here; 0 takes a free port.",
)
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Address for --metrics-port.")
@click.option("--log-format", type=click.Choice(["console", "json"]), default="console", show_default=True)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def run_command(
    plan: Path,
    dsn: str,
    through: str | None,
    approve: tuple[str, ...],
    accept_changed_plan: bool,
    metrics_port: int | None,
    metrics_host: str,
    log_format: Format,
    log_level: str,
) -> None:
    """Carry PLAN out.  The same command goes on after any stop, crash or lost connection.

    Ctrl-C once: finish the batch, keep the state, exit 130.  Twice: cancel the statement that runs.

    \b
    online-migrate run plans/multi_tenant.yaml --through backfill --metrics-port 9187
    """
    address = None if metrics_port is None else (metrics_host, metrics_port)
    wiring = Wiring(log_format=log_format, log_level=log_level, metrics_address=address)
    options = Options(through=through, approve=approve, accept_changed_plan=accept_changed_plan)
    ended = run_plan(read_plan(plan), dsn, options, wiring)
    say(f"{ended.what}\nnext: {ended.next}")


def run_plan(plan: Plan, dsn: str, options: Options, wiring: Wiring) -> Ended:
    """Wire a run and carry it out; raises what the runner raises."""
    connector = Connector(dsn=dsn, schema=plan.schema, on_statement=wiring.on_statement)
    signal = Signal()
    with ExitStack() as stack:
        locks = LockSummary()
        screen = Screen(is_live=wiring.log_format == "console" and wiring.log_level == "info")
        stack.callback(lambda: screen.say_all(locks.lines()))
        sinks = _listeners(
            plan, connector_of(plan, dsn), replace(wiring, sinks=(*wiring.sinks, locks)), screen, stack
        )
        runner = Runner(
            plan=plan,
            connector=connector,
            clock=CLOCK,
            signal=signal,
            sink=sinks,
            secrets=Secrets(plan.secrets, os.environ),
            show_secret=lambda name, value: _show_secret(plan, connector.where, name, value, screen, sinks),
            options=options,
            on_findings=lambda findings: _say_findings(findings, sinks),
        )
        stack.enter_context(_stoppable(signal, screen))
        return runner.run()


def _listeners(plan: Plan, connector: Connector, wiring: Wiring, screen: Screen, stack: ExitStack) -> Sinks:
    """Log, journal's history, metrics and, on a terminal, the live table; all that reads and writes does so on one session."""
    sinks: list[Sink] = [*wiring.sinks]
    session = Session(connector)
    watch = SnapshotWatch(session, plan.name, every_s=IDLE_S)
    if wiring.metrics_address is not None:  # first, so that its wait for a last scrape is the last of all
        sinks.append(_serve_metrics(plan, wiring.metrics_address, watch, stack))
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
                fmt=wiring.log_format,
                stream=sys.stderr,
                level=wiring.log_level,
                colour=sys.stderr.isatty(),
            )
        )
    if watch.listeners:
        watch.start()
        stack.callback(watch.close)
    return Sinks(sinks)


def _serve_metrics(
    plan: Plan, address: tuple[str, int], watch: SnapshotWatch, stack: ExitStack
) -> MetricsSink:
    metrics = MetricsSink(plan=plan.name, budgets=Budgets.of(plan))
    page = StatusPage(plan.name, freshen=watch.freshen)
    watch.listeners += [metrics.update, page.update]
    watch.looks.append(ServerReader(metrics.take).look)
    watch.on_error = metrics.count_error
    host, port = address
    routes = {**page.routes, "/metrics": metrics_route(metrics.registry, freshen=watch.freshen)}
    server = WebServer(routes, host=host, port=port)
    url = server.start()
    say(f"status page: {url}/\nmetrics: {url}/metrics", err=True)
    stack.callback(server.stop)
    stack.callback(lambda: _await_last_scrape(metrics))
    return metrics


def _await_last_scrape(metrics: MetricsSink) -> None:
    """An alert on how the run ended needs one scrape of the end; Ctrl-C goes at once."""
    within_s = metrics.registry.last_scrape_within_s()
    if within_s is not None:
        say(f"metrics: up for the next scrape, at most {within_s:.0f} s more", err=True)
        with suppress(KeyboardInterrupt):
            metrics.registry.await_last_scrape()


def _say_findings(findings: list[Finding], sink: Sink) -> None:
    """Warnings and questions; what stops the run is its error.  All of them are kept for the report."""
    for finding in findings:
        where = place_text("", finding.step, finding.table)
        sink.emit(
            CheckFound(severity=finding.severity.value, fact=finding.fact, where=where, remedy=finding.remedy)
        )
    echo_findings([f for f in findings if f.severity in (Severity.WARN, Severity.ASK)], err=True)


@contextmanager
def _stoppable(signal: Signal, screen: Screen) -> Iterator[None]:
    """First signal: stop after the batch.  Second: cancel the statement; psycopg does so on KeyboardInterrupt.

    Third: end at once, as a power cut would, which the journal survives: for a server that does not even answer a cancel.
    """
    received: list[str] = []

    def on_signal(number: int, _: FrameType | None) -> None:
        name = os_signal.Signals(number).name
        received.append(name)
        if len(received) == 1:
            screen.notice(f"{name}: stopping after the current batch or statement; once more cancels it")
            signal.stop(name)
        elif len(received) == 2:
            screen.notice(f"{name}: cancelling; once more ends this process at once")
            signal.abort(name)
            raise KeyboardInterrupt
        else:
            os._exit(Interrupted.exit_code)

    heard = [os_signal.SIGINT, os_signal.SIGTERM]
    if os_signal.getsignal(os_signal.SIGHUP) is not os_signal.SIG_IGN:  # nohup: it is to go on
        heard.append(os_signal.SIGHUP)
    before = {number: os_signal.signal(number, on_signal) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            os_signal.signal(number, handler)


def _show_secret(plan: Plan, where: str, name: str, value: str, screen: Screen, sink: Sinks) -> str:
    """On the terminal; without one into a file that only we may read, before its row commits."""
    if sys.stdout.isatty() and sys.stderr.isatty():
        screen.keep(f"\n{name} (shown only now; its SHA-256 alone is kept): {value}\n")
        shown = "the terminal"
    else:
        shown = str(_write_secret(_free_path(Path(f"{plan.name}.{name}.secret")), f"{value}\n"))
        screen.keep(
            f"{name} for {where}: written once to {shown} (mode 0600); only its SHA-256 is kept in the database"
        )
    event: Event = SecretShown(secret=name, where=shown)
    sink.emit(event)
    return shown


def _write_secret(path: Path, text: str) -> Path:
    """A new file of mode 0600, safe on the disk."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UsageError(
            f"a secret cannot be written to {path}: {error.strerror}",
            remedy="run in a folder where you may write, or on a terminal",
        ) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return path.resolve()


def _free_path(path: Path) -> Path:
    """A name that is not taken: an older token may be in use."""
    candidates = (path, *(path.with_suffix(f".{n}.secret") for n in range(1, 1000)))
    return next(p for p in candidates if not p.exists())

"""What an operator sees of a real night, asked of Prometheus as Grafana does: before, between and after the
runners.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from online_migrate.observe.prometheus.sink import STATES
from tests.observe.grafana.dashboards import alerts, expressions, figures, marks, panels, sides
from tests.observe.grafana.test_dashboard import OTHERS
from tests.observe.night import GATE, LITERAL, TOKEN, Night, get

pytestmark = [pytest.mark.prometheus, pytest.mark.timeout(240)]
NOW_ONLY = {
    "Running for": "no runner",
    "Time left": "nobody fills",
    "Slowest standby": "nobody reads it, and an old reading would calm",
    "Multixacts": "nobody reads them, and an old reading would calm",
    "Reasons of the waits": "no wait is open",
    "Reasons of the throttlers": "nobody asks them",
    "Reports": "no throttler is read",
    "Blocking sessions": "no runner checks",
    "Phases": "nothing runs",
}
"""figures that are empty where no runner is, each with its reason"""
OF_THE_LIVING = {"Heartbeat", "Last progress", "Lease"}
"""figures that are empty once a run has ended, but not where its runner was killed"""
OF_THE_ENDED = {"Exit code"}
"""the other way round"""


def figure(night: Night, title: str, moment: float) -> list[float]:
    """What that figure of the night's dashboard says at that moment."""
    (panel,) = (panel for panel in panels("online-migrate-night") if panel["title"] == title)
    return night.points_at(moment, panel["targets"][0]["expr"])


def empty_figures(night: Night, moment: float) -> set[str]:
    """All but the one that is a flow: it ends a while after the rows."""
    shown = ((title, expression) for title, expression in figures() if title != "Rows per second")
    return {title for title, expression in shown if not night.points_at(moment, expression)}


def test_every_panel_of_a_real_night_has_a_point(night: Night) -> None:
    """What an operator opens at night is not empty; only what postgres_exporter has
    is excused, by its names.
    """
    ours = [(title, expr) for title, expr in expressions() if not any(name in expr for name in OTHERS)]
    assert len(ours) > 60
    assert [one for one in ours if not night.points(one[1])] == []


def test_every_figure_is_there_where_the_runner_has_gone(night: Night) -> None:
    """That is when an operator opens the dashboard: at the gate, after a crash, and in the morning after the
    end.
    """
    assert empty_figures(night, night.at_gate) == NOW_ONLY.keys() | OF_THE_LIVING
    assert empty_figures(night, night.killed) == NOW_ONLY.keys() | OF_THE_ENDED
    assert empty_figures(night, night.ended) == NOW_ONLY.keys() | OF_THE_LIVING


def test_a_gate_is_seen_in_the_figures(night: Night) -> None:
    """The runner has ended; its last values remain, and nothing healthy is red."""
    assert figure(night, "Run", night.at_gate) == [STATES["waiting"]]
    assert figure(night, "Waiting gates", night.at_gate) == [1]
    assert figure(night, "Exit code", night.at_gate) == [GATE]
    assert figure(night, "Lease", night.at_gate) == []
    assert figure(night, "Running steps", night.at_gate) == [0]


def test_a_runner_that_is_at_work_speaks_for_itself(night: Night) -> None:
    """Nothing of the runner before is left in its figures."""
    assert figure(night, "Run", night.at_work) == [STATES["running"]]
    assert figure(night, "Waiting gates", night.at_work) == [0]
    assert figure(night, "Exit code", night.at_work) == []
    assert figure(night, "Lease", night.at_work) == [1]
    assert figure(night, "Heartbeat", night.at_work)[0] < 15


def test_a_runner_that_was_killed_is_seen_by_its_heartbeat(night: Night) -> None:
    """Its last value was that it runs; its heartbeat's age grows from there, and what it had started is
    shown.
    """
    assert figure(night, "Run", night.killed) == [STATES["running"]]
    assert figure(night, "Running steps", night.killed) == [1]
    assert figure(night, "Exit code", night.killed) == []
    assert figure(night, "Lease", night.killed) == [1]
    assert figure(night, "Heartbeat", night.killed)[0] > figure(night, "Heartbeat", night.at_work)[0]
    assert "OnlineMigrateRunnerGone" not in night.firing(night.at_gate)
    gone = next(rule["expr"] for rule in alerts() if rule["alert"] == "OnlineMigrateRunnerGone")
    assert night.points_at(night.at_gate, gone) == []
    assert len(night.points_at(night.killed, gone)) == 1


def test_the_end_is_seen_in_the_figures(night: Night) -> None:
    """In the morning all is done, by any runner."""
    assert figure(night, "Run", night.ended) == [STATES["done"]]
    assert figure(night, "Steps done", night.ended) == [1]
    assert figure(night, "Rows filled", night.ended) == [1]
    assert figure(night, "Exit code", night.ended) == [0]
    assert figure(night, "Failures", night.ended) == [0]


def test_every_annotation_of_a_real_night_marks_something(night: Night) -> None:
    """Stages, the gate, the pause and the lock windows of this run are marked."""
    assert [name for name, expression in marks() if not night.points(expression)] == []


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_every_alert_of_a_real_night_has_data_on_all_its_sides(night: Night, rule: dict[str, Any]) -> None:
    """An alert that is silent because its metric does not exist would look like one that has nothing to say.

    Its sides match, too: the whole of it is asked over the whole night, which fails where they are many to
    many.
    """
    assert [side for side in sides(rule["expr"]) if not night.points(side)] == []
    night.points(rule["expr"])


def test_alerts_say_what_each_moment_needs(night: Night) -> None:
    """At the gate an operator has to decide; once it is passed, and once all is done, there is nothing to
    say.
    """
    assert night.firing(night.at_gate) == {"OnlineMigrateGateWaiting"}
    assert night.firing(night.at_work) == set()
    assert night.firing(night.ended) == set()


def test_no_secret_and_no_literal_is_seen(night: Night) -> None:
    """Not in the logs at their most talkative, not in the journal, not in a label: neither ours nor a
    customer's.
    """
    (written,) = night.folder.rglob("*.secret")
    with psycopg.connect(night.dsn) as connection:
        history = str(connection.execute("SELECT event, fields::text FROM online_migrate.history").fetchall())
    labels = get(f"{night.prometheus.url}/api/v1/series?match[]={{job='online-migrate'}}".replace("'", "%22"))
    places = {"log": night.log, "journal": history, "labels": labels}
    assert all("blockers_seen" in text or "blocker_info" in text for text in places.values())
    for place, text in places.items():
        for secret in (TOKEN, LITERAL, written.read_text(encoding="utf-8").strip()):
            assert secret not in text, place


def test_the_figures_are_true(night: Night) -> None:
    """Some figures against what was really done."""

    def largest(expression: str) -> float:
        return max(night.points(expression))

    with psycopg.connect(night.dsn) as connection:
        row = connection.execute(
            "SELECT count(*), sum(rows_done) FILTER (WHERE stage = 'backfill') FROM online_migrate.step"
            " WHERE state = 'done'"
        ).fetchone()
    assert row == (
        largest("online_migrate_run_steps_done"),
        largest("sum(online_migrate_backfill_rows_total)"),
    )
    assert largest('online_migrate_waits_open{kind="blocker"}') == 1
    assert largest("max(online_migrate_blockers)") >= 1
    assert largest("max(online_migrate_backfill_done_ratio)") == 1
    assert largest("time() - online_migrate_last_heartbeat_time_seconds") < 15
    assert largest("online_migrate_connections") <= 6
    assert largest('online_migrate_stage_state{stage="swap"}') == STATES["done"]
    assert largest('online_migrate_stage_state{stage="finish"}') == STATES["done"]
    assert largest("online_migrate_server_wal_bytes_total") > 100_000

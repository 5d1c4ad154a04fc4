"""One address for the metrics of runners that start and end."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from online_migrate.observe.prometheus.relay import MetricsRelay
from online_migrate.observe.web import Page, Route, WebServer
from tests.observe.made_runs import make_snapshot

RUNNERS = Page(content_type="text/plain", body=b"the runner's")


@contextmanager
def following(answer: Route) -> Iterator[MetricsRelay]:
    """A relay in front of a runner that answers so; the runner ends with the block."""
    relay, runner = MetricsRelay("shop"), WebServer({"/metrics": answer})
    relay.update(make_snapshot())
    relay.follow(f"{runner.start()}/metrics")
    yield relay
    runner.stop()


def test_the_metrics_are_those_of_the_runner_at_work() -> None:
    """The demo kills its runners: Prometheus keeps its target, and reads the journal's figures in between."""
    with following(lambda _: RUNNERS) as relay:
        assert relay.answer({}).body == b"the runner's"
    assert b"online_migrate_run_steps_done" in relay.answer({}).body


def test_a_runner_that_is_busy_for_a_moment_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One slow answer hides the runner's counters for one scrape, not for the rest of the run."""
    monkeypatch.setattr("online_migrate.observe.prometheus.relay.WAIT_S", 0.1)
    slow = [0.3]

    def answer(_: Mapping[str, str]) -> Page:
        time.sleep(slow.pop() if slow else 0)
        return RUNNERS

    with following(answer) as relay:
        assert b"online_migrate_run_steps_done" in relay.answer({}).body
        monkeypatch.setattr("online_migrate.observe.prometheus.relay.WAIT_S", 5.0)
        assert relay.answer({}).body == b"the runner's"


def test_no_proxy_is_used_between_the_relay_and_its_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator's proxy cannot reach this machine's loopback address."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # made again, as in a new process
    with following(lambda _: RUNNERS) as relay:
        assert relay.answer({}).body == b"the runner's"
    monkeypatch.setattr(urllib.request, "_opener", None)

"""The registry: what it leaves out, and that the end of a run is scraped."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest

from online_migrate.observe.prometheus.series import LAST_SCRAPE_S, Registry, without_figures
from tests.observe.prometheus.test_metrics import MadeClock


class ScrapedMeanwhile(MadeClock):
    """While a thread waits, a scrape comes."""

    def __init__(self) -> None:
        super().__init__()
        self.registry: Registry | None = None

    def wait(self, seconds: float, signal: object) -> bool:  # noqa: ARG002  # a clock's
        self.waited.append(seconds)
        assert self.registry is not None
        if len(self.waited) == 1:
            generate_latest(self.registry)
        return len(self.waited) == 1


def test_the_end_of_a_run_waits_for_the_scrape_that_shows_it() -> None:
    """A runner that exits at once ends unseen: no alert could say that it failed or is at a gate."""
    clock = ScrapedMeanwhile()
    registry = clock.registry = Registry(clock=clock)
    for _ in range(3):
        generate_latest(registry)
        clock.now += 5
    assert registry.last_scrape_within_s() == pytest.approx(8.5)
    assert registry.await_last_scrape()
    assert clock.waited[0] == pytest.approx(8.5)


def test_where_nobody_scrapes_nobody_is_waited_for() -> None:
    """The command ends when the run ends; one look, long ago, was no Prometheus."""
    clock = MadeClock()
    registry = Registry(clock=clock)
    assert not registry.await_last_scrape()
    generate_latest(registry)
    clock.now += LAST_SCRAPE_S
    assert registry.last_scrape_within_s() is None
    assert not registry.await_last_scrape()


def test_a_run_that_is_over_before_the_second_scrape_waits_for_it() -> None:
    """After a gate the rest may take two seconds: unseen, the gate would seem to wait for a day."""
    clock = ScrapedMeanwhile()
    registry = clock.registry = Registry(clock=clock)
    generate_latest(registry)
    clock.now += 2
    assert registry.last_scrape_within_s() == LAST_SCRAPE_S - 2
    assert registry.await_last_scrape()


def test_a_prometheus_that_went_away_is_not_waited_for_and_none_for_long() -> None:
    """The wait has a bound, and needs a reason."""
    clock = MadeClock()
    registry = Registry(clock=clock)
    for _ in range(2):
        generate_latest(registry)
        clock.now += 60
    assert registry.last_scrape_within_s() == LAST_SCRAPE_S
    clock.now += 200
    assert registry.last_scrape_within_s() is None


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("standby a is 71.3 MiB behind (limit 64 MiB)", "standby a is … MiB behind (limit … MiB)"),
        ("pid 812 (shop, web-2): idle for 3 s", "pid 812 (shop, web-2): idle for … s"),
        ("process 7, user app1", "process 7, user app1"),
        ("two\nlines", "two lines"),
    ],
)
def test_a_text_becomes_a_label_without_its_figures(text: str, label: str) -> None:
    """A label that changes every second is a new series every second; names and processes' numbers stay."""
    assert without_figures(text) == label

"""The HTTP server of a runner."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse

import pytest

from online_migrate.errors import UsageError
from online_migrate.events import Note, RunStarted
from online_migrate.observe.prometheus.exposition import metrics_route
from online_migrate.observe.prometheus.sink import MetricsSink
from online_migrate.observe.web import LOOPBACK, WebServer


@pytest.fixture
def sink() -> MetricsSink:
    return MetricsSink(plan="shop")


def serving(sink: MetricsSink, *, host: str = LOOPBACK, port: int = 0) -> WebServer:
    return WebServer({"/metrics": metrics_route(sink.registry)}, host=host, port=port)


@pytest.fixture
def url(sink: MetricsSink) -> Iterator[str]:
    server = serving(sink)
    yield server.start()
    server.stop()
    server.stop()


def get(url: str, **headers: str) -> HTTPResponse:
    request = urllib.request.Request(url, headers=headers)
    response: HTTPResponse = urllib.request.urlopen(request, timeout=5)
    with response:
        response.text = response.read().decode()  # type: ignore[attr-defined]
    return response


def text(url: str, **headers: str) -> str:
    return str(get(url, **headers).text)  # type: ignore[attr-defined]


def test_metrics_are_served_as_they_are_now(sink: MetricsSink, url: str) -> None:
    """Prometheus sees the state at the time of its scrape."""
    assert "online_migrate_run_state{" not in text(f"{url}/metrics")
    sink.emit(RunStarted(plan="shop", run_id=1, resumed=False, steps_total=3, steps_done=0))
    sink.emit(Note(message="no metric"))
    assert 'online_migrate_run_state{plan="shop"} 2.0' in text(f"{url}/metrics")


def host_code(url: str, host: str) -> tuple[int, str]:
    try:
        return get(f"{url}/metrics", Host=host).status, ""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.:99", "127.0.0.1", "127.1.2.3:80", "[::1]:80", "db.internal:1"]
)
def test_a_request_for_our_own_name_is_answered(sink: MetricsSink, host: str) -> None:
    """Loopback names, our address, and the names that the operator gave, on any port."""
    server = WebServer({"/metrics": metrics_route(sink.registry)}, allowed_hosts=["DB.internal"])
    try:
        assert host_code(server.start(), host) == (200, "")
    finally:
        server.stop()


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "10.9.8.7", "127.0.0.1.nip.io"]
)
def test_a_name_of_another_site_is_refused(url: str, host: str) -> None:
    """DNS rebinding: a script of another site reaches the port under that site's name, and learns nothing."""
    code, said = host_code(url, host)
    assert code == 421
    assert "--metrics-allow-host" in said
    assert "online_migrate_run_state" not in said


def test_both_formats_are_spoken(url: str) -> None:
    """A scraper gets the format that it asks for."""
    assert get(f"{url}/metrics").headers["Content-Type"].startswith("text/plain")
    answer = get(f"{url}/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")


def test_it_says_that_it_is_well(url: str) -> None:
    """Who keeps the process alive has something to ask."""
    assert text(f"{url}/healthz") == "ok\n"


def test_it_is_on_loopback_unless_told_otherwise(url: str) -> None:
    """Table names are private; a free port is taken for 0."""
    assert url.startswith("http://127.0.0.1:")
    assert not url.endswith(":0")


@pytest.mark.parametrize("path", ["/", "/metrics/more", "/../etc/passwd"])
def test_nothing_else_is_served(url: str, path: str) -> None:
    """A server of metrics is no file server."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(url + path)
    with caught.value as error:
        assert error.code == 404


def test_it_only_reads(url: str) -> None:
    """Nothing can be changed over HTTP."""
    request = urllib.request.Request(f"{url}/metrics", data=b"x", method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=5)
    with caught.value as error:
        assert error.code == 501


def test_a_port_in_use_is_an_error_of_usage_with_a_way_out(sink: MetricsSink) -> None:
    """Before anything is changed, the operator reads what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=str(port)) as caught:
            serving(sink, port=port).start()
    assert "--metrics-port" in caught.value.remedy


@pytest.mark.parametrize(
    ("host", "port"), [("192.0.2.1", 0), ("127.0.0.1", 99_999), ("no.such.host.invalid", 0)]
)
def test_an_address_that_is_not_ours_is_an_error_of_usage(sink: MetricsSink, host: str, port: int) -> None:
    """A mistyped address is said to be one."""
    with pytest.raises(UsageError) as caught:
        serving(sink, host=host, port=port).start()
    assert caught.value.remedy


def test_after_a_stop_the_port_is_free(sink: MetricsSink) -> None:
    """A run that is started again at once gets its port again."""
    server = serving(sink)
    port = int(server.start().rsplit(":", 1)[1])
    server.stop()
    again = serving(sink, port=port)
    assert again.start().endswith(f":{port}")
    again.stop()

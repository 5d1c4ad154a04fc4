"""What the page shows, how it is served, and that nothing from elsewhere can come into it."""

from __future__ import annotations

import gzip
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from online_migrate import events as e
from online_migrate.clock import Signal
from online_migrate.observe.page.document import decide_word, find_blockers, stage_eta_s, to_document
from online_migrate.observe.page.files import SCRIPTS, one_file, read_file
from online_migrate.observe.page.serve import READY_S, StatusPage
from online_migrate.observe.snapshot.read import to_json
from online_migrate.observe.snapshot.views import Snapshot, WaitView
from online_migrate.observe.web import WebServer
from tests.observe.made_runs import BACKFILL, NOON, make_record, make_snapshot, started, whole_run

PLACE: dict[str, Any] = dict(zip(("stage", "step", "table"), BACKFILL, strict=True))
WAIT = WaitView(kind="blocker", reason="blocked by pid 12", since=NOON, **PLACE)


class HandClock:
    """A clock that a test moves."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float, signal: Signal) -> bool:
        self.now += seconds
        return signal.is_stopping


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def page(clock: HandClock) -> StatusPage:
    return StatusPage("shop", clock=clock)


@pytest.fixture
def url(page: StatusPage) -> Iterator[str]:
    server = WebServer(page.routes)
    yield server.start()
    server.stop()


def get(url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=named), timeout=5) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


# what is shown


def test_the_document_is_what_status_json_says_and_more() -> None:
    """Who reads ``status --json`` reads the page's address in the same words."""
    snapshot = make_snapshot()
    document, status = to_document(snapshot), to_json(snapshot)
    assert {key: document[key] for key in ("plan", "state", "is_live", "reason", "pause", "approvals")} == {
        key: status[key] for key in status if key != "stages"
    }
    for ours, theirs in zip(document["stages"], status["stages"], strict=True):
        assert {**ours, "steps": None} == {**theirs, "steps": None, "reason": ours["reason"]}
        for our_step, their_step in zip(ours["steps"], theirs["steps"], strict=True):
            assert their_step.items() <= our_step.items()
    assert json.loads(json.dumps(document)) == document


def test_every_event_of_a_run_can_be_shown() -> None:
    """Nothing that can happen breaks the page."""
    history = tuple(make_record(event, NOON + timedelta(seconds=n)) for n, event in enumerate(whole_run()))
    document = to_document(make_snapshot(history=history))
    assert {event["level"] for event in document["events"]} == {"", "hold", "bad"}
    assert document["events"][0]["text"].startswith("run ended")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "running"),
        ({"waits": (WAIT,)}, "holding"),
        ({"waits": (replace(WAIT, kind="paused"),)}, "paused"),
        ({"is_live": False}, "no runner"),
        ({"is_live": False, "waits": (WAIT,)}, "no runner"),
        ({"state": "waiting", "is_live": False}, "at a gate"),
        ({"state": "failed"}, "failed"),
        ({"state": "done"}, "done"),
    ],
)
def test_one_word_says_how_it_stands(changes: dict[str, Any], word: str) -> None:
    """The first thing to be read at three in the morning."""
    assert decide_word(make_snapshot(**changes)) == word


def filling(**changes: Any) -> Snapshot:
    """A backfill of which 4,500 rows were written in the last 9 s."""
    history = (make_record(started(), NOON.replace(minute=1, second=56)),)
    snapshot = make_snapshot(history=history, **changes)
    steps = tuple(replace(s, rows_done=4_500) if s.key == BACKFILL else s for s in snapshot.steps)
    stages = tuple(
        replace(stage, steps=tuple(s for s in steps if s.stage == stage.stage)) for stage in snapshot.stages
    )
    return replace(snapshot, stages=stages)


def test_the_time_left_is_that_of_the_stage() -> None:
    """What runs, by its own pace, then the rows of the tables to come at the rate of now."""
    document = to_document(filling())
    assert document["rate"] == pytest.approx(500)
    assert document["eta_s"] == pytest.approx(3.0 + 2_000 / 500)


@pytest.mark.parametrize("changes", [{"waits": (WAIT,)}, {"is_live": False}, {"history": ()}])
def test_no_time_left_is_made_up(changes: dict[str, Any]) -> None:
    """It is unknown while it holds, without a runner, and before there is a measure."""
    document = to_document(replace(filling(), **changes))
    assert document["rate"] is None
    assert document["eta_s"] is None


def test_rows_that_nobody_expected_leave_the_time_unknown() -> None:
    """A table that was never analysed has no estimate, so the stage has none."""
    stage = filling().stages[2]
    steps = tuple(replace(s, rows_expected=None) for s in stage.steps)
    assert stage_eta_s(stage, 500) is not None
    assert stage_eta_s(replace(stage, steps=steps), 500) is None


def test_who_is_in_the_way_is_shown_until_the_lock_is_had() -> None:
    """Yesterday's blocker is not today's."""
    seen = make_record(e.BlockersSeen(**PLACE, waiting_for="users", blockers=("pid 12",)))
    held = e.LockHeld(**PLACE, relation="users", lock="x", attempts=1, waited_s=0, held_s=0)
    assert [b.blockers for b in find_blockers(make_snapshot(history=(seen,)))] == [("pid 12",)]
    assert find_blockers(make_snapshot(history=(seen, make_record(held)))) == ()
    assert find_blockers(make_snapshot(history=(seen,), is_live=False)) == ()


# how it is served


def test_the_page_and_all_it_needs_are_served(url: str) -> None:
    """One address is enough."""
    names = ["", *re.findall(r'(?:src|href)="([^"#]+)"', read_file("page.html"))]
    assert {"page.css", "icon.svg", *SCRIPTS} <= set(names)
    for name in names:
        status, headers, body = get(f"{url}/{name}")
        assert (status, bool(body)) == (200, True)
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_nothing_comes_from_elsewhere() -> None:
    """No font, no library, no tracker: the page works on a host without a way out."""
    for name in ("page.html", "page.css", *SCRIPTS):
        found = re.findall(
            r"https?://[^\s\"')]+|@import|url\(|innerHTML|insertAdjacentHTML|\beval\b", read_file(name)
        )
        assert [f for f in found if f != "http://www.w3.org/2000/svg"] == []


def test_before_the_first_reading_the_page_says_so(url: str) -> None:
    """A runner that has just started is no error."""
    status, _, body = get(f"{url}/status.json")
    assert (status, json.loads(body)["word"]) == (200, "starting")


def test_what_has_not_changed_is_not_sent_again(page: StatusPage, url: str) -> None:
    """A page that is polled every second costs the runner next to nothing."""
    page.update(make_snapshot())
    _, headers, body = get(f"{url}/status.json")
    assert json.loads(body)["plan"] == "shop"
    status, _, nothing = get(f"{url}/status.json", If_None_Match=headers["ETag"])
    assert (status, nothing) == (304, b"")
    page.update(make_snapshot(read_at=NOON + timedelta(hours=1)))
    assert get(f"{url}/status.json", If_None_Match=headers["ETag"])[0] == 200


def test_a_large_document_travels_packed(page: StatusPage, url: str) -> None:
    """300 tables over a tunnel to a phone."""
    page.update(make_snapshot(tuple(f"table_{n:03}" for n in range(300))))
    _, headers, packed = get(f"{url}/status.json", Accept_Encoding="gzip")
    _, _, plain = get(f"{url}/status.json")
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed) == plain
    assert len(packed) < 20_000


def test_ready_means_that_the_picture_is_fresh(page: StatusPage, clock: HandClock, url: str) -> None:
    """Who routes people to the page sends none to a stale one; alive is another matter."""
    assert get(f"{url}/readyz")[0] == 503
    page.update(make_snapshot())
    assert get(f"{url}/readyz")[0] == 200
    clock.now += READY_S
    status, _, body = get(f"{url}/readyz")
    assert (status, b"database is unreachable" in body) == (503, True)
    assert get(f"{url}/healthz")[0] == 200


# the one file


def test_the_one_file_cannot_be_broken_out_of() -> None:
    """A table may be called </script>; the file's policy lets nothing run but our own."""
    evil = "</script><script>alert(1)</script><!--"
    text = one_file(to_document(make_snapshot((evil, "orders"))))
    assert "<script>alert" not in text
    assert text.count("</script>") == 2
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', text) == []


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "ground"),
    [
        ("ink", "paper"), ("ink", "ground"), ("muted", "paper"), ("muted", "ground"), ("muted", "soft"),
        ("run", "paper"), ("run", "run-soft"), ("done", "paper"), ("done", "done-soft"), ("hold", "paper"),
        ("hold", "hold-soft"), ("ink", "hold-soft"), ("bad", "paper"), ("bad", "bad-soft"), ("paper", "bad"),
    ],
)  # fmt: skip
def test_every_text_has_contrast(scheme: int, ink: str, ground: str) -> None:
    """4.5 to 1 at least, as WCAG 2.1 asks for (1.4.3), in both colours."""
    blocks = re.findall(r":root \{(.*?)\}", read_file("page.css"), flags=re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6});", blocks[scheme]))
    bright, dark = sorted((luminance(colours[ink]), luminance(colours[ground])), reverse=True)
    assert (bright + 0.05) / (dark + 0.05) >= 4.5

"""What the server remembers of calls that are over: next to nothing, however many there were."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from app.guard import sessions
from app.guard.sessions import PerVisitor
from tests.guests import API, LONG, picture
from tests.live import Live, serving
from tests.waits import until


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("home") / "outputs") as found:
        yield found


@pytest.fixture
def http(live: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.url, timeout=LONG) as found:
        yield found


def ask(http: httpx.Client) -> str:
    return http.post(f"{API}call/job", json={"data": ["0" * 32]}).json()["event_id"]


def books(live: Live) -> dict[str, int]:
    queue, states = live.blocks._queue, live.blocks.app.state_holder
    return {
        "sessions": len(states.session_data), "times": len(states.time_last_used),
        "messages": len(queue.pending_messages_per_session), "pending": len(queue.pending_event_ids_session),
        "events": len(queue.event_ids_to_events),
    }  # fmt: skip


def test_a_calls_session_ends_when_its_answer_was_fetched(live, http):
    before = books(live)
    for _ in range(50):
        assert "no such job" in http.get(f"{API}call/job/{ask(http)}").text
    until(lambda: books(live) == before)


def test_answers_that_nobody_fetches_are_few_and_do_not_stay(live, http, monkeypatch):
    for _ in range(sessions._UNFETCHED + 40):
        last = ask(http)
    until(lambda: not live.blocks._queue.event_ids_to_events)
    assert "no such job" in http.get(f"{API}call/job/{last}").text
    assert books(live)["sessions"] <= sessions._UNFETCHED + 1
    monkeypatch.setattr(sessions, "_PATIENCE", 0.0)
    assert "no such job" in http.get(f"{API}call/job/{ask(http)}").text
    until(lambda: not books(live)["sessions"])


def test_a_pages_own_session_stays(live, http):
    number = next(each["id"] for each in http.get("config").json()["dependencies"] if each["api_name"] == "page_open")
    body = {"data": [None], "fn_index": number, "session_hash": "a-page"}
    for _ in range(2):
        http.post(f"{API}queue/join", json=body)
        assert "process_completed" in http.get(f"{API}queue/data", params={"session_hash": "a-page"}).text
        http.get(f"{API}call/job/{ask(http)}")
        assert "a-page" in live.blocks.app.state_holder


def test_uploads_that_were_watched_are_forgotten(live, http):
    from gradio.routes import file_upload_statuses

    books = (file_upload_statuses._statuses, file_upload_statuses._signals)
    before = [set(book) for book in books]  # of other servers of this process
    for number in range(sessions._UNFETCHED + 20):
        http.post(f"{API}upload", params={"upload_id": f"w{number}"}, files={"files": ("a.png", picture())})
    assert all(len(set(book) - others) <= sessions._UNFETCHED + 1 for book, others in zip(books, before, strict=True))


def test_one_visitor_cannot_push_the_others_sessions_out():
    class Holder:
        def __init__(self) -> None:
            from threading import Lock

            self.lock, self.session_data, self.time_last_used = Lock(), {}, {}

    holder, visitors = Holder(), PerVisitor(3)
    holder.session_data["toms"] = "kept"
    visitors.touch("tom", "toms", holder)
    for number in range(10):
        holder.session_data[f"mias-{number}"] = "a page"
        visitors.touch("mia", f"mias-{number}", holder)
    assert set(holder.session_data) == {"toms", "mias-7", "mias-8", "mias-9"}

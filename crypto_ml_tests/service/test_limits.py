"""What is let in and what is not, and what whoever is not let in is told."""

import gzip
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Event
from typing import Any

import httpx
import pytest
from fastapi import Request

from crypto_ml.service.config import ServiceConfig
from crypto_ml.service.desk import LARGE, Desk
from crypto_ml.service.handling import is_from_here
from crypto_ml.service.media import of_answer
from crypto_ml.service.problems import Problem
from crypto_ml.service.tokens import new_token
from crypto_ml.stages.requests import Asked, Reply
from crypto_ml_tests.dropbox.site import until
from crypto_ml_tests.service.asking import Asking, told_to

ROW = {"symbol": "BTC", "date": "2018-03-25", "open": 2, "high": 3, "low": 1, "close": 2, "market": 0}
READER, READ = new_token("reader", ["read"])
WRITER, WRITE = new_token("writer", ["predict", "read"])
OTHER, ALSO_WRITE = new_token("other", ["predict"])
TIGHT = ServiceConfig(
    most_body_bytes=2_000,
    most_rows=5,
    most_seconds=2,
    most_at_once=3,
    most_of_a_caller=2,
    tokens=f"{READ};{WRITE};{ALSO_WRITE}",
)


class Held:
    """A service whose answers wait until they may go."""

    def __init__(self) -> None:
        self.go = Event()
        self.go.set()
        self.begun = 0

    def put_into(self, service: Any) -> None:
        service.desk.close()
        answer = service.watch.answer

        def held(asked: Sequence[Asked], delivery: str | None, record: bool) -> Sequence[Reply]:
            self.begun += 1
            assert self.go.wait(60)
            found: Sequence[Reply] = answer(asked, delivery, record)
            return found

        service.desk = Desk(held)


@pytest.fixture(scope="module")
def held() -> Held:
    return Held()


@pytest.fixture(scope="module")
def tight(asking: Asking, held: Held) -> Iterator[Asking]:
    """The same deployment, of a service with narrow limits and three tokens."""
    with Asking.on(asking.road.store, TIGHT, held.put_into) as made:
        yield made


def told(response: httpx.Response) -> tuple[int, str]:
    """Status and kind of a problem, which is told as RFC 9457 wants it."""
    document = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert document["status"] == response.status_code
    assert document["request_id"] == response.headers["x-request-id"]
    assert document["detail"] and document["title"]
    assert ("retry-after" in response.headers) == (response.status_code in (429, 503))
    return response.status_code, document["type"].removeprefix("urn:crypto-ml:problem:")


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_every_refusal_is_a_problem_of_its_own_kind(asking: Asking) -> None:
    post, client = asking.post, asking.client
    assert told(post("{", "application/json")) == (422, "unreadable-body")
    assert told(post("", "text/csv")) == (422, "unreadable-body")
    assert told(post("a,b\n1,2\n", "text/csv")) == (422, "rejected")
    assert told(post("[" + '{"a": 1},' * LARGE + "]", "application/json")) == (422, "unreadable-body")
    assert told(post("[]", "application/json")) == (422, "unreadable-body")
    assert told(post("x", "text/plain")) == (415, "unsupported-media-type")
    assert told(post("x", "text/csv", content_encoding="gzip")) == (415, "unsupported-media-type")
    assert told(asking.predict(ROW, accept="image/png")) == (406, "not-acceptable")
    assert told(asking.predict(ROW, idempotency_key="a b")) == (422, "invalid-request")
    assert told(post("x", "text/csv", query="?record=perhaps")) == (422, "invalid-request")
    assert told(client.get("/nowhere")) == (404, "not-found")
    assert told(client.get("/v1/predictions/uploads")) == (404, "not-found")
    assert told(client.get("/v1/forecasts/NONE")) == (404, "not-found")
    got = client.get("/v1/predictions")
    assert (told(got), got.headers["allow"]) == ((405, "method-not-allowed"), "POST")


def test_a_body_of_which_no_row_is_left_says_why_and_under_which_answer_that_stands(asking: Asking) -> None:
    response = asking.predict([ROW | {"low": -1}])
    assert told(response) == (422, "rejected")
    document = response.json()
    assert [row["reason"] for row in document["refused_rows"]] == ["low: not positive"]
    assert asking.get(f"/v1/predictions/{document['answer_id']}")["rows"]["refused"] == 1


def test_a_request_id_comes_back_where_it_is_one_and_is_made_up_where_not(asking: Asking) -> None:
    assert asking.predict(ROW, x_request_id="mine-1").headers["x-request-id"] == "mine-1"
    for wrong in ("a" * 65, "a b", "ü".encode()):
        given = asking.client.get(
            "/healthz", headers=[(b"x-request-id", wrong if isinstance(wrong, bytes) else wrong.encode())]
        )
        assert len(given.headers["x-request-id"]) == 32


def test_without_tokens_nobody_is_answered_who_calls_this_machine_by_a_name_of_their_own(asking: Asking) -> None:
    assert told(asking.predict(ROW, host="evil.example")) == (403, "forbidden")
    for host in ("localhost", "127.0.0.1:8000", "[::1]:8000"):
        assert asking.client.get("/v1/model", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    ("server", "here"),
    [
        (("127.0.0.1", 8000), True),
        (("::1", 8000), True),
        (("192.0.2.1", 8000), False),
        (("::", 8000), False),
        (None, False),
    ],
)
def test_a_machine_asks_itself_at_an_address_that_nobody_else_reaches(server: Any, *, here: bool) -> None:
    asked = Request({"type": "http", "headers": [(b"host", b"localhost")], "server": server})
    assert is_from_here(asked) is here
    twice = Request({**asked.scope, "headers": [(b"host", b"localhost"), (b"host", b"evil.example")]})
    assert not is_from_here(twice)


def test_whoever_asks_for_the_headers_alone_gets_those_of_the_answer(asking: Asking) -> None:
    got, head = asking.client.get("/v1/model"), asking.client.head("/v1/model")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(got.content)))
    assert asking.client.head("/healthz").status_code == 200
    assert asking.client.head("/v1/predictions").status_code == 405
    assert 'method="HEAD"' in asking.client.get("/metrics").text


def test_only_tokens_are_let_in_each_to_what_it_may(tight: Asking) -> None:
    ask = partial(tight.predict, ROW)
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {WRITER}"}):
        response = ask(**headers)
        assert told(response) == (401, "unauthorized")
        assert response.headers["www-authenticate"].startswith("Bearer")
        for path in ("/v1/model", "/v1/forecasts", "/v1/predictions/1", "/metrics"):
            assert tight.client.get(path, headers=headers).status_code == 401
    assert told(ask(**bearer(READER))) == (403, "forbidden")
    assert tight.get("/v1/model", **bearer(READER))["series"] == 100
    assert told(tight.client.get("/v1/model", headers=bearer(OTHER))) == (403, "forbidden")
    assert ask(**bearer(WRITER)).status_code == 200
    assert tight.client.get("/healthz").status_code == 200


def test_a_body_that_is_too_large_too_long_or_too_slow_is_cut_off(tight: Asking) -> None:
    post = partial(tight.client.post, "/v1/predictions", headers=bearer(WRITER) | {"content-type": "text/csv"})
    assert told(post(content=b"x" * 2_001)) == (413, "body-too-large")
    assert told(post(content=iter([b"x" * 100] * 1_000))) == (413, "body-too-large")
    url = tight.client.base_url
    head = f"POST /v1/predictions HTTP/1.1\r\nHost: {url.netloc.decode()}\r\nContent-Type: text/csv\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in bearer(WRITER).items())
    # nine tenths of it never come
    slow = told_to((url.host, int(url.port or 0)), f"{head}Content-Length: 1000\r\n\r\n".encode(), b"x" * 100)
    assert slow.startswith(b"HTTP/1.1 408 ") and b'"urn:crypto-ml:problem:body-too-slow"' in slow
    assert told(tight.predict([ROW] * 6, **bearer(WRITER))) == (422, "too-many-rows")
    assert told(tight.post("x", "text/csv", query="?record=false", **bearer(WRITER))) == (422, "unrecorded-not-allowed")


@contextmanager
def asking_at_once(tight: Asking, held: Held) -> Iterator[Any]:
    """Ask while answers wait; they go when the block ends."""
    held.go.clear()
    before = held.begun
    with ThreadPoolExecutor(8) as pool:

        def ask(token: str) -> "Future[httpx.Response]":
            return pool.submit(partial(tight.predict, ROW, **bearer(token)))

        try:
            yield ask
            assert held.begun > before
        finally:
            held.go.set()


def test_more_at_once_than_a_caller_or_a_worker_may_have_are_told_to_come_again(tight: Asking, held: Held) -> None:
    def at_once() -> str:
        metrics: str = tight.client.get("/metrics", headers=bearer(READER)).text
        return next(line for line in metrics.splitlines() if line.startswith("crypto_ml_requests_at_once "))

    with asking_at_once(tight, held) as ask:
        first = [ask(WRITER), ask(WRITER)]
        until(lambda: at_once().endswith(" 2.0"), "two requests are not in")
        assert told(ask(WRITER).result()) == (429, "too-many-requests")
        first.append(ask(OTHER))
        until(lambda: at_once().endswith(" 3.0"), "three requests are not in")
        assert told(ask(OTHER).result()) == (503, "busy")
        held.go.set()
        assert [one.result().status_code for one in first] == [200] * 3


def test_an_answer_that_takes_too_long_is_given_up_and_one_that_waited_in_vain_is_never_made(
    tight: Asking, held: Held
) -> None:
    packs = "receipts/requests/"
    before = len(list(tight.road.store.list(packs)))
    with asking_at_once(tight, held) as ask:
        begun = ask(WRITER)
        until(lambda: held.begun, "nothing was begun")
        waiting = ask(OTHER)
        assert [told(one.result()) for one in (begun, waiting)] == [(503, "too-long")] * 2
    assert tight.predict(ROW, **bearer(WRITER)).status_code == 200
    assert len(list(tight.road.store.list(packs))) == before + 2


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        (None, "json"),
        ("*/*", "json"),
        ("text/csv", "csv"),
        ("text/*", "csv"),
        ("text/csv;q=0.5, application/json;q=0.4", "csv"),
        ("text/csv, application/json", "json"),
        ("text/html, */*;q=0.1", "json"),
        ("application/json;q=0, */*", "csv"),
        ("text/csv;q=0", None),
        ("text/csv;q=much", None),
        ("image/png", None),
    ],
)
def test_an_answer_comes_as_what_is_accepted_most_and_json_where_nobody_says(
    accept: str | None, answered: str | None
) -> None:
    if answered is None:
        with pytest.raises(Problem):
            of_answer(accept)
    else:
        assert of_answer(accept) == answered


@pytest.mark.parametrize("body", [gzip.compress(b"symbol,date\n" * 100_000), b"PAR1"])
def test_a_body_that_is_small_only_until_it_is_read_is_told_to_come_as_it_is(asking: Asking, body: bytes) -> None:
    told = asking.client.post("/v1/predictions", content=body, headers={"content-type": "text/csv"})
    assert (told.status_code, told.json()["type"]) == (422, "urn:crypto-ml:problem:unreadable-body")
    assert "send it as it is" in told.json()["detail"]


def test_the_report_on_records_says_that_they_were_json(asking: Asking) -> None:
    assert asking.client.post("/v1/predictions", json=ROW).json()["read_as"].startswith("records in JSON")

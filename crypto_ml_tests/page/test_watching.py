"""Files are looked at cheaply, wherever they are; what goes wrong is a sentence, and passes when it has passed."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from crypto_ml.page.sources import (
    BadAddress,
    FileSource,
    NotReadable,
    NotThere,
    ObjectSource,
    TooLarge,
    WebSource,
    source_of,
)
from crypto_ml.page.watching import NewestAnswer, Shown, Watching
from crypto_ml.storage.failures import StoreUnavailable
from crypto_ml.storage.objects import ObjectStore, connect
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.page.files import as_csv, predictions
from crypto_ml_tests.stages.road import Road, upload

BTC = as_csv(predictions({"BTC": 5}))
BOTH = as_csv(predictions({"BTC": 5, "ETH": 5}))


class Web(ThreadingHTTPServer):
    """A web server whose answer a test chooses; it tells versions apart by ETag, by time, or not at all."""

    content = BTC
    status = 200
    validator: str | None = "ETag"
    version = "1"
    sent: list[int]


class _Answer(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        name = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}.get(self.server.validator or "")
        same = name is not None and self.headers.get(name) == self.server.version
        status = 304 if same and self.server.status == 200 else self.server.status
        self.server.sent.append(status)
        self.send_response(status)
        if self.server.validator:
            self.send_header(self.server.validator, self.server.version)
        content = b"" if status == 304 else self.server.content
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Web]:
    with Web(("127.0.0.1", 0), _Answer) as server:
        server.sent = []
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def watch(source: Any) -> Watching:
    return Watching(lambda: source)


def looked(watching: Watching) -> Shown:
    watching.look()
    return watching.shown()


def symbols(shown: Shown) -> list[str]:
    return shown.predictions.value.predictions.symbols if shown.predictions.value else []


@pytest.mark.parametrize("validator", ["ETag", "Last-Modified", None])
def test_what_a_web_server_answers_is_read_once_for_each_version_of_it(web: Web, validator: str | None) -> None:
    web.validator = validator
    watching = watch(source_of(f"http://127.0.0.1:{web.server_port}/some_preds.csv?X-Signature=secret"))
    first = looked(watching)
    assert symbols(first) == ["BTC"]
    assert first.predictions.address == f"http://127.0.0.1:{web.server_port}/some_preds.csv?…"
    assert first.report.address is None  # a signature is for one file
    assert looked(watching) is first
    assert web.sent == [200, 304 if validator else 200]
    web.content, web.version = BOTH, "2"
    assert symbols(looked(watching)) == ["BTC", "ETH"]


def test_a_web_server_that_refuses_fails_or_is_gone_is_said_and_what_was_read_stays_until_it_is_back(web: Web) -> None:
    watching = watch(source_of(f"http://127.0.0.1:{web.server_port}/predictions/some_preds.csv"))
    before = looked(watching)
    assert before.forecasts.address == f"http://127.0.0.1:{web.server_port}/forecasts/latest.csv"
    for status, words in (
        (403, "refuses to show it"),
        (404, "There is nothing at"),
        (503, "cannot answer now"),
        (418, "418"),
    ):
        web.status = status
        shown = looked(watching)
        assert words in str(shown.predictions.trouble)
        assert symbols(shown) == ["BTC"]
    web.status = 200
    back = looked(watching)
    assert back.predictions.trouble is None
    assert symbols(back) == ["BTC"]
    gone = watch(WebSource("http://127.0.0.1:9/nobody_preds.csv"))
    assert "does not answer (ConnectionRefusedError)" in str(looked(gone).predictions.trouble)
    assert not gone.look()


def test_a_local_file_is_read_when_it_changes_and_what_is_wrong_with_it_passes_when_it_is_mended(
    tmp_path: Path,
) -> None:
    path = tmp_path / "prices_preds.csv"
    watching = watch(FileSource(path))
    assert str(path) in str(looked(watching).predictions.trouble)
    path.write_bytes(BTC[:-30])
    assert "There is no file" in str(looked(watching).predictions.trouble)  # who writes it may be in the middle of it
    assert "only half written" in str(looked(watching).predictions.trouble)
    path.write_bytes(BTC)
    shown = looked(watching)
    assert (symbols(shown), shown.predictions.trouble) == (["BTC"], None)
    assert looked(watching) is shown
    for content, words in ((b"", "empty"), (b"a,b\n1,2\n", "lacks symbol"), (b"\x1f\x8b\n", "packed")):
        path.write_bytes(content)
        watching.look()
        assert watching.look()  # it was answered, and is looked at as soon again as ever
        shown = watching.shown()
        assert words in str(shown.predictions.trouble)
        assert symbols(shown) == ["BTC"]
        assert looked(watching) is shown
    path.unlink()
    assert "There is no file" in str(looked(watching).predictions.trouble)
    path.write_bytes(BOTH.rstrip(b"\n"))  # somebody's editor leaves the last end of a line out
    watching.look()
    assert symbols(looked(watching)) == ["BTC", "ETH"]


def test_what_stands_beside_a_file_is_read_for_itself_and_may_be_missing_or_anything(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    path = tmp_path / "predictions" / "prices_preds.csv"
    path.write_bytes(BTC)
    watching = watch(FileSource(path))
    shown = looked(watching)
    assert all(part.missing for part in (shown.report, shown.refused, shown.forecasts, shown.retraction))
    (tmp_path / "forecasts").mkdir()
    latest = tmp_path / "forecasts" / "latest.csv"
    latest.write_text("symbol,as_of,target_date,pred_open,model_version\nNA,2023-01-01,2023-01-02,1.5,m1\n")
    path.with_name("prices_report.json").write_text("[1, 2]\n")
    path.with_name("prices_preds_rejected_rows.csv").write_text('line,reason,text\n7,"a ""b"", c","x\ny"\n')
    shown = looked(watching)
    assert shown.forecasts.value is not None
    assert shown.forecasts.value.rows == (("NA", "2023-01-01", "2023-01-02", "1.5", "m1", *[""] * 5),)
    assert "no JSON object" in str(shown.report.trouble)
    assert shown.refused.value is not None
    assert shown.refused.value.rows == (("7", 'a "b", c', "x\ny"),)
    path.with_name("prices_report.json").write_text(json.dumps({"model_version": "m1", "rows": None}) + "\n")
    latest.write_bytes(b"\xff\xfe\n")
    path.with_name("prices_preds_rejected_rows.csv").unlink()
    shown = looked(watching)
    assert shown.report.value is not None
    assert shown.report.value.model_version == "m1"
    assert "forecasts cannot be read" in str(shown.forecasts.trouble)
    assert shown.refused.value is None


def test_an_object_is_read_when_its_etag_changes_and_a_store_that_is_away_takes_nothing_from_what_is_shown(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    road = Road(store)
    newest = NewestAnswer(store)
    with pytest.raises(NotThere, match="Nothing was predicted yet"):
        newest()
    watching = Watching(newest)
    assert "drop a file" in str(looked(watching).predictions.trouble)
    road.drop(prices=upload(market({"BTC": 30, "ETH": 30})), notes=b"symbol,date\nBTC,2018-01-01\n")
    road.answer_new()
    shown = looked(watching)
    assert symbols(shown) == ["BTC", "ETH"]
    assert shown.predictions.address == store.uri("predictions/prices_preds.csv")
    assert shown.predictions.trouble is None
    report = shown.report.value
    assert report is not None
    assert report.model_version == road.report("prices")["model_version"]
    assert shown.predictions.value is not None
    assert report.answer_id == shown.predictions.value.predictions.answer
    assert shown.market is not None
    known = shown.market.known("BTC", shown.predictions.stamp).result(timeout=60)
    assert known.trouble is None
    assert known.rows is not None
    assert known.rows.closes.tolist() == market({"BTC": 30, "ETH": 30}).query("symbol == 'BTC'")["close"].tolist()
    # the next file that is answered is followed by itself
    road.drop(later=upload(market({"LTC": 20})))
    road.answer_new()
    assert symbols(looked(watching)) == ["LTC"]
    named = watch(source_of(store.uri("predictions/prices_preds.csv")))
    before = looked(named)
    assert symbols(before) == ["BTC", "ETH"]
    assert looked(named) is before
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        away = ObjectSource(connect(store.bucket), "a_preds.csv")
    with pytest.raises(StoreUnavailable):
        away.newer(None)
    assert "127.0.0.1:9" in str(looked(watch(away)).predictions.trouble)
    missing = looked(watch(source_of(store.uri("predictions/none_preds.csv"))))
    assert "There is no object" in str(missing.predictions.trouble)


def test_an_address_that_means_no_file_and_a_file_that_is_none_are_refused(
    s3_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in (
        "s3://bucket",
        "s3://bucket/folder/",
        "ftp://host/x.csv",
        "http://",
        "http://h:x/",
        "https://a:b@h/x",
    ):
        with pytest.raises(BadAddress):
            source_of(address)
    with pytest.raises(NotReadable, match="no ordinary file"):
        FileSource(tmp_path).newer(None)
    (tmp_path / "large_preds.csv").write_bytes(BTC)
    monkeypatch.setattr("crypto_ml.page.sources.MOST_BYTES", 10)
    with pytest.raises(TooLarge, match="fewer symbols"):
        FileSource(tmp_path / "large_preds.csv").newer(None)

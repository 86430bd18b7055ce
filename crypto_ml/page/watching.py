"""The files that a page shows, looked at again and again by one thread for all who look at the page.

A file is read once for each version of it, whoever looks on. Where the newest version cannot be read, the one before
goes on being shown, with what is wrong; where nobody looks, nothing is asked of anybody.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from crypto_ml.errors import CryptoMLError, Refused
from crypto_ml.forecasting.file_scoring import rejected_rows_path
from crypto_ml.ledger.layout import ANSWERED, PREDICTIONS, answer_keys, companions, latest_forecast_of
from crypto_ml.page.accuracy import Accuracy, accuracy_of_all
from crypto_ml.page.beside import (
    Listed,
    ReportShown,
    RetractionShown,
    read_forecasts,
    read_refused,
    read_report_shown,
    read_retraction_shown,
)
from crypto_ml.page.market import Market
from crypto_ml.page.predictions_file import Predictions, is_ended, read_predictions
from crypto_ml.page.sources import Fetched, FileSource, NotThere, ObjectSource, Source

if TYPE_CHECKING:
    from crypto_ml.storage.objects import ObjectStore

log = logging.getLogger(__name__)

EVERY: Final = 2.0
"""Seconds between two looks."""
LONGEST_PAUSE: Final = 15.0
"""Seconds between two looks at what does not answer."""
DELIVERIES_BACK: Final = 20
"""Deliveries that are searched for one with predictions, from the newest on."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Part(Generic[T]):
    """One file as it is shown. address: where it is, for people; None where there is no such file to look for.

    value: what the newest readable version says. trouble: why the newest version is not shown; missing: that it is
    because there is none. read_at: when `value` was read.
    """

    address: str | None = None
    value: T | None = None
    trouble: str | None = None
    missing: bool = False
    read_at: datetime | None = None
    stamp: str = ""


@dataclass(frozen=True)
class Scored:
    """A predictions file, and how far off it is as a whole."""

    predictions: Predictions
    accuracy: Accuracy | None


@dataclass(frozen=True, eq=False)
class Shown:
    """Everything there is to show, replaced as a whole; `number` grows with every change."""

    number: int = 0
    predictions: Part[Scored] = field(default_factory=Part)
    report: Part[ReportShown] = field(default_factory=Part)
    retraction: Part[RetractionShown] = field(default_factory=Part)
    refused: Part[Listed] = field(default_factory=Part)
    forecasts: Part[Listed] = field(default_factory=Part)
    market: Market | None = None


class Watched(Generic[T]):
    """One file, at the first of some addresses where there is one.

    keeps: whether what was read goes on being shown where the file is gone.
    """

    def __init__(self, sources: Sequence[Source], read: Callable[[bytes], T], *, keeps: bool = False) -> None:
        self._sources = sources
        self._read = read
        self._keeps = keeps
        self._stamps: list[str | None] = [None] * len(sources)
        self._not_ended: str | None = None
        self._wrong_by_content = False
        self.answered = True
        """Whether the last look was answered; by a file that cannot be shown, too: that is mended by another one."""
        self.part: Part[T] = Part(sources[0].shown if sources else None)

    def look(self) -> None:
        """Bring `part` up to date."""
        gone: NotThere | None = None
        self.answered = True
        for number, source in enumerate(self._sources):
            try:
                fetched = source.newer(self._stamps[number])
                if fetched is not None and self._may_be_read(fetched):
                    self._take(number, source, fetched)
            except NotThere as error:
                gone, self._stamps[number] = error, None
                continue
            except CryptoMLError as error:
                self.answered = False
                self._say(str(error))
            except Exception as error:
                self.answered = False
                log.exception("could not read %s", source.shown)
                self._say(f"It cannot be read ({type(error).__name__}).")
            else:
                if fetched is None and not self._wrong_by_content:  # what did not answer does again
                    self._say(None)
            return
        if gone is not None:
            self._say(str(gone), missing=True)

    def _may_be_read(self, fetched: Fetched) -> bool:
        """Who writes a file may be in the middle of its last line: it is read where it stays so."""
        if is_ended(fetched.content) or self._not_ended == fetched.stamp:
            return True
        self._not_ended = fetched.stamp
        return False

    def _take(self, number: int, source: Source, fetched: Fetched) -> None:
        self._stamps = [None] * len(self._sources)
        self._stamps[number] = fetched.stamp
        self._wrong_by_content = True
        try:
            value = self._read(fetched.content)
        except Refused as error:
            self._say(str(error))
            return
        self._wrong_by_content = False
        self.part = Part(source.shown, value, read_at=datetime.now(UTC), stamp=fetched.stamp)

    def _say(self, trouble: str | None, *, missing: bool = False) -> None:
        if missing and not self._keeps:
            self.part = self.part if self.part.missing else Part(self.part.address, trouble=trouble, missing=True)
        elif (self.part.trouble, self.part.missing) != (trouble, missing):
            self.part = replace(self.part, trouble=trouble, missing=missing)


class Watching:
    """Looks at a predictions file and what stands beside it, as long as somebody asks for it.

    choose: where the predictions are, asked before each look. forecasts: where the forecasts are, where that does not
    follow from it.
    """

    def __init__(self, choose: Callable[[], Source], forecasts: Source | None = None, *, every: float = EVERY) -> None:
        self._choose = choose
        self._forecasts = forecasts
        self._every = every
        self._source: Source | None = None
        self._files: dict[str, Watched[Any]] = {}
        self._shown = Shown()
        self._asked, self._ended = Event(), Event()
        self._thread = Thread(target=self._go_on, name="watching", daemon=True)

    def __enter__(self) -> "Watching":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._asked.set()
        self._thread.join(timeout=5)
        if self._shown.market:
            self._shown.market.close()

    def shown(self) -> Shown:
        """What there is to show now; asking keeps the looks going."""
        self._asked.set()
        return self._shown

    def look(self) -> bool:
        """Look once; whether everything answered that was asked."""
        try:
            source = self._choose()
        except CryptoMLError as error:
            if self._shown.predictions.trouble != str(error):
                self._show(predictions=replace(self._shown.predictions, trouble=str(error)))
            return False
        if self._source is None or source.shown != self._source.shown:
            self._begin(source)
        for watched in self._files.values():
            watched.look()
        parts = {name: watched.part for name, watched in self._files.items()}
        if any(getattr(self._shown, name) is not part for name, part in parts.items()):
            self._show(**parts)
        return all(watched.answered for watched in self._files.values())

    def _begin(self, source: Source) -> None:
        """Watch another file, and what is named after it."""
        self._source = source
        beside = companions(source.path or "")
        refused = [source.at(beside.rejected_rows)] if beside else []
        if isinstance(source, FileSource):  # as `crypto-ml score` names them
            refused.append(FileSource(rejected_rows_path(source.file)))
        latest = latest_forecast_of(source.path or "")
        forecasts = self._forecasts or (source.at(latest) if latest else None)
        self._files = {
            "predictions": Watched([source], _scored, keeps=True),
            "report": Watched([source.at(beside.report)] if beside else [], read_report_shown),
            "retraction": Watched([source.at(beside.retracted)] if beside else [], read_retraction_shown),
            "refused": Watched(refused, read_refused),
            "forecasts": Watched([forecasts] if forecasts else [], read_forecasts),
        }
        market, before = _market_of(source), self._shown.market
        same = market and before and market.address == before.address
        self._show(market=before if same else market)

    def _show(self, **changed: Any) -> None:
        self._shown = replace(self._shown, number=self._shown.number + 1, **changed)

    def _go_on(self) -> None:
        pause = self._every
        while self._asked.wait() and not self._ended.is_set():
            self._asked.clear()
            try:
                answered = self.look()
            except Exception as error:
                log.exception("a look failed")
                answered = False
                trouble = f"Something unexpected went wrong ({type(error).__name__}); the log of the page has it."
                if self._shown.predictions.trouble != trouble:
                    self._show(predictions=replace(self._shown.predictions, trouble=trouble))
            pause = self._every if answered else min(2 * pause, LONGEST_PAUSE)
            self._ended.wait(pause)


def _scored(content: bytes) -> Scored:
    predictions = read_predictions(content)
    return Scored(predictions, accuracy_of_all(predictions))


def _market_of(source: Source) -> Market | None:
    """The history of the deployment that published a file, where its address says that one did."""
    if not isinstance(source, ObjectSource):
        return None
    before, found, _ = f"/{source.store.physical(source.key)}".rpartition(f"/{PREDICTIONS}")
    return Market(source.store.below(before)) if found else None


class NewestAnswer:
    """The predictions that a deployment published last: where nobody names a file, the page follows these."""

    def __init__(self, store: "ObjectStore") -> None:
        self._store = store
        self._seen_to: str | None = None
        self._key: str | None = None

    def __call__(self) -> Source:
        """Where they are. A look costs one listing of what is new. Raises NotThere where nothing was predicted yet."""
        found = [entry.key for entry in self._store.list(ANSWERED, start_after=self._seen_to)]
        for answered in reversed(found[-DELIVERIES_BACK:]):
            outcomes = self._store.read_json(answered)
            predicted = [upload for upload, outcome in outcomes.items() if outcome["outcome"] == "PREDICTED"]
            if predicted:
                self._key = answer_keys(max(predicted), self._store.room).predictions
                break
        self._seen_to = found[-1] if found else self._seen_to
        if self._key is None:
            raise NotThere(f"Nothing was predicted yet in {self._store.uri(PREDICTIONS)}: drop a file.")
        return ObjectSource(self._store, self._key)

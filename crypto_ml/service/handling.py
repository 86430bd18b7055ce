"""How a request goes through a worker: who may ask, what was asked, where it is answered, how the answer is sent.

The event loop itself computes nothing that takes longer than a small request; the rest is done somewhere else (the
desk, a few threads). Does not belong here: addresses and methods, which are the application's.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path as FilePath
from typing import Final, TypeVar

from fastapi import FastAPI, Request, Response

from crypto_ml.deployment import Deployment
from crypto_ml.ledger.requests import claim, first_of
from crypto_ml.service import media, problems
from crypto_ml.service.admission import Admission
from crypto_ml.service.config import ServiceConfig
from crypto_ml.service.desk import LARGE, Desk
from crypto_ml.service.forecasts import LatestForecast
from crypto_ml.service.metrics import Metrics
from crypto_ml.service.problems import Problem
from crypto_ml.service.rendering import as_json, csv_headers, reply_document, rows_of
from crypto_ml.service.tokens import OWN_NAMES, Caller, Right, Tokens, is_loopback, is_own_name
from crypto_ml.service.watch import Watch
from crypto_ml.stages.requests import Asked, Reply, read_replies
from crypto_ml.storage.failures import ObjectMissing

IDEMPOTENCY_KEY: Final = re.compile(r"[!-~]{1,255}")
THREADS: Final = 16
"""For what waits for the store: claims, past answers, forecasts."""

TRACES_AT_ONCE: Final = 2
TRACES_WAITING: Final = 8
"""A trace scores its rows again, which takes a core for a while."""

MOST_REFUSED_SHOWN: Final = 100
FEW_BYTES: Final = 64 << 10
"""Of a body that is looked over on the event loop itself; that takes less than handing it over."""

T = TypeVar("T")


@dataclass
class Service:
    """Everything that the handlers of a worker share."""

    deployment: Deployment
    config: ServiceConfig
    metrics: Metrics
    watch: Watch
    desk: Desk
    admission: Admission
    tokens: Tokens
    forecast: LatestForecast = field(default_factory=LatestForecast)
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(THREADS, "store"))
    tracing: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(TRACES_AT_ONCE, "trace"))
    traces: int = 0

    @classmethod
    def of(cls, deployment: Deployment, config: ServiceConfig, *, shared: FilePath | None = None) -> "Service":
        """What one worker needs. shared: the folder by which several tell their metrics together. Raises BadTokens."""
        metrics = Metrics(shared)
        watch = Watch(deployment, metrics)
        return cls(
            deployment,
            config,
            metrics,
            watch,
            Desk(watch.answer),
            Admission(config.most_at_once, config.most_of_a_caller, metrics),
            Tokens.read(config.tokens, config.tokens_file),
        )

    @asynccontextmanager
    async def running(self, _app: FastAPI) -> AsyncIterator[None]:
        """From the first look at what serves until everything that was accepted is answered and settled."""
        await asyncio.to_thread(self.watch.start)
        try:
            yield
        finally:
            await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self.desk.close()
        self.watch.stop()
        self.threads.shutdown(cancel_futures=True)
        self.tracing.shutdown(cancel_futures=True)

    def require(self, request: Request, right: Right) -> Caller:
        """Who asks, where they may. Raises Problem."""
        if not self.tokens and not is_from_here(request):
            raise Problem(
                problems.FORBIDDEN,
                f"without tokens the service answers under {', '.join(OWN_NAMES)} alone: ask under one of these, or "
                "make a token with `crypto-ml serve --new-token NAME`",
            )
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        caller = self.tokens.caller(token.strip() if scheme.lower() == "bearer" else None)
        if caller is None:
            wrong = "this token is not known here" if token else "send a token: Authorization: Bearer cml_…"
            raise Problem(problems.UNAUTHORIZED, wrong, headers={"www-authenticate": 'Bearer realm="crypto_ml"'})
        request.scope["crypto_ml.caller"] = caller.name
        if right not in caller.rights:
            may = " and ".join(sorted(caller.rights))
            raise Problem(problems.FORBIDDEN, f"{caller.name} may {may}, and this takes the right to {right}")
        return caller

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Have something done that waits for the store. Raises what it raises, and Problem where it takes too long."""
        try:
            async with asyncio.timeout(self.config.most_seconds):
                return await asyncio.get_running_loop().run_in_executor(self.threads, work)
        except TimeoutError:
            raise self._too_long() from None

    async def traced(self, work: Callable[[], bytes]) -> bytes:
        """Have something traced. Raises Problem, and what tracing raises."""
        if self.traces >= TRACES_WAITING:
            raise Problem(problems.BUSY, f"{self.traces} traces are being made: ask again in a moment", problems.LATER)
        self.traces += 1
        future = self.tracing.submit(work)
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._trace_done))
        try:
            async with asyncio.timeout(self.config.most_seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise self._too_long() from None

    def _trace_done(self) -> None:
        self.traces -= 1

    def _too_long(self) -> Problem:
        seconds = self.config.most_seconds
        return Problem(problems.TOO_LONG, f"it took longer than {seconds} s: ask again, or for less", problems.LATER)

    async def predicted(self, request: Request, caller: Caller) -> Response:
        """The answer to a request for predictions. Raises Problem, and what the road raises."""
        wanted = media.of_answer(request.headers.get("accept"))
        kind = media.of_body(request.headers.get("content-type"), request.headers.get("content-encoding"))
        record, key = self._recorded(request), _idempotency_key(request)
        if key and not record:
            raise Problem(problems.INVALID, "an answer of which nothing is kept has no use for an Idempotency-Key")
        with self.admission.of(caller.name):
            late = Problem(
                problems.SLOW_BODY, f"the body did not come within {self.config.most_seconds} s: send it again"
            )
            try:
                async with asyncio.timeout(self.config.most_seconds):
                    body = await self._body(request)
                    late = self._too_long()
                    asked = Asked(body, kind, request.scope["crypto_ml.request_id"])
                    rows = self._counted(body, kind)
                    if rows < LARGE:  # a large body is alone in its delivery, and is looked over there
                        await self._beside(len(body) > FEW_BYTES, asked.check)
                    reply = await self._reply(asked, rows, record, caller, key)
                    return await self._beside(rows >= LARGE, partial(self._response, reply, wanted, request))
            except TimeoutError:
                raise late from None

    def _recorded(self, request: Request) -> bool:
        given = request.query_params.getlist("record")
        if not given or given == ["true"]:
            return True
        if given != ["false"]:
            raise Problem(problems.INVALID, "record is true or false")
        if not self.config.unrecorded:
            raise Problem(
                problems.NOT_UNRECORDED, "every answer is recorded here; CRYPTO_ML_SERVE_UNRECORDED=true allows others"
            )
        return False

    async def _body(self, request: Request) -> bytes:
        """The body, of which no more is read than may be. Raises Problem."""
        most = self.config.most_body_bytes
        too_large = Problem(
            problems.TOO_LARGE,
            f"the body has more than {most:,} bytes: send it in parts, or drop it as a file",
            headers={"connection": "close"},
        )
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise too_large
        pieces, size = [], 0
        async for piece in request.stream():
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise too_large
        if not size:
            raise Problem(problems.UNREADABLE, "the body is empty: send a record, a list of records, or CSV")
        return b"".join(pieces)

    def _counted(self, body: bytes, kind: media.Media) -> int:
        """About how many rows a body has, before anybody reads it. Raises Problem where they are too many."""
        rows = body.count(b"{") if kind == "json" else body.rstrip().count(b"\n")
        if rows > self.config.most_rows:
            raise Problem(
                problems.TOO_MANY_ROWS,
                f"the body has {rows:,} rows, and {self.config.most_rows:,} are answered at once: send it in parts",
            )
        return rows

    async def _reply(self, asked: Asked, rows: int, record: bool, caller: Caller, key: str | None) -> Reply:
        delivery = None
        if key is not None:
            delivery, standing = await self.in_thread(partial(self._claimed, asked, caller, key))
            if standing is not None:
                return standing
        future = self.desk.ask(asked, rows=rows, delivery=delivery, record=record)
        self.metrics.waiting.set(self.desk.depth)
        reply = await asyncio.wrap_future(future)
        self.metrics.waiting.set(self.desk.depth)
        counts = reply.report["rows"]
        self.metrics.rows.labels("accepted").inc(counts["accepted"])
        self.metrics.rows.labels("refused").inc(counts["refused"])
        return reply

    def _claimed(self, asked: Asked, caller: Caller, key: str) -> tuple[str, Reply | None]:
        """The delivery that answers an idempotency key, and its answer where it was given. Raises KeyTaken."""
        now, store = datetime.now(UTC), self.deployment.store
        delivery = claim(caller.name, key, asked.body, now, store)
        if delivery >= first_of(now):  # named by this very call, or by one that is just being answered
            return delivery, None
        try:
            return delivery, read_replies(delivery, store)[0]
        except ObjectMissing:
            return delivery, None

    @staticmethod
    async def _beside(long: bool, work: Callable[[], T]) -> T:
        """Do something here and now, or in a thread where that takes long."""
        return await asyncio.to_thread(work) if long else work()

    def _response(self, reply: Reply, wanted: media.Media, request: Request) -> Response:
        counts = reply.report["rows"]
        request.scope["crypto_ml.said"] = (
            f" answer={reply.answer_id} rows={counts['accepted']} refused={counts['refused']}"
        )
        if reply.outcome != "PREDICTED":
            refused = rows_of(reply.refused_rows.slice(0, MOST_REFUSED_SHOWN))
            said = {"answer_id": reply.answer_id, "rows": dict(counts), "refused_rows": refused}
            raise Problem(problems.REJECTED, str(reply.reason), said=said)
        if wanted == "csv":
            return Response(reply.predictions_csv, headers=csv_headers(reply), media_type=media.CSV)
        return Response(as_json(reply_document(reply)), media_type=media.JSON)


def is_from_here(request: Request) -> bool:
    """Whether this machine asks itself, under a name of its own, at an address that nobody else reaches. Where the
    service listens is not enough to go by: tokens may have gone since it began to."""
    names, (address, _) = request.headers.getlist("host"), request.scope["server"] or ("", None)
    return len(names) == 1 and is_own_name(names[0]) and is_loopback(address)


def _idempotency_key(request: Request) -> str | None:
    given = request.headers.getlist("idempotency-key")
    if not given:
        return None
    if len(given) > 1 or not IDEMPOTENCY_KEY.fullmatch(given[0]):
        raise Problem(problems.INVALID, "an Idempotency-Key has 1 to 255 visible characters of ASCII")
    return given[0]

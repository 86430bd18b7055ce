"""What crypto_ml costs a month at three sizes, line by line, beside two other ways: `python docs/cost.py`.

Rates are what was measured, each with the document and the words that say so; prices are those of `docs/prices.toml`;
what is neither is an assumption, and stands in `Assumed`. `python docs/cost.py` writes the tables of
`docs/scaling-figures.md` anew, between their marks, and prints nothing.
"""

import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
FIGURES: Final = ROOT / "docs" / "scaling-figures.md"
PRICES: Final[dict[str, Any]] = tomllib.loads((ROOT / "docs" / "prices.toml").read_text(encoding="utf-8"))
PART: Final = re.compile(r"(?<=<!-- made by docs/cost.py: )(\w+)( -->\n).*?(?=<!-- until here -->)", re.DOTALL)

HOURS: Final = PRICES["hours_in_a_month"]
SECONDS: Final = HOURS * 3600
DAYS: Final = HOURS / 24
GB: Final = 1e9


@dataclass(frozen=True)
class Measured:
    """A rate that was measured. said: the words of the document that say it, which a test looks for there."""

    value: float
    unit: str
    what: str
    document: str
    said: str


BENCHMARKS: Final = "benchmarks/README.md"
PERFORMANCE: Final = "docs/performance.md"

MEASURED: Final = {
    "row": Measured(
        28.5, "core-µs", "a row of a large file, down the whole road", BENCHMARKS, "28.5 µs of processor time"
    ),
    "upload": Measured(109.7, "bytes", "a row of that file", BENCHMARKS, "109.7 of the upload"),
    "raw": Measured(
        177.5, "bytes", "kept of a row and seldom read: as received, as accepted", BENCHMARKS, "177.5 in `raw/`"
    ),
    "history": Measured(48.2, "bytes", "kept of a row in the market history", BENCHMARKS, "48.2 in the history"),
    "answer": Measured(179.4, "bytes", "kept of a row as its answer", BENCHMARKS, "179.4 in predictions"),
    "log": Measured(49.3, "bytes", "kept of a row in the prediction log", BENCHMARKS, "49.3 in the prediction log"),
    "cache": Measured(40.9, "bytes", "kept of a row to find it fast", BENCHMARKS, "40.9 in the cache"),
    "file": Measured(
        4.1,
        "core-ms",
        "a one-row file of a burst, with Dagster",
        BENCHMARKS,
        "Dagster with its runs 4.1 ms of processor time a file",
    ),
    "file_requests": Measured(
        3.04, "requests", "the same, two thirds of them writes", BENCHMARKS, "3.04 (1,000 GETs and 2,008 PUTs"
    ),
    "request": Measured(
        7.1, "core-ms", "a recorded request, 32 at once", BENCHMARKS, "7.1 ms of processor time each, the store 1.0 ms"
    ),
    "look": Measured(2, "listings", "a look of the sensor, nothing new", BENCHMARKS, "2.0 requests, both listings"),
    "service_look": Measured(
        2,
        "requests",
        "a look of a worker of the service, no listing among them",
        BENCHMARKS,
        "2.0 requests, neither of them a listing",
    ),
    "forecast": Measured(8, "core-s", "a forecast of 10,000 symbols", BENCHMARKS, "8 s of processor time; one run"),
    "retrain": Measured(
        9.2,
        "core-min",
        "a retrain on 10,000 symbols × 2 years",
        BENCHMARKS,
        "553 s of processor time",
    ),
    "alone": Measured(
        0.09, "core-s", "an answer to a file of one symbol, in a warm process", PERFORMANCE, "0.09, 64, 0.34 GB"
    ),
}


@dataclass(frozen=True)
class Size:
    """A load. bytes_: uploaded a month; daily_files: files of one row at each close; large_files: the rest, a month."""

    name: str
    symbols: int
    bytes_: float
    daily_files: int
    large_files: int
    requests_a_day: int
    zones: int


SIZES: Final = (
    Size("small", 1_000, 10 * GB, 1, 30, 10_000, 1),
    Size("as asked", 10_000, 1_000 * GB, 10_000, 1_000, 1_000_000, 2),
    Size("ten times", 10_000, 10_000 * GB, 10_000, 10_000, 10_000_000, 2),
)


@dataclass(frozen=True)
class Assumed:
    """What was not measured, and is no price."""

    looks_a_second: float = 0.2
    """Of the sensor, all day: it waits for the queue of deploy/aws, five seconds at most; without one, three."""
    busy: float = 0.5
    """The part of a core that is planned with, for what is always there."""
    reads_an_answer: float = 1.0
    """How often what is published is fetched from outside, as a whole."""
    request_bytes: float = 2_000.0
    """Bytes that leave for a request, headers included."""
    log_bytes_a_request: float = 300.0
    log_bytes_a_file: float = 2_000.0
    log_gb_of_processes: float = 2.0
    """Of daemon, webserver, code server and service together, a month, while nothing happens."""
    months_kept: float = 12.0
    """Months that are kept when the bill is made: nothing is ever deleted."""
    archived_after: float = 1.0
    """Months after which evidence that is seldom read moves to the archive that answers at once."""
    transform_minutes: float = 4.0
    """Minutes for which an instance of a batch transform is paid beside its work: image, model, start."""
    function_gb: float = 3.0
    """Memory of a function: a delivery of 10,000 symbols takes 0.70 GB, larger files more, and cores come with it."""


ASSUMED: Final = Assumed()


def rate(name: str) -> float:
    """What was measured, in seconds, bytes or requests."""
    one = MEASURED[name]
    return one.value * {"core-µs": 1e-6, "core-ms": 1e-3, "core-min": 60.0}.get(one.unit, 1.0)


def rows(size: Size) -> float:
    """Rows a month."""
    return size.bytes_ / rate("upload")


def files(size: Size) -> float:
    """Files a month."""
    return size.daily_files * DAYS + size.large_files


def task(vcpu: float, gb: float, hours: float = HOURS) -> float:
    """Dollars of one container on Fargate."""
    return hours * (vcpu * PRICES["fargate"]["vcpu_hour"] + gb * PRICES["fargate"]["gb_hour"])


def scoring_core_hours(size: Size) -> float:
    """Core-hours a month of answering files and forecasting: rows, files, and a forecast each day."""
    forecasts = DAYS * rate("forecast") * size.symbols / 10_000
    return (rows(size) * rate("row") + size.daily_files * DAYS * rate("file") + forecasts) / 3600


def scoring_cores(size: Size) -> int:
    """Cores of the daemon's container: those of the month, evenly, at the part that is planned with; two at least for
    who has two zones."""
    return max(size.zones, _fargate(scoring_core_hours(size) / HOURS / ASSUMED.busy))


def service_tasks(size: Size) -> int:
    """Containers of one core and two workers, on average: by the month's requests, and three where there are zones."""
    cores = size.requests_a_day / 86_400 * rate("request")
    return max(2 if size.zones == 1 else 3, ceil(cores / ASSUMED.busy))


def stored_gb(size: Size) -> tuple[float, float]:
    """GB after a year at once in use, and in the archive: uploads, and what is kept of them."""
    a_month = rows(size) / GB
    seldom = a_month * (rate("raw") + rate("upload"))
    read = a_month * sum(map(rate, ("history", "answer", "log", "cache")))
    archived = max(0.0, ASSUMED.months_kept - ASSUMED.archived_after)
    return read * ASSUMED.months_kept + seldom * ASSUMED.archived_after, seldom * archived


def _fargate(cores: float) -> int:
    return next(size for size in (1, 2, 4, 8, 16) if size >= min(cores, 16))


def compute_lines(size: Size) -> Iterator[tuple[str, str, float]]:
    """What answers files, requests and people."""
    cores = scoring_cores(size)
    yield "daemon, in which scoring runs", f"{cores} vCPU, {4 * cores} GB", task(cores, 4 * cores)
    yield "code server, webserver, page", "1.25 vCPU, 5 GB", task(1.25, 5)
    count = service_tasks(size)
    yield "service", f"{count} × 1 vCPU, 2 GB", count * task(1, 2)
    weeks = DAYS / 7
    hours = rate("retrain") * size.symbols / 10_000 / 3600 + 0.1
    yield (
        "weekly retrain, a container each",
        f"{weeks:.1f} × {hours:.1f} h of 4 vCPU, 16 GB",
        weeks * task(4, 16, hours),
    )


def database_line(size: Size) -> tuple[str, str, float]:
    """Dagster's records."""
    rds = PRICES["rds"]
    if size.zones == 1:
        return (
            "PostgreSQL",
            "small, one zone, 20 GB",
            HOURS * rds["small_one_zone_hour"] + 20 * rds["gb_month_one_zone"],
        )
    kind = "large" if size.requests_a_day > 5_000_000 else "medium"
    return (
        "PostgreSQL",
        f"{kind}, two zones, 100 GB",
        HOURS * rds[f"{kind}_two_zones_hour"] + 100 * rds["gb_month_two_zones"],
    )


def idle_requests(size: Size) -> tuple[float, float]:
    """Dollars a month of looking where nothing happens: the sensor, and the workers of the service."""
    s3 = PRICES["s3"]
    looks = SECONDS * ASSUMED.looks_a_second * rate("look") * s3["listing_or_write"]
    workers = 2 * service_tasks(size)
    return looks, SECONDS * workers * rate("service_look") * s3["other_request"]


def store_lines(size: Size) -> Iterator[tuple[str, str, float]]:
    """S3."""
    s3 = PRICES["s3"]
    used, archived = stored_gb(size)
    yield "S3, in use, in the twelfth month", f"{used:,.0f} GB", used * s3["gb_month"]
    yield "S3, archive that answers at once", f"{archived:,.0f} GB", archived * s3["gb_month_instant_archive"]
    looks, workers = idle_requests(size)
    yield "S3, the sensor looks", f"{SECONDS * ASSUMED.looks_a_second / 1e6:,.1f} million times", looks
    yield "S3, the service looks", f"{2 * service_tasks(size)} workers, each second", workers
    count = files(size) * rate("file_requests")
    cost = count * (2 / 3 * s3["listing_or_write"] + 1 / 3 * s3["other_request"])
    recorded = size.requests_a_day * DAYS
    yield "S3, files", f"{count:,.0f} requests", cost
    yield "S3, requests recorded", f"{recorded:,.0f} packs at most", recorded * s3["listing_or_write"]


def other_lines(size: Size) -> Iterator[tuple[str, str, float]]:
    """Network, watching, and the rest."""
    net, watching, other = PRICES["network"], PRICES["watching"], PRICES["other"]
    per_second = size.requests_a_day / 86_400
    units = max(1.0, per_second / 25)
    balancer = HOURS * (net["balancer_hour"] + units * net["balancer_unit_hour"])
    yield "load balancer", f"{units:.1f} units", balancer
    yield (
        "NAT gateway (S3 goes past it)",
        f"{size.zones}, 20 GB",
        size.zones * HOURS * net["nat_hour"] + 20 * net["nat_gb"],
    )
    answers = rows(size) * rate("answer") * ASSUMED.reads_an_answer
    out = (answers + size.requests_a_day * DAYS * ASSUMED.request_bytes) / GB
    yield "answers that leave, once each", f"{out:,.0f} GB", out * net["out_gb"]
    logs = (
        ASSUMED.log_gb_of_processes
        + (size.requests_a_day * DAYS * ASSUMED.log_bytes_a_request + files(size) * ASSUMED.log_bytes_a_file) / GB
    )
    yield (
        "logs, alarms, metrics",
        f"{logs:,.0f} GB, 12, 20",
        (logs * watching["log_gb"] + 12 * watching["alarm"] + 20 * watching["metric"]),
    )
    yield "images, secrets", "10 GB, 5", 10 * other["image_gb_month"] + 5 * other["secret_month"]


def environments_line(size: Size) -> tuple[str, str, float]:
    """What stands beside prod: dev with one of everything, preprod with the service alone."""
    small = Size("dev", 100, GB, 1, 30, 1_000, 1)
    lines = [*compute_lines(small), database_line(small), *list(store_lines(small))[2:4], *list(other_lines(small))[:2]]
    dev = sum(dollars for *_, dollars in lines)
    preprod = task(1, 2) + PRICES["network"]["balancer_hour"] * HOURS if size.zones > 1 else 0.0
    return "dev" + (", and preprod's service" if size.zones > 1 else ""), "", dev + preprod


def every_line(size: Size) -> list[tuple[str, str, float]]:
    """The bill: what, how much of it, dollars a month."""
    return [
        *compute_lines(size),
        database_line(size),
        *store_lines(size),
        *other_lines(size),
        environments_line(size),
    ]


def total(size: Size) -> float:
    """Dollars a month."""
    return sum(dollars for *_, dollars in every_line(size))


def ways(size: Size) -> dict[str, float]:
    """Dollars a month of what looks for files and answers them, in four ways; S3, service and the rest are beside."""
    s3 = PRICES["s3"]
    here = sum(dollars for what, _, dollars in compute_lines(size) if what.startswith(("daemon", "code server")))
    here += database_line(size)[2] + idle_requests(size)[0]
    work = (rows(size) * rate("row")) / 3600 / 2  # hours of an instance of two cores
    hour, minutes = PRICES["sagemaker"]["m5_large_hour"], ASSUMED.transform_minutes / 60
    function = PRICES["function"]
    core_seconds = rows(size) * rate("row") + files(size) * rate("alone")
    gb_seconds = core_seconds * max(function["gb_of_a_core"], ASSUMED.function_gb)
    return {
        "here": here,
        "batch transform, a job for each file": hour * (work + files(size) * minutes),
        "batch transform, a job a day": hour * (work + DAYS * minutes),
        "a function for each file": gb_seconds * function["gb_second"]
        + files(size) * (function["request"] + s3["other_request"]),
    }


def sentence() -> str:
    """The bill as the plan tells it."""
    small, asked, large = (_dollars(round(total(size), -1)) for size in SIZES)
    stored = sum(dollars for what, _, dollars in store_lines(SIZES[1]) if not what.startswith("S3, the"))
    return (
        f"At list prices, with everything kept for a year: ${asked} a month at the size asked for, of which "
        f"${_dollars(round(stored, -1))} is S3; ${small} for a small one, ${large} for ten times the load."
    )


def _table(head: list[str], body: list[list[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in body)]) + "\n"


def _dollars(value: float) -> str:
    return f"{value:,.2f}" if 0 < value < 10 else f"{value:,.0f}"


def loads_table() -> str:
    """What the sizes are."""
    body = [
        ["symbols", *(f"{size.symbols:,}" for size in SIZES)],
        ["uploaded a month", *(f"{size.bytes_ / GB:,.0f} GB" for size in SIZES)],
        ["rows a month", *(f"{rows(size) / 1e6:,.0f} million" for size in SIZES)],
        ["files a month", *(f"{files(size):,.0f}" for size in SIZES)],
        ["requests a day", *(f"{size.requests_a_day:,}" for size in SIZES)],
        ["core-hours of scoring a month", *(f"{scoring_core_hours(size):,.0f}" for size in SIZES)],
        [
            "cores the service takes, on average",
            *(f"{size.requests_a_day / 86_400 * rate('request'):.2f}" for size in SIZES),
        ],
        ["kept after a year, in use and archived", *(f"{sum(stored_gb(size)):,.0f} GB" for size in SIZES)],
    ]
    return _table(["", *(size.name for size in SIZES)], body)


def bill_table() -> str:
    """The bill, line by line."""
    bills = [every_line(size) for size in SIZES]
    body = []
    for lines in zip(*bills, strict=True):
        what = max((line[0] for line in lines), key=len)
        body.append([what, *(f"{amount + ': ' if amount else ''}{_dollars(dollars)}" for _, amount, dollars in lines)])
    body.append(["**a month**", *(f"**{_dollars(total(size))}**" for size in SIZES)])
    body.append(["a million rows", *(f"{total(size) / rows(size) * 1e6:.2f}" for size in SIZES)])
    return _table(["dollars a month", *(size.name for size in SIZES)], body)


def ways_table() -> str:
    """Other ways to answer files."""
    every = [ways(size) for size in SIZES]
    return _table(
        ["dollars a month, for answering files", *(size.name for size in SIZES)],
        [[way, *(_dollars(one[way]) for one in every)] for way in every[0]],
    )


def rates_table() -> str:
    """What was measured, and where it stands."""
    body = [
        [one.what, f"{one.value:g} {one.unit}", f"[{one.document}]({_link(one.document)})"] for one in MEASURED.values()
    ]
    return _table(["measured", "", "said in"], body)


def _link(document: str) -> str:
    return document.removeprefix("docs/") if document.startswith("docs/") else f"../{document}"


TABLES: Final[dict[str, Callable[[], str]]] = {
    "loads": loads_table,
    "bill": bill_table,
    "ways": ways_table,
    "rates": rates_table,
}


def written(document: str) -> str:
    """The document with its tables as they are made now. Raises KeyError for a mark that names no table."""
    return PART.sub(lambda part: f"{part[1]}{part[2]}{TABLES[part[1]]()}", document)


if __name__ == "__main__":
    FIGURES.write_text(written(FIGURES.read_text(encoding="utf-8")), encoding="utf-8")
